//! Pages of a file that are not in memory: the call that needs them waits for the disk, and nobody else.
//! The one thread that may wait for disks is held, so who waits for it is seen by who is not answered.

use std::path::Path;
use std::sync::mpsc;

use super::files::{numbered_file_in, read_args};
use super::*;
use crate::rpc::send::read_resident;

/// Runs `test` on one thread, with one more that may wait for disks.
fn with_one_disk_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

/// Keeps the thread that may wait for disks busy until the sender is dropped.
async fn hold_the_disk() -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel();
    let (entered, begun) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        entered.send(()).unwrap();
        let _ = held.recv();
    });
    soon(begun).await.unwrap();
    hold
}

/// A file none of which is in memory, beside the program of this test: what is for temporary files may be memory.
fn cold_file() -> (File, Vec<u8>) {
    let program = std::env::current_exe().unwrap();
    let (file, content) = numbered_file_in(program.parent().unwrap_or(Path::new(".")));
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    (file, content)
}

/// Whether this file system keeps files elsewhere than in memory, and says which of it is there.
fn can_be_cold() -> bool {
    let told = matches!(read_resident(&cold_file().0, &mut [0], 0), Ok(false));
    if !told {
        eprintln!("skipped: files beside the test's program are always in memory, or cannot be told to be");
    }
    told
}

/// A READ of `len` cold bytes is not answered while the disk is held; everything else is.
async fn only_the_read_waits(len: u32) {
    const OFFSET: usize = 4096 + 61;
    let (file, content) = cold_file();
    let server = Server::of(file, Limits::default());
    let (mut reader, mut other) = (server.connect().await, server.connect().await);
    let disk = hold_the_disk().await;
    reader.send(&[call(1, FILE, &read_args(OFFSET as u64, len)), call(2, NULL, &[])].concat()).await;
    assert!(reader.receive().await == Some(success(2, &[])), "the call behind the READ overtakes it");
    for xid in 0..100 {
        other.ping(xid).await;
    }
    reader.ping(3).await;
    drop(disk);
    let mut expected = Vec::new();
    expected.put_opaque(&content[OFFSET..OFFSET + len as usize]);
    assert!(reader.receive().await == Some(success(1, &expected)));
}

#[test]
fn a_read_of_cold_pages_stalls_no_other_call() {
    if can_be_cold() {
        for len in [4 << 10, 128 << 10, 1 << 20] {
            with_one_disk_thread(only_the_read_waits(len));
        }
    }
}
