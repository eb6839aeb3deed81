//! The S3 side: one trait over keys relative to the export, one implementation on aws-sdk-s3, and
//! decorators for limits and counting around it; what requests cost, and what they may.
//! Owns: nothing local. Knows no inode and no file; everything above speaks `Key`, `ETag`, `Time`.
//! Invariant: every request to S3 passes `Limited` (number, rate) and is counted by kind.

pub mod announce;
mod answer;
mod asking;
pub mod budget;
pub mod carried;
pub mod conditions;
mod connect;
mod copy;
pub mod cost;
mod counters;
mod error;
mod headers;
mod limits;
mod outgoing;
mod prefix;
mod s3;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::announce::{Announce, Announced, announcing};
pub use self::budget::{Budget, BudgetState, Turn};
pub use self::carried::Carried;
pub use self::conditions::{Conditions, careful};
pub use self::connect::{Connected, Connecting, StartError, Timing, connect, connect_with};
pub use self::cost::{Dollars, RequestKind};
pub(crate) use self::counters::CountQueue;
pub use self::counters::{Counters, RequestCounts};
pub(crate) use self::error::Failure;
pub use self::limits::{limited, limited_writing};
pub(crate) use self::prefix::decode;
pub use self::s3::S3Store;
use crate::types::{ETag, Key, Time};

/// What S3 says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Entity tag of this version.
    pub etag: ETag,
    /// Length in bytes.
    pub size: u64,
    /// Last-Modified; whole seconds from HEAD and GET, often milliseconds from LIST.
    pub last_modified: Time,
    /// User metadata (`x-amz-meta-*`, names in lower case without that prefix); `None` from a LIST,
    /// which does not tell.
    pub user: Option<BTreeMap<String, String>>,
    /// Content-Type, where told.
    pub content_type: Option<String>,
}

/// Condition on a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetIf {
    /// Whatever is there.
    Any,
    /// Only this version (`If-Match`); else `Error::PreconditionFailed`.
    Match(ETag),
    /// Only another version (`If-None-Match`); else `Got::NotModified`.
    NoneMatch(ETag),
}

/// Condition on a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutIf {
    /// Whatever is there.
    Any,
    /// Only where no object is (`If-None-Match: *`); else `Error::PreconditionFailed`.
    Absent,
    /// Only over this version (`If-Match`); else `Error::PreconditionFailed`, where there is none `Error::NotFound`.
    Match(ETag),
}

/// What an object carries beside its bytes: all of it is kept on a rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Expires, as it came.
    pub expires: Option<String>,
    /// Redirect of a website bucket.
    pub website_redirect: Option<String>,
    /// Storage class; `None` = the one of the settings.
    pub storage_class: Option<String>,
    /// User metadata: names in lower case without `x-amz-meta-`.
    pub user: BTreeMap<String, String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// What a write left in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Tag of the new version.
    pub etag: ETag,
}

/// What `Store::copy` copies.
#[derive(Clone, Copy, Debug)]
pub struct CopySource<'a> {
    /// From where.
    pub key: &'a Key,
    /// Only this version (`x-amz-copy-source-if-match`); else `Error::SourceChanged`, also when it is gone.
    pub etag: &'a ETag,
    /// Its length in bytes: above 5 GB the store copies in parts.
    pub size: u64,
}

/// A multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where it goes.
    pub key: Key,
    /// S3's id of it.
    pub id: String,
}

/// A part of a multipart upload that S3 has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u16,
    /// Its tag.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
}

/// Answer of a GET.
pub enum Got {
    /// The body follows; `meta.size` is the length of the whole object even for a range.
    Body {
        /// What S3 says of the object.
        meta: ObjectMeta,
        /// The bytes of the range asked for, in order. An early end is an error item, never a short success.
        body: BoxStream<'static, Result<Bytes, Error>>,
    },
    /// `GetIf::NoneMatch` and it still has that tag.
    NotModified {
        /// Its Last-Modified, where told: a rewrite of the metadata alone keeps the tag and changes this.
        last_modified: Option<Time>,
    },
}

/// One page of a listing, in key order.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects, in UTF-8 order of their keys.
    pub objects: Vec<(Key, ObjectMeta)>,
    /// Common prefixes (each ends in the delimiter), in UTF-8 order.
    pub prefixes: Vec<Key>,
    /// Pass to the next call; `None` on the last page.
    pub next: Option<String>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Fold what follows a `/` after the prefix into `prefixes`.
    pub delimited: bool,
    /// Only keys after this one.
    pub start_after: Option<Key>,
    /// From the page before.
    pub continuation: Option<String>,
    /// At most so many keys and prefixes; S3 caps it at 1,000.
    pub max_keys: Option<u16>,
}

