//! What was sent and perhaps has landed: our own writes are told from somebody else's by what they left.
//!
//! A request whose answer is lost, with the connection or in a crash, may have been done. Where the journal still says
//! what was sent, doing it again finds it done. Where the file has been changed, removed or renamed since, only a note
//! tells. So what is about to be sent is noted in the index before it leaves (`index::sent`), durably, and forgotten by the
//! transaction that settles it.
//! - One note is no flush of its own: the index commits all that are waiting in one. That is at most as many as settling
//!   takes, and less than a request to S3 does.
//! - A mark in the object's metadata would need no note, but says too little: it goes along when somebody copies
//!   the object or restores an older version of it, LIST does not tell it, and that the file was removed here since
//!   is known nowhere.
//! - A write is ours if it is at the key that was noted, with the size, the attributes (times in nanoseconds) and, where
//!   tags are digests, the tag noted. So what somebody wrote over it is theirs, and what they copied elsewhere, too.
//!   Before our own write somebody's same bytes are as good as ours; before our DELETE they are not: a store
//!   that does not keep metadata brings such a file back.
//! - Whether tags are digests (with KMS they are not) shows at the first PUT; until then, by reading the object in
//!   question.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::StreamExt;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::trouble::Trouble;
use super::{Asked, Writeback, headers};
use crate::index::Task;
use crate::store::{GetIf, Got, ObjectMeta, Part};
use crate::types::{ETag, Ino, Key};

/// Writes noted of one key: beyond that it is looked which of them has landed.
const REMEMBERED: usize = 8;

/// A write as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Length of the object in bytes.
    size: u64,
    /// The tag it has if tags are digests; `None` where even then it cannot be told.
    etag: Option<String>,
    /// What its user metadata says of the file.
    user: BTreeMap<String, String>,
}

impl Sent {
    pub(super) fn new(size: u64, etag: Option<&ETag>, user: &BTreeMap<String, String>) -> Sent {
        Sent { size, etag: etag.map(|etag| etag.as_str().to_owned()), user: headers::of_file(user) }
    }

    /// Whether `meta` is what it left.
    fn has_landed(&self, meta: &ObjectMeta, digests: &Digests) -> bool {
        self.fits(meta) && (self.has_tag_of(meta) || self.etag.is_none() || digests.are(NO))
    }

    /// Whether `meta` has the bytes that were sent, whoever sent them.
    pub(super) fn is_same(&self, meta: &ObjectMeta) -> bool {
        self.size == meta.size && self.has_tag_of(meta)
    }

    fn fits(&self, meta: &ObjectMeta) -> bool {
        self.size == meta.size && meta.user.as_ref().is_some_and(|user| headers::of_file(user) == self.user)
    }

    fn has_tag_of(&self, meta: &ObjectMeta) -> bool {
        self.etag.as_deref() == Some(meta.etag.as_str())
    }
}

impl Writeback {
    /// Notes durably what is about to be sent to the key that `ino` has by its path. False: the journal says something
    /// else by now. Whoever calls it holds the key.
    pub(super) async fn note_sent(&self, ino: Ino, key: &Key, sent: &Sent) -> Result<bool, Trouble> {
        let Some(notes) = self.notes_with(key, sent).await? else { return Ok(true) };
        Ok(self.rooms.index.note_sent(ino, key.clone(), notes).await?)
    }

    /// The same of a key that is no inode's.
    pub(super) async fn note_sent_aside(&self, key: &Key, sent: &Sent) -> Result<(), Trouble> {
        let Some(notes) = self.notes_with(key, sent).await? else { return Ok(()) };
        Ok(self.rooms.index.note_sent_aside(key.clone(), notes).await?)
    }

