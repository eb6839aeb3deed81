//! One key: is what is here what S3 has, and if not, how the new version comes in.
//! Invariants
//! - A file that is complete here stays so: its new version is copied in first, then swapped (F1, F2).
//! - A check that finds nothing new writes nothing.
//! - What is changed here, or on its way to another key, is not asked about: the change wins, and its upload finds out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{Asked, DownloadError, Revalidator, Stamps, Trouble};
use crate::content::Object;
use crate::index::{Index, Kind, Node, Pending, Remote, Seen, Source, Verdict};
use crate::store::{self, GetIf, Got, ObjectMeta};
use crate::types::{Ino, Key, Tick, Time};

/// How often a check starts again because the object changed under its copy, or another answer has overtaken it, before
/// the next touch has to ask.
const ATTEMPTS: usize = 5;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// S3 has what is here.
    Unchanged,
    /// S3 had something else, which is here now; or nothing, and the file is gone.
    Changed,
}

/// What a check was told.
enum Told {
    /// The tag that was asked about still holds.
    Same,
    /// This version; with its body where it was asked for by GET.
    Version(ObjectMeta, Option<Body>),
}

type Body = BoxStream<'static, Result<Bytes, store::Error>>;

impl Revalidator {
    /// Checks a file: by conditional GET where a small copy is here, else by HEAD.
    pub(super) async fn check_file(&self, ino: Ino, source: Source) -> Result<Outcome, Trouble> {
        for _ in 0..ATTEMPTS {
            let (node, key) = self.node_and_key(ino)?;
            if self.is_ours(&node) {
                return Ok(Outcome::Unchanged);
            }
            let Asked { answer, at } = self.probe(&node, &key).await;
            let (meta, body) = match answer {
                Ok(Told::Same) => return Ok(self.unchanged(&node, at)),
                Ok(Told::Version(meta, _)) if is_as_known(&node, &meta) => return Ok(self.unchanged(&node, at)),
                Ok(Told::Version(meta, body)) => (meta, body),
                Err(store::Error::NotFound { .. }) => {
                    match self.changed(&node, key, Seen::Absent, at, source, None).await? {
                        Some(outcome) => return Ok(outcome),
                        None => continue,
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let content = match self.copy_in(&node, &key, &meta, body).await {
                Ok(content) => content,
                Err(DownloadError::Changed { .. }) => continue,
                Err(DownloadError::NoSpace) => {
                    // The old bytes go first then: fresh and cold rather than stale for ever.
                    tracing::warn!(%key, size = meta.size, "no room beside the old version: fetching it when it is read");
                    None
                }
                Err(source) => return Err(Trouble::Copy { key, source }),
            };
            if let Some(outcome) = self.changed(&node, key, Seen::Object(meta), at, source, content).await? {
                return Ok(outcome);
            }
        }
        let (_, key) = self.node_and_key(ino)?;
        Err(Trouble::Restless(key))
    }

    /// Checks a directory: the attributes of its marker where they are not known, and its listing where
    /// there has been one. Returns the files whose complete copy is outdated.
    pub(super) async fn check_dir(&self, ino: Ino, source: Source) -> Result<Vec<Ino>, Trouble> {
        let (node, key) = self.node_and_key(ino)?;
        if self.is_ours(&node) {
            return Ok(Vec::new());
        }
        if wants_attributes(&node) {
            let Asked { answer, at } = self.ask(self.stores.background.head(&key)).await;
            match answer {
                Ok(meta) => drop(self.apply(key, Seen::Object(meta), at, source).await?),
                Err(store::Error::NotFound { .. }) => {
                    let (seen, at) = self.look_below(&self.stores.background, &key).await?;
                    self.apply(key, seen, at, source).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !node.listed {
            return Ok(Vec::new());
        }
        let swept = self.sweep(ino, self.behind(), || ()).await?;
        if swept.has_changed() {
            self.counters.changed(0, Duration::ZERO);
        } else {
            self.counters.unchanged();
        }
        Ok(swept.outdated)
    }

    /// The node of `ino`, and the key (a directory: the prefix) under which S3 has it, or would have it.
    pub(super) fn node_and_key(&self, ino: Ino) -> Result<(Arc<Node>, Key), Trouble> {
        let index: &Index = &self.index;
        match (index.node(ino)?, index.remote_prefix(ino)?) {
            (Some(node), Some(key)) => Ok((node, key)),
            _ => Err(Trouble::Gone),
        }
    }

    /// Asks S3 about one file.
    async fn probe(&self, node: &Node, key: &Key) -> Asked<Told> {
        let store = &self.stores.background;
        match &node.remote {
            Some(remote) if self.is_small_copy(node, remote) => {
                self.ask(async {
                    Ok(match store.get(key, None, GetIf::NoneMatch(remote.etag.clone())).await? {
                        Got::NotModified { last_modified } if is_rewritten(remote, last_modified) => {
                            Told::Version(store.head(key).await?, None)
                        }
                        Got::NotModified { .. } => Told::Same,
                        Got::Body { meta, body } => Told::Version(meta, Some(body)),
                    })
                })
                .await
            }
            _ => self.ask(async { Ok(Told::Version(store.head(key).await?, None)) }).await,
        }
    }

    /// Whether what S3 has of `node` is not what counts: it is new here, its bytes are changed here, or it is on its way
    /// to another key. Looks into the journal only where the node does not say so itself.
    pub(super) fn is_ours(&self, node: &Node) -> bool {
        let is_pending =
            |what: fn(&Pending) -> bool| self.index.pending(node.ino).ok().flatten().as_ref().is_some_and(what);
        match (node.kind, &node.remote, &node.origin) {
            (Kind::Dir, None, _) => node.listed && is_pending(|pending| pending.content),
            (Kind::Dir, Some(_), _) => false,
            (_, None, _) => true,
            (_, Some(_), None) => node.staged.is_some(),
            (_, Some(_), Some(_)) => node.staged.is_some() || is_pending(|pending| pending.place),
        }
    }

    /// Whether check and body should be one request. Only where the attributes are known: "not modified"
    /// does not tell them, nor a Last-Modified that is not known.
    fn is_small_copy(&self, node: &Node, remote: &Remote) -> bool {
        remote.size <= self.settings.small_object
            && remote.last_modified != Remote::UNTOLD
            && node.attributes_known
            && is_complete(node)
    }

    /// The bytes of a new version, where the old one is complete here.
    async fn copy_in(
        &self,
        node: &Node,
        key: &Key,
        meta: &ObjectMeta,
        body: Option<Body>,
    ) -> Result<Option<Arc<Object>>, DownloadError> {
        let is_new = node.remote.as_ref().is_none_or(|remote| remote.etag != meta.etag);
        if !is_new || !is_complete(node) {
            return Ok(None);
        }
        if let Some(body) = body.filter(|_| meta.size <= self.settings.small_object) {
            match self.fetcher.store_body(meta, body).await {
                // It broke off: the download knows how to go on.
                Err(DownloadError::Store(store::Error::Unavailable { .. })) => {}
                stored => return stored.map(Some),
            }
        }
        self.fetcher.download(key, meta).await.map(Some)
    }

    /// What is here is what S3 has.
    pub(super) fn unchanged(&self, node: &Node, at: Stamps) -> Outcome {
        node.freshness.settle(at.sent, at.answered);
        self.counters.unchanged();
        Outcome::Unchanged
    }

    /// Applies what is new. `None`: an answer to something else has overtaken this one, and which of them is older nobody
    /// knows.
    async fn changed(
        &self,
        node: &Node,
        key: Key,
        seen: Seen,
        at: Stamps,
        source: Source,
        content: Option<Arc<Object>>,
    ) -> Result<Option<Outcome>, Trouble> {
        let stale = self.stale_for(node, &seen);
        let served = node.freshness.served();
        match self.apply_with(key, seen, at, source, content).await?.verdict {
            Verdict::Unchanged => {
                self.counters.unchanged();
                Ok(Some(Outcome::Unchanged))
            }
            Verdict::Late => Ok(None),
            Verdict::Created | Verdict::Replaced | Verdict::Removed => {
                self.counters.changed(served, stale);
                Ok(Some(Outcome::Changed))
            }
        }
    }

    /// How long `node` can have been stale at most: since it changed in S3, and since it was last found fresh.
    fn stale_for(&self, node: &Node, seen: &Seen) -> Duration {
        let checked = node.freshness.checked();
        let since_checked = (checked != Tick::NEVER).then(|| self.clock.now().since(checked));
        let since_changed = match seen {
            Seen::Object(meta) => {
                Some(Duration::from_nanos(self.clock.wall().0.saturating_sub(meta.last_modified.0).max(0) as u64))
            }
            Seen::Prefix | Seen::Absent => None,
        };
        since_checked.into_iter().chain(since_changed).min().unwrap_or_default()
    }
}

/// Whether all that S3 says of `meta` is known of `node`.
pub(super) fn is_as_known(node: &Node, meta: &ObjectMeta) -> bool {
    node.attributes_known
        && node.remote.as_ref().is_some_and(|remote| {
            remote.etag == meta.etag && remote.last_modified.seconds() == meta.last_modified.seconds()
        })
}

/// Whether only a HEAD or a GET can tell what is missing of `node`.
pub(super) fn wants_attributes(node: &Node) -> bool {
    node.remote.is_some() && !node.attributes_known
}

/// Whether all bytes of the version known are here.
pub(super) fn is_complete(node: &Node) -> bool {
    node.kind != Kind::Dir && node.local.is_some_and(|local| local.complete)
}

/// Whether the same bytes were put there again, and so perhaps with other metadata.
fn is_rewritten(known: &Remote, last_modified: Option<Time>) -> bool {
    last_modified.is_some_and(|told| told.seconds() != known.last_modified.seconds())
}
