//! A hint: somebody says that something happened to a key. How it comes is `notify`'s, what it does `revalidate`'s.

use std::cmp::Ordering;

use super::{ETag, Key, Time};

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// S3's events, out of a queue.
    Sqs,
    /// S3's events, pushed.
    Webhook,
    /// Another server.
    Peer,
    /// A person, with `fasts3 invalidate`.
    Command,
}

impl Origin {
    /// One word for it, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Sqs => "sqs",
            Origin::Webhook => "webhook",
            Origin::Peer => "peers",
            Origin::Command => "command",
        }
    }
}

/// What is said to have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// There is a version of this tag and size (bytes), as far as they are told.
    Written {
        /// Its tag.
        etag: Option<ETag>,
        /// Its length in bytes.
        size: Option<u64>,
    },
    /// The object is gone.
    Removed,
    /// Something: its metadata, a restoration; or everything below, when the key is a prefix.
    Changed,
}

/// Something happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Its key, relative to the export; one that ends in `/` may be a marker, or with `Said::Changed` all below it.
    pub key: Key,
    /// What happened.
    pub said: Said,
    /// The place among the events of this key, where the source tells.
    pub sequencer: Option<Sequencer>,
    /// When it happened, by the source's clock.
    pub at: Option<Time>,
    /// Who says it.
    pub origin: Origin,
}

/// Orders the events of one key: hexadecimal digits, of which S3 leaves out leading zeros. Of different keys, or of a
/// put and a listing, it says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequencer(Box<str>);

/// Longer than any that S3 gives.
const MAX_DIGITS: usize = 64;

impl Sequencer {
    /// Takes the digits; `None` when they are none, or too many.
    pub fn new(digits: &str) -> Option<Sequencer> {
        let is_legal =
            (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_legal.then(|| Sequencer(digits.trim_start_matches('0').to_ascii_lowercase().into()))
    }
}

impl Ord for Sequencer {
    fn cmp(&self, other: &Sequencer) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Sequencer {
    fn partial_cmp(&self, other: &Sequencer) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sequencers_are_compared_as_numbers() {
        let new = |text| Sequencer::new(text).unwrap();
        assert!(new("0055AED6DCD90281E5") > new("55AED6DCD90281E4"));
        assert!(new("ff") < new("100"));
        assert_eq!(new("00Ff"), new("ff"));
        assert!(new("0") < new("1"));
        assert!(Sequencer::new("").is_none() && Sequencer::new("xyz").is_none());
        assert!(Sequencer::new(&"1".repeat(65)).is_none());
    }
}
