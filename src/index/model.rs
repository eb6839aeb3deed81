//! Rows of the index as the rest of the server sees them, and what goes into and comes out of the
//! reconcile function.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::store::ObjectMeta;
use crate::types::{Component, ETag, Ino, Key, Name, ObjectId, Tick, Time};

/// What an inode is. The numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Regular file.
    File = 0,
    /// Directory.
    Dir = 1,
    /// Symbolic link; its target is the object's body.
    Symlink = 2,
    /// FIFO.
    Fifo = 3,
    /// Socket.
    Socket = 4,
    /// Character device.
    CharDevice = 5,
    /// Block device.
    BlockDevice = 6,
}

/// The version S3 has, as last observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its tag.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
    /// Its Last-Modified; LIST may tell milliseconds where HEAD tells seconds: compare whole seconds.
    /// `UNTOLD` after a write of ours, whose answer does not tell.
    pub last_modified: Time,
}

impl Remote {
    /// Stands for a Last-Modified that S3 has not told yet: the first that it tells is taken for it.
    pub const UNTOLD: Time = Time(i64::MIN);
}

/// Bytes that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The file under `objects/`.
    pub object: ObjectId,
    /// Whether all bytes of the version are in it (else `Index::presence` tells which).
    pub complete: bool,
}

/// One inode, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// The directory it is in; the root is its own parent.
    pub parent: Ino,
    /// What it adds to its parent's prefix.
    pub component: Component,
    /// What it is.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, major and minor; zero for all but devices.
    pub rdev: (u32, u32),
    /// Length of the file, or of the link's target, in bytes; 4096 for a directory.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// The version in S3; `None` for a directory that is only implied by the keys below it.
    pub remote: Option<Remote>,
    /// Whether mode, owner and times come from the object's own metadata (HEAD, GET) or are defaults.
    pub attributes_known: bool,
    /// The bytes here.
    pub local: Option<Local>,
    /// For a directory: whether its listing has been complete once.
    pub listed: bool,
    /// The file under `staging/` with bytes that S3 does not have; what it does not cover is `local`'s.
    pub staged: Option<ObjectId>,
    /// Where S3 has it, when that is not what its parent's place and its component say: the key of the object, or
    /// the prefix of a directory's entries. It stays what it is however often the inode is renamed.
    pub origin: Option<Key>,
}

/// What of an inode S3 does not have yet: one row of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its bytes (for a directory: its marker).
    pub content: bool,
    /// Mode, owner or times.
    pub attributes: bool,
    /// Which of them were set here; the others are S3's to tell. Of a file written to, `content` says that its mtime was.
    pub set: SetHere,
    /// The key it should have: for a directory, everything below it.
    pub place: bool,
    /// Wall time of the oldest change that S3 lacks.
    pub since: Time,
    /// Number of the latest change: an upload that began before it does not settle it.
    pub change: u64,
}

/// Attributes that were set here, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHere {
    /// Permission bits.
    pub mode: bool,
    /// Owner.
    pub uid: bool,
    /// Group.
    pub gid: bool,
    /// Last change of the content.
    pub mtime: bool,
    /// Last access.
    pub atime: bool,
}

impl SetHere {
    /// None of them.
    pub const NONE: SetHere = SetHere { mode: false, uid: false, gid: false, mtime: false, atime: false };
    /// All of them.
    pub const ALL: SetHere = SetHere { mode: true, uid: true, gid: true, mtime: true, atime: true };

    /// What is in one of them.
    pub fn or(self, other: SetHere) -> SetHere {
        SetHere {
            mode: self.mode || other.mode,
            uid: self.uid || other.uid,
            gid: self.gid || other.gid,
            mtime: self.mtime || other.mtime,
            atime: self.atime || other.atime,
        }
    }
}

