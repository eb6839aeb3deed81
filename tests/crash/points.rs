//! The program dies at each of its named points, under work that leads it there, and is started again: what was answered is
//! there, comes to S3, and nothing contradicts anything.

use fasts3::crash::POINTS;
use tokio::task::JoinSet;

use super::*;

/// Programs at once.
const AT_ONCE: usize = 3;
/// More than the least cache holds.
const LONG: [&str; 5] = ["long/1", "long/2", "long/3", "long/4", "long/5"];

#[tokio::test(flavor = "multi_thread")]
async fn every_point_can_be_the_last() {
    let mut running = JoinSet::new();
    for (point, nth) in POINTS.iter().flat_map(|point| passages(point).iter().map(move |nth| (*point, *nth))) {
        if running.len() == AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(dies_at(point, nth));
    }
    running.join_all().await;
}

/// At which times that it comes there.
fn passages(point: &str) -> &'static [u64] {
    match point {
        // changes one after another are never committed together: there are at least 25
        "index.before_log_sync" | "index.after_log_sync" => &[4, 14, 24],
        "fs.after_edit" => &[1, 5, 12],
        "writeback.before_put" | "writeback.after_put" | "writeback.after_settle" => &[1, 2, 4],
        "fs.after_write" | "content.after_staging_sync" | "content.after_promote" => &[1, 3],
        "writeback.after_copy" | "writeback.before_delete" | "writeback.after_delete" | "writeback.after_part" => {
            &[1, 2]
        }
        _ => &[1],
    }
}

