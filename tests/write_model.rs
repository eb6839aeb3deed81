//! Random changes through NFS and, meanwhile, by a second writer in S3, with restarts; then both sides must agree, and
//! whatever either of them wrote and nobody who could see it replaced or removed must still be there (D4).

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fasts3::s3server::{Fault, Gate, On};
use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use nfs3_client::nfs3_types::nfs3::*;
use proptest::prelude::*;
use support::changes::no_attributes;
use support::{Client, RECHECK, World};

const DIRS: [&str; 4] = ["", "d", "e", "d/i"];
const NAMES: [&str; 3] = ["x", "y", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// Through NFS: a whole file.
    Save {
        dir: usize,
        name: usize,
        size: usize,
    },
    /// Through NFS: some bytes at some offset of a file that is there.
    Patch {
        dir: usize,
        name: usize,
        at: u64,
        size: usize,
    },
    Truncate {
        dir: usize,
        name: usize,
        size: u64,
    },
    Chmod {
        dir: usize,
        name: usize,
        mode: u32,
    },
    Link {
        dir: usize,
        name: usize,
    },
    Remove {
        dir: usize,
        name: usize,
    },
    Mkdir {
        dir: usize,
    },
    Rmdir {
        dir: usize,
    },
    Rename {
        from: (usize, usize),
        to: (usize, usize),
    },
    /// Through NFS: so that what is in S3 becomes known.
    List {
        dir: usize,
    },
    /// In S3, by somebody else.
    Put {
        dir: usize,
        name: usize,
        size: usize,
    },
    Delete {
        dir: usize,
        name: usize,
    },
    Restart,
    /// The server ends in the middle of whatever it does, and starts again.
    Kill,
    /// S3 does the next writes, and does not answer.
    Unanswered {
        times: u64,
    },
    /// S3 is not reachable before the next `Settle`.
    Down,
    /// Everything goes up, everything is checked, and all of it is compared.
    Settle,
}

fn place() -> impl Strategy<Value = (usize, usize)> {
    (0..DIRS.len(), 0..NAMES.len())
}

/// What goes wrong.
fn trouble() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Kill),
        2 => (1u64..4).prop_map(|times| Step::Unanswered { times }),
        1 => Just(Step::Down),
    ]
}

/// What is done here.
fn local() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (place(), 0usize..5000).prop_map(|((dir, name), size)| Step::Save { dir, name, size }),
        3 => (place(), 0u64..6000, 1usize..3000)
            .prop_map(|((dir, name), at, size)| Step::Patch { dir, name, at, size }),
        2 => (place(), 0u64..6000).prop_map(|((dir, name), size)| Step::Truncate { dir, name, size }),
        1 => (place(), 0o600u32..0o777).prop_map(|((dir, name), mode)| Step::Chmod { dir, name, mode }),
        1 => place().prop_map(|(dir, name)| Step::Link { dir, name }),
        3 => place().prop_map(|(dir, name)| Step::Remove { dir, name }),
        3 => (1..DIRS.len()).prop_map(|dir| Step::Mkdir { dir }),
        1 => (1..DIRS.len()).prop_map(|dir| Step::Rmdir { dir }),
        4 => (place(), place()).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => (0..DIRS.len()).prop_map(|dir| Step::List { dir }),
        1 => Just(Step::Restart),
        2 => Just(Step::Settle),
    ]
}

/// The same, and what somebody else does in S3.
fn either() -> impl Strategy<Value = Step> {
    prop_oneof![
        28 => local(),
        3 => (place(), 0usize..5000).prop_map(|((dir, name), size)| Step::Put { dir, name, size }),
        3 => place().prop_map(|(dir, name)| Step::Delete { dir, name }),
    ]
}

fn key(dir: usize, name: usize) -> String {
    match DIRS[dir] {
        "" => NAMES[name].to_owned(),
        dir => format!("{dir}/{}", NAMES[name]),
    }
}

