//! Buckets, versions and multipart uploads, and the rules of conditional writes.
//! Owns: the one lock under which a condition is checked and its write applied, so that of two racing
//! conditional writes exactly one wins.
//! Invariant: Last-Modified times are distinct and grow with every write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::blob::Blob;
use super::bucket::md5_etag;
use super::disk::Disk;
use super::request::Kind;
use crate::types::{Clock, ETag, Time};

/// Keys of a bucket, in UTF-8 order.
pub(super) type Keys = BTreeMap<Arc<str>, Arc<Version>>;

/// Last-Modified is told in milliseconds by LIST.
const MILLISECOND_NS: i64 = 1_000_000;

/// What a writer says of an object besides its bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) expires: Option<String>,
    pub(super) website_redirect: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) acl: Option<String>,
    pub(super) sse: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) tagging: Option<String>,
    pub(super) user: BTreeMap<String, String>,
}

impl Described {
    /// As a copy has it that keeps metadata: S3 copies no place (class, encryption, ACL) and no redirect.
    pub(super) fn moved(&self, place: Described) -> Described {
        Described {
            website_redirect: place.website_redirect,
            storage_class: place.storage_class,
            acl: place.acl,
            sse: place.sse,
            kms_key: place.kms_key,
            ..self.clone()
        }
    }

