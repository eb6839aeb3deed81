//! The owner task of the cache: learns at start what is here, then unlinks garbage, saves presence,
//! keeps below the limit.
//! Owns: nothing of its own. Each step is idempotent, so one that failed is done again later.
//! Order at start: rows first, orphans after; so a file is only an orphan when neither the index nor
//! this process knows of it. Garbage is collected after the rows are read, so none comes back. A number in the
//! garbage may be an object's or a staging file's: no two files have the same.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Content, RangeSet, blocking};
use crate::crash;
use crate::index::Presence;
use crate::types::{ObjectId, Tick};

/// 5 s: what a crash may cost of a fetch that goes on for long.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Rows read at a time: some milliseconds each.
pub(super) const ROWS: usize = 4096;
/// Files unlinked in one transaction.
const GARBAGE: usize = 1024;
/// 100 ms: as good as at once to who looks at the disk, and long beside a transaction.
const GATHER: Duration = Duration::from_millis(100);
/// Saves at once: each waits for an fdatasync and a commit, and commits are grouped.
const SAVES: usize = 16;

impl Content {
    /// The owner task: unlinks garbage, evicts, persists presence, removes files no row knows (once, at start).
    /// Returns when `stop` is cancelled and all is settled.
    pub async fn run(self: Arc<Content>, stop: CancellationToken) {
        let start = async {
            self.load_rows().await?;
            self.sweep_orphans().await
        };
        tokio::select! {
            _ = stop.cancelled() => {}
            result = start => log("cannot take stock of the cache", result),
        }
        let mut tick = interval(SAVE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            log("cannot remove garbage", self.collect_garbage().await);
            tokio::select! {
                _ = stop.cancelled() => break,
                _ = self.garbage_gathered() => {}
                _ = self.lost_added.notified() => self.detach_lost().await,
                _ = self.ledger.save_now.notified() => self.save_all().await,
                _ = tick.tick() => {
                    self.save_all().await;
                    self.cut_files().await;
                    self.shrink().await;
                }
            }
        }
        self.detach_lost().await;
        self.save_all().await;
        log("cannot remove garbage", self.collect_garbage().await);
    }

    /// There is garbage, and has been for a moment: what comes in one go is collected in one transaction.
    async fn garbage_gathered(&self) {
        self.index.garbage_added().await;
        sleep(GATHER).await;
    }

    /// Takes every row of the index into the table, so that usage and order of eviction are known.
    pub(super) async fn load_rows(self: &Arc<Content>) -> io::Result<()> {
        let mut after = None;
        loop {
            let content = self.clone();
            let last = blocking(move || content.load_batch(after)).await?;
            if last.is_none() {
                break;
            }
            after = last;
        }
        let mut after = ObjectId(0);
        loop {
            let content = self.clone();
            let Some(last) = blocking(move || content.load_staging(after)).await? else { return Ok(()) };
            after = last;
        }
    }

    fn load_batch(&self, after: Option<ObjectId>) -> io::Result<Option<ObjectId>> {
        let rows = self.index.objects(after, ROWS).map_err(io::Error::other)?;
        for (id, row) in &rows {
            let bytes = match &row.presence {
                Presence::Complete => row.size,
                Presence::Partial(ranges) => ranges.iter().cloned().collect::<RangeSet>().bytes(),
            };
            self.ledger.enter(*id, bytes, Tick::NEVER);
        }
        Ok(rows.last().map(|(id, _)| *id))
    }

    /// Unlinks the files that neither the table nor the index knows.
    pub(super) async fn sweep_orphans(self: &Arc<Content>) -> io::Result<()> {
        let mut removed = 0;
        for low in 0..=u8::MAX {
            let content = self.clone();
            removed += blocking(move || content.sweep_one(low)).await?;
        }
        if removed > 0 {
            info!(removed, "removed cached files that nothing refers to");
        }
        let content = self.clone();
        blocking(move || content.sweep_staging()).await
    }

    fn sweep_one(&self, low: u8) -> io::Result<u64> {
        let mut removed = 0;
        for id in self.objects.files(low)? {
            if !self.ledger.knows(id) && self.index.presence(id).map_err(io::Error::other)?.is_none() {
                self.objects.unlink(id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Unlinks what the index calls garbage. A file that cannot be unlinked is left for the next start's sweep.
    async fn collect_garbage(self: &Arc<Content>) -> io::Result<()> {
        loop {
            let garbage = self.index.garbage(GARBAGE).map_err(io::Error::other)?;
            if garbage.is_empty() {
                return Ok(());
            }
            let content = self.clone();
            let garbage = blocking(move || {
                garbage.iter().for_each(|id| content.abandon(*id));
                Ok(garbage)
            });
            let garbage = garbage.await?;
            crash::point("content.after_unlink");
            self.index.collected(garbage).await.map_err(io::Error::other)?;
        }
    }

    async fn detach_lost(&self) {
        let lost = std::mem::take(&mut *self.lost.lock());
        for id in lost {
            warn!(object = id.0, "a cached file is missing or torn; it will be fetched again");
            log("cannot let go of a lost file", self.discard(id).await);
        }
    }

    /// Records in the index what has come in since the last time.
    async fn save_all(&self) {
        let unsaved = futures::stream::iter(self.ledger.take_unsaved());
        let saves = unsaved.map(|object| async move { (object.id(), self.save(&object).await) });
        let mut saves = saves.buffer_unordered(SAVES);
        while let Some((id, result)) = saves.next().await {
            if let Err(error) = result {
                warn!(object = id.0, %error, "cannot record what is cached");
            }
        }
    }

    async fn shrink(&self) {
        match self.make_room(0).await {
            // all that is left is being fetched, or nobody's yet
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {}
            other => log("cannot evict", other),
        }
    }
}

fn log(what: &'static str, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "{what}");
    }
}
