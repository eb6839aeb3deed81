//! Bytes on the local disk. `objects/` holds one immutable file a version (clean, disposable);
//! `staging/` holds what is not in S3 yet (dirty, precious).
//! Owns: the files, which ranges of them are filled, the cache of open files, the space they take.
//! Invariants
//! - A range is recorded in the index only after its bytes are fdatasynced; a version counts as
//!   complete only after all of it is. So a torn file is one that is shorter than its row says, or missing:
//!   it is detected at open, detached and fetched again.
//! - A file is never changed once complete, but where a staging file covers it (`staging::promote`), and its bytes
//!   outlive its name while somebody reads them.
//! - The sum of the bytes here stays below the limit, but for what is being fetched right now, and for what is
//!   staged; the least recently used file goes first, one that is being fetched or staged never.
//! - A file without a row in the index is either of this process or an orphan, swept at start.

mod check;
mod dir;
mod disk;
mod evict;
mod faults;
mod identity;
mod keeper;
mod lock;
mod object;
mod ranges;
mod staging;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::warn;

pub use check::{Damaged, Looked};
pub use dir::{CacheDir, DirError};
use dir::{Objects, Staging};
use evict::{Candidate, Ledger};
pub use faults::Faults;
pub use identity::{FORMAT, Identity};
pub use object::{Hold, Object};
pub use ranges::RangeSet;
pub use staging::{Below, Frozen, Live, Piece, SoleTurn, Staged, WriteTurn};
use staging::{Credit, MAX_STAGED, Volume};

use crate::crash;
use crate::index::{Index, ObjectRow, Presence};
use crate::types::{Clock, Ino, ObjectId, Tick};

/// 16,384 open files: a web server's hot set; also at most half of what the process may open.
const MAX_OPEN_FILES: usize = 16_384;
/// Room that must be there before a file is made: the first piece of a fetch. The rest is asked for piece by piece.
const FIRST_PIECE_BYTES: u64 = 1 << 20;
/// 1 s: others fill the disk too, but not by much in this time.
const LIMIT_AGE_MS: u64 = 1_000;

/// How much disk the cache may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheLimit {
    /// So many bytes.
    Bytes(u64),
    /// What leaves this share of the disk free (0.1 = 10%), or so many bytes where that is less.
    LeaveFree(f64, u64),
}

/// What the cache takes and may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of objects and of staging files here.
    pub bytes: u64,
    /// Files under `objects/`.
    pub objects: u64,
    /// The limit in force, in bytes.
    pub limit: u64,
}

/// Size and room of the file system the cache is on, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// All of it.
    pub total: u64,
    /// Free to us.
    pub available: u64,
}

/// The cache of object files.
pub struct Content {
    dir: PathBuf,
    objects: Arc<Objects>,
    index: Arc<Index>,
    clock: Clock,
    ledger: Arc<Ledger>,
    open: Arc<OpenFiles>,
    limit: Limit,
    credit: Credit,
    /// Next to be evicted; locked while room is made, so that two who need room do not evict twice.
    candidates: tokio::sync::Mutex<VecDeque<Candidate>>,
    lost: Mutex<Vec<ObjectId>>,
    lost_added: Notify,
    /// The staging files that are open, or of which the index does not know all.
    staged: DashMap<ObjectId, Arc<Staged>>,
    /// Whose they are: of an inode the last one.
    staged_of: DashMap<Ino, ObjectId>,
    /// How many of them there may be before some are closed.
    most_staged: AtomicUsize,
    volume: Arc<Volume>,
}

type OpenFiles = quick_cache::sync::Cache<ObjectId, Arc<Object>>;

/// The limit in force and when it was worked out.
struct Limit {
    rule: CacheLimit,
    bytes: AtomicU64,
    at: AtomicU64,
}

impl Content {
    /// Opens `dir` (the `--cache` directory; makes `objects/` and `staging/`).
    /// # Errors
    /// What the OS says.
    pub fn open(dir: &Path, index: Arc<Index>, limit: CacheLimit, clock: Clock) -> io::Result<Arc<Content>> {
        Content::open_on(dir, index, limit, clock, Faults::default())
    }

