//! When to ask S3, and how: checks behind answers, names and listings that are not here, fetches, the mirror.
//! Owns: the queue of checks, single flight per key, per listing and per range, the counters of F7.
//! Invariants
//! - One check of a key is in flight at a time; a key checked less than `recheck` ago is not asked again.
//! - Everything S3 says goes to `index.apply` or `index.apply_page`; nothing here decides what is newer.
//! - A new version of a file that was complete here is copied in whole and swapped by one transaction;
//!   of any other file the new version is swapped in at once and fetched when read (F2, F5).
//! - The queue is bounded; a check that finds it full is dropped and asked for again by the next touch.

pub mod fetch;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::content::{Content, Object};
use crate::index::{Index, Node};
use crate::store::Store;
use crate::types::{Clock, Ino, Name};

/// What a wait for S3 can end in, for `fs/` to turn into an NFS error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed, or S3 is not reachable: the client should ask again (JUKEBOX).
    #[error("S3 has not answered in time")]
    Busy,
    /// The inode is gone (STALE).
    #[error("gone from S3")]
    Gone,
    /// The cache disk is full (NOSPC).
    #[error("the cache disk is full")]
    NoSpace,
    /// S3 refused (ACCES).
    #[error("denied by S3")]
    Denied,
    /// Anything else, already logged (IO).
    #[error("failed")]
    Failed,
}

/// The knobs of freshness; the defaults are `config.rs`'s.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A key checked less than this ago is not asked for again (`--recheck`).
    pub recheck: Duration,
    /// Longest wait of a client for S3 before JUKEBOX (`--deadline`).
    pub deadline: Duration,
    /// `--stale-limit one`: longest wait of an open for a check in flight (`--stale-wait`); `None` = never waits.
    pub stale_wait: Option<Duration>,
    /// Checks up to this size are one conditional GET; above, HEAD and ranged GETs (bytes).
    pub small_object: u64,
}

/// The two views of S3: what a client waits for must not queue behind what nobody waits for.
#[derive(Clone)]
pub struct Stores {
    /// For requests a client waits for.
    pub foreground: Arc<dyn Store>,
    /// For checks, the mirror and read-ahead.
    pub background: Arc<dyn Store>,
}

/// Asks S3. Cheap to share behind an `Arc`.
pub struct Revalidator {}

impl Revalidator {
    /// Makes it; nothing runs until `run`.
    pub fn new(
        index: Arc<Index>,
        content: Arc<Content>,
        stores: Stores,
        settings: Settings,
        clock: Clock,
    ) -> Arc<Revalidator> {
        todo!()
    }

    /// The owner task: takes checks off the queue, groups them (one LIST for 13 or more keys of one
    /// directory where that is cheaper), runs them. Returns when `stop` is cancelled and all is settled.
    pub async fn run(self: Arc<Revalidator>, stop: CancellationToken) {
        todo!()
    }

    /// Notes that an answer was given from `node`, and queues a check behind it when one is due (F2).
    /// Never blocks: one clock read, two atomics.
    pub fn touch(&self, node: &Arc<Node>) {
        todo!()
    }

    /// Strict mode (F6): whether an open of `node` must wait for a check that an earlier request set off.
    pub fn must_settle(&self, node: &Arc<Node>) -> bool {
        todo!()
    }

    /// Waits until the check in flight on `ino` has settled, at most `stale_wait`.
    pub async fn settled(&self, ino: Ino) {
        todo!()
    }

    /// Whether S3 said lately (within `recheck`) that `dir` has no such name, or a fresh listing says so.
    pub fn is_absent(&self, dir: &Arc<Node>, name: &Name) -> bool {
        todo!()
    }

    /// Looks in S3 for a name the index does not have: that one key, and whether it is a prefix (F4).
    /// `Ok(None)`: it is not there, remembered for `recheck`.
    pub async fn look_up(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, WaitError> {
        todo!()
    }

    /// Starts the first listing of `dir`, or joins the one under way.
    pub fn list(&self, dir: Ino) -> ListingProgress {
        todo!()
    }

    /// Brings `range` of the current version of `ino` here: returns once that range is (F5), together
    /// with the node whose version it is. Fetches ahead when reads are sequential.
    pub async fn fetch(&self, ino: Ino, range: Range<u64>) -> Result<(Arc<Node>, Arc<Object>), WaitError> {
        todo!()
    }
}

/// A listing under way.
pub struct ListingProgress {}

impl ListingProgress {
    /// Waits until more entries are in the index than at the last call, or the listing has ended.
    /// `Ok(true)`: it has ended, and what the index has is all.
    pub async fn advanced(&mut self) -> Result<bool, WaitError> {
        todo!()
    }
}
