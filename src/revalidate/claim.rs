//! The right to check one key, and those who wait for such a check to settle (F6).
//! Invariant: whoever holds a `Claim` is the only one to check its node; however the holder ends
//! (done, failed, cancelled, panicked), the claim is given back and the waiters are woken.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::index::Node;
use crate::store::Turn;
use crate::types::Ino;

/// The right to check `node`.
pub(super) struct Claim {
    node: Arc<Node>,
    waiters: Arc<Waiters>,
    /// What was set aside for it.
    turn: Option<Turn>,
}

impl Claim {
    /// Takes the right; `None` when somebody has it.
    pub(super) fn take(node: &Arc<Node>, waiters: &Arc<Waiters>) -> Option<Claim> {
        if !node.freshness.claim() {
            return None;
        }
        waiters.claims.send_modify(|claims| *claims += 1);
        Some(Claim { node: node.clone(), waiters: waiters.clone(), turn: None })
    }

    /// The same, with the turn that it is made in, which ends with it.
    pub(super) fn with(mut self, turn: Turn) -> Claim {
        self.turn = Some(turn);
        self
    }

    /// The node as it was when the claim was taken.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.turn = None;
        self.waiters.release(&self.node);
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

    fn release(&self, node: &Node) {
        let mut nodes = self.nodes.lock();
        node.freshness.release();
        if let Some(notify) = nodes.remove(&node.ino) {
            notify.notify_waiters();
        }
        drop(nodes);
        self.claims.send_modify(|claims| *claims -= 1);
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
}
