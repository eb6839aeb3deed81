//! One version's bytes: the open file, which ranges of it are here, who waits for more.
//! Invariants
//! - Bytes are written first and counted as here after; once `complete` is set nothing is written.
//! - Of an object that is not complete there is one `Object` in the process, however it was come by.
//! - A discarded object (evicted, replaced) can still be read and filled; it is never saved.
//!
//! Lock order: `saving`, then `filled`; nothing awaits while `filled` is locked.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::evict::Ledger;
use super::ranges::RangeSet;
use crate::index::Presence;
use crate::positioned::write_all_at;
use crate::types::{ETag, Ino, ObjectId, Tick};

/// One version's bytes.
pub struct Object {
    id: ObjectId,
    size: u64,
    file: Arc<File>,
    complete: AtomicBool,
    filled: Mutex<RangeSet>,
    changed: Notify,
    ahead: Ahead,
    used_at: AtomicU64,
    holds: AtomicU32,
    pub(super) saving: Saving,
    ledger: Arc<Ledger>,
}

/// How far a reader has come, for whoever fetches ahead of it.
struct Ahead {
    /// A read that ends beyond this wakes `passed`; `u64::MAX`: nobody wants to know.
    mark: AtomicU64,
    reader: AtomicU64,
    passed: Notify,
}

/// What it takes to record the presence of an object in the index.
#[derive(Default)]
pub(super) struct Saving {
    /// The version whose bytes these are; unknown while the object is nobody's.
    pub(super) owner: OnceLock<(Ino, ETag)>,
    /// One save at a time, so that an older presence never overwrites a newer one.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Whether the index knows of this object.
    pub(super) attached: AtomicBool,
    /// Bytes that are here and that the index does not know of.
    pub(super) unsaved: AtomicU64,
    /// Set when the index has let go of it.
    pub(super) discarded: AtomicBool,
}

/// Keeps an object that is being fetched from being evicted.
pub struct Hold(Arc<Object>);

impl Object {
    /// Of the file of `object`, of which `presence` is here.
    pub(super) fn new(id: ObjectId, size: u64, file: File, presence: &Presence, ledger: &Arc<Ledger>) -> Arc<Object> {
        let filled = match presence {
            Presence::Complete => RangeSet::from(0..size),
            Presence::Partial(ranges) => ranges.iter().cloned().collect::<RangeSet>(),
        };
        Arc::new(Object {
            id,
            size,
            file: Arc::new(file),
            complete: AtomicBool::new(filled.covers(&(0..size))),
            filled: Mutex::new(filled),
            changed: Notify::new(),
            ahead: Ahead { mark: AtomicU64::new(u64::MAX), reader: AtomicU64::new(0), passed: Notify::new() },
            used_at: AtomicU64::new(0),
            holds: AtomicU32::new(0),
            saving: Saving::default(),
            ledger: ledger.clone(),
        })
    }

    /// Its id.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Length of the whole version in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, for reading at offsets.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether everything is here.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Whether all of `range` (cut at the end of the version) is here. One atomic load when complete.
    pub fn has(&self, range: Range<u64>) -> bool {
        if self.is_complete() {
            return true;
        }
        let range = self.cut(range);
        let here = self.filled.lock().covers(&range);
        if here {
            self.ahead.read_to(range.end);
        }
        here
    }