impl Pending {
    /// The attributes of `inode` that are not S3's to tell.
    pub fn set_here(&self, inode: &Inode) -> SetHere {
        let is_written = self.content && inode.kind != Kind::Dir;
        SetHere { mtime: self.set.mtime || is_written, ..self.set }
    }
}

/// An object of S3 that has no business under its key any more: the other kind of row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// The version it had when it was last ours: another one is somebody else's.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
    /// Whose bytes it still has; `None`: it was removed here, or replaced.
    pub ino: Option<Ino>,
}

/// What has come to the journal: something for `writeback` to look at. In order: what was made first comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// This inode's row.
    Inode(Ino),
    /// What is away at this key.
    Away(Key),
}

/// Bytes of a file that S3 does not have, as last made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRow {
    /// Whose they are.
    pub ino: Ino,
    /// How much of the version below still counts, in bytes from its start: a truncation shortens it for good.
    pub base_len: u64,
    /// The ranges written. Half open, in bytes, sorted, apart from each other. What neither they nor the version below
    /// cover is zeros.
    pub ranges: Vec<std::ops::Range<u64>>,
}

/// What of the index a key of S3, or a prefix ending in `/`, is about.
#[derive(Clone, Debug)]
pub enum Located {
    /// This inode.
    Here(Arc<Node>),
    /// Nothing: the way there ends in a directory that has no such entry.
    Missing {
        /// The directory.
        dir: Arc<Node>,
        /// What it does not have.
        component: Component,
        /// Where in S3 that would be: the key itself, or the prefix of a directory on its way.
        key: Key,
    },
    /// Something of that name is here, but not there in S3.
    Elsewhere,
}

/// Totals of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Inodes that differ from S3.
    pub inodes: u64,
    /// Objects to be removed, or to be moved.
    pub away: u64,
}

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const PRESSED: u8 = 2;

/// When S3 was last asked about an inode. Lives in memory, shared by all snapshots of the inode.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Tick at which the last settled check was sent; 0 = never in this process.
    checked: AtomicU64,
    /// Tick at which the answer of the last applied observation arrived; 0 = never.
    observed: AtomicU64,
    /// Whether a check is queued or in flight (`CLAIMED`), and is to be followed by another one (`PRESSED`).
    pending: AtomicU8,
    /// Tick at which a check that waits for the budget was last asked for; 0 = none does.
    owed: AtomicU64,
    /// Answers given from this copy since the last settled check.
    served: AtomicU32,
    /// Tick at which somebody last said that it has changed; 0 = never. What was asked up to then counts for nothing.
    distrusted: AtomicU64,
    /// Tick at which a check was last spared because events tell of changes; 0 = never.
    spared: AtomicU64,
}

impl Freshness {
    /// When the last settled check was sent; never, when somebody has said since then that there is something new.
    pub fn checked(&self) -> Tick {
        let checked = self.checked.load(Ordering::Acquire);
        if checked > self.distrusted.load(Ordering::Acquire) { Tick(checked) } else { Tick::NEVER }
    }

    /// The same, whatever was said since.
    pub fn last_checked(&self) -> Tick {
        Tick(self.checked.load(Ordering::Acquire))
    }

    /// When the answer of the last applied observation arrived.
    pub fn observed(&self) -> Tick {
        Tick(self.observed.load(Ordering::Acquire))
    }

    /// Settles a check that was sent at `sent` and answered at `answered`: what is here is what S3 had.
    pub fn settle(&self, sent: Tick, answered: Tick) {
        self.checked.fetch_max(sent.0, Ordering::AcqRel);
        self.observed.fetch_max(answered.0, Ordering::AcqRel);
        self.served.store(0, Ordering::Release);
    }

    /// Notes an answer that shows the inode to exist, and settles nothing more about it.
    pub(super) fn observe(&self, answered: Tick) {
        self.observed.fetch_max(answered.0, Ordering::AcqRel);
    }

    /// Distrusts the copy: the next touch asks S3.
    pub fn expire(&self) {
        self.checked.store(0, Ordering::Release);
    }

