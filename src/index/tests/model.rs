//! Random buckets and listings against what a bucket means: after a listing the tree is the bucket's.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::types::Component;
use crate::types::name::{self, ComponentKind};

#[derive(Clone, Debug)]
enum Step {
    /// S3 gets a version of a key.
    Put(String, u8),
    /// S3 loses a key.
    Delete(String),
    /// A HEAD of a key.
    Head(String),
    /// A listing of everything, in pages of so many keys.
    ListAll(usize),
    /// A listing of the level of the n-th directory.
    ListLevel(usize, usize),
    /// A listing of all below the n-th directory.
    ListBelow(usize, usize),
    Reopen,
}

/// Few components, so that keys meet: ordinary, odd, and too long for a name.
fn component() -> impl Strategy<Value = String> {
    let long = "x".repeat(246);
    prop_oneof![
        6 => prop::sample::select(vec!["a", "a.b", "a0", "b", "é"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec!["", ".", "..", "‛", "‛f", "a\u{0}"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![long.clone(), format!("{long}!"), format!("{long}y"), long.repeat(2)]),
    ]
}

fn key() -> impl Strategy<Value = String> {
    (prop::collection::vec(component(), 1..4), prop::bool::weighted(0.2)).prop_filter_map(
        "no key",
        |(parts, marker)| {
            let key = parts.join("/") + if marker { "/" } else { "" };
            (!key.is_empty() && key.len() <= 1024).then_some(key)
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), 0..3_u8).prop_map(|(key, version)| Step::Put(key, version)),
        3 => key().prop_map(Step::Delete),
        2 => key().prop_map(Step::Head),
        1 => (1..8_usize).prop_map(Step::ListAll),
        2 => (0..20_usize, 1..8_usize).prop_map(|(dir, size)| Step::ListLevel(dir, size)),
        1 => (0..20_usize, 1..8_usize).prop_map(|(dir, size)| Step::ListBelow(dir, size)),
        1 => Just(Step::Reopen),
    ]
}

/// The bucket, and the inode that each key of it was last seen with.
#[derive(Default)]
struct Bucket {
    keys: BTreeMap<String, String>,
    inodes: BTreeMap<String, Ino>,
}

impl Bucket {
    fn below(&self, prefix: &str) -> Vec<(&str, &str)> {
        let below = self.keys.iter().filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, etag)| (key.as_str(), etag.as_str())).collect()
    }

    /// As LIST folds it, in one order: a common prefix has no ETag.
    fn level(&self, prefix: &str) -> Vec<(String, String)> {
        let fold = |(key, etag): (&str, &str)| match key[prefix.len()..].find('/') {
            Some(at) => (key[..prefix.len() + at + 1].to_owned(), String::new()),
            None => (key.to_owned(), etag.to_owned()),
        };
        let mut level: Vec<_> = self.below(prefix).into_iter().map(fold).collect();
        level.dedup();
        level
    }
}

/// The tree under `dir`: the paths of its entries with their ETags (none: a directory without a marker).
fn walk(bench: &Bench, dir: Ino, path: &mut Vec<Component>, tree: &mut BTreeMap<Vec<Component>, Option<String>>) {
    let mut names = BTreeSet::new();
    for entry in bench.index.entries(dir, 0, 10_000).unwrap() {
        assert!(names.insert(entry.name.clone()), "{:?} twice", entry.name);
        let found = bench.index.child(dir, &entry.name).unwrap().expect("a listed name is found");
        assert_eq!(found.ino, entry.node.ino, "{:?}", entry.name);
        path.push(entry.node.component.clone());
        let etag = entry.node.remote.as_ref().map(|remote| remote.etag.as_str().to_owned());
        tree.insert(path.clone(), etag);
        if entry.node.kind == Kind::Dir {
            walk(bench, entry.node.ino, path, tree);
        }
        path.pop();
    }
}

/// What the tree must be.
fn expected(bucket: &Bucket) -> BTreeMap<Vec<Component>, Option<String>> {
    let mut tree = BTreeMap::new();
    for (key, etag) in &bucket.keys {
        let path = name::split(&Key::new(key).unwrap());
        for length in 1..path.len() {
            tree.entry(path[..length].to_vec()).or_insert(None);
        }
        tree.insert(path, Some(etag.clone()));
    }
    tree
}

