//! The sweep beside our own changes: none of them is a change that somebody should have told of.

use super::*;
use crate::notify::{Health, Origin};
use crate::revalidate::Rounds;

/// Often, so that passes come between the steps of everything.
const PERIOD: Duration = Duration::from_secs(5);
/// Longer than clocks may be apart, or an event may take.
const LONG: Duration = Duration::from_secs(200);

async fn passes(rig: &Rig, count: u64) {
    let until = rig.revalidator.sweep_progress().passes + count;
    let swept = async {
        while rig.revalidator.sweep_progress().passes < until {
            tokio::task::yield_now().await;
        }
    };
    rig.meanwhile(swept).await;
}

#[tokio::test]
async fn our_own_changes_are_never_missed() {
    let rig = Rig::new().await;
    let health = Health::new(rig.revalidator.clone(), rig.clock.clone());
    let beat = health.register(Origin::Sqs, LONG * 100);
    beat.heard();
    beat.delivered(None);
    rig.clock.advance(LONG);
    let rounds = Rounds { every: PERIOD, listed_only: false };
    let sweep = tokio::spawn(rig.revalidator.clone().keep_sweeping(rounds, health.clone(), rig.stop.clone()));
    rig.mkdir("d").await;
    for path in ["a", "b", "d/a", "gone"] {
        rig.write(path, format!("first of {path}")).await;
    }
    passes(&rig, 1).await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    passes(&rig, 2).await;
    // S3 has it, and nobody here knows yet.
    rig.write("a", "second").await;
    let gate = rig.s3.faults().hold_answer((Request::Put, "a"));
    rig.meanwhile(gate.arrived()).await;
    passes(&rig, 2).await;
    gate.release();
    rig.rename("d", "e").await;
    rig.rename("b", "e/b").await;
    rig.remove("gone").await;
    passes(&rig, 1).await;
    rig.write("e/a", "third").await;
    rig.chmod("a", 0o600).await;
    rig.write_at("large", 0, vec![7; 13 * MIB]).await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    passes(&rig, (LONG.as_secs() / PERIOD.as_secs()).max(2)).await;
    assert_eq!(rig.bucket.keys(), ["a", "e/a", "e/b", "large"]);
    assert_eq!((health.missed_events(), rig.revalidator.sweep_progress().changes), (0, 0));
    // It would have counted somebody else's.
    rig.bucket.put("a", "theirs", &[]);
    passes(&rig, (LONG.as_secs() / PERIOD.as_secs()).max(2)).await;
    assert_eq!((health.missed_events(), rig.read("a").await.as_str()), (1, "theirs"));
    rig.stop.cancel();
    within(sweep).await.unwrap();
}
