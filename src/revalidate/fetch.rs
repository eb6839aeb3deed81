//! Placeholder until the owner of fetches writes it.
#![allow(missing_docs, unused_variables)]
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{Settings, Stores, WaitError};
use crate::content::{Content, Object};
use crate::index::{Index, Node};
use crate::store::{self, ObjectMeta};
use crate::types::{Clock, Ino, Key};

pub struct Fetcher {}

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("changed")]
    Changed,
    #[error("no space")]
    NoSpace,
    #[error(transparent)]
    Store(store::Error),
    #[error(transparent)]
    Io(std::io::Error),
}

impl DownloadError {
    pub fn is_no_space(&self) -> bool {
        matches!(self, DownloadError::NoSpace)
    }
    pub fn is_changed(&self) -> bool {
        matches!(self, DownloadError::Changed)
    }
    pub fn is_unavailable(&self) -> bool {
        matches!(self, DownloadError::Store(store::Error::Unavailable { .. }))
    }
}

impl Fetcher {
    pub fn new(
        index: Arc<Index>,
        content: Arc<Content>,
        stores: Stores,
        settings: Settings,
        clock: Clock,
    ) -> Arc<Fetcher> {
        todo!()
    }
    pub async fn fetch(&self, ino: Ino, range: Range<u64>) -> Result<(Arc<Node>, Arc<Object>), WaitError> {
        todo!()
    }
    pub async fn complete(&self, ino: Ino) -> Result<u64, WaitError> {
        todo!()
    }
    pub async fn download(&self, key: &Key, meta: &ObjectMeta) -> Result<Arc<Object>, DownloadError> {
        todo!()
    }
    pub async fn store_body(
        &self,
        meta: &ObjectMeta,
        body: BoxStream<'static, Result<Bytes, store::Error>>,
    ) -> Result<Arc<Object>, DownloadError> {
        todo!()
    }
}
