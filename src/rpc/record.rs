//! Record marking (RFC 5531 section 11): bytes of a stream in, whole records out.
//! Owns: the input buffer of a connection. A record of one fragment is handed out where it lies; only one of
//! several fragments is copied together.
//! Invariants: the buffer never grows beyond one largest record and its slack, whatever the peer claims;
//! memory for a claimed length is not touched (so not resident) before bytes arrive.

use std::ops::Range;

/// 64 KiB: some hundred small calls in one read, and nothing much per idle connection.
const START: usize = 64 << 10;
/// Room that a read should find: behind a large record its successors come in the same read.
const SLACK: usize = 64 << 10;
/// Below this much room the leftover is moved down rather than read in slivers.
const SLIVER: usize = 4 << 10;
/// Fragments without content that a record may have. No client sends any.
const MAX_EMPTY_FRAGMENTS: u32 = 16;
/// The bit of a record mark that says "last fragment".
pub(super) const LAST_FRAGMENT: u32 = 1 << 31;

/// A stream that cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("record longer than the limit")]
    TooLong,
    #[error("too many empty fragments")]
    Empty,
}

/// Where a record lies; valid until the next `Input::room`.
#[derive(Debug)]
pub(super) enum Place {
    Buffer(Range<usize>),
    Assembled,
}

/// Input of one connection.
#[derive(Debug)]
pub(super) struct Input {
    buf: Vec<u8>,
    /// `buf[lo..hi]` has arrived and is not consumed.
    lo: usize,
    hi: usize,
    /// Content of the fragments before the last.
    assembled: Vec<u8>,
    /// Whether `assembled` was handed out already.
    delivered: bool,
    empty_fragments: u32,
    max_record: usize,
    /// Whether the large buffer was needed since `relax`.
    large: bool,
    records: u64,
}

impl Input {
    pub(super) fn new(max_record: usize) -> Input {
        Input {
            buf: vec![0; START],
            lo: 0,
            hi: 0,
            assembled: Vec::new(),
            delivered: false,
            empty_fragments: 0,
            max_record,
            large: false,
            records: 0,
        }
    }

    /// Finds the next whole record and consumes it. `None`: more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Place>, BadRecord> {
        if self.delivered {
            self.delivered = false;
            self.assembled.clear();
        }
        while let Some((len, last)) = self.mark() {
            if len > self.max_record - self.assembled.len() {
                return Err(BadRecord::TooLong);
            }
            let content = self.lo + 4..self.lo + 4 + len;
            if content.end > self.hi {
                break;
            }
            self.lo = content.end;
            if !last || !self.assembled.is_empty() {
                self.assembled.extend_from_slice(&self.buf[content.clone()]);
            }
            if last {
                self.empty_fragments = 0;
                self.records += 1;
                self.delivered = !self.assembled.is_empty();
                return Ok(Some(if self.delivered { Place::Assembled } else { Place::Buffer(content) }));
            }
            self.empty_fragments += u32::from(len == 0);
            if self.empty_fragments > MAX_EMPTY_FRAGMENTS {
                return Err(BadRecord::Empty);
            }
        }
        Ok(None)
    }

    /// The bytes of a record just found.
    pub(super) fn bytes(&self, place: &Place) -> &[u8] {
        match place {
            Place::Buffer(range) => &self.buf[range.clone()],
            Place::Assembled => &self.assembled,
        }
    }

    /// Where to read more bytes to; never empty. To be called after `next` found nothing more.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.lo == self.hi {
            (self.lo, self.hi) = (0, 0);
        }
        let wanted = 4 + self.mark().map_or(0, |(len, _)| len);
        self.large |= wanted > START;
        if self.lo + wanted > self.buf.len() || self.buf.len() - self.hi < SLIVER {
            self.move_down(wanted);
        }
        &mut self.buf[self.hi..]
    }

    /// Notes that `n` bytes were read to `room`.
    pub(super) fn filled(&mut self, n: usize) {
        debug_assert!(n <= self.buf.len() - self.hi, "no more than the room");
        self.hi += n;
    }

    /// Whether a record has begun that is not complete.
    pub(super) fn is_partial(&self) -> bool {
        self.lo < self.hi || (!self.assembled.is_empty() && !self.delivered) || self.empty_fragments > 0
    }

    /// Records handed out so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Gives a large buffer back that was not needed since the last time.
    pub(super) fn relax(&mut self) {
        if !self.large && self.buf.len() > START && self.hi - self.lo < START {
            self.replace(START);
        }
        if !self.large && self.assembled.is_empty() {
            self.assembled = Vec::new();
        }
        self.large = false;
    }

    /// Length and last-bit of the fragment at the front, when its mark is here.
    fn mark(&self) -> Option<(usize, bool)> {
        let mark = u32::from_be_bytes(*self.buf[self.lo..self.hi].first_chunk::<4>()?);
        Some(((mark & !LAST_FRAGMENT) as usize, mark & LAST_FRAGMENT != 0))
    }

    /// Brings the leftover to the front of a buffer in which `wanted` bytes fit.
    fn move_down(&mut self, wanted: usize) {
        if wanted + SLIVER > self.buf.len() {
            self.replace(wanted + SLACK);
        } else {
            self.buf.copy_within(self.lo..self.hi, 0);
            (self.lo, self.hi) = (0, self.hi - self.lo);
        }
    }

    /// A fresh buffer rather than a grown one: the allocator gets its zeros from the OS, page by page as touched.
    fn replace(&mut self, len: usize) {
        let mut fresh = vec![0; len];
        let left = self.hi - self.lo;
        fresh[..left].copy_from_slice(&self.buf[self.lo..self.hi]);
        (self.buf, self.lo, self.hi) = (fresh, 0, left);
    }
}