/// Bytes that no other step writes.
fn content(n: usize, size: usize) -> Vec<u8> {
    format!("{n}:").into_bytes().into_iter().chain((0..size).map(|i| (i * 31 + n * 7) as u8)).collect()
}

/// What must not get lost before the next `Settle`.
#[derive(Default)]
struct Owed {
    /// By NFS clients, by its key; gone when one of them replaces or removes it.
    local: BTreeMap<String, Vec<u8>>,
    /// By the other writer, with the keys that it may have: a rename takes along what was known here, and leaves what was
    /// not. Gone when he replaces or removes it, or an NFS client does so afterwards.
    remote: Vec<(BTreeSet<String>, Vec<u8>)>,
}

impl Owed {
    /// An NFS client has removed what is under `key`, and below it.
    fn forget(&mut self, key: &str) {
        self.local.retain(|k, _| after(k, key).is_none());
        self.remote.retain(|(keys, _)| keys.iter().all(|k| after(k, key).is_none()));
    }

    /// An NFS client has given what was at `from` the name `to`. `moved` is what it was; it is not known where a name came to
    /// be another's meanwhile.
    fn rename(&mut self, from: &str, to: &str, moved: Option<ftype3>) {
        self.forget(to);
        let Some(moved) = moved else { return self.forget(from) };
        // beside a directory there may be a file of that name
        let is_dir = matches!(moved, ftype3::NF3DIR);
        let new = |key: &String| {
            let rest = after(key, from).filter(|rest| rest.is_empty() != is_dir);
            rest.map(|rest| format!("{to}{rest}"))
        };
        let local = std::mem::take(&mut self.local).into_iter();
        self.local = local.map(|(key, bytes)| (new(&key).unwrap_or(key), bytes)).collect();
        for (keys, _) in &mut self.remote {
            let others: Vec<_> = keys.iter().filter_map(new).collect();
            keys.extend(others);
        }
    }
}

/// What follows `path` in a key that is it or below it.
fn after<'a>(key: &'a str, path: &str) -> Option<&'a str> {
    key.strip_prefix(path).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Run {
    world: World,
    client: Client,
    owed: Owed,
    is_down: bool,
    has_others: bool,
}

impl Run {
    async fn dir(&mut self, dir: usize) -> Option<nfs_fh3> {
        let found = self.client.lookup(DIRS[dir]).await.ok()?;
        matches!(found.attr.type_, ftype3::NF3DIR).then_some(found.handle)
    }

