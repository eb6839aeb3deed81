//! The WRITEs of one file, one after another. The kernel lets one at a time into a file: more of them would wait there,
//! each spinning or sleeping on a thread of its own. So they wait here, and one thread carries out all that come
//! while it is at it; a stream of them costs one hop to that thread, not one each.
//! Invariant: while any wait, exactly one thread is at it, or was asked for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{Live, Staged, WriteTurn};
use crate::types::{Tick, Time};

/// WRITEs that wait.
#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Queued>,
    /// Whether a thread is at it.
    taken: bool,
}

/// A WRITE that waits.
struct Queued {
    /// Held until it is carried out, whoever has stopped waiting.
    turn: Arc<WriteTurn>,
    offset: u64,
    data: Bytes,
    at: (Tick, Time),
    answer: oneshot::Sender<io::Result<(Live, Live)>>,
}

impl Queue {
    /// Adds a WRITE. Whether the caller has to see that a thread comes.
    fn push(&self, write: Queued) -> bool {
        let mut waiting = self.0.lock();
        waiting.writes.push_back(write);
        !std::mem::replace(&mut waiting.taken, true)
    }

    /// The next for the thread that is at it; it is no more when there is none.
    fn pop(&self) -> Option<Queued> {
        let mut waiting = self.0.lock();
        let next = waiting.writes.pop_front();
        waiting.taken = next.is_some();
        next
    }
}

impl Staged {
    /// Writes `data` at `offset` when its time has come; the attributes before and after.
    /// # Errors
    /// What the OS says.
    pub(super) async fn write_queued(
        self: &Arc<Self>,
        turn: Arc<WriteTurn>,
        offset: u64,
        data: Bytes,
        at: (Tick, Time),
    ) -> io::Result<(Live, Live)> {
        let (answer, answered) = oneshot::channel();
        if self.queue.push(Queued { turn, offset, data, at, answer }) {
            let staged = self.clone();
            // each WRITE hears of its end by its answer
            drop(spawn_blocking(move || staged.write_all_queued()));
        }
        answered.await.map_err(io::Error::other)?
    }

    /// Blocks on the disk.
    fn write_all_queued(self: &Arc<Self>) {
        let _reset = ResetOnPanic(&self.queue);
        while let Some(Queued { turn, offset, data, at, answer }) = self.queue.pop() {
            let written = self.write(offset, &data, at);
            drop((turn, data));
            // nobody waits any more: it is written all the same
            let _ = answer.send(written);
            self.write_back_ahead();
        }
    }
}

/// Has those who wait behind a WRITE that panicked fail, and not wait for ever.
struct ResetOnPanic<'q>(&'q Queue);

impl Drop for ResetOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.0.lock() = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::tests::Rig;
    use super::*;

    fn queued(turn: &Arc<WriteTurn>, offset: u64) -> (Queued, oneshot::Receiver<io::Result<(Live, Live)>>) {
        let (answer, answered) = oneshot::channel();
        let at = (Tick(1), Time(1));
        (Queued { turn: turn.clone(), offset, data: Bytes::from_static(b"x"), at, answer }, answered)
    }

    #[tokio::test]
    async fn one_thread_is_asked_for_and_carries_out_all_in_their_order() {
        let rig = Rig::roomy();
        let staged = rig.made("f").await;
        let turn = Arc::new(staged.try_write_turn().unwrap());
        let (writes, answers): (Vec<_>, Vec<_>) = (0..3).map(|offset| queued(&turn, offset)).unzip();
        let asked: Vec<bool> = writes.into_iter().map(|write| staged.queue.push(write)).collect();
        assert_eq!(asked, [true, false, false]);
        staged.write_all_queued();
        for (size, answer) in (1..).zip(answers) {
            assert_eq!(answer.await.unwrap().unwrap().1.size, size);
        }
        assert!(staged.queue.push(queued(&turn, 0).0), "the thread is gone: another is asked for");
    }

    #[tokio::test]
    async fn who_waits_behind_a_write_that_panicked_hears_of_it() {
        let rig = Rig::roomy();
        let staged = rig.made("f").await;
        let turn = Arc::new(staged.try_write_turn().unwrap());
        let (write, answered) = queued(&turn, 0);
        staged.queue.push(write);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _reset = ResetOnPanic(&staged.queue);
            panic!("as a WRITE might");
        }));
        assert!(panicked.is_err() && answered.await.is_err());
        assert!(staged.queue.push(queued(&turn, 0).0));
    }
}
