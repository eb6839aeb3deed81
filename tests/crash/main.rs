//! The program is killed in the middle of its work, again and again, and started again on the same cache: nothing that
//! it has answered for is lost, and nothing is half done.
//!
//! Several clients change a tree each. What was answered is certain; the one call that each had no answer to may
//! have been done or not. `FASTS3_CRASH_SEED` repeats a run as far as the threads allow, `FASTS3_CRASH_ROUNDS` makes it longer.
//! `points` has the program die at each place that it has for that.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod points;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fasts3::s3server::{Bucket, Fault, On, Options, S3Server};
use fasts3::types::Clock;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use serde_json::Value;
use support::changes::no_attributes;
use support::{Client, soon};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

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

/// A tree as far as it is known.
#[derive(Clone, Debug, Default)]
struct Tree {
    /// With everything that was answered.
    sure: State,
    /// What was not answered.
    doubt: Option<Op>,
}

impl Tree {
    /// Whether S3 has this and nothing else.
    fn is_in(&self, bucket: &Bucket, n: usize) -> Result<(), String> {
        let prefix = format!("{}/", top(n));
        let keys: Vec<String> = bucket.keys().into_iter().filter(|key| key.starts_with(&prefix)).collect();
        for key in keys.iter().filter(|key| !key.ends_with('/')) {
            if !self.sure.0.contains_key(&key[prefix.len()..]) {
                return Err(format!("S3 has {key}, which nobody made"));
            }
        }
        for (path, entry) in &self.sure.0 {
            let key = format!("{prefix}{path}");
            match entry {
                Entry::Dir => {
                    let dir = format!("{}/", key.trim_end_matches('/'));
                    if !keys.iter().any(|key| key.starts_with(&dir)) {
                        return Err(format!("S3 lacks the directory {dir}"));
                    }
                }
                Entry::File { mode, versions } => {
                    let Some(stored) = bucket.get(&key) else { return Err(format!("S3 lacks {key}")) };
                    let told = stored.user.get("file-permissions");
                    if told != Some(&format!("{:07o}", 0o100_000 | mode)) {
                        return Err(format!("S3 has {told:?} as the mode of {key}, not {mode:o}"));
                    }
                    if !versions.iter().any(|version| stored.bytes[..] == version[..]) {
                        return Err(format!("S3 has other bytes of {key}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Entries by their paths below the top of a client's tree; the top itself has the empty path.
#[derive(Clone, Debug, Default, PartialEq)]
struct State(BTreeMap<String, Entry>);

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Dir,
    File {
        mode: u32,
        /// The bytes that are committed, and those after each WRITE since: each byte is of one of them.
        versions: Vec<Vec<u8>>,
    },
}

#[derive(Clone)]
enum Op {
    Create(String, u32),
    Mkdir(String),
    Write(String, u64, Vec<u8>, stable_how),
    Commit(String),
    Rename(String, String),
    Remove(String),
    Rmdir(String),
    Chmod(String, u32),
    Resize(String, u64),
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Op::Create(path, mode) => write!(f, "create {path} {mode:o}"),
            Op::Mkdir(path) => write!(f, "mkdir {path:?}"),
            Op::Write(path, offset, data, stable) => {
                write!(f, "write {path} {offset}..{} {stable:?}", *offset as usize + data.len())
            }
            Op::Commit(path) => write!(f, "commit {path}"),
            Op::Rename(from, to) => write!(f, "rename {from} {to}"),
            Op::Remove(path) => write!(f, "remove {path}"),
            Op::Rmdir(path) => write!(f, "rmdir {path}"),
            Op::Chmod(path, mode) => write!(f, "chmod {path} {mode:o}"),
            Op::Resize(path, size) => write!(f, "resize {path} {size}"),
        }
    }
}

impl State {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path, mode) => {
                self.0.insert(path.clone(), Entry::File { mode: *mode, versions: vec![Vec::new()] });
            }
            Op::Mkdir(path) => drop(self.0.insert(path.clone(), Entry::Dir)),
            Op::Remove(path) | Op::Rmdir(path) => drop(self.0.remove(path)),
            Op::Rename(from, to) => self.rename(from, to),
            Op::Write(path, offset, data, stable) => {
                let versions = self.versions(path);
                let mut next = versions.last().unwrap().clone();
                let end = *offset as usize + data.len();
                next.resize(next.len().max(end), 0);
                next[*offset as usize..end].copy_from_slice(data);
                versions.push(next);
                if *stable != stable_how::UNSTABLE {
                    self.commit(path);
                }
            }
            Op::Commit(path) => self.commit(path),
            Op::Chmod(path, to) => {
                if let Some(Entry::File { mode, .. }) = self.0.get_mut(path) {
                    *mode = *to;
                }
            }
            Op::Resize(path, size) => self.versions(path).iter_mut().for_each(|bytes| bytes.resize(*size as usize, 0)),
        }
    }

    /// As far as it had come: of a WRITE that was not answered, each byte may be there or not.
    fn apply_partly(&mut self, op: &Op) {
        match op {
            Op::Write(path, offset, data, _) => {
                self.apply(&Op::Write(path.clone(), *offset, data.clone(), stable_how::UNSTABLE));
            }
            op => self.apply(op),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let moved: Vec<String> = self.0.keys().filter(|p| *p == from || p.starts_with(&below)).cloned().collect();
        for path in moved {
            let entry = self.0.remove(&path).unwrap();
            self.0.insert(format!("{to}{}", &path[from.len()..]), entry);
        }
    }

    fn versions(&mut self, path: &str) -> &mut Vec<Vec<u8>> {
        match self.0.get_mut(path) {
            Some(Entry::File { versions, .. }) => versions,
            other => panic!("{path} is no file: {other:?}"),
        }
    }

    fn commit(&mut self, path: &str) {
        let versions = self.versions(path);
        versions.drain(..versions.len() - 1);
    }

    /// Whether `found` is one of the states that this may have become.
    fn fits(&self, found: &State) -> Result<(), String> {
        if let Some(path) = self.0.keys().find(|path| !found.0.contains_key(*path)) {
            return Err(format!("{path:?} is gone"));
        }
        for (path, entry) in &found.0 {
            match (self.0.get(path), entry) {
                (Some(Entry::Dir), Entry::Dir) => {}
                (Some(Entry::File { mode, versions }), Entry::File { mode: found_mode, versions: found }) => {
                    if mode != found_mode {
                        return Err(format!("{path:?} has mode {found_mode:o}, not {mode:o}"));
                    }
                    is_mixed_of(versions, &found[0]).map_err(|e| format!("{path:?}: {e}"))?;
                }
                (other, _) => return Err(format!("{path:?} is there, instead of {}", kind(other))),
            }
        }
        Ok(())
    }
}

fn kind(entry: Option<&Entry>) -> &'static str {
    match entry {
        None => "nothing",
        Some(Entry::Dir) => "a directory",
        Some(Entry::File { .. }) => "a file",
    }
}

/// Whether each byte, and the length, is of one of `versions`.
fn is_mixed_of(versions: &[Vec<u8>], found: &[u8]) -> Result<(), String> {
    if !versions.iter().any(|version| version.len() == found.len()) {
        let lengths: Vec<usize> = versions.iter().map(Vec::len).collect();
        return Err(format!("{} bytes, not {lengths:?}", found.len()));
    }
    // what was not written is zeros
    let is_known = |at: usize| versions.iter().any(|version| version.get(at).copied().unwrap_or(0) == found[at]);
    match (0..found.len()).find(|at| !is_known(*at)) {
        None => Ok(()),
        Some(at) => Err(format!("byte {at} of {} is of no version", found.len())),
    }
}

/// The program died before it answered.
struct Died;

type Answer = Result<Result<(), nfsstat3>, Died>;

/// The directory of client `n`.
fn top(n: usize) -> String {
    format!("client{n}")
}

/// One call, and the lookups before it.
async fn perform(client: &mut Client, n: usize, op: &Op) -> Answer {
    let split = |path: &str| {
        let path = format!("{}/{path}", top(n));
        let path = path.trim_end_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (dir.to_owned(), name.to_owned())
    };
    let path = match op {
        Op::Create(path, _) | Op::Mkdir(path) | Op::Remove(path) | Op::Rmdir(path) | Op::Rename(path, _) => path,
        Op::Write(path, ..) | Op::Commit(path) | Op::Chmod(path, _) | Op::Resize(path, _) => path,
    };
    let (dir, name) = split(path);
    let dir = match walk(client, &dir).await? {
        Ok(dir) => dir,
        Err(status) => return Ok(Err(status)),
    };
    let place =
        |dir: &nfs_fh3, name: &str| diropargs3 { dir: dir.clone(), name: filename3(Opaque::owned(name.into())) };
    match op {
        Op::Create(_, mode) => {
            let how = createhow3::GUARDED(sattr3 { mode: set_mode3::Some(*mode), ..no_attributes() });
            answer(soon(client.raw().create(&CREATE3args { where_: place(&dir, &name), how })).await)
        }
        Op::Mkdir(_) => {
            let args = MKDIR3args { where_: place(&dir, &name), attributes: no_attributes() };
            answer(soon(client.raw().mkdir(&args)).await)
        }
        Op::Remove(_) => answer(soon(client.raw().remove(&REMOVE3args { object: place(&dir, &name) })).await),
        Op::Rmdir(_) => answer(soon(client.raw().rmdir(&RMDIR3args { object: place(&dir, &name) })).await),
        Op::Rename(_, to) => {
            let (to_dir, to_name) = split(to);
            let to_dir = match walk(client, &to_dir).await? {
                Ok(dir) => dir,
                Err(status) => return Ok(Err(status)),
            };
            let args = RENAME3args { from: place(&dir, &name), to: place(&to_dir, &to_name) };
            answer(soon(client.raw().rename(&args)).await)
        }
        Op::Write(..) | Op::Commit(_) | Op::Chmod(..) | Op::Resize(..) => {
            let file = match step(client, &dir, &name).await? {
                Ok(file) => file,
                Err(status) => return Ok(Err(status)),
            };
            change(client, file, op).await
        }
    }
}

async fn change(client: &mut Client, file: nfs_fh3, op: &Op) -> Answer {
    let set = |new_attributes| SETATTR3args { object: file.clone(), new_attributes, guard: sattrguard3::None };
    match op {
        Op::Write(_, offset, data, stable) => {
            let (count, data) = (data.len() as u32, Opaque::borrowed(data));
            let args = WRITE3args { file: file.clone(), offset: *offset, count, stable: *stable, data };
            answer(soon(client.raw().write(&args)).await)
        }
        Op::Commit(_) => {
            answer(soon(client.raw().commit(&COMMIT3args { file: file.clone(), offset: 0, count: 0 })).await)
        }
        Op::Chmod(_, mode) => {
            let args = set(sattr3 { mode: set_mode3::Some(*mode), ..no_attributes() });
            answer(soon(client.raw().setattr(&args)).await)
        }
        Op::Resize(_, size) => {
            let args = set(sattr3 { size: set_size3::Some(*size), ..no_attributes() });
            answer(soon(client.raw().setattr(&args)).await)
        }
        other => unreachable!("{other:?} is of a name"),
    }
}

fn answer<T, E, D>(result: Result<Nfs3Result<T, E>, D>) -> Answer {
    match result {
        Ok(Nfs3Result::Ok(_)) => Ok(Ok(())),
        Ok(Nfs3Result::Err((status, _))) => Ok(Err(status)),
        Err(_) => Err(Died),
    }
}

async fn walk(client: &mut Client, path: &str) -> Result<Result<nfs_fh3, nfsstat3>, Died> {
    let mut at = client.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match step(client, &at, name).await? {
            Ok(next) => at = next,
            Err(status) => return Ok(Err(status)),
        }
    }
    Ok(Ok(at))
}

async fn step(client: &mut Client, dir: &nfs_fh3, name: &str) -> Result<Result<nfs_fh3, nfsstat3>, Died> {
    let what = diropargs3 { dir: dir.clone(), name: filename3(Opaque::owned(name.into())) };
    match soon(client.raw().lookup(&LOOKUP3args { what })).await {
        Ok(Nfs3Result::Ok(ok)) => Ok(Ok(ok.object)),
        Ok(Nfs3Result::Err((status, _))) => Ok(Err(status)),
        Err(_) => Err(Died),
    }
}

/// All that is below `top`.
async fn found(client: &mut Client, top: &str) -> State {
    let mut state = State::default();
    let Ok(dir) = client.lookup(top).await else { return state };
    state.0.insert(String::new(), Entry::Dir);
    let mut dirs = vec![(String::new(), dir.handle)];
    while let Some((path, dir)) = dirs.pop() {
        let names = client.list_handle(&dir).await.unwrap_or_else(|status| panic!("list {top}/{path}: {status:?}"));
        for (name, attributes) in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let handle = client.lookup_in(&dir, name.as_bytes()).await.unwrap().handle;
            let entry = if attributes.type_ == ftype3::NF3DIR {
                dirs.push((path.clone(), handle));
                Entry::Dir
            } else {
                let bytes = soon(read(client, &handle)).await;
                let bytes = bytes.unwrap_or_else(|status| panic!("read {top}/{path}: {status:?}"));
                assert_eq!(bytes.len() as u64, attributes.size, "{path}: listed with another size");
                Entry::File { mode: attributes.mode, versions: vec![bytes] }
            };
            state.0.insert(path, entry);
        }
    }
    state
}

/// All bytes of a file, asking again when the server says that it takes longer.
async fn read(client: &mut Client, file: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
    loop {
        match client.read_handle(file).await {
            Err(nfsstat3::NFS3ERR_JUKEBOX) => tokio::task::yield_now().await,
            answer => return answer,
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