    /// Opens `dir` on a disk that is not all right.
    /// # Errors
    /// What the OS says.
    pub fn open_on(
        dir: &Path,
        index: Arc<Index>,
        limit: CacheLimit,
        clock: Clock,
        faults: Faults,
    ) -> io::Result<Arc<Content>> {
        let open_files = (disk::raise_open_files() / 2).clamp(64, MAX_OPEN_FILES);
        let ledger = Arc::<Ledger>::default();
        let volume = Volume::new(Staging::create(dir)?, ledger.clone(), faults);
        Ok(Arc::new(Content {
            dir: dir.to_path_buf(),
            objects: Arc::new(Objects::create(dir)?),
            index,
            clock,
            ledger,
            open: Arc::new(OpenFiles::new(open_files)),
            limit: Limit { rule: limit, bytes: AtomicU64::new(0), at: AtomicU64::new(0) },
            credit: Credit::default(),
            candidates: tokio::sync::Mutex::default(),
            lost: Mutex::default(),
            lost_added: Notify::new(),
            staged: DashMap::new(),
            staged_of: DashMap::new(),
            most_staged: AtomicUsize::new(MAX_STAGED),
            volume: Arc::new(volume),
        }))
    }

    /// The open file of `object`. At once when it is in the cache of open files, else after one open(2)
    /// and one index read. `None` when the file is missing or torn (it is then detached in the background).
    pub fn get(&self, object: ObjectId) -> Option<Arc<Object>> {
        match self.try_get(object) {
            Ok(found) => found,
            Err(error) => {
                warn!(object = object.0, %error, "cannot open a cached file");
                None
            }
        }
    }

    /// Like `get`, but tells a file that is lost (`None`) from one that cannot be opened just now.
    /// # Errors
    /// What the OS says, for example that too many files are open.
    pub fn try_get(&self, object: ObjectId) -> io::Result<Option<Arc<Object>>> {
        let found = match self.open.get(&object) {
            Some(found) => found,
            None => match self.open.get_or_insert_with(&object, || self.load(object)) {
                Ok(found) => found,
                Err(NotOpened::Lost) => {
                    self.lost.lock().push(object);
                    self.lost_added.notify_one();
                    return Ok(None);
                }
                Err(NotOpened::Unknown) => return Ok(None),
                Err(NotOpened::Io(error)) => return Err(error),
            },
        };
        found.touch(self.clock.now());
        Ok(Some(found))
    }

