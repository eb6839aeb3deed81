//! Random edits, uploads that end in any order or whose end is never known, directories that come apart, words of S3 that
//! come late, restarts and crashes: against a plain model of the tree and a plain S3. At every step the journal accounts for
//! every object; drained, S3 is the tree.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::index::edit::Edit;

#[derive(Clone, Debug)]
enum Step {
    File(usize, usize),
    Mkdir(usize, usize, bool),
    Write(usize),
    Chmod(usize),
    Remove(usize),
    Rename(usize, usize, usize),
    /// The same, of a directory.
    RenameDir(usize, usize, usize),
    /// Sends what the n-th row of the journal calls for; the answer is told later.
    Begin(usize),
    /// The same, but it does not come so far.
    Lose(usize),
    /// Tells the answer of the n-th request under way.
    Finish(usize),
    /// Has S3 list the n-th directory; the answer comes later.
    List(usize, bool),
    /// Asks S3 what the n-th name has.
    Head(usize),
    /// The n-th answer comes.
    Hear(usize),
    Reopen,
    /// What is under way is done, and nobody is told.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let (n, name) = (0..30_usize, 0..NAMES.len());
    prop_oneof![
        3 => (n.clone(), name.clone()).prop_map(|(dir, name)| Step::File(dir, name)),
        3 => (n.clone(), name.clone(), any::<bool>()).prop_map(|(dir, name, plain)| Step::Mkdir(dir, name, plain)),
        3 => n.clone().prop_map(Step::Write),
        1 => n.clone().prop_map(Step::Chmod),
        3 => n.clone().prop_map(Step::Remove),
        6 => (n.clone(), n.clone(), name.clone()).prop_map(|(what, to, name)| Step::Rename(what, to, name)),
        6 => (n.clone(), n.clone(), name).prop_map(|(what, to, name)| Step::RenameDir(what, to, name)),
        8 => n.clone().prop_map(Step::Begin),
        1 => n.clone().prop_map(Step::Lose),
        6 => n.clone().prop_map(Step::Finish),
        3 => (n.clone(), any::<bool>()).prop_map(|(dir, recursive)| Step::List(dir, recursive)),
        1 => n.clone().prop_map(Step::Head),
        4 => n.prop_map(Step::Hear),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];
/// What the bucket has at first.
const BUCKET: [&str; 7] = ["a/a", "a/b/a", "a/b/b", "b/", "b/c/a/a", "c", "d/a"];

/// A name in the model's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    ino: Ino,
    is_dir: bool,
}

/// An object of the simulated S3. The tag stands for its bytes.
#[derive(Clone, Debug)]
struct Object {
    etag: String,
    tag: u64,
    size: u64,
}

/// A request whose effect S3 has, and the journal not yet.
#[derive(Debug)]
enum Sent {
    Settle(Box<Settled>),
    Without(Ino, u64),
    Removed(Key),
}

/// What S3 has said, and nobody has heard yet.
enum Word {
    /// A page of a listing, after which S3 goes on at a key.
    Page(Sweep, Listing, Page),
    Head(Observation),
}

/// A listing of what is below a prefix.
struct Listing {
    prefix: Key,
    recursive: bool,
    /// What it has listed last.
    after: String,
}

/// Keys of a page.
const PAGE: usize = 2;

struct World {
    bench: Bench,
    /// By path, without a slash at the end.
    tree: BTreeMap<String, Entry>,
    tags: HashMap<Ino, u64>,
    s3: BTreeMap<String, Object>,
    sent: Vec<Sent>,
    words: Vec<Word>,
    /// Keys of which nobody was told that they have been removed.
    removed: HashSet<String>,
    number: u64,
}

