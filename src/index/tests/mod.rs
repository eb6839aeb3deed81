//! Tests of the index, and the bucket and clock they share.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

mod bench;
mod check;
mod crash;
mod disk;
mod drain;
mod durability;
mod edit;
mod lock_hosts;
mod log;
mod memory;
mod model;
mod objects;
mod pending;
mod pending_model;
mod reconcile;
mod repair;
mod settle;
mod sweep;

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::store::ObjectMeta;
use crate::types::{Tick, Time};

const DEFAULTS: Defaults = Defaults { uid: 10, gid: 20, file_mode: 0o644, dir_mode: 0o755 };
const OPTIONS: IndexOptions = IndexOptions { cached_inodes: 1000, cached_names: 1000, page_cache_bytes: 1 << 20 };
/// Last-Modified of versions that are not about time.
const MODIFIED: Time = Time(1_700_000_000_000_000_000);

/// An index in a directory of its own, under a clock that stands still.
struct Bench {
    dir: TempDir,
    index: Index,
    clock: Clock,
}

impl Bench {
    fn new() -> Bench {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let index = Index::open(&dir.path().join("index.redb"), OPTIONS, DEFAULTS, clock.clone()).unwrap();
        Bench { dir, index, clock }
    }

    /// Drops the index and opens it again.
    fn reopen(self) -> Bench {
        let Bench { dir, index, clock } = self;
        drop(index);
        let index = Index::open(&dir.path().join("index.redb"), OPTIONS, DEFAULTS, clock.clone()).unwrap();
        Bench { dir, index, clock }
    }

    /// What a death of the process leaves, opened: the files copied while the index runs.
    fn crashed(&self) -> Bench {
        let (dir, clock) = (tempfile::tempdir().unwrap(), self.clock.clone());
        for file in ["index.redb", "index.log"] {
            std::fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        let index = Index::open(&dir.path().join("index.redb"), OPTIONS, DEFAULTS, clock.clone()).unwrap();
        Bench { dir, index, clock }
    }

    /// Waits until the writer has removed what was below directories that are gone.
    async fn orphans_removed(&self) {
        while self.index.shared.cache.snapshot().unwrap().has_orphans {
            tokio::task::yield_now().await;
        }
    }

    /// The clock, one tick later.
    fn tick(&self) -> Tick {
        self.clock.advance(Duration::from_millis(1));
        self.clock.now()
    }

    fn observation(&self, key: &str, seen: Seen) -> Observation {
        let (sent, answered) = (self.tick(), self.tick());
        Observation { key: Key::new(key).unwrap(), seen, sent, answered, source: Source::Check, content: None }
    }

    async fn see(&self, key: &str, seen: Seen) -> Applied {
        self.index.apply(self.observation(key, seen)).await.unwrap()
    }

    /// Has S3 have version `etag` of `key`, as HEAD tells without metadata.
    async fn put(&self, key: &str, etag: &str) -> Arc<Node> {
        self.see(key, head(etag, &[])).await.node.unwrap()
    }

    async fn put_with_content(&self, key: &str, etag: &str) -> (Arc<Node>, ObjectId) {
        let object = ObjectId(self.index.allocate().await.unwrap());
        let observation = Observation { content: Some(object), ..self.observation(key, head(etag, &[])) };
        (self.index.apply(observation).await.unwrap().node.unwrap(), object)
    }

    /// A whole listing of `dir` in pages of `size` keys.
    async fn list(&self, dir: Ino, recursive: bool, keys: &[(&str, &str)], size: usize) -> PageApplied {
        self.take_pages(self.sweep(dir, recursive), keys, size).await
    }

    /// The same of a listing that was asked for before.
    async fn take_pages(&self, mut sweep: Sweep, keys: &[(&str, &str)], size: usize) -> PageApplied {
        let mut pages: Vec<Page> = keys.chunks(size).map(|keys| self.page(keys)).collect();
        if pages.is_empty() {
            pages.push(self.page(&[]));
        }
        pages.last_mut().unwrap().last = true;
        let mut total = PageApplied::default();
        for page in pages {
            let applied;
            (sweep, applied) = self.index.apply_page(sweep, page).await.unwrap();
            total.created += applied.created;
            total.replaced += applied.replaced;
            total.removed += applied.removed;
            total.outdated.extend(applied.outdated);
        }
        total
    }

    /// A listing of `dir` that is asked for now.
    fn sweep(&self, dir: Ino, recursive: bool) -> Sweep {
        Sweep::new(dir, self.index.remote_prefix(dir).unwrap().unwrap(), recursive)
    }

    /// A page of keys with their ETags; no ETag makes a common prefix.
    fn page(&self, keys: &[(&str, &str)]) -> Page {
        let key = |key: &str| Key::new(key).unwrap();
        let (prefixes, objects): (Vec<_>, Vec<_>) = keys.iter().partition(|(_, etag)| etag.is_empty());
        Page {
            objects: objects.iter().map(|(k, etag)| (key(k), version(etag, None))).collect(),
            prefixes: prefixes.iter().map(|(k, _)| key(k)).collect(),
            sent: self.tick(),
            answered: self.tick(),
            last: false,
        }
    }

    /// A new file (or, ending in a slash, directory) at a path whose directories are here.
    async fn create(&self, path: &str) -> Ino {
        let (dir, entry) = self.entry(path);
        changes::create(&self.index, dir, &entry).await
    }

    async fn stage(&self, ino: Ino) -> ObjectId {
        changes::stage(&self.index, ino, 1000).await
    }

    async fn chmod(&self, ino: Ino, mode: u32) {
        changes::chmod(&self.index, ino, mode).await;
    }

    async fn rename(&self, ino: Ino, path: &str) {
        let (dir, entry) = self.entry(path);
        changes::rename(&self.index, ino, dir, &entry).await;
    }

    async fn remove(&self, ino: Ino) {
        changes::remove(&self.index, ino).await;
    }

    /// The directory of a path, and the last part of it.
    fn entry(&self, path: &str) -> (Ino, String) {
        let end = path.strip_suffix('/').unwrap_or(path);
        let at = end.rfind('/').map_or(0, |at| at + 1);
        (self.node(&path[..at]).unwrap().ino, path[at..].to_owned())
    }

    fn node(&self, key: &str) -> Option<Arc<Node>> {
        self.index.resolve(&Key::new(key).unwrap()).unwrap()
    }

    fn names(&self, dir: Ino) -> Vec<String> {
        let entries = self.index.entries(dir, 0, 10_000).unwrap();
        entries.iter().map(|entry| entry.name.to_string()).collect()
    }

    fn child(&self, dir: Ino, name: &str) -> Option<Arc<Node>> {
        self.index.child(dir, &Name::new(name.as_bytes()).unwrap()).unwrap()
    }
}

/// A version; its size follows from its ETag.
fn version(etag: &str, user: Option<&[(&str, &str)]>) -> ObjectMeta {
    let user =
        user.map(|fields| fields.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>());
    ObjectMeta { etag: ETag::new(etag), size: etag.len() as u64, last_modified: MODIFIED, user, content_type: None }
}

fn head(etag: &str, user: &[(&str, &str)]) -> Seen {
    Seen::Object(version(etag, Some(user)))
}

fn listed(etag: &str) -> Seen {
    Seen::Object(version(etag, None))
}