    /// Distrusts the copy, and every answer to what was asked up to `now`, also those still under way.
    pub fn distrust(&self, now: Tick) {
        self.distrusted.fetch_max(now.0, Ordering::AcqRel);
    }

    /// When it was last distrusted.
    pub fn distrusted(&self) -> Tick {
        Tick(self.distrusted.load(Ordering::Acquire))
    }

    /// Whether a check is spared at `now` for the first time since the last one, made or spared, is `recheck` ago.
    pub fn spare(&self, now: Tick, recheck: Duration) -> bool {
        let spared = self.spared.load(Ordering::Relaxed);
        now.since(self.checked().max(Tick(spared))) >= recheck
            && self.spared.compare_exchange(spared, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Claims the right to check; false when somebody has it already.
    pub fn claim(&self) -> bool {
        self.pending.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Has whoever has the right to check do so once more; false when nobody has it.
    pub fn press(&self) -> bool {
        let pressed = |pending| (pending != FREE).then_some(PRESSED);
        self.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, pressed).is_ok()
    }

    /// Gives the right to check back: always true.
    pub fn release(&self) -> bool {
        self.pending.store(FREE, Ordering::Release);
        true
    }

    /// The same, unless a check was pressed for since the right was claimed, or since the last such call; false then.
    pub fn release_unless_pressed(&self) -> bool {
        let released = self.pending.compare_exchange(CLAIMED, FREE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !released {
            self.pending.store(CLAIMED, Ordering::Release);
        }
        released
    }

    /// Whether a check is queued or in flight.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != FREE
    }

    /// Notes that a check, asked for at `now`, waits for the budget; false when one does already.
    pub fn owe(&self, now: Tick) -> bool {
        self.owed.swap(now.0, Ordering::AcqRel) == 0
    }

    /// Notes that it was asked for again; false when none waits.
    pub fn owe_still(&self, now: Tick) -> bool {
        let noted = |owed| (owed != 0).then_some(now.0);
        self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, noted).is_ok()
    }

    /// Takes the note back, and tells when it was last asked for.
    pub fn forgive(&self) -> Tick {
        Tick(self.owed.swap(0, Ordering::AcqRel))
    }

    /// Whether a check waits for the budget.
    pub fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire) != 0
    }

    /// Counts one answer given from this copy.
    pub fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers given since the last settled check.
    pub fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }
}

/// An inode as of one commit, with its freshness. Derefs to the inode.
#[derive(Debug)]
pub struct Node {
    /// The row.
    pub inode: Inode,
    /// When S3 was last asked.
    pub freshness: Arc<Freshness>,
}

impl Deref for Node {
    type Target = Inode;
    fn deref(&self) -> &Inode {
        &self.inode
    }
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Its name, as clients see it.
    pub name: Name,
    /// Its place in the listing order. Stable; above 2.
    pub cookie: u64,
    /// What it names.
    pub node: Arc<Node>,
}

/// Attributes of objects that carry none (`--uid --gid --file-mode --dir-mode`).
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
}

/// What S3 was seen to have under a key.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The object, from HEAD, GET, LIST or our own write. Under a key that ends in `/`: a directory marker.
    Object(ObjectMeta),
    /// Under a key that ends in `/`: some key begins so, and no marker was asked for or found.
    Prefix,
    /// No object; under a key that ends in `/`: neither a marker nor any key below.
    Absent,
}

/// Who saw it; for `why`, logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A LOOKUP of a name that was not here.
    Lookup,
    /// A check behind an answer.
    Check,
    /// A fetch of bytes.
    Fetch,
    /// The mirror.
    Mirror,
    /// What others said has changed.
    Event,
    /// `refresh` or `warm`.
    Command,
}

