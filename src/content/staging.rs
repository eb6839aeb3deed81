//! Bytes that S3 does not have: `staging/<id>`, one file an inode, dirty and precious.
//! Owns: the staging files, what of them is written, what of it is durable, the attributes that run ahead of the
//! index, the write verifier.
//!
//! A staging file lies over the version that S3 has (the *base*: `local` of the inode, which may be partly or not at
//! all here). It is sparse: what was written is in it, at its place; what was not is the base's up to `base_len`, and
//! zeros after that. So a small write to a large file copies nothing and fetches nothing.
//!
//! Invariants
//! - A row in the index never says more than is on the disk: bytes are fdatasynced (and the directory, for a
//!   new file), then the row is written, then COMMIT is answered. What is in the file beyond the row is nobody's after a crash.
//! - Bytes are in the file before they are counted as written, so who reads by `pieces` finds them there.
//! - A truncation is one of the overlay alone; the file is cut later, by the owner task, once the row says so too.
//! - `version` grows with every change, over the life of the process; who uploads notes it before and compares it after.
//! - The `turn` of a staging file: WRITE holds it for reading; what replaces the file or cuts it (truncation,
//!   the end of an upload) holds it for writing. After `close`, no WRITE lands: it begins again with the inode.
//! - An fsync that failed is never repeated as if nothing was: the verifier changes, so clients send their
//!   uncommitted data again, and those bytes are no longer counted as durable until they are written again.
//! - A dirty byte is never evicted; a WRITE is refused only when the disk itself has no room.
//!
//! Lock order: `turn`, `saving`, `gate`, `state`; nothing is taken under `queue`. The gate is held over one pwrite, or one `read`, of which no WRITE
//! may be a part; `state` is held for no disk call, so attributes never wait for the disk.

mod ahead;
mod durable;
mod file;
mod frozen;
mod overlay;
mod promote;
mod queue;
mod room;
mod state;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use tracing::warn;

use ahead::Ahead;
pub(super) use durable::Volume;
pub use frozen::Frozen;
use overlay::Overlay;
use queue::Queue;
pub(super) use room::Credit;
use state::State;

use super::{Content, Object, blocking};
use crate::index::{Inode, Node};
use crate::rpc::FileRange;
use crate::types::{Ino, ObjectId, Tick, Time};

/// A file with bytes that S3 does not have.
pub struct Staged {
    id: ObjectId,
    ino: AtomicU64,
    file: OnceLock<Arc<File>>,
    opening: Mutex<()>,
    /// Where the file must end, at least, when it is opened; zero: it may be made.
    promised: u64,
    /// Ticket of its name; zero: durable.
    name: AtomicU64,
    turn: Arc<tokio::sync::RwLock<()>>,
    queue: Queue,
    ahead: Ahead,
    closed: AtomicBool,
    /// One fdatasync and one row at a time.
    saving: Arc<tokio::sync::Mutex<()>>,
    gate: parking_lot::RwLock<()>,
    state: Mutex<State>,
    volume: Arc<Volume>,
}

/// Attributes that run ahead of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
}

/// Where a part of a staged file's bytes is.
#[derive(Clone, Debug)]
pub enum Piece {
    /// In the staging file.
    Here(FileRange),
    /// In the version below, at these bytes.
    Base(Range<u64>),
    /// Nowhere: so many zeros.
    Zeros(u64),
}

/// What lies below what was written.
#[derive(Clone, Debug)]
pub enum Below {
    /// The version that the change was made of; what is needed of it is here. Beyond its end there are zeros: it may
    /// have been replaced by a shorter one.
    Version(Arc<Object>),
    /// What is left here of one that S3 has no more. The rest of it is nowhere: zeros.
    Remains(Option<Arc<Object>>),
}

/// The right to write: while it is held, nothing replaces or cuts the file.
#[derive(Debug)]
pub struct WriteTurn {
    staged: Arc<Staged>,
    _guard: OwnedRwLockReadGuard<()>,
}

/// The right to replace or cut: while it is held, nobody writes.
#[derive(Debug)]
pub struct SoleTurn {
    staged: Arc<Staged>,
    _guard: OwnedRwLockWriteGuard<()>,
}

impl Content {
    /// The staging file of an inode that has one; opened, with its state from the index, at first.
    /// One index read and one open(2) then; a map lookup later.
    /// # Errors
    /// What the OS or the index says; `NotFound` when the file is lost (data loss: it is logged as such);
    /// `StaleNetworkFileHandle` when `node` is of the past: look at the inode again.
    pub fn staged(&self, node: &Node) -> io::Result<Arc<Staged>> {
        let id = node.staged.ok_or(io::ErrorKind::StaleNetworkFileHandle)?;
        let found = self.staged.get(&id).map(|staged| staged.clone());
        let staged = found.map_or_else(|| self.load_staged(id), Ok)?;
        if staged.ino() != node.ino {
            self.owner(&staged)?;
        }
        if staged.promised > 0 {
            staged.file()?;
        }
        Ok(staged)
    }

