//! The right to check one key, and those who wait for such a check to settle (F6).
//! Invariant: whoever holds a `Claim` is the only one to check its node; however the holder ends
//! (done, failed, cancelled, panicked), the claim is given back and the waiters are woken.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::index::{Freshness, Node};
use crate::store::Turn;
use crate::types::Ino;

/// The right to check `node`.
pub(super) struct Claim {
    node: Arc<Node>,
    waiters: Arc<Waiters>,
    /// What was set aside for it.
    turn: Option<Turn>,
    /// Given back.
    is_over: bool,
}

impl Claim {
    /// Takes the right; `None` when somebody has it.
    pub(super) fn take(node: &Arc<Node>, waiters: &Arc<Waiters>) -> Option<Claim> {
        if !node.freshness.claim() {
            return None;
        }
        waiters.claims.send_modify(|claims| *claims += 1);
        Some(Claim { node: node.clone(), waiters: waiters.clone(), turn: None, is_over: false })
    }

    /// The same, with the turn that it is made in, which ends with it.
    pub(super) fn with(mut self, turn: Turn) -> Claim {
        self.turn = Some(turn);
        self
    }

    /// Gives the right back after a check, unless another one was pressed for meanwhile: the claim is for that one then.
    pub(super) fn end(mut self) -> Option<Claim> {
        self.is_over = self.waiters.release(&self.node, Freshness::release_unless_pressed);
        (!self.is_over).then_some(self)
    }

    /// The node as it was when the claim was taken.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.turn = None;
        if !self.is_over {
            self.waiters.release(&self.node, Freshness::release);
        }
    }
}

/// Who waits for which check, and how many checks there are.
///
/// Claims are given back, and waiters come, under the lock of `nodes`: so a waiter is woken by the end of the
/// very check it waits for, and not by the echo of the one before.
#[derive(Default)]
pub(super) struct Waiters {
    nodes: Mutex<HashMap<Ino, Arc<Notify>>>,
    claims: watch::Sender<usize>,
}

impl Waiters {
    /// Waits until the check of `node` that is queued or in flight has ended; at once when there is none.
    pub(super) async fn released(&self, node: &Node) {
        let woken = {
            let mut nodes = self.nodes.lock();
            if !node.freshness.is_pending() {
                return;
            }
            nodes.entry(node.ino).or_default().clone().notified_owned()
        };
        woken.await;
    }

    /// Waits until nobody holds a claim.
    pub(super) async fn no_claims(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.claims.subscribe().wait_for(|claims| *claims == 0).await;
    }

    /// Claims held.
    pub(super) fn claims(&self) -> usize {
        *self.claims.borrow()
    }

    /// Gives the right to check `node` back by `how`, which tells whether it did.
    fn release(&self, node: &Node, how: fn(&Freshness) -> bool) -> bool {
        let mut nodes = self.nodes.lock();
        if !how(&node.freshness) {
            return false;
        }
        if let Some(notify) = nodes.remove(&node.ino) {
            notify.notify_waiters();
        }
        drop(nodes);
        self.claims.send_modify(|claims| *claims -= 1);
        true
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::revalidate::tests::some_node;

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn waiter_is_woken_by_the_end_of_the_check_it_saw() {
        let (node, waiters, ended) = (some_node(7), Arc::new(Waiters::default()), Arc::new(AtomicU64::new(0)));
        for round in 1..=2_000 {
            let claim = Claim::take(&node, &waiters).unwrap();
            let ended_then = ended.clone();
            let check = tokio::spawn(async move {
                ended_then.store(round, Ordering::SeqCst);
                drop(claim);
            });
            waiters.released(&node).await;
            assert_eq!(ended.load(Ordering::SeqCst), round, "the end of an earlier check woke it");
            // The claim is free already, while its check may still be on its way out.
            drop(check);
        }
        assert!(waiters.is_empty());
    }

    #[test]
    fn claim_is_kept_for_the_check_that_was_pressed_for() {
        let (node, waiters) = (some_node(7), Arc::new(Waiters::default()));
        assert!(!node.freshness.press(), "nobody has it");
        let claim = Claim::take(&node, &waiters).unwrap();
        assert!(node.freshness.press() && node.freshness.press());
        let claim = claim.end().expect("it was pressed for");
        assert!(node.freshness.is_pending() && waiters.claims() == 1);
        assert!(Claim::take(&node, &waiters).is_none(), "somebody has it");
        assert!(claim.end().is_none() && !node.freshness.is_pending() && waiters.claims() == 0);
        // one that came to nothing is given back all the same: the next touch asks
        let claim = Claim::take(&node, &waiters).unwrap();
        assert!(node.freshness.press());
        drop(claim);
        assert!(!node.freshness.is_pending() && waiters.claims() == 0);
    }
}
