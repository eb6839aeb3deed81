//! Why a task came to nothing, and the words for it: each says what to do.

use std::io;

use super::Failure;
use super::queue::End;
use crate::index::IndexError;
use crate::revalidate::WaitError;
use crate::store;
use crate::types::key::MAX_KEY_BYTES;

/// Why a task came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// S3 refused, or did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The index failed or is closing.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The disk failed.
    #[error("the cache directory: {0}")]
    Disk(#[from] io::Error),
    /// What S3 has of the file is needed here and did not come.
    #[error("fetching the rest of the file: {0}")]
    Fetch(#[from] WaitError),
    /// S3 can have no such key.
    #[error("the path is longer than the {MAX_KEY_BYTES} bytes that S3 allows: rename it")]
    TooLong,
    /// It changes while it is uploaded, again and again.
    #[error("changes faster than it can be uploaded: it is tried again")]
    Restless,
    /// The server stops.
    #[error("stopping")]
    Stopping,
}

impl Trouble {
    /// What the queue is told of it.
    pub(super) fn into_end(self, key: String) -> End {
        let unanswered = matches!(self, Trouble::Store(store::Error::Unavailable { .. }));
        let (may_pass, advice) = self.outlook();
        End::Failed { failure: Failure { key, why: format!("{self}{advice}"), may_pass }, unanswered }
    }

    /// Whether it may pass by itself, and what a person can do.
    fn outlook(&self) -> (bool, &'static str) {
        match self {
            Trouble::Store(error) => match error {
                store::Error::Unavailable { .. }
                | store::Error::PreconditionFailed { .. }
                | store::Error::SourceChanged { .. }
                | store::Error::NoSuchUpload { .. }
                | store::Error::NotFound { .. } => (true, ""),
                store::Error::Denied { .. } => (
                    false,
                    ": the credentials need s3:PutObject, s3:DeleteObject, s3:GetObject and their tagging rights here",
                ),
                store::Error::NoSuchBucket { .. } => (false, ": make it again, or serve another"),
                store::Error::Other { .. } => (false, ""),
            },
            Trouble::Fetch(WaitError::NoSpace) => (false, ": free some, or allow more with --cache-size"),
            Trouble::Fetch(WaitError::Denied) => (false, ": the credentials need s3:GetObject here"),
            Trouble::Fetch(WaitError::Failed) => (false, ": see the log"),
            Trouble::Disk(_) => (false, ": check the disk under --cache"),
            Trouble::Index(_) => (false, ""),
            Trouble::TooLong => (false, ""),
            Trouble::Fetch(WaitError::Busy | WaitError::Gone) | Trouble::Restless | Trouble::Stopping => (true, ""),
        }
    }
}
