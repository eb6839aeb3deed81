//! S3 slow, failing or gone: F1, F8.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_here_is_served_while_s3_is_gone_and_caught_up_later() {
    // F8: "The server starts and serves with S3 unreachable [...] and catches up later"
    let rig = Rig::new().await;
    rig.warm("d/a", "one").await;
    rig.list("d").await;
    let (s3, clock, dir) = rig.shut_down().await;
    take_down(&s3);
    s3.bucket("bucket").put("d/a", "two", &[]);
    s3.bucket("bucket").put("d/new", "new", &[]);
    let rig = Rig::on(s3, clock, dir, Setup::default()).await;
    assert_eq!(rig.read_warm("d/a"), "one");
    assert_eq!(rig.list("d").await, ["a"]);
    rig.settled("d/a").await;
    rig.settled("d/").await;
    assert!(rig.revalidator.outage.is_on());
    assert_eq!(rig.read_warm("d/a"), "one");
    assert!(!rig.known("d/a").unwrap().freshness.is_pending(), "nobody asks while S3 is known to be gone");

    rig.s3.faults().clear();
    rig.clock.advance(Duration::from_secs(11));
    assert_eq!(rig.read_warm("d/a"), "one");
    rig.settled("d/a").await;
    assert_eq!(rig.read_warm("d/a"), "two");
    rig.list("d").await;
    rig.settled("d/").await;
    assert_eq!(rig.list("d").await, ["a", "new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_name_is_absent_in_a_listed_directory_and_busy_in_another() {
    let rig = Rig::new().await;
    rig.bucket.put("d/a", "one", &[]);
    rig.bucket.put("e/a", "one", &[]);
    rig.list("d").await;
    rig.node("e").await;
    rig.pass_recheck();
    take_down(&rig.s3);
    assert!(matches!(rig.find("e/b").await, Err(WaitError::Busy)));
    assert!(rig.revalidator.outage.is_on());
    assert!(rig.find("d/b").await.unwrap().is_none(), "what its last listing said");
    // Back again, it is asked for at once: an outage is not an absence.
    rig.s3.faults().clear();
    rig.bucket.put("d/b", "two", &[]);
    rig.clock.advance(Duration::from_secs(11));
    assert!(rig.find("d/b").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_to_a_client_ends_the_pause_for_the_checks() {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    rig.pass_recheck();
    take_down(&rig.s3);
    rig.read_warm("a");
    rig.settled("a").await;
    assert!(rig.revalidator.outage.is_on());
    rig.s3.faults().clear();
    rig.bucket.put("a", "two", &[]);
    assert!(rig.find("b").await.unwrap().is_none(), "clients' own requests do not wait for the pause");
    assert!(!rig.revalidator.outage.is_on());
    rig.read_warm("a");
    rig.settled("a").await;
    assert_eq!(rig.read_warm("a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_s3_delays_a_check_and_loses_nothing() {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    rig.bucket.put("a", "two", &[]);
    rig.s3.faults().inject(On::any(), 4, Fault::SlowDown);
    for _ in 0..5 {
        rig.clock.advance(Duration::from_secs(11));
        rig.read_warm("a");
        rig.settled("a").await;
    }
    assert_eq!(rig.read_warm("a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_gives_back_what_is_queued_and_in_flight() {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    rig.pass_recheck();
    let gate = rig.s3.faults().hold(On::any());
    rig.read_warm("a");
    within(gate.arrived()).await;
    let node = rig.known("a").unwrap();
    let (_s3, _clock, _dir) = rig.shut_down().await;
    assert!(!node.freshness.is_pending());
    drop(gate);
}
