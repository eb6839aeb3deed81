//! Which keys of which bucket concern this server, and what they are called here.
//! Invariant: what `Scope::key` gives is a key that the store would ask for by the name that S3 told.

use crate::types::Key;

/// The part of S3 that is served: a bucket, or what is below a prefix of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    bucket: String,
    prefix: String,
}

impl Scope {
    /// `prefix` is empty, or ends in `/`.
    pub fn new(bucket: &str, prefix: &str) -> Scope {
        Scope { bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    }

    /// The key here of `raw`, which is whole and not encoded; `None` of other buckets and prefixes, and of keys longer
    /// than S3 allows.
    pub fn key(&self, bucket: &str, raw: &str) -> Option<Key> {
        if bucket != self.bucket {
            return None;
        }
        Key::new(raw.strip_prefix(&self.prefix)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_of_other_buckets_and_prefixes_are_left_out() {
        let scope = Scope::new("media", "a/");
        let key = |bucket, raw| scope.key(bucket, raw).map(|key| key.to_string());
        assert_eq!(key("media", "a/b c").as_deref(), Some("b c"));
        assert_eq!(key("media", "a/").as_deref(), Some(""));
        assert_eq!(key("media", "a"), None);
        assert_eq!(key("media", "ab/c"), None);
        assert_eq!(key("media2", "a/b"), None);
        assert_eq!(Scope::new("media", "").key("media", "a").unwrap().as_str(), "a");
        assert_eq!(key("media", &format!("a/{}", "x".repeat(1025))), None);
    }
}
