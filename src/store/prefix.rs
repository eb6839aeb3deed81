//! The mounted prefix: the one place where keys of the export become keys of the bucket, and back.
//! Invariant: `strip(full(key))` is `key`.

use std::sync::atomic::{AtomicBool, Ordering};

use super::conditions::PROBE_PREFIX;
use crate::types::Key;
use crate::types::key::MAX_KEY_BYTES;

/// The mounted prefix: empty, or ending in `/`.
#[derive(Debug)]
pub(super) struct Prefix {
    prefix: String,
    /// Whether a key that cannot be shown was told of already: one line is enough.
    has_warned: AtomicBool,
}

impl Prefix {
    pub(super) fn new(prefix: &str) -> Prefix {
        Prefix { prefix: prefix.to_owned(), has_warned: AtomicBool::new(false) }
    }

    /// The key in the bucket of an object. `None`: no object can have it (empty, or over 1,024 bytes).
    pub(super) fn full(&self, key: &Key) -> Option<String> {
        let full = self.text(key);
        (1..=MAX_KEY_BYTES).contains(&full.len()).then_some(full)
    }

    /// As `full`, of a text that need not be the key of an object: a prefix, or a place to start after.
    pub(super) fn text(&self, relative: &str) -> String {
        [self.prefix.as_str(), relative].concat()
    }

    /// The key in the export of a key that S3 listed, percent-encoded as `encoding-type=url` has it.
    /// `None`, and one warning, when we cannot tell it: not UTF-8, or longer than S3 allows. `None` also of what a server
    /// like this one only probes the store with.
    pub(super) fn strip_encoded(&self, listed: &str) -> Option<Key> {
        let key = decode(listed).and_then(|full| Key::new(full.strip_prefix(&self.prefix)?));
        if key.as_ref().is_some_and(|key| key.starts_with(PROBE_PREFIX)) {
            return None;
        }
        if key.is_none() && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(key = listed, "keys that are not UTF-8 or over 1,024 bytes are not shown");
        }
        key
    }
}

/// Undoes the encoding of a form, which is what S3 does to keys: `%XX`, and `+` for a space.
pub(crate) fn decode(listed: &str) -> Option<String> {
    if !listed.contains(['%', '+']) {
        return Some(listed.to_owned());
    }
    let mut decoded = Vec::with_capacity(listed.len());
    let mut rest = listed.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                let [high, low, tail @ ..] = rest else { return None };
                let digit = |hex: u8| char::from(hex).to_digit(16);
                decoded.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
                rest = tail;
            }
            other => decoded.push(*other),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn strip_undoes_full() {
        let prefix = Prefix::new("a b/");
        let key = Key::new("c").unwrap();
        assert_eq!(prefix.full(&key).unwrap(), "a b/c");
        assert_eq!(prefix.strip_encoded("a+b/c").unwrap(), key);
        assert_eq!(prefix.strip_encoded("a%20b%2Fc%2B%C3%BC").unwrap().as_str(), "c+ü");
    }

    #[test]
    fn keys_no_object_can_have_are_refused() {
        assert_eq!(Prefix::new("").full(&Key::root()), None);
        let longest = Key::new(&"k".repeat(MAX_KEY_BYTES)).unwrap();
        assert!(Prefix::new("").full(&longest).is_some());
        assert_eq!(Prefix::new("p/").full(&longest), None);
    }

    #[test]
    fn listed_keys_that_cannot_be_told_are_skipped() {
        let prefix = Prefix::new("");
        for bad in ["%FF", "%", "%4", "%zz", "%+1", &"k".repeat(MAX_KEY_BYTES + 1)] {
            assert_eq!(prefix.strip_encoded(bad), None, "{bad}");
        }
        assert_eq!(Prefix::new("p/").strip_encoded("q/x"), None);
    }

    #[test]
    fn probes_are_nobodys_files() {
        let probe = format!("p/{PROBE_PREFIX}7");
        assert_eq!(Prefix::new("p/").strip_encoded(&probe), None);
        assert!(Prefix::new("").strip_encoded(&probe).is_some(), "a file below p/");
    }
}
