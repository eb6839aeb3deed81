//! S3 refuses, or is away; one object fails alone, and nothing is given up.

use super::*;
use crate::s3server::{Fault, On};

#[tokio::test]
async fn an_error_is_tried_again_until_it_is_gone() {
    let rig = Rig::new().await;
    rig.s3.faults().inject((Request::Put, "f"), 5, Fault::SlowDown);
    rig.write("f", "x").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!(rig.stored("f").as_deref(), Some("x"));
    assert!(rig.writeback.counts().failures >= 5);
}

#[tokio::test]
async fn what_is_denied_fails_alone_and_says_what_to_do() {
    let rig = Rig::new().await;
    rig.s3.faults().inject_always((Request::Put, "denied"), Fault::Denied);
    rig.write("denied", "x").await;
    rig.write("fine", "y").await;
    let failures = within(rig.writeback.synced(None)).await.unwrap_err();
    assert_eq!((failures.len(), failures[0].key.as_str(), failures[0].may_pass), (1, "denied", false));
    assert!(failures[0].why.contains("s3:PutObject"), "{}", failures[0].why);
    within(rig.s3.requests().reached(Request::Put, 2)).await;
    assert_eq!(rig.stored("fine").as_deref(), Some("y"));
    assert_eq!(rig.writeback.progress().failures, failures);
    rig.s3.faults().clear();
    rig.sync().await;
    assert_eq!(rig.stored("denied").as_deref(), Some("x"));
}

#[tokio::test]
async fn an_hour_without_s3_costs_few_requests_and_no_change() {
    let rig = Rig::new().await;
    rig.s3.faults().inject_always(On::any(), Fault::Close);
    for n in 0..40 {
        rig.write(&format!("f{n}"), format!("{n}")).await;
    }
    for _ in 0..1_800 {
        rig.clock.advance(Duration::from_secs(2));
        tokio::task::yield_now().await;
    }
    let progress = rig.writeback.progress();
    assert_eq!(progress.pending, 40);
    let asked = rig.s3.requests().total();
    assert!(asked < 2_000, "{asked} requests");
    rig.s3.faults().clear();
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!(rig.bucket.len(), 40);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_keeps_the_rest() {
    let rig = Rig::new().await;
    rig.write("f", "x").await;
    let gate = rig.s3.faults().hold((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write("g", "y").await;
    rig.stop.cancel();
    gate.release();
    let rig = rig.restart().await;
    assert_eq!(rig.bucket.keys(), ["f"]);
    assert_eq!(rig.index.backlog().inodes, 1);
    rig.sync().await;
    assert_eq!(rig.bucket.keys(), ["f", "g"]);
}
