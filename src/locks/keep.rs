//! The one task that tells the index which clients hold locks. It alone writes that, so that a client that comes back while
//! it is being removed is noted again after that, and never before.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Locks;
use crate::index::{Index, LockHost};
use crate::types::Tick;

/// How long a failed write is left alone.
const RETRY_MS: u64 = 1_000;

impl Locks {
    /// Runs until `stop`. Clients that hold locks then stay noted: the next start tells them.
    pub async fn keep(self: Arc<Self>, index: Arc<Index>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let next = self.write_notes(&index, false).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.to_note.notified() => {}
                () = self.clock.reached(next.unwrap_or(Tick(u64::MAX))), if next.is_some() => {}
            }
        }
        self.write_notes(&index, true).await;
    }

    /// Tells the index what is to be told now; returns when there will be something again, if nobody asks before.
    async fn write_notes(&self, index: &Index, is_end: bool) -> Option<Tick> {
        let now = self.clock.now();
        let notes = self.state.lock().hosts.notes(now, is_end);
        let is_after_grace = now >= self.grace_ends;
        let gone = if is_after_grace { self.gone_for_good() } else { Vec::new() };
        let names = |hosts: &[(_, LockHost)]| hosts.iter().map(|(_, host)| host.clone()).collect::<Vec<_>>();
        let (add, remove) = (names(&notes.add), [names(&notes.remove), gone].concat());
        let written = match add.is_empty() && remove.is_empty() {
            true => Ok(()),
            false => index.note_lock_hosts(add, remove).await,
        };
        if let Err(error) = &written {
            warn!(%error, "cannot note which clients hold locks, new ones get none");
        }
        self.state.lock().hosts.told(&notes, written.is_ok());
        self.noted.notify_waiters();
        if written.is_err() {
            return Some(Tick(now.0.saturating_add(RETRY_MS)));
        }
        if is_after_grace {
            self.before.lock().clear();
        }
        let grace_ends = (!self.before.lock().is_empty()).then_some(self.grace_ends);
        let next = self.state.lock().hosts.next_end();
        // one that ends just now was seen in this round, or changed since
        grace_ends.into_iter().chain(next).min().map(|tick| tick.max(Tick(now.0 + 1)))
    }

    /// The clients that had locks before the restart and have none now that the grace period is over.
    fn gone_for_good(&self) -> Vec<LockHost> {
        let state = self.state.lock();
        self.before.lock().iter().filter(|host| state.hosts.id(host).is_none()).cloned().collect()
    }
}