    /// What is noted of `key`, with `sent`; `None` when that is among it.
    async fn notes_with(&self, key: &Key, sent: &Sent) -> Result<Option<Vec<u8>>, Trouble> {
        let mut notes = self.sent_to(key)?;
        if notes.contains(sent) {
            return Ok(None);
        }
        if notes.len() >= REMEMBERED {
            let (meta, _) = self.look(key).await?;
            let landed = match meta {
                Some(meta) => self.landed(key, &meta, &notes).await?.cloned(),
                None => None,
            };
            notes = landed.into_iter().collect();
        }
        notes.push(sent.clone());
        Ok(Some(serde_json::to_vec(&notes).map_err(std::io::Error::other)?))
    }

    fn sent_to(&self, key: &Key) -> Result<Vec<Sent>, Trouble> {
        let notes = self.rooms.index.sent(key)?;
        Ok(notes.and_then(|notes| serde_json::from_slice(&notes).ok()).unwrap_or_default())
    }

    /// Whether what S3 has at `key` was sent from here, and never settled.
    pub(super) async fn is_ours(&self, key: &Key, meta: &ObjectMeta) -> Result<bool, Trouble> {
        let notes = self.sent_to(key)?;
        Ok(self.landed(key, meta, &notes).await?.is_some())
    }

    /// Whether `sent` has left what S3 has at `key`.
    pub(super) async fn has_landed(&self, key: &Key, meta: &ObjectMeta, sent: &Sent) -> Result<bool, Trouble> {
        Ok(self.landed(key, meta, std::slice::from_ref(sent)).await?.is_some())
    }

    /// Which of `sent` has left what S3 has at `key`.
    async fn landed<'s>(&self, key: &Key, meta: &ObjectMeta, sent: &'s [Sent]) -> Result<Option<&'s Sent>, Trouble> {
        let landed = || sent.iter().find(|sent| sent.has_landed(meta, &self.digests));
        if landed().is_none() && sent.iter().any(|sent| sent.fits(meta)) {
            self.learn(key, meta).await?;
        }
        Ok(landed())
    }

    /// Finds out by an object whether tags are digests, unless that is known, or the object is a long one.
    async fn learn(&self, key: &Key, meta: &ObjectMeta) -> Result<(), Trouble> {
        let is_of_parts = meta.etag.as_str().contains('-');
        if !self.digests.are_unknown() || is_of_parts || meta.size > self.settings.multipart_threshold {
            return Ok(());
        }
        let get = self.rooms.store.get(key, None, GetIf::Match(meta.etag.clone()));
        let Asked { answer, .. } = self.ask(get).await;
        let Got::Body { mut body, .. } = answer? else { return Ok(()) };
        let mut md5 = Md5::new();
        while let Some(bytes) = body.next().await {
            md5.update(bytes?);
        }
        self.digests.learn(&ETag::new(&hex(&md5.finalize())), &meta.etag);
        Ok(())
    }

    /// Takes the version that S3 has for the one that `task` has been made of, if it is of an earlier request from here.
    pub(super) async fn take_up(
        &self,
        task: &Task,
        key: &Key,
        meta: &ObjectMeta,
        at: super::Stamps,
    ) -> Result<bool, Trouble> {
        let is_ours = self.is_ours(key, meta).await?;
        if is_ours {
            self.adopt(task, key, meta, false, at).await?;
        }
        Ok(is_ours)
    }
}

/// Whether this bucket's tags are MD5 digests: they are not where objects are encrypted with a key of KMS.
#[derive(Debug, Default)]
pub(super) struct Digests(AtomicU8);

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

impl Digests {
    /// Learns from the answer to a PUT.
    pub(super) fn learn(&self, digest: &ETag, told: &ETag) {
        self.0.store(if digest == told { YES } else { NO }, Ordering::Relaxed);
    }

    /// Whether nothing was learned yet.
    pub(super) fn are_unknown(&self) -> bool {
        self.are(UNKNOWN)
    }

    fn are(&self, known: u8) -> bool {
        self.0.load(Ordering::Relaxed) == known
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
        Sent::new(5, Some(&digest(b"hello")), &user)
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
