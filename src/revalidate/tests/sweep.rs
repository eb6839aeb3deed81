//! The sweep: issue 5's "finds what events missed; what it finds is counted as `missed_events`".

use super::*;
use crate::types::{Hint, Origin, Said};

const PERIOD: Duration = Duration::from_secs(900);
/// After which an event is late.
const LATE: Duration = Duration::from_secs(30);
/// Longer than clocks may be apart.
const LONG: Duration = Duration::from_secs(100);

/// A rig with an event source that is healthy, checks that are rare, and a sweep.
struct Bench {
    rig: Rig,
    source: Arc<EventSource>,
}

/// What should have told of changes. It works, or it does not; it is relied on until it misses one.
struct EventSource {
    revalidator: Arc<Revalidator>,
    now: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    works_since: Option<Tick>,
    trusted_since: Option<Tick>,
    missed: u64,
}

impl EventSource {
    fn set(&self, change: impl FnOnce(&mut Standing)) {
        let mut now = self.now.lock();
        change(&mut now);
        self.revalidator.told_since(now.trusted_since);
    }

    fn missed_events(&self) -> u64 {
        self.now.lock().missed
    }
}

impl Tellers for EventSource {
    fn since(&self) -> Option<Tick> {
        self.now.lock().trusted_since
    }

    fn has_worked_since(&self, tick: Tick) -> bool {
        self.now.lock().works_since.is_some_and(|since| since <= tick)
    }

    fn latest(&self) -> Duration {
        LATE
    }

    fn missed(&self, changes: u64) {
        self.set(|now| {
            now.missed += changes;
            now.trusted_since = None;
        });
    }
}

impl Bench {
    /// With the objects in S3 that `keys` name; all of them are known here.
    async fn with(keys: &[&str]) -> Bench {
        let mut setup = Setup::default();
        setup.settings.recheck_healthy = Duration::from_secs(100_000);
        let rig = Rig::with(setup).await;
        keys.iter().for_each(|key| drop(rig.bucket.put(key, "one", &[])));
        let source = Arc::new(EventSource { revalidator: rig.revalidator.clone(), now: Mutex::default() });
        Bench { rig, source }
    }

