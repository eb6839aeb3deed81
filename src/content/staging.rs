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
//! - `version` grows with every change; who uploads notes it before and compares it after.
//! - The `turn` of a staging file: WRITE holds it for reading; what replaces the file or cuts it (truncation,
//!   the end of an upload) holds it for writing. After `close`, no WRITE lands: it begins again with the inode.
//! - An fsync that failed is never repeated as if nothing was: the verifier changes, so clients send their
//!   uncommitted data again, and those bytes are no longer counted as durable until they are written again.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Content, Object};
use crate::index::{Inode, Local, Node, ObjectRow};
use crate::rpc::FileRange;
use crate::types::{Ino, ObjectId, Tick, Time};

/// A file with bytes that S3 does not have.
#[derive(Debug)]
pub struct Staged {
    id: ObjectId,
    ino: Ino,
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

/// The right to write: while it is held, nothing replaces or cuts the file.
#[derive(Debug)]
pub struct WriteTurn {}

/// The right to replace or cut: while it is held, nobody writes.
#[derive(Debug)]
pub struct SoleTurn {}

impl Content {
    /// The staging file of an inode that has one; opened, with its state from the index, at first.
    /// One index read and one open(2) then; a map lookup later.
    /// # Errors
    /// What the OS or the index says; `NotFound` when the file is lost (data loss: it is logged as such).
    pub fn staged(&self, node: &Node) -> io::Result<Arc<Staged>> {
        todo!("{node:?}")
    }

    /// The staging file of `ino`, if it is open: for whoever only wants the attributes that run ahead.
    pub fn staged_if_open(&self, ino: Ino) -> Option<Arc<Staged>> {
        todo!("{ino}")
    }

    /// A number for a staging file to be. Its file is made by the first write.
    /// # Errors
    /// What the index says.
    pub async fn new_staging(&self) -> io::Result<ObjectId> {
        todo!()
    }

    /// Makes the staging file of an inode to be, with all of its bytes, durably.
    /// # Errors
    /// What the OS says.
    pub async fn stage_whole(&self, staging: ObjectId, bytes: Bytes) -> io::Result<()> {
        todo!("{staging:?} {bytes:?}")
    }

    /// Removes what `stage_whole` made for an inode that did not come to be.
    pub fn abandon_staging(&self, staging: ObjectId) {
        todo!("{staging:?}")
    }

    /// The same as `Staged::write`, on the blocking pool.
    /// # Errors
    /// What the OS says; nothing is counted as written then.
    pub async fn write(
        &self,
        staged: &Arc<Staged>,
        turn: WriteTurn,
        offset: u64,
        data: Bytes,
        at: (Tick, Time),
    ) -> io::Result<(Live, Live)> {
        todo!("{staged:?} {turn:?} {offset} {data:?} {at:?}")
    }

    /// Tells clients whether what they wrote UNSTABLE may be lost (RFC 1813 section 3.3.7): random at every start,
    /// another one after every failed fsync.
    pub fn write_verifier(&self) -> [u8; 8] {
        todo!()
    }

    /// Bytes in staging files, and how many of those there are.
    pub fn staging_usage(&self) -> (u64, u64) {
        todo!()
    }

    /// Makes what was written to `staged` durable, and the index know it. Callers share one fdatasync where they can.
    /// # Errors
    /// What the OS or the index says; the verifier is another one then.
    pub async fn sync(&self, staged: &Arc<Staged>) -> io::Result<()> {
        todo!("{staged:?}")
    }

    /// Makes the object file that holds all of a settled version: `staged` laid over `base`, merged in the cheaper
    /// direction (whole-file writes: the staging file itself, by a second name). `Index::settle` puts it in the place
    /// of both; until then both stay as they are, so a crash in between loses nothing.
    /// The caller holds the sole turn, and has seen that `version` is what it uploaded.
    /// # Errors
    /// What the OS says.
    pub async fn promote(&self, staged: &Arc<Staged>, base: Option<&Inode>) -> io::Result<(Local, ObjectRow)> {
        todo!("{staged:?} {base:?}")
    }

    /// Ends a staging file: nobody writes to it any more; its name is removed once the index has no row of it.
    pub fn close_staged(&self, staged: &Staged, turn: SoleTurn) {
        todo!("{staged:?} {turn:?}")
    }
}

impl Staged {
    /// Its number.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Whose it is.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The attributes now, ahead of the index's.
    pub fn live(&self) -> Live {
        todo!()
    }

    /// Grows with every change of bytes or size.
    pub fn version(&self) -> u64 {
        todo!()
    }

    /// When it was last written to.
    pub fn written_at(&self) -> Tick {
        todo!()
    }

    /// The turn to write, if it can be had at once; `None` also when it is closed.
    pub fn try_write_turn(self: &Arc<Self>) -> Option<WriteTurn> {
        todo!()
    }

    /// The turn to write; `None` when the file is closed: look at the inode again.
    pub async fn write_turn(self: &Arc<Self>) -> Option<WriteTurn> {
        todo!()
    }

    /// The turn to replace or cut it; `None` when it is closed.
    pub async fn sole_turn(self: &Arc<Self>) -> Option<SoleTurn> {
        todo!()
    }

    /// Writes `data` at `offset`; blocks on the disk. The attributes before and after. Not durable until `sync`.
    /// # Errors
    /// What the OS says (`StorageFull`): nothing is counted as written then.
    pub fn write(
        &self,
        turn: &WriteTurn,
        offset: u64,
        data: &[u8],
        (now, at): (Tick, Time),
    ) -> io::Result<(Live, Live)> {
        todo!("{turn:?} {offset} {} {now:?} {at:?}", data.len())
    }

    /// Where the bytes of `range` are, in order, one version of them. Cut at the end of the file.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        todo!("{range:?}")
    }

    /// All of `range` in one buffer, as of one version; what is the base's is read from `base`, which has it.
    /// # Errors
    /// `UnexpectedEof` when `base` lacks something.
    pub fn read(&self, range: Range<u64>, base: Option<&Object>) -> io::Result<(Bytes, u64)> {
        todo!("{range:?} {base:?}")
    }

    /// The ranges written so far: what an upload of a large object must send; the rest can be copied inside S3.
    pub fn written(&self) -> Vec<Range<u64>> {
        todo!()
    }

    /// How much of the version below still counts, in bytes.
    pub fn base_len(&self) -> u64 {
        todo!()
    }

    /// Cuts or extends to `size` in memory and in the file, ahead of the index, to which the caller brings it in the same turn.
    /// # Errors
    /// What the OS says.
    pub fn resize(&self, turn: &SoleTurn, size: u64) -> io::Result<()> {
        todo!("{turn:?} {size}")
    }

    /// Takes attributes that a SETATTR has put into the index.
    pub fn adopt(&self, inode: &Inode) {
        todo!("{inode:?}")
    }
}