    /// Takes the state of a staging file from the index. Under the lock of its entry, so that none comes back which
    /// was closed in between: whoever closes one has removed its row before its entry.
    fn load_staged(&self, id: ObjectId) -> io::Result<Arc<Staged>> {
        self.close_idle();
        let staged = match self.staged.entry(id) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(vacant) => {
                let row = self.index.staged(id).map_err(io::Error::other)?;
                let row = row.ok_or(io::ErrorKind::StaleNetworkFileHandle)?;
                let node = self.index.node(row.ino).map_err(io::Error::other)?;
                let node = node.filter(|node| node.staged == Some(id)).ok_or(io::ErrorKind::StaleNetworkFileHandle)?;
                let overlay = Overlay::new(node.size, row.base_len, row.ranges.into_iter().collect());
                vacant.insert(Staged::new(id, &node, overlay, &self.volume)).clone()
            }
        };
        self.staged_of.insert(staged.ino(), id);
        Ok(staged)
    }

    /// The staging file of `ino`, if it is open: for whoever only wants the attributes that run ahead, or has removed
    /// the inode. It may be one of the past: compare its number with the inode's.
    pub fn staged_if_open(&self, ino: Ino) -> Option<Arc<Staged>> {
        let id = *self.staged_of.get(&ino)?;
        self.staged.get(&id).map(|staged| staged.clone())
    }

    /// What lies below the staging file of `inode`, if all that can be had of `range` is here; `None`: it is to be
    /// fetched.
    /// # Errors
    /// What the OS says.
    pub fn below(&self, inode: &Inode, range: &Range<u64>) -> io::Result<Option<Below>> {
        let object = inode.local.map(|local| self.try_get(local.object)).transpose()?.flatten();
        Ok(match object {
            Some(object) if object.has(range.clone()) => Some(Below::Version(object)),
            object if inode.remote.is_none() => Some(Below::Remains(object)),
            _ => None,
        })
    }

    /// A number for a staging file to be. Its file is made by the first write.
    /// # Errors
    /// What the index says.
    pub async fn new_staging(&self) -> io::Result<ObjectId> {
        self.index.allocate().await.map(ObjectId).map_err(io::Error::other)
    }

    /// A staging file that has `bytes`, durably, before an inode has it (a link with its target). If none gets it:
    /// `abandon` it.
    /// # Errors
    /// What the OS or the index says; `StorageFull` when the disk has no room.
    pub async fn stage_bytes(&self, bytes: Bytes) -> io::Result<ObjectId> {
        self.room_to_write(bytes.len() as u64).await?;
        let id = self.new_staging().await?;
        // in the table before it is on the disk: so the sweep of orphans knows it
        self.ledger.stage(id, bytes.len() as u64);
        let volume = self.volume.clone();
        blocking(move || volume.store(id, &bytes)).await.inspect_err(|_| self.remove_staging(id))?;
        Ok(id)
    }

    /// Bytes in staging files, and how many of those there are.
    pub fn staging_usage(&self) -> (u64, u64) {
        self.ledger.staged()
    }

    /// Writes `data` at `offset`; the attributes before and after. Not durable until `sync`. Once begun it goes on, with
    /// its turn, even if the result is not waited for. When the disk is full, clean bytes are evicted first.
    /// # Errors
    /// What the OS says (`StorageFull`, `FileTooLarge`): nothing is counted as written then.
    pub async fn write(
        &self,
        staged: &Arc<Staged>,
        turn: WriteTurn,
        offset: u64,
        data: Bytes,
        at: (Tick, Time),
    ) -> io::Result<(Live, Live)> {
        debug_assert!(Arc::ptr_eq(staged, &turn.staged), "the turn is this file's");
        self.room_to_write(data.len() as u64).await?;
        let turn = Arc::new(turn);
        let write = || staged.write_queued(turn.clone(), offset, data.clone(), at);
        match write().await {
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.free(data.len() as u64).await;
                write().await
            }
            other => other,
        }
    }

    /// Ends a staging file: nobody writes to it any more; its name is removed once the index has no row of it.
    pub fn close_staged(&self, staged: &Staged, turn: SoleTurn) {
        debug_assert_eq!(staged.id, turn.staged.id, "the turn is this file's");
        self.forget_staged(staged.id);
        match self.index.staged(staged.id) {
            Ok(None) => self.remove_staging(staged.id),
            // somebody else's now, or still the same one's: it is opened again when it is wanted
            Ok(Some(_)) => {}
            Err(error) => warn!(staged = staged.id.0, %error, "cannot tell whether a staging file is needed"),
        }
    }

    /// Removes a staging file that the index does not know.
    pub(super) fn remove_staging(&self, id: ObjectId) {
        self.forget_staged(id);
        self.ledger.unstage(id);
        if let Err(error) = self.volume.dir.unlink(id) {
            warn!(staged = id.0, %error, "cannot remove a staging file; the next start will try again");
        }
    }

    fn forget_staged(&self, id: ObjectId) {
        if let Some((_, staged)) = self.staged.remove(&id) {
            staged.closed.store(true, Ordering::Release);
            self.staged_of.remove_if(&staged.ino(), |_, of| *of == id);
        }
    }

    /// Closes files that nobody uses and of which the index knows all, when many are open.
    fn close_idle(&self) {
        if self.staged.len() < self.most_staged.load(Ordering::Relaxed) {
            return;
        }
        self.staged.retain(|_, staged| Arc::strong_count(staged) > 1 || !staged.is_settled());
        self.staged_of.retain(|_, id| self.staged.contains_key(id));
        // so a walk over those that cannot be closed is not repeated for each that comes
        self.most_staged.store((2 * self.staged.len()).max(MAX_STAGED), Ordering::Relaxed);
    }
}

/// 1,024 files open without need: those that an application goes on writing to.
pub(super) const MAX_STAGED: usize = 1024;

#[cfg(test)]
mod tests;
