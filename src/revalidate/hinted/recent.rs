//! What was said lately of keys that are not here, for the answers that are on their way: they may be older.
//! Invariants
//! - Bounded. A key that is forgotten was told of so long and so much ago that no request is under way since then.
//! - What was said of a prefix is not forgotten, but said of everything where it must be.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::types::{Key, Tick};

/// Keys remembered, by their hash: 2 MB at most.
const KEYS: usize = 65_536;
/// Prefixes remembered; one that is too many makes everything doubtful.
const PREFIXES: usize = 64;

/// When something was said of which key.
pub(in crate::revalidate) struct Recent {
    hasher: RandomState,
    keys: Cache<u64, Tick>,
    prefixes: Mutex<Vec<(Key, Tick)>>,
    /// The latest of all.
    newest: AtomicU64,
}

impl Recent {
    pub(in crate::revalidate) fn new() -> Recent {
        let (hasher, keys) = (RandomState::new(), Cache::new(KEYS));
        Recent { hasher, keys, prefixes: Mutex::default(), newest: AtomicU64::new(0) }
    }

    pub(in crate::revalidate) fn note(&self, key: &Key, now: Tick) {
        self.newest.fetch_max(now.0, Ordering::AcqRel);
        self.keys.insert(self.hasher.hash_one(key), now);
    }

    pub(super) fn note_prefix(&self, prefix: &Key, now: Tick) {
        self.newest.fetch_max(now.0, Ordering::AcqRel);
        let mut prefixes = self.prefixes.lock();
        prefixes.retain(|(known, _)| !known.starts_with(prefix.as_str()));
        if prefixes.len() >= PREFIXES {
            *prefixes = vec![(Key::root(), now)];
        } else {
            prefixes.push((prefix.clone(), now));
        }
    }

    /// Whether anything was said at `sent` or later.
    pub(in crate::revalidate) fn is_anything_since(&self, sent: Tick) -> bool {
        self.newest.load(Ordering::Acquire) >= sent.0
    }

    /// When something was said of `key` or all around it, at `sent` or later.
    pub(in crate::revalidate) fn since(&self, key: &Key, sent: Tick) -> Option<Tick> {
        if !self.is_anything_since(sent) {
            return None;
        }
        let around = |(prefix, at): &(Key, Tick)| key.starts_with(prefix.as_str()).then_some(*at);
        let around = self.prefixes.lock().iter().filter_map(around).max();
        around.filter(|at| *at >= sent).max(self.of(key, sent))
    }

    /// The same, of `key` itself.
    pub(super) fn of(&self, key: &Key, sent: Tick) -> Option<Tick> {
        self.keys.get(&self.hasher.hash_one(key)).filter(|at| *at >= sent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn only_what_was_asked_before_is_doubted() {
        let recent = Recent::new();
        assert_eq!(recent.since(&key("a"), Tick(1)), None);
        recent.note(&key("a"), Tick(5));
        assert_eq!(recent.since(&key("a"), Tick(5)), Some(Tick(5)));
        assert_eq!(recent.since(&key("a"), Tick(6)), None);
        assert_eq!(recent.since(&key("b"), Tick(5)), None);
        recent.note_prefix(&key("d/"), Tick(7));
        assert_eq!(recent.since(&key("d/x"), Tick(6)), Some(Tick(7)));
        assert_eq!(recent.since(&key("dx"), Tick(6)), None);
    }

    #[test]
    fn too_many_prefixes_are_everything() {
        let recent = Recent::new();
        for n in 0..=PREFIXES {
            recent.note_prefix(&key(&format!("{n}/")), Tick(1));
        }
        assert_eq!(recent.since(&key("elsewhere"), Tick(1)), Some(Tick(1)));
    }
}
