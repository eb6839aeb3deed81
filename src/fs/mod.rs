//! File system semantics, one file per operation family: attributes and permissions, lookup, read,
//! listing; write, create, remove, rename. No NFS wire types but those of nfsserve's trait, no S3 types.
//!
//! `Fs` is both an nfsserve `NFSFileSystem` (so that others can embed it) and our own `NfsExt`.
//! Rule (F1): what the index and the content room have is answered at once as `Answer::Now`, after the
//! revalidator was told of it; only what is not here becomes `Answer::Later`.
//! Nothing here decides what is fresh, and nothing here talks to S3.
//!
//! A change is one transaction of the index (`change`): what it needs is looked at, allowed, done and told about
//! inside, so nothing comes between, and the attributes before and after are those of the change itself.
//! It is durable before the answer (D1). It never waits for S3, but for the listing of a directory that is to be
//! removed, moved or replaced and has never been listed.
//!
//! Lock order: the turn of a staging file, then the transaction.

mod attr;
mod change;
mod create;
mod error;
pub mod ext;
mod handle;
mod listing;
mod lookup;
mod overlay;
mod permission;
mod read;
mod remove;
mod rename;
mod setattr;
mod statfs;
#[cfg(test)]
mod tests;
mod vfs;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use nfsserve::nfs::nfsstat3;

pub use handle::{HANDLE_BYTES, HandleKey};

use crate::content::Content;
use crate::index::{Index, Kind, Node};
use crate::revalidate::Revalidator;
use crate::types::{Clock, Ino};
use crate::writeback::Writeback;
use ext::{Answer, Failure};

/// The file system. Cheap to clone.
#[derive(Clone)]
pub struct Fs {
    index: Arc<Index>,
    content: Arc<Content>,
    revalidator: Arc<Revalidator>,
    handles: HandleKey,
    settings: Settings,
    clock: Clock,
    /// With `--durability s3`: what a COMMIT waits for, and how long at most before the client is to ask again.
    uploads: Option<(Arc<Writeback>, Duration)>,
}

/// How often a change begins again because an upload ended, or began, under it; each time is one that did.
const ATTEMPTS: usize = 16;

/// What of the configuration the file system itself follows.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Refuses all changes with ROFS, whoever asks.
    pub read_only: bool,
}

impl Fs {
    /// Puts the rooms together. `handles` makes file handles that survive restarts and cannot be forged.
    pub fn new(
        index: Arc<Index>,
        content: Arc<Content>,
        revalidator: Arc<Revalidator>,
        handles: HandleKey,
        settings: Settings,
        clock: Clock,
    ) -> Fs {
        Fs { index, content, revalidator, handles, settings, clock, uploads: None }
    }

    /// The same, whose COMMIT waits until S3 has the file (D5), up to `deadline`: then the client asks again.
    pub fn committing_to_s3(self, writeback: Arc<Writeback>, deadline: Duration) -> Fs {
        Fs { uploads: Some((writeback, deadline)), ..self }
    }

    /// The node of a fileid; STALE when it is gone.
    fn node(&self, id: u64) -> Result<Arc<Node>, nfsstat3> {
        self.index.node(Ino(id)).map_err(error::of_index)?.ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// The node of a fileid that must be a directory.
    fn directory(&self, id: u64) -> Result<Arc<Node>, Failure> {
        let node = self.node(id)?;
        match node.kind {
            Kind::Dir => Ok(node),
            _ => Err(self.failure(nfsstat3::NFS3ERR_NOTDIR, &node)),
        }
    }

    /// A failure with the post-operation attributes of `node`.
    fn failure(&self, status: nfsstat3, node: &Node) -> Failure {
        Failure { status, attr: Some(self.attributes(node)) }
    }

    /// Notes an answer from `node`. In strict mode (F6) an open also waits for the check that an earlier
    /// request set off: then the future to wait for is returned.
    fn touch_for_open(&self, node: &Arc<Node>) -> Option<BoxFuture<'static, ()>> {
        let must_settle = node.kind == Kind::File && self.revalidator.must_settle(node);
        self.revalidator.touch(node);
        if !must_settle {
            return None;
        }
        let (revalidator, ino) = (self.revalidator.clone(), node.ino);
        Some(Box::pin(async move { revalidator.settled(ino).await }))
    }
}

/// Answers at once, or with `ready` after `wait`.
fn after<T: 'static>(wait: Option<BoxFuture<'static, ()>>, ready: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    match wait {
        None => Answer::Now(ready()),
        Some(wait) => Answer::Later(Box::pin(async move {
            wait.await;
            ready()
        })),
    }
}

/// `?` for functions that answer at once: turns an early failure into `Answer::Now(Err(..))`.
macro_rules! now {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(failure) => return $crate::fs::ext::Answer::Now(Err(failure.into())),
        }
    };
}
use now;
