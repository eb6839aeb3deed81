//! The S3 side: one trait over keys relative to the export, one implementation on aws-sdk-s3, and
//! decorators for limits and counting around it.
//! Owns: nothing local. Knows no inode and no file; everything above speaks `Key`, `ETag`, `Time`.
//! Invariant: every request to S3 passes `Limited` (number, rate) and is counted by kind.

mod answer;
mod connect;
mod counters;
mod error;
mod limits;
mod prefix;
mod s3;

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::connect::{Connected, Connecting, StartError, Timing, connect, connect_with};
pub use self::counters::{Counters, RequestCounts};
pub use self::limits::limited;
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
    /// 412: `If-Match` did not hold.
    #[error("{key}: changed in S3 meanwhile")]
    PreconditionFailed {
        /// The key asked for.
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
