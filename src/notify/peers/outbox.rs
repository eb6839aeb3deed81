//! What was changed here and is still to be told: kept while NATS is away.
//! Invariants
//! - Bounded in number and in the bytes that ride along. What is over is told as one: all below the directory that the
//!   changes over have in common. So nothing that was put in goes untold while the server runs.
//! - A change leaves when it is known to be with NATS, so it may be told twice.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::Change;
use crate::notify::Said;

/// Changes kept: some 10 MB of ordinary keys.
const MAX_KEPT: usize = 64 << 10;
/// Bytes that ride along; further changes go without theirs.
const MAX_INLINE_BYTES: usize = 8 << 20;

/// Changes on their way out.
pub(super) struct Outbox {
    kept: Mutex<Kept>,
    /// There is something.
    filled: Notify,
    max_kept: usize,
}

#[derive(Default)]
struct Kept {
    changes: VecDeque<Change>,
    inline_bytes: usize,
    /// What the keys over have in common, while there are any.
    over: Option<String>,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox::of(MAX_KEPT)
    }

    fn of(max_kept: usize) -> Outbox {
        Outbox { kept: Mutex::new(Kept::default()), filled: Notify::new(), max_kept }
    }

    /// Puts a change in. Waits for nothing.
    pub(super) fn push(&self, mut change: Change) {
        let mut kept = self.kept.lock();
        if kept.over.is_some() || kept.changes.len() >= self.max_kept {
            let over = kept.over.take();
            kept.over = Some(over.map_or_else(|| dir(&change.key).to_owned(), |over| common(&over, &change.key)));
        } else {
            let inline = change.inline.as_ref().map_or(0, bytes::Bytes::len);
            match kept.inline_bytes + inline > MAX_INLINE_BYTES {
                true => change.inline = None,
                false => kept.inline_bytes += inline,
            }
            kept.changes.push_back(change);
        }
        drop(kept);
        self.filled.notify_one();
    }

    /// Waits until there is something.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.lock().changes.is_empty()
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.lock().changes.len()
    }

    /// The first changes, at most so many; they stay until they are `told`.
    pub(super) fn first(&self, most: usize) -> Vec<Change> {
        self.kept.lock().changes.iter().take(most).cloned().collect()
    }

    /// The first `n` are with NATS.
    pub(super) fn told(&self, n: usize) {
        let mut kept = self.kept.lock();
        let n = n.min(kept.changes.len());
        let inline: usize = kept.changes.drain(..n).filter_map(|change| change.inline).map(|bytes| bytes.len()).sum();
        kept.inline_bytes -= inline;
        if kept.changes.len() < self.max_kept
            && let Some(key) = kept.over.take()
        {
            kept.changes.push_back(Change { key, said: Said::Changed, inline: None });
        }
    }
}

/// Up to the last `/`.
fn dir(key: &str) -> &str {
    &key[..key.rfind('/').map_or(0, |at| at + 1)]
}

/// The longest directory that holds both.
fn common(a: &str, b: &str) -> String {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    // a slash is never inside a character
    let end = a.as_bytes()[..same].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    a[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(key: &str) -> Change {
        Change { key: key.into(), said: Said::Removed, inline: None }
    }

    fn keys(outbox: &Outbox) -> Vec<String> {
        outbox.first(100).into_iter().map(|change| change.key).collect()
    }

    #[test]
    fn changes_leave_in_order_once_they_are_told() {
        let outbox = Outbox::of(10);
        ["a", "b", "c"].into_iter().for_each(|key| outbox.push(removed(key)));
        assert_eq!(keys(&outbox), ["a", "b", "c"]);
        outbox.told(2);
        assert_eq!(keys(&outbox), ["c"]);
        outbox.told(1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_over_is_told_as_one() {
        let outbox = Outbox::of(2);
        ["a", "b", "d/e/1", "d/e/22", "d/f", "d/é"].into_iter().for_each(|key| outbox.push(removed(key)));
        assert_eq!(keys(&outbox), ["a", "b"]);
        outbox.told(1);
        let last = outbox.first(2).remove(1);
        assert_eq!((last.key.as_str(), last.said), ("d/", Said::Changed));
        outbox.told(2);
        outbox.push(removed("z"));
        assert_eq!(keys(&outbox), ["z"]);
        assert_eq!(
            (common("d/é/x", "d/è/x"), common("ab", "ac"), common("a/", "a/")),
            ("d/".into(), "".into(), "a/".into())
        );
    }

    #[test]
    fn bytes_are_bounded() {
        let outbox = Outbox::of(10);
        let big = || Change { inline: Some(vec![0; MAX_INLINE_BYTES / 2].into()), ..removed("k") };
        (0..3).for_each(|_| outbox.push(big()));
        let rides = |outbox: &Outbox| outbox.first(9).iter().filter(|change| change.inline.is_some()).count();
        assert_eq!(rides(&outbox), 2);
        outbox.told(3);
        outbox.push(big());
        assert_eq!(rides(&outbox), 1);
    }
}
