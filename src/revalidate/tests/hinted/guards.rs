//! What each part of taking a hint is for, seen where the others do not help: S3 refuses to tell at once, or an older
//! answer is on its way.

use super::*;
use crate::revalidate::queue::LIST_PAYS;

impl Bench {
    /// S3 refuses these requests from now on.
    fn refuse(&self, on: impl Into<On>) {
        self.rig.s3.faults().inject_always(on, Fault::Denied);
    }

    async fn names(&self, dir: &str) -> Vec<String> {
        let mut names = self.rig.list(dir).await;
        names.sort();
        names
    }

    /// On one thread, and while no time passes: whoever does not wait for time has sent his question when this returns.
    async fn turns(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn is_trusted(&self, key: &str) -> bool {
        self.rig.known(key).unwrap().freshness.checked() != Tick::NEVER
    }

    /// With `d/a` here, and the answer to the first listing of `d/` held.
    async fn with_listing_under_way(&self) -> (s3server::Gate, ListingProgress) {
        self.rig.warm("d/a", "one").await;
        let gate = self.rig.s3.faults().hold_answer(Request::List);
        let listing = self.rig.revalidator.list(self.rig.known("d/").unwrap().ino);
        within(gate.arrived()).await;
        (gate, listing)
    }
}

/// Whoever relies on events checks a listed directory rarely; one of which something was said, as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_is_listed_soon_when_a_name_that_came_or_went_cannot_be_asked_about() {
    let new = Said::Written { etag: None, size: None };
    for (key, said, names) in [("d/new", new, vec!["a", "b", "new"]), ("d/b", Said::Removed, vec!["a"])] {
        let t = Bench { rig: Rig::new().await };
        t.rig.revalidator.told_since(Some(t.rig.clock.now()));
        t.rig.warm("d/a", "one").await;
        t.rig.bucket.put("d/b", "one", &[]);
        assert_eq!(t.names("d").await, ["a", "b"]);
        t.quiet().await;
        t.refuse((Request::Head, key));
        match said {
            Said::Removed => drop(t.rig.bucket.delete(key)),
            _ => drop(t.rig.bucket.put(key, "two", &[])),
        }
        assert_eq!(t.tell_and_settle(vec![hint(key, said)]).await, [Effect::Applied]);
        assert_eq!(t.names("d").await, ["a", "b"], "S3 refused to tell");
        t.rig.clock.advance(config::RECHECK);
        t.names("d").await;
        t.quiet().await;
        assert_eq!(t.names("d").await, names);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_below_a_prefix_that_cannot_be_listed_is_asked_about_when_it_is_used() {
    let t = Bench::new().await;
    for key in ["d/a", "d/s/b"] {
        t.rig.warm(key, "one").await;
        t.rig.bucket.put(key, "two", &[]);
    }
    t.refuse(Request::List);
    assert_eq!(t.tell_and_settle(vec![hint("d/", Said::Changed)]).await, [Effect::Applied]);
    for key in ["d/a", "d/s/b"] {
        assert_eq!(t.rig.read_warm(key), "one");
        t.quiet().await;
        assert_eq!(t.rig.read_warm(key), "two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_an_older_listing_brings_after_its_removal_was_told_goes_again() {
    let t = Bench::new().await;
    t.rig.bucket.put("d/gone", "one", &[]);
    let (gate, listing) = t.with_listing_under_way().await;
    t.rig.bucket.delete("d/gone");
    let told = t.tell(vec![hint("d/gone", Said::Removed)]).await;
    assert_eq!(told, [Effect::Elsewhere], "it is not here yet");
    gate.release();
    within(listing.ended()).await.unwrap();
    t.quiet().await;
    assert!(t.rig.known("d/gone").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_an_older_listing_brings_after_all_was_distrusted_is_asked_about() {
    let t = Bench::new().await;
    t.rig.bucket.put("d/gone", "one", &[]);
    let (gate, listing) = t.with_listing_under_way().await;
    t.rig.bucket.delete("d/gone");
    t.rig.clock.advance(Duration::from_millis(1));
    t.rig.revalidator.distrust_all().await;
    t.rig.clock.advance(Duration::from_millis(1));
    gate.release();
    within(listing.ended()).await.unwrap();
    t.quiet().await;
    assert!(t.rig.known("d/gone").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_listing_brings_is_not_trusted_when_it_cannot_be_asked_about() {
    let t = Bench::new().await;
    t.rig.bucket.put("d/gone", "one", &[]);
    let (gate, listing) = t.with_listing_under_way().await;
    t.rig.bucket.delete("d/gone");
    t.tell(vec![hint("d/gone", Said::Removed)]).await;
    t.refuse((Request::Head, "d/gone"));
    gate.release();
    within(listing.ended()).await.unwrap();
    t.quiet().await;
    assert!(!t.is_trusted("d/gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_listing_settles_nothing_of_a_file_that_has_left_the_memory_since_the_hint() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    t.rig.list("").await;
    t.quiet().await;
    t.rig.clock.advance(Duration::from_secs(60));
    let gate = t.rig.s3.faults().hold_answer(Request::List);
    t.rig.revalidator.touch(&t.rig.root());
    within(gate.arrived()).await;
    t.rig.bucket.put("a", "two", &[]);
    t.refuse(Request::Head);
    // All that is left of a hint when its inode is read from disk again.
    t.rig.revalidator.recent.note(&Key::new("a").unwrap(), t.rig.clock.now());
    gate.release();
    t.quiet().await;
    t.rig.s3.faults().clear();
    assert_eq!(t.rig.read_warm("a"), "one");
    t.quiet().await;
    assert_eq!(t.rig.read_warm("a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_is_forgotten_when_so_much_is_said_that_nobody_remembers_what() {
    let t = Bench::new().await;
    assert!(t.rig.find("a").await.unwrap().is_none());
    t.rig.bucket.put("a", "one", &[]);
    t.tell_and_settle(vec![written("a")]).await;
    for n in 0..200_000 {
        let key = Key::new(&n.to_string()).unwrap();
        (0..2).for_each(|_| t.rig.revalidator.recent.note(&key, t.rig.clock.now()));
    }
    assert!(t.rig.find("a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_that_a_lookup_in_flight_does_not_find_is_not_remembered_as_absent() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    let dir = t.rig.known("d/").unwrap().ino;
    let gate = t.rig.s3.faults().hold_answer((Request::List, "d/s/"));
    let revalidator = t.rig.revalidator.clone();
    let before = tokio::spawn(async move { revalidator.look_up(dir, &name("s")).await });
    within(gate.arrived()).await;
    t.rig.bucket.put("d/s/x", "new", &[]);
    t.tell(vec![written("d/s/x")]).await;
    gate.release();
    assert!(within(before).await.unwrap().unwrap().is_none(), "it was not there then");
    assert!(t.rig.find("d/s/x").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_that_a_lookup_brings_after_the_hint_is_asked_about_at_the_next_use() {
    let t = Bench::new().await;
    t.rig.bucket.put("a", "one", &[]);
    let gate = t.rig.s3.faults().hold_answer((Request::Get, "a"));
    let revalidator = t.rig.revalidator.clone();
    let before = tokio::spawn(async move { revalidator.look_up(Ino::ROOT, &name("a")).await });
    within(gate.arrived()).await;
    t.rig.bucket.put("a", "two", &[]);
    t.tell(vec![written("a")]).await;
    gate.release();
    within(before).await.unwrap().unwrap();
    assert!(!t.is_trusted("a"), "what came is older than the hint");
    t.rig.read("a").await;
    t.quiet().await;
    assert_eq!(t.rig.read("a").await, "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_in_flight_that_was_sent_before_all_was_distrusted_is_not_joined_and_not_remembered() {
    for joins in [true, false] {
        let t = Bench::new().await;
        t.rig.warm("d/a", "one").await;
        let dir = t.rig.known("d/").unwrap().ino;
        let gate = t.rig.s3.faults().hold_answer((Request::Get, "d/b"));
        let revalidator = t.rig.revalidator.clone();
        let before = tokio::spawn(async move { revalidator.look_up(dir, &name("b")).await });
        within(gate.arrived()).await;
        t.rig.bucket.put("d/b", "new", &[]);
        t.rig.clock.advance(Duration::from_millis(1));
        t.rig.revalidator.distrust_all().await;
        t.rig.clock.advance(Duration::from_millis(1));
        let name = name("b");
        let after = t.rig.revalidator.look_up(dir, &name);
        tokio::pin!(after);
        if joins {
            assert!(futures::poll!(after.as_mut()).is_pending());
        }
        gate.release();
        if !joins {
            assert!(within(before).await.unwrap().unwrap().is_none(), "it was not there then");
        }
        assert!(within(after).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_is_asked_for_a_hint_is_sent_later_than_it_came_and_settles_it() {
    let t = Bench::new().await;
    for key in ["a", "d/a", "e/a"] {
        t.rig.warm(key, "one").await;
    }
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.read_warm("a");
    t.rig.bucket.put("d/new", "two", &[]);
    t.rig.s3.requests().reset();
    t.rig.clock.advance(Duration::from_millis(1));
    for hint in [written("a"), written("d/new"), hint("e/", Said::Changed)] {
        t.rig.revalidator.hinted(&hint).await.unwrap();
    }
    t.turns().await;
    t.quiet().await;
    assert_eq!([t.is_trusted("a"), t.is_trusted("d/new"), t.is_trusted("e/a")], [true; 3]);
    assert_eq!(t.rig.s3.requests().total(), 3);
}

#[tokio::test]
async fn listing_for_many_hints_is_sent_later_than_they_came() {
    let t = Bench::new().await;
    let keys: Vec<String> = (10..10 + LIST_PAYS).map(|n| format!("d/{n}")).collect();
    for key in &keys {
        t.rig.warm(key, "one").await;
    }
    t.rig.clock.advance(Duration::from_millis(1));
    for key in &keys {
        t.rig.revalidator.hinted(&written(key)).await.unwrap();
    }
    t.turns().await;
    t.quiet().await;
    assert!(keys.iter().all(|key| t.is_trusted(key)));
    assert_eq!(t.rig.s3.requests().total(), 1);
}

#[tokio::test]
async fn listing_of_a_directory_that_is_used_at_once_is_sent_later_than_the_hint_came() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.clock.advance(Duration::from_secs(60));
    t.rig.revalidator.hinted(&written("d/b")).await.unwrap();
    t.rig.list("d").await;
    t.turns().await;
    t.quiet().await;
    assert!(t.is_trusted("d/"));
}