/// A fact about one key of S3: a poll, an event-triggered HEAD, an upload's answer and a 412 all end here.
///
/// S3 is strongly consistent, so an answer is the state at some moment between `sent` and `answered`.
/// An observation sent before the last applied one was answered is *late* when it says something else:
/// it changes nothing and the key is expired instead.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The key, or a prefix ending in `/`.
    pub key: Key,
    /// What it has.
    pub seen: Seen,
    /// When the request was sent.
    pub sent: Tick,
    /// When its answer arrived.
    pub answered: Tick,
    /// Who asked.
    pub source: Source,
    /// The complete, fsynced bytes of `Seen::Object`, to be swapped in by the same transaction.
    pub content: Option<ObjectId>,
}

/// What `apply` did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The decision.
    pub verdict: Verdict,
    /// The key's node after it; `None` when there is none.
    pub node: Option<Arc<Node>>,
}

/// Decisions of the reconcile function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is here is what S3 has (attributes may have become known).
    Unchanged,
    /// A new entry.
    Created,
    /// A newer version took the place of the old one; fileid and name stayed.
    Replaced,
    /// The entry is gone.
    Removed,
    /// Overtaken by a newer observation; nothing changed, the key is expired.
    Late,
}

/// Which bytes of an object are here. Ranges are half open, in bytes, sorted, apart from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All.
    Complete,
    /// These.
    Partial(Vec<std::ops::Range<u64>>),
}

/// What the index knows of one object file.
#[derive(Clone, Debug)]
pub struct ObjectRow {
    /// Whose bytes they are.
    pub ino: Ino,
    /// Length of the whole version in bytes.
    pub size: u64,
    /// Which bytes are here.
    pub presence: Presence,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files, links and special files.
    pub files: u64,
    /// Directories, without the root.
    pub dirs: u64,
    /// Sum of the files' sizes in bytes.
    pub bytes: u64,
}

/// One page of a listing.
#[derive(Debug)]
pub struct Page {
    /// Objects in key order; keys are relative to the export and lie below the sweep's directory.
    pub objects: Vec<(Key, ObjectMeta)>,
    /// Common prefixes in key order (a delimited listing only).
    pub prefixes: Vec<Key>,
    /// When the request for this page was sent.
    pub sent: Tick,
    /// When it was answered.
    pub answered: Tick,
    /// Whether no page follows.
    pub last: bool,
}

/// What a page changed.
#[derive(Debug, Default)]
pub struct PageApplied {
    /// New entries.
    pub created: u64,
    /// Entries that got a newer version.
    pub replaced: u64,
    /// Entries that are gone.
    pub removed: u64,
    /// Files whose bytes are complete here and of which S3 has another version: LEFT AS THEY ARE (neither replaced
    /// nor settled), because a warm read must not turn cold: the caller copies the new version in and applies it.
    pub outdated: Vec<Ino>,
    /// Some of the changes one by one, where the sweep was asked to note them.
    pub found: Vec<Finding>,
}

/// A change that a listing found, for who wants to know whether it had been told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which object; of a directory that is gone, one that was in it.
    pub key: Key,
    /// When S3 says that it was written; `None`: it is gone.
    pub written: Option<Time>,
    /// When it was last found to be as it was here; never, when that is not known any more.
    pub checked: Tick,
    /// When somebody last said of it that it has changed.
    pub distrusted: Tick,
}

/// Why the index could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// The file cannot be opened or is of a newer format; the text says what to do.
    #[error("{0}")]
    Open(String),
    /// Another process has it open.
    #[error("the index is in use by another process")]
    InUse,
    /// redb failed: disk full, I/O error, corruption.
    #[error("index: {0}")]
    Storage(Arc<redb::Error>),
    /// The server is shutting down.
    #[error("the index is closed")]
    Closed,
}

impl IndexError {
    /// Whether the disk, or the quota on it, is full.
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let IndexError::Storage(error) = self else { return false };
        matches!(&**error, redb::Error::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded))
    }
}
