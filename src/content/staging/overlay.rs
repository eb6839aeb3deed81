//! How a staging file lies over the version below: which bytes of the file are whose. Arithmetic alone, no file.
//! Invariant: `base_len` and all of `written` are at most `size`. A truncation takes bytes of the version below away
//! for good: an extension after it shows zeros.

use std::ops::Range;

use super::super::ranges::RangeSet;

/// Which bytes of a file are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    size: u64,
    base_len: u64,
    written: RangeSet,
}

/// Whose a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The staging file's.
    Here,
    /// The version's below.
    Base,
    /// Nobody's: zeros.
    Zeros,
}

impl Overlay {
    /// Of `size` bytes, of which `base_len` were the version's below before `written` were written.
    pub(super) fn new(size: u64, base_len: u64, written: RangeSet) -> Overlay {
        let mut overlay = Overlay { size: size.max(written.end()), base_len, written };
        overlay.resize(size);
        overlay
    }

    /// Length of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes of the version below still count.
    pub(super) fn base_len(&self) -> u64 {
        self.base_len
    }

    /// What was written.
    pub(super) fn written(&self) -> &RangeSet {
        &self.written
    }

    /// `range` was written.
    pub(super) fn write(&mut self, range: Range<u64>) {
        self.size = self.size.max(range.end);
        self.written.insert(range);
    }

    /// The file is `size` bytes long from now on.
    pub(super) fn resize(&mut self, size: u64) {
        self.written.remove(size..u64::MAX);
        self.base_len = self.base_len.min(size);
        self.size = size;
    }

    /// What is needed of the version below.
    pub(super) fn uncovered(&self) -> Vec<Range<u64>> {
        self.written.missing(0..self.base_len)
    }

    /// What is zeros without having been written.
    pub(super) fn holes(&self) -> Vec<Range<u64>> {
        self.written.missing(self.base_len..self.size)
    }

    /// Whose the parts of `range` are, in order. Cut at the end of the file.
    pub(super) fn layers(&self, range: Range<u64>) -> Vec<(Layer, Range<u64>)> {
        let (mut at, end) = (range.start, range.end.min(self.size));
        let mut layers = Vec::new();
        for gap in self.written.missing(at..end.max(at)) {
            layers.push((Layer::Here, at..gap.start));
            let cut = self.base_len.clamp(gap.start, gap.end);
            layers.push((Layer::Base, gap.start..cut));
            layers.push((Layer::Zeros, cut..gap.end));
            at = gap.end;
        }
        layers.push((Layer::Here, at..end));
        layers.retain(|(_, part)| !part.is_empty());
        layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut overlay = Overlay::new(100, 100, RangeSet::from(50..60));
        overlay.resize(55);
        overlay.resize(80);
        overlay.write(90..95);
        let layers = [(Layer::Base, 0..50), (Layer::Here, 50..55), (Layer::Zeros, 55..90), (Layer::Here, 90..95)];
        assert_eq!(overlay.layers(0..1000), layers);
        assert_eq!((overlay.size(), overlay.base_len()), (95, 55));
        assert_eq!((overlay.uncovered(), overlay.holes()), (vec![0..50; 1], vec![55..90; 1]));
    }

    #[test]
    fn rows_that_say_too_much_are_cut_to_the_size() {
        let overlay = Overlay::new(10, 20, RangeSet::from(5..30));
        assert_eq!((overlay.base_len(), overlay.written().end()), (10, 10));
    }

    #[test]
    fn nothing_lies_beyond_the_end() {
        let overlay = Overlay::new(10, 10, RangeSet::new());
        assert!(overlay.layers(10..20).is_empty() && overlay.layers(30..40).is_empty());
        assert_eq!(overlay.layers(9..u64::MAX), [(Layer::Base, 9..10)]);
    }
}
