//! What a staging file is in memory, ahead of its row: behind one mutex, which is held for no disk call.
//! Owns: the overlay, the attributes, and which of it all is durable.
//!
//! A byte written is `dirty` until an fdatasync begins, `syncing` until one that began after it has ended well. When
//! one fails, nobody knows which of `syncing` are on the disk, and the kernel will not try them again: they
//! are *suspect*, and are written again, from what the kernel still has of them, before the next fdatasync.

use std::io;
use std::ops::Range;

use super::super::ranges::RangeSet;
use super::Live;
use super::overlay::Overlay;
use crate::types::{Tick, Time};

/// What a staging file is in memory.
#[derive(Debug)]
pub(super) struct State {
    pub(super) overlay: Overlay,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) version: u64,
    pub(super) written_at: Tick,
    /// The version that the index has.
    pub(super) saved: u64,
    /// mtime and ctime that the index had when it was last looked at: others there are somebody's SETATTR.
    pub(super) indexed: (Time, Time),
    /// Whether the file is longer than it should be: a truncation has to be seen to.
    pub(super) is_too_long: bool,
    /// What was written since whoever makes a copy looked last.
    pub(super) watched: Option<RangeSet>,
    dirty: RangeSet,
    syncing: RangeSet,
    suspect: bool,
    failure: Option<(u64, Failure)>,
}

/// An error that can be told to many.
#[derive(Clone, Copy, Debug)]
struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
}

/// What an fdatasync that begins now will have made durable.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) overlay: Overlay,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) indexed: (Time, Time),
    pub(super) version: u64,
    /// To be written again before.
    pub(super) suspect: Vec<Range<u64>>,
    /// Whether there are bytes to be made durable.
    pub(super) has_bytes: bool,
}

impl State {
    /// As the index has it.
    pub(super) fn new(overlay: Overlay, mtime: Time, ctime: Time, version: u64) -> State {
        State {
            overlay,
            mtime,
            ctime,
            version,
            written_at: Tick::NEVER,
            saved: version,
            indexed: (mtime, ctime),
            is_too_long: false,
            watched: None,
            dirty: RangeSet::new(),
            syncing: RangeSet::new(),
            suspect: false,
            failure: None,
        }
    }

    pub(super) fn live(&self) -> Live {
        Live { size: self.overlay.size(), mtime: self.mtime, ctime: self.ctime }
    }

    /// `range` has been written; the attributes before and after.
    pub(super) fn wrote(&mut self, range: Range<u64>, (now, at): (Tick, Time), version: u64) -> (Live, Live) {
        let before = self.live();
        self.overlay.write(range.clone());
        self.watch(range.clone());
        self.dirty.insert(range);
        (self.mtime, self.ctime, self.written_at) = (at, at, now);
        self.version = version;
        (before, self.live())
    }

    /// A write of `range` failed: what was there before may be something else now, and nothing else counts.
    pub(super) fn spoiled(&mut self, range: Range<u64>, version: u64) {
        self.watch(range.clone());
        let mut kept = self.overlay.written().clone();
        kept.remove(0..range.start);
        kept.remove(range.end..u64::MAX);
        kept.as_slice().iter().for_each(|part| {
            self.dirty.insert(part.clone());
        });
        self.version = version;
    }

    /// `range` is to be copied again, if a copy is being made.
    pub(super) fn watch(&mut self, range: Range<u64>) {
        if let Some(watched) = &mut self.watched {
            watched.insert(range);
        }
    }

    pub(super) fn take_watched(&mut self) -> Vec<Range<u64>> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default().as_slice().to_vec()
    }

    pub(super) fn resize(&mut self, size: u64, version: u64) {
        self.is_too_long |= size < self.overlay.size();
        self.overlay.resize(size);
        self.dirty.remove(size..u64::MAX);
        self.syncing.remove(size..u64::MAX);
        self.version = version;
    }

    /// Whether the index has all of it.
    pub(super) fn is_saved(&self) -> bool {
        self.saved == self.version
    }

    /// How many fsyncs have failed; and as what the last one.
    pub(super) fn failures(&self) -> (u64, io::Error) {
        match self.failure {
            None => (0, io::ErrorKind::Other.into()),
            Some((count, Failure { code: Some(code), .. })) => (count, io::Error::from_raw_os_error(code)),
            Some((count, Failure { kind, .. })) => (count, kind.into()),
        }
    }

    /// An fdatasync is about to begin.
    pub(super) fn begin_sync(&mut self) -> Snapshot {
        let dirty = std::mem::take(&mut self.dirty);
        let suspect = if self.suspect { self.syncing.as_slice().to_vec() } else { Vec::new() };
        for range in dirty.as_slice() {
            self.syncing.insert(range.clone());
        }
        Snapshot {
            overlay: self.overlay.clone(),
            mtime: self.mtime,
            ctime: self.ctime,
            indexed: self.indexed,
            version: self.version,
            suspect,
            has_bytes: self.syncing.bytes() > 0,
        }
    }

    /// It has ended.
    pub(super) fn end_sync(&mut self, result: &io::Result<()>) {
        match result {
            Ok(()) => (self.syncing, self.suspect) = (RangeSet::new(), false),
            Err(error) => {
                let failure = Failure { code: error.raw_os_error(), kind: error.kind() };
                self.failure = Some((self.failures().0 + 1, failure));
                self.suspect = true;
            }
        }
    }

    /// The index has `version` now, with these attributes.
    pub(super) fn recorded(&mut self, version: u64, indexed: (Time, Time)) {
        self.saved = self.saved.max(version);
        self.indexed = indexed;
    }

    /// What a power cut would lose.
    pub(super) fn unsynced(&self) -> RangeSet {
        self.dirty.as_slice().iter().chain(self.syncing.as_slice()).cloned().collect()
    }
}
