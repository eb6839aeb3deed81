//! A disk that fills up, and has room again; and the files in memory that this and `crash.rs` use.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::StorageBackend;

use super::*;
use crate::index::commit::Files;
use crate::index::{IndexError, open};

/// The files of an index, in memory.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) index: File,
    pub(super) log: File,
    switches: Arc<Switches>,
}

#[derive(Debug, Default)]
struct Switches {
    full: AtomicBool,
    /// How many writes and syncs there will be until the power fails, when it does.
    power: Mutex<Option<usize>>,
    /// Whether it is back after one write or sync that failed.
    comes_back: AtomicBool,
}

/// A file in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    bytes: Arc<Mutex<Bytes>>,
    switches: Arc<Switches>,
}

#[derive(Clone, Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Where the last write ended.
    end: usize,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::with(Vec::new(), Vec::new())
    }
}

impl Disk {
    /// A disk that holds these files.
    pub(super) fn with(index: Vec<u8>, log: Vec<u8>) -> Disk {
        let switches = Arc::<Switches>::default();
        let file = |bytes: Vec<u8>| {
            let bytes = Bytes { now: bytes.clone(), synced: bytes, ..Bytes::default() };
            File { bytes: Arc::new(Mutex::new(bytes)), switches: Arc::clone(&switches) }
        };
        Disk { index: file(index), log: file(log), switches }
    }

    /// Another one with the same files.
    pub(super) fn copy(&self) -> Disk {
        Disk::with(self.index.written(), self.log.written())
    }

    pub(super) fn set_full(&self, full: bool) {
        self.switches.full.store(full, Ordering::Release);
    }

    /// Has the power fail after so many writes and syncs; from then on both files fail, and stay as they are.
    pub(super) fn fail_after(&self, writes: usize) {
        *self.switches.power.lock() = Some(writes);
    }

    /// Has one write or sync fail after so many others.
    pub(super) fn fail_once_after(&self, writes: usize) {
        self.switches.comes_back.store(true, Ordering::Release);
        self.fail_after(writes);
    }

    pub(super) fn open(&self, log_bytes: usize, clock: &Clock) -> Result<Index, IndexError> {
        let (index, log) = (self.index.clone(), self.log.clone());
        let files = Files {
            database: Box::new(move || Ok(redb::Builder::new().create_with_backend(index.clone())?)),
            log: Box::new(move || Ok(Box::new(log.clone()))),
            log_bytes,
        };
        open::open(files, OPTIONS, DEFAULTS, clock.clone())
    }
}

impl File {
    /// What a process that is killed leaves.
    pub(super) fn written(&self) -> Vec<u8> {
        self.bytes.lock().now.clone()
    }

    /// What a loss of power leaves: what was synced, and of each later write as many bytes as `kept` says.
    pub(super) fn after_power_loss(&self, mut kept: impl FnMut(usize) -> usize) -> Vec<u8> {
        let Bytes { now, mut synced, unsynced, .. } = self.bytes.lock().clone();
        synced.resize(now.len(), 0);
        for (at, data) in unsynced {
            let kept = kept(data.len()).min(data.len()).min(synced.len().saturating_sub(at));
            synced[at..at + kept].copy_from_slice(&data[..kept]);
        }
        synced
    }

    /// Where the last write ended.
    pub(super) fn end(&self) -> usize {
        self.bytes.lock().end
    }

    /// One write or sync: whether there is room and power for it.
    fn allowed(&self) -> io::Result<()> {
        let mut power = self.switches.power.lock();
        if *power == Some(0) {
            if self.switches.comes_back.load(Ordering::Acquire) {
                *power = None;
            }
            return Err(io::Error::other("no power"));
        }
        *power = power.map(|left| left - 1);
        let full = self.switches.full.load(Ordering::Acquire);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock();
        out.copy_from_slice(bytes.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().now.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    /// Like Linux, a sync that fails forgets what it had to write: the file reads as written, and never becomes so.
    fn sync_data(&self) -> io::Result<()> {
        let allowed = self.allowed();
        let mut bytes = self.bytes.lock();
        let Bytes { now, synced, unsynced, .. } = &mut *bytes;
        if allowed.is_err() && self.switches.comes_back.load(Ordering::Acquire) {
            unsynced.clear();
        }
        allowed?;
        synced.resize(now.len(), 0);
        for (at, data) in unsynced.drain(..) {
            let kept = data.len().min(synced.len().saturating_sub(at));
            synced[at..at + kept].copy_from_slice(&data[..kept]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.allowed()?;
        let at = usize::try_from(offset).unwrap();
        let mut bytes = self.bytes.lock();
        bytes.now[at..at + data.len()].copy_from_slice(data);
        bytes.unsynced.push((at, data.to_vec()));
        bytes.end = at + data.len();
        Ok(())
    }
}

/// A full disk fails a command and nothing after it once there is room; also when the log can take no more.
async fn full_disk(log_bytes: usize) {
    let (disk, clock) = (Disk::default(), Clock::manual());
    let index = disk.open(log_bytes, &clock).unwrap();
    let bench = Bench { dir: tempfile::tempdir().unwrap(), index, clock };
    let before = bench.put("f", "1").await;

    disk.set_full(true);
    for _ in 0..2 {
        let failed = bench.index.apply(bench.observation("f", head("2", &[]))).await;
        assert!(failed.unwrap_err().is_disk_full());
    }
    disk.set_full(false);

    let after = bench.put("g", "1").await;
    assert!(after.ino > before.ino);
    assert_eq!(bench.node("f").unwrap().inode, before.inode, "of what failed nothing is kept");
    assert_eq!(bench.put("f", "2").await.ino, before.ino);
    assert_eq!(bench.index.counts().files, 2);
}

/// Readers must not take a name for absent that a listing has just brought and no commit has shown yet.
#[tokio::test]
async fn a_listing_makes_nothing_fresh_before_its_commit() {
    let (disk, clock) = (Disk::default(), Clock::manual());
    let index = disk.open(1 << 16, &clock).unwrap();
    let bench = Bench { dir: tempfile::tempdir().unwrap(), index, clock };
    let (file, _) = (bench.put("d/a", "1").await, bench.put("d/b", "1").await);
    let dir = bench.node("d/").unwrap();
    let checked = file.freshness.checked();
    let page = || Page { last: true, ..bench.page(&[("d/a", "1"), ("d/new", "1")]) };
    let [refused, taken] = [bench.sweep(dir.ino, false), bench.sweep(dir.ino, false)];

    disk.set_full(true);
    assert!(bench.index.apply_page(refused, page()).await.is_err());
    assert_eq!((dir.freshness.checked(), file.freshness.checked()), (Tick::NEVER, checked));
    disk.set_full(false);

    let page = page();
    let sent = page.sent;
    bench.index.apply_page(taken, page).await.unwrap();
    assert_eq!(bench.node("d/").unwrap().freshness.checked(), sent);
}

#[tokio::test]
async fn a_full_disk_fails_the_command_and_nothing_after_it_once_there_is_room() {
    full_disk(1 << 16).await;
}

#[tokio::test]
async fn so_it_does_where_every_commit_is_a_checkpoint() {
    full_disk(0).await;
}