    async fn new(keys: &[&str]) -> Bench {
        let bench = Bench::with(keys).await;
        bench.prove();
        within(bench.rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
        for key in keys {
            bench.rig.warm(key, "one").await;
        }
        bench.start(PERIOD, false).await;
        bench
    }

    /// The source shows that it works.
    fn prove(&self) {
        let now = self.rig.clock.now();
        self.source.set(|at| {
            at.works_since.get_or_insert(now);
            at.trusted_since.get_or_insert(now);
        });
    }

    async fn start(&self, every: Duration, listed_only: bool) {
        self.rig.s3.requests().reset();
        let rounds = Rounds { every, listed_only };
        let (revalidator, source) = (self.rig.revalidator.clone(), self.source.clone());
        tokio::spawn(revalidator.keep_sweeping(rounds, source, self.rig.stop.clone()));
        self.turns().await;
    }

    /// Lets whoever waits for the clock go on, as far as to what S3 or the disk must answer.
    async fn turns(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self, time: Duration) {
        self.rig.clock.advance(time);
        self.turns().await;
    }

    /// Waits, while no time passes.
    async fn until(&self, what: impl Fn() -> bool) {
        let all = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(all).await;
        self.turns().await;
    }

    /// Lets time pass to the next pass, and waits for its end and for what it sets off.
    async fn sweep(&self, time: Duration) {
        let passes = self.progress().passes;
        self.pass(time).await;
        self.until(|| self.progress().passes > passes).await;
        self.rig.clock.advance(Duration::from_millis(1));
        within(self.rig.revalidator.quiet()).await;
    }

    fn progress(&self) -> SweepProgress {
        self.rig.revalidator.sweep_progress()
    }

    fn lists(&self) -> u64 {
        self.rig.count(Request::List)
    }

    async fn tell(&self, key: &str, said: Said) {
        let hint = Hint { key: Key::new(key).unwrap(), said, sequencer: None, at: None, origin: Origin::Sqs };
        self.rig.revalidator.hinted(&hint).await.unwrap();
        self.rig.clock.advance(Duration::from_millis(1));
        within(self.rig.revalidator.quiet()).await;
    }

    /// What was missed, once even a late event would have come.
    async fn missed(&self) -> u64 {
        self.pass(LATE).await;
        self.source.missed_events()
    }
}

fn written() -> Said {
    Said::Written { etag: None, size: None }
}

#[tokio::test]
async fn change_that_nobody_told_of_is_found_within_a_period_and_counted_once() {
    let t = Bench::new(&["a", "b"]).await;
    t.pass(LONG).await;
    t.rig.bucket.put("a", "two", &[]);
    assert_eq!(t.rig.read_warm("a"), "one");
    t.sweep(PERIOD - LONG).await;
    assert_eq!(t.rig.read_warm("a"), "two", "whole, and nobody asked for it");
    assert_eq!((t.lists(), t.rig.s3.requests().total()), (1, 2), "one page, and the new version");
    t.pass(LATE - Duration::from_secs(1)).await;
    assert_eq!((t.source.missed_events(), t.source.since().is_some()), (0, true), "its event may still come");
    t.pass(Duration::from_secs(1)).await;
    assert_eq!((t.source.missed_events(), t.source.since()), (1, None));
    assert_eq!(t.rig.revalidator.recheck(t.rig.clock.now()), config::RECHECK, "checked as without events");
    t.sweep(PERIOD).await;
    assert_eq!(t.missed().await, 1, "once");
    assert_eq!((t.progress().passes, t.progress().changes), (2, 1));
}

#[tokio::test]
async fn change_that_cannot_be_copied_in_is_found_again_and_counted_once() {
    let t = Bench::new(&["a"]).await;
    t.pass(LONG).await;
    t.rig.bucket.put("a", "two", &[]);
    t.rig.s3.faults().inject_always(Request::Get, Fault::Denied);
    t.sweep(PERIOD - LONG).await;
    assert_eq!(t.missed().await, 1);
    t.prove();
    t.sweep(PERIOD).await;
    assert_eq!((t.missed().await, t.progress().changes), (1, 2));
    t.rig.s3.faults().clear();
    t.sweep(PERIOD).await;
    assert_eq!(t.rig.read_warm("a"), "two");
}

#[tokio::test]
async fn new_and_removed_objects_are_found_and_counted() {
    let t = Bench::new(&["d/a", "d/b", "e/s/x"]).await;
    t.pass(LONG).await;
    t.rig.bucket.put("d/n", "new", &[]);
    t.rig.bucket.put("new/dir/n", "new", &[]);
    t.rig.bucket.delete("d/b");
    t.rig.bucket.delete("e/s/x");
    t.sweep(PERIOD - LONG).await;
    let mut names = t.rig.names(t.rig.known("d/").unwrap().ino);
    names.sort();
    assert_eq!(names, ["a", "n"]);
    assert!(t.rig.known("new/dir/n").is_some() && t.rig.known("e/").is_none());
    assert_eq!(t.missed().await, 4, "the object of each");
}

#[tokio::test]
async fn removal_is_counted_of_what_only_the_last_pass_has_seen() {
    let t = Bench::new(&["a", "b"]).await;
    t.sweep(PERIOD).await;
    t.rig.known("b").unwrap().freshness.expire();
    t.rig.bucket.delete("b");
    t.sweep(PERIOD).await;
    assert_eq!(t.missed().await, 1);
}

#[tokio::test]
async fn change_that_was_told_is_not_counted() {
    let t = Bench::with(&["a", "b", "c", "gone"]).await;
    t.prove();
    within(t.rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
    t.start(PERIOD, false).await;
    t.pass(LONG).await;
    for key in ["a", "b", "c"] {
        t.rig.bucket.put(key, "two", &[]);
    }
    t.rig.bucket.delete("gone");
    // Cold and unused, it is not asked about for this.
    t.tell("a", written()).await;
    assert_eq!(t.rig.s3.requests().total(), 0);
    t.sweep(PERIOD - LONG).await;
    assert_eq!(t.progress().changes, 4, "the sweep is first");
    t.pass(LATE - Duration::from_secs(1)).await;
    t.tell("b", written()).await;
    t.tell("gone", Said::Removed).await;
    assert_eq!(t.missed().await, 1, "only c");
}

#[tokio::test]
async fn change_from_before_the_source_was_healthy_is_not_counted() {
    let t = Bench::with(&["a", "b"]).await;
    for key in ["a", "b"] {
        t.rig.warm(key, "one").await;
    }
    t.start(PERIOD, false).await;
    t.pass(LONG).await;
    t.rig.bucket.put("a", "two", &[]);
    t.rig.bucket.put("n", "new", &[]);
    t.rig.bucket.delete("b");
    t.pass(LONG).await;
    t.prove();
    t.sweep(PERIOD - LONG * 2).await;
    assert_eq!((t.missed().await, t.progress().changes), (0, 3));
    assert_eq!(t.rig.read_warm("a"), "two");
}

#[tokio::test]
async fn entry_of_a_directory_that_was_never_listed_is_found_and_not_counted() {
    let t = Bench::with(&["d/a"]).await;
    t.prove();
    t.rig.warm("d/a", "one").await;
    t.start(PERIOD, false).await;
    t.pass(LONG).await;
    t.rig.bucket.put("d/n", "new", &[]);
    t.rig.bucket.put("e/n", "new", &[]);
    t.sweep(PERIOD - LONG).await;
    assert!(t.rig.known("d/n").is_some() && t.rig.known("e/n").is_some());
    assert_eq!((t.progress().changes, t.missed().await), (3, 0), "two files, and a directory");
}

#[tokio::test]
async fn source_that_fails_while_its_event_may_come_has_missed_nothing() {
    let t = Bench::new(&["a"]).await;
    t.pass(LONG).await;
    t.rig.bucket.put("a", "two", &[]);
    t.sweep(PERIOD - LONG).await;
    t.source.set(|at| (at.works_since, at.trusted_since) = (None, None));
    t.pass(Duration::from_secs(1)).await;
    t.prove();
    assert_eq!(t.missed().await, 0);
    assert!(t.source.since().is_some());
}

#[tokio::test]
async fn without_a_source_changes_are_applied_and_nothing_is_missed() {
    let t = Bench::with(&["a"]).await;
    t.rig.warm("a", "one").await;
    t.start(PERIOD, false).await;
    t.pass(LONG).await;
    t.rig.bucket.put("a", "two", &[]);
    t.sweep(PERIOD - LONG).await;
    assert_eq!(t.rig.read_warm("a"), "two");
    assert_eq!((t.progress().changes, t.missed().await), (1, 0));
}

#[tokio::test]
async fn what_is_changed_here_stays_and_is_nobodys_miss() {
    let t = Bench::new(&["a", "b"]).await;
    t.pass(LONG).await;
    let ino = |key: &str| t.rig.known(key).unwrap().ino;
    for key in ["a", "b"] {
        changes::stage(&t.rig.index, ino(key), 3).await;
    }
    changes::create(&t.rig.index, Ino::ROOT, "new").await;
    let dir = changes::create(&t.rig.index, Ino::ROOT, "dir/").await;
    changes::create(&t.rig.index, dir, "new").await;
    t.rig.bucket.put("a", "theirs", &[]);
    t.rig.bucket.delete("b");
    let before = t.rig.known("a").unwrap().inode.clone();
    t.sweep(PERIOD - LONG).await;
    assert_eq!(t.rig.known("a").unwrap().inode, before, "its upload finds the conflict");
    for key in ["b", "new", "dir/new"] {
        assert!(t.rig.known(key).unwrap().staged.is_some(), "{key}");
    }
    assert_eq!((t.missed().await, t.progress().changes), (0, 0));
}

#[tokio::test]
async fn bucket_of_one_page_is_one_list_a_period() {
    let t = Bench::new(&["a"]).await;
    for n in 1..=4 {
        t.pass(PERIOD - Duration::from_millis(1)).await;
        assert_eq!((t.progress().passes, t.progress().running), (n - 1, false), "too early");
        t.pass(Duration::from_millis(1)).await;
        t.until(|| t.progress().passes == n).await;
    }
    assert_eq!((t.lists(), t.rig.s3.requests().total()), (4, 4));
}

impl Bench {
    /// Three pages.
    async fn large() -> Bench {
        let t = Bench::with(&[]).await;
        (0..2_500).for_each(|n| drop(t.rig.bucket.put(&format!("{n:04}"), "x", &[])));
        within(t.rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
        t
    }

    /// The next page comes after `gap`, and not a moment sooner; it is applied when this returns.
    async fn page_after(&self, gap: Duration) {
        // by its last key
        let last = [0, 1000, 2000].map(|first: u64| self.rig.known(&format!("{:04}", 2499.min(first + 999))));
        let (before, moment) = (self.progress(), Duration::from_millis(1));
        self.pass(gap - moment).await;
        assert_eq!(self.progress().pages, before.pages, "too early");
        self.pass(moment).await;
        self.until(|| self.progress().pages != before.pages).await;
        let Some(last) = &last[self.progress().pages as usize - 1] else { return };
        self.until(|| last.freshness.last_checked() == self.rig.clock.now()).await;
    }
}

#[tokio::test]
async fn pages_are_spread_over_the_period() {
    let t = Bench::large().await;
    t.start(PERIOD, false).await;
    t.page_after(PERIOD).await;
    for _ in 0..2 {
        for _ in 0..2 {
            t.page_after(PERIOD / 3).await;
        }
        t.until(|| !t.progress().running).await;
        t.page_after(PERIOD / 3).await;
    }
    assert_eq!((t.progress().last_pages, t.progress().last_took_s, t.progress().passes), (3, 600, 2));
}

#[tokio::test]
async fn large_bucket_is_never_listed_faster_than_a_page_a_second() {
    let t = Bench::large().await;
    t.start(Duration::from_secs(1), false).await;
    for _ in 0..7 {
        t.page_after(Duration::from_secs(1)).await;
    }
    assert_eq!(t.progress().passes, 2);
}

#[tokio::test]
async fn pass_waits_while_s3_is_away_and_goes_on_where_it_was() {
    let t = Bench::large().await;
    t.start(PERIOD, false).await;
    t.page_after(PERIOD).await;
    t.rig.bucket.put("2400", "changed", &[]);
    take_down(&t.rig.s3);
    t.pass(PERIOD / 3).await;
    t.until(|| t.rig.revalidator.outage.is_on()).await;
    assert_eq!((t.progress().running, t.progress().pages), (true, 2));
    t.rig.s3.faults().clear();
    t.rig.s3.requests().reset();
    t.pass(Duration::from_secs(11)).await;
    // Somebody's answer ends the pause.
    assert!(t.rig.find("nothing").await.unwrap().is_none());
    t.until(|| t.rig.revalidator.sweep_progress().pages == 2 && t.lists() > 0).await;
    t.sweep(PERIOD / 3).await;
    assert_eq!((t.progress().pages, t.progress().changes), (3, 1));
    assert_eq!(t.rig.known("2400").unwrap().size, 7);
}

#[tokio::test]
async fn lazy_sweep_lists_only_what_was_listed() {
    let t = Bench::with(&["d/a", "d/s/x", "e/a"]).await;
    t.prove();
    t.rig.list("d").await;
    t.rig.warm("e/a", "one").await;
    within(t.rig.revalidator.quiet()).await;
    t.start(PERIOD, true).await;
    t.pass(LONG).await;
    for key in ["d/n", "d/s/n", "e/n", "f/n"] {
        t.rig.bucket.put(key, "new", &[]);
    }
    t.sweep(PERIOD - LONG).await;
    assert_eq!((t.lists(), t.progress().pages), (1, 1));
    assert!(t.rig.known("d/n").is_some());
    for key in ["d/s/n", "e/n", "f/"] {
        assert!(t.rig.known(key).is_none(), "{key}");
    }
    assert_eq!(t.missed().await, 1);
}

#[tokio::test]
async fn sweep_stops_when_told() {
    let t = Bench::new(&["a"]).await;
    let gate = t.rig.s3.faults().hold(On::any());
    let rounds = Rounds { every: PERIOD, listed_only: false };
    let sweep = tokio::spawn(t.rig.revalidator.clone().keep_sweeping(rounds, t.source.clone(), t.rig.stop.clone()));
    t.turns().await;
    t.pass(PERIOD).await;
    within(gate.arrived()).await;
    t.rig.stop.cancel();
    within(sweep).await.unwrap();
}
