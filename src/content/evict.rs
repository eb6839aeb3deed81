//! What the files take, and which goes first when room is needed: the least recently used.
//! Owns: the table of all objects (bytes here, last use), that of staging files, the sums of both, the open objects
//! that are not complete, and which of those the index is behind on.
//! Invariant: a sum is that of `bytes` over its table; what leaves one leaves both at once. Staging files
//! count, so that objects make room for them, and are never candidates themselves.
//! Order of eviction is exact: candidates are the oldest of one scan, and one that was used since is
//! passed over, because whatever was not among them was used later than all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::object::Object;
use crate::types::{ObjectId, Tick};

/// Unsaved bytes of one object that are worth an fdatasync and a commit: losing them to a crash costs
/// a few requests.
const SAVE_BYTES: u64 = 32 << 20;

/// The book of what is on the disk.
#[derive(Default)]
pub(super) struct Ledger {
    table: DashMap<ObjectId, Account>,
    used: AtomicU64,
    staging: DashMap<ObjectId, u64>,
    staged: AtomicU64,
    /// Open objects that were not complete when opened.
    live: DashMap<ObjectId, Weak<Object>>,
    /// Objects whose presence the index does not know; kept open until it does.
    unsaved: Mutex<HashMap<ObjectId, Arc<Object>>>,
    /// There is enough unsaved to be worth a save at once.
    pub(super) save_now: Notify,
}

#[derive(Clone, Copy)]
struct Account {
    bytes: u64,
    used_at: Tick,
}

/// One that could be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) used_at: Tick,
    pub(super) id: ObjectId,
}

