//! From memory to the disk: fdatasync, then the row in the index.
//! Owns: what all staging files share, the write verifier among it.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::super::dir::Staging;
use super::super::evict::Ledger;
use super::super::faults::Faults;
use super::super::{Content, blocking};
use super::Staged;
use super::state::Snapshot;
use crate::crash;
use crate::index::{StagedProgress, StagedRow};
use crate::positioned::{read_exact_at, write_all_at};
use crate::types::{Ino, ObjectId, Time};

/// 1 MiB: what is written again at a time, while writers wait.
const CHUNK_BYTES: u64 = 1 << 20;

/// What all staging files share.
pub(in super::super) struct Volume {
    pub(in super::super) dir: Staging,
    pub(in super::super) faults: Faults,
    pub(super) ledger: Arc<Ledger>,
    verifier: AtomicU64,
    versions: AtomicU64,
}

impl Volume {
    pub(in super::super) fn new(dir: Staging, ledger: Arc<Ledger>, faults: Faults) -> Volume {
        Volume { dir, faults, ledger, verifier: AtomicU64::new(random()), versions: AtomicU64::new(0) }
    }

    /// A number above all before it, whatever file it is for: so one that was closed and opened again never has one
    /// that stood for other bytes.
    pub(super) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Makes a file with `bytes`, durable with its name.
    pub(super) fn store(&self, id: ObjectId, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.dir.path(id))?;
        file.write_all(bytes)?;
        self.faults.before_sync()?;
        file.sync_data()?;
        self.dir.settle_name(self.dir.name_made())
    }

    /// What was written since the last COMMIT may be lost: clients must hear of it.
    fn change_verifier(&self) {
        self.verifier.store(random(), Ordering::Release);
    }
}

/// A v4 uuid's last 64 bits: 62 of them are random.
fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

impl Content {
    /// Tells clients whether what they wrote UNSTABLE may be lost (RFC 1813 section 3.3.7): random at every start,
    /// another one after every failed fsync.
    pub fn write_verifier(&self) -> [u8; 8] {
        self.volume.verifier.load(Ordering::Acquire).to_be_bytes()
    }

    /// Makes what was written to `staged` durable, and the index know it. Callers share one fdatasync where they can.
    /// # Errors
    /// What the OS or the index says, to all who waited for it; the verifier is another one then.
    pub async fn sync(&self, staged: &Arc<Staged>) -> io::Result<()> {
        let (wanted, failures) = {
            let state = staged.state.lock();
            (state.version, state.failures().0)
        };
        let turn = staged.saving.clone().lock_owned().await;
        {
            let state = staged.state.lock();
            if state.saved >= wanted {
                return Ok(());
            }
            let (now, error) = state.failures();
            if now != failures {
                return Err(error);
            }
        }
        let file = staged.clone();
        // the turn goes along: who stops waiting does not let the next one in before this has ended
        let (_turn, snapshot) = blocking(move || Ok((turn, file.flush()?))).await?;
        crash::point("content.after_staging_sync");
        self.record(staged, snapshot).await.inspect_err(|_| self.volume.change_verifier())
    }

    /// Files of which something is in memory that is not in the index.
    pub fn unsaved(&self) -> Vec<Arc<Staged>> {
        self.staged.iter().filter(|staged| !staged.is_settled()).map(|staged| staged.clone()).collect()
    }

    /// Writes the row. Whose file it is, the index says: a conflict may have given it to another inode.
    async fn record(&self, staged: &Arc<Staged>, snapshot: Snapshot) -> io::Result<()> {
        let Some(ino) = self.owner(staged)? else {
            // removed meanwhile: there is nothing to lose
            let mut state = staged.state.lock();
            let indexed = state.indexed;
            state.recorded(snapshot.version, indexed);
            return Ok(());
        };
        let (id, overlay) = (staged.id, &snapshot.overlay);
        let row = StagedRow { ino, base_len: overlay.base_len(), ranges: overlay.written().as_slice().to_vec() };
        let (size, attributes) = (overlay.size(), Attributes::of(&snapshot));
        let edit = self.index.edit(move |edit| {
            let (mtime, ctime) = match edit.inode(ino)? {
                Some(inode) => attributes.over((inode.mtime, inode.ctime)),
                None => (attributes.mtime, attributes.ctime),
            };
            edit.record(StagedProgress { staged: id, row, size, mtime, ctime })?;
            Ok(Ok::<_, Infallible>((mtime, ctime)))
        });
        let Ok(indexed) = edit.await.map_err(io::Error::other)?;
        staged.state.lock().recorded(snapshot.version, indexed);
        Ok(())
    }

