//! What others say has changed: issue 5's "a hint only expires; truth comes from S3".

mod guards;

use super::*;
use crate::revalidate::Effect;
use crate::revalidate::hinted::FEW;
use crate::types::{Hint, Origin, Said};

/// A rig whose checks are rare.
struct Bench {
    rig: Rig,
}

impl Bench {
    async fn new() -> Bench {
        let mut setup = Setup::default();
        setup.settings.recheck = Duration::from_secs(60);
        Bench { rig: Rig::with(setup).await }
    }

    /// Tells, a moment after all that has happened so far; the next moment is here when it returns.
    async fn tell(&self, hints: Vec<Hint>) -> Vec<Effect> {
        self.rig.clock.advance(Duration::from_millis(1));
        let mut effects = Vec::new();
        for hint in hints {
            effects.push(self.rig.revalidator.hinted(&hint).await.unwrap());
        }
        self.rig.clock.advance(Duration::from_millis(1));
        effects
    }

    async fn tell_and_settle(&self, hints: Vec<Hint>) -> Vec<Effect> {
        let effects = self.tell(hints).await;
        self.quiet().await;
        effects
    }

    /// Waits until nothing is asked any more.
    async fn quiet(&self) {
        self.meanwhile(self.rig.revalidator.quiet()).await;
    }

    /// Waits for `what`; what waits for a later tick gets it.
    async fn meanwhile(&self, what: impl Future<Output = ()>) {
        tokio::pin!(what);
        let all = async {
            loop {
                tokio::select! {
                    () = &mut what => return,
                    () = tokio::time::sleep(Duration::from_millis(1)) => self.rig.clock.advance(Duration::from_millis(1)),
                }
            }
        };
        within(all).await;
    }
}

fn hint(key: &str, said: Said) -> Hint {
    Hint { key: Key::new(key).unwrap(), said, sequencer: None, at: None, origin: Origin::Sqs }
}

