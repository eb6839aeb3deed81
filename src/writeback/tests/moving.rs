//! Renames: copied inside S3, then removed; of files, of directories, in circles, through a crash.

use super::*;
use crate::s3server::Fault;

#[tokio::test]
async fn a_move_is_a_copy_and_then_a_delete() {
    let rig = Rig::new().await;
    rig.write("a", "bytes").await;
    rig.sync().await;
    rig.s3.requests().reset();
    rig.rename("a", "b").await;
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Copy, "b"), request(Request::Delete, "a")]);
    assert_eq!(rig.bucket.get("b").unwrap().user["file-mtime"], format!("{}ns", rig.node("b").mtime.0));
    assert_eq!(rig.read("b").await, "bytes");
}

#[tokio::test]
async fn a_move_over_a_file_replaces_it_without_a_gap() {
    let rig = Rig::new().await;
    rig.write("a", "new").await;
    rig.write("b", "old").await;
    rig.sync().await;
    rig.s3.requests().reset();
    rig.rename("a", "b").await;
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Copy, "b"), request(Request::Delete, "a")]);
    assert_eq!((rig.bucket.keys(), rig.stored("b").as_deref()), (vec!["b".to_owned()], Some("new")));
}

#[tokio::test]
async fn moved_and_moved_back_is_nothing() {
    let rig = Rig::new().await;
    rig.write("a", "bytes").await;
    rig.sync().await;
    rig.s3.requests().reset();
    rig.rename("a", "b").await;
    rig.rename("b", "a").await;
    rig.sync().await;
    assert_eq!(rig.writes(), []);
}

#[tokio::test]
async fn a_new_file_at_the_old_name_waits_for_the_move() {
    let rig = Rig::new().await;
    rig.write("a", "first").await;
    rig.sync().await;
    rig.rename("a", "b").await;
    rig.write("a", "second").await;
    rig.sync().await;
    assert_eq!((rig.stored("a").as_deref(), rig.stored("b").as_deref()), (Some("second"), Some("first")));
}

#[tokio::test]
async fn swapped_names_are_swapped_in_s3() {
    let rig = Rig::new().await;
    for file in ["a", "b", "c"] {
        rig.write(file, format!("was {file}")).await;
    }
    rig.sync().await;
    rig.rename("a", "t").await;
    rig.rename("b", "a").await;
    rig.rename("c", "b").await;
    rig.rename("t", "c").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!(rig.bucket.keys(), ["a", "b", "c"]);
    let stored = ["a", "b", "c"].map(|key| rig.stored(key).unwrap());
    assert_eq!(stored, ["was b", "was c", "was a"]);
    assert_eq!(rig.index.contradictions().unwrap(), Vec::<String>::new());
}

/// What an upload has to tell may come when the journal has the move already.
#[tokio::test]
async fn sync_waits_for_a_move_whatever_the_upload_before_it_tells() {
    let rig = Rig::new().await;
    rig.write("a", "bytes").await;
    let change = rig.index.task(rig.node("a").ino).unwrap().unwrap().pending.change;
    rig.sync().await;
    let gate = rig.s3.faults().hold(Request::Copy);
    rig.rename("a", "b").await;
    let moved = rig.index.task(rig.node("b").ino).unwrap().unwrap().pending.change;
    let mut synced = Box::pin(rig.writeback.synced(None));
    assert!(futures::poll!(&mut synced).is_pending());
    for change in [change, moved] {
        rig.writeback.tell_settled(&Work::Inode(rig.node("b").ino), Some(change), None);
        assert!(futures::poll!(&mut synced).is_pending());
    }
    gate.release();
    within(synced).await.unwrap();
    assert_eq!(rig.bucket.keys(), ["b"]);
}

/// The copy was told when nobody waited for it yet.
#[tokio::test]
async fn sync_waits_for_the_delete_of_a_move_that_went_on_while_it_read_the_journal() {
    let rig = Rig::new().await;
    rig.write("a", "bytes").await;
    rig.sync().await;
    rig.rename("a", "b").await;
    let (rows, _) = rig.writeback.rows(None).unwrap();
    let gate = rig.s3.faults().hold(Request::Delete);
    rig.meanwhile(gate.arrived()).await;
    let registered = rig.writeback.register(rows, None).unwrap();
    let left = Work::Away(Key::new("a").unwrap());
    assert!(sync::is_waited_for(&rig.writeback.state.lock().waiters, &left));
    gate.release();
    within(rig.writeback.wait_for(registered)).await.unwrap();
    assert_eq!(rig.bucket.keys(), ["b"]);
}

