//! Tells of every write that S3 took, and of each of which nobody knows whether it did.
//! Invariant: what is announced is in S3 already, so whoever asks S3 because of it finds it there.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    CopySource, Error, GetIf, Got, Headers, ListPage, ListRequest, ObjectMeta, Part, Put, PutIf, Store, Upload,
    WriteStore,
};
use crate::types::{ETag, Key, Time};

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// S3 has this version.
    Written {
        /// Its key.
        key: Key,
        /// Its tag.
        etag: ETag,
        /// Its length in bytes.
        size: u64,
        /// Its bytes, where they were sent in one piece.
        bytes: Option<Bytes>,
    },
    /// S3 has none.
    Removed {
        /// Its key.
        key: Key,
    },
    /// A request was lost: S3 may have another version, or none, or what it had.
    Unsure {
        /// Its key.
        key: Key,
    },
}

/// Who is told what was written.
pub trait Announce: Send + Sync + 'static {
    /// Takes note. Waits for nothing.
    fn announce(&self, what: Announced);
}

/// `store`, whose writes are told to `to`.
pub fn announcing(store: Arc<dyn WriteStore>, to: Arc<dyn Announce>) -> Arc<dyn WriteStore> {
    Arc::new(Announcing { inner: store, to })
}

struct Announcing {
    inner: Arc<dyn WriteStore>,
    to: Arc<dyn Announce>,
}

impl Announcing {
    /// Tells what came of a write to `key`.
    fn tell<T>(&self, key: &Key, outcome: &Result<T, Error>, done: impl FnOnce(&T) -> Announced) {
        match outcome {
            Ok(answer) => self.to.announce(done(answer)),
            Err(Error::Unavailable { .. }) => self.to.announce(Announced::Unsure { key: key.clone() }),
            Err(_) => {}
        }
    }

    fn tell_put(&self, key: &Key, outcome: &Result<Put, Error>, size: u64, bytes: Option<Bytes>) {
        let written = |put: &Put| Announced::Written { key: key.clone(), etag: put.etag.clone(), size, bytes };
        self.tell(key, outcome, written);
    }
}

#[async_trait]
impl Store for Announcing {
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error> {
        self.inner.get(key, range, condition).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, Error> {
        self.inner.list(request).await
    }
}

#[async_trait]
impl WriteStore for Announcing {
    async fn describe(&self, key: &Key) -> Result<(ObjectMeta, Headers), Error> {
        self.inner.describe(key).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &Headers, condition: PutIf) -> Result<Put, Error> {
        let outcome = self.inner.put(key, body.clone(), headers, condition).await;
        self.tell_put(key, &outcome, body.len() as u64, Some(body));
        outcome
    }

    async fn copy(
        &self,
        source: CopySource<'_>,
        to: &Key,
        headers: Option<&Headers>,
        condition: PutIf,
    ) -> Result<Put, Error> {
        let outcome = self.inner.copy(source, to, headers, condition).await;
        self.tell_put(to, &outcome, source.size, None);
        outcome
    }

    async fn delete(&self, key: &Key, etag: Option<&ETag>) -> Result<(), Error> {
        let outcome = self.inner.delete(key, etag).await;
        self.tell(key, &outcome, |()| Announced::Removed { key: key.clone() });
        outcome
    }

    async fn begin_upload(&self, key: &Key, headers: &Headers) -> Result<Upload, Error> {
        self.inner.begin_upload(key, headers).await
    }

    async fn put_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part, Error> {
        self.inner.put_part(upload, number, body).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u16,
        source: CopySource<'_>,
        range: Range<u64>,
    ) -> Result<Part, Error> {
        self.inner.copy_part(upload, number, source, range).await
    }

    async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: PutIf) -> Result<Put, Error> {
        let outcome = self.inner.complete_upload(upload, parts, condition).await;
        self.tell_put(&upload.key, &outcome, parts.iter().map(|part| part.size).sum(), None);
        outcome
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<(), Error> {
        self.inner.abort_upload(upload).await
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>, Error> {
        self.inner.parts(upload).await
    }

    async fn uploads(&self) -> Result<Vec<(Upload, Time)>, Error> {
        self.inner.uploads().await
    }
}
