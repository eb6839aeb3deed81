//! The persistent namespace, in redb: inodes, directory entries, which version S3 has, which bytes are
//! here, what is garbage. The only commit path of the server.
//!
//! Reads are synchronous: bounded memory caches first, then a redb snapshot; nothing is locked across
//! them. Writes go to one writer thread that groups whatever is queued into one durable transaction
//! (a record in a redo log, now and then a checkpoint of redb: `commit.rs`), updates the memory caches, and
//! only then answers. So everything a client has ever seen survives `kill -9` and a loss of power.
//!
//! Invariants
//! - `apply` and `apply_page` are the one reconcile function: they alone decide newer, stale or gone.
//! - Inode numbers, cookies and object ids come from one durable sequence and are never re-used.
//! - A replaced version or a removed file leaves its object id in `garbage` in the same transaction;
//!   `content` unlinks the file and then calls `collected`.
//! - The memory caches never hold a row older than the last commit.

mod allocate;
mod bytes;
mod cache;
mod change;
mod check;
mod commit;
mod conflict;
mod edit;
mod expand;
mod graves;
mod holder;
mod journal;
mod locate;
mod lock_hosts;
mod log;
mod logged;
mod lost;
mod metadata;
mod model;
mod news;
mod open;
mod place;
mod reconcile;
mod repair;
mod row;
mod sent;
mod settle;
mod shelter;
mod snapshot;
mod sweep;
mod tables;
mod task;
mod writer;

#[cfg(test)]
pub(crate) mod changes;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use check::Contradictions;
pub use conflict::Conflict;
pub use edit::{Edit, Found, NewAttributes, NewInode, Progress as StagedProgress};
pub use expand::Expanded;
pub use holder::Holder;
pub use lock_hosts::{LockHost, LockStart};
pub(crate) use metadata::tell as tell_attributes;
pub use model::*;
pub use repair::Rescued;
pub use settle::{Outcome, Settled};
pub use sweep::Sweep;
pub use task::Task;

use crate::types::{Clock, ETag, Ino, Key, Name, ObjectId};
use sweep::{PageWork, Progress};
use writer::{Shared, Writer};

/// Sizes of the index's memory.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// Inodes kept in memory.
    pub cached_inodes: usize,
    /// Names kept in memory.
    pub cached_names: usize,
    /// redb's page cache, in bytes.
    pub page_cache_bytes: usize,
}

/// The index. Cheap to share behind an `Arc`.
pub struct Index {
    shared: Arc<Shared>,
    writer: Writer,
}

/// Deepest path: each component takes at least one byte of the key.
const MAX_DEPTH: usize = crate::types::key::MAX_KEY_BYTES;

impl Index {
    /// Opens or makes `path`. A file of an older format is migrated, of a newer one refused.
    /// `defaults` are the attributes of objects that carry none.
    pub fn open(path: &Path, options: IndexOptions, defaults: Defaults, clock: Clock) -> Result<Index, IndexError> {
        open::open(open::files(path, options.page_cache_bytes), options, defaults, clock)
    }

    /// The node of `ino`; `None` when it is gone (STALE).
    pub fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, IndexError> {
        self.shared.cache.node(ino)
    }