fn joined(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn last(path: &str) -> Name {
    Name::new(path.rsplit('/').next().unwrap().as_bytes()).unwrap()
}

impl World {
    async fn new() -> World {
        let bench = Bench::new();
        let mut world = World {
            bench,
            tree: BTreeMap::new(),
            tags: HashMap::new(),
            s3: BTreeMap::new(),
            sent: Vec::new(),
            words: Vec::new(),
            removed: HashSet::new(),
            number: 0,
        };
        for key in BUCKET {
            let object = world.object(None, 2);
            world.s3.insert(key.to_owned(), object);
        }
        let listed: Vec<_> = world.s3.iter().map(|(key, object)| (key.as_str(), object.etag.as_str())).collect();
        world.bench.list(Ino::ROOT, true, &listed, 100).await;
        for (path, entry) in world.walk() {
            if let Some(object) = world.s3.get(&path) {
                world.tags.insert(entry.ino, object.tag);
            }
            world.tree.insert(path, entry);
        }
        world
    }

    fn fresh(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// An object of these bytes; without a tag, of others than any.
    fn object(&mut self, tag: Option<u64>, size: u64) -> Object {
        let number = self.fresh();
        Object { etag: format!("e{number}"), tag: tag.unwrap_or(number), size }
    }

    /// What was noted to be sent to a key: the tags, one a line.
    fn noted(&self, key: &str) -> String {
        let notes = self.bench.index.sent(&Key::new(key).unwrap()).unwrap();
        notes.map_or_else(String::new, |notes| String::from_utf8(notes).unwrap())
    }

    /// Whether nothing may be where something is to be removed.
    fn may_be_gone(&self, key: &str) -> bool {
        !self.noted(key).is_empty() || self.removed.contains(key)
    }

    fn is_noted(&self, key: &str, object: &Object) -> bool {
        self.noted(key).lines().any(|etag| etag == object.etag)
    }

    fn dir(&self, n: usize) -> (String, Ino) {
        let mut dirs = vec![(String::new(), Ino::ROOT)];
        dirs.extend(self.tree.iter().filter(|(_, entry)| entry.is_dir).map(|(path, entry)| (path.clone(), entry.ino)));
        dirs.swap_remove(n % dirs.len())
    }

    fn entry(&self, n: usize) -> Option<(String, Entry)> {
        let n = n % self.tree.len().max(1);
        self.tree.iter().nth(n).map(|(path, entry)| (path.clone(), entry.clone()))
    }

    fn has_entries(&self, path: &str) -> bool {
        self.tree.keys().any(|other| parent(other) == path)
    }

    async fn edit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Edit<'_, '_>) -> Result<T, IndexError> + Send + 'static,
    ) -> T {
        self.bench.tick();
        self.bench.index.edit(|edit| work(edit).map(Ok::<T, ()>)).await.unwrap().unwrap()
    }

    async fn make(&mut self, dir: usize, name: usize, mode: Option<u32>) {
        let (dir, ino) = self.dir(dir);
        let path = joined(&dir, NAMES[name]);
        let kind = if mode.is_some() { Kind::Dir } else { Kind::File };
        let staged = ObjectId(self.bench.index.allocate().await.unwrap());
        let new = NewInode {
            kind,
            mode: mode.unwrap_or(0o644),
            uid: 10,
            gid: 20,
            rdev: (0, 0),
            atime: MODIFIED,
            mtime: MODIFIED,
            staged: (kind == Kind::File).then_some(staged),
            size: 0,
        };
        let name = last(&path);
        let made = self.edit(move |edit| {
            if edit.child(ino, &name)?.is_some() {
                return Ok(None);
            }
            let component = edit.component(ino, &name, kind)?.unwrap();
            edit.create(ino, component, new).map(Some)
        });
        let made = made.await;
        assert_eq!(made.is_none(), self.tree.contains_key(&path));
        if let Some(made) = made {
            self.tree.insert(path, Entry { ino: made, is_dir: kind == Kind::Dir });
            let tag = self.fresh();
            self.tags.insert(made, tag);
        }
    }

    async fn write(&mut self, n: usize) {
        let Some((_, Entry { ino, is_dir: false })) = self.entry(n) else { return };
        let fresh = ObjectId(self.bench.index.allocate().await.unwrap());
        self.edit(move |edit| {
            let inode = edit.inode(ino)?.unwrap();
            let inode = if inode.staged.is_none() { edit.stage(ino, fresh, inode.size, inode.size)? } else { inode };
            let row = StagedRow { ino, base_len: 0, ranges: vec![0..9] };
            let (mtime, ctime) = (edit.now(), edit.now());
            edit.record(StagedProgress { staged: inode.staged.unwrap(), row, size: 9, mtime, ctime })
        })
        .await;
        let tag = self.fresh();
        self.tags.insert(ino, tag);
    }

    async fn remove(&mut self, n: usize) {
        let Some((path, entry)) = self.entry(n) else { return };
        if entry.is_dir && self.has_entries(&path) {
            return;
        }
        let (dir, name) = (self.ino(parent(&path)), last(&path));
        self.edit(move |edit| {
            let found = edit.child(dir, &name)?.unwrap();
            assert!(edit.is_empty(found.inode.ino)?);
            edit.remove(dir, &found)
        })
        .await;
        self.tree.remove(&path);
    }

    fn ino(&self, path: &str) -> Ino {
        self.tree.get(path).map_or(Ino::ROOT, |entry| entry.ino)
    }

    /// What of rename(2) is the index's; the refusals are `fs`'s.
    async fn rename(&mut self, old: String, to: usize, name: usize) {
        let Some(entry) = self.tree.get(&old).cloned() else { return };
        let (to_path, to) = self.dir(to);
        let new = joined(&to_path, NAMES[name]);
        let below = format!("{old}/");
        if new == old || new.starts_with(&below) {
            return;
        }
        if let Some(other) = self.tree.get(&new)
            && (other.is_dir != entry.is_dir || self.has_entries(&new))
        {
            return;
        }
        let (from, old_name, new_name) = (self.ino(parent(&old)), last(&old), last(&new));
        self.edit(move |edit| {
            let found = edit.child(from, &old_name)?.unwrap();
            assert!(!edit.is_above(found.inode.ino, to)?);
            let replaced = edit.child(to, &new_name)?;
            let component = edit.component(to, &new_name, found.inode.kind)?.unwrap();
            edit.rename(from, &found, to, component, replaced.as_ref())
        })
        .await;
        let moving: Vec<String> =
            self.tree.keys().filter(|path| **path == old || path.starts_with(&below)).cloned().collect();
        self.tree.remove(&new);
        for path in moving {
            let entry = self.tree.remove(&path).unwrap();
            self.tree.insert(format!("{new}{}", &path[old.len()..]), entry);
        }
    }

    /// Inodes and keys with a request under way: one at a time.
    fn busy(&self) -> (HashSet<Ino>, HashSet<String>) {
        let (mut inodes, mut keys) = (HashSet::new(), HashSet::new());
        for sent in &self.sent {
            match sent {
                Sent::Settle(settled) => {
                    inodes.insert(settled.ino);
                    keys.insert(settled.key.to_string());
                }
                Sent::Without(ino, _) => drop(inodes.insert(*ino)),
                Sent::Removed(key) => drop(keys.insert(key.to_string())),
            }
        }
        (inodes, keys)
    }

    fn rows(&self) -> (Vec<Ino>, Vec<(Key, Away)>) {
        let pending = self.bench.index.pending_rows(Ino(0), 1000).unwrap();
        let away = self.bench.index.away_rows(None, 1000).unwrap();
        let backlog = self.bench.index.backlog();
        assert_eq!((backlog.inodes, backlog.away), (pending.len() as u64, away.len() as u64));
        (pending.into_iter().map(|(ino, _)| ino).collect(), away)
    }

    /// Does to S3 what the n-th row calls for, or dies on the way; false when it has to wait.
    async fn begin(&mut self, n: usize, arrives: bool) -> bool {
        let (inodes, away) = self.rows();
        let total = inodes.len() + away.len();
        match n % total.max(1) {
            n if n < inodes.len() => self.bring(inodes[n], arrives).await,
            n => match away.get(n - inodes.len()) {
                Some((key, away)) => self.delete(key, away),
                None => false,
            },
        }
    }

    fn delete(&mut self, key: &Key, away: &Away) -> bool {
        if away.ino.is_some() || self.busy().1.contains(key.as_str()) {
            return false;
        }
        // of what was sent from here nobody knows whether it came there
        match self.s3.get(key.as_str()) {
            Some(object) if self.is_noted(key, object) => {}
            None if self.may_be_gone(key) => {}
            there => assert_eq!(there.map(|object| object.etag.as_str()), Some(away.etag.as_str()), "DELETE {key:?}"),
        }
        self.s3.remove(key.as_str());
        self.sent.push(Sent::Removed(key.clone()));
        true
    }

    async fn bring(&mut self, ino: Ino, arrives: bool) -> bool {
        let (inodes, keys) = self.busy();
        let Some(task) = self.bench.index.task(ino).unwrap() else { return false };
        let key = task.key.clone().unwrap();
        if inodes.contains(&ino) || task.in_the_way.as_ref().is_some_and(|away| away.ino.is_some()) {
            return false;
        }
        let (is_dir, pending) = (task.node.kind == Kind::Dir, task.pending);
        if is_dir && pending.place {
            self.bench.index.expand(ino, 2).await.unwrap();
            return true;
        }
        let is_in_place = task.remote_key.as_ref() == Some(&key);
        let needs_marker =
            !task.has_entries || !task.has_default_attributes || task.node.remote.is_some() || task.is_in_doubt;
        if if is_dir { !needs_marker } else { is_in_place && !pending.content && !pending.attributes } {
            self.sent.push(Sent::Without(ino, pending.change));
            return true;
        }
        if keys.contains(key.as_str()) {
            return false;
        }
        let expected = match &task.node.remote {
            Some(remote) if is_in_place => Some(remote.etag.clone()),
            _ => task.in_the_way.as_ref().map(|away| away.etag.clone()),
        };
        match self.s3.get(key.as_str()) {
            Some(object) if self.is_noted(&key, object) => {}
            None if !is_in_place && self.may_be_gone(&key) => {}
            there => {
                let there = there.map(|object| ETag::new(&object.etag));
                assert_eq!(there, expected, "If-Match of {key:?} for {ino}");
            }
        }
        self.send(&task, key, arrives).await;
        true
    }

    /// A PUT or a copy to `key`.
    async fn send(&mut self, task: &Task, key: Key, arrives: bool) {
        let (ino, content) = (task.node.ino, task.pending.content || task.node.kind == Kind::Dir);
        let tag = if content {
            self.tags.get(&ino).copied()
        } else {
            let Some(source) = self.source(task).await else { return };
            Some(source.tag)
        };
        let object = self.object(tag, task.node.size);
        let etag = ETag::new(&object.etag);
        let notes = format!("{}{}\n", self.noted(&key), object.etag);
        assert!(self.bench.index.note_sent(ino, key.clone(), notes.into_bytes()).await.unwrap());
        if !arrives {
            return;
        }
        self.s3.insert(key.to_string(), object);
        let (sent, answered) = (self.bench.tick(), self.bench.tick());
        let local = match task.node.staged {
            Some(staged) if content => {
                let object =
                    if self.fresh().is_multiple_of(2) { staged.0 } else { self.bench.index.allocate().await.unwrap() };
                let local = Local { object: ObjectId(object), complete: true };
                Some((local, ObjectRow { ino, size: task.node.size, presence: Presence::Complete }))
            }
            _ => None,
        };
        let (change, size) = (task.pending.change, task.node.size);
        let settled = Settled { ino, change, key, etag, size, sent, answered, content, local };
        self.sent.push(Sent::Settle(Box::new(settled)));
    }

    /// The object that is to be copied. `None`: it is the one of an earlier request, which is taken for it first.
    async fn source(&mut self, task: &Task) -> Option<Object> {
        let key = task.remote_key.clone().expect("what has no content pending is in S3");
        let object = self.s3.get(key.as_str()).expect("it is where the index says").clone();
        let remote = task.node.remote.as_ref().unwrap();
        if object.etag == remote.etag.as_str() {
            return Some(object);
        }
        assert!(self.is_noted(&key, &object), "{object:?} at {key:?}, which should be {remote:?}");
        let (sent, answered) = (self.bench.tick(), self.bench.tick());
        let (ino, etag, size, content, local) = (task.node.ino, ETag::new(&object.etag), remote.size, false, None);
        let settled = Settled { ino, change: 0, key, etag, size, sent, answered, content, local };
        self.bench.index.settle(settled).await.unwrap();
        None
    }

    async fn finish(&mut self, n: usize) {
        if self.sent.is_empty() {
            return;
        }
        match self.sent.swap_remove(n % self.sent.len()) {
            Sent::Settle(settled) => drop(self.bench.index.settle(*settled).await.unwrap()),
            Sent::Without(ino, change) => drop(self.bench.index.settle_without(ino, change).await.unwrap()),
            Sent::Removed(key) => {
                let (sent, answered) = (self.bench.tick(), self.bench.tick());
                self.bench.index.removed(key, sent, answered).await.unwrap();
            }
        }
    }

    /// The next page of a listing.
    fn page(&self, listing: &mut Listing) -> Page {
        let Listing { prefix, recursive, after } = listing;
        let fold = |(key, object): (&String, &Object)| match key[prefix.len()..].find('/') {
            Some(at) if !*recursive => (key[..prefix.len() + at + 1].to_owned(), String::new()),
            _ => (key.clone(), object.etag.clone()),
        };
        let below = self.s3.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
        let mut keys: Vec<_> = below.map(fold).filter(|(key, _)| *key > *after).collect();
        keys.dedup();
        let last = keys.len() <= PAGE;
        keys.truncate(PAGE);
        if let Some((key, _)) = keys.last() {
            after.clone_from(key);
        }
        let keys: Vec<_> = keys.iter().map(|(key, etag)| (key.as_str(), etag.as_str())).collect();
        let mut page = Page { last, ..self.bench.page(&keys) };
        page.objects.iter_mut().for_each(|(key, meta)| meta.size = self.s3[key.as_str()].size);
        page
    }

    fn list(&mut self, n: usize, recursive: bool) {
        let (_, dir) = self.dir(n);
        let prefix = self.bench.index.remote_prefix(dir).unwrap().unwrap();
        let mut listing = Listing { prefix, recursive, after: String::new() };
        let page = self.page(&mut listing);
        self.words.push(Word::Page(self.bench.sweep(dir, recursive), listing, page));
    }

    fn head(&mut self, n: usize) {
        let Some((path, entry)) = self.entry(n) else { return };
        let key = if entry.is_dir { format!("{path}/") } else { path };
        let seen = match self.s3.get(&key) {
            Some(object) => Seen::Object(ObjectMeta { size: object.size, ..version(&object.etag, Some(&[])) }),
            None if self.s3.keys().any(|other| entry.is_dir && other.starts_with(&key)) => Seen::Prefix,
            None => Seen::Absent,
        };
        self.words.push(Word::Head(self.bench.observation(&key, seen)));
    }

    async fn hear(&mut self, n: usize) {
        if self.words.is_empty() {
            return;
        }
        match self.words.swap_remove(n % self.words.len()) {
            Word::Head(observation) => drop(self.bench.index.apply(observation).await.unwrap()),
            Word::Page(sweep, mut listing, page) => {
                let is_last = page.last;
                let (sweep, _) = self.bench.index.apply_page(sweep, page).await.unwrap();
                if !is_last {
                    let page = self.page(&mut listing);
                    self.words.push(Word::Page(sweep, listing, page));
                }
            }
        }
    }

    fn walk(&self) -> BTreeMap<String, Entry> {
        let (mut tree, mut left) = (BTreeMap::new(), vec![(String::new(), Ino::ROOT)]);
        while let Some((path, dir)) = left.pop() {
            for entry in self.bench.index.entries(dir, 0, 1000).unwrap() {
                let (path, ino) = (joined(&path, &entry.name.to_string()), entry.node.ino);
                assert_eq!(self.bench.index.child(dir, &entry.name).unwrap().unwrap().ino, ino);
                let is_dir = entry.node.kind == Kind::Dir;
                if is_dir {
                    left.push((path.clone(), ino));
                }
                assert!(tree.insert(path, Entry { ino, is_dir }).is_none());
            }
        }
        tree
    }

    fn check(&self) {
        assert_eq!(self.walk(), self.tree);
        assert_eq!(self.bench.index.contradictions().unwrap(), Vec::<String>::new());
        let counts = self.bench.index.counts();
        let dirs = self.tree.values().filter(|entry| entry.is_dir).count();
        assert_eq!((counts.files, counts.dirs), ((self.tree.len() - dirs) as u64, dirs as u64));
        self.check_bucket();
    }

    /// Every object of S3 is somebody's, or is to be removed, or was sent just now.
    fn check_bucket(&self) {
        let (inodes, mut accounted) = self.busy();
        for (path, Entry { ino, .. }) in &self.tree {
            let node = self.bench.index.node(*ino).unwrap().unwrap();
            let Some(key) = self.bench.index.remote_key(*ino).unwrap() else { continue };
            let remote = node.remote.as_ref().unwrap();
            if !inodes.contains(ino) {
                let there = self.s3.get(key.as_str()).unwrap_or_else(|| panic!("{path} is not at {key:?}"));
                let is_known = there.etag == remote.etag.as_str() || self.is_noted(&key, there);
                assert!(is_known, "{there:?}, of which {path} is at {key:?} as {remote:?}");
            }
            accounted.insert(key.to_string());
        }
        accounted.extend(self.rows().1.into_iter().map(|(key, _)| key.to_string()));
        for key in self.s3.keys() {
            assert!(accounted.contains(key) || !self.noted(key).is_empty(), "nobody knows of {key:?}");
        }
    }

    /// Brings everything to S3, the n-th row first.
    async fn drain(&mut self, n: usize) {
        for round in 0.. {
            while !self.sent.is_empty() {
                self.finish(n).await;
                self.check();
            }
            let (inodes, away) = self.rows();
            let total = inodes.len() + away.len();
            if total == 0 {
                return;
            }
            assert!(round < 1000, "it never ends: {inodes:?} {away:?}");
            let mut moved = false;
            for row in 0..total {
                moved |= self.begin(n + row, true).await;
            }
            if !moved {
                self.break_cycle(&inodes).await;
            }
        }
    }

    /// Names were swapped: one of the files goes out of the way.
    async fn break_cycle(&mut self, inodes: &[Ino]) {
        for ino in inodes {
            let task = self.bench.index.task(*ino).unwrap().unwrap();
            if task.node.kind != Kind::Dir
                && let Some(remote) = &task.node.remote
            {
                let Some(source) = self.source(&task).await else { return };
                let object = self.object(Some(source.tag), source.size);
                let key = Key::new(&format!("out-of-the-way-{}", self.fresh())).unwrap();
                let etag = ETag::new(&object.etag);
                self.s3.insert(key.to_string(), object);
                let (change, size) = (0, remote.size);
                let (sent, answered) = (self.bench.tick(), self.bench.tick());
                let (ino, content, local) = (*ino, false, None);
                let settled = Settled { ino, change, key, etag, size, sent, answered, content, local };
                assert_eq!(self.bench.index.settle(settled).await.unwrap(), Outcome::Again);
                return;
            }
        }
        panic!("all wait for each other");
    }

    fn check_drained(&self) {
        let mut left: HashSet<&str> = self.s3.keys().map(String::as_str).collect();
        for (path, entry) in &self.tree {
            let key = if entry.is_dir { format!("{path}/") } else { path.clone() };
            match self.s3.get(&key) {
                Some(object) if !entry.is_dir => assert_eq!(object.tag, self.tags[&entry.ino], "the bytes of {path}"),
                Some(_) => {}
                None => assert!(entry.is_dir && self.has_entries(path), "S3 has no {key:?}"),
            }
            left.remove(key.as_str());
        }
        assert!(left.is_empty(), "S3 has more than the tree: {left:?}");
        let in_doubt: Vec<_> = self.s3.keys().filter(|key| !self.noted(key).is_empty()).collect();
        assert!(in_doubt.is_empty(), "all answers were told: {in_doubt:?}");
    }
}

