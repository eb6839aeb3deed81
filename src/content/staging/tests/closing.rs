//! Files that are closed, removed, or found at a start.

use super::*;

#[tokio::test]
async fn nobody_writes_to_a_closed_file() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let writing = staged.write_turn().await.unwrap();
    let sole = tokio::spawn({
        let staged = staged.clone();
        async move { staged.sole_turn().await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(!sole.is_finished());
    assert!(staged.try_write_turn().is_none(), "who wants it alone is not starved");
    drop(writing);
    let sole = sole.await.unwrap();
    let waiting = tokio::spawn({
        let staged = staged.clone();
        async move { staged.write_turn().await }
    });
    tokio::task::yield_now().await;
    rig.remove(&staged).await;
    rig.content.close_staged(&staged, sole);
    assert!(waiting.await.unwrap().is_none());
    assert!(staged.try_write_turn().is_none() && staged.sole_turn().await.is_none());
    assert!(rig.content.staged_if_open(staged.ino()).is_none());
    assert_eq!(rig.content.staging_usage(), (0, 0));
}

#[tokio::test]
async fn closed_file_that_is_still_wanted_is_opened_again_as_it_was() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    let sole = staged.sole_turn().await.unwrap();
    rig.content.close_staged(&staged, sole);
    let again = rig.content.staged(&rig.node(staged.ino())).unwrap();
    assert!(!Arc::ptr_eq(&staged, &again) && again.version() > staged.version());
    assert_eq!(rig.whole(&again), b"abc");
}

impl Rig {
    async fn remove(&self, staged: &Staged) {
        let name = Name::new(b"f").unwrap();
        let edit = self.index.edit(move |edit| {
            let found = edit.child(Ino::ROOT, &name)?.unwrap();
            Ok(Ok::<_, Infallible>(edit.remove(Ino::ROOT, &found)?))
        });
        edit.await.unwrap().unwrap();
        assert!(self.index.staged(staged.id()).unwrap().is_none());
    }
}

#[tokio::test]
async fn removed_file_goes_with_the_garbage_and_its_writers_come_to_nothing() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let node = rig.node(staged.ino());
    rig.write(&staged, 0, b"abc").await.unwrap();
    rig.remove(&staged).await;
    rig.content.sync(&staged).await.unwrap();
    rig.settle().await;
    assert!(!rig.has_staging(staged.id()) && staged.write_turn().await.is_none());
    assert_eq!(rig.content.staging_usage(), (0, 0));
    let stale = rig.content.staged(&node).unwrap_err();
    assert_eq!(stale.kind(), io::ErrorKind::StaleNetworkFileHandle);
}

#[tokio::test]
async fn start_counts_rows_sweeps_orphans_and_keeps_what_is_lost() {
    let mut rig = Rig::roomy();
    let kept = rig.made("kept").await;
    let lost = rig.made("lost").await;
    let fresh = rig.made("fresh").await;
    for staged in [&kept, &lost] {
        rig.write(staged, 5, b"abc").await.unwrap();
        rig.content.sync(staged).await.unwrap();
    }
    std::fs::write(rig.content.volume.dir.path(lost.id()), "short").unwrap();
    let orphan = ObjectId(0xdead);
    std::fs::write(rig.content.volume.dir.path(orphan), "of a crash").unwrap();
    std::fs::write(rig.dir.path().join("staging/notes"), "not ours").unwrap();
    rig.restart();
    let link = rig.content.stage_bytes(Bytes::from_static(b"target")).await.unwrap();

    rig.content.load_rows().await.unwrap();
    rig.content.sweep_orphans().await.unwrap();

    assert_eq!(rig.content.staging_usage(), (12, 4));
    assert!(rig.has_staging(kept.id()) && rig.has_staging(lost.id()) && rig.has_staging(link));
    assert!(!rig.has_staging(orphan) && rig.dir.path().join("staging/notes").exists());
    assert_eq!(rig.content.staged(&rig.node(lost.ino())).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(rig.index.staged(lost.id()).unwrap().is_some());
    rig.content.staged(&rig.node(fresh.ino())).unwrap();
}

#[tokio::test]
async fn files_that_nobody_uses_are_closed_and_those_that_are_ahead_are_not() {
    let rig = Rig::roomy();
    let (settled, ahead, used) = (rig.made("a").await, rig.made("b").await, rig.made("c").await);
    rig.write(&ahead, 0, b"abc").await.unwrap();
    let ids = [settled.id(), ahead.id(), used.id()];
    drop((settled, ahead));
    rig.content.most_staged.store(0, Ordering::Relaxed);
    rig.content.close_idle();
    assert_eq!(ids.map(|id| rig.content.staged.contains_key(&id)), [false, true, true]);
    assert_eq!(rig.content.staging_usage().0, 3);
}
