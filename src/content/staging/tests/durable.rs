//! Syncs: what they make durable, who shares them, and what follows from one that fails.

use super::*;

#[tokio::test]
async fn attributes_run_ahead_and_the_row_follows_a_sync() {
    let mut rig = Rig::roomy();
    let staged = rig.made("f").await;
    assert_eq!(staged.live().size, 0);
    rig.clock.advance(Duration::from_secs(3));
    let (before, after) = rig.write(&staged, 10, b"hello").await.unwrap();
    assert_eq!((before.size, after.size, staged.live()), (0, 15, after));
    assert_eq!((after.mtime, after.ctime, staged.written_at()), (after.mtime, after.mtime, rig.clock.now()));
    assert_eq!(rig.node(staged.ino()).size, 0);
    assert_eq!(rig.content.staged_if_open(staged.ino()).unwrap().id(), staged.id());

    rig.content.sync(&staged).await.unwrap();
    let node = rig.node(staged.ino());
    assert_eq!((node.size, node.mtime), (15, after.mtime));
    let staged = rig.reopen(staged);
    assert_eq!(rig.whole(&staged), b"\0\0\0\0\0\0\0\0\0\0hello");
    assert_eq!(staged.written(), vec![10..15; 1]);
    assert_eq!(rig.content.staging_usage(), (5, 1));
}

#[tokio::test]
async fn those_who_sync_at_once_share_one_fdatasync() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let held = staged.saving.clone().lock_owned().await;
    let syncs = futures::future::join_all((0..10).map(|_| rig.content.sync(&staged)));
    tokio::pin!(syncs);
    assert!(futures::poll!(&mut syncs).is_pending());
    drop(held);
    for result in syncs.await {
        result.unwrap();
    }
    assert_eq!(faults.syncs(), 1);
    let change = || rig.index.pending(staged.ino()).unwrap().unwrap().change;
    let before = change();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(change(), before, "what is known is not recorded again");
}

#[tokio::test]
async fn failed_fsync_is_told_to_all_who_waited_and_changes_the_verifier() {
    let (mut rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let verifier = rig.content.write_verifier();
    faults.fail_syncs(1);
    let held = staged.saving.clone().lock_owned().await;
    let mut both = Box::pin(futures::future::join(rig.content.sync(&staged), rig.content.sync(&staged)));
    assert!(futures::poll!(&mut both).is_pending());
    drop(held);
    let (first, second) = both.as_mut().await;
    drop(both);
    assert!(first.is_err() && second.is_err());
    assert_ne!(rig.content.write_verifier(), verifier);
    assert!(rig.index.staged(staged.id()).unwrap().unwrap().ranges.is_empty());

    let verifier = rig.content.write_verifier();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.content.write_verifier(), verifier);
    rig.content.lose_power().unwrap();
    let staged = rig.reopen(staged);
    assert_eq!(rig.whole(&staged), b"abc");
}

#[tokio::test]
async fn failed_write_back_fails_the_next_sync_which_changes_the_verifier() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let verifier = rig.content.write_verifier();
    faults.fail_write_backs(1);
    staged.write_back(0..3);
    staged.write_back(0..3);
    rig.content.sync(&staged).await.unwrap_err();
    assert_ne!(rig.content.write_verifier(), verifier);
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.index.staged(staged.id()).unwrap().unwrap().ranges, [0..3]);
}

#[tokio::test]
async fn suspect_bytes_are_written_again_and_newer_ones_kept() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &[1; 100]).await.unwrap();
    faults.fail_syncs(1);
    rig.content.sync(&staged).await.unwrap_err();
    rig.write(&staged, 50, &[2; 10]).await.unwrap();
    let snapshot = staged.state.lock().begin_sync();
    assert_eq!(snapshot.suspect, vec![0..100; 1]);
    rig.resize(&staged, 80).await;
    rig.content.sync(&staged).await.unwrap();
    assert!(staged.state.lock().begin_sync().suspect.is_empty());
    assert_eq!(rig.whole(&staged), [vec![1; 50], vec![2; 10], vec![1; 20]].concat());
}

#[tokio::test]
async fn sync_that_nobody_waits_for_still_ends_in_its_turn() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    {
        let sync = rig.content.sync(&staged);
        tokio::pin!(sync);
        assert!(futures::poll!(&mut sync).is_pending());
    }
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(staged.ino()).size, 3);
}

#[tokio::test]
async fn times_set_meanwhile_are_not_undone_by_a_sync() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let ino = staged.ino();
    let touch = crate::index::NewAttributes { mtime: Some(Time(77)), ..Default::default() };
    let edit = rig.index.edit(move |edit| Ok(Ok::<_, Infallible>(edit.set(ino, touch)?)));
    let inode = edit.await.unwrap().unwrap();
    rig.content.sync(&staged).await.unwrap();
    staged.adopt(&inode);
    assert_eq!((rig.node(ino).mtime, rig.node(ino).size, staged.live().mtime), (Time(77), 3, Time(77)));
    rig.write(&staged, 0, b"x").await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(ino).mtime, staged.live().mtime);
    assert_ne!(rig.node(ino).mtime, Time(77));
}

#[tokio::test]
async fn bytes_of_a_link_are_there_before_its_inode() {
    let mut rig = Rig::roomy();
    let id = rig.content.stage_bytes(Bytes::from_static(b"../target")).await.unwrap();
    let ino = rig.enter("link", Kind::Symlink, id, 9).await;
    rig.content.lose_power().unwrap();
    rig.restart();
    let staged = rig.content.staged(&rig.node(ino)).unwrap();
    assert_eq!(rig.whole(&staged), b"../target");
    let unwanted = rig.content.stage_bytes(Bytes::from_static(b"x")).await.unwrap();
    rig.content.abandon(unwanted);
    assert!(!rig.has_staging(unwanted));
}