async fn check_all(bench: &Bench, bucket: &mut Bucket) {
    let mut tree = BTreeMap::new();
    walk(bench, Ino::ROOT, &mut Vec::new(), &mut tree);
    assert_eq!(tree, expected(bucket));
    bench.orphans_removed().await;
    let dirs = tree.keys().filter(|path| path.last().unwrap().kind() != ComponentKind::File).count() as u64;
    let counts = bench.index.counts();
    assert_eq!((counts.files, counts.dirs), (tree.len() as u64 - dirs, dirs));
    for key in bucket.keys.keys() {
        let ino = bench.node(key).unwrap().ino;
        let known = *bucket.inodes.entry(key.clone()).or_insert(ino);
        assert_eq!(known, ino, "{key:?} has been there all the time");
    }
}

async fn play(steps: Vec<Step>) {
    let (mut bench, mut bucket) = (Bench::new(), Bucket::default());
    for step in steps {
        match step {
            Step::Put(key, version) => drop(bucket.keys.insert(key, "v".repeat(version.into()) + "1")),
            Step::Delete(key) => {
                bucket.keys.remove(&key);
                bucket.inodes.remove(&key);
            }
            Step::Head(key) => {
                let seen = match bucket.keys.get(&key) {
                    Some(etag) => head(etag, &[]),
                    None if bucket.below(&key).is_empty() || !key.ends_with('/') => Seen::Absent,
                    None => Seen::Prefix,
                };
                bench.see(&key, seen).await;
                let here = bench.node(&key).and_then(|node| node.remote.clone());
                if !key.ends_with('/') || bucket.keys.contains_key(&key) {
                    assert_eq!(here.map(|remote| remote.etag.as_str().to_owned()), bucket.keys.get(&key).cloned());
                }
            }
            Step::ListAll(size) => {
                bench.list(Ino::ROOT, true, &bucket.below(""), size).await;
                check_all(&bench, &mut bucket).await;
            }
            Step::ListLevel(n, size) => list(&bench, &bucket, n, size, false).await,
            Step::ListBelow(n, size) => list(&bench, &bucket, n, size, true).await,
            Step::Reopen => bench = bench.reopen(),
        }
    }
    bench.list(Ino::ROOT, true, &bucket.below(""), 3).await;
    check_all(&bench, &mut bucket).await;
    let applied = bench.list(Ino::ROOT, true, &bucket.below(""), 5).await;
    assert_eq!((applied.created, applied.replaced, applied.removed), (0, 0, 0), "a second look sees nothing new");
}

/// Lists the n-th directory that the index has.
async fn list(bench: &Bench, bucket: &Bucket, n: usize, size: usize, recursive: bool) {
    let mut tree = BTreeMap::new();
    walk(bench, Ino::ROOT, &mut Vec::new(), &mut tree);
    let mut dirs: Vec<Vec<Component>> =
        tree.into_keys().filter(|path| path.last().unwrap().kind() != ComponentKind::File).collect();
    dirs.push(Vec::new());
    let path = &dirs[n % dirs.len()];
    let prefix: String = path.iter().map(Component::suffix).collect();
    let mut dir = Ino::ROOT;
    for component in path {
        let entries = bench.index.entries(dir, 0, 10_000).unwrap();
        dir = entries.iter().find(|entry| entry.node.component == *component).unwrap().node.ino;
    }
    let level = bucket.level(&prefix);
    let keys = if recursive {
        bucket.below(&prefix)
    } else {
        level.iter().map(|(key, etag)| (key.as_str(), etag.as_str())).collect()
    };
    bench.list(dir, recursive, &keys, size).await;

    let mut tree = BTreeMap::new();
    if bench.index.node(dir).unwrap().is_some() {
        walk(bench, dir, &mut path.clone(), &mut tree);
    }
    let in_level = |p: &Vec<Component>| p[path.len()..p.len() - 1].iter().all(|c| c.kind() == ComponentKind::Chunk);
    let shown = |tree: BTreeMap<Vec<Component>, Option<String>>| -> BTreeSet<Vec<Component>> {
        let below = tree.into_keys().filter(|p| p.len() > path.len() && p.starts_with(path));
        below.filter(|p| recursive || in_level(p)).collect()
    };
    assert_eq!(shown(tree), shown(expected(bucket)), "below {prefix:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_listed_tree_is_the_bucket(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(play(steps));
    }
}
