//! Long objects: in parts, changed parts only, resumed after a restart, aborted when obsolete.

use super::*;
use crate::s3server::Fault;

/// 20 MiB that differ everywhere: four parts of 5 MiB.
fn long(seed: u64) -> Vec<u8> {
    (0..20 * MIB as u64).map(|at| (at.wrapping_mul(31).wrapping_add(seed * 7 + (at >> 13)) % 251) as u8).collect()
}

fn is(rig: &Rig, key: &str, wanted: &[u8]) -> bool {
    rig.bucket.get(key).is_some_and(|stored| stored.bytes == wanted)
}

#[tokio::test]
async fn a_long_file_goes_up_in_parts() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    rig.sync().await;
    assert!(is(&rig, "f", &long(1)));
    assert_eq!(rig.s3.requests().count(Request::UploadPart), 4);
    assert_eq!(rig.bucket.get("f").unwrap().user["file-permissions"], "0100644");
    assert!(rig.index.uploads().unwrap().is_empty());
}

#[tokio::test]
async fn a_small_change_sends_its_part_alone() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    rig.sync().await;
    rig.s3.requests().reset();
    rig.write_at("f", 6 * MIB as u64, "changed").await;
    rig.sync().await;
    let mut wanted = long(1);
    wanted[6 * MIB..6 * MIB + 7].copy_from_slice(b"changed");
    assert!(is(&rig, "f", &wanted));
    let count = |kind| rig.s3.requests().count(kind);
    assert_eq!((count(Request::UploadPart), count(Request::UploadPartCopy), count(Request::Get)), (1, 3, 0));
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    let gate = rig.s3.faults().hold(Request::UploadPart);
    rig.meanwhile(gate.arrived_count(4)).await;
    gate.pass(2);
    let two_sent = async {
        while rig.writeback.counts().bytes < 10 << 20 {
            tokio::task::yield_now().await;
        }
    };
    rig.meanwhile(two_sent).await;
    assert_eq!(rig.index.uploads().unwrap().len(), 1);
    let rig = rig.crash().await;
    gate.release();
    rig.sync().await;
    assert!(is(&rig, "f", &long(1)));
    assert_eq!(rig.s3.requests().count(Request::UploadPart), 2);
    assert_eq!(rig.s3.requests().count(Request::CreateUpload), 0);
}

#[tokio::test]
async fn an_upload_of_what_changed_meanwhile_is_aborted() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    let gate = rig.s3.faults().hold(Request::CompleteUpload);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write("f", long(2)).await;
    gate.release();
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert!(is(&rig, "f", &long(2)));
    assert!(rig.conflicts().is_empty());
    rig.write("g", long(3)).await;
    let gate = rig.s3.faults().hold(Request::UploadPart);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write("g", "short now").await;
    gate.release();
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert!(is(&rig, "g", b"short now"));
    assert!(rig.index.uploads().unwrap().is_empty());
}

#[tokio::test]
async fn a_completion_that_landed_without_an_answer_is_no_conflict() {
    let rig = Rig::new().await;
    rig.s3.faults().inject(Request::CompleteUpload, 1, Fault::FailAfterApply);
    rig.write("f", long(1)).await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert!(is(&rig, "f", &long(1)));
    assert_eq!((rig.conflicts().len(), rig.bucket.len()), (0, 1));
    assert_eq!(rig.s3.requests().count(Request::UploadPart), 4);
}

#[tokio::test]
async fn an_upload_that_lost_its_file_is_aborted_at_the_next_start() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    let gate = rig.s3.faults().hold(Request::UploadPart);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.remove("f").await;
    let rig = rig.crash().await;
    drop(gate);
    within(rig.s3.requests().reached(Request::AbortUpload, 1)).await;
    rig.sync().await;
    assert_eq!(rig.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_is_aborted_when_nothing_is_left_to_upload() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    rig.s3.faults().inject(Request::UploadPart, 4, Fault::SlowDown);
    let noted = async {
        while rig.writeback.progress().failures.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    rig.meanwhile(noted).await;
    assert_eq!(rig.index.uploads().unwrap().len(), 1);
    rig.remove("f").await;
    rig.meanwhile(rig.s3.requests().reached(Request::AbortUpload, 1)).await;
    let forgotten = async {
        while rig.writeback.progress() != Progress::default() {
            tokio::task::yield_now().await;
        }
    };
    rig.meanwhile(forgotten).await;
    assert!(rig.index.uploads().unwrap().is_empty());
    assert_eq!(rig.bucket.keys(), Vec::<String>::new());
}

/// `bytes` with `"changed"` written at 6 MiB.
fn changed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[6 * MIB..6 * MIB + 7].copy_from_slice(b"changed");
    bytes
}

/// A long file of S3 that was changed here; `is_here`: all of it was here before.
async fn changed_here(on_conflict: OnConflict, is_here: bool) -> Rig {
    let rig = Rig::with(Settings { on_conflict, ..settings() }).await;
    rig.bucket.put("f", long(1), &[]);
    rig.refresh().await;
    if is_here {
        within(rig.revalidator.warm(rig.node("f").ino)).await.unwrap();
    }
    rig.write_at("f", 6 * MIB as u64, "changed").await;
    rig
}

fn beside(rig: &Rig) -> Option<String> {
    rig.bucket.keys().into_iter().find(|key| key.starts_with("f.conflict-test"))
}

