//! Copies of a file that is never quiet.

use super::*;

/// How `Block`s are written: the one after the other, again and again, each with the number of its write.
const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_the_file_was_at_one_moment() {
    let rig = Arc::new(Rig::new(CacheLimit::Bytes(1 << 30)));
    let staged = rig.made("f").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, file, stopped) = (rig.clone(), staged.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut number = 0u64;
        while !stopped.load(Ordering::Acquire) {
            let block = number.to_be_bytes().repeat(BLOCK_BYTES as usize / 8);
            writer.write(&file, number % BLOCKS * BLOCK_BYTES, &block).await.unwrap();
            number += 1;
        }
    });
    for _ in 0..20 {
        while staged.live().size < BLOCKS * BLOCK_BYTES {
            tokio::task::yield_now().await;
        }
        let frozen = rig.content.freeze(&staged).await.unwrap();
        let bytes = frozen.bytes().read(0..u64::MAX, None).unwrap().0;
        let numbers: Vec<u64> = bytes.chunks_exact(8).map(|n| u64::from_be_bytes(n.try_into().unwrap())).collect();
        let last = *numbers.iter().max().unwrap();
        for (block, numbers) in numbers.chunks_exact(BLOCK_BYTES as usize / 8).enumerate() {
            let wanted = last - (last - block as u64) % BLOCKS;
            assert!(numbers.iter().all(|number| *number == wanted), "block {block} at write {last}: {}", numbers[0]);
        }
        let id = frozen.bytes().id();
        assert!(rig.has_staging(id) && rig.content.stray_staging().unwrap().is_empty());
        drop(frozen);
        assert!(!rig.has_staging(id));
    }
    stop.store(true, Ordering::Release);
    writing.await.unwrap();
    assert_eq!(rig.content.staging_usage().1, 1);
}

#[tokio::test]
async fn a_copy_lies_over_the_same_version() {
    let rig = Rig::new(CacheLimit::Bytes(1 << 30));
    let staged = rig.staged_over(b"0123456789", &[0..10]).await;
    rig.write(&staged, 2, b"ab").await.unwrap();
    rig.write(&staged, 12, b"cd").await.unwrap();
    let frozen = rig.content.freeze(&staged).await.unwrap();
    rig.write(&staged, 0, b"later").await.unwrap();
    rig.resize(&staged, 3).await;
    let below = rig.base(&staged).map(Below::Version);
    let bytes = frozen.bytes().read(0..u64::MAX, below.as_ref()).unwrap().0;
    assert_eq!(bytes, &b"01ab456789\0\0cd"[..]);
    assert_eq!(frozen.bytes().written(), [2..4, 12..14]);
    assert!(frozen.origin().1 < staged.version());
}
