//! Random buckets, changes here and words of S3 in any order: no change is lost, what was removed here does not come
//! back, and what is not pending becomes what the bucket is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// S3 gets a version of a key, or loses it.
    Put(String, u8),
    Delete(String),
    /// S3 is asked about a key, or lists the n-th directory.
    Head(String),
    List(usize, bool, usize),
    /// A change here: of the n-th inode, or in the n-th directory.
    Create(usize, &'static str),
    Stage(usize),
    Chmod(usize),
    Remove(usize),
    Rename(usize, usize, &'static str),
    Reopen,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn key() -> impl Strategy<Value = String> {
    (prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4), prop::bool::weighted(0.2))
        .prop_map(|(parts, marker)| parts.join("/") + if marker { "/" } else { "" })
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["a", "b", "c", "a/", "b/", "c/"]);
    prop_oneof![
        4 => (key(), 0..3_u8).prop_map(|(key, version)| Step::Put(key, version)),
        2 => key().prop_map(Step::Delete),
        3 => key().prop_map(Step::Head),
        4 => (0..20_usize, any::<bool>(), 1..5_usize).prop_map(|(dir, recursive, size)| Step::List(dir, recursive, size)),
        3 => (0..20_usize, name()).prop_map(|(dir, name)| Step::Create(dir, name)),
        2 => (0..20_usize).prop_map(Step::Stage),
        1 => (0..20_usize).prop_map(Step::Chmod),
        3 => (0..20_usize).prop_map(Step::Remove),
        4 => (0..20_usize, 0..20_usize, name()).prop_map(|(ino, dir, name)| Step::Rename(ino, dir, name)),
        1 => Just(Step::Reopen),
    ]
}

struct World {
    bench: Bench,
    bucket: BTreeMap<String, String>,
    /// What must not be lost: files that are new or have bytes that S3 lacks, and directories made here.
    ours: BTreeSet<Ino>,
}

