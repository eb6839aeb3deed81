//! Random changes of the bucket and reads through NFS, compared with what the semantics allow:
//! an answer is a version the key has had, never an older one than was served before, and after one
//! due request and the check behind it, the next answer is what the bucket has.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use proptest::prelude::*;
use support::{Client, World};

/// Keys that get in each other's way: files in directories, a file beside a directory of its name, odd
/// characters, a long component.
fn keys() -> Vec<String> {
    let long = "l".repeat(300);
    ["a", "a/x", "b", "b/c/d", "b/c/e", "sp ace+%41/ü", "dots/../f", "q//r"]
        .iter()
        .map(|k| k.to_string())
        .chain([format!("{long}/z")])
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, size: usize },
    Delete { key: usize },
    Read { key: usize },
    List { key: usize },
    Settle,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..keys().len();
    prop_oneof![
        4 => (key.clone(), 0usize..5000).prop_map(|(key, size)| Step::Put { key, size }),
        2 => key.clone().prop_map(|key| Step::Delete { key }),
        6 => key.clone().prop_map(|key| Step::Read { key }),
        3 => key.prop_map(|key| Step::List { key }),
        4 => Just(Step::Settle),
        1 => Just(Step::Restart),
    ]
}

/// What one key has had, oldest first; `None` = absent.
struct History {
    versions: Vec<Option<Vec<u8>>>,
    /// Index of the oldest version that may still be served.
    floor: usize,
}

impl History {
    fn check(&mut self, key: &str, answer: Option<Vec<u8>>) {
        let at = (self.floor..self.versions.len()).find(|&i| self.versions[i] == answer);
        let Some(at) = at else {
            panic!("{key}: an answer that is no version from #{} on: {:?}", self.floor, answer.map(|a| a.len()))
        };
        self.floor = at;
    }
}

/// The path of a key: names as the server's own bijection makes them, which `types::name` proves.
async fn read_key(client: &mut Client, key: &str) -> Option<Vec<u8>> {
    let path = fasts3::types::name::split(&fasts3::types::Key::new(key).unwrap());
    for shadowed in [true, false] {
        let root = client.root();
        let mut at = root;
        let mut found = true;
        for (depth, component) in path.iter().enumerate() {
            let last = depth + 1 == path.len();
            let name = component.name(shadowed && last);
            match client.lookup_in(&at, name.as_bytes()).await {
                Ok(next) => at = next.handle,
                Err(NFS3ERR_NOENT | NFS3ERR_STALE | NFS3ERR_NOTDIR) => {
                    found = false;
                    break;
                }
                Err(status) => panic!("{key}: {status:?}"),
            }
        }
        if !found {
            continue;
        }
        match client.read_handle(&at).await {
            Ok(bytes) => return Some(bytes),
            // A plain name means the directory where there is one; gone between LOOKUP and READ.
            Err(NFS3ERR_ISDIR | NFS3ERR_STALE) => continue,
            Err(status) => panic!("{key}: {status:?}"),
        }
    }
    None
}

/// Lists the directories above a key, as far as there are any.
async fn list_parent(client: &mut Client, key: &str) {
    let mut at = client.root();
    for component in fasts3::types::name::split(&fasts3::types::Key::new(key).unwrap()) {
        if client.list_handle(&at).await.is_err() {
            return;
        }
        match client.lookup_in(&at, component.name(false).as_bytes()).await {
            Ok(next) => at = next.handle,
            Err(_) => return,
        }
    }
}

async fn run(steps: Vec<Step>) {
    let keys = keys();
    let mut histories: BTreeMap<usize, History> =
        (0..keys.len()).map(|k| (k, History { versions: vec![None], floor: 0 })).collect();
    let mut world = World::new().await;
    let mut client = world.client().await;
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put { key, size } => {
                let bytes: Vec<u8> = (0..size).map(|i| (i * 31 + n * 7 + key) as u8).chain([n as u8]).collect();
                world.put(&keys[key], &bytes);
                histories.get_mut(&key).unwrap().versions.push(Some(bytes));
            }
            Step::Delete { key } => {
                world.bucket.delete(&keys[key]);
                histories.get_mut(&key).unwrap().versions.push(None);
            }
            Step::Read { key } => {
                let answer = read_key(&mut client, &keys[key]).await;
                histories.get_mut(&key).unwrap().check(&keys[key], answer);
            }
            Step::List { key } => {
                list_parent(&mut client, &keys[key]).await;
            }
            Step::Settle => {
                // One due request for everything, the checks behind it, and then all must be fresh. A key whose
                // kind changed is asked for by its name once more: its absence was what the first check found.
                // A directory that appears beside a file of its name is found by the listing above it.
                for _ in 0..2 {
                    world.age();
                    for key in &keys {
                        read_key(&mut client, key).await;
                        list_parent(&mut client, key).await;
                    }
                    world.quiet().await;
                }
                for (k, key) in keys.iter().enumerate() {
                    let answer = read_key(&mut client, key).await;
                    let history = histories.get_mut(&k).unwrap();
                    history.floor = history.versions.len() - 1;
                    history.check(key, answer);
                }
            }
            Step::Restart => {
                drop(client);
                world.restart().await;
                client = world.client().await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn answers_follow_the_bucket(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
