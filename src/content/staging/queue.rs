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
    fn write_all_queued(&self) {
        let _reset = ResetOnPanic(&self.queue);
        while let Some(Queued { turn, offset, data, at, answer }) = self.queue.pop() {
            let written = self.write(offset, &data, at);
            drop((turn, data));
            // nobody waits any more: it is written all the same
            let _ = answer.send(written);
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