impl World {
    fn below(&self, prefix: &str) -> Vec<(String, String)> {
        let below = self.bucket.iter().filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, etag)| (key.clone(), etag.clone())).collect()
    }

    fn level(&self, prefix: &str) -> Vec<(String, String)> {
        let fold = |(key, etag): (String, String)| match key[prefix.len()..].find('/') {
            Some(at) => (key[..prefix.len() + at + 1].to_owned(), String::new()),
            None => (key, etag),
        };
        let mut level: Vec<_> = self.below(prefix).into_iter().map(fold).collect();
        level.dedup();
        level
    }

    /// All inodes but the root, each after its directory.
    fn nodes(&self) -> Vec<Arc<Node>> {
        let (mut nodes, mut dirs) = (Vec::new(), vec![Ino::ROOT]);
        while let Some(dir) = dirs.pop() {
            for entry in self.bench.index.entries(dir, 0, 10_000).unwrap() {
                assert_eq!(entry.node.parent, dir);
                if entry.node.kind == Kind::Dir {
                    dirs.push(entry.node.ino);
                }
                nodes.push(entry.node);
            }
        }
        nodes
    }

    fn nth(&self, n: usize) -> Option<Arc<Node>> {
        let mut nodes = self.nodes();
        nodes.sort_by_key(|node| node.ino);
        (!nodes.is_empty()).then(|| nodes[n % nodes.len()].clone())
    }

    fn nth_dir(&self, n: usize) -> Ino {
        let mut dirs: Vec<Ino> =
            self.nodes().iter().filter(|node| node.kind == Kind::Dir).map(|node| node.ino).collect();
        dirs.push(Ino::ROOT);
        dirs.sort();
        dirs[n % dirs.len()]
    }

    async fn head(&self, key: &str) {
        let seen = match self.bucket.get(key) {
            Some(etag) => head(etag, &[]),
            None if key.ends_with('/') && !self.below(key).is_empty() => Seen::Prefix,
            None => Seen::Absent,
        };
        self.bench.see(key, seen).await;
    }

    async fn list(&self, dir: Ino, recursive: bool, size: usize) {
        let Some(prefix) = self.bench.index.remote_prefix(dir).unwrap() else { return };
        let keys = if recursive { self.below(&prefix) } else { self.level(&prefix) };
        let keys: Vec<(&str, &str)> = keys.iter().map(|(key, etag)| (key.as_str(), etag.as_str())).collect();
        self.bench.list(dir, recursive, &keys, size).await;
    }

    /// The path of a free name in a directory.
    fn free(&self, dir: Ino, name: &str) -> Option<String> {
        let key = self.bench.index.key(dir).unwrap().unwrap();
        let path = format!("{key}{name}");
        self.bench.node(&path).is_none().then_some(path)
    }

    async fn change(&mut self, step: Step) {
        match step {
            Step::Create(dir, name) => {
                if let Some(path) = self.free(self.nth_dir(dir), name) {
                    self.ours.insert(self.bench.create(&path).await);
                }
            }
            Step::Stage(n) => {
                if let Some(node) = self.nth(n).filter(|node| node.kind == Kind::File && node.staged.is_none()) {
                    self.bench.stage(node.ino).await;
                    self.ours.insert(node.ino);
                }
            }
            Step::Chmod(n) => {
                if let Some(node) = self.nth(n) {
                    self.bench.chmod(node.ino, 0o400).await;
                }
            }
            Step::Remove(n) => {
                let Some(node) = self.nth(n) else { return };
                if self.bench.names(node.ino).is_empty() {
                    self.bench.remove(node.ino).await;
                    self.ours.remove(&node.ino);
                }
            }
            Step::Rename(n, dir, name) => {
                let Some(node) = self.nth(n) else { return };
                let dir = self.nth_dir(dir);
                let name = format!("{}{}", name.trim_end_matches('/'), if node.kind == Kind::Dir { "/" } else { "" });
                if !self.is_above(node.ino, dir)
                    && let Some(path) = self.free(dir, &name)
                {
                    self.bench.rename(node.ino, &path).await;
                }
            }
            _ => {}
        }
    }

    fn is_above(&self, ino: Ino, below: Ino) -> bool {
        let mut at = below;
        while at != ino && at != Ino::ROOT {
            at = self.bench.index.node(at).unwrap().unwrap().parent;
        }
        at == ino
    }

    /// What must hold after every step.
    fn check(&self) {
        let nodes = self.nodes();
        let reached: BTreeMap<Ino, &Arc<Node>> = nodes.iter().map(|node| (node.ino, node)).collect();
        for ino in &self.ours {
            let node = reached.get(ino).unwrap_or_else(|| panic!("{ino} is lost"));
            assert!(self.bench.index.pending(*ino).unwrap().is_some_and(|pending| pending.content), "{node:?}");
            assert!(node.staged.is_none_or(|staged| self.bench.index.staged(staged).unwrap().is_some()), "{node:?}");
        }
        let mut holders = BTreeMap::new();
        for node in &nodes {
            let Some(key) = self.bench.index.remote_key(node.ino).unwrap() else { continue };
            let other = holders.insert(key.clone(), node.ino);
            assert_eq!(other, None, "{key} is of one inode");
            let away = self.bench.index.away(&key).unwrap();
            assert!(away.is_none_or(|away| away.ino == Some(node.ino)), "{key} was removed here: {node:?}");
            if node.origin.is_some() {
                assert!(self.bench.index.pending(node.ino).unwrap().is_some_and(|pending| pending.place), "{node:?}");
            }
        }
    }

    /// Asks S3 about everything, and compares.
    async fn converge(&self) {
        for _ in 0..3 {
            let mut dirs: Vec<Ino> = self.nodes().iter().filter(|n| n.kind == Kind::Dir).map(|n| n.ino).collect();
            dirs.push(Ino::ROOT);
            for dir in dirs {
                self.list(dir, false, 2).await;
            }
            for key in self.bucket.keys() {
                self.head(key).await;
            }
            // what was renamed is in no listing: writeback asks about it
            for origin in self.nodes().iter().filter_map(|node| node.origin.clone()) {
                self.head(&origin).await;
            }
            self.list(Ino::ROOT, true, 3).await;
            self.check();
        }
        let mut holders = BTreeMap::new();
        for node in self.nodes() {
            let pending = self.bench.index.pending(node.ino).unwrap();
            let is_dirty = node.staged.is_some() || pending.is_some_and(|pending| pending.content);
            let Some(key) = self.bench.index.remote_key(node.ino).unwrap() else { continue };
            let etag = node.remote.as_ref().unwrap().etag.as_str().to_owned();
            if !is_dirty {
                assert_eq!(self.bucket.get(key.as_str()), Some(&etag), "{key}: {node:?}");
            }
            holders.insert(key.as_str().to_owned(), node.ino);
        }
        for key in self.bucket.keys().filter(|key| !holders.contains_key(*key)) {
            let key = Key::new(key).unwrap();
            let is_away = self.bench.index.away(&key).unwrap().is_some();
            assert!(is_away || self.is_taken(&key).await, "{key} is missing");
        }
    }

    /// Whether something that is here for another reason has the name that `key` would have.
    async fn is_taken(&self, key: &Key) -> bool {
        let path = crate::types::name::split(key);
        let walked = self.bench.index.writer.run(1, move |change| change.walk_key(&path)).await.unwrap();
        let taken = |ino| self.bench.index.pending(ino).unwrap().is_some();
        match walked {
            super::locate::Walked::Found(ino) => taken(ino),
            super::locate::Walked::Blocked => true,
            super::locate::Walked::Missing(..) => false,
        }
    }
}

async fn play(steps: Vec<Step>) {
    let mut world = World { bench: Bench::new(), bucket: BTreeMap::new(), ours: BTreeSet::new() };
    for step in steps {
        match step {
            Step::Put(key, version) => drop(world.bucket.insert(key, "v".repeat(version.into()) + "1")),
            Step::Delete(key) => drop(world.bucket.remove(&key)),
            Step::Head(key) => world.head(&key).await,
            Step::List(dir, recursive, size) => world.list(world.nth_dir(dir), recursive, size).await,
            Step::Reopen => world.bench = world.bench.reopen(),
            change => world.change(change).await,
        }
        world.check();
    }
    world.converge().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_lost_and_the_rest_is_the_bucket(steps in prop::collection::vec(step(), 1..50)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(play(steps));
    }
}
