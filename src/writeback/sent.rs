//! What was sent and perhaps has landed: a request that timed out is told from somebody else's by what it left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use md5::{Digest, Md5};

use super::headers;
use crate::store::{ObjectMeta, Part};
use crate::types::{ETag, Key};

/// Writes without an answer remembered of one inode.
pub(super) const REMEMBERED: usize = 8;

/// A write as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Where to.
    pub(super) key: Key,
    /// Length of the object in bytes.
    pub(super) size: u64,
    /// The tag it has if tags are digests; `None` where even then it cannot be told.
    pub(super) etag: Option<ETag>,
    /// Its user metadata.
    pub(super) user: BTreeMap<String, String>,
    /// Whether it had the bytes, and not the attributes or the place alone.
    pub(super) content: bool,
}

impl Sent {
    /// Whether `meta` is what it left.
    pub(super) fn has_landed(&self, meta: &ObjectMeta, digests: &Digests) -> bool {
        if meta.size != self.size || !headers::are_of(&self.user, meta) {
            return false;
        }
        match &self.etag {
            Some(etag) => *etag == meta.etag || digests.are_no_tags(),
            None => true,
        }
    }
}

/// Whether this bucket's tags are MD5 digests: they are not where objects are encrypted with a key of KMS.
#[derive(Debug, Default)]
pub(super) struct Digests(AtomicU8);

const YES: u8 = 1;
const NO: u8 = 2;

impl Digests {
    /// Learns from the answer to a PUT.
    pub(super) fn learn(&self, digest: &ETag, told: &ETag) {
        self.0.store(if digest == told { YES } else { NO }, Ordering::Relaxed);
    }

    /// Whether tags are known to be something else.
    fn are_no_tags(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NO
    }
}

/// The tag of an object of these bytes.
pub(super) fn digest(bytes: &[u8]) -> ETag {
    ETag::new(&hex(&Md5::digest(bytes)))
}

/// The tag of an object of these parts, if theirs are digests.
pub(super) fn digest_of_parts(parts: &[Part]) -> Option<ETag> {
    let mut all = Md5::new();
    for part in parts {
        all.update(unhex(part.etag.as_str())?);
    }
    Some(ETag::new(&format!("{}-{}", hex(&all.finalize()), parts.len())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::Time;

    fn sent() -> Sent {
        let user = BTreeMap::from([("file-mtime".to_owned(), "5ns".to_owned())]);
        Sent { key: Key::new("k").unwrap(), size: 5, etag: Some(digest(b"hello")), user, content: true }
    }

    fn meta(etag: &str, size: u64) -> ObjectMeta {
        let user = Some(sent().user);
        ObjectMeta { etag: ETag::new(etag), size, last_modified: Time(0), user, content_type: None }
    }

    #[test]
    fn digests_are_those_of_s3() {
        assert_eq!(digest(b"hello").as_str(), "5d41402abc4b2a76b9719d911017c592");
        let part = |etag: &str| Part { number: 1, etag: ETag::new(etag), size: 5 };
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        assert_eq!(digest_of_parts(&[part(md5)]).unwrap().as_str(), "62109206880d38a4010a98e11243924a-1");
        assert_eq!(digest_of_parts(&[part("opaque")]), None);
    }

    #[test]
    fn only_what_was_sent_has_landed() {
        let digests = Digests::default();
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        assert!(sent().has_landed(&meta(md5, 5), &digests));
        assert!(!sent().has_landed(&meta(md5, 6), &digests));
        assert!(!sent().has_landed(&meta("other", 5), &digests), "tags may be digests here");
        digests.learn(&digest(b"x"), &ETag::new("opaque"));
        assert!(sent().has_landed(&meta("other", 5), &digests), "they are not");
        let unknown = ObjectMeta { user: None, ..meta(md5, 5) };
        assert!(!sent().has_landed(&unknown, &digests));
    }
}