    /// Whose file it is now; `None` when the index does not know it.
    pub(super) fn owner(&self, staged: &Staged) -> io::Result<Option<Ino>> {
        let row = self.index.staged(staged.id).map_err(io::Error::other)?;
        if let Some(row) = &row {
            staged.ino.store(row.ino.0, Ordering::Release);
            self.staged_of.insert(row.ino, staged.id);
        }
        Ok(row.map(|row| row.ino))
    }

    /// What a power cut does, for tests that crash: bytes that were not synced are garbage, or gone. This `Content` is
    /// of no use after it: open another one.
    /// # Errors
    /// What the OS or the index says.
    pub fn lose_power(&self) -> io::Result<()> {
        self.staged.iter().try_for_each(|staged| {
            let row = self.index.staged(staged.id).map_err(io::Error::other)?;
            staged.lose_power(row.map_or_else(Vec::new, |row| row.ranges))
        })
    }
}

/// The attributes of a snapshot, and what they were made from.
#[derive(Clone, Copy)]
struct Attributes {
    mtime: Time,
    ctime: Time,
    indexed: (Time, Time),
}

impl Attributes {
    fn of(snapshot: &Snapshot) -> Attributes {
        Attributes { mtime: snapshot.mtime, ctime: snapshot.ctime, indexed: snapshot.indexed }
    }

    /// A time that a SETATTR has put into the index since is newer than the WRITE that this began with.
    fn over(self, (mtime, ctime): (Time, Time)) -> (Time, Time) {
        (if mtime == self.indexed.0 { self.mtime } else { mtime }, self.ctime.max(ctime))
    }
}

impl Staged {
    /// Brings what was written to the disk. Blocks.
    fn flush(&self) -> io::Result<Snapshot> {
        let snapshot = self.state.lock().begin_sync();
        let flushed = if snapshot.has_bytes { self.flush_bytes(&snapshot) } else { Ok(()) };
        // first: whoever hears of the failure has the new verifier
        if flushed.is_err() {
            self.volume.change_verifier();
        }
        self.state.lock().end_sync(&flushed);
        flushed.map(|()| snapshot)
    }

    fn flush_bytes(&self, snapshot: &Snapshot) -> io::Result<()> {
        for range in &snapshot.suspect {
            self.write_again(range.clone())?;
        }
        self.volume.faults.before_sync()?;
        self.file()?.sync_data()?;
        self.ahead.settled()?;
        let ticket = self.name.load(Ordering::Acquire);
        if ticket > 0 {
            self.volume.dir.settle_name(ticket)?;
            self.name.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the kernel take `range` for dirty again. It may have been cut off meanwhile: then the file ends before.
    fn write_again(&self, range: Range<u64>) -> io::Result<()> {
        let file = self.file()?;
        for at in range.clone().step_by(CHUNK_BYTES as usize) {
            let _gate = self.gate.write();
            let end = range.end.min(self.state.lock().overlay.size()).min(at + CHUNK_BYTES);
            let mut chunk = vec![0; end.saturating_sub(at) as usize];
            read_exact_at(&file, &mut chunk, at)?;
            write_all_at(&file, &chunk, at)?;
        }
        Ok(())
    }

    /// Leaves of the file what is durable.
    fn lose_power(&self, durable: Vec<Range<u64>>) -> io::Result<()> {
        let Some(file) = self.file.get() else { return Ok(()) };
        let mut lost = self.state.lock().unsynced();
        durable.iter().for_each(|range| lost.remove(range.clone()));
        for range in lost.as_slice() {
            let garbage = vec![0xde; (range.end - range.start) as usize];
            write_all_at(file, &garbage, range.start)?;
        }
        match durable.last() {
            Some(last) => file.set_len(last.end),
            None => self.volume.dir.unlink(self.id),
        }
    }
}
