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
//! Lock order: `turn`, `saving`, `gate`, `state`. The gate is held over one pwrite, or one `read`, of which no WRITE
//! may be a part; `state` is held for no disk call, so attributes never wait for the disk.

mod durable;
mod overlay;
mod promote;
mod room;
mod state;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use tracing::{error, warn};

pub(super) use durable::Volume;
use overlay::{Layer, Overlay};
use state::State;

use super::{Content, Object, blocking};
use crate::index::{Inode, Node};
use crate::positioned::{read_exact_at, write_all_at};
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
        let write = || {
            let (turn, data) = (turn.clone(), data.clone());
            blocking(move || turn.staged.write(offset, &data, at))
        };
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

impl Staged {
    fn new(id: ObjectId, node: &Node, overlay: Overlay, volume: &Arc<Volume>) -> Arc<Staged> {
        volume.ledger.stage(id, overlay.written().bytes());
        Arc::new(Staged {
            id,
            ino: AtomicU64::new(node.ino.0),
            file: OnceLock::new(),
            opening: Mutex::new(()),
            promised: overlay.written().end(),
            name: AtomicU64::new(0),
            turn: Arc::default(),
            closed: AtomicBool::new(false),
            saving: Arc::default(),
            gate: parking_lot::RwLock::new(()),
            state: Mutex::new(State::new(overlay, node.mtime, node.ctime, volume.next_version())),
            volume: volume.clone(),
        })
    }

    /// Its number.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Whose it is.
    pub fn ino(&self) -> Ino {
        Ino(self.ino.load(Ordering::Acquire))
    }

    /// The attributes now, ahead of the index's.
    pub fn live(&self) -> Live {
        self.state.lock().live()
    }

    /// Grows with every change of bytes or size.
    pub fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// When it was last written to.
    pub fn written_at(&self) -> Tick {
        self.state.lock().written_at
    }

    /// The turn to write, if it can be had at once; `None` also when it is closed.
    pub fn try_write_turn(self: &Arc<Self>) -> Option<WriteTurn> {
        let guard = self.turn.clone().try_read_owned().ok()?;
        self.is_open().then(|| WriteTurn { staged: self.clone(), _guard: guard })
    }

    /// The turn to write; `None` when the file is closed: look at the inode again.
    pub async fn write_turn(self: &Arc<Self>) -> Option<WriteTurn> {
        let guard = self.turn.clone().read_owned().await;
        self.is_open().then(|| WriteTurn { staged: self.clone(), _guard: guard })
    }

    /// The turn to replace or cut it; `None` when it is closed.
    pub async fn sole_turn(self: &Arc<Self>) -> Option<SoleTurn> {
        let guard = self.turn.clone().write_owned().await;
        self.is_open().then(|| SoleTurn { staged: self.clone(), _guard: guard })
    }

    fn try_sole_turn(self: &Arc<Self>) -> Option<SoleTurn> {
        let guard = self.turn.clone().try_write_owned().ok()?;
        self.is_open().then(|| SoleTurn { staged: self.clone(), _guard: guard })
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Whether all that is in memory is in the index, too.
    fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.is_saved() && !state.is_too_long
    }