    async fn step(&mut self, n: usize, step: Step) {
        match step {
            Step::Save { dir, name, size } => {
                let (Some(at), bytes) = (self.dir(dir).await, content(n, size)) else { return };
                match self.client.save_in(&at, NAMES[name].as_bytes(), &bytes).await {
                    Ok(_) => self.wrote(key(dir, name), bytes),
                    Err(status) => self.expect(status, &[NFS3ERR_EXIST, NFS3ERR_ISDIR, NFS3ERR_INVAL]),
                }
            }
            Step::Patch { dir, name, at, size } => self.patch(n, &key(dir, name), at, size).await,
            Step::Truncate { dir, name, size } => {
                let Some((handle, bytes)) = self.file(&key(dir, name)).await else { return };
                let set = sattr3 { size: set_size3::Some(size), ..no_attributes() };
                // the other writer may have removed it since it was read
                if let Err(status) = self.client.setattr(&handle, set).await {
                    return self.expect(status, &[]);
                }
                self.edited(&key(dir, name), &handle, bytes, |bytes| bytes.resize(size as usize, 0)).await;
            }
            Step::Chmod { dir, name, mode } => {
                let Some((handle, _)) = self.file(&key(dir, name)).await else { return };
                let set = sattr3 { mode: set_mode3::Some(mode), ..no_attributes() };
                let set = self.client.setattr(&handle, set).await;
                set.map_or_else(|status| self.expect(status, &[]), drop);
            }
            Step::Link { dir, name } => {
                let Some(at) = self.dir(dir).await else { return };
                let target = format!("target {n}").into_bytes();
                match self.client.symlink_in(&at, NAMES[name].as_bytes(), &target).await {
                    Ok(_) => self.wrote(key(dir, name), target),
                    Err(status) => self.expect(status, &[NFS3ERR_EXIST]),
                }
            }
            Step::Remove { dir, name } => {
                let Some(at) = self.dir(dir).await else { return };
                match self.client.remove_in(&at, NAMES[name].as_bytes()).await {
                    Ok(()) => self.owed.forget(&key(dir, name)),
                    Err(status) => self.expect(status, &[NFS3ERR_NOENT, NFS3ERR_ISDIR]),
                }
            }
            Step::Mkdir { dir } => {
                let (parent, name) = DIRS[dir].rsplit_once('/').unwrap_or(("", DIRS[dir]));
                let Ok(parent) = self.client.lookup(parent).await else { return };
                let made = self.client.mkdir_in(&parent.handle, name.as_bytes()).await;
                made.map_or_else(|status| self.expect(status, &[NFS3ERR_EXIST, NFS3ERR_NOTDIR]), drop);
            }
            Step::Rmdir { dir } => {
                let (parent, name) = DIRS[dir].rsplit_once('/').unwrap_or(("", DIRS[dir]));
                let Ok(parent) = self.client.lookup(parent).await else { return };
                let gone = self.client.rmdir_in(&parent.handle, name.as_bytes()).await;
                let expected = [NFS3ERR_NOENT, NFS3ERR_NOTDIR, NFS3ERR_NOTEMPTY];
                gone.unwrap_or_else(|status| self.expect(status, &expected));
            }
            Step::Rename { from, to } => self.rename(from, to).await,
            Step::List { dir } => {
                if let Some(dir) = self.dir(dir).await {
                    self.client.list_handle(&dir).await.map_or_else(|status| self.expect(status, &[]), drop);
                }
            }
            Step::Put { dir, name, size } => {
                let bytes = content(n, size);
                let _held = self.replaced_by_others(&key(dir, name));
                self.world.put(&key(dir, name), &bytes);
                self.owed.remote.push((BTreeSet::from([key(dir, name)]), bytes));
            }
            Step::Delete { dir, name } => {
                let _held = self.replaced_by_others(&key(dir, name));
                self.world.bucket.delete(&key(dir, name));
            }
            Step::Restart => {
                self.world.restart().await;
                self.client = self.world.client().await;
            }
            Step::Kill => {
                self.world.kill().await;
                self.world.start().await;
                self.client = self.world.client().await;
            }
            Step::Unanswered { times } => self.world.s3.faults().inject(On::writes(), times, Fault::FailAfterApply),
            Step::Down => {
                self.is_down = true;
                self.world.s3.faults().set_down(true);
            }
            Step::Settle => self.settle().await,
        }
    }

    /// The other writer sees what he is about to replace. No upload comes before he has.
    fn replaced_by_others(&mut self, key: &str) -> Gate {
        self.has_others = true;
        let held = self.world.s3.faults().hold(On::writes());
        if let Some(seen) = self.world.bucket.get(key) {
            // under whatever name it is here
            self.owed.local.retain(|_, bytes| *bytes != seen.bytes);
            self.owed.remote.retain(|(_, bytes)| *bytes != seen.bytes);
        }
        held
    }

    /// Handle and bytes of a file.
    async fn file(&mut self, path: &str) -> Option<(nfs_fh3, Vec<u8>)> {
        let found = self.client.lookup(path).await.ok()?;
        if !matches!(found.attr.type_, ftype3::NF3REG) {
            return None;
        }
        let bytes = self.client.read_handle(&found.handle).await.ok()?;
        Some((found.handle, bytes))
    }

    fn wrote(&mut self, key: String, bytes: Vec<u8>) {
        self.owed.remote.retain(|(keys, _)| !keys.contains(&key));
        self.owed.local.insert(key, bytes);
    }

