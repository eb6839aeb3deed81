//! A run of bytes of a file, which may reach to the end of all that can be addressed.
//! Invariant: never empty; `first <= last`.

/// Bytes `first` to `last`, both of them within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Range {
    /// `len` bytes from `offset` on. A length of 0, or one of all ones, reaches to the end, however far that is, as the
    /// lock managers of all systems take them. `None` for a range whose last byte has no 64-bit number.
    pub fn new(offset: u64, len: u64) -> Option<Range> {
        let last = match len {
            0 | u64::MAX => u64::MAX,
            len => offset.checked_add(len - 1)?,
        };
        Some(Range { first: offset, last })
    }

    /// Where it begins.
    pub fn offset(self) -> u64 {
        self.first
    }

    /// How many bytes it has; 0 when it reaches to the end.
    pub fn len_or_zero(self) -> u64 {
        if self.last == u64::MAX { 0 } else { self.last - self.first + 1 }
    }

    /// Whether some byte is in both.
    pub(super) fn overlaps(self, other: Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether both together are one run.
    pub(super) fn touches(self, other: Range) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }

    /// Whether all of `other` is in this.
    pub(super) fn contains(self, other: Range) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The one run that two ranges make, which touch.
    pub(super) fn with(self, other: Range) -> Range {
        Range { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// What is left of this before and behind `hole`, which overlaps it.
    pub(super) fn without(self, hole: Range) -> impl Iterator<Item = Range> {
        let before = (self.first < hole.first).then(|| Range { first: self.first, last: hole.first - 1 });
        let behind = (hole.last < self.last).then(|| Range { first: hole.last + 1, last: self.last });
        before.into_iter().chain(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_zero_reaches_to_the_end() {
        let all = Range { first: 5, last: u64::MAX };
        assert_eq!(Range::new(5, 0), Some(all));
        assert_eq!(Range::new(5, u64::MAX), Some(all));
        assert_eq!(Range::new(5, u64::MAX - 4), Some(all));
        assert_eq!((all.offset(), all.len_or_zero()), (5, 0));
    }

    #[test]
    fn a_range_beyond_the_last_offset_is_none() {
        assert_eq!(Range::new(5, u64::MAX - 3), None);
        assert_eq!(Range::new(u64::MAX, 2), None);
        assert_eq!(Range::new(u64::MAX, 1), Some(Range { first: u64::MAX, last: u64::MAX }));
        assert_eq!(Range::new(1 << 63, 1).map(Range::len_or_zero), Some(1));
    }
}