    /// Opens a file and checks it against its row.
    fn load(&self, id: ObjectId) -> Result<Arc<Object>, NotOpened> {
        if let Some(object) = self.ledger.live(id).filter(|object| !object.is_discarded()) {
            return Ok(object);
        }
        let row = self.index.presence(id).map_err(|e| NotOpened::Io(io::Error::other(e)))?;
        let row = row.ok_or(NotOpened::Unknown)?;
        let partial = row.presence != Presence::Complete;
        let file = match OpenOptions::new().read(true).write(partial).open(self.objects.path(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(NotOpened::Lost),
            other => other.map_err(NotOpened::Io)?,
        };
        let length = file.metadata().map_err(NotOpened::Io)?.len();
        let here = match &row.presence {
            Presence::Complete => row.size,
            Presence::Partial(ranges) => ranges.iter().cloned().collect::<RangeSet>().bytes(),
        };
        if !self.is_whole(&row, length) {
            return Err(NotOpened::Lost);
        }
        let object = Object::new(id, row.size, file, &row.presence, &self.ledger);
        object.saving.attached.store(true, Ordering::Release);
        self.ledger.enter(id, here, Tick::NEVER);
        if partial {
            self.ledger.opened(&object);
        }
        Ok(object)
    }

    /// Whether a file of `length` has all that its row says.
    fn is_whole(&self, row: &ObjectRow, length: u64) -> bool {
        match &row.presence {
            Presence::Complete => length == row.size || self.is_merging(row, length),
            Presence::Partial(ranges) => {
                ranges.iter().cloned().collect::<RangeSet>().end() <= length && length <= row.size
            }
        }
    }

    /// Whether a crash may have come while what is staged over an object was being merged into it.
    fn is_merging(&self, row: &ObjectRow, length: u64) -> bool {
        length > row.size && self.index.node(row.ino).is_ok_and(|node| node.is_some_and(|node| node.staged.is_some()))
    }

    /// A new, empty file for a version of `size` bytes. Evicts to make room.
    /// # Errors
    /// `StorageFull` when the disk or the limit has no room even so.
    pub async fn create(&self, size: u64) -> io::Result<Arc<Object>> {
        self.make_room(size.min(FIRST_PIECE_BYTES)).await?;
        let id = ObjectId(self.index.allocate().await.map_err(io::Error::other)?);
        // in the table before it is on the disk: so the sweep of orphans knows it
        self.ledger.enter(id, 0, self.clock.now());
        let path = self.objects.path(id);
        let file = blocking(move || OpenOptions::new().read(true).write(true).create_new(true).open(path)).await;
        let file: File = file.inspect_err(|_| self.ledger.forget(id))?;
        let object = Object::new(id, size, file, &Presence::Partial(Vec::new()), &self.ledger);
        object.touch(self.clock.now());
        self.ledger.opened(&object);
        self.open.insert(id, object.clone());
        Ok(object)
    }

    /// Makes what is here of `object` durable, and known to the index. False when the index no longer
    /// wants it: it was evicted, or its version is no longer the current one.
    /// # Errors
    /// What the OS or the index says; nothing is recorded then.
    pub async fn save(&self, object: &Arc<Object>) -> io::Result<bool> {
        let _turn = object.saving.turn.lock().await;
        // First: what is filled from now on puts it on the list again.
        self.ledger.remove_unsaved(object.id());
        self.save_in_turn(object).await.inspect_err(|_| self.ledger.save_later(object.id()))
    }

    async fn save_in_turn(&self, object: &Arc<Object>) -> io::Result<bool> {
        let saving = &object.saving;
        let Some((ino, etag)) = saving.owner.get() else { return Ok(!object.is_discarded()) };
        // before the presence is read, so that it counts nothing which is not in it
        let unsaved = saving.unsaved.load(Ordering::Acquire);
        if object.is_discarded() || (object.is_attached() && unsaved == 0) {
            return Ok(!object.is_discarded());
        }
        let presence = object.presence();
        if unsaved > 0 {
            let object = object.clone();
            blocking(move || object.sync()).await?;
        }
        let wanted = self.index.attach(*ino, etag.clone(), object.id(), presence).await.map_err(io::Error::other)?;
        saving.attached.store(wanted, Ordering::Release);
        saving.discarded.fetch_or(!wanted, Ordering::AcqRel);
        saving.unsaved.fetch_sub(unsaved, Ordering::AcqRel);
        Ok(wanted)
    }

    /// Lets go of `object` in the index, of its file and of the room it takes. Who has it open can go on reading.
    /// # Errors
    /// What the index says.
    pub async fn discard(&self, object: ObjectId) -> io::Result<()> {
        let live = self.ledger.live(object);
        let _turn = saving_turn(live.as_deref()).await;
        self.index.detach(object).await.map_err(io::Error::other)?;
        self.abandon_object(object);
        Ok(())
    }

    /// The same to make room: but for bytes that S3 does not have.
    async fn evict(&self, object: ObjectId) -> io::Result<bool> {
        let live = self.ledger.live(object);
        let _turn = saving_turn(live.as_deref()).await;
        let is_evicted = self.index.evict(object).await.map_err(io::Error::other)?;
        if is_evicted {
            crash::point("content.after_evict");
            self.abandon_object(object);
        }
        Ok(is_evicted)
    }

    /// Removes the file of an object, or a staging file, that the index does not know.
    pub fn abandon(&self, object: ObjectId) {
        self.abandon_object(object);
        self.remove_staging(object);
    }

    fn abandon_object(&self, object: ObjectId) {
        self.ledger.forget(object);
        self.open.remove(&object);
        if let Err(error) = self.objects.unlink(object) {
            warn!(object = object.0, %error, "cannot remove a cached file; the next start will try again");
        }
    }

    /// Evicts until `bytes` more fit under the limit.
    /// # Errors
    /// `StorageFull` when they never will, as things are.
    pub async fn make_room(&self, bytes: u64) -> io::Result<()> {
        if self.fits(bytes) {
            return Ok(());
        }
        let mut candidates = self.candidates.lock().await;
        let mut scanned = false;
        while !self.fits(bytes) {
            let Some(next) = candidates.pop_front() else {
                if scanned {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                scanned = true;
                *candidates = self.scan().await?;
                continue;
            };
            if self.is_evictable(next)? && self.evict(next.id).await? {
                scanned = false;
            }
        }
        Ok(())
    }

    fn fits(&self, bytes: u64) -> bool {
        self.ledger.used().saturating_add(bytes) <= self.limit()
    }

    async fn scan(&self) -> io::Result<VecDeque<Candidate>> {
        let (ledger, open) = (self.ledger.clone(), self.open.clone());
        blocking(move || Ok(ledger.oldest(|id| open.peek(&id).map(|object| object.used_at())))).await
    }

    /// Not used since it became a candidate, not being fetched, and some inode's.
    fn is_evictable(&self, candidate: Candidate) -> io::Result<bool> {
        let Candidate { id, used_at } = candidate;
        let open = self.open.peek(&id).map(|object| object.used_at());
        let unused = self.ledger.used_at(id).is_some_and(|t| t <= used_at) && open.is_none_or(|t| t <= used_at);
        Ok(unused && !self.ledger.is_held(id) && self.index.presence(id).map_err(io::Error::other)?.is_some())
    }

    /// The limit in force, in bytes. Never more than the disk has room for.
    fn limit(&self) -> u64 {
        let now = self.clock.now().0;
        let at = self.limit.at.load(Ordering::Acquire);
        if at != 0 && now.saturating_sub(at) < LIMIT_AGE_MS {
            return self.limit.bytes.load(Ordering::Acquire);
        }
        let used = self.ledger.used();
        let bytes = match (self.limit.rule, self.disk()) {
            (CacheLimit::Bytes(bytes), Ok(disk)) => bytes.min(used.saturating_add(disk.available)),
            (CacheLimit::Bytes(bytes), Err(_)) => bytes,
            (CacheLimit::LeaveFree(share, most), Ok(disk)) => {
                let leave = ((disk.total as f64 * share) as u64).min(most);
                used.saturating_add(disk.available).saturating_sub(leave)
            }
            // where nobody tells, the OS will say when it is full
            (CacheLimit::LeaveFree(..), Err(_)) => u64::MAX,
        };
        self.limit.bytes.store(bytes, Ordering::Release);
        self.limit.at.store(now, Ordering::Release);
        bytes
    }

    /// What the cache takes.
    pub fn usage(&self) -> Usage {
        Usage { bytes: self.ledger.used(), objects: self.ledger.count() as u64, limit: self.limit() }
    }

    /// The disk below.
    /// # Errors
    /// What the OS says; `Unsupported` where there is no way to ask.
    pub fn disk(&self) -> io::Result<Disk> {
        match self.volume.faults.disk(self.ledger.used()) {
            Some(pretended) => Ok(pretended),
            None => disk::space(&self.dir),
        }
    }
}

impl Drop for Content {
    /// Objects that wait to be saved hold the ledger, and the ledger holds them.
    fn drop(&mut self) {
        self.ledger.take_unsaved();
    }
}

/// Nobody saves the object meanwhile.
async fn saving_turn(object: Option<&Object>) -> Option<tokio::sync::MutexGuard<'_, ()>> {
    Some(object?.saving.turn.lock().await)
}

/// Why a file was not opened.
enum NotOpened {
    /// Missing, or not as long as its row says.
    Lost,
    /// No inode has it.
    Unknown,
    Io(io::Error),
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
