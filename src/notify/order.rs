//! Which of the events of one key came last. S3 tells them more than once, and in any order.
//! Invariant: bounded. A key that is forgotten has its next event taken for news, which costs a request.

use std::hash::{BuildHasher, RandomState};

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::Sequencer;
use crate::types::Key;

/// Keys remembered, by their hash: 6 MB at most.
const KEYS: usize = 65_536;

/// The last event of each key.
pub(super) struct Order {
    hasher: RandomState,
    latest: Cache<u64, Sequencer>,
}

impl Order {
    pub(super) fn new() -> Order {
        Order { hasher: RandomState::new(), latest: Cache::new(KEYS) }
    }

    /// Whether this event of `key` is later than all that were noted before; it is noted then.
    pub(super) fn advance(&self, key: &Key, sequencer: &Sequencer) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut is_later = true;
        let noted = self.latest.entry(&hash, None, |_, latest| {
            is_later = *sequencer > *latest;
            if is_later {
                *latest = sequencer.clone();
            }
            EntryAction::Retain(())
        });
        if let EntryResult::Vacant(place) = noted {
            let _ = place.insert(sequencer.clone());
        }
        is_later
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_later_events_of_a_key_are_news() {
        let order = Order::new();
        let key = |text| Key::new(text).unwrap();
        let advance = |text, digits| order.advance(&key(text), &Sequencer::new(digits).unwrap());
        assert!(advance("a", "0A"));
        assert!(!advance("a", "0A"), "the same once more");
        assert!(!advance("a", "9"), "an older one, late");
        assert!(advance("a", "100"));
        assert!(advance("b", "1"), "another key");
        assert!(!advance("a", "0A"));
    }

    #[test]
    fn memory_is_bounded() {
        let order = Order::new();
        for n in 0..3 * KEYS {
            assert!(order.advance(&Key::new(&n.to_string()).unwrap(), &Sequencer::new("1").unwrap()));
        }
        assert!(order.latest.len() <= KEYS);
    }
}
