//! `--stale-limit one`: F6.

use super::*;

fn strict(longest: Duration) -> Setup {
    let mut setup = Setup::default();
    setup.settings.stale_wait = Some(longest);
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_open_waits_for_the_check_and_copy_in_flight() {
    // F6: "The request that finds the age of a copy in doubt is served at once; the next *open* of that
    // file waits [...] for the check and copy then in flight"
    let rig = Rig::with(strict(SOON)).await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.bucket.put("a.txt", "two", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    let node = rig.known("a.txt").unwrap();
    assert!(!rig.revalidator.must_settle(&node), "the first one is served at once");
    assert_eq!(rig.read_warm("a.txt"), "one");
    assert!(rig.revalidator.must_settle(&node));
    let revalidator = rig.revalidator.clone();
    let open = tokio::spawn(async move { revalidator.settled(node.ino).await });
    within(gate.arrived()).await;
    assert!(!open.is_finished());
    gate.release();
    within(open).await.unwrap();
    assert_eq!(rig.read_warm("a.txt"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_waits_no_longer_than_stale_wait() {
    let rig = Rig::with(strict(Duration::from_millis(20))).await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    let gate = rig.s3.faults().hold(Request::Get);
    rig.read_warm("a.txt");
    let node = rig.known("a.txt").unwrap();
    within(rig.revalidator.settled(node.ino)).await;
    assert!(rig.revalidator.must_settle(&node), "it is still in flight");
    drop(gate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_that_a_listing_found_outdated_is_waited_for() {
    let rig = Rig::with(strict(SOON)).await;
    rig.warm("d/a", "one").await;
    rig.list("d").await;
    rig.pass_recheck();
    rig.bucket.put("d/a", "two", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    rig.list("d").await;
    within(gate.arrived()).await;
    let node = rig.known("d/a").unwrap();
    assert!(rig.revalidator.must_settle(&node));
    gate.release();
    within(rig.revalidator.settled(node.ino)).await;
    assert_eq!(rig.read_warm("d/a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_without_strict_mode_nor_without_a_check() {
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    let gate = rig.s3.faults().hold(Request::Get);
    rig.read_warm("a.txt");
    let node = rig.known("a.txt").unwrap();
    assert!(!rig.revalidator.must_settle(&node));
    within(rig.revalidator.settled(node.ino)).await;
    drop(gate);
    let rig = Rig::with(strict(SOON)).await;
    rig.warm("a.txt", "one").await;
    let node = rig.known("a.txt").unwrap();
    within(rig.revalidator.settled(node.ino)).await;
    assert!(rig.revalidator.waiters.is_empty());
}
