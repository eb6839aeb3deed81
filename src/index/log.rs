//! The redo log: what groups changed since redb's last durable commit, one record a group.
//! Owns: the file `index.log` beside `index.redb`; `commit.rs` decides what goes into it and when.
//!
//! The file has a fixed size and is written over again and again, so that a sync of it has no block to
//! allocate and no length to note: the cheapest sync there is. It begins with a page for the head; records
//! follow without a gap, from the front again after each checkpoint.
//!
//! | head | title, key (16 random bytes), check |
//! |---|---|
//! | record | check (8 bytes), length of the changes (4), sequence number (8), the changes (`logged.rs`) |
//!
//! Invariants
//! - A check is a keyed hash of all that follows it: neither a torn write, nor a record that stood here before, nor
//!   a name or an attribute made to look like one, passes for the next record.
//! - Sequence numbers go up by one from record to record; a record that does not is the rest of an older lap.
//! - Nothing is appended behind records that were read back: what was in the file's cache but never synced
//!   looks the same as what is durable. They go into a checkpoint first.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use super::logged::Record;
use super::tables::be_u64;
use crate::crash;

/// Bytes of records until a checkpoint is due. Bounds what opening after a crash does again (some 0.1 s), and how
/// much a checkpoint has to write at once.
pub(super) const CAPACITY: usize = 8 << 20;
/// Changes that are better written once, by redb itself: a page of a listing, not a caller's group.
const LARGEST: usize = 256 << 10;
/// Where records begin: no write of a record touches the head's page.
const FIRST: u64 = 4096;
const TITLE: &[u8; 16] = b"fasts3 redo 1\n\0\0";
const HEAD_BYTES: usize = 40;
/// What stands in front of a record's changes.
pub(super) const FRAME: usize = 20;

/// The log, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    storage: Box<dyn StorageBackend>,
    key: [u8; 16],
    /// Bytes of records it has room for.
    capacity: usize,
    /// Bytes of records: where the next goes.
    end: usize,
}

/// Opens the file at `path`, making an empty one where there is none.
pub(super) fn file(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path)?;
    // its name, and that of the index beside it, have to survive too
    if let (true, Some(dir)) = (cfg!(unix), path.parent()) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()?;
    }
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

impl Log {
    /// A new log in the place of whatever `storage` holds, for `capacity` bytes of records.
    pub(super) fn make(storage: Box<dyn StorageBackend>, capacity: usize) -> io::Result<Log> {
        let key = *Uuid::new_v4().as_bytes();
        storage.set_len(0)?;
        storage.set_len(FIRST + capacity as u64)?;
        // written, not only reserved: a block that was never written costs a sync the file system's journal
        storage.write(FIRST, &vec![0; capacity])?;
        let mut head = [0; HEAD_BYTES];
        head[..16].copy_from_slice(TITLE);
        head[16..32].copy_from_slice(&key);
        let check = SipHasher13::new_with_key(&key).hash(&head[..32]);
        head[32..].copy_from_slice(&check.to_be_bytes());
        storage.write(0, &head)?;
        storage.sync_data()?;
        Ok(Log { storage, key, capacity, end: 0 })
    }

    /// The log in `storage`; `None` when it holds none.
    pub(super) fn open(storage: Box<dyn StorageBackend>) -> io::Result<Option<Log>> {
        let capacity = storage.len()?.checked_sub(FIRST).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(capacity) = capacity else { return Ok(None) };
        let mut head = [0; HEAD_BYTES];
        storage.read(0, &mut head)?;
        let mut key = [0; 16];
        key.copy_from_slice(&head[16..32]);
        let check = SipHasher13::new_with_key(&key).hash(&head[..32]);
        let is_log = head[..16] == *TITLE && head[32..] == check.to_be_bytes();
        Ok(is_log.then_some(Log { storage, key, capacity, end: 0 }))
    }

    /// Tells this log from all others; never zero.
    pub(super) fn id(&self) -> u64 {
        be_u64(&self.key)
    }

    /// Whether `record` can be appended. If not, a checkpoint is due.
    pub(super) fn has_room(&self, record: &Record) -> bool {
        let len = record.len();
        len <= LARGEST && self.end + FRAME + len <= self.capacity
    }

    /// Whether there are records since the last checkpoint.
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Makes `record` durable. The caller has seen that there is room.
    pub(super) fn append(&mut self, sequence: u64, record: Record) -> io::Result<()> {
        let framed = frame(&self.key, sequence, record);
        let at = FIRST + self.end as u64;
        let written = self.storage.write(at, &framed).and_then(|()| {
            crash::point("index.before_log_sync");
            self.storage.sync_data()
        });
        if written.is_err() {
            self.erase(at);
        }
        written?;
        self.end += framed.len();
        Ok(())
    }

    /// Takes back the record of `len` bytes appended last: what it says was not done.
    pub(super) fn take_back(&mut self, len: usize) {
        self.end = self.end.saturating_sub(FRAME + len);
        self.erase(FIRST + self.end as u64);
    }

    /// Has the record at `at` not be there after a crash, as far as a failing disk lets us.
    fn erase(&self, at: u64) {
        let erased = self.storage.write(at, &[0; FRAME]).and_then(|()| self.storage.sync_data());
        if let Err(error) = erased {
            tracing::warn!(%error, "a failed change may come back when the index is opened again");
        }
    }

    /// Begins anew: all records are in redb, durably.
    pub(super) fn restart(&mut self) {
        self.end = 0;
    }

    /// Reads the intact records back, hands those after number `after` to `redo`, and returns the last number.
    /// From then on there is no room until `restart` when there was any.
    pub(super) fn replay<E: From<io::Error>>(
        &mut self,
        after: u64,
        mut redo: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut bytes = vec![0; self.capacity];
        self.storage.read(FIRST, &mut bytes)?;
        let (mut rest, mut previous, mut last) = (bytes.as_slice(), None, after);
        while let Some((sequence, changes)) = parse(&self.key, rest) {
            if previous.is_some_and(|previous| sequence != previous + 1) {
                break;
            }
            if sequence > after {
                redo(sequence, changes)?;
                (last, self.end) = (sequence, self.capacity);
            }
            previous = Some(sequence);
            rest = &rest[FRAME + changes.len()..];
        }
        Ok(last)
    }
}

/// `record` as it stands in the file.
fn frame(key: &[u8; 16], sequence: u64, record: Record) -> Vec<u8> {
    let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let mut bytes = record.into_framed();
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    bytes[12..FRAME].copy_from_slice(&sequence.to_be_bytes());
    let check = SipHasher13::new_with_key(key).hash(&bytes[8..]);
    bytes[..8].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// Number and changes of the record that `bytes` begin with; `None` for anything else.
fn parse<'a>(key: &[u8; 16], bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let len = usize::try_from(u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?)).ok()?;
    let record = bytes.get(..FRAME.checked_add(len)?)?;
    let check = SipHasher13::new_with_key(key).hash(&record[8..]);
    (record[..8] == check.to_be_bytes()).then(|| (be_u64(&record[12..FRAME]), &record[FRAME..]))
}
