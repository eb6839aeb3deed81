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
    use super::*;

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
