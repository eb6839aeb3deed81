//! Which conditions on writes a store honours, and what is done about those it does not.
//!
//! Not every server that speaks S3 minds `If-Match` and `If-None-Match` on a write; one that does not ignores them
//! and overwrites. `probe` finds out with an object of its own, and `careful` asks what is there before each write whose
//! condition the store would ignore (`asking`). That is weaker: between the question and the write somebody else's change is
//! overwritten, so two writers of one object must be farther apart than that moment. Nobody above needs to know.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::asking::Asking;
use super::copy::LARGEST_COPY_BYTES;
use super::{
    CopySource, Error, GetIf, Got, Headers, ListPage, ListRequest, ObjectMeta, Part, Put, PutIf, Store, Upload,
    WriteStore,
};
use crate::types::{ETag, Key, Time};

/// What the keys begin with that are probed: listings leave them out.
pub const PROBE_PREFIX: &str = ".fasts3-probe-";

/// A key that nobody has, to probe with.
pub fn probe_key() -> Key {
    Key::new(&format!("{PROBE_PREFIX}{}", uuid::Uuid::new_v4().simple())).expect("it is short")
}

/// What a store honours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// `If-None-Match: *` on PUT.
    pub put_absent: bool,
    /// `If-Match` on PUT.
    pub put_match: bool,
    /// `If-Match` on DELETE.
    pub delete_match: bool,
    /// Both on CompleteMultipartUpload.
    pub complete: bool,
    /// `x-amz-copy-source-if-match` on copies.
    pub copy_source: bool,
    /// `If-None-Match: *` and `If-Match` on the target of a copy.
    pub copy_target: bool,
}

impl Conditions {
    /// As AWS has it.
    pub fn all() -> Conditions {
        Conditions {
            put_absent: true,
            put_match: true,
            delete_match: true,
            complete: true,
            copy_source: true,
            copy_target: true,
        }
    }

    /// Honours none.
    pub fn none() -> Conditions {
        Conditions {
            put_absent: false,
            put_match: false,
            delete_match: false,
            complete: false,
            copy_source: false,
            copy_target: false,
        }
    }

    fn missing(&self) -> Vec<&'static str> {
        let named = [
            (self.put_absent, "If-None-Match on PUT"),
            (self.put_match, "If-Match on PUT"),
            (self.delete_match, "If-Match on DELETE"),
            (self.complete, "conditions on CompleteMultipartUpload"),
            (self.copy_source, "x-amz-copy-source-if-match"),
            (self.copy_target, "conditions on the target of a copy"),
        ];
        named.into_iter().filter(|(is_honoured, _)| !is_honoured).map(|(_, name)| name).collect()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing();
        if missing.is_empty() {
            return f.write_str("this S3 honours all conditions on writes");
        }
        write!(
            f,
            "this S3 does not honour {}: asking what is there before writing instead, so a change that somebody else makes \
             in that moment is overwritten",
            missing.join(", ")
        )
    }
}

/// A tag that no object has.
const NO_ETAG: &str = "00000000000000000000000000000000";

/// Finds out what `store` honours, with an object under `key` that nobody else may use, and which is gone again at the
/// end. Some 20 requests; that they are refused when they should be tells nothing of a race, which cannot be probed.
/// # Errors
/// `Unavailable`, `Denied`, `NoSuchBucket`: nothing is known. Another try may tell.
pub async fn probe(store: &dyn WriteStore, key: &Key) -> Result<Conditions, Error> {
    let probed = probe_at(store, key).await;
    if probed.is_err() {
        // Best effort: the error to tell is the first one.
        let _ = store.delete(key, None).await;
    }
    probed
}

async fn probe_at(store: &dyn WriteStore, key: &Key) -> Result<Conditions, Error> {
    let headers = Headers::default();
    let no_etag = ETag::new(NO_ETAG);
    let never = || PutIf::Match(no_etag.clone());
    let body = Bytes::from_static(b"fasts3 looks which conditions are honoured here");
    let size = body.len() as u64;
    // A store with KMS gives the same bytes another tag each time they are written.
    let now = async || store.head(key).await.map(|meta| meta.etag);
    let put = async |condition| store.put(key, body.clone(), &headers, condition).await;
    put(PutIf::Any).await?;
    let put_absent = is_refused(put(PutIf::Absent).await)?;
    let put_match = is_refused(put(never()).await)? && is_taken(put(PutIf::Match(now().await?)).await)?;
    let copy =
        async |etag: &ETag, condition| store.copy(CopySource { key, etag, size }, key, Some(&headers), condition).await;
    let copy_source = is_refused(copy(&no_etag, PutIf::Any).await)?;
    let copy_target =
        is_refused(copy(&now().await?, PutIf::Absent).await)? && is_refused(copy(&now().await?, never()).await)?;
    let complete = is_complete_refused(store, key, body.clone(), [PutIf::Absent, never()]).await?;
    let delete_match = is_refused(store.delete(key, Some(&no_etag)).await)?;
    store.delete(key, None).await?;
    Ok(Conditions { put_absent, put_match, delete_match, complete, copy_source, copy_target })
}

