//! Listings: F4.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_listing_is_shown_page_by_page_to_all_who_wait() {
    // F4: "a cold READDIR of a huge directory is answered page by page as S3's pages arrive"
    let rig = Rig::new().await;
    for n in 0..2_500 {
        rig.bucket.put(&format!("d/{n:04}"), "", &[]);
    }
    let dir = rig.node("d").await.ino;
    rig.s3.requests().reset();
    let gate = rig.s3.faults().hold(Request::List);
    let mut first = rig.revalidator.list(dir);
    let mut second = rig.revalidator.list(dir);
    gate.pass(1);
    assert!(!within(first.advanced()).await.unwrap());
    assert!(!within(second.advanced()).await.unwrap());
    assert_eq!(rig.names(dir).len(), 1_000);
    assert!(!rig.known("d/").unwrap().listed);
    drop(first);
    gate.release();
    while !within(second.advanced()).await.unwrap() {}
    assert_eq!(rig.names(dir).len(), 2_500);
    assert!(rig.known("d/").unwrap().listed);
    assert_eq!(rig.count(Request::List), 3, "one listing for both");
    assert!(within(rig.revalidator.list(dir).advanced()).await.unwrap(), "listed once is listed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_page_is_fetched_while_one_is_applied() {
    let rig = Rig::new().await;
    for n in 0..1_500 {
        rig.bucket.put(&format!("d/{n:04}"), "", &[]);
    }
    let dir = rig.node("d").await.ino;
    let gate = rig.s3.faults().hold_answer(Request::List);
    let mut progress = rig.revalidator.list(dir);
    gate.pass(1);
    // The second request is at its gate before anybody was told of the first page, or soon after.
    within(gate.arrived_count(2)).await;
    assert!(!within(progress.advanced()).await.unwrap());
    gate.release();
    while !within(progress.advanced()).await.unwrap() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_directory_is_served_at_once_and_listed_again_behind() {
    // F4: "a known one is served at once and re-listed behind"
    let rig = Rig::new().await;
    rig.bucket.put("d/a", "1", &[]);
    rig.bucket.put("d/b", "2", &[]);
    assert_eq!(rig.list("d").await, ["a", "b"]);
    rig.bucket.delete("d/a");
    rig.bucket.put("d/c", "3", &[]);
    rig.pass_recheck();
    let gate = rig.s3.faults().hold(Request::List);
    assert_eq!(rig.list("d").await, ["a", "b"]);
    gate.release();
    rig.settled("d/").await;
    assert_eq!(rig.list("d").await, ["b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_that_shows_a_new_version_leaves_the_copy_warm_and_brings_the_new_one() {
    let rig = Rig::new().await;
    rig.warm("d/a", "one").await;
    rig.list("d").await;
    rig.pass_recheck();
    rig.bucket.put("d/a", "two", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    rig.list("d").await;
    within(gate.arrived()).await;
    assert_eq!(rig.read_warm("d/a"), "one", "F1: a warm read never turns cold");
    gate.release();
    rig.settled("d/a").await;
    assert_eq!(rig.read_warm("d/a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_that_fails_is_started_again_by_the_next_caller() {
    let rig = Rig::new().await;
    rig.bucket.put("d/a", "1", &[]);
    let dir = rig.node("d").await.ino;
    rig.s3.faults().inject_always(Request::List, Fault::SlowDown);
    let failed = within(rig.revalidator.list(dir).advanced()).await;
    assert!(matches!(failed, Err(WaitError::Busy)), "{failed:?}");
    assert!(!rig.known("d/").unwrap().listed);
    rig.s3.faults().clear();
    rig.s3.faults().inject_always(Request::List, Fault::Denied);
    let refused = within(rig.revalidator.list(dir).advanced()).await;
    assert!(matches!(refused, Err(WaitError::Denied)), "{refused:?}");
    rig.s3.faults().clear();
    assert_eq!(rig.list("d").await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_past_its_deadline_is_busy_and_goes_on() {
    let mut setup = Setup::default();
    setup.settings.deadline = Duration::from_millis(20);
    let rig = Rig::with(setup).await;
    rig.bucket.put("a", "1", &[]);
    let gate = rig.s3.faults().hold(Request::List);
    let mut progress = rig.revalidator.list(Ino::ROOT);
    assert!(matches!(within(progress.advanced()).await, Err(WaitError::Busy)));
    gate.release();
    while !matches!(within(progress.advanced()).await, Ok(true)) {}
    assert_eq!(rig.names(Ino::ROOT), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_that_lost_its_last_key_is_gone() {
    let rig = Rig::new().await;
    rig.bucket.put("d/a", "1", &[]);
    let dir = rig.node("d").await.ino;
    rig.bucket.delete("d/a");
    let mut progress = rig.revalidator.list(dir);
    let gone = loop {
        match within(progress.advanced()).await {
            Ok(false) => {}
            end => break end,
        }
    };
    assert!(matches!(gone, Err(WaitError::Gone)), "{gone:?}");
    assert!(rig.known("d/").is_none());
    // The root is never gone.
    assert!(rig.list("").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_of_many_pages_is_listed_again_one_page_a_recheck_on_average() {
    // F4: "a known one is served at once and re-listed behind", without a LIST of all of it every moment
    let rig = Rig::new().await;
    for n in 0..2_500 {
        rig.bucket.put(&format!("d/{n:04}"), "", &[]);
    }
    assert_eq!(rig.list("d").await.len(), 2_500);
    within(rig.revalidator.quiet()).await;
    rig.s3.requests().reset();
    for _ in 0..2 {
        rig.clock.advance(config::RECHECK);
        rig.revalidator.touch(&rig.known("d/").unwrap());
        within(rig.revalidator.quiet()).await;
        assert_eq!(rig.count(Request::List), 0, "three pages: not before the third recheck");
    }
    rig.clock.advance(config::RECHECK);
    rig.revalidator.touch(&rig.known("d/").unwrap());
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.count(Request::List), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_directory_above_a_large_tree_is_listed_again_at_every_recheck() {
    // F4: a recursive listing of many pages, as the mirror's, does not make its root a directory of many pages
    let rig = Rig::new().await;
    for n in 0..2_500 {
        rig.bucket.put(&format!("d/{n:04}"), "", &[]);
    }
    within(rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
    rig.s3.requests().reset();
    rig.clock.advance(config::RECHECK);
    rig.revalidator.touch(&rig.root());
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.count(Request::List), 1);
}