/// What clients do, one after another.
enum Step {
    /// In the tree of client 0.
    Do(Op),
    /// In the one of client 1, where both sides change a file.
    Dispute(Op),
    /// Another writer puts this to S3.
    Put(&'static str, &'static str),
    /// Everything goes to S3.
    Sync,
    /// The beginning of a directory is listed.
    List(&'static str),
    /// The beginning of a file is read.
    Read(&'static str),
}

async fn dies_at(point: &'static str, nth: u64) {
    let world = World::new();
    for n in 0..1_000 {
        world.bucket.put(&format!("many/{n:0>200}"), "", &[]);
    }
    for key in LONG {
        world.bucket.put(key, vec![5; 400_000], &[]);
    }
    let flags: &[&str] = match point {
        "content.after_evict" => &["--upload-delay", "1h", "--cache-size", "1MiB"],
        _ => &["--upload-delay", "1h", "--cache-size", "1GiB"],
    };
    let mut tree = Tree::default();
    if let Some(mut server) = world.try_start(flags, &[("FASTS3_CRASH_AT", &format!("{point}:{nth}"))]).await {
        tree = server.play(&world, steps(point)).await;
        let never = tokio::time::timeout(std::time::Duration::from_secs(20), server.dead.cancelled()).await;
        assert!(never.is_ok(), "{point} was not passed {nth} times");
        assert!(!server.child.wait().unwrap().success());
    }
    world.check_files();
    let server = world.start("1h").await;
    let tree = server.survey(0, &tree).await.unwrap_or_else(|e| panic!("{point}:{nth}: {e}"));
    world.sync().await;
    tree.is_in(&world.bucket, 0).unwrap_or_else(|e| panic!("{point}:{nth}: {e}"));
    disputed(&server, &world).await.unwrap_or_else(|e| panic!("{point}:{nth}: {e}"));
    world.fsck_finds_nothing(&["--remote"]).await;
}

/// Both versions of the file that both sides changed are there, here and in S3; if it came to that.
async fn disputed(server: &Running, world: &World) -> Result<(), String> {
    let here = found(&mut server.client().await, &top(1)).await;
    let here: Vec<(String, Vec<u8>)> = (here.0.into_iter())
        .filter_map(|(path, entry)| match entry {
            Entry::File { versions, .. } => Some((format!("client1/{path}"), versions.into_iter().next().unwrap())),
            Entry::Dir => None,
        })
        .collect();
    let keys = world.bucket.keys().into_iter().filter(|key| key.starts_with("client1/") && !key.ends_with('/'));
    let stored: Vec<_> = keys.map(|key| (world.bucket.get(&key).unwrap().bytes.to_vec(), key)).collect();
    let stored: Vec<_> = stored.into_iter().map(|(bytes, key)| (key, bytes)).collect();
    let texts: Vec<_> = here.iter().map(|(path, bytes)| (path, String::from_utf8_lossy(bytes))).collect();
    if here != stored {
        return Err(format!("here is {texts:?}, S3 has {:?}", world.bucket.keys()));
    }
    let has = |text: &str| texts.iter().filter(|(_, found)| found == text).count();
    match stored.iter().any(|(_, bytes)| bytes == b"theirs") {
        true if (has("theirs"), has("ours, later"), here.len()) != (1, 1, 2) => Err(format!("here is {texts:?}")),
        false if here.len() > 1 => Err(format!("here is {texts:?}, and nobody else wrote")),
        _ => Ok(()),
    }
}

impl Running {
    /// Does one step after another, until the program is dead.
    async fn play(&mut self, world: &World, steps: Vec<Step>) -> Tree {
        let mut tree = Tree::default();
        let connect = async {
            match Client::try_connect(self.port, "/", 0, 0).await {
                Ok(client) => client,
                // it is about to show that it has died
                Err(_) => std::future::pending().await,
            }
        };
        let Some(mut client) = alive(self.dead.clone(), connect).await else { return tree };
        for step in steps {
            match step {
                Step::Do(op) => match alive(self.dead.clone(), perform(&mut client, 0, &op)).await {
                    Some(Ok(Ok(()))) => tree.sure.apply(&op),
                    Some(Ok(Err(status))) => panic!("{op:?}: {status:?}"),
                    Some(Err(Died)) | None => return Tree { doubt: Some(op), ..tree },
                },
                Step::Dispute(op) => match alive(self.dead.clone(), perform(&mut client, 1, &op)).await {
                    Some(Ok(answer)) => answer.unwrap(),
                    Some(Err(Died)) | None => return tree,
                },
                Step::Put(key, text) => drop(world.bucket.put(key, text, &[])),
                Step::Sync => {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
                    command.args(["sync", "--cache"]).arg(world.cache.path());
                    let said = tokio::task::block_in_place(|| command.output()).unwrap();
                    if !said.status.success() && alive(self.dead.clone(), std::future::pending::<()>()).await.is_none()
                    {
                        return tree;
                    }
                }
                Step::List(path) | Step::Read(path) => {
                    let is_dir = matches!(step, Step::List(_));
                    if !matches!(alive(self.dead.clone(), look(&mut client, path, is_dir)).await, Some(Ok(_))) {
                        return tree;
                    }
                }
            }
        }
        tree
    }
}

/// What comes of `work`; `None`: the program died.
async fn alive<T>(dead: CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    let either = async {
        tokio::select! {
            biased;
            () = dead.cancelled() => None,
            done = work => Some(done),
        }
    };
    soon(either).await
}

/// Lists or reads.
async fn look(client: &mut Client, path: &str, is_dir: bool) -> Answer {
    let found = match walk(client, path).await? {
        Ok(found) => found,
        Err(status) => return Ok(Err(status)),
    };
    if is_dir {
        let (cookieverf, count) = (cookieverf3([0; 8]), 8_192);
        return answer(soon(client.raw().readdir(&READDIR3args { dir: found, cookie: 0, cookieverf, count })).await);
    }
    answer(soon(client.raw().read(&READ3args { file: found, offset: 0, count: 65_536 })).await)
}

fn create(path: &str) -> Op {
    Op::Create(path.to_owned(), 0o644)
}

fn write(path: &str, offset: u64, bytes: impl Into<Vec<u8>>, stable: stable_how) -> Op {
    Op::Write(path.to_owned(), offset, bytes.into(), stable)
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename(from.to_owned(), to.to_owned())
}

/// All that leads to `point`.
fn steps(point: &str) -> Vec<Step> {
    let (unstable, stable) = (stable_how::UNSTABLE, stable_how::FILE_SYNC);
    let commit = |path: &str| Op::Commit(path.to_owned());
    let first = [
        Op::Mkdir(String::new()),
        Op::Mkdir("d".to_owned()),
        Op::Mkdir("d/sub".to_owned()),
        create("d/a"),
        write("d/a", 0, "of a", unstable),
        commit("d/a"),
        create("d/b"),
        write("d/b", 0, vec![7; 30_000], stable),
        create("d/sub/c"),
        write("d/sub/c", 0, "of c", unstable),
        commit("d/sub/c"),
    ];
    let then = [
        rename("d/a", "d/moved"),
        Op::Chmod("d/b".to_owned(), 0o600),
        write("d/b", 3, "more", unstable),
        commit("d/b"),
        rename("d", "e"),
        Op::Remove("e/sub/c".to_owned()),
        create("x"),
        write("x", 0, "of x", stable),
    ];
    let last = [rename("e/moved", "x"), Op::Resize("e/b".to_owned(), 9), Op::Rmdir("e/sub".to_owned())];
    let mut steps = vec![Step::List("many")];
    for ops in [first.to_vec(), then.to_vec(), last.to_vec()] {
        steps.extend(ops.into_iter().map(Step::Do));
        steps.push(Step::Sync);
    }
    match point {
        "content.after_evict" => steps.extend(LONG.map(Step::Read)),
        "writeback.after_conflict" => steps.extend(dispute()),
        "writeback.after_note_upload"
        | "writeback.after_part"
        | "writeback.before_complete"
        | "writeback.after_complete" => steps.extend(in_parts()),
        _ => {}
    }
    steps
}

fn dispute() -> impl Iterator<Item = Step> {
    let ours = |text: &str| Step::Dispute(write("c", 0, text, stable_how::FILE_SYNC));
    let made = [Op::Mkdir(String::new()), create("c")].map(Step::Dispute);
    let changed = [ours("ours"), Step::Sync, ours("ours, later"), Step::Put("client1/c", "theirs"), Step::Sync];
    made.into_iter().chain(changed)
}

/// A file that is longer than one PUT takes.
fn in_parts() -> impl Iterator<Item = Step> {
    let written = (0..17).map(|n| write("parts", n << 20, vec![n as u8; 1 << 20], stable_how::UNSTABLE));
    let ops = std::iter::once(create("parts")).chain(written).chain([Op::Commit("parts".to_owned())]);
    ops.map(Step::Do).chain([Step::Sync])
}