    /// What there is beside Content-Type and user metadata, by the names of a request's headers.
    pub(super) fn headers(&self) -> BTreeMap<&'static str, String> {
        let named = [
            ("cache-control", &self.cache_control),
            ("content-disposition", &self.content_disposition),
            ("content-encoding", &self.content_encoding),
            ("content-language", &self.content_language),
            ("expires", &self.expires),
            ("x-amz-website-redirect-location", &self.website_redirect),
            ("x-amz-storage-class", &self.storage_class),
            ("x-amz-acl", &self.acl),
            ("x-amz-server-side-encryption", &self.sse),
            ("x-amz-server-side-encryption-aws-kms-key-id", &self.kms_key),
            ("x-amz-tagging", &self.tagging),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// One version of an object.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) etag: ETag,
    pub(super) modified: Time,
    pub(super) described: Described,
    pub(super) blob: Blob,
}

/// Something to be written.
pub(super) struct Draft {
    pub(super) etag: ETag,
    pub(super) described: Described,
    pub(super) blob: Blob,
}

/// Condition on a write, seen against what the key has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum WriteIf {
    #[default]
    Always,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match: <etag>`
    Match(ETag),
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no such bucket")]
    NoSuchBucket,
    #[error("no such key")]
    NoSuchKey,
    #[error("no such upload")]
    NoSuchUpload,
    #[error("precondition failed")]
    PreconditionFailed,
    #[error("bucket exists")]
    BucketExists,
    #[error("invalid part")]
    InvalidPart,
    #[error("parts out of order")]
    InvalidPartOrder,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl WriteIf {
    fn check(&self, now: Option<&Arc<Version>>) -> Result<(), Refusal> {
        match (self, now) {
            (WriteIf::Always, _) | (WriteIf::Absent, None) | (WriteIf::Present, Some(_)) => Ok(()),
            (WriteIf::Match(etag), Some(version)) if *etag == version.etag => Ok(()),
            (WriteIf::Match(_), Some(_)) | (WriteIf::Absent, Some(_)) => Err(Refusal::PreconditionFailed),
            (WriteIf::Match(_) | WriteIf::Present, None) => Err(Refusal::NoSuchKey),
        }
    }
}

/// A multipart upload under way. Parts live in memory and do not survive a restart.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) described: Described,
    pub(super) started: Time,
    pub(super) parts: BTreeMap<i32, Part>,
}

/// One uploaded part.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) etag: ETag,
    pub(super) blob: Blob,
    pub(super) modified: Time,
}

/// Everything the server holds.
pub(super) struct Data {
    inner: RwLock<Inner>,
    disk: Option<Disk>,
    clock: Clock,
}

#[derive(Default)]
struct Inner {
    buckets: BTreeMap<String, Keys>,
    uploads: BTreeMap<String, Upload>,
    last_upload: u64,
    last_modified: Time,
    /// What LIST answers from while it is stale.
    frozen: Option<BTreeMap<String, Keys>>,
    has_opaque_tags: bool,
    /// Requests whose conditions are not minded.
    careless: BTreeSet<Kind>,
    /// Who sees every change in the moment it is made.
    witness: Option<Witness>,
}

type Witness = Box<dyn Fn(Change<'_>) + Send + Sync>;

/// What a key has from now on.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Where the key is.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// Tag and size (bytes) of its new version; `None`: it has none any more.
    pub version: Option<(&'a ETag, u64)>,
}

impl Inner {
    fn tick(&mut self, clock: &Clock) -> Time {
        let now = Time(clock.wall().0 / MILLISECOND_NS * MILLISECOND_NS);
        self.last_modified = now.max(Time(self.last_modified.0 + MILLISECOND_NS));
        self.last_modified
    }

    fn tell(&self, change: Change<'_>) {
        if let Some(witness) = &self.witness {
            witness(change);
        }
    }

    fn bucket(&self, name: &str) -> Result<&Keys, Refusal> {
        self.buckets.get(name).ok_or(Refusal::NoSuchBucket)
    }

    fn upload(&mut self, id: &str) -> Result<&mut Upload, Refusal> {
        self.uploads.get_mut(id).ok_or(Refusal::NoSuchUpload)
    }
}

impl Data {
    /// Opens what `disk` has, or starts empty in memory.
    pub(super) fn open(disk: Option<Disk>, clock: Clock) -> io::Result<Data> {
        let mut inner = Inner::default();
        if let Some(disk) = &disk {
            inner.buckets = disk.load()?;
            let times = inner.buckets.values().flat_map(|keys| keys.values().map(|v| v.modified));
            inner.last_modified = times.max().unwrap_or_default();
        }
        Ok(Data { inner: RwLock::new(inner), disk, clock })
    }

    pub(super) fn create_bucket(&self, name: &str) -> Result<(), Refusal> {
        let mut inner = self.inner.write();
        if inner.buckets.contains_key(name) {
            return Err(Refusal::BucketExists);
        }
        if let Some(disk) = &self.disk {
            disk.create_bucket(name)?;
        }
        inner.buckets.insert(name.to_owned(), Keys::new());
        Ok(())
    }

    pub(super) fn buckets(&self) -> Vec<String> {
        self.inner.read().buckets.keys().cloned().collect()
    }

    /// Runs `f` on the keys of a bucket, under the lock.
    pub(super) fn with_keys<R>(&self, bucket: &str, f: impl FnOnce(&Keys) -> R) -> Result<R, Refusal> {
        Ok(f(self.inner.read().bucket(bucket)?))
    }

    /// As `with_keys`, but from the snapshot while LIST is stale.
    pub(super) fn with_listing<R>(&self, bucket: &str, f: impl FnOnce(&Keys) -> R) -> Result<R, Refusal> {
        let inner = self.inner.read();
        let keys = match &inner.frozen {
            Some(frozen) => frozen.get(bucket).ok_or(Refusal::NoSuchBucket)?,
            None => inner.bucket(bucket)?,
        };
        Ok(f(keys))
    }

    /// Makes LIST answer from what is there now, until thawed.
    pub(super) fn freeze_listings(&self, frozen: bool) {
        let mut inner = self.inner.write();
        inner.frozen = frozen.then(|| inner.buckets.clone());
    }

    /// From now on, conditions are minded on all requests but those of `kinds`.
    pub(super) fn ignore_conditions(&self, kinds: &[Kind]) {
        self.inner.write().careless = kinds.iter().copied().collect();
    }

    /// Has `witness` see every change from now on, under the lock: no request sees what it has not seen.
    pub(super) fn set_witness(&self, witness: impl Fn(Change<'_>) + Send + Sync + 'static) {
        self.inner.write().witness = Some(Box::new(witness));
    }

    /// Whether tags tell nothing of the bytes from now on.
    pub(super) fn set_opaque_tags(&self, opaque: bool) {
        self.inner.write().has_opaque_tags = opaque;
    }

    /// Whether conditions on requests of `kind` are minded.
    pub(super) fn minds(&self, kind: Kind) -> bool {
        !self.inner.read().careless.contains(&kind)
    }

    /// Replaces the tags of an object, which leaves its tag and its time as they are.
    pub(super) fn retag(&self, bucket: &str, key: &str, tagging: Option<String>) -> Result<(), Refusal> {
        let mut inner = self.inner.write();
        let now = inner.bucket(bucket)?.get(key).cloned().ok_or(Refusal::NoSuchKey)?;
        let described = Described { tagging, ..now.described.clone() };
        let version = Version { etag: now.etag.clone(), modified: now.modified, described, blob: now.blob.clone() };
        if let Some(disk) = &self.disk {
            disk.write_row(bucket, key, &version)?;
        }
        let keys = inner.buckets.get_mut(bucket).ok_or(Refusal::NoSuchBucket)?;
        keys.insert(key.into(), Arc::new(version));
        Ok(())
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Version>, Refusal> {
        self.inner.read().bucket(bucket)?.get(key).cloned().ok_or(Refusal::NoSuchKey)
    }

    /// Writes `draft` to `key` if `condition` holds.
    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        draft: Draft,
        condition: &WriteIf,
    ) -> Result<Arc<Version>, Refusal> {
        // Bytes go to disk before the lock is taken: only the rename of the row is under it.
        let blob = match &self.disk {
            Some(disk) => disk.store(&draft.blob)?,
            None => draft.blob,
        };
        let mut inner = self.inner.write();
        let checked = inner.bucket(bucket).and_then(|keys| condition.check(keys.get(key)));
        if let Err(refusal) = checked {
            Disk::forget(&blob);
            return Err(refusal);
        }
        let modified = inner.tick(&self.clock);
        let etag = match inner.has_opaque_tags {
            true => md5_etag(&[format!("{} {}", draft.etag, modified.0).into()]),
            false => draft.etag,
        };
        let version = Arc::new(Version { etag, modified, described: draft.described, blob });
        if let Some(disk) = &self.disk {
            disk.write_row(bucket, key, &version)?;
        }
        let keys = inner.buckets.get_mut(bucket).ok_or(Refusal::NoSuchBucket)?;
        if let Some(old) = keys.insert(key.into(), version.clone()) {
            self.discard(bucket, &old);
        }
        inner.tell(Change { bucket, key, version: Some((&version.etag, version.blob.len())) });
        Ok(version)
    }

    /// Deletes `key` if `condition` holds; whether it was there.
    pub(super) fn delete(&self, bucket: &str, key: &str, condition: &WriteIf) -> Result<bool, Refusal> {
        let mut inner = self.inner.write();
        condition.check(inner.bucket(bucket)?.get(key))?;
        let keys = inner.buckets.get_mut(bucket).ok_or(Refusal::NoSuchBucket)?;
        let Some(old) = keys.remove(key) else { return Ok(false) };
        self.discard(bucket, &old);
        inner.tell(Change { bucket, key, version: None });
        Ok(true)
    }

    fn discard(&self, bucket: &str, old: &Version) {
        if let Some(disk) = &self.disk {
            disk.remove_row(bucket, old);
        }
    }

    pub(super) fn create_upload(&self, bucket: &str, key: &str, described: Described) -> Result<String, Refusal> {
        let mut inner = self.inner.write();
        inner.bucket(bucket)?;
        inner.last_upload += 1;
        let id = format!("upload-{:08}", inner.last_upload);
        let started = self.clock.wall();
        let upload = Upload { bucket: bucket.into(), key: key.into(), described, started, parts: BTreeMap::new() };
        inner.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    pub(super) fn put_part(&self, id: &str, number: i32, etag: ETag, blob: Blob) -> Result<Time, Refusal> {
        let mut inner = self.inner.write();
        let modified = self.clock.wall();
        inner.upload(id)?.parts.insert(number, Part { etag, blob, modified });
        Ok(modified)
    }

    pub(super) fn upload(&self, id: &str) -> Result<Upload, Refusal> {
        self.inner.read().uploads.get(id).cloned().ok_or(Refusal::NoSuchUpload)
    }

    pub(super) fn uploads(&self, bucket: &str, prefix: &str) -> Vec<(String, Upload)> {
        let inner = self.inner.read();
        let of_bucket = inner.uploads.iter().filter(|(_, u)| u.bucket == bucket && u.key.starts_with(prefix));
        let mut uploads: Vec<_> = of_bucket.map(|(id, u)| (id.clone(), u.clone())).collect();
        uploads.sort_by(|(a_id, a), (b_id, b)| (&a.key, a_id).cmp(&(&b.key, b_id)));
        uploads
    }

    pub(super) fn abort_upload(&self, id: &str) -> Result<(), Refusal> {
        self.inner.write().uploads.remove(id).map(drop).ok_or(Refusal::NoSuchUpload)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    fn draft(text: &'static str) -> Draft {
        let bytes = Bytes::from_static(text.as_bytes());
        Draft { etag: ETag::new(text), described: Described::default(), blob: bytes.into() }
    }

    fn data() -> Data {
        let data = Data::open(None, Clock::manual()).unwrap();
        data.create_bucket("b").unwrap();
        data
    }

    #[test]
    fn conditional_put_is_refused_when_the_condition_fails() {
        let data = data();
        let put = |text, condition| data.put("b", "k", draft(text), &condition);
        assert!(matches!(put("1", WriteIf::Match(ETag::new("0"))), Err(Refusal::NoSuchKey)));
        assert!(put("1", WriteIf::Absent).is_ok());
        assert!(matches!(put("2", WriteIf::Absent), Err(Refusal::PreconditionFailed)));
        assert!(matches!(put("2", WriteIf::Match(ETag::new("0"))), Err(Refusal::PreconditionFailed)));
        assert!(put("2", WriteIf::Match(ETag::new("1"))).is_ok());
        assert_eq!(data.get("b", "k").unwrap().etag, ETag::new("2"));
    }

    #[test]
    fn exactly_one_of_many_racing_creates_wins() {
        let data = data();
        let wins: usize = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| data.put("b", "k", draft("x"), &WriteIf::Absent).is_ok())).collect();
            racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }

    #[test]
    fn last_modified_grows_though_the_clock_stands_still() {
        let data = data();
        let times: Vec<_> =
            (0..3).map(|_| data.put("b", "k", draft("x"), &WriteIf::Always).unwrap().modified).collect();
        assert!(times[0] < times[1] && times[1] < times[2]);
    }
}
