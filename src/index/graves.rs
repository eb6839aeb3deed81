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
    prefixes: Cache<Box<str>, Tick>,
}

impl Graves {
    pub(super) fn new() -> Graves {
        Graves { entries: Cache::new(GRAVES), keys: Cache::new(GRAVES), prefixes: Cache::new(GRAVES) }
    }
}

fn dig(graves: &mut Cache<Box<str>, Tick>, key: &str, at: Tick) {
    if graves.peek(key).is_none_or(|before| *before < at) {
        graves.insert(key.into(), at);
    }
}

fn lies(graves: &Cache<Box<str>, Tick>, key: &str, sent: Tick) -> bool {
    !graves.is_empty() && graves.peek(key).is_some_and(|at| *at > sent)
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
        dig(&mut self.graves.keys, key, observed);
    }

    /// Notes that S3 had nothing at `key` any more when it answered at `answered`: perhaps nothing is left below the
    /// prefixes above it, either.
    pub(super) fn bury_key(&mut self, key: &Key, answered: Tick) {
        for (slash, _) in key.match_indices('/') {
            dig(&mut self.graves.prefixes, &key[..=slash], answered);
        }
        dig(&mut self.graves.keys, key, answered);
    }

    /// Whether the object at `key` was buried by an answer that came after `sent`.
    pub(super) fn is_key_buried(&self, key: &Key, sent: Tick) -> bool {
        lies(&self.graves.keys, key, sent)
    }

    /// Whether something below `prefix` was: alone it is no reason for a directory.
    pub(super) fn is_prefix_buried(&self, prefix: &Key, sent: Tick) -> bool {
        lies(&self.graves.prefixes, prefix, sent)
    }
}
