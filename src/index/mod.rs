//! The persistent namespace, in redb: inodes, directory entries, which version S3 has, which bytes are
//! here, what is garbage. The only commit path of the server.
//!
//! Reads are synchronous: bounded memory caches first, then a redb snapshot; nothing is locked across
//! them. Writes go to one writer thread that groups whatever is queued into one durable transaction
//! (redb `Durability::Immediate`), updates the memory caches, and only then answers. So everything a
//! client has ever seen survives `kill -9`.
//!
//! Invariants
//! - `apply` and `apply_page` are the one reconcile function: they alone decide newer, stale or gone.
//! - Inode numbers, cookies and object ids come from one durable sequence and are never re-used.
//! - A replaced version or a removed file leaves its object id in `garbage` in the same transaction;
//!   `content` unlinks the file and then calls `collected`.
//! - The memory caches never hold a row older than the last commit.

mod model;

use std::path::Path;
use std::sync::Arc;

pub use model::*;

use crate::types::{Clock, ETag, Ino, Key, Name, ObjectId};

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
pub struct Index {}

impl Index {
    /// Opens or makes `path`. A file of an older format is migrated, of a newer one refused.
    /// `defaults` are the attributes of objects that carry none.
    pub fn open(path: &Path, options: IndexOptions, defaults: Defaults, clock: Clock) -> Result<Index, IndexError> {
        todo!()
    }

    /// The node of `ino`; `None` when it is gone (STALE).
    pub fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, IndexError> {
        todo!()
    }

    /// The entry of `dir` that clients know as `name`; `None` when the index has none.
    pub fn child(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, IndexError> {
        todo!()
    }

    /// Up to `max` entries of `dir` with cookies above `after`, in cookie order.
    pub fn entries(&self, dir: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>, IndexError> {
        todo!()
    }

    /// The cookie of the directory entry that names `ino`; `None` when it is gone, or the root.
    pub fn cookie(&self, ino: Ino) -> Result<Option<u64>, IndexError> {
        todo!()
    }

    /// The key (a directory: the prefix) that `ino` has by its path.
    pub fn key(&self, ino: Ino) -> Result<Option<Key>, IndexError> {
        todo!()
    }

    /// The inode of a key, or of a prefix ending in `/`, walking down from the root.
    pub fn resolve(&self, key: &Key) -> Result<Option<Arc<Node>>, IndexError> {
        todo!()
    }

    /// A fresh number from the durable sequence (blocks are reserved ahead, so this rarely waits).
    pub async fn allocate(&self) -> Result<u64, IndexError> {
        todo!()
    }

    /// Reconciles one observation of S3. See [`Observation`]; returns after the commit.
    pub async fn apply(&self, observation: Observation) -> Result<Applied, IndexError> {
        todo!()
    }

    /// Reconciles one page of a listing and moves `sweep` on: entries are created, changed, and, where
    /// the page's key range shows them missing, removed. One transaction a page; memory is bounded by
    /// the page. The `last` page closes the listing: directories it walked become `listed`.
    pub async fn apply_page(&self, sweep: Sweep, page: Page) -> Result<(Sweep, PageApplied), IndexError> {
        todo!()
    }

    /// Says that the bytes of `ino`'s version `etag` are (partly) in `object`. False, and the object is
    /// garbage, when the inode no longer has that version.
    pub async fn attach(&self, ino: Ino, etag: ETag, object: ObjectId, presence: Presence) -> Result<bool, IndexError> {
        todo!()
    }

    /// Forgets the bytes of `object` (evicted, torn, missing): its inode becomes cold, the object garbage.
    pub async fn detach(&self, object: ObjectId) -> Result<(), IndexError> {
        todo!()
    }

    /// What is known of the bytes of `object`; `None` for an object no inode has.
    pub fn presence(&self, object: ObjectId) -> Result<Option<ObjectRow>, IndexError> {
        todo!()
    }

    /// All objects after `after`, at most `max`, in id order: for the start-up scan of `content`.
    pub fn objects(&self, after: Option<ObjectId>, max: usize) -> Result<Vec<(ObjectId, ObjectRow)>, IndexError> {
        todo!()
    }

    /// Object ids whose files can be unlinked, at most `max`.
    pub fn garbage(&self, max: usize) -> Result<Vec<ObjectId>, IndexError> {
        todo!()
    }

    /// Waits until there may be new garbage.
    pub async fn garbage_added(&self) {
        todo!()
    }

    /// Forgets garbage whose files are unlinked.
    pub async fn collected(&self, objects: Vec<ObjectId>) -> Result<(), IndexError> {
        todo!()
    }

    /// Files and directories in the index (not counting the root).
    pub fn counts(&self) -> Counts {
        todo!()
    }

    /// All files, in inode order, after `after`, at most `max`: for the mirror and for `warm`.
    pub fn files(&self, after: Ino, max: usize) -> Result<Vec<Arc<Node>>, IndexError> {
        todo!()
    }

    /// Commits what is queued and stops the writer. Later calls fail with `Closed`.
    pub async fn close(&self) {
        todo!()
    }
}
