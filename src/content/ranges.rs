//! A set of byte offsets kept as ranges: which bytes of a version are here, which are being fetched.
//! Invariant: the ranges are half open, not empty, sorted, and apart from each other (never touching),
//! so equal sets are equal values and the count of ranges is the least possible.

use std::ops::Range;

/// A set of byte offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// How many bytes are in the set.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One past the highest byte in the set; zero when it is empty.
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |r| r.end)
    }

    /// The ranges, sorted and apart.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Adds `range`; tells how many of its bytes were not in the set before.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // those that overlap or touch melt into one
        let first = self.ranges.partition_point(|r| r.end < range.start);
        let last = self.ranges.partition_point(|r| r.start <= range.end);
        let melted = &self.ranges[first..last];
        let before: u64 = melted.iter().map(|r| r.end - r.start).sum();
        let start = melted.first().map_or(range.start, |r| r.start.min(range.start));
        let end = melted.last().map_or(range.end, |r| r.end.max(range.end));
        self.ranges.splice(first..last, std::iter::once(start..end));
        let added = (end - start) - before;
        self.bytes += added;
        added
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        let last = self.ranges.partition_point(|r| r.start < range.end);
        let cut = &self.ranges[first..last];
        let before: u64 = cut.iter().map(|r| r.end - r.start).sum();
        let head = cut.first().map(|r| r.start..range.start).filter(|r| !r.is_empty());
        let tail = cut.last().map(|r| range.end..r.end).filter(|r| !r.is_empty());
        let kept: u64 = head.iter().chain(&tail).map(|r| r.end - r.start).sum();
        self.ranges.splice(first..last, head.into_iter().chain(tail));
        self.bytes -= before - kept;
    }

    /// Whether all of `range` is in the set. The empty range always is.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let after = self.ranges.partition_point(|r| r.start <= range.start);
        after > 0 && self.ranges[after - 1].end >= range.end
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        for here in self.ranges[first..].iter().take_while(|r| r.start < range.end) {
            if at < here.start {
                gaps.push(at..here.start);
            }
            at = here.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> RangeSet {
        let mut set = RangeSet::new();
        set.insert(range);
        set
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    /// In any order, overlapping or not.
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> RangeSet {
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Range<u64>),
        Remove(Range<u64>),
    }

    fn any_range() -> impl Strategy<Value = Range<u64>> {
        (0u64..64, 0u64..20).prop_map(|(start, len)| start..start + len)
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![2 => any_range().prop_map(Step::Insert), 1 => any_range().prop_map(Step::Remove)]
    }

    fn check_against(model: &BTreeSet<u64>, set: &RangeSet, probe: Range<u64>) {
        assert_eq!(set.bytes(), model.len() as u64);
        assert_eq!(set.end(), model.last().map_or(0, |b| b + 1));
        assert_eq!(set.as_slice().iter().cloned().flatten().collect::<BTreeSet<_>>(), *model);
        assert!(set.as_slice().iter().all(|r| !r.is_empty()));
        assert!(set.as_slice().windows(2).all(|w| w[0].end < w[1].start), "sorted and apart: {set:?}");
        assert_eq!(set.covers(&probe), probe.clone().all(|b| model.contains(&b)));
        let gaps: Vec<u64> = set.missing(probe.clone()).into_iter().flatten().collect();
        assert_eq!(gaps, probe.filter(|b| !model.contains(b)).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_offsets(
            steps in prop::collection::vec(any_step(), 0..60),
            probe in any_range(),
        ) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(r) => {
                        let added = r.clone().filter(|b| model.insert(*b)).count();
                        prop_assert_eq!(set.insert(r), added as u64);
                    }
                    Step::Remove(r) => {
                        r.clone().for_each(|b| { model.remove(&b); });
                        set.remove(r);
                    }
                }
                check_against(&model, &set, probe.clone());
            }
        }
    }

    #[test]
    fn touching_ranges_become_one() {
        let set: RangeSet = [10..20, 0..5, 5..10].into_iter().collect();
        assert_eq!(set, RangeSet::from(0..20));
    }

    #[test]
    fn offsets_up_to_the_largest_object_fit() {
        let mut set = RangeSet::new();
        set.insert(0..u64::MAX);
        set.remove(1..u64::MAX - 1);
        assert_eq!(set.as_slice(), [0..1, u64::MAX - 1..u64::MAX]);
        assert_eq!(set.bytes(), 2);
    }
}
