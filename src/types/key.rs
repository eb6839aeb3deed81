//! S3 keys, relative to the root of the export.
//! Invariant: valid UTF-8 of at most 1,024 bytes (the S3 limit), counted without the mounted prefix.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Longest key S3 takes, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// Key of an object, relative to the root of the export (the bucket, or the mounted prefix).
///
/// A directory's key is its prefix, which ends in `/`; the root's is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The prefix of the root directory: empty.
    pub fn root() -> Key {
        Key("".into())
    }

    /// Takes a key; `None` when it is longer than S3 allows.
    pub fn new(key: &str) -> Option<Key> {
        (key.len() <= MAX_KEY_BYTES).then(|| Key(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the key of a directory marker, or the root.
    pub fn is_prefix(&self) -> bool {
        self.0.is_empty() || self.0.ends_with('/')
    }

    /// A key just before this one, so that a listing after it begins with this one: hardly any lie between.
    /// `None`: nothing can be before it.
    pub fn just_before(&self) -> Option<Key> {
        let mut text = self.to_string();
        let last = text.pop()?;
        let smaller = (0..u32::from(last)).rev().find_map(char::from_u32);
        let Some(smaller) = smaller else { return Key::new(&text) };
        text.push(smaller);
        Key::new(&format!("{text}{}", char::MAX)).or_else(|| Key::new(&text))
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn key_just_before_is_smaller_and_nothing_likely_is_between(key in "\\PC{1,40}", other in "\\PC{1,40}") {
            let key = Key::new(&key).unwrap();
            let other = Key::new(&other).unwrap();
            let start = key.just_before().unwrap();
            prop_assert!(start < key);
            prop_assert!(other <= start || other >= key || other.starts_with(&*start));
        }
    }

    #[test]
    fn key_just_before_the_smallest_and_odd_characters() {
        assert_eq!(Key::new("a\0").unwrap().just_before().unwrap().as_str(), "a");
        assert!(Key::new("a\u{E000}").unwrap().just_before().unwrap().starts_with("a\u{D7FF}"));
        assert!(Key::root().just_before().is_none());
        let longest = "x".repeat(1024);
        assert!(Key::new(&longest).unwrap().just_before().unwrap().as_str() < longest.as_str());
    }

    #[test]
    fn key_has_at_most_1024_bytes() {
        assert!(Key::new(&"x".repeat(1024)).is_some());
        assert!(Key::new(&"é".repeat(513)).is_none());
    }

    #[test]
    fn prefixes_end_in_a_slash() {
        let is_prefix = |text| Key::new(text).is_some_and(|key| key.is_prefix());
        assert!(Key::root().is_prefix() && is_prefix("") && is_prefix("a/") && is_prefix("/"));
        assert!(!is_prefix("a") && !is_prefix("/a"));
    }
}
