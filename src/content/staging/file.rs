//! One staging file: turns, bytes, pieces.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::error;

use super::ahead::Ahead;
use super::durable::Volume;
use super::overlay::{Layer, Overlay};
use super::promote::here_of;
use super::queue::Queue;
use super::state::State;
use super::{Below, Live, Piece, SoleTurn, Staged, WriteTurn};
use crate::index::{Inode, Node};
use crate::positioned::{read_exact_at, read_resident, write_all_at};
use crate::rpc::FileRange;
use crate::types::{Ino, ObjectId, Tick, Time};

/// 64 KiB: copied, and digested, in less time than it takes to hand it to another thread and back a few times.
pub(super) const AT_ONCE_BYTES: u64 = 64 << 10;

impl Staged {
    pub(super) fn new(id: ObjectId, node: &Node, overlay: Overlay, volume: &Arc<Volume>) -> Arc<Staged> {
        volume.ledger.stage(id, overlay.written().bytes());
        let state = State::new(overlay, node.mtime, node.ctime, volume.next_version());
        Staged::with(id, node.ino, OnceLock::new(), state, volume)
    }

    /// Another file with what this one has.
    pub(super) fn twin(&self, id: ObjectId, overlay: Overlay, file: File) -> Arc<Staged> {
        let Live { mtime, ctime, .. } = self.live();
        let state = State::new(overlay, mtime, ctime, self.volume.next_version());
        Staged::with(id, self.ino(), OnceLock::from(Arc::new(file)), state, &self.volume)
    }

    fn with(id: ObjectId, ino: Ino, file: OnceLock<Arc<File>>, state: State, volume: &Arc<Volume>) -> Arc<Staged> {
        Arc::new(Staged {
            id,
            ino: AtomicU64::new(ino.0),
            promised: state.overlay.written().end(),
            file,
            opening: Mutex::new(()),
            name: AtomicU64::new(0),
            turn: Arc::default(),
            queue: Queue::default(),
            ahead: Ahead::default(),
            closed: AtomicBool::new(false),
            saving: Arc::default(),
            gate: parking_lot::RwLock::new(()),
            state: Mutex::new(state),
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

    pub(super) fn try_sole_turn(self: &Arc<Self>) -> Option<SoleTurn> {
        let guard = self.turn.clone().try_write_owned().ok()?;
        self.is_open().then(|| SoleTurn { staged: self.clone(), _guard: guard })
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Whether all that is in memory is in the index, too.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.is_saved() && !state.is_too_long
    }

    /// Whether the file is open.
    pub(in super::super) fn is_file_open(&self) -> bool {
        self.file.get().is_some()
    }

    /// The file; opened, or made, at the first call.
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
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
    pub(super) fn write(&self, offset: u64, data: &[u8], at: (Tick, Time)) -> io::Result<(Live, Live)> {
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
        let before = state.overlay.written().bytes();
        let attributes = state.wrote(range.clone(), at, version);
        let bytes = state.overlay.written().bytes();
        self.ahead.added(&range, bytes - before);
        self.volume.ledger.stage(self.id, bytes);
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

    /// All of `range` in one buffer, as of one version, which is told too; what is the base's is read from `below`, which
    /// has it. Holds writers out meanwhile: for at most some MiB. Blocks on the disk: call from a blocking task.
    /// # Errors
    /// `UnexpectedEof` when `below` lacks something.
    pub fn read(&self, range: Range<u64>, below: Option<&Below>) -> io::Result<(Bytes, u64)> {
        let _gate = self.gate.write();
        self.read_by(range, below, read_exact_at)
    }

    /// All of a small file that lies over nothing, as of one version; `None` when that might block: on the disk, or on
    /// whoever writes just now. So what was written a moment ago costs no change of threads.
    pub fn read_at_once(&self) -> Option<(Bytes, u64)> {
        let _gate = self.gate.try_write()?;
        let read = |file: &File, piece: &mut [u8], at| match read_resident(file, piece, at)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        // whatever is wrong, who may wait for the disk finds it, too
        self.read_by(0..AT_ONCE_BYTES + 1, None, read).ok().filter(|(bytes, _)| bytes.len() as u64 <= AT_ONCE_BYTES)
    }

    /// The caller has the gate.
    fn read_by(
        &self,
        range: Range<u64>,
        below: Option<&Below>,
        read_here: impl Fn(&File, &mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<(Bytes, u64)> {
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
                Layer::Here => read_here(&*self.file()?, piece, part.start)?,
                Layer::Base => below.ok_or(io::ErrorKind::UnexpectedEof)?.read(piece, part)?,
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

impl Below {
    /// Reads `part` into `piece`, which is zeros.
    fn read(&self, piece: &mut [u8], part: Range<u64>) -> io::Result<()> {
        let (object, is_all) = match self {
            Below::Version(object) => (object, true),
            Below::Remains(Some(object)) => (object, false),
            Below::Remains(None) => return Ok(()),
        };
        let here = here_of(object, part.clone());
        let lacks = object.size().clamp(part.start, part.end) - part.start;
        if is_all && here.iter().map(|range| range.end - range.start).sum::<u64>() < lacks {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for range in here {
            let piece = &mut piece[(range.start - part.start) as usize..(range.end - part.start) as usize];
            read_exact_at(object.file(), piece, range.start)?;
        }
        Ok(())
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
