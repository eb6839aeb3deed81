//! Checks that wait for the budget: noted, not claimed, so that nobody waits for them.
//! Owns: the line of directories with such checks in them.
//! Invariants
//! - A node is in the line at most once; its `Freshness` says that it is.
//! - When a directory's turn comes, all that is due in it goes at once: the longer checks wait, the more of them one
//!   listing answers.
//! - Who does wait for one (an open in the strict mode) has it made out of turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::queue::QUEUE;
use super::{Claim, Revalidator, check};
use crate::index::{Kind, Node};
use crate::store::{RequestKind, Turn};
use crate::types::{Ino, Tick};

/// The checks that wait, by directory.
#[derive(Default)]
pub(super) struct Owed {
    line: Mutex<Line>,
    added: Notify,
}

#[derive(Default)]
struct Line {
    nodes: HashMap<Ino, Vec<Arc<Node>>>,
    /// The directories in `nodes`, the oldest first.
    order: VecDeque<Ino>,
    len: usize,
}

impl Owed {
    /// Puts `node` into the line, unless it is there. False: the line is full.
    fn add(&self, node: &Arc<Node>, now: Tick) -> bool {
        let dir = if node.kind == Kind::Dir { node.ino } else { node.parent };
        let mut guard = self.line.lock();
        let line = &mut *guard;
        if line.len >= QUEUE {
            return false;
        }
        if node.freshness.owe(now) {
            line.len += 1;
            let nodes = line.nodes.entry(dir).or_default();
            if nodes.is_empty() {
                line.order.push_back(dir);
            }
            nodes.push(node.clone());
        }
        drop(guard);
        self.added.notify_one();
        true
    }

    /// Takes the directory that has waited longest: the inodes to be checked, and when that was last asked for.
    fn take(&self) -> Vec<(Ino, Tick)> {
        let mut line = self.line.lock();
        let nodes = line.order.pop_front().and_then(|dir| line.nodes.remove(&dir)).unwrap_or_default();
        line.len -= nodes.len();
        nodes.iter().map(|node| (node.ino, node.freshness.forgive())).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.line.lock().len
    }

    /// Waits until there are some.
    async fn some(&self) {
        while self.len() == 0 {
            self.added.notified().await;
        }
    }
}

impl Revalidator {
    /// Queues a check of `node` when the budget lets it, unless one is queued, in flight or waiting already.
    pub(super) fn enqueue(&self, node: &Arc<Node>) {
        let now = self.clock.now();
        if node.freshness.is_pending() || node.freshness.owe_still(now) {
            return;
        }
        match self.stores.budget.try_turn(asked_by(node)) {
            Some(turn) => self.enqueue_now(node, turn),
            None if self.owed.add(node, now) => {}
            None => self.counters.dropped(),
        }
    }

    /// The same, of one that is sent later than this call: a check in flight is followed by another one.
    pub(super) fn enqueue_anew(&self, node: &Arc<Node>) {
        if !node.freshness.press() {
            self.enqueue(node);
        }
    }

    /// Queues a check of `node`, unless one is queued or in flight, or the queue is full.
    fn enqueue_now(&self, node: &Arc<Node>, turn: Turn) {
        let Some(claim) = Claim::take(node, &self.waiters) else { return };
        if self.queue.try_send(claim.with(turn)).is_err() {
            self.counters.dropped();
        }
    }

    /// Whether a check of `node` is due and has to wait for the budget.
    pub(super) fn is_held(&self, node: &Node) -> bool {
        node.freshness.is_owed() && self.is_due(node, self.clock.now())
    }

    /// Queues the check of `node` that waits for the budget out of turn, because a client waits for it now.
    pub(super) fn hurry(&self, node: &Arc<Node>) {
        if !node.freshness.is_pending() && self.is_held(node) {
            self.enqueue_now(node, self.stores.budget.set_aside(asked_by(node)));
        }
    }

    /// Queues what waits, one directory a turn, for as long as it is polled.
    pub(super) async fn pay_off(&self) {
        loop {
            self.owed.some().await;
            let _turn = self.stores.budget.turn(RequestKind::Head).await;
            for (ino, asked) in self.owed.take() {
                // It may have gone, or have been checked for somebody who could not wait.
                if let Ok(Some(node)) = self.index.node(ino)
                    && (node.freshness.checked() < asked || check::wants_attributes(&node))
                    && self.is_due(&node, self.clock.now())
                {
                    self.enqueue_now(&node, self.stores.budget.set_aside(asked_by(&node)));
                }
            }
        }
    }
}

/// What the check of `node` asks with, alone.
fn asked_by(node: &Node) -> RequestKind {
    if node.kind == Kind::Dir { RequestKind::List } else { RequestKind::Head }
}