    async fn patch(&mut self, n: usize, path: &str, at: u64, size: usize) {
        let Some((handle, bytes)) = self.file(path).await else { return };
        let patch = content(n, size);
        // the other writer may have removed it since it was read
        if let Err(status) = self.client.write_at(&handle, at, &patch, stable_how::UNSTABLE).await {
            return self.expect(status, &[]);
        }
        self.client.commit(&handle).await.unwrap();
        let place = at as usize..at as usize + patch.len();
        let edit = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().max(place.end), 0);
            bytes[place.clone()].copy_from_slice(&patch);
        };
        self.edited(path, &handle, bytes, edit).await;
    }

    /// An NFS client has made `edit` of a file that had these bytes when it read them; the other writer's may have come since.
    async fn edited(&mut self, path: &str, handle: &nfs_fh3, bytes: Vec<u8>, edit: impl Fn(&mut Vec<u8>)) {
        let read = match self.client.read_handle(handle).await {
            Ok(read) => read,
            Err(status) => {
                self.owed.forget(path);
                return self.expect(status, &[]);
            }
        };
        let mut expected = if self.has_others { read.clone() } else { bytes };
        edit(&mut expected);
        assert_eq!(read, expected, "{path} just after it was changed");
        self.wrote(path.to_owned(), read);
    }

    async fn rename(&mut self, from: (usize, usize), to: (usize, usize)) {
        let (Some(from_dir), Some(to_dir)) = (self.dir(from.0).await, self.dir(to.0).await) else { return };
        let (from_key, to_key) = (key(from.0, from.1), key(to.0, to.1));
        let names = (NAMES[from.1].as_bytes(), NAMES[to.1].as_bytes());
        let found = self.client.lookup_in(&from_dir, names.0).await.ok();
        match self.client.rename_in((&from_dir, names.0), (&to_dir, names.1)).await {
            Ok(()) if from_key != to_key => {
                let moved = self.client.lookup_in(&to_dir, names.1).await.ok();
                let moved = moved.zip(found).filter(|(moved, found)| moved.handle == found.handle);
                self.owed.rename(&from_key, &to_key, moved.map(|(moved, _)| moved.attr.type_));
            }
            Ok(()) => {}
            Err(status) => self.expect(
                status,
                &[NFS3ERR_NOENT, NFS3ERR_EXIST, NFS3ERR_ISDIR, NFS3ERR_NOTDIR, NFS3ERR_NOTEMPTY, NFS3ERR_INVAL],
            ),
        }
    }

    /// A refusal that may be. Without S3, or where the other writer changes the directory meanwhile: also to ask again, and
    /// that the directory is gone.
    fn expect(&self, status: nfsstat3, expected: &[nfsstat3]) {
        let may_be = match status {
            NFS3ERR_JUKEBOX => self.is_down || self.has_others,
            NFS3ERR_STALE => self.has_others,
            status => expected.contains(&status),
        };
        assert!(may_be, "{status:?}");
    }

    async fn settle(&mut self) {
        self.is_down = false;
        self.world.s3.faults().clear();
        self.sync().await;
        // a change of kind shows in two rounds: what was there is gone, then what is there appears
        for _ in 0..3 {
            self.world.age();
            self.tree().await;
            self.world.quiet().await;
        }
        self.sync().await;
        let (files, dirs) = self.tree().await;
        let (objects, markers) = self.objects();
        let shown = |files: &BTreeMap<String, Vec<u8>>| {
            files
                .iter()
                .map(|(k, v)| (k.clone(), v.len(), v.iter().take(6).map(|b| *b as char).collect::<String>()))
                .collect::<Vec<_>>()
        };
        assert!(files == objects, "here {:?}, in S3 {:?}", shown(&files), shown(&objects));
        for dir in &dirs {
            let implied = objects.keys().chain(&markers).any(|key| key.starts_with(dir.as_str()));
            assert!(implied, "{dir} is here and not in S3");
        }
        assert!(markers.is_subset(&dirs), "in S3 {markers:?}, here {dirs:?}");
        let owed = std::mem::take(&mut self.owed);
        for (key, bytes) in owed.local {
            assert!(objects.values().any(|o| *o == bytes), "what was written here to {key} is lost");
        }
        for (keys, bytes) in owed.remote {
            assert!(objects.values().any(|o| *o == bytes), "what was written in S3 to {keys:?} is lost");
        }
    }

    /// Waits until S3 has it all, while time goes by: what failed is tried again later.
    async fn sync(&self) {
        let pass = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.world.clock.advance(RECHECK);
            }
        };
        tokio::select! {
            () = self.world.sync() => {}
            () = pass => unreachable!("time never ends"),
        }
    }

    /// All files and directories (as prefixes) through NFS.
    async fn tree(&mut self) -> (BTreeMap<String, Vec<u8>>, BTreeSet<String>) {
        let (mut files, mut dirs) = (BTreeMap::new(), BTreeSet::new());
        let mut queue = vec![(String::new(), self.client.root())];
        while let Some((prefix, dir)) = queue.pop() {
            let Ok(entries) = self.client.list_handle(&dir).await else { continue };
            for (name, _) in entries {
                let Ok(found) = self.client.lookup_in(&dir, name.as_bytes()).await else { continue };
                let path = format!("{prefix}{name}");
                if matches!(found.attr.type_, ftype3::NF3DIR) {
                    dirs.insert(format!("{path}/"));
                    queue.push((format!("{path}/"), found.handle));
                    continue;
                }
                let bytes = match found.attr.type_ {
                    ftype3::NF3LNK => self.client.readlink(&found.handle).await,
                    _ => self.client.read_handle(&found.handle).await,
                };
                if let Ok(bytes) = bytes {
                    // beside a directory of the same name a file shows under an escape
                    files.insert(path.trim_end_matches("‛f").to_owned(), bytes);
                }
            }
        }
        (files, dirs)
    }

    /// All objects and markers.
    fn objects(&self) -> (BTreeMap<String, Vec<u8>>, BTreeSet<String>) {
        let all = self.world.bucket.keys().into_iter();
        // a server that was killed may leave one
        let files = all.filter(|key| !key.starts_with(fasts3::store::conditions::PROBE_PREFIX));
        let (markers, keys): (Vec<_>, Vec<_>) = files.partition(|key| key.ends_with('/'));
        let bytes = |key: String| (self.world.bucket.get(&key).unwrap().bytes.to_vec(), key);
        (keys.into_iter().map(bytes).map(|(bytes, key)| (key, bytes)).collect(), markers.into_iter().collect())
    }
}

