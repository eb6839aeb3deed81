//! One version that is being brought here: its file, who fetches which range of it, how it ended.
//! Owns: claims. A range is claimed by at most one request at a time; so readers of it share that request.
//! Invariant: there is one transfer a version while anybody wants it; it leaves the registry when the
//! last who holds it (reader, request, read-ahead) lets go.
//! Lock order: registry alone; `claimed`, then the object's ranges. Nothing awaits inside either.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use super::ahead::ReadAhead;
use super::body::Version;
use crate::content::{Content, Hold, Object, RangeSet};
use crate::index::{Node, Remote};
use crate::revalidate::WaitError;
use crate::types::{Ino, Key};

/// How a transfer ended before all was here.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// This version, or this file for it, is no longer the one: look again.
    Changed,
    /// There is no way on.
    Failed(WaitError),
}

/// The transfers under way.
#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<Ino, Weak<Transfer>>>);

/// One version being brought here.
pub(super) struct Transfer {
    pub(super) ino: Ino,
    pub(super) version: Version,
    pub(super) ahead: Mutex<ReadAhead>,
    /// Its file, once that is open.
    pub(super) file: OnceCell<(Arc<Object>, Hold)>,
    /// Whether somebody has taken it on to tell the index the attributes that come with a GET.
    pub(super) attributes_told: AtomicBool,
    /// Held by the one that asks S3 what became of the version.
    pub(super) asking: tokio::sync::Mutex<()>,
    claimed: Mutex<RangeSet>,
    end: OnceLock<End>,
    /// A claim was let go, or the transfer has ended.
    pub(super) moved: Notify,
    registry: Arc<Registry>,
    content: Arc<Content>,
}

/// The right, and the duty, to fetch a range.
pub(super) struct Claim {
    pub(super) transfer: Arc<Transfer>,
    pub(super) range: Range<u64>,
}

impl Registry {
    /// The transfer of the version `remote` of `node`, under way or new.
    pub(super) fn join(
        self: &Arc<Registry>,
        node: &Node,
        remote: &Remote,
        key: Key,
        content: &Arc<Content>,
    ) -> Arc<Transfer> {
        // dropped after the lock is, which its own drop takes
        let _outdated;
        let mut transfers = self.0.lock();
        if let Some(current) = transfers.get(&node.ino).and_then(Weak::upgrade) {
            if current.is_of(remote, &key) {
                return current;
            }
            _outdated = current;
        }
        let new = Arc::new(Transfer::new(node, remote, key, self, content));
        transfers.insert(node.ino, Arc::downgrade(&new));
        new
    }

    /// The transfer of `ino` that is under way.
    pub(super) fn of(&self, ino: Ino) -> Option<Arc<Transfer>> {
        self.0.lock().get(&ino).and_then(Weak::upgrade)
    }
}

impl Transfer {
    fn new(node: &Node, remote: &Remote, key: Key, registry: &Arc<Registry>, content: &Arc<Content>) -> Transfer {
        Transfer {
            ino: node.ino,
            version: Version { key, etag: remote.etag.clone(), size: remote.size },
            ahead: Mutex::default(),
            file: OnceCell::new(),
            attributes_told: AtomicBool::new(node.attributes_known),
            asking: tokio::sync::Mutex::default(),
            claimed: Mutex::default(),
            end: OnceLock::new(),
            moved: Notify::new(),
            registry: registry.clone(),
            content: content.clone(),
        }
    }

    fn is_of(&self, remote: &Remote, key: &Key) -> bool {
        let Version { etag, size, key: mine } = &self.version;
        *etag == remote.etag && *size == remote.size && mine == key && self.end.get().is_none()
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().cloned()
    }

    /// Ends it; the first end counts.
    pub(super) fn finish(&self, end: End) {
        let _ = self.end.set(end);
        self.moved.notify_waiters();
    }

    /// Claims what is neither here nor claimed of `range`, in pieces of at most `piece` bytes, at most `count` of them.
    pub(super) fn claim(
        self: &Arc<Transfer>,
        object: &Object,
        range: Range<u64>,
        piece: u64,
        count: usize,
    ) -> Vec<Claim> {
        let mut claims = Vec::new();
        let mut claimed = self.claimed.lock();
        let gaps: Vec<_> = object.missing(range).into_iter().flat_map(|gap| claimed.missing(gap)).collect();
        for part in gaps.into_iter().flat_map(|gap| split(gap, piece)).take(count) {
            claimed.insert(part.clone());
            claims.push(Claim { transfer: self.clone(), range: part });
        }
        claims
    }
}

/// Cuts `range` at the multiples of `piece`.
pub(super) fn split(range: Range<u64>, piece: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        at = ((start / piece).saturating_add(1)).saturating_mul(piece).min(range.end);
        (start < range.end).then_some(start..at)
    })
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.transfer.claimed.lock().remove(self.range.clone());
        self.transfer.moved.notify_waiters();
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut transfers = self.registry.0.lock();
        // another may have taken its place
        if transfers.get(&self.ino).is_some_and(|t| t.strong_count() == 0) {
            transfers.remove(&self.ino);
        }
        drop(transfers);
        // S3 gave nothing: leave no empty file behind that nobody knows of
        if let Some((object, _)) = self.file.get()
            && !object.is_attached()
            && !object.is_complete()
            && object.filled_bytes() == 0
        {
            self.content.abandon(object.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples_and_cover_the_range() {
        assert_eq!(split(3..25, 10).collect::<Vec<_>>(), [3..10, 10..20, 20..25]);
        assert_eq!(split(7..20, 10).collect::<Vec<_>>(), [7..10, 10..20]);
        assert_eq!(split(5..5, 10).count(), 0);
    }
}
