//! Copies of objects that are too large for one request: a multipart upload whose parts S3 copies itself.
//! Invariant: an upload that did not become an object is aborted, unless the future is dropped.

use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};

use super::{CopySource, Error, Headers, Part, Put, PutIf, Upload, WriteStore};
use crate::types::Key;

/// What one CopyObject takes.
pub(super) const LARGEST_COPY_BYTES: u64 = 5 << 30;
/// Least size of a part: some seconds of S3's time.
const PART_BYTES: u64 = 512 << 20;
/// Most parts of an upload.
const MAX_PARTS: u64 = 10_000;
/// Parts at once; how many really are is for `Limited` to say.
const PARALLEL: usize = 8;

/// `WriteStore::copy` of any size that can be cut into parts.
pub(super) async fn copy_in_parts(
    store: &dyn WriteStore,
    source: CopySource<'_>,
    to: &Key,
    headers: Option<&Headers>,
    condition: PutIf,
) -> Result<Put, Error> {
    let headers = match headers {
        Some(headers) => headers.clone(),
        None => own_headers(store, source).await?,
    };
    let upload = store.begin_upload(to, &headers).await?;
    let done = match copy_parts(store, &upload, source).await {
        Ok(parts) => store.complete_upload(&upload, &parts, condition).await,
        Err(error) => Err(error),
    };
    if done.is_err()
        && let Err(error) = store.abort_upload(&upload).await
    {
        tracing::warn!(key = %to, upload = upload.id, %error, "upload left behind, its parts cost money");
    }
    done
}

async fn own_headers(store: &dyn WriteStore, source: CopySource<'_>) -> Result<Headers, Error> {
    match store.describe(source.key).await {
        Ok((meta, headers)) if meta.etag == *source.etag => Ok(headers),
        Ok(_) | Err(Error::NotFound { .. }) => Err(Error::SourceChanged { key: source.key.clone() }),
        Err(error) => Err(error),
    }
}

async fn copy_parts(store: &dyn WriteStore, upload: &Upload, source: CopySource<'_>) -> Result<Vec<Part>, Error> {
    let copies: Vec<_> = ranges(source.size).map(|(n, range)| store.copy_part(upload, n, source, range)).collect();
    stream::iter(copies).buffered(PARALLEL).try_collect().await
}

/// The parts of `size` bytes, by number.
fn ranges(size: u64) -> impl Iterator<Item = (u16, Range<u64>)> {
    let part = PART_BYTES.max(size.div_ceil(MAX_PARTS));
    let starts = (0..size.div_ceil(part)).map(move |at| at * part);
    (1..=MAX_PARTS as u16).zip(starts.map(move |start| start..size.min(start + part)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_cover_every_size_in_legal_parts() {
        for size in [1, PART_BYTES, PART_BYTES + 1, LARGEST_COPY_BYTES + 1, 50_000_000_000_000] {
            let parts: Vec<_> = ranges(size).collect();
            assert_eq!((parts[0].0, parts[0].1.start, parts.last().unwrap().1.end), (1, 0, size));
            assert!(parts.windows(2).all(|two| two[0].1.end == two[1].1.start && two[1].0 == two[0].0 + 1));
            assert!(parts.iter().all(|(_, range)| range.end - range.start <= LARGEST_COPY_BYTES), "{size}");
        }
    }
}
