//! What S3 was lately seen not to have: so that an observation sent before cannot bring it back. In memory, as such an
//! observation is.
//!
//! An entry is buried when S3 has lost it; a key, when its object was removed from here, or is to be. The key has a grave
//! of its own, for the entry that it was of may be another's before the observation comes, and the directory that owned it
//! may have come to be elsewhere.
//!
//! Bounded: a forgotten one costs a ghost until the next check.

use quick_cache::unsync::Cache;

use super::change::Change;
use crate::types::{Component, Ino, Key, Tick};

/// Most of each kind.
const GRAVES: usize = 16_384;

pub(super) struct Graves {
    entries: Cache<(Ino, Component), Tick>,
    keys: Cache<Box<str>, Tick>,
}

impl Graves {
    pub(super) fn new() -> Graves {
        Graves { entries: Cache::new(GRAVES), keys: Cache::new(GRAVES) }
    }

    fn bury_key(&mut self, key: &str, at: Tick) {
        if self.keys.peek(key).is_none_or(|before| *before < at) {
            self.keys.insert(key.into(), at);
        }
    }
}

impl Change<'_> {
    /// Notes that S3 was seen, by `answered`, to have nothing at `component` of `dir`.
    pub(super) fn bury(&mut self, dir: Ino, component: &Component, answered: Tick) {
        self.graves.entries.insert((dir, component.clone()), answered);
    }

    /// Whether `component` of `dir` was seen to be gone by an answer that came after `sent`.
    pub(super) fn is_buried(&self, dir: Ino, component: &Component, sent: Tick) -> bool {
        let entries = &self.graves.entries;
        !entries.is_empty() && entries.peek(&(dir, component.clone())).is_some_and(|answered| *answered > sent)
    }

    /// Notes that what S3 had at `key` by `observed`, and what it had there before, is nobody's any more.
    pub(super) fn bury_version(&mut self, key: &Key, observed: Tick) {
        self.graves.bury_key(key, observed);
    }

    /// Notes that S3 had nothing at `key` any more when it answered at `answered`. As far as is known here nothing is left
    /// below the prefixes that had no other entry, either.
    pub(super) fn bury_key(&mut self, key: &Key, answered: Tick) {
        for (slash, _) in key.match_indices('/') {
            self.graves.bury_key(&key[..=slash], answered);
        }
        self.graves.bury_key(key, answered);
    }

    /// Whether `key`, or what is below that prefix, was buried by an answer that came after `sent`.
    pub(super) fn is_key_buried(&self, key: &Key, sent: Tick) -> bool {
        let keys = &self.graves.keys;
        !keys.is_empty() && keys.peek(key.as_str()).is_some_and(|answered| *answered > sent)
    }
}
