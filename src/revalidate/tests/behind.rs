//! Checks behind answers: F1, F2, F3, F7.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_answer_does_not_wait_for_a_slow_s3_and_sets_off_one_check() {
    // F1: "A warm LOOKUP, GETATTR, ACCESS, READDIR or READ never waits for S3"
    // F2: "schedules a check behind the answer, unless [...] a check is in flight"
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    let gate = rig.s3.faults().hold(On::any());
    for _ in 0..20 {
        assert_eq!(rig.read_warm("a.txt"), "one");
    }
    gate.arrived().await;
    for _ in 0..20 {
        assert_eq!(rig.read_warm("a.txt"), "one");
    }
    gate.release();
    rig.settled("a.txt").await;
    assert_eq!(rig.s3.requests().total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_checked_within_recheck_is_not_asked_again() {
    // F2: "unless that key was checked less than `--recheck` ago"
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    rig.clock.advance(config::RECHECK - Duration::from_millis(1));
    rig.read_warm("a.txt");
    assert!(!rig.known("a.txt").unwrap().freshness.is_pending());
    rig.clock.advance(Duration::from_millis(1));
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    assert_eq!(rig.s3.requests().total(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_new_version_comes_with_its_check_in_one_request() {
    // F2: "at most one request is served stale before that copy starts; the next one after the swap is fresh"
    // F3: "The handle and fileid stay the same across a swap; size, mtime, ctime change"
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    let before = rig.known("a.txt").unwrap();
    rig.pass_recheck();
    rig.bucket.put("a.txt", "two, longer", &[]);
    assert_eq!(rig.read_warm("a.txt"), "one", "the one stale answer");
    rig.settled("a.txt").await;
    assert_eq!(rig.read_warm("a.txt"), "two, longer");
    let after = rig.known("a.txt").unwrap();
    assert_eq!(before.ino, after.ino);
    assert_eq!(after.size, 11);
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    assert_eq!(rig.count(Request::Get), 1);
    assert_eq!(rig.s3.requests().total(), 1, "check and body are one round trip");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_answers_are_counted_with_their_age() {
    // F7: "Counters and a histogram say how many answers were stale and for how long"
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    let fresh = rig.revalidator.stats();
    assert_eq!(fresh.stale_served, 0);
    assert!(fresh.hits >= 1);
    rig.bucket.put("a.txt", "two", &[]);
    rig.clock.advance(Duration::from_secs(5));
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    let stats = rig.revalidator.stats();
    assert_eq!((stats.changes, stats.stale_served), (fresh.changes + 1, 1));
    assert!((4_000..=5_100).contains(&stats.max_stale_ms), "{stats:?}");
    assert_eq!(stats.stale_histogram.iter().map(|(_, count)| count).sum::<u64>(), 1);
    assert_eq!((stats.queued, stats.dropped), (0, 0));
}

/// Everything is "large": checks are HEADs, bodies come on their own.
fn large() -> Setup {
    let mut setup = Setup::default();
    setup.settings.small_object = 2;
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_file_is_served_old_until_all_of_the_new_version_is_here() {
    // F2: "When S3 has a new version it is copied in and swapped atomically"
    let rig = Rig::with(large()).await;
    rig.warm("film", "old reel").await;
    rig.pass_recheck();
    rig.bucket.put("film", "new reel", &[]);
    let gate = rig.s3.faults().hold_answer(Request::Get);
    assert_eq!(rig.read_warm("film"), "old reel");
    within(gate.arrived()).await;
    assert_eq!(rig.read_warm("film"), "old reel", "a warm read never turns cold (F1)");
    gate.release();
    rig.settled("film").await;
    assert_eq!(rig.read_warm("film"), "new reel");
    assert_eq!(rig.count(Request::Head), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_large_file_costs_one_head() {
    let rig = Rig::with(large()).await;
    rig.warm("film", "old reel").await;
    rig.pass_recheck();
    rig.read_warm("film");
    rig.settled("film").await;
    assert_eq!((rig.count(Request::Head), rig.s3.requests().total()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_that_is_replaced_in_mid_copy_is_never_shown() {
    let rig = Rig::with(large()).await;
    rig.warm("film", "first").await;
    rig.pass_recheck();
    rig.bucket.put("film", "second", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    rig.read_warm("film");
    within(gate.arrived()).await;
    rig.bucket.put("film", "third", &[]);
    assert_eq!(rig.read_warm("film"), "first");
    gate.release();
    rig.settled("film").await;
    assert_eq!(rig.read_warm("film"), "third");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_that_breaks_off_is_fetched_again_before_the_swap() {
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.bucket.put("a.txt", "twenty-two", &[]);
    rig.s3.faults().inject(Request::Get, 1, Fault::ShortBody(3));
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    assert_eq!(rig.read_warm("a.txt"), "twenty-two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_key_disappears_behind_the_answer() {
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.bucket.delete("a.txt");
    assert_eq!(rig.read_warm("a.txt"), "one");
    rig.settled("a.txt").await;
    assert!(rig.known("a.txt").is_none());
    assert!(rig.find("a.txt").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_file_changes_at_once_and_is_not_fetched() {
    let rig = Rig::with(large()).await;
    rig.bucket.put("a.txt", "one", &[]);
    rig.node("a.txt").await;
    rig.settled("a.txt").await;
    rig.bucket.put("a.txt", "three", &[]);
    rig.pass_recheck();
    rig.s3.requests().reset();
    assert_eq!(rig.node("a.txt").await.size, 3);
    rig.settled("a.txt").await;
    assert_eq!(rig.known("a.txt").unwrap().size, 5);
    assert_eq!((rig.count(Request::Head), rig.count(Request::Get)), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_that_a_listing_does_not_tell_come_behind_the_first_answer() {
    let rig = Rig::new().await;
    rig.bucket.put("d/tool", "#!", &[("file-permissions", "0100755")]);
    rig.list("d").await;
    let listed = rig.known("d/tool").unwrap();
    assert!(!listed.attributes_known);
    rig.revalidator.touch(&listed);
    rig.settled("d/tool").await;
    let known = rig.known("d/tool").unwrap();
    assert!(known.attributes_known);
    assert_eq!(known.mode, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_of_a_marker_come_behind_the_first_answer() {
    let rig = Rig::new().await;
    rig.bucket.put("d/", "", &[("file-permissions", "0040700")]);
    rig.bucket.put("d/f", "x", &[]);
    rig.node("d").await;
    rig.settled("d/").await;
    let dir = rig.known("d/").unwrap();
    assert_eq!((dir.attributes_known, dir.mode), (true, 0o700));
    // and the listing shows when the marker goes
    rig.list("d").await;
    rig.bucket.delete("d/");
    rig.pass_recheck();
    rig.list("d").await;
    rig.settled("d/").await;
    assert_eq!(rig.known("d/").unwrap().mode, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_key_is_left_alone_for_a_while_and_the_others_are_not() {
    let rig = Rig::new().await;
    rig.warm("secret", "one").await;
    rig.warm("open", "one").await;
    rig.s3.faults().inject_always(On::key("secret"), Fault::Denied);
    rig.pass_recheck();
    for _ in 0..3 {
        rig.read_warm("secret");
        rig.settled("secret").await;
        rig.read_warm("open");
        rig.settled("open").await;
        rig.pass_recheck();
    }
    let asked = |key: &str| rig.s3.requests().recent().iter().filter(|(_, k)| k == key).count();
    assert_eq!((asked("secret"), asked("open")), (1, 3));
    rig.s3.faults().clear();
    rig.clock.advance(Duration::from_secs(10));
    rig.read_warm("secret");
    rig.settled("secret").await;
    assert_eq!(asked("secret"), 2);
}

#[tokio::test]
async fn full_queue_drops_the_check_and_the_next_touch_asks_again() {
    let rig = Rig::new().await;
    // Its queue is not worked off: nothing is awaited below on this thread.
    let nodes: Vec<_> = (0..=queue::QUEUE as u64).map(|n| some_node(1_000 + n)).collect();
    nodes.iter().for_each(|node| rig.revalidator.touch(node));
    let pending = nodes.iter().filter(|node| node.freshness.is_pending()).count();
    assert_eq!(pending, queue::QUEUE);
    assert!(!nodes.last().unwrap().freshness.is_pending());
    assert_eq!(rig.revalidator.stats().dropped, 1);
    assert_eq!(rig.revalidator.stats().queued, queue::QUEUE as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewritten_metadata_of_a_small_copy_is_seen_though_its_bytes_stay() {
    // F2, N2: a chmod in S3 is a copy of the object onto itself: same ETag, other metadata
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    rig.pass_recheck();
    rig.bucket.put("a.txt", "one", &[("file-permissions", "0100600")]);
    rig.read_warm("a.txt");
    rig.settled("a.txt").await;
    assert_eq!(rig.known("a.txt").unwrap().mode, 0o600);
    assert_eq!(rig.read_warm("a.txt"), "one");
}