#[tokio::test]
async fn sync_waits_for_a_marker_whose_directory_was_renamed_during_its_upload() {
    let rig = Rig::new().await;
    let gate = rig.s3.faults().hold_answer(Request::Put);
    rig.mkdir("a").await;
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.rename("a", "b").await;
    let mut synced = Box::pin(rig.writeback.synced(None));
    assert!(futures::poll!(&mut synced).is_pending());
    gate.release();
    within(synced).await.unwrap();
    assert_eq!(rig.bucket.keys(), ["b/"]);
}

async fn fifty(rig: &Rig) {
    rig.mkdir("old").await;
    rig.mkdir("old/sub").await;
    for n in 0..50 {
        let dir = if n % 2 == 0 { "old" } else { "old/sub" };
        rig.write(&format!("{dir}/f{n}"), format!("bytes {n}")).await;
    }
    rig.sync().await;
    rig.s3.requests().reset();
}

fn all_moved(rig: &Rig) {
    for n in 0..50 {
        let dir = if n % 2 == 0 { "new" } else { "new/sub" };
        assert_eq!(rig.stored(&format!("{dir}/f{n}")), Some(format!("bytes {n}")));
    }
    assert!(rig.bucket.keys().iter().all(|key| key.starts_with("new/")), "{:?}", rig.bucket.keys());
}

#[tokio::test]
async fn a_renamed_directory_is_copied_inside_s3() {
    let rig = Rig::new().await;
    fifty(&rig).await;
    rig.rename("old", "new").await;
    rig.sync().await;
    all_moved(&rig);
    assert_eq!((rig.s3.requests().count(Request::Put), rig.s3.requests().count(Request::Get)), (0, 0));
    assert_eq!(rig.s3.requests().count(Request::Copy), 50);
}

/// The one that it was in leaves, and the one that it is in takes that name.
#[tokio::test]
async fn a_directory_that_comes_to_be_in_its_place_again_stays_there() {
    let rig = Rig::new().await;
    for dir in ["a", "a/d", "b"] {
        rig.mkdir(dir).await;
    }
    rig.write("a/d/f", "bytes").await;
    rig.write("a/g", "beside").await;
    rig.sync().await;
    for (from, to) in [("a/d", "b/d"), ("a", "old"), ("b", "a")] {
        rig.rename(from, to).await;
    }
    rig.write("a/d/new", "new").await;
    rig.sync().await;
    let stored = ["a/d/f", "a/d/new", "old/g"].map(|key| rig.stored(key).unwrap());
    assert_eq!(stored, ["bytes", "new", "beside"]);
    assert!(!rig.bucket.keys().iter().any(|key| key.starts_with("b/")), "{:?}", rig.bucket.keys());
    assert_eq!(rig.index.contradictions().unwrap(), Vec::<String>::new());
}

/// The file is at its key already, but its directory is not yet told to be in its place.
#[tokio::test]
async fn sync_of_a_directory_that_was_moved_back_in_mid_move_waits_for_no_quiet() {
    let rig = Rig::new().await;
    for dir in ["a", "a/d"] {
        rig.mkdir(dir).await;
    }
    rig.write("a/d/f", "bytes").await;
    rig.sync().await;
    rig.s3.faults().inject_always(Request::Copy, Fault::Denied);
    rig.s3.requests().reset();
    rig.rename("a", "b").await;
    rig.meanwhile(rig.s3.requests().reached(Request::Copy, 1)).await;
    rig.rename("b", "a").await;
    rig.s3.faults().clear();
    rig.sync().await;
    assert_eq!(rig.stored("a/d/f").unwrap(), "bytes");
}

#[tokio::test]
async fn a_directory_rename_goes_on_after_a_crash_in_its_middle() {
    let rig = Rig::new().await;
    fifty(&rig).await;
    rig.rename("old", "new").await;
    let gate = rig.s3.faults().hold_answer(Request::Copy);
    gate.pass(20);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived_count(22)).await;
    let rig = rig.crash().await;
    drop(gate);
    assert_eq!(rig.read("new/f4").await, "bytes 4");
    rig.sync().await;
    all_moved(&rig);
    assert!(rig.conflicts().is_empty(), "{:?}", rig.conflicts());
}

#[tokio::test]
async fn a_file_written_in_a_moved_directory_goes_to_its_new_place() {
    let rig = Rig::new().await;
    fifty(&rig).await;
    rig.rename("old", "new").await;
    rig.write("new/f2", "changed").await;
    rig.write("new/more", "more").await;
    rig.remove("new/f4").await;
    rig.sync().await;
    assert_eq!((rig.stored("new/f2").as_deref(), rig.stored("new/more").as_deref()), (Some("changed"), Some("more")));
    assert_eq!(rig.stored("new/f4"), None);
    assert!(rig.bucket.keys().iter().all(|key| key.starts_with("new/")), "{:?}", rig.bucket.keys());
    assert_eq!(rig.bucket.len(), 50);
}
