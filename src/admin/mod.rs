//! What people and scripts see of a running server, over HTTP: the pages on `--admin`, and the commands on the
//! control socket in the cache directory.
//! Owns: `DIR/control.sock` (or `DIR/control.json`), the shape of the status, the explanation of `why`.
//!
//! Invariants
//! - On the `--admin` address nothing can be changed, and only who names it by IP address or as localhost is answered
//!   (so that no web page can read it by DNS rebinding).
//! - The control socket answers the server's own user and root only.
//! - What a peer can make us hold is bounded: connections, header bytes, time. Bodies are not read.

pub mod client;
mod control;
mod http;
mod metrics;
mod page;
pub mod status;
pub mod why;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::content::Content;
use crate::index::{Conflict, Index, IndexError, Kind, Node};
use crate::locks::Locks;
use crate::notify::{Health, Hint, Intake, Origin, Peers, Said, SourceHealth, Tell, Told};
use crate::revalidate::{Refreshed, Revalidator, WaitError, Warmed};
use crate::types::{Clock, Ino, Key, Name, Tick};
use crate::writeback::{Failure, Writeback};
use crate::{fsck, rpc, store};
pub use http::{Admin, serve};
use status::Status;
use why::Why;

/// Why a request could not be done; becomes an HTTP status and one line for the person who asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The path holds what no path can.
    #[error("{0} is no path below the root of the export")]
    BadPath(String),
    /// S3 can have no such key.
    #[error("{0:?} is no key: keys are UTF-8 of at most 1,024 bytes")]
    BadKey(String),
    /// There is no such file, here or in S3.
    #[error("{0}: no such file or directory")]
    NotFound(String),
    /// S3 or the cache disk failed.
    #[error("{path}: {source}")]
    Wait {
        /// The path asked for.
        path: String,
        /// What happened.
        #[source]
        source: WaitError,
    },
    /// It was started without `--peers`.
    #[error("this server knows of no others: `fasts3 serve --peers` says how to reach them")]
    NoPeers,
    /// There is no NATS to tell them by.
    #[error("not connected to {0}: nothing is invalidated; without --peers, it is on this server alone")]
    PeersAway(String),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// What the HTTP side asks of the server; a seam, so that it is tested without one.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The status now.
    fn status(&self) -> Status;
    /// Upper bounds in milliseconds and counts of stale answers.
    fn stale_histogram(&self) -> Vec<(u64, u64)>;
    /// Explains one path; asks nobody.
    fn why(&self, path: &[u8]) -> Result<Why, Error>;
    /// Asks S3 about a path and all below it.
    async fn refresh(&self, path: &[u8]) -> Result<Refreshed, Error>;
    /// Distrusts a key of S3 below the mounted prefix, or all keys below one that is empty or ends in `/`; with `peers` the
    /// other servers are told to do the same.
    async fn invalidate(&self, key: &[u8], peers: bool) -> Result<Invalidated, Error>;
    /// Fetches a path and all below it.
    async fn warm(&self, path: &[u8]) -> Result<Warmed, Error>;
    /// Waits until S3 has all changes of a path and below it (D5).
    async fn sync(&self, path: &[u8]) -> Result<Synced, Error>;
    /// Files that both sides changed, oldest first.
    fn conflicts(&self) -> Result<Vec<Listed>, Error>;
    /// Forgets a conflict that a person has dealt with. False: there is none of that number.
    async fn forget_conflict(&self, number: u64) -> Result<bool, Error>;
    /// Compares index, files and, if asked for, S3.
    async fn fsck(&self, options: fsck::Options) -> fsck::Report;
}

/// What `sync` came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Synced {
    /// What cannot be brought to S3; nothing, when S3 has everything.
    pub failures: Vec<Failure>,
}

/// What `invalidate` came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Invalidated {
    /// What it was here.
    #[serde(flatten)]
    pub told: Told,
    /// The other servers that were heard of lately, and are told.
    #[serde(default)]
    pub peers: Vec<String>,
}

/// A conflict with its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its number, to forget it by.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub conflict: Conflict,
}

/// The rooms of a running server.
pub struct State {
    /// Names and versions.
    pub index: Arc<Index>,
    /// Bytes.
    pub content: Arc<Content>,
    /// Freshness.
    pub revalidator: Arc<Revalidator>,
    /// Changes on their way to S3; `None` when nothing can be changed.
    pub writeback: Option<Arc<Writeback>>,
    /// S3, for what nobody waits for.
    pub store: Arc<dyn store::WriteStore>,
    /// Settings.
    pub config: Arc<Config>,
    /// Word of changes.
    pub intake: Arc<Intake>,
    /// Whose word can be relied on.
    pub health: Arc<Health>,
    /// How each source of events fares.
    pub sources: Vec<Arc<SourceHealth>>,
    /// The other servers, where `--peers` says how to reach them.
    pub peers: Option<Arc<Peers>>,
    /// Requests to S3.
    pub requests: Arc<store::Counters>,
    /// Calls from clients.
    pub calls: Arc<rpc::Stats>,
    /// Time.
    pub clock: Clock,
    /// Locks of clients; `None` when none are given.
    pub locks: Option<Arc<Locks>>,
    /// When the server started.
    pub started: Tick,
}

