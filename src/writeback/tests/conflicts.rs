//! Both sides changed: neither is lost (D4), in all three modes; and a request that landed is no conflict.

use super::*;
use crate::s3server::Fault;

async fn with(on_conflict: OnConflict) -> Rig {
    Rig::with(Settings { on_conflict, ..settings() }).await
}

/// A file that is the same on both sides.
async fn settled(rig: &Rig, key: &str) {
    rig.write(key, "base").await;
    rig.sync().await;
}

/// The copy beside the original, if there is one: its text.
fn beside(rig: &Rig) -> Option<String> {
    let key = rig.bucket.keys().into_iter().find(|key| key.contains(".conflict-test-2026"))?;
    rig.stored(&key)
}

#[tokio::test]
async fn change_against_change_keeps_both() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.write("f", "ours").await;
    rig.bucket.put("f", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), beside(&rig).as_deref()), (Some("theirs"), Some("ours")));
    assert_eq!(rig.read("f").await, "theirs");
    let conflicts = rig.conflicts();
    assert_eq!((conflicts.len(), conflicts[0].key.as_str()), (1, "f"));
    assert!(rig.bucket.keys().contains(&conflicts[0].kept_as), "{conflicts:?}");
    assert_eq!(rig.writeback.counts().conflicts, 1);
}

#[tokio::test]
async fn change_against_change_with_a_winner() {
    for (mode, wins) in [(OnConflict::LocalWins, "ours"), (OnConflict::RemoteWins, "theirs")] {
        let rig = with(mode).await;
        settled(&rig, "f").await;
        rig.write("f", "ours").await;
        rig.bucket.put("f", "theirs", &[]);
        rig.sync().await;
        assert_eq!((rig.stored("f").as_deref(), beside(&rig)), (Some(wins), None), "{mode:?}");
        assert_eq!((rig.read("f").await.as_str(), rig.conflicts().len()), (wins, 1), "{mode:?}");
        assert_eq!(rig.names(), ["f"], "{mode:?}");
    }
}

#[tokio::test]
async fn the_copy_that_lost_is_dropped_and_no_other_file_that_has_its_name() {
    let rig = with(OnConflict::RemoteWins).await;
    for key in ["copy", "other"] {
        rig.write(key, key).await;
    }
    let copy = rig.node("copy");
    rig.writeback.drop_copy(&copy, name("other")).await.unwrap();
    assert_eq!(rig.names(), ["copy", "other"]);
    rig.writeback.drop_copy(&copy, name("copy")).await.unwrap();
    assert_eq!(rig.names(), ["other"]);
}

#[tokio::test]
async fn create_against_create() {
    for mode in [OnConflict::KeepBoth, OnConflict::LocalWins, OnConflict::RemoteWins] {
        let rig = with(mode).await;
        rig.write("f", "ours").await;
        rig.bucket.put("f", "theirs", &[]);
        rig.sync().await;
        let (wins, kept) = match mode {
            OnConflict::KeepBoth => ("theirs", Some("ours")),
            OnConflict::LocalWins => ("ours", None),
            OnConflict::RemoteWins => ("theirs", None),
        };
        assert_eq!((rig.stored("f").as_deref(), beside(&rig).as_deref()), (Some(wins), kept), "{mode:?}");
        assert_eq!((rig.read("f").await.as_str(), rig.conflicts().len()), (wins, 1), "{mode:?}");
    }
}

#[tokio::test]
async fn the_same_bytes_on_both_sides_are_no_conflict() {
    let rig = with(OnConflict::KeepBoth).await;
    rig.write("f", "same").await;
    rig.bucket.put("f", "same", &[("colour", "blue")]);
    rig.sync().await;
    assert_eq!((rig.conflicts().len(), rig.bucket.len()), (0, 1));
    let stored = rig.bucket.get("f").unwrap();
    assert_eq!((stored.user["colour"].as_str(), stored.user["file-permissions"].as_str()), ("blue", "0100644"));
}

#[tokio::test]
async fn delete_against_change_keeps_theirs() {
    for mode in [OnConflict::KeepBoth, OnConflict::LocalWins, OnConflict::RemoteWins] {
        let rig = with(mode).await;
        settled(&rig, "f").await;
        rig.remove("f").await;
        rig.bucket.put("f", "theirs", &[]);
        rig.sync().await;
        let wanted = if mode == OnConflict::LocalWins { None } else { Some("theirs") };
        assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len()), (wanted, 1), "{mode:?}");
        assert_eq!(rig.known("f").is_some(), wanted.is_some(), "{mode:?}");
    }
}

#[tokio::test]
async fn change_against_delete_keeps_the_change() {
    for mode in [OnConflict::KeepBoth, OnConflict::LocalWins, OnConflict::RemoteWins] {
        let rig = with(mode).await;
        settled(&rig, "f").await;
        rig.write("f", "ours").await;
        rig.bucket.delete("f");
        rig.sync().await;
        assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len()), (Some("ours"), 1), "{mode:?}");
        assert_eq!(rig.read("f").await, "ours");
    }
}

#[tokio::test]
async fn rename_against_change_takes_the_change_along() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.rename("f", "g").await;
    rig.bucket.put("f", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.bucket.keys(), rig.stored("g").as_deref()), (vec!["g".to_owned()], Some("theirs")));
    assert_eq!(rig.read("g").await, "theirs");
}