#[tokio::test]
async fn a_long_file_that_wins_has_no_byte_of_the_version_that_lost() {
    let rig = changed_here(OnConflict::LocalWins, true).await;
    rig.bucket.put("f", long(2), &[]);
    rig.sync().await;
    assert!(is(&rig, "f", &changed(long(1))));
    assert_eq!((rig.conflicts().len(), rig.names()), (1, vec!["f".to_owned()]));

    let rig = changed_here(OnConflict::LocalWins, true).await;
    let gate = rig.s3.faults().hold(Request::UploadPartCopy);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived_count(3)).await;
    gate.pass(2);
    within(rig.s3.requests().reached(Request::UploadPartCopy, 2)).await;
    rig.bucket.put("f", long(2), &[]);
    gate.release();
    rig.sync().await;
    assert!(is(&rig, "f", &changed(long(1))), "also when it lost in the middle of the upload");
    assert!(rig.index.uploads().unwrap().is_empty());
}

#[tokio::test]
async fn a_long_file_that_is_not_all_here_cannot_win() {
    for mode in [OnConflict::LocalWins, OnConflict::KeepBoth, OnConflict::RemoteWins] {
        let rig = changed_here(mode, false).await;
        rig.bucket.put("f", long(2), &[]);
        rig.sync().await;
        assert!(is(&rig, "f", &long(2)), "{mode:?}: S3's version stays what it is");
        assert_eq!(rig.conflicts().len(), 1);
        let Some(beside) = beside(&rig) else {
            assert_eq!(mode, OnConflict::RemoteWins);
            continue;
        };
        assert_ne!(mode, OnConflict::RemoteWins);
        assert_eq!(rig.conflicts()[0].kept_as, beside);
        assert!(is(&rig, &beside, &changed(vec![0; 20 * MIB])), "what was here of the other one, zeros for the rest");
    }
}

#[tokio::test]
async fn a_long_file_that_was_renamed_and_changed_leaves_the_old_name_to_others() {
    for is_here in [true, false] {
        let rig = changed_here(OnConflict::KeepBoth, is_here).await;
        rig.rename("f", "g").await;
        rig.bucket.put("f", long(2), &[]);
        rig.sync().await;
        let below = if is_here { long(1) } else { vec![0; 20 * MIB] };
        assert!(is(&rig, "f", &long(2)) && is(&rig, "g", &changed(below)));
        assert_eq!((rig.conflicts().len(), rig.names()), (1, vec!["f".to_owned(), "g".to_owned()]));
    }
}

#[tokio::test]
async fn a_long_file_whose_version_is_removed_goes_up_as_far_as_it_is_here() {
    let rig = changed_here(OnConflict::KeepBoth, true).await;
    rig.bucket.delete("f");
    rig.sync().await;
    assert!(is(&rig, "f", &changed(long(1))));
    assert!(rig.conflicts()[0].what.contains("removed in S3"), "{:?}", rig.conflicts());
}

/// The four bytes at the begin of what S3 has, if all else is `long(1)`, and nothing else was ever there.
fn stamp(rig: &Rig) -> Option<String> {
    let stored = rig.bucket.get("f")?.bytes;
    assert!(stored[4..] == long(1)[4..], "a mixture of two states");
    Some(String::from_utf8(stored[..4].to_vec()).unwrap())
}

/// Writes to the file every `pause`, doing `also` each time, until `end`.
async fn restless(rig: &Rig, pause: Duration, also: impl Fn(), end: impl Fn() -> bool) {
    for n in 0..500 {
        rig.write_at("f", 0, format!("{n:04}")).await;
        rig.clock.advance(pause);
        also();
        tokio::time::sleep(Duration::from_millis(2)).await;
        if end() {
            return;
        }
    }
    panic!("it never ended: {:?} {:?}", rig.writes(), rig.writeback.progress());
}

#[tokio::test]
async fn a_long_file_that_is_never_quiet_goes_up_as_it_was_at_one_moment() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    let gate = rig.s3.faults().hold(Request::UploadPart);
    restless(&rig, DELAY / 2, || (), || gate.count() == 4).await;
    assert!(rig.content.staging_usage().0 >= 40 << 20, "two files are there");
    rig.write_at("f", 6 * MIB as u64, "changed").await;
    gate.release();
    restless(&rig, DELAY / 2, || (), || rig.bucket.get("f").is_some()).await;
    assert!(stamp(&rig).is_some());
    assert_eq!(rig.s3.requests().count(Request::AbortUpload), 0);

    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    let wanted = changed(long(1));
    assert!(rig.bucket.get("f").is_some_and(|stored| stored.bytes[4..] == wanted[4..]));
    assert!(rig.conflicts().is_empty() && rig.index.uploads().unwrap().is_empty());
    let left = rig.content.stray_staging().unwrap();
    assert!(left.is_empty() && rig.content.staging_usage() == (0, 0), "{left:?}");
}

#[tokio::test]
async fn a_long_file_that_changes_during_each_upload_goes_up_after_the_longest_delay() {
    let rig = Rig::new().await;
    rig.write("f", long(1)).await;
    let gate = rig.s3.faults().hold(Request::UploadPart);
    restless(&rig, DELAY * 2, || gate.pass(1), || rig.bucket.get("f").is_some()).await;
    assert!(stamp(&rig).is_some());
    assert!(rig.s3.requests().count(Request::AbortUpload) > 0);
    gate.release();
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert!(rig.conflicts().is_empty());
}