    /// The file; opened, or made, at the first call.
    fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.file.get() {
            return Ok(file.clone());
        }
        let _one = self.opening.lock();
        if let Some(file) = self.file.get() {
            return Ok(file.clone());
        }
        let file = Arc::new(if self.promised > 0 { self.open_promised()? } else { self.make()? });
        Ok(self.file.get_or_init(|| file).clone())
    }

    fn open_promised(&self) -> io::Result<File> {
        let opened = OpenOptions::new().read(true).write(true).open(self.volume.dir.path(self.id));
        let lost = match &opened {
            Ok(file) => file.metadata()?.len() < self.promised,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        if lost {
            let (ino, staged) = (self.ino(), self.id.0);
            error!(%ino, staged, "DATA LOSS: a staging file is missing or short, and S3 does not have its bytes; run `fsck`");
            return Err(io::ErrorKind::NotFound.into());
        }
        opened
    }

    /// A crash may have left a file: what is in it is nobody's.
    fn make(&self) -> io::Result<File> {
        if !self.is_open() {
            return Err(io::ErrorKind::StaleNetworkFileHandle.into());
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.volume.dir.path(self.id))?;
        self.name.store(self.volume.dir.name_made(), Ordering::Release);
        Ok(file)
    }

    /// Blocks on the disk. The caller has the turn.
    fn write(&self, offset: u64, data: &[u8], at: (Tick, Time)) -> io::Result<(Live, Live)> {
        if data.is_empty() {
            let live = self.live();
            return Ok((live, live));
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let range = offset..end.ok_or(io::ErrorKind::FileTooLarge)?;
        let file = self.file()?;
        let _gate = self.gate.read();
        let written = write_all_at(&file, data, offset);
        let mut state = self.state.lock();
        let version = self.volume.next_version();
        written.inspect_err(|_| state.spoiled(range.clone(), version))?;
        let attributes = state.wrote(range, at, version);
        self.volume.ledger.stage(self.id, state.overlay.written().bytes());
        Ok(attributes)
    }

    /// Where the bytes of `range` are, in order, one version of them. Cut at the end of the file.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let layers = self.state.lock().overlay.layers(range);
        let mut pieces = Vec::with_capacity(layers.len());
        for (layer, part) in layers {
            match (layer, self.file.get()) {
                (Layer::Base, _) => pieces.push(Piece::Base(part)),
                (Layer::Here, Some(file)) => pieces.extend(file_ranges(file, part).map(Piece::Here)),
                // there is a file wherever something was written
                (Layer::Zeros | Layer::Here, _) => pieces.push(Piece::Zeros(part.end - part.start)),
            }
        }
        pieces
    }

    /// All of `range` in one buffer, as of one version, which is told too; what is the base's is read from `base`, which
    /// has it. Holds writers out meanwhile: for at most some MiB. Blocks on the disk: call from a blocking task.
    /// # Errors
    /// `UnexpectedEof` when `base` lacks something.
    pub fn read(&self, range: Range<u64>, base: Option<&Object>) -> io::Result<(Bytes, u64)> {
        let _gate = self.gate.write();
        let (layers, version) = {
            let state = self.state.lock();
            (state.overlay.layers(range), state.version)
        };
        let len: u64 = layers.iter().map(|(_, part)| part.end - part.start).sum();
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let mut rest = bytes.as_mut_slice();
        for (layer, part) in layers {
            let (piece, after) = rest.split_at_mut((part.end - part.start) as usize);
            rest = after;
            match layer {
                Layer::Zeros => {}
                Layer::Here => read_exact_at(&*self.file()?, piece, part.start)?,
                Layer::Base => {
                    let base = base.filter(|base| part.end <= base.size() && base.has(part.clone()));
                    read_exact_at(base.ok_or(io::ErrorKind::UnexpectedEof)?.file(), piece, part.start)?;
                }
            }
        }
        Ok((bytes.into(), version))
    }

    /// The ranges written so far: what an upload of a large object must send; the rest can be copied inside S3.
    pub fn written(&self) -> Vec<Range<u64>> {
        self.state.lock().overlay.written().as_slice().to_vec()
    }

    /// How much of the version below still counts, in bytes.
    pub fn base_len(&self) -> u64 {
        self.state.lock().overlay.base_len()
    }

    /// Cuts or extends to `size`, ahead of the index, to which the caller brings it in the same turn (`sync`).
    /// # Errors
    /// `FileTooLarge`.
    pub fn resize(&self, turn: &SoleTurn, size: u64) -> io::Result<()> {
        debug_assert_eq!(self.id, turn.staged.id, "the turn is this file's");
        i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut state = self.state.lock();
        state.resize(size, self.volume.next_version());
        self.volume.ledger.stage(self.id, state.overlay.written().bytes());
        Ok(())
    }

    /// Takes attributes that a SETATTR has put into the index; all but the size, see `resize`.
    pub fn adopt(&self, inode: &Inode) {
        let mut state = self.state.lock();
        (state.mtime, state.ctime) = (inode.mtime, inode.ctime);
        state.indexed = (inode.mtime, inode.ctime);
    }
}

/// Cut where a range has no number for more.
fn file_ranges(file: &Arc<File>, range: Range<u64>) -> impl Iterator<Item = FileRange> {
    range.clone().step_by(1 << 30).map(move |offset| {
        let len = (range.end - offset).min(1 << 30) as u32;
        FileRange { file: file.clone(), offset, len }
    })
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({:x}, of {}, {:?})", self.id.0, self.ino(), self.live())
    }
}

#[cfg(test)]
mod tests;