/// Whether a completion is refused under each of `conditions`.
async fn is_complete_refused(
    store: &dyn WriteStore,
    key: &Key,
    body: Bytes,
    conditions: [PutIf; 2],
) -> Result<bool, Error> {
    let upload = store.begin_upload(key, &Headers::default()).await?;
    let refused = async {
        let part = store.put_part(&upload, 1, body).await?;
        for condition in conditions {
            if !is_refused(store.complete_upload(&upload, std::slice::from_ref(&part), condition).await)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let refused = refused.await;
    store.abort_upload(&upload).await?;
    refused
}

/// Whether a condition that does not hold was refused as such. A store that takes the write, or says that it does not
/// know the header, does not honour it.
fn is_refused<T>(outcome: Result<T, Error>) -> Result<bool, Error> {
    match outcome {
        Err(Error::PreconditionFailed { .. } | Error::SourceChanged { .. }) => Ok(true),
        other => is_taken(other).map(|_| false),
    }
}

/// Whether a write was done; an error when it says nothing of conditions.
fn is_taken<T>(outcome: Result<T, Error>) -> Result<bool, Error> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error @ (Error::Unavailable { .. } | Error::Denied { .. } | Error::NoSuchBucket { .. })) => Err(error),
        Err(_) => Ok(false),
    }
}

/// `store`, minding all conditions: those that it does not honour by asking before the write.
pub fn careful(store: Arc<dyn WriteStore>, conditions: Conditions) -> Arc<dyn WriteStore> {
    match conditions == Conditions::all() {
        true => store,
        false => Arc::new(Careful { asking: Asking::new(store.clone()), inner: store, conditions }),
    }
}

struct Careful {
    inner: Arc<dyn WriteStore>,
    conditions: Conditions,
    asking: Asking,
}

impl Careful {
    /// The condition to send: `condition` where it is honoured; else none, after asking.
    async fn asked(&self, key: &Key, condition: PutIf, is_honoured: bool) -> Result<PutIf, Error> {
        if is_honoured {
            return Ok(condition);
        }
        let now = match condition {
            PutIf::Any => return Ok(PutIf::Any),
            _ => self.asking.etag(key).await?,
        };
        match (condition, now) {
            (PutIf::Absent, None) => Ok(PutIf::Any),
            (PutIf::Match(etag), Some(now)) if now == etag => Ok(PutIf::Any),
            (_, None) => Err(Error::NotFound { key: key.clone() }),
            (_, Some(_)) => Err(Error::PreconditionFailed { key: key.clone() }),
        }
    }

    fn honours_on_put(&self, condition: &PutIf) -> bool {
        match condition {
            PutIf::Any => true,
            PutIf::Absent => self.conditions.put_absent,
            PutIf::Match(_) => self.conditions.put_match,
        }
    }

    async fn ask_source(&self, source: CopySource<'_>) -> Result<(), Error> {
        if self.conditions.copy_source {
            return Ok(());
        }
        match self.inner.head(source.key).await {
            Ok(meta) if meta.etag == *source.etag => Ok(()),
            Ok(_) | Err(Error::NotFound { .. }) => Err(Error::SourceChanged { key: source.key.clone() }),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Store for Careful {
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
impl WriteStore for Careful {
    async fn describe(&self, key: &Key) -> Result<(ObjectMeta, Headers), Error> {
        self.inner.describe(key).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &Headers, condition: PutIf) -> Result<Put, Error> {
        let is_honoured = self.honours_on_put(&condition);
        let condition = self.asked(key, condition, is_honoured).await?;
        self.inner.put(key, body, headers, condition).await
    }

    async fn copy(
        &self,
        source: CopySource<'_>,
        to: &Key,
        headers: Option<&Headers>,
        condition: PutIf,
    ) -> Result<Put, Error> {
        self.ask_source(source).await?;
        let is_honoured = match source.size > LARGEST_COPY_BYTES {
            true => self.conditions.complete,
            false => self.conditions.copy_target,
        };
        let condition = self.asked(to, condition, is_honoured).await?;
        self.inner.copy(source, to, headers, condition).await
    }

    async fn delete(&self, key: &Key, etag: Option<&ETag>) -> Result<(), Error> {
        let Some(etag) = etag.filter(|_| !self.conditions.delete_match) else {
            return self.inner.delete(key, etag).await;
        };
        match self.asked(key, PutIf::Match(etag.clone()), false).await {
            Ok(_) => self.inner.delete(key, None).await,
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
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
        self.ask_source(source).await?;
        self.inner.copy_part(upload, number, source, range).await
    }

    async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: PutIf) -> Result<Put, Error> {
        let condition = self.asked(&upload.key, condition, self.conditions.complete).await?;
        self.inner.complete_upload(upload, parts, condition).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_honoured_is_one_line() {
        assert_eq!(Conditions::all().to_string(), "this S3 honours all conditions on writes");
        let garage = Conditions { delete_match: false, put_match: false, ..Conditions::all() };
        let line = garage.to_string();
        assert!(line.starts_with("this S3 does not honour If-Match on PUT, If-Match on DELETE: "), "{line}");
        assert!(!line.contains('\n'));
    }
}