    /// The entry of `dir` that clients know as `name`; `None` when the index has none.
    pub fn child(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, IndexError> {
        self.shared.cache.child(dir, name)
    }

    /// Up to `max` entries of `dir` with cookies above `after`, in cookie order.
    pub fn entries(&self, dir: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>, IndexError> {
        self.shared.cache.entries(dir, after, max)
    }

    /// The cookie of the directory entry that names `ino`; `None` when it is gone, or the root.
    pub fn cookie(&self, ino: Ino) -> Result<Option<u64>, IndexError> {
        let Some(node) = self.node(ino)?.filter(|_| ino != Ino::ROOT) else { return Ok(None) };
        let child = self.shared.cache.snapshot()?.child(node.parent, &node.component)?;
        Ok(child.filter(|child| child.ino == ino).map(|child| child.cookie))
    }

    /// The key (a directory: the prefix) that `ino` has by its path.
    pub fn key(&self, ino: Ino) -> Result<Option<Key>, IndexError> {
        let (mut path, mut ino) = (Vec::new(), ino);
        while ino != Ino::ROOT && path.len() <= MAX_DEPTH {
            let Some(node) = self.node(ino)? else { return Ok(None) };
            ino = node.parent;
            path.push(node);
        }
        let key: String = path.iter().rev().map(|node| node.component.suffix()).collect();
        Ok(Key::new(&key))
    }

    /// The inode of a key, or of a prefix ending in `/`, walking down from the root.
    pub fn resolve(&self, key: &Key) -> Result<Option<Arc<Node>>, IndexError> {
        let ino = sent::by_path(&&*self.shared.cache.snapshot()?, key)?;
        ino.map_or(Ok(None), |ino| self.node(ino))
    }

    /// The nodes in memory: all of which anything is known since when.
    pub fn in_memory(&self) -> Vec<Arc<Node>> {
        self.shared.cache.all()
    }

    /// A fresh number from the durable sequence (blocks are reserved ahead, so this rarely waits).
    pub async fn allocate(&self) -> Result<u64, IndexError> {
        loop {
            if let Some(number) = self.shared.sequence.take() {
                return Ok(number);
            }
            self.writer.run(1, |change| change.reserve()).await?;
        }
    }

    /// Reconciles one observation of S3. See [`Observation`]; returns after the commit.
    pub async fn apply(&self, observation: Observation) -> Result<Applied, IndexError> {
        let (verdict, ino) = self.writer.run(1, |change| reconcile::apply(change, observation)).await?;
        let node = ino.map(|ino| self.node(ino)).transpose()?.flatten();
        Ok(Applied { verdict, node })
    }

    /// Reconciles one page of a listing and moves `sweep` on: entries are created, changed, and, where
    /// the page's key range shows them missing, removed. One transaction a page (several where it removes
    /// much), memory bounded by the page. The `last` page closes the listing: directories it walked become `listed`.
    pub async fn apply_page(&self, sweep: Sweep, page: Page) -> Result<(Sweep, PageApplied), IndexError> {
        let mut work = PageWork::new(sweep, page);
        loop {
            match self.writer.run(work.weight(), |change| work.run(change)).await? {
                Progress::Done(sweep, applied) => return Ok((sweep, applied)),
                Progress::Paused(rest) => work = rest,
            }
        }
    }

    /// Says that the bytes of `ino`'s version `etag` are (partly) in `object`. False, and the object is
    /// garbage, when the inode no longer has that version.
    pub async fn attach(&self, ino: Ino, etag: ETag, object: ObjectId, presence: Presence) -> Result<bool, IndexError> {
        self.writer.run(1, move |change| bytes::attach(change, ino, &etag, object, presence)).await
    }

    /// Forgets the bytes of `object` (evicted, torn, missing): its inode becomes cold, the object garbage.
    pub async fn detach(&self, object: ObjectId) -> Result<(), IndexError> {
        self.writer.run(1, move |change| bytes::detach(change, object)).await
    }

    /// The same of an object that is to make room. False, and nothing is done, when S3 does not have its bytes.
    pub async fn evict(&self, object: ObjectId) -> Result<bool, IndexError> {
        self.writer.run(1, move |change| bytes::evict(change, object)).await
    }

    /// What is known of the bytes of `object`; `None` for an object no inode has.
    pub fn presence(&self, object: ObjectId) -> Result<Option<ObjectRow>, IndexError> {
        self.shared.cache.snapshot()?.object(object)
    }

    /// All objects after `after`, at most `max`, in id order: for the start-up scan of `content`.
    pub fn objects(&self, after: Option<ObjectId>, max: usize) -> Result<Vec<(ObjectId, ObjectRow)>, IndexError> {
        self.shared.cache.snapshot()?.objects(after.map_or(0, |object| object.0), max)
    }

    /// Object ids whose files can be unlinked, at most `max`.
    pub fn garbage(&self, max: usize) -> Result<Vec<ObjectId>, IndexError> {
        self.shared.cache.snapshot()?.garbage(max)
    }

    /// Whether `id` is the number of an object, of a staging file, or of one of them that is to be unlinked.
    pub fn is_known(&self, id: ObjectId) -> Result<bool, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let is_in_use = snapshot.objects.get(id.0)?.is_some() || snapshot.staging.get(id.0)?.is_some();
        Ok(is_in_use || snapshot.garbage.get(id.0)?.is_some())
    }

    /// Waits until there may be new garbage. For one waiter at a time.
    pub async fn garbage_added(&self) {
        self.shared.garbage_added.notified().await;
    }

    /// Forgets garbage whose files are unlinked.
    pub async fn collected(&self, objects: Vec<ObjectId>) -> Result<(), IndexError> {
        let forget =
            move |change: &mut change::Change<'_>| objects.into_iter().try_for_each(|object| change.collected(object));
        self.writer.run(1, forget).await
    }

    /// Files and directories in the index (not counting the root).
    pub fn counts(&self) -> Counts {
        self.shared.cache.snapshot().map(|snapshot| snapshot.counts).unwrap_or_default()
    }

    /// All files, in inode order, after `after`, at most `max`: for the mirror and for `warm`.
    pub fn files(&self, after: Ino, max: usize) -> Result<Vec<Arc<Node>>, IndexError> {
        let rows = self.shared.cache.snapshot()?.files(after, max)?;
        Ok(rows.into_iter().map(|row| self.shared.cache.passing(row)).collect())
    }

    /// All inodes after `after`, at most `max`: for `fsck`.
    pub fn nodes(&self, after: Ino, max: usize) -> Result<Vec<Arc<Node>>, IndexError> {
        let rows = self.shared.cache.snapshot()?.rows(after, max, |_| true)?;
        Ok(rows.into_iter().map(|row| self.shared.cache.passing(row)).collect())
    }

    /// Commits what is queued and stops the writer. Later calls fail with `Closed`.
    pub async fn close(&self) {
        self.writer.close().await;
    }
}