async fn play(steps: Vec<Step>, order: usize) {
    let mut world = World::new().await;
    world.check();
    for step in steps {
        match step {
            Step::File(dir, name) => world.make(dir, name, None).await,
            Step::Mkdir(dir, name, plain) => world.make(dir, name, Some(if plain { 0o755 } else { 0o700 })).await,
            Step::Write(n) => world.write(n).await,
            Step::Chmod(n) => {
                if let Some((_, Entry { ino, .. })) = world.entry(n) {
                    let mode = Some(0o600);
                    world.edit(move |edit| edit.set(ino, NewAttributes { mode, ..Default::default() })).await;
                }
            }
            Step::Remove(n) => world.remove(n).await,
            Step::Rename(what, to, name) => {
                let path = world.entry(what).map(|(path, _)| path);
                world.rename(path.unwrap_or_default(), to, name).await;
            }
            Step::RenameDir(what, to, name) => world.rename(world.dir(what).0, to, name).await,
            Step::Begin(n) => drop(world.begin(n, true).await),
            Step::Lose(n) => drop(world.begin(n, false).await),
            Step::Finish(n) => world.finish(n).await,
            Step::List(n, recursive) => world.list(n, recursive),
            Step::Head(n) => world.head(n),
            Step::Hear(n) => world.hear(n).await,
            Step::Reopen => {
                world.words.clear();
                world.bench = world.bench.reopen();
            }
            Step::Crash => {
                world.words.clear();
                let removed = world.sent.drain(..).filter_map(|sent| match sent {
                    Sent::Removed(key) => Some(key.to_string()),
                    Sent::Settle(_) | Sent::Without(..) => None,
                });
                world.removed.extend(removed);
                world.bench = world.bench.crashed();
            }
        }
        world.bench.orphans_removed().await;
        world.check();
    }
    while !world.words.is_empty() {
        world.hear(order).await;
        world.check();
    }
    world.drain(order).await;
    world.check();
    world.check_drained();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_drained_journal_leaves_s3_as_the_tree(steps in prop::collection::vec(step(), 1..80), order in 0..100_usize) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(play(steps, order));
    }
}
