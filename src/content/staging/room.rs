//! Room on the disk for what must not be evicted, and the stock of it at start.
//! Invariant: what the index needs to go on is left free, so that COMMIT, SETATTR and REMOVE work on a full disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{error, info, warn};

use super::super::keeper::ROWS;
use super::super::ranges::RangeSet;
use super::super::{Content, Damaged, Disk, LIMIT_AGE_MS, blocking};
use super::Staged;
use crate::index::StagedRow;
use crate::types::ObjectId;

/// 64 MiB: thousands of transactions of the index.
const RESERVE_BYTES: u64 = 64 << 20;
/// On a disk so small that 64 MiB are much of it: a hundredth.
const RESERVE_SHARE: u64 = 100;

/// So much of the room is given to WRITEs without asking again: others may fill the disk meanwhile.
const CREDIT_SHARE: u64 = 8;
/// Nor more than the reserve: it is that which is left if others do.
const CREDIT_BYTES: u64 = RESERVE_BYTES;

/// Room that WRITEs may take without asking the disk, which costs a small one more than its bytes do.
#[derive(Default)]
pub(in super::super) struct Credit {
    bytes: AtomicU64,
    /// When it was granted, in milliseconds.
    at: AtomicU64,
}

impl Credit {
    /// Takes `bytes` of it, if it has as many and is not too old.
    fn spend(&self, bytes: u64, now: u64) -> bool {
        let is_fresh = now.saturating_sub(self.at.load(Ordering::Acquire)) < LIMIT_AGE_MS;
        let take = |left: u64| left.checked_sub(bytes);
        is_fresh && self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn grant(&self, bytes: u64, now: u64) {
        self.bytes.store(bytes.min(CREDIT_BYTES), Ordering::Release);
        self.at.store(now, Ordering::Release);
    }
}

impl Content {
    /// Makes sure that the disk has room for a WRITE of `bytes`.
    pub(super) async fn room_to_write(&self, bytes: u64) -> io::Result<()> {
        if self.has_room(bytes) {
            return Ok(());
        }
        self.free(bytes).await;
        if self.has_room(bytes) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Where nobody tells how much room there is, the OS says when there is none.
    fn has_room(&self, bytes: u64) -> bool {
        let now = self.clock.now().0;
        if self.credit.spend(bytes, now) {
            return true;
        }
        let Ok(disk) = self.disk() else { return true };
        let Some(left) = disk.available.checked_sub(bytes.saturating_add(reserve(disk))) else { return false };
        self.credit.grant(left / CREDIT_SHARE, now);
        true
    }

    /// Gives back what was cut off, then evicts, for a WRITE of `bytes`; as far as that goes.
    pub(super) async fn free(&self, bytes: u64) {
        self.cut_files().await;
        // the limit in force is from before the disk was full
        self.limit.at.store(0, Ordering::Release);
        let reserve = self.disk().map_or(0, reserve);
        if let Err(error) = self.make_room(bytes.saturating_add(reserve)).await
            && error.kind() != io::ErrorKind::StorageFull
        {
            warn!(%error, "cannot evict");
        }
    }

    /// Cuts the files that are longer than their rows say; those that are being written to, another time.
    pub(in super::super) async fn cut_files(&self) {
        let all = self.staged.iter().filter(|staged| staged.state.lock().is_too_long);
        let too_long: Vec<Arc<Staged>> = all.map(|staged| staged.clone()).collect();
        for staged in too_long {
            let Some(turn) = staged.try_sole_turn() else { continue };
            let id = staged.id.0;
            let cut = blocking(move || {
                let _turn = turn;
                staged.cut()
            });
            if let Err(error) = cut.await {
                warn!(staged = id, %error, "cannot give back what was cut off a file");
            }
        }
    }

    /// Takes the rows of staging files into account after `after`; the last one's number.
    pub(in super::super) fn load_staging(&self, after: ObjectId) -> io::Result<Option<ObjectId>> {
        let rows = self.index.staged_rows(after, ROWS).map_err(io::Error::other)?;
        for (id, row) in &rows {
            // what is open has told it already, and may have been written to since
            if !self.staged.contains_key(id) {
                self.ledger.stage(*id, row.ranges.iter().cloned().collect::<RangeSet>().bytes());
            }
            self.check_file(*id, row)?;
        }
        Ok(rows.last().map(|(id, _)| *id))
    }

    /// Says aloud when a file lacks what its row promises. The row is kept: for `fsck`, and because a file may come back.
    fn check_file(&self, id: ObjectId, row: &StagedRow) -> io::Result<()> {
        let Some(damaged) = self.staging_damage(id, row)? else { return Ok(()) };
        // asked again: it may have been uploaded, or removed, meanwhile
        if self.index.staged(id).map_err(io::Error::other)?.as_ref() == Some(row) {
            let Damaged { ino, length, promised, .. } = damaged;
            error!(%ino, staged = id.0, ?length, promised, "DATA LOSS: a staging file is missing or short; run `fsck`");
        }
        Ok(())
    }

    /// Unlinks the staging files that neither the index nor this process knows.
    pub(in super::super) fn sweep_staging(&self) -> io::Result<()> {
        let mut removed = 0;
        for id in self.volume.dir.files()? {
            if !self.ledger.knows_staged(id) && self.index.staged(id).map_err(io::Error::other)?.is_none() {
                self.remove_staging(id);
                removed += 1;
            }
        }
        if removed > 0 {
            info!(removed, "removed staging files that nothing refers to");
        }
        Ok(())
    }
}

impl Staged {
    /// Cuts the file to its size, if the row says so, too. The caller has the sole turn. Blocks on the disk.
    fn cut(&self) -> io::Result<()> {
        let size = {
            let state = self.state.lock();
            if !state.is_too_long || !state.is_saved() {
                return Ok(());
            }
            state.overlay.size()
        };
        // one that was not opened has not been cut by this process
        if let Some(file) = self.file.get() {
            let _gate = self.gate.write();
            if file.metadata()?.len() > size {
                file.set_len(size)?;
            }
        }
        self.state.lock().is_too_long = false;
        Ok(())
    }
}

fn reserve(disk: Disk) -> u64 {
    RESERVE_BYTES.min(disk.total / RESERVE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_spent_once_and_grows_old() {
        let credit = Credit::default();
        assert!(!credit.spend(1, 5));
        credit.grant(10, 5);
        assert!(credit.spend(7, 6) && !credit.spend(7, 6) && credit.spend(3, 6));
        credit.grant(10, 7);
        assert!(!credit.spend(1, 7 + LIMIT_AGE_MS));
        credit.grant(u64::MAX, 2_000);
        assert!(!credit.spend(CREDIT_BYTES + 1, 2_000));
    }
}
