//! The right to check one key, and those who wait for such a check to settle (F6).
//! Invariant: whoever holds a `Claim` is the only one to check its node; however the holder ends
//! (done, failed, cancelled, panicked), the claim is given back and the waiters are woken.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::index::Node;
use crate::types::Ino;

/// The right to check `node`.
pub(super) struct Claim {
    node: Arc<Node>,
    waiters: Arc<Waiters>,
}

impl Claim {
    /// Takes the right; `None` when somebody has it.
    pub(super) fn take(node: &Arc<Node>, waiters: &Arc<Waiters>) -> Option<Claim> {
        if !node.freshness.claim() {
            return None;
        }
        waiters.claims.send_modify(|claims| *claims += 1);
        Some(Claim { node: node.clone(), waiters: waiters.clone() })
    }

    /// The node as it was when the claim was taken.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.freshness.release();
        self.waiters.wake(self.node.ino);
        self.waiters.claims.send_modify(|claims| *claims -= 1);
    }
}

/// Who waits for which check, and how many checks there are.
#[derive(Default)]
pub(super) struct Waiters {
    nodes: Mutex<HashMap<Ino, Arc<Notify>>>,
    claims: watch::Sender<usize>,
}

impl Waiters {
    /// Waits until no check of `node` is queued or in flight.
    pub(super) async fn released(&self, node: &Node) {
        let notify = self.nodes.lock().entry(node.ino).or_default().clone();
        // Made before the flag is read: a release after that reading wakes it.
        let woken = notify.notified();
        if node.freshness.is_pending() {
            woken.await;
        } else {
            self.wake(node.ino);
        }
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

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.lock().is_empty()
    }

    fn wake(&self, ino: Ino) {
        if let Some(notify) = self.nodes.lock().remove(&ino) {
            notify.notify_waiters();
        }
    }
}