#[tokio::test]
async fn rename_onto_what_somebody_made_keeps_both() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.rename("f", "g").await;
    rig.bucket.put("g", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.stored("g").as_deref(), beside(&rig).as_deref()), (Some("theirs"), Some("base")));
    assert_eq!((rig.stored("f"), rig.conflicts().len()), (None, 1));
}

#[tokio::test]
async fn rename_over_what_somebody_changed_keeps_both() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.write("f.tmp", "ours").await;
    rig.rename("f.tmp", "f").await;
    rig.bucket.put("f", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), beside(&rig).as_deref()), (Some("theirs"), Some("ours")));
}

#[tokio::test]
async fn a_put_that_landed_without_an_answer_is_no_conflict() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.s3.faults().inject((Request::Put, "f"), 1, Fault::FailAfterApply);
    rig.write("f", "ours").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len(), rig.bucket.len()), (Some("ours"), 0, 1));
}

#[tokio::test]
async fn a_put_that_landed_is_no_conflict_when_the_file_has_changed_since() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.s3.faults().inject((Request::Put, "f"), 1, Fault::FailAfterApply);
    rig.write("f", "ours").await;
    let failed = async {
        while rig.writeback.progress().failures.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    rig.clock.advance(DELAY);
    rig.meanwhile(failed).await;
    rig.write("f", "ours, later").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len(), rig.bucket.len()), (Some("ours, later"), 0, 1));
}

#[tokio::test]
async fn a_put_that_landed_before_a_crash_is_no_conflict() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.write("f", "ours").await;
    let gate = rig.s3.faults().hold_answer((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    let rig = rig.crash().await;
    drop(gate);
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len(), rig.bucket.len()), (Some("ours"), 0, 1));
}

#[tokio::test]
async fn a_copy_that_landed_without_an_answer_is_no_conflict() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.s3.faults().inject((Request::Copy, "g"), 1, Fault::FailAfterApply);
    rig.rename("f", "g").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!((rig.bucket.keys(), rig.conflicts().len()), (vec!["g".to_owned()], 0));
}

#[tokio::test]
async fn what_s3_has_lost_below_a_change_stays_as_far_as_it_is_here() {
    for (is_here, kept) in [(true, "01ab456789"), (false, "\0\0ab\0\0\0\0\0\0")] {
        let rig = with(OnConflict::KeepBoth).await;
        rig.bucket.put("f", "0123456789", &[]);
        rig.refresh().await;
        if is_here {
            within(rig.revalidator.warm(rig.node("f").ino)).await.unwrap();
        }
        rig.write_at("f", 2, "ab").await;
        rig.bucket.delete("f");
        rig.refresh().await;
        // the upload may have begun before the listing told: then it is tried again
        rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
        assert_eq!(rig.stored("f").as_deref(), Some(kept));
        assert_eq!((rig.read("f").await.as_str(), rig.conflicts().len()), (kept, 1));
    }
}

#[tokio::test]
async fn a_change_of_what_is_not_here_goes_beside_what_others_wrote() {
    for mode in [OnConflict::KeepBoth, OnConflict::LocalWins] {
        let rig = with(mode).await;
        rig.bucket.put("f", "0123456789", &[]);
        rig.refresh().await;
        rig.write_at("f", 2, "ab").await;
        rig.bucket.put("f", "theirs, all of it", &[]);
        rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
        assert_eq!(rig.stored("f").as_deref(), Some("theirs, all of it"), "{mode:?}");
        assert_eq!((beside(&rig).as_deref(), rig.conflicts().len()), (Some("\0\0ab\0\0\0\0\0\0"), 1), "{mode:?}");
    }
}

#[tokio::test]
async fn the_same_bytes_written_again_do_not_replace_what_others_wrote() {
    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.write("f", "base").await;
    rig.bucket.put("f", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), rig.conflicts().len()), (Some("theirs"), 1));

    let rig = with(OnConflict::KeepBoth).await;
    settled(&rig, "f").await;
    rig.write("f", "base").await;
    rig.rename("f", "g").await;
    rig.bucket.put("f", "theirs", &[]);
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), rig.stored("g").as_deref()), (Some("theirs"), Some("base")));
}

#[tokio::test]
async fn a_conflict_of_long_names_is_noted_with_the_key_that_it_got() {
    let deep = ["d".repeat(240), "e".repeat(240), "f".repeat(240), "g".repeat(240)].join("/");
    for file in ["n".repeat(240), "‛‛".repeat(40), format!("{deep}/{}", "n".repeat(50))] {
        let rig = with(OnConflict::KeepBoth).await;
        let mut dir = String::new();
        for part in file.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            dir = format!("{dir}/{part}");
            rig.mkdir(&dir).await;
        }
        settled(&rig, &file).await;
        rig.write(&file, "ours").await;
        let key = rig.bucket.keys().pop().unwrap();
        rig.bucket.put(&key, "theirs", &[]);
        rig.sync().await;
        let kept = rig.conflicts().pop().unwrap().kept_as;
        assert_eq!(
            (rig.stored(&key).as_deref(), rig.stored(&kept).as_deref()),
            (Some("theirs"), Some("ours")),
            "{kept}"
        );
    }
}