    /// The parts of `range` (cut at the end of the version) that are not here.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        if self.is_complete() { Vec::new() } else { self.filled.lock().missing(self.cut(range)) }
    }

    /// How many bytes are here.
    pub fn filled_bytes(&self) -> u64 {
        if self.is_complete() { self.size } else { self.filled.lock().bytes() }
    }

    /// Waits until all of `range` is here. Fetches nothing: somebody must.
    pub async fn wait(&self, range: Range<u64>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.has(range.clone()) {
                return;
            }
            changed.await;
        }
    }

    /// Writes fetched bytes, then counts them as here. Blocks on the disk: call from a blocking task.
    /// # Errors
    /// `InvalidInput` beyond the end of the version; what the OS says, `StorageFull` among it.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the object"))?;
        if self.is_complete() || bytes.is_empty() {
            return Ok(());
        }
        write_all_at(&self.file, bytes, offset)?;
        self.count(offset..end);
        Ok(())
    }

    fn count(&self, range: Range<u64>) {
        let added = {
            let mut filled = self.filled.lock();
            let added = filled.insert(range);
            if filled.bytes() == self.size {
                self.complete.store(true, Ordering::Release);
            }
            added
        };
        let unsaved = self.saving.unsaved.fetch_add(added, Ordering::AcqRel) + added;
        self.ledger.filled(self.id, added, unsaved);
        self.changed.notify_waiters();
    }

    /// Makes what is here durable (fdatasync). Blocks on the disk.
    /// # Errors
    /// What the OS says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Says whose bytes these are, so that their presence can be recorded in the index. The first time counts.
    pub fn bind(&self, ino: Ino, etag: ETag) {
        let _ = self.saving.owner.set((ino, etag));
    }

    /// Whether the index knows of this object.
    pub fn is_attached(&self) -> bool {
        self.saving.attached.load(Ordering::Acquire)
    }

    /// Whether the index has let go of it: it was evicted, or its version was replaced.
    pub fn is_discarded(&self) -> bool {
        self.saving.discarded.load(Ordering::Acquire)
    }

    /// Keeps it from being evicted while the result lives.
    pub fn hold(self: &Arc<Object>) -> Hold {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Hold(self.clone())
    }

    /// Asks to be woken (in `reader_passed`) by the first successful read that ends beyond `mark`.
    pub fn mark(&self, mark: u64) {
        self.ahead.mark.store(mark, Ordering::Release);
        let reader = self.ahead.reader.load(Ordering::Acquire);
        self.ahead.read_to(reader);
    }

    /// Waits until a reader has passed the mark; tells where its read ended.
    pub async fn reader_passed(&self) -> u64 {
        self.ahead.passed.notified().await;
        self.ahead.reader.load(Ordering::Acquire)
    }

    pub(super) fn is_held(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    pub(super) fn touch(&self, now: Tick) {
        self.used_at.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn used_at(&self) -> Tick {
        Tick(self.used_at.load(Ordering::Relaxed))
    }

    /// What is here now, in the index's words.
    pub(super) fn presence(&self) -> Presence {
        if self.is_complete() {
            return Presence::Complete;
        }
        Presence::Partial(self.filled.lock().as_slice().to_vec())
    }

    fn cut(&self, range: Range<u64>) -> Range<u64> {
        range.start.min(self.size)..range.end.min(self.size)
    }
}

impl Ahead {
    /// Two atomics for a read that passes no mark.
    fn read_to(&self, end: u64) {
        self.reader.store(end, Ordering::Release);
        let mark = self.mark.load(Ordering::Acquire);
        if end > mark && self.mark.compare_exchange(mark, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.passed.notify_one();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Object {
    /// Leaves its last use behind, for the order of eviction.
    fn drop(&mut self) {
        self.ledger.closed(self.id, self.used_at());
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({:x}, {} of {} bytes)", self.id.0, self.filled_bytes(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positioned::read_exact_at;

    fn empty(size: u64) -> Arc<Object> {
        let file = tempfile::tempfile().unwrap();
        Object::new(ObjectId(7), size, file, &Presence::Partial(vec![]), &Arc::new(Ledger::default()))
    }

    #[test]
    fn is_complete_only_when_the_last_byte_is_here() {
        let object = empty(6);
        object.fill(3, b"def").unwrap();
        assert!(!object.is_complete());
        assert!(object.has(3..6) && object.has(4..100) && !object.has(2..4));
        assert_eq!(object.missing(0..10), vec![0..3; 1]);
        object.fill(0, b"abc").unwrap();
        assert!(object.is_complete() && object.has(0..6) && object.missing(0..6).is_empty());
        let mut all = [0; 6];
        read_exact_at(object.file(), &mut all, 0).unwrap();
        assert_eq!(&all, b"abcdef");
    }

    #[test]
    fn empty_version_is_complete_from_the_start() {
        assert!(empty(0).is_complete());
    }

    #[test]
    fn bytes_beyond_the_end_are_refused() {
        let object = empty(4);
        assert_eq!(object.fill(2, b"abc").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(object.fill(u64::MAX, b"a").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(object.filled_bytes(), 0);
    }

    #[test]
    fn complete_version_never_changes() {
        let object = empty(3);
        object.fill(0, b"abc").unwrap();
        object.fill(0, b"xyz").unwrap();
        let mut all = [0; 3];
        read_exact_at(object.file(), &mut all, 0).unwrap();
        assert_eq!(&all, b"abc");
    }

    #[tokio::test]
    async fn waiter_wakes_when_its_range_is_here_and_not_before() {
        let object = empty(10);
        let waiter = tokio::spawn({
            let object = object.clone();
            async move {
                object.wait(2..6).await;
                object.filled_bytes()
            }
        });
        for (offset, bytes) in [(8, b"zz"), (4, b"bb"), (2, b"aa")] {
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished());
            object.fill(offset, bytes).unwrap();
        }
        assert_eq!(waiter.await.unwrap(), 6);
    }

    #[tokio::test]
    async fn mark_wakes_once_and_also_when_set_behind_the_reader() {
        let object = empty(10);
        object.fill(0, b"abcdefgh").unwrap();
        object.mark(4);
        assert!(object.has(0..4));
        assert!(futures::FutureExt::now_or_never(object.reader_passed()).is_none());
        assert!(object.has(4..6));
        assert_eq!(object.reader_passed().await, 6);
        assert!(object.has(6..7));
        assert!(futures::FutureExt::now_or_never(object.reader_passed()).is_none());
        object.mark(5);
        assert_eq!(object.reader_passed().await, 7);
    }
}