impl Ledger {
    /// Takes an object into the table, unless it is there.
    pub(super) fn enter(&self, id: ObjectId, bytes: u64, used_at: Tick) {
        if let Entry::Vacant(vacant) = self.table.entry(id) {
            vacant.insert(Account { bytes, used_at });
            self.used.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Counts bytes that came in. An object that has left the table takes no room that lasts.
    pub(super) fn filled(&self, id: ObjectId, added: u64, unsaved: u64) {
        if added == 0 {
            return;
        }
        if let Some(mut account) = self.table.get_mut(&id) {
            account.bytes += added;
            self.used.fetch_add(added, Ordering::AcqRel);
        }
        self.save_later(id);
        if unsaved >= SAVE_BYTES {
            self.save_now.notify_one();
        }
    }

    /// Takes an object out: its file is unlinked, or will be.
    pub(super) fn forget(&self, id: ObjectId) {
        if let Some((_, account)) = self.table.remove(&id) {
            self.used.fetch_sub(account.bytes, Ordering::AcqRel);
        }
        self.unsaved.lock().remove(&id);
        if let Some(object) = self.live(id) {
            object.saving.discarded.store(true, Ordering::Release);
        }
    }

    /// Whether an object is in the table.
    pub(super) fn knows(&self, id: ObjectId) -> bool {
        self.table.contains_key(&id)
    }

    /// Says how many bytes staging file `id` has.
    pub(super) fn stage(&self, id: ObjectId, bytes: u64) {
        // added while the entry is locked, so that no other change of it is counted before this one
        let mut entry = self.staging.entry(id).or_insert(0);
        let before = std::mem::replace(&mut *entry, bytes);
        self.staged.fetch_add(bytes.wrapping_sub(before), Ordering::AcqRel);
    }

    /// Takes a staging file out.
    pub(super) fn unstage(&self, id: ObjectId) {
        if let Some((_, bytes)) = self.staging.remove(&id) {
            self.staged.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    /// Whether a staging file is in the table.
    pub(super) fn knows_staged(&self, id: ObjectId) -> bool {
        self.staging.contains_key(&id)
    }

    /// Bytes of all objects and staging files.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire) + self.staged.load(Ordering::Acquire)
    }

    /// Bytes of all staging files, and how many there are.
    pub(super) fn staged(&self) -> (u64, u64) {
        (self.staged.load(Ordering::Acquire), self.staging.len() as u64)
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// Makes an open object findable by its id while it lives.
    pub(super) fn opened(&self, object: &Arc<Object>) {
        self.live.insert(object.id(), Arc::downgrade(object));
    }

    /// The open object `id`, if it was not complete when opened.
    pub(super) fn live(&self, id: ObjectId) -> Option<Arc<Object>> {
        self.live.get(&id).and_then(|weak| weak.upgrade())
    }

    /// An `Object` is dropped, which was last used at `used_at`.
    pub(super) fn closed(&self, id: ObjectId, used_at: Tick) {
        self.live.remove_if(&id, |_, weak| weak.strong_count() == 0);
        if let Some(mut account) = self.table.get_mut(&id) {
            account.used_at = account.used_at.max(used_at);
        }
    }

    /// Remembers that the index is behind on `id`.
    pub(super) fn save_later(&self, id: ObjectId) {
        let mut unsaved = self.unsaved.lock();
        if !unsaved.contains_key(&id)
            && let Some(object) = self.live(id)
        {
            unsaved.insert(id, object);
        }
    }

    /// `id` is being saved: it need not be kept open for that any more.
    pub(super) fn remove_unsaved(&self, id: ObjectId) {
        // The object is dropped after the lock is: its own drop takes others.
        let _kept = self.unsaved.lock().remove(&id);
    }

    /// Takes what the index is behind on.
    pub(super) fn take_unsaved(&self) -> Vec<Arc<Object>> {
        std::mem::take(&mut *self.unsaved.lock()).into_values().collect()
    }

    /// Those that were used longest ago, oldest first, without those being fetched. Walks the whole table.
    /// `used_at` tells the last use of an object that is open.
    pub(super) fn oldest(&self, used_at: impl Fn(ObjectId) -> Option<Tick>) -> VecDeque<Candidate> {
        // first copied out: `used_at` may close a file, which takes locks of the table
        let mut all: Vec<Candidate> =
            self.table.iter().map(|row| Candidate { used_at: row.used_at, id: *row.key() }).collect();
        all.retain(|c| !self.is_held(c.id));
        for candidate in &mut all {
            candidate.used_at = candidate.used_at.max(used_at(candidate.id).unwrap_or(Tick::NEVER));
        }
        // enough that scans are rare, few enough that most are still unused when their turn comes
        let share = (all.len() / 8).max(64).min(all.len());
        if share < all.len() {
            all.select_nth_unstable(share);
            all.truncate(share);
        }
        all.sort_unstable();
        all.into()
    }

    /// Whether `id` is being fetched.
    pub(super) fn is_held(&self, id: ObjectId) -> bool {
        self.live(id).is_some_and(|object| object.is_held())
    }

    /// When `id` was last used, as far as the table knows; `None` when it is not in the table.
    pub(super) fn used_at(&self, id: ObjectId) -> Option<Tick> {
        self.table.get(&id).map(|account| account.used_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Presence;

    fn object(ledger: &Arc<Ledger>, id: u64, size: u64) -> Arc<Object> {
        let object = Object::new(ObjectId(id), size, tempfile::tempfile().unwrap(), &Presence::Partial(vec![]), ledger);
        ledger.enter(object.id(), 0, Tick::NEVER);
        ledger.opened(&object);
        object
    }

    #[test]
    fn partial_objects_count_what_is_filled_once() {
        let ledger = Arc::new(Ledger::default());
        let big = object(&ledger, 1, 1 << 40);
        ledger.enter(ObjectId(2), 100, Tick(5));
        ledger.enter(ObjectId(2), 999, Tick(5));
        big.fill(1 << 20, &[0; 50]).unwrap();
        big.fill(1 << 20, &[0; 60]).unwrap();
        assert_eq!((ledger.used(), ledger.count()), (160, 2));
        ledger.forget(ObjectId(1));
        big.fill(0, &[0; 10]).unwrap();
        assert_eq!((ledger.used(), ledger.count()), (100, 1));
        assert!(big.is_discarded());
        ledger.forget(ObjectId(1));
        assert_eq!(ledger.used(), 100);
    }

    #[test]
    fn oldest_come_first_and_uses_of_open_files_count() {
        let ledger = Ledger::default();
        for (id, tick) in [(1, 30), (2, 10), (3, 20), (4, 0), (5, 0)] {
            ledger.enter(ObjectId(id), 1, Tick(tick));
        }
        let order = ledger.oldest(|id| (id == ObjectId(2)).then_some(Tick(40)));
        assert_eq!(order.iter().map(|c| c.id.0).collect::<Vec<_>>(), [4, 5, 3, 1, 2]);
    }

    #[test]
    fn scan_of_many_yields_exactly_the_oldest() {
        let ledger = Ledger::default();
        for n in 0..1000 {
            ledger.enter(ObjectId(n * 7 % 1000), 1, Tick(n * 7 % 1000));
        }
        let order: Vec<u64> = ledger.oldest(|_| None).iter().map(|c| c.id.0).collect();
        assert_eq!(order, (0..125).collect::<Vec<_>>());
    }

    #[test]
    fn unsaved_objects_stay_open_until_taken() {
        let ledger = Arc::new(Ledger::default());
        let one = object(&ledger, 1, 10);
        one.fill(0, b"abc").unwrap();
        one.touch(Tick(9));
        drop(one);
        assert!(ledger.live(ObjectId(1)).is_some());
        let taken = ledger.take_unsaved();
        assert_eq!(taken.len(), 1);
        drop(taken);
        assert!(ledger.live(ObjectId(1)).is_none());
        assert_eq!(ledger.used_at(ObjectId(1)), Some(Tick(9)));
    }
}