impl State {
    /// Has the other servers distrust `key`; who they are.
    fn tell_peers(&self, key: &Key) -> Result<Vec<String>, Error> {
        let peers = self.peers.as_ref().ok_or(Error::NoPeers)?;
        let state = peers.state();
        if !state.connected {
            return Err(Error::PeersAway(state.source.source));
        }
        peers.invalidate(key);
        Ok(state.servers.into_iter().map(|server| server.host).collect())
    }
}

#[async_trait]
impl Backend for State {
    fn status(&self) -> Status {
        status::collect(self)
    }

    fn stale_histogram(&self) -> Vec<(u64, u64)> {
        self.revalidator.stats().stale_histogram
    }

    fn why(&self, path: &[u8]) -> Result<Why, Error> {
        why::explain(self, path)
    }

    async fn refresh(&self, path: &[u8]) -> Result<Refreshed, Error> {
        let node = self.find(path).await?;
        self.revalidator.refresh(node.ino).await.map_err(|e| failed(path, e))
    }

    async fn invalidate(&self, key: &[u8], peers: bool) -> Result<Invalidated, Error> {
        let text = std::str::from_utf8(key).ok().and_then(Key::new);
        let key = text.ok_or_else(|| Error::BadKey(String::from_utf8_lossy(key).into_owned()))?;
        let peers = if peers { self.tell_peers(&key)? } else { Vec::new() };
        let hint = Hint { key, said: Said::Changed, sequencer: None, at: None, origin: Origin::Command };
        Ok(Invalidated { told: self.intake.tell(vec![hint]).await, peers })
    }

    async fn warm(&self, path: &[u8]) -> Result<Warmed, Error> {
        let node = self.find(path).await?;
        self.revalidator.warm(node.ino).await.map_err(|e| failed(path, e))
    }

    async fn sync(&self, path: &[u8]) -> Result<Synced, Error> {
        let node = self.find(path).await?;
        let Some(writeback) = &self.writeback else { return Ok(Synced::default()) };
        let under = (node.ino != Ino::ROOT).then_some(node.ino);
        let failures = writeback.synced(under).await.err().unwrap_or_default();
        Ok(Synced { failures })
    }

    fn conflicts(&self) -> Result<Vec<Listed>, Error> {
        let conflicts = self.index.conflicts()?.into_iter();
        Ok(conflicts.map(|(number, conflict)| Listed { number, conflict }).collect())
    }

    async fn forget_conflict(&self, number: u64) -> Result<bool, Error> {
        let known = self.index.conflicts()?.iter().any(|(known, _)| *known == number);
        if known {
            self.index.forget_conflict(number).await?;
        }
        Ok(known)
    }

    async fn fsck(&self, options: fsck::Options) -> fsck::Report {
        let (revalidator, store, clock) = (self.revalidator.clone(), self.store.clone(), self.clock.clone());
        let remote = fsck::Remote { revalidator, store, clock };
        fsck::run(&self.index, &self.content, Some(remote), options).await
    }
}

impl State {
    /// The node of a path, looked for in S3 where the index does not have it.
    async fn find(&self, path: &[u8]) -> Result<Arc<Node>, Error> {
        let mut node = self.root()?;
        for name in names(path)? {
            let child = match self.child(&node, &name)? {
                Some(child) => Some(child),
                None if node.kind != Kind::Dir => None,
                None => self.revalidator.look_up(node.ino, &name).await.map_err(|e| failed(path, e))?,
            };
            node = child.ok_or_else(|| Error::NotFound(shown(path)))?;
        }
        Ok(node)
    }

    fn root(&self) -> Result<Arc<Node>, Error> {
        self.index.node(Ino::ROOT)?.ok_or_else(|| Error::NotFound("/".into()))
    }

    /// The child that the index has.
    fn child(&self, dir: &Node, name: &Name) -> Result<Option<Arc<Node>>, Error> {
        if dir.kind != Kind::Dir {
            return Ok(None);
        }
        Ok(self.index.child(dir.ino, name)?)
    }
}

/// The names of a path as clients type it, absolute in the export or without the first slash.
fn names(path: &[u8]) -> Result<Vec<Name>, Error> {
    let parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| Name::new(part).map_err(|_| Error::BadPath(shown(path)))).collect()
}

fn failed(path: &[u8], source: WaitError) -> Error {
    match source {
        WaitError::Gone => Error::NotFound(shown(path)),
        source => Error::Wait { path: shown(path), source },
    }
}

/// A path for a person to read, absolute in the export.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_in_the_export() {
        let parts = |path: &[u8]| names(path).map(|names| names.iter().map(Name::to_string).collect::<Vec<_>>());
        for path in [&b"/a/b"[..], b"a/b", b"./a//b/", b"//a/./b"] {
            assert_eq!(parts(path).expect("a path"), ["a", "b"]);
        }
        for root in [&b""[..], b"/", b"."] {
            assert_eq!(parts(root).expect("the root"), [""; 0]);
        }
        assert_eq!(names(b"caf\xE9").expect("any bytes").len(), 1);
    }

    #[test]
    fn paths_out_of_the_export_are_refused() {
        for path in [&b"../etc"[..], b"a/../b", b"a\0", &[b'x'; 256]] {
            assert!(matches!(names(path), Err(Error::BadPath(_))), "{path:?}");
        }
    }
}
