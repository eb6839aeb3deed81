//! What every key was and when, and what every answer showed of it.
//! A version has a number, which is in its size and in all its bytes: whichever an answer shows, it tells the number.
//! Times are since the start of a run.

use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of which the number of their version can be read: one word and what may be cut off of another.
pub const READABLE: usize = 8;

/// One version of a key; a removal is one, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Version {
    pub is_removal: bool,
    /// When it was in S3.
    pub in_s3: Option<Duration>,
    /// How it was written through NFS; `None`: it was not.
    pub written: Option<Written>,
}

/// A WRITE of a whole version.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub server: usize,
    /// When it was sent: from then on it may be seen there.
    pub begun: Duration,
    /// When it was answered: until then parts of it may.
    pub ended: Option<Duration>,
}

/// All versions of all keys, by their numbers, which grow.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<BTreeMap<u64, Version>>);

impl History {
    pub fn of_keys(count: usize) -> History {
        History(vec![BTreeMap::new(); count])
    }

    pub fn versions(&self, key: usize) -> &BTreeMap<u64, Version> {
        &self.0[key]
    }

    /// The number for the next version of `key`.
    pub fn next(&self, key: usize) -> u64 {
        self.0[key].last_key_value().map_or(1, |(number, _)| number + 1)
    }

    pub fn version(&mut self, key: usize, number: u64) -> &mut Version {
        self.0[key].entry(number).or_default()
    }
}

/// By which call somebody learned something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Lookup,
    Getattr,
    Read,
    /// An entry of READDIRPLUS.
    List,
}

impl How {
    /// Whether a client makes it to open a file, and not with one that is open.
    pub fn is_open(self) -> bool {
        matches!(self, How::Lookup | How::Getattr)
    }
}

/// What an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Number(u64),
    /// There is no such name.
    Nothing,
    /// Bytes or attributes of more than one version.
    Torn,
}

/// One life of a server, from a start to a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub server: usize,
    pub number: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub life: Life,
    pub key: usize,
    pub how: How,
    pub begun: Duration,
    pub ended: Duration,
    pub shown: Shown,
}

/// There was a moment between these at which a server asked S3 nothing, and was not about to.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    pub life: Life,
    pub begun: Duration,
    pub ended: Duration,
}

/// A hint of this version was taken.
#[derive(Clone, Copy, Debug)]
pub struct Hinted {
    pub life: Life,
    pub key: usize,
    pub number: u64,
    pub ended: Duration,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub answers: Vec<Answer>,
    pub quiets: Vec<Quiet>,
    pub hints: Vec<Hinted>,
}

/// Sizes of version 0 of the keys, in turn: S3 is asked about the last one by HEAD, and about the others by GET.
const SIZES: [u64; 3] = [1_000, 100_000, 700_000];

/// Size in bytes of version 0 of `key`: versions grow, so that one WRITE makes any of them of an older one.
pub fn base(key: usize, is_small: bool) -> u64 {
    if is_small { SIZES[0] } else { SIZES[key % SIZES.len()] }
}

/// The bytes of version `number` of a key of this base.
pub fn body(base: u64, number: u64) -> Vec<u8> {
    let word = u32::try_from(number).unwrap().to_le_bytes();
    word.iter().copied().cycle().take((base + 4 * number) as usize).collect()
}

/// Which version is as long as this.
pub fn of_size(base: u64, size: u64) -> Shown {
    match size.checked_sub(base) {
        Some(more) if more % 4 == 0 => Shown::Number(more / 4),
        _ => Shown::Torn,
    }
}

/// Which version these bytes at `offset` are of.
pub fn of_bytes(offset: u64, bytes: &[u8]) -> Shown {
    assert!(bytes.len() >= READABLE, "too few to tell");
    let mut word = [0; 4];
    for (i, byte) in bytes.iter().take(4).enumerate() {
        word[(offset as usize + i) % 4] = *byte;
    }
    let is_whole = bytes.iter().enumerate().all(|(i, byte)| *byte == word[(offset as usize + i) % 4]);
    if is_whole { Shown::Number(u64::from(u32::from_le_bytes(word))) } else { Shown::Torn }
}

#[test]
fn any_part_of_a_version_tells_its_number() {
    let bytes = body(1_000, 0x0102_0304);
    for offset in 0..9 {
        assert_eq!(of_bytes(offset, &bytes[offset as usize..][..READABLE]), Shown::Number(0x0102_0304));
    }
    assert_eq!(of_size(1_000, bytes.len() as u64), Shown::Number(0x0102_0304));
    let mut torn = body(1_000, 7);
    torn[500..].copy_from_slice(&body(1_000, 8)[500..1_028]);
    assert_eq!(of_bytes(1, &torn[1..]), Shown::Torn);
    assert_eq!(of_size(1_000, 1_003), Shown::Torn);
}