/// Why a request to S3 gave no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// 404: no such key.
    #[error("{key}: no such object")]
    NotFound {
        /// The key asked for.
        key: Key,
    },
    /// 412: `If-Match` or `If-None-Match` did not hold.
    #[error("{key}: changed in S3 meanwhile")]
    PreconditionFailed {
        /// The key asked for.
        key: Key,
    },
    /// The source of a copy is another version by now, or gone.
    #[error("{key}: changed in S3 before it was copied")]
    SourceChanged {
        /// The key of the source.
        key: Key,
    },
    /// The multipart upload is gone: completed, aborted, or swept.
    #[error("{key}: the multipart upload is gone")]
    NoSuchUpload {
        /// The key it was for.
        key: Key,
    },
    /// 403 on this request.
    #[error("{what}: access denied by S3 ({message})")]
    Denied {
        /// Request and key.
        what: String,
        /// What S3 said.
        message: String,
    },
    /// The bucket does not exist.
    #[error("bucket {bucket} does not exist")]
    NoSuchBucket {
        /// Its name.
        bucket: String,
    },
    /// Nobody answered, the answer broke off, or S3 kept saying 5xx or SlowDown through all retries.
    #[error("{what}: S3 is not reachable ({message})")]
    Unavailable {
        /// Request and key.
        what: String,
        /// What happened.
        message: String,
    },
    /// Anything else, for a person to read.
    #[error("{what}: {message}")]
    Other {
        /// Request and key.
        what: String,
        /// What S3 said.
        message: String,
    },
}

/// An object store that speaks S3. Cancel safe: dropping a future abandons the request.
///
/// Implementations retry what is worth retrying inside one call and give up with `Unavailable`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// HEAD. # Errors: `NotFound` when there is no such key.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error>;

    /// GET of the whole object, or of `range` (bytes, half open, not empty).
    /// # Errors: `NotFound`, `PreconditionFailed` (only with `GetIf::Match`).
    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error>;

    /// One page of ListObjectsV2.
    async fn list(&self, request: &ListRequest) -> Result<ListPage, Error>;
}

/// A store that can be written: what `writeback/` needs beside reading.
///
/// The same rules as for `Store`. A write that is dropped or that failed with `Unavailable` may have been done or not;
/// who must know asks with `head`.
#[async_trait]
pub trait WriteStore: Store {
    /// HEAD with all that a rewrite must keep, tags included (a second request where there are any).
    /// # Errors: `NotFound`.
    async fn describe(&self, key: &Key) -> Result<(ObjectMeta, Headers), Error>;

    /// PUT of a whole object. A 409 (two conditional writes at once) is retried inside.
    /// # Errors: `PreconditionFailed`, `NotFound` (only with `PutIf::Match`).
    async fn put(&self, key: &Key, body: Bytes, headers: &Headers, condition: PutIf) -> Result<Put, Error>;

    /// Copies an object inside S3, with `headers` in place of its own, or with its own for `None`. Onto itself it
    /// changes the headers alone.
    /// # Errors: `SourceChanged`, `PreconditionFailed` (the target's condition).
    async fn copy(
        &self,
        source: CopySource<'_>,
        to: &Key,
        headers: Option<&Headers>,
        condition: PutIf,
    ) -> Result<Put, Error>;

    /// DELETE, of this version only when `etag` is given. What is not there is as good as deleted.
    /// # Errors: `PreconditionFailed`.
    async fn delete(&self, key: &Key, etag: Option<&ETag>) -> Result<(), Error>;

    /// Begins a multipart upload.
    async fn begin_upload(&self, key: &Key, headers: &Headers) -> Result<Upload, Error>;

    /// Uploads part `number` (1 to 10,000). # Errors: `NoSuchUpload`.
    async fn put_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part, Error>;

    /// Makes part `number` of `range` (bytes, half open) of an object. # Errors: `SourceChanged`, `NoSuchUpload`.
    async fn copy_part(
        &self,
        upload: &Upload,
        number: u16,
        source: CopySource<'_>,
        range: Range<u64>,
    ) -> Result<Part, Error>;

    /// Makes the object of its parts, in order. # Errors: `PreconditionFailed`, `NotFound`, `NoSuchUpload`.
    async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: PutIf) -> Result<Put, Error>;

    /// Gives an upload up, and its parts. One that is gone is fine.
    async fn abort_upload(&self, upload: &Upload) -> Result<(), Error>;

    /// The parts of an upload that S3 has. # Errors: `NoSuchUpload`.
    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>, Error>;

    /// Uploads under way below the mounted prefix, with when they began; at most some thousands.
    async fn uploads(&self) -> Result<Vec<(Upload, Time)>, Error>;
}
