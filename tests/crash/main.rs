//! The program is killed in the middle of its work, again and again, and started again on the same cache: nothing that
//! it has answered for is lost, and nothing is half done.
//!
//! Several clients change a tree each. What was answered is certain; the one call that each had no answer to may
//! have been done or not. `FASTS3_CRASH_SEED` repeats a run as far as the threads allow, `FASTS3_CRASH_ROUNDS` makes it longer.
//! `tree` is what is known of a client's tree, `calls` changes it and looks at it over NFS; `points` has the program die at each
//! place that it has for that.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod calls;
mod points;
#[path = "../support/mod.rs"]
mod support;
mod tree;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use calls::{Answer, Died, answer, found, perform, top, walk};
use fasts3::s3server::{Bucket, Fault, On, Options, S3Server};
use fasts3::types::Clock;
use nfs3_client::nfs3_types::nfs3::*;
use serde_json::Value;
use support::{Client, soon};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tree::{Entry, Op, State, Tree};

/// Clients at once.
const CLIENTS: u64 = 4;
/// The longest a file gets.
const MAX_BYTES: u64 = 40_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_every_crash() {
    let mut random = Random::seeded();
    let world = World::new();
    // what is pending at a start is not held back by the delay
    world.s3.faults().inject_always(On::writes(), Fault::Denied);
    let mut trees = vec![Tree::default(); CLIENTS as usize];
    for round in 0..rounds() {
        let server = world.start("1h").await;
        trees = server.work(trees, &mut random).await;
        world.check_files();
        let mut server = world.start("1h").await;
        for (n, tree) in trees.iter_mut().enumerate() {
            *tree = server.survey(n, tree).await.unwrap_or_else(|e| panic!("round {round}, client {n}: {e}"));
        }
        server.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_comes_to_s3_whenever_the_uploads_die() {
    let mut random = Random::seeded();
    let world = World::new();
    let mut trees = vec![Tree::default(); CLIENTS as usize];
    for round in 0..rounds() {
        let server = world.start("0s").await;
        trees = server.work(trees, &mut random).await;
        world.check_files();
        let mut server = world.start("1h").await;
        for (n, tree) in trees.iter_mut().enumerate() {
            *tree = server.survey(n, tree).await.unwrap_or_else(|e| panic!("round {round}, client {n}: {e}"));
        }
        world.sync().await;
        for (n, tree) in trees.iter().enumerate() {
            tree.is_in(&world.bucket, n).unwrap_or_else(|e| panic!("round {round}, client {n}: {e}"));
        }
        world.fsck_finds_nothing(&["--remote"]).await;
        server.kill();
    }
}

fn rounds() -> u64 {
    std::env::var("FASTS3_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// A bucket and a cache directory.
struct World {
    s3: S3Server,
    bucket: Bucket,
    cache: TempDir,
}

impl World {
    fn new() -> World {
        let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
        let bucket = s3.bucket("bucket");
        World { s3, bucket, cache: tempfile::tempdir().unwrap() }
    }

    /// Starts the program and waits until it is ready.
    async fn start(&self, upload_delay: &str) -> Running {
        // whatever else is on the disk
        let flags = ["--cache-size", "1GiB", "--upload-delay", upload_delay];
        let started = self.try_start(&flags, &[]).await;
        started.expect("the program says that it is ready before it ends")
    }

    /// The same; `None` when it died before.
    async fn try_start(&self, flags: &[&str], environment: &[(&str, &str)]) -> Option<Running> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
        command.args(["serve", "s3://bucket", "--lazy", "--listen", "127.0.0.1:0", "--admin", "off"]);
        command.args(["--no-sign-request", "--uid", "0", "--gid", "0"]);
        command.args(flags);
        command.args(["--log", "error", "--endpoint-url", &self.s3.endpoint(), "--cache"]).arg(self.cache.path());
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, ready) = tokio::sync::oneshot::channel();
        let dead = CancellationToken::new();
        let died = dead.clone();
        std::thread::spawn(move || {
            let _ = tell.send(lines.next());
            lines.for_each(drop);
            died.cancel();
        });
        let mut running = Running { child, port: 0, dead };
        let ready = soon(ready).await.unwrap()?.unwrap();
        running.port = ready.split(['=', ':', ' ']).nth(3).unwrap().parse().unwrap();
        Some(running)
    }

    /// Runs a command of the program; what it printed, and whether it was content.
    fn fasts3(&self, args: &[&str]) -> (Value, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
        command.args(args).arg("--json").arg("--cache").arg(self.cache.path());
        // S3 is in this process
        let said = tokio::task::block_in_place(|| command.output()).unwrap();
        let errors = String::from_utf8_lossy(&said.stderr);
        let value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{args:?}: {errors}"));
        (value, said.status.success())
    }

    /// Right after a crash: files that nothing refers to, and copies that were being put together, are all that may be
    /// wrong, and are seen to.
    fn check_files(&self) {
        let (report, is_well) = self.fasts3(&["fsck", "--repair"]);
        let is_clean = |what: &str| what.starts_with("nothing refers to") || what.ends_with("to be fetched again");
        let mut problems = report["problems"].as_array().unwrap().iter();
        assert!(is_well && problems.all(|problem| is_clean(problem["what"].as_str().unwrap())), "{report:#}");
    }

    /// Of a running server, once it has swept what nothing refers to.
    async fn fsck_finds_nothing(&self, flags: &[&str]) {
        let check = async {
            let mut report = self.fasts3(&[&["fsck"], flags].concat()).0;
            while report["problems"]
                .as_array()
                .unwrap()
                .iter()
                .all(|p| p["what"].as_str().unwrap().starts_with("nothing"))
                && report["found"] != 0
            {
                report = self.fasts3(&[&["fsck"], flags].concat()).0;
                tokio::task::yield_now().await;
            }
            report
        };
        let report = soon(check).await;
        assert_eq!(report["found"], 0, "{report:#}");
    }

    async fn sync(&self) {
        let (said, is_done) = self.fasts3(&["sync"]);
        assert!(is_done, "{said:#}");
    }
}

/// The program, at work.
struct Running {
    child: Child,
    port: u16,
    /// It has ended: the client's library waits for ever on a connection that has.
    dead: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn client(&self) -> Client {
        Client::connect(self.port, "/", 0, 0).await
    }

    /// Has each client change its tree until the program is killed, in the middle of some call of theirs.
    async fn work(mut self, trees: Vec<Tree>, random: &mut Random) -> Vec<Tree> {
        let dead = self.dead.clone();
        let until = Until { left: AtomicU64::new(1 + random.below(400)), enough: Notify::new(), dead };
        let until = Arc::new(until);
        let mut workers = Vec::new();
        for (n, tree) in trees.into_iter().enumerate() {
            let client = self.client().await;
            workers.push(tokio::spawn(work(client, n, tree, random.fork(), until.clone())));
        }
        soon(until.enough.notified()).await;
        self.kill();
        let mut trees = Vec::new();
        for worker in workers {
            trees.push(soon(worker).await.unwrap());
        }
        trees
    }

    /// Looks at what is there, compares it with what must be, and takes it for the beginning of what follows.
    async fn survey(&self, n: usize, tree: &Tree) -> Result<Tree, String> {
        let mut client = self.client().await;
        let found = found(&mut client, &top(n)).await;
        let without = tree.sure.fits(&found);
        let with = tree.doubt.as_ref().map_or(Err("nothing is in doubt".into()), |op| {
            let mut after = tree.sure.clone();
            after.apply_partly(op);
            after.fits(&found)
        });
        if let (Err(without), Err(with)) = (without, with) {
            return Err(format!("{without}; and with {:?} done: {with}", tree.doubt));
        }
        Ok(Tree { sure: found, doubt: None })
    }
}

/// When the program is killed.
struct Until {
    /// Calls that are still to be made before.
    left: AtomicU64,
    /// They were.
    enough: Notify,
    /// It was.
    dead: CancellationToken,
}

impl Until {
    async fn answered(&self, call: impl Future<Output = Answer>) -> Answer {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.enough.notify_one();
        }
        tokio::select! {
            biased;
            () = self.dead.cancelled() => Err(Died),
            answer = call => answer,
        }
    }
}

async fn work(mut client: Client, n: usize, mut tree: Tree, mut random: Random, until: Arc<Until>) -> Tree {
    if tree.sure.0.is_empty() {
        let top = Op::Mkdir(String::new());
        match until.answered(perform(&mut client, n, &top)).await {
            Ok(Ok(())) => tree.sure.apply(&top),
            Ok(Err(status)) => panic!("the top directory: {status:?}"),
            Err(Died) => return Tree { doubt: Some(top), ..tree },
        }
    }
    loop {
        let op = random.operation(&tree.sure);
        match until.answered(perform(&mut client, n, &op)).await {
            Ok(Ok(())) => tree.sure.apply(&op),
            Ok(Err(nfsstat3::NFS3ERR_JUKEBOX)) => {}
            Ok(Err(status)) => panic!("client {n}: {op:?}: {status:?}"),
            Err(Died) => return Tree { doubt: Some(op), ..tree },
        }
    }
}

/// Numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let now = Clock::system().wall().0 as u64;
        let given = std::env::var("FASTS3_CRASH_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(now);
        println!("FASTS3_CRASH_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn fork(&mut self) -> Random {
        Random(self.next())
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len() as u64) as usize].clone())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let (len, first) = (1 + self.below(MAX_BYTES / 2), self.next());
        (0..len).map(|n| (first.wrapping_add(n).wrapping_mul(0x9E37_79B9) >> 8) as u8).collect()
    }

    /// One that `state` allows.
    fn operation(&mut self, state: &State) -> Op {
        loop {
            if let Some(op) = self.attempt(state) {
                return op;
            }
        }
    }

    fn attempt(&mut self, state: &State) -> Option<Op> {
        let paths = |is_dir: bool| -> Vec<String> {
            let is_wanted = |entry: &Entry| matches!(entry, Entry::Dir) == is_dir;
            state.0.iter().filter(|(p, e)| !p.is_empty() && is_wanted(e)).map(|(p, _)| p.clone()).collect()
        };
        let (files, dirs) = (paths(false), paths(true));
        let file = self.one_of(&files);
        let fresh = self.fresh(state, &dirs);
        let is_empty = |dir: &String| !state.0.keys().any(|path| path.starts_with(&format!("{dir}/")));
        Some(match self.below(20) {
            0..=3 if files.len() < 12 => Op::Create(fresh?, 0o600 + self.below(64) as u32),
            4 if dirs.len() < 4 => Op::Mkdir(fresh?),
            5..=9 => {
                let stable = [stable_how::UNSTABLE, stable_how::UNSTABLE, stable_how::DATA_SYNC, stable_how::FILE_SYNC];
                Op::Write(file?, self.below(MAX_BYTES / 2), self.bytes(), self.one_of(&stable)?)
            }
            10 | 11 => Op::Commit(file?),
            12 => Op::Rename(file?, fresh?),
            13 => {
                let to = self.one_of(&files)?;
                (Some(&to) != file.as_ref()).then_some(Op::Rename(file?, to))?
            }
            14 => {
                let (from, to) = (self.one_of(&dirs)?, fresh?);
                (!to.starts_with(&format!("{from}/"))).then_some(Op::Rename(from, to))?
            }
            15 => Op::Remove(file?),
            16 => Op::Rmdir(self.one_of(&dirs).filter(is_empty)?),
            17 => Op::Chmod(file?, 0o600 + self.below(64) as u32),
            18 => Op::Resize(file?, self.below(MAX_BYTES)),
            _ => return None,
        })
    }

    /// A path that is not there.
    fn fresh(&mut self, state: &State, dirs: &[String]) -> Option<String> {
        let name = format!("n{}", self.below(20));
        let dir = if self.below(2) == 0 { None } else { self.one_of(dirs) };
        let path = dir.map_or(name.clone(), |dir| format!("{dir}/{name}"));
        (!state.0.contains_key(&path)).then_some(path)
    }
}
