//! One LIST in place of many HEADs.

use super::*;

/// `count` warm files of `d/`, all due.
async fn due_files(count: usize) -> (Rig, Vec<String>) {
    let rig = Rig::new().await;
    let keys: Vec<String> = (0..count).map(|n| format!("d/{n:04}")).collect();
    for key in &keys {
        rig.warm(key, "one").await;
    }
    rig.pass_recheck();
    rig.s3.requests().reset();
    (rig, keys)
}

async fn touch_all(rig: &Rig, keys: &[String]) {
    // No await in between: the touches of one moment.
    for key in keys {
        rig.read_warm(key);
    }
    for key in keys {
        rig.settled(key).await;
    }
}

#[tokio::test]
async fn thirteen_files_of_a_directory_are_one_list() {
    let (rig, keys) = due_files(13).await;
    touch_all(&rig, &keys).await;
    assert_eq!((rig.count(Request::List), rig.s3.requests().total()), (1, 1));
    touch_all(&rig, &keys).await;
    assert_eq!(rig.s3.requests().total(), 1, "all of them are settled");
    assert!(rig.revalidator.stats().hits >= 13);
}

#[tokio::test]
async fn twelve_files_of_a_directory_are_asked_one_by_one() {
    let (rig, keys) = due_files(12).await;
    touch_all(&rig, &keys).await;
    assert_eq!((rig.count(Request::List), rig.count(Request::Get)), (0, 12));
}

#[tokio::test]
async fn what_a_listing_shows_changed_or_missing_is_asked_alone() {
    let (rig, keys) = due_files(20).await;
    rig.bucket.put(&keys[3], "two", &[]);
    rig.bucket.delete(&keys[5]);
    touch_all(&rig, &keys).await;
    assert_eq!((rig.count(Request::List), rig.count(Request::Get)), (1, 2));
    assert_eq!(rig.read_warm(&keys[3]), "two");
    assert!(rig.known(&keys[5]).is_none());
    assert_eq!(rig.read_warm(&keys[19]), "one");
}

#[tokio::test]
async fn files_far_apart_in_a_huge_directory_are_not_worth_its_pages() {
    let (rig, keys) = due_files(13).await;
    // 12 of them on one side of thousands of others, one on the far side
    for n in 0..3_000 {
        rig.bucket.put(&format!("d/0011-{n:04}"), "", &[]);
    }
    touch_all(&rig, &keys).await;
    assert_eq!((rig.count(Request::List), rig.count(Request::Get)), (1, 1));
}

#[tokio::test]
async fn listing_behind_a_readdir_answers_for_the_files_too() {
    let (rig, keys) = due_files(5).await;
    rig.list("d").await;
    rig.settled("d/").await;
    rig.pass_recheck();
    rig.revalidator.touch(&rig.known("d/").unwrap());
    rig.settled("d/").await;
    rig.pass_recheck();
    rig.s3.requests().reset();
    rig.bucket.put(&keys[0], "two", &[]);
    rig.revalidator.touch(&rig.known("d/").unwrap());
    touch_all(&rig, &keys).await;
    assert_eq!((rig.count(Request::List), rig.count(Request::Get), rig.count(Request::Head)), (1, 1, 0));
    assert_eq!(rig.read_warm(&keys[0]), "two");
}

#[tokio::test]
async fn files_asked_one_after_the_other_end_in_one_list() {
    let (rig, keys) = due_files(40).await;
    rig.list("d").await;
    rig.settled("d/").await;
    rig.pass_recheck();
    rig.s3.requests().reset();
    for key in &keys {
        rig.read_warm(key);
        rig.settled(key).await;
    }
    assert_eq!((rig.count(Request::Get), rig.count(Request::List)), (12, 1));
    // The next moment begins with single checks again.
    rig.pass_recheck();
    rig.read_warm(&keys[0]);
    rig.settled(&keys[0]).await;
    assert_eq!((rig.count(Request::Get), rig.count(Request::List)), (13, 1));
}

#[tokio::test]
async fn files_asked_one_after_the_other_in_a_long_directory_stay_alone() {
    let (rig, keys) = due_files(16).await;
    for n in 0..1_000 {
        rig.bucket.put(&format!("d/x{n:04}"), "", &[]);
    }
    rig.list("d").await;
    rig.settled("d/").await;
    rig.pass_recheck();
    rig.s3.requests().reset();
    for key in &keys {
        rig.read_warm(key);
        rig.settled(key).await;
    }
    assert_eq!((rig.count(Request::Get), rig.count(Request::List)), (16, 0));
}