fn written(key: &str) -> Hint {
    hint(key, Said::Written { etag: None, size: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hint_makes_the_next_request_fresh() {
    let t = Bench::new().await;
    t.rig.warm("a.txt", "one").await;
    t.rig.bucket.put("a.txt", "two", &[]);
    t.rig.pass_recheck();
    assert_eq!(t.rig.read_warm("a.txt"), "one", "checked less than --recheck ago");
    assert_eq!(t.rig.s3.requests().total(), 0);
    assert_eq!(t.tell_and_settle(vec![written("a.txt")]).await, [Effect::Applied]);
    assert_eq!(t.rig.read_warm("a.txt"), "two", "nobody had to ask for it first");
    t.quiet().await;
    assert_eq!(t.rig.s3.requests().total(), 1, "and it is fresh for another --recheck");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_in_flight_that_was_sent_before_the_hint_does_not_count() {
    let t = Bench::new().await;
    t.rig.warm("a.txt", "one").await;
    t.rig.clock.advance(Duration::from_secs(60));
    let gate = t.rig.s3.faults().hold_answer(Request::Get);
    t.rig.read_warm("a.txt");
    within(gate.arrived()).await;
    t.rig.bucket.put("a.txt", "two", &[]);
    t.tell(vec![written("a.txt")]).await;
    gate.release();
    t.quiet().await;
    assert_eq!(t.rig.read_warm("a.txt"), "two");
    assert_eq!(t.rig.count(Request::Get), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_for_a_hint_that_is_overtaken_by_an_older_listing_is_made_again() {
    let t = Bench::new().await;
    t.rig.warm("a.txt", "one").await;
    t.rig.list("").await;
    t.quiet().await;
    t.rig.clock.advance(Duration::from_secs(60));
    let listing = t.rig.s3.faults().hold_answer(Request::List);
    t.rig.revalidator.touch(&t.rig.root());
    within(listing.arrived()).await;
    t.rig.bucket.put("a.txt", "two", &[]);
    let check = t.rig.s3.faults().hold_answer(Request::Get);
    t.tell(vec![written("a.txt")]).await;
    within(check.arrived()).await;
    listing.release();
    // The listing is older than the hint, and so its names are asked about again.
    let asked = async {
        while t.rig.count(Request::Head) == 0 {
            t.rig.clock.advance(Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(asked).await;
    check.release();
    t.quiet().await;
    assert_eq!(t.rig.read_warm("a.txt"), "two", "nobody had to ask for it first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_in_flight_that_was_sent_before_the_hint_settles_nothing() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    let gate = t.rig.s3.faults().hold_answer(Request::List);
    let listing = t.rig.revalidator.list(t.rig.known("d/").unwrap().ino);
    within(gate.arrived()).await;
    t.rig.bucket.put("d/b", "new", &[]);
    t.rig.bucket.delete("d/a");
    t.tell(vec![written("d/b"), hint("d/a", Said::Removed)]).await;
    gate.release();
    within(listing.ended()).await.unwrap();
    t.quiet().await;
    let dir = t.rig.known("d/").unwrap();
    assert_eq!(dir.freshness.checked(), Tick::NEVER);
    assert!(!t.rig.revalidator.is_absent(&dir, &name("b")), "its listing is older than what was said");
    assert_eq!(t.rig.read("d/b").await, "new");
    assert!(t.rig.known("d/a").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_of_all_below_that_was_sent_before_the_hint_lacks_no_name_of_a_directory_that_it_brings() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.bucket.put("d/s/t/a", "old", &[]);
    let gate = t.rig.s3.faults().hold_answer(Request::List);
    t.tell(vec![hint("d/", Said::Changed)]).await;
    t.meanwhile(gate.arrived()).await;
    t.rig.bucket.put("d/s/t/x", "new", &[]);
    t.tell(vec![written("d/s/t/x")]).await;
    gate.release();
    t.quiet().await;
    assert!(t.rig.known("d/s/t/").unwrap().listed);
    assert!(t.rig.known("d/s/t/x").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_came_back_is_found_though_its_end_is_learned_after_the_hint() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.bucket.delete("d/a");
    let gate = t.rig.s3.faults().hold_answer(Request::Get);
    t.tell(vec![hint("d/a", Said::Changed)]).await;
    within(gate.arrived()).await;
    t.rig.bucket.put("d/a", "two", &[]);
    t.tell(vec![written("d/a")]).await;
    gate.release();
    t.quiet().await;
    assert!(t.rig.known("d/a").is_none(), "S3 had none when it was asked");
    let dir = t.rig.known("d/").unwrap();
    assert!(!t.rig.revalidator.is_absent(&dir, &name("a")), "the listing of the directory is older than the hint");
    assert_eq!(t.rig.read("d/a").await, "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_name_is_in_the_next_readdir_of_a_listed_directory() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.s3.requests().reset();
    t.rig.bucket.put("d/b", "two", &[]);
    t.rig.bucket.put("d/s/x", "three", &[]);
    assert_eq!(t.tell_and_settle(vec![written("d/b"), written("d/s/x")]).await, [Effect::Applied; 2]);
    let dir = t.rig.known("d/").unwrap();
    let mut names = t.rig.names(dir.ino);
    names.sort();
    assert_eq!(names, ["a", "b", "s"]);
    assert_eq!((t.rig.count(Request::Head), t.rig.count(Request::List)), (1, 1), "a key, and a prefix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remembered_absence_is_forgotten() {
    let t = Bench::new().await;
    assert!(t.rig.find("a").await.unwrap().is_none());
    t.rig.bucket.put("a", "one", &[]);
    assert!(t.rig.find("a").await.unwrap().is_none(), "remembered for --recheck");
    t.tell_and_settle(vec![written("a")]).await;
    assert!(t.rig.find("a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_in_flight_that_was_sent_before_the_hint_is_not_joined_and_not_remembered() {
    let t = Bench::new().await;
    let gate = t.rig.s3.faults().hold_answer(On::any());
    let revalidator = t.rig.revalidator.clone();
    let before = tokio::spawn(async move { revalidator.look_up(Ino::ROOT, &name("a")).await });
    within(gate.arrived()).await;
    t.rig.bucket.put("a", "one", &[]);
    t.tell(vec![written("a")]).await;
    gate.release();
    let after = t.rig.find("a");
    assert!(within(after).await.unwrap().is_some(), "asked again");
    drop(within(before).await);
    assert!(t.rig.find("a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_key_is_gone_before_anybody_asks() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    t.rig.list("d").await;
    t.rig.bucket.delete("d/a");
    assert_eq!(t.tell_and_settle(vec![hint("d/a", Said::Removed)]).await, [Effect::Applied]);
    assert!(t.rig.known("d/a").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_here_is_nobodys_business() {
    let t = Bench::new().await;
    let told = t.tell_and_settle(vec![hint("no/such", Said::Removed), written("cold/unlisted")]).await;
    assert_eq!(told, [Effect::Elsewhere, Effect::Applied], "of what may come, the absence is forgotten");
    assert_eq!(t.rig.s3.requests().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_write_comes_back_as_an_echo() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    let etag = t.rig.known("a").unwrap().remote.clone().unwrap().etag;
    let said = |etag: &ETag| Said::Written { etag: Some(etag.clone()), size: Some(3) };
    let told = t.tell_and_settle(vec![hint("a", said(&etag))]).await;
    assert_eq!(told, [Effect::Echo]);
    assert_eq!(t.rig.s3.requests().total(), 0);
    t.tell_and_settle(vec![hint("a", said(&ETag::new("other")))]).await;
    assert_eq!(t.rig.s3.requests().total(), 1);
    assert_eq!(t.rig.read_warm("a"), "one", "it was not true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_bytes_with_other_metadata_are_no_echo() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    t.rig.clock.advance(Duration::from_secs(10));
    t.rig.bucket.put("a", "one", &[("file-permissions", "0100600")]);
    let etag = t.rig.known("a").unwrap().remote.clone().unwrap().etag;
    let said = Said::Written { etag: Some(etag), size: Some(3) };
    let at = Some(t.rig.clock.wall());
    t.tell_and_settle(vec![Hint { at, ..hint("a", said) }]).await;
    assert_eq!(t.rig.known("a").unwrap().mode, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_hints_cost_a_request_at_most() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    t.tell_and_settle(vec![hint("a", Said::Removed), written("never/was"), hint("a", Said::Changed)]).await;
    assert_eq!(t.rig.read_warm("a"), "one");
    assert!(t.rig.known("never/was").is_none());
    assert!(t.rig.s3.requests().total() <= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_hint_for_dirty_file_keeps_local_bytes() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    let node = t.rig.known("a").unwrap();
    changes::stage(&t.rig.index, node.ino, 3).await;
    t.rig.bucket.put("a", "theirs", &[]);
    let before = t.rig.known("a").unwrap().inode.clone();
    for said in [Said::Written { etag: Some(ETag::new("x")), size: Some(6) }, Said::Removed, Said::Changed] {
        let told = t.tell_and_settle(vec![Hint { origin: Origin::Peer, ..hint("a", said) }]).await;
        assert_eq!(told, [Effect::Applied]);
    }
    assert_eq!(t.rig.known("a").unwrap().inode, before, "its upload finds the conflict");
    assert_eq!(t.rig.s3.requests().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_distrusts_all_below_and_is_one_listing() {
    let t = Bench::new().await;
    for key in ["d/a", "d/s/b", "e/c"] {
        t.rig.warm(key, "one").await;
        t.rig.bucket.put(key, "two", &[]);
    }
    t.rig.list("d").await;
    t.rig.bucket.put("d/n", "new", &[]);
    t.quiet().await;
    t.rig.s3.requests().reset();
    assert_eq!(t.tell_and_settle(vec![hint("d/", Said::Changed)]).await, [Effect::Applied]);
    assert_eq!((t.rig.read_warm("d/a"), t.rig.read_warm("d/s/b")), ("two".into(), "two".into()));
    assert!(t.rig.known("d/n").is_some());
    let others = t.rig.known("e/c").unwrap();
    assert_ne!(others.freshness.checked(), Tick::NEVER, "not below it");
    assert_eq!((t.rig.count(Request::List), t.rig.count(Request::Get)), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_of_all_is_of_names_that_are_not_here_as_well() {
    for said in [Key::new("d/").unwrap(), Key::root()] {
        let t = Bench::new().await;
        t.rig.warm("d/a", "one").await;
        assert!(t.rig.find("d/b").await.unwrap().is_none());
        let gate = t.rig.s3.faults().hold_answer(On::any());
        let (revalidator, dir) = (t.rig.revalidator.clone(), t.rig.known("d/").unwrap().ino);
        let before = tokio::spawn(async move { revalidator.look_up(dir, &name("c")).await });
        within(gate.arrived()).await;
        t.rig.bucket.put("d/b", "new", &[]);
        t.rig.bucket.put("d/c", "new", &[]);
        t.tell(vec![hint(said.as_str(), Said::Changed)]).await;
        gate.release();
        assert!(within(t.rig.find("d/c")).await.unwrap().is_some(), "asked again");
        assert!(within(t.rig.find("d/b")).await.unwrap().is_some(), "its absence is forgotten");
        drop(within(before).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_in_flight_that_was_sent_before_all_was_distrusted_settles_nothing() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    let gate = t.rig.s3.faults().hold_answer(Request::List);
    let listing = t.rig.revalidator.list(t.rig.known("d/").unwrap().ino);
    within(gate.arrived()).await;
    t.rig.bucket.put("d/a", "two", &[]);
    t.rig.clock.advance(Duration::from_millis(1));
    t.rig.revalidator.distrust_all().await;
    t.rig.clock.advance(Duration::from_millis(1));
    gate.release();
    within(listing.ended()).await.unwrap();
    t.quiet().await;
    assert_eq!(t.rig.known("d/").unwrap().freshness.checked(), Tick::NEVER);
    t.rig.read_warm("d/a");
    t.quiet().await;
    assert_eq!(t.rig.read_warm("d/a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_here_before_a_source_listened_is_asked_about_when_it_is_used() {
    let t = Bench::new().await;
    for key in ["a", "d/b", "d/c"] {
        t.rig.warm(key, "one").await;
        t.rig.bucket.put(key, "two", &[]);
    }
    t.rig.list("d").await;
    t.quiet().await;
    t.rig.s3.requests().reset();
    t.rig.clock.advance(Duration::from_millis(1));
    t.rig.revalidator.distrust_all().await;
    t.quiet().await;
    assert_eq!(t.rig.s3.requests().total(), 0, "as after a start");
    for key in ["a", "d/b"] {
        assert_eq!(t.rig.read_warm(key), "one");
        t.quiet().await;
        assert_eq!(t.rig.read_warm(key), "two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_directory_is_found_by_the_keys_that_s3_has() {
    let t = Bench::new().await;
    t.rig.warm("d/a", "one").await;
    let dir = t.rig.known("d/").unwrap().ino;
    changes::rename(&t.rig.index, dir, Ino::ROOT, "e/").await;
    t.rig.bucket.put("d/a", "two", &[]);
    t.tell_and_settle(vec![written("d/a")]).await;
    assert_eq!(t.rig.read_warm("e/a"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_that_is_away_leaves_hints_distrusted() {
    let t = Bench::new().await;
    t.rig.warm("a", "one").await;
    take_down(&t.rig.s3);
    t.tell_and_settle(vec![written("a")]).await;
    assert_eq!(t.rig.known("a").unwrap().freshness.checked(), Tick::NEVER);
    assert_eq!(t.rig.read_warm("a"), "one");
}

/// On one thread, so that no check is made between two hints.
#[tokio::test]
async fn wave_brings_what_was_used_and_only_distrusts_the_rest_of_the_mirror() {
    let t = Bench::new().await;
    let keys: Vec<String> = (0..FEW + 10).map(|n| format!("f{n:04}")).collect();
    keys.iter().for_each(|key| drop(t.rig.bucket.put(key, "one", &[])));
    within(t.rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
    for key in &keys {
        t.rig.wait_complete(key).await;
        t.rig.bucket.put(key, "two", &[]);
    }
    t.rig.pass_recheck();
    let used = keys.last().unwrap();
    assert_eq!(t.rig.read_warm(used), "one");
    t.rig.clock.advance(Duration::from_millis(1));
    for key in &keys {
        assert_eq!(t.rig.revalidator.hinted(&written(key)).await.unwrap(), Effect::Applied);
    }
    let is_asked = |key: &String| t.rig.known(key).unwrap().freshness.is_pending();
    assert!(keys[..FEW].iter().all(is_asked) && is_asked(used));
    assert!(!keys[FEW..keys.len() - 1].iter().any(is_asked));
    t.rig.clock.advance(Duration::from_millis(1));
    t.quiet().await;
    assert_eq!((t.rig.read_warm(&keys[0]), t.rig.read_warm(used)), ("two".into(), "two".into()));
    assert_eq!(t.rig.read_warm(&keys[FEW]), "one", "the one request that may be stale");
    t.quiet().await;
    assert_eq!(t.rig.read_warm(&keys[FEW]), "two");
}

/// Directories of the wave, each of so many files that have gone, so many new ones, and so many forged names.
const DIRS: usize = 100;
const EACH: usize = 100;
const FORGED: usize = 800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wave_of_a_hundred_thousand_hints_is_some_listings() {
    let t = Bench::new().await;
    let keys = |what: &str, each: usize| -> Vec<String> {
        (0..DIRS * each).map(|n| format!("{:03}/{what}{n:06}", n % DIRS)).collect()
    };
    let (gone, new, forged) = (keys("gone", EACH), keys("new", EACH), keys("forged", FORGED));
    gone.iter().for_each(|key| drop(t.rig.bucket.put(key, "x", &[])));
    within(t.rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
    gone.iter().for_each(|key| assert!(t.rig.bucket.delete(key)));
    new.iter().for_each(|key| drop(t.rig.bucket.put(key, "x", &[])));
    t.rig.s3.requests().reset();
    t.rig.clock.advance(Duration::from_millis(1));

    let removed = gone.iter().map(|key| hint(key, Said::Removed));
    let hints: Vec<Hint> = removed.chain(new.iter().chain(&forged).map(|key| written(key))).collect();
    assert_eq!(hints.len(), 100_000);
    let telling = hints.chunks(hints.len() / 4).map(|part| {
        let (revalidator, part) = (t.rig.revalidator.clone(), part.to_vec());
        tokio::spawn(async move {
            for (n, hint) in part.iter().enumerate() {
                revalidator.hinted(hint).await.unwrap();
                // as they come out of a queue
                if n % 10 == 9 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for told in telling.collect::<Vec<_>>() {
        told.await.unwrap();
        t.rig.clock.advance(Duration::from_millis(1));
    }
    t.quiet().await;

    let counts = t.rig.index.counts();
    assert_eq!(counts.files, (DIRS * EACH) as u64, "those that have gone went, the new ones are here");
    let (heads, lists) = (t.rig.count(Request::Head), t.rig.count(Request::List));
    assert!(heads < 2_000 && lists < 5_000, "{heads} HEADs, {lists} LISTs");
}

/// A server that checks every second, and every minute what was checked since events tell of changes.
async fn stretched() -> Rig {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    rig.warm("b", "one").await;
    rig
}

async fn checks_after(rig: &Rig, pause: Duration) -> u64 {
    rig.clock.advance(pause);
    rig.s3.requests().reset();
    rig.read_warm("a");
    rig.settled("a").await;
    rig.s3.requests().total()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recheck_is_stretched_only_for_what_was_checked_since_events_tell() {
    let rig = stretched().await;
    rig.clock.advance(Duration::from_millis(1));
    rig.revalidator.told_since(Some(rig.clock.now()));
    assert_eq!(checks_after(&rig, config::RECHECK).await, 1, "checked before");
    assert_eq!(checks_after(&rig, Duration::from_secs(59)).await, 0);
    assert_eq!(rig.revalidator.stats().spared, 1, "once, not at every touch");
    rig.read_warm("a");
    assert_eq!(rig.revalidator.stats().spared, 1);
    assert_eq!(checks_after(&rig, Duration::from_secs(1)).await, 1, "--recheck-healthy has passed");
    assert_eq!(checks_after(&rig, Duration::from_secs(10)).await, 0);
    rig.revalidator.told_since(None);
    assert_eq!(checks_after(&rig, Duration::ZERO).await, 1, "shrinks back at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_is_remembered_longer_while_events_tell() {
    let rig = stretched().await;
    rig.revalidator.told_since(Some(rig.clock.now()));
    assert!(rig.find("c").await.unwrap().is_none());
    rig.s3.requests().reset();
    rig.clock.advance(Duration::from_secs(30));
    assert!(rig.find("c").await.unwrap().is_none());
    assert_eq!(rig.s3.requests().total(), 0);
    rig.revalidator.told_since(None);
    assert!(rig.find("c").await.unwrap().is_none());
    assert!(rig.s3.requests().total() > 0);
}
