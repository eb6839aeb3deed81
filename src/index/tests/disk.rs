//! A disk that fills up, and has room again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::index::open;

/// A file in memory, on a disk that can be full.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        let full = self.full.load(Ordering::Acquire);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn index(&self, clock: &Clock) -> Index {
        let disk = self.clone();
        let database = Box::new(move || Ok(redb::Builder::new().create_with_backend(disk.clone())?));
        open::open(database, OPTIONS, DEFAULTS, clock.clone()).unwrap()
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock()[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_command_and_nothing_after_it_once_there_is_room() {
    let (disk, clock) = (Disk::default(), Clock::manual());
    let bench = Bench { dir: tempfile::tempdir().unwrap(), index: disk.index(&clock), clock: clock.clone() };
    let before = bench.put("f", "1").await;

    disk.full.store(true, Ordering::Release);
    for _ in 0..2 {
        let failed = bench.index.apply(bench.observation("f", head("2", &[]))).await;
        assert!(failed.unwrap_err().is_disk_full());
    }
    disk.full.store(false, Ordering::Release);

    let after = bench.put("g", "1").await;
    assert!(after.ino > before.ino);
    assert_eq!(bench.node("f").unwrap().inode, before.inode, "of what failed nothing is kept");
    assert_eq!(bench.put("f", "2").await.ino, before.ino);
    assert_eq!(bench.index.counts().files, 2);
}
