//! Whole new versions, copied in beside the one that is served, to be swapped in by one transaction (F2).
//! Owns: the file until it is whole and durable; one that does not get there is removed.

use std::io;
use std::sync::Arc;

use futures::stream::{self, TryStreamExt};
use tokio::time::sleep;

use super::body::{Body, Trouble, Version, get_range, pour};
use super::transfer::split;
use super::{FIRST_PAUSE, Fetcher, LAST_PAUSE, PIECE_BYTES, PIECES_AT_ONCE, TRIES};
use crate::content::{Content, Hold, Object};
use crate::store::{self, ObjectMeta};
use crate::types::Key;

/// Up to here one GET; above, pieces side by side.
const WHOLE_BYTES: u64 = 16 << 20;

/// Why a version was not copied in.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// S3 has another version now, or none; `found` tells which where the answer did.
    #[error("changed in S3 meanwhile")]
    Changed {
        /// What S3 has.
        found: Option<ObjectMeta>,
    },
    /// S3 is not reachable, broke off too often, or refused.
    #[error(transparent)]
    Store(store::Error),
    /// The cache disk is full.
    #[error("the cache disk is full")]
    NoSpace,
    /// The cache disk failed.
    #[error("the cache disk failed: {0}")]
    Disk(#[source] io::Error),
}

impl From<Trouble> for DownloadError {
    fn from(trouble: Trouble) -> DownloadError {
        match trouble {
            Trouble::Again(error) | Trouble::Refused(error) => DownloadError::Store(error),
            Trouble::Changed(told) => DownloadError::Changed { found: told.map(|told| told.meta) },
            Trouble::Disk(error) => error.into(),
        }
    }
}

impl From<io::Error> for DownloadError {
    fn from(error: io::Error) -> DownloadError {
        if error.kind() == io::ErrorKind::StorageFull { DownloadError::NoSpace } else { DownloadError::Disk(error) }
    }
}

/// A file that is removed unless it is kept.
struct Draft<'a> {
    content: &'a Content,
    object: Arc<Object>,
    _hold: Hold,
    kept: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.content.abandon(self.object.id());
        }
    }
}

impl Draft<'_> {
    /// Makes it durable and gives it away.
    async fn keep(mut self) -> io::Result<Arc<Object>> {
        let object = self.object.clone();
        tokio::task::spawn_blocking(move || object.sync()).await.map_err(io::Error::other)??;
        self.kept = true;
        Ok(self.object.clone())
    }
}

impl Fetcher {
    /// Copies the version `meta` of `key` into a new file: complete, durable, and nobody's yet: the
    /// caller swaps it in with `Observation::content`. Dropping the future removes what came.
    /// # Errors
    /// See [`DownloadError`]; the file is removed then.
    pub async fn download(&self, key: &Key, meta: &ObjectMeta) -> Result<Arc<Object>, DownloadError> {
        let draft = self.draft(meta.size).await?;
        let version = Version { key: key.clone(), etag: meta.etag.clone(), size: meta.size };
        let piece = if meta.size <= WHOLE_BYTES { WHOLE_BYTES } else { PIECE_BYTES };
        stream::iter(split(0..meta.size, piece).map(Ok))
            .try_for_each_concurrent(PIECES_AT_ONCE, |range| self.download_piece(&version, &draft.object, range))
            .await?;
        Ok(draft.keep().await?)
    }

    /// Like `download`, from a body that is already on its way and holds all of the version `meta`.
    /// # Errors
    /// See [`DownloadError`]; the file is removed then.
    pub async fn store_body(&self, meta: &ObjectMeta, body: Body) -> Result<Arc<Object>, DownloadError> {
        let draft = self.draft(meta.size).await?;
        pour(&draft.object, 0..meta.size, body).await?;
        Ok(draft.keep().await?)
    }

    async fn draft(&self, size: u64) -> Result<Draft<'_>, DownloadError> {
        self.content.make_room(size).await?;
        let object = self.content.create(size).await?;
        Ok(Draft { content: &self.content, _hold: object.hold(), object, kept: false })
    }

    async fn download_piece(
        &self,
        version: &Version,
        object: &Arc<Object>,
        range: std::ops::Range<u64>,
    ) -> Result<(), DownloadError> {
        let mut tries = 0;
        while let Some(gap) = object.missing(range.clone()).into_iter().next() {
            let store = &*self.background.store;
            let slot = self.background.slots.acquire().await.map_err(io::Error::other)?;
            let left = gap.start;
            match get_range(store, &self.clock, version, object, gap).await {
                Ok(_) => {}
                Err(Trouble::Again(error)) => {
                    let came = object.missing(range.clone()).first().is_none_or(|gap| gap.start > left);
                    tries = if came { 1 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(DownloadError::Store(error));
                    }
                    drop(slot);
                    sleep((FIRST_PAUSE * 2u32.pow(tries - 1)).min(LAST_PAUSE)).await;
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(())
    }
}
