//! How far to fetch ahead of a reader: not at all while it jumps about, twice as far at each step
//! while it goes straight on.
//! Owns: plain arithmetic; no clock, no task, no request.

use std::ops::Range;

use super::BLOCK_BYTES;

/// First window: about what S3 sends during one round trip.
const FIRST_WINDOW_BYTES: u64 = 1 << 20;
/// Largest window: hides 200 ms of S3 at 1.3 Gbit/s.
const LAST_WINDOW_BYTES: u64 = 32 << 20;
/// Clients send the reads of one reader in parallel, so they arrive out of order by about so much.
const SLOP_BYTES: u64 = 4 << 20;

/// What is known of the one reader of an object (two readers look like one that jumps about).
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Where the next read begins, if it goes straight on.
    expected: u64,
    /// How far ahead to fetch; zero while the reader jumps about.
    window: u64,
    /// Up to where has been asked for.
    frontier: u64,
    /// Whether that is the end of the object.
    is_at_end: bool,
}

impl ReadAhead {
    /// A read of `range` of an object of `size` bytes comes; tells what to fetch ahead of it.
    /// `most`: largest window that there is room for.
    pub(super) fn read(&mut self, range: &Range<u64>, size: u64, most: u64) -> Option<Range<u64>> {
        let near = range.start.abs_diff(self.expected) <= SLOP_BYTES;
        // one who comes back into what was fetched ahead for him goes straight on, too
        let known = self.window > 0 && (self.expected..=self.frontier).contains(&range.start);
        if !near && !known {
            *self = ReadAhead { expected: range.end, window: 0, frontier: range.end, is_at_end: false };
            return None;
        }
        self.expected = self.expected.max(range.end);
        let wanted = (self.window * 2).clamp(FIRST_WINDOW_BYTES, LAST_WINDOW_BYTES);
        self.window = wanted.min(most / BLOCK_BYTES * BLOCK_BYTES);
        let from = self.frontier.max(self.expected);
        let to = self.expected.saturating_add(self.window).min(size);
        self.frontier = self.frontier.max(to);
        self.is_at_end = self.frontier >= size;
        (from < to).then_some(from..to)
    }

    /// A read that ends beyond this should bring the next piece; `u64::MAX` while nothing is fetched ahead,
    /// and once there is nothing more to fetch. Always beyond the last read: whoever waits for the mark
    /// to be passed waits for another read.
    pub(super) fn mark(&self) -> u64 {
        if self.window == 0 || self.is_at_end { u64::MAX } else { self.frontier.saturating_sub(self.window / 2) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 40;

    #[test]
    fn window_doubles_up_to_its_largest_while_reading_straight_on() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.read(&(0..MIB), SIZE, u64::MAX), Some(MIB..2 * MIB));
        assert_eq!(ahead.read(&(MIB..2 * MIB), SIZE, u64::MAX), Some(2 * MIB..4 * MIB));
        assert_eq!(ahead.read(&(2 * MIB..3 * MIB), SIZE, u64::MAX), Some(4 * MIB..7 * MIB));
        for n in 3..10 {
            ahead.read(&(n * MIB..(n + 1) * MIB), SIZE, u64::MAX);
        }
        assert_eq!(ahead.read(&(10 * MIB..11 * MIB), SIZE, u64::MAX), Some(42 * MIB..43 * MIB));
        assert_eq!(ahead.mark(), 27 * MIB);
    }

    #[test]
    fn jumping_reader_gets_nothing_ahead_until_it_goes_straight_on() {
        let mut ahead = ReadAhead::default();
        for at in [500 * MIB, 100 * MIB, 900 * MIB] {
            assert_eq!(ahead.read(&(at..at + 4096), SIZE, u64::MAX), None);
            assert_eq!(ahead.mark(), u64::MAX);
        }
        let at = 900 * MIB + 4096;
        assert_eq!(ahead.read(&(at..at + 4096), SIZE, u64::MAX), Some(at + 4096..at + 4096 + MIB));
    }

    #[test]
    fn reads_out_of_order_count_as_straight_on() {
        let mut ahead = ReadAhead::default();
        let mut asked = 0;
        for at in [1, 0, 3, 2, 5, 4, 7, 6] {
            let next = ahead.read(&(at * MIB..(at + 1) * MIB), SIZE, u64::MAX);
            asked += next.map_or(0, |r| r.end - r.start);
        }
        assert!(asked >= 24 * MIB, "{asked}");
    }

    #[test]
    fn nothing_beyond_the_end_and_nothing_where_there_is_no_room() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.read(&(0..MIB), MIB + 5, u64::MAX), Some(MIB..MIB + 5));
        assert_eq!(ahead.read(&(MIB..MIB + 5), MIB + 5, u64::MAX), None);
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.read(&(0..MIB), SIZE, MIB - 1), None);
    }

    proptest! {
        /// A mark behind the reader would wake the driver for ever, with nothing left to fetch.
        #[test]
        fn mark_is_beyond_every_read(
            size in 1..100 * MIB,
            reads in prop::collection::vec((0..100 * MIB, 1..4 * MIB, 0..64 * MIB), 1..40),
            straight in any::<bool>(),
        ) {
            let (mut ahead, mut at) = (ReadAhead::default(), 0);
            for (start, len, most) in reads {
                let start = if straight { at } else { start }.min(size);
                let end = (start + len).min(size);
                ahead.read(&(start..end), size, most);
                prop_assert!(ahead.mark() > end, "{ahead:?} after {start}..{end} of {size}");
                at = end;
            }
        }
    }
}
