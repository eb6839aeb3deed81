//! The mirror and its limit.

use super::*;

const FILE: usize = 100_000;

fn limited(bytes: u64) -> Setup {
    Setup { limit: CacheLimit::Bytes(bytes), ..Setup::default() }
}

async fn mirror(rig: &Rig) {
    within(rig.revalidator.clone().mirror(rig.stop.clone())).await;
}

fn is_here(rig: &Rig, key: &str) -> bool {
    check::is_complete(&rig.known(key).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_bucket_comes_with_one_listing() {
    // "The whole bucket is mirrored in the background at start"
    let rig = Rig::new().await;
    for n in 0..40 {
        rig.bucket.put(&format!("{}/{}/{n}", n % 3, n % 5), format!("text {n}"), &[]);
    }
    mirror(&rig).await;
    assert_eq!((rig.count(Request::List), rig.count(Request::Get)), (1, 40));
    let progress = rig.revalidator.mirror_progress();
    assert_eq!((progress.running, progress.listed), (false, true));
    assert_eq!((progress.done, progress.total), (40, 40));
    assert_eq!(progress.bytes_done, progress.bytes_total);
    take_down(&rig.s3);
    assert_eq!(rig.read_warm("1/2/7"), "text 7");
    assert_eq!(rig.list("1").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_files_come_as_far_as_they_fit() {
    // "newest first, as far as `--cache-size` allows"
    let rig = Rig::with(limited(FILE as u64 * 5 / 2)).await;
    for key in ["3", "1", "5", "2", "4"] {
        rig.bucket.put(key, "x".repeat(FILE), &[]);
        rig.clock.advance(Duration::from_secs(60));
    }
    mirror(&rig).await;
    let here: Vec<_> = ["3", "1", "5", "2", "4"].map(|key| is_here(&rig, key)).into();
    assert_eq!(here, [false, false, false, true, true]);
    let progress = rig.revalidator.mirror_progress();
    assert_eq!((progress.done, progress.total), (2, 5));
    assert!(rig.content.usage().bytes <= rig.content.usage().limit);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_is_not_fetched_again_and_what_is_outdated_is() {
    let rig = Rig::new().await;
    rig.warm("same", "one").await;
    rig.warm("changed", "one").await;
    rig.bucket.put("changed", "two", &[]);
    rig.pass_recheck();
    mirror(&rig).await;
    assert_eq!(rig.count(Request::Get), 1);
    assert_eq!(rig.read_warm("changed"), "two");
    assert_eq!(rig.read_warm("same"), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirror_waits_for_an_s3_that_is_gone_and_goes_on() {
    let rig = Rig::new().await;
    rig.bucket.put("a", "one", &[]);
    take_down(&rig.s3);
    let mirror = tokio::spawn(rig.revalidator.clone().mirror(rig.stop.clone()));
    // Somebody's lookup and the mirror's listing fail; which of them begins the pause does not matter.
    assert!(rig.find("nothing").await.is_err());
    assert!(rig.revalidator.mirror_progress().running);
    rig.s3.faults().clear();
    assert!(rig.find("nothing").await.unwrap().is_none());
    // The mirror may have failed after that lookup: its pause passes, too.
    let mut mirror = mirror;
    while tokio::time::timeout(Duration::from_millis(100), &mut mirror).await.is_err() {
        rig.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(rig.read_warm("a"), "one");
    assert_eq!(rig.revalidator.mirror_progress().done, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirror_stops_when_told_and_says_so() {
    let rig = Rig::new().await;
    rig.bucket.put("a", "one", &[]);
    let gate = rig.s3.faults().hold(On::any());
    let mirror = tokio::spawn(rig.revalidator.clone().mirror(rig.stop.clone()));
    within(gate.arrived()).await;
    rig.stop.cancel();
    within(mirror).await.unwrap();
    assert!(!rig.revalidator.mirror_progress().running);
}