async fn run(steps: Vec<Step>) {
    let world = World::mortal().await;
    let client = world.client().await;
    let mut run = Run { world, client, owed: Owed::default(), is_down: false, has_others: false };
    for (n, step) in steps.into_iter().chain([Step::Settle]).enumerate() {
        run.step(n, step).await;
    }
}

fn block_on(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_changed_here_comes_to_s3(steps in prop::collection::vec(local(), 1..40)) {
        block_on(steps);
    }

    #[test]
    fn through_all_trouble(steps in prop::collection::vec(prop_oneof![6 => local(), 1 => trouble()], 1..40)) {
        block_on(steps);
    }

    #[test]
    fn two_writers_through_all_trouble(steps in prop::collection::vec(prop_oneof![6 => either(), 1 => trouble()], 1..40)) {
        block_on(steps);
    }

    #[test]
    fn two_writers_converge_and_neither_loses(steps in prop::collection::vec(either(), 1..40)) {
        block_on(steps);
    }
}

#[test]
fn what_somebody_else_wrote_under_a_name_that_moved_on_is_replaced_under_that_name() {
    let (from, to) = ((2, 0), (2, 1));
    let (dir, name) = from;
    let save = Step::Save { dir, name, size: 0 };
    let patch = Step::Patch { dir, name, at: 0, size: 1 };
    block_on(vec![Step::Mkdir { dir }, save, Step::Put { dir, name, size: 0 }, Step::Rename { from, to }, patch]);
}
