//! `--s3-budget`: work behind answers goes as slowly as it must; what a client waits for does not.

use super::*;
use crate::store::{ListRequest, RequestKind};
use crate::types::{Hint, Origin, Said};

const MINUTE: Duration = Duration::from_secs(60);
/// What an hour pays for.
const HEADS_AN_HOUR: u64 = 20;

fn poor() -> Setup {
    Setup { budget: Some(RequestKind::Head.price() * HEADS_AN_HOUR * 25), ..Setup::default() }
}

impl Rig {
    /// What is left, in HEADs; negative: debt.
    fn left(&self) -> f64 {
        self.revalidator.stores.budget.state().unwrap().left / RequestKind::Head.price().to_f64()
    }

    /// Clients list until there is only debt.
    async fn spend_all(&self) {
        while self.left() > -1.0 {
            within(self.revalidator.stores.foreground.list(&ListRequest::default())).await.unwrap();
        }
        self.s3.requests().reset();
    }

    fn held(&self) -> u64 {
        self.revalidator.stats().held
    }

    /// Lets time pass, a minute at a time, and all that there is money for be done.
    async fn pass(&self, minutes: u64) {
        for _ in 0..minutes {
            self.clock.advance(MINUTE);
            self.pay().await;
        }
    }

    /// Until somebody waits for the budget; who asks in a later tick than this gets it.
    async fn someone_waits(&self) {
        let waits = async {
            while self.revalidator.stores.budget.state().unwrap().slow_since.is_none() {
                self.clock.advance(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        within(waits).await;
    }

    async fn pay(&self) {
        let paid = async {
            while self.held() > 0 && self.left() > 0.0 {
                tokio::task::yield_now().await;
            }
            self.revalidator.quiet().await;
        };
        within(paid).await;
    }
}

#[tokio::test]
async fn checks_behind_answers_are_as_many_as_the_budget_pays_for() {
    let rig = Rig::with(poor()).await;
    rig.warm("a.txt", "one").await;
    rig.spend_all().await;
    let debt = -rig.left();
    for _ in 0..3 * 60 {
        rig.pass(1).await;
        rig.read_warm("a.txt");
        rig.pay().await;
    }
    let (asked, earned) = (rig.s3.requests().total() as f64, 3.0 * HEADS_AN_HOUR as f64);
    assert!((earned - debt - 1.0..=earned - debt + 1.0).contains(&asked), "{asked} of {earned} less {debt}");
    rig.bucket.put("a.txt", "two", &[]);
    rig.read_warm("a.txt");
    rig.pass(60).await;
    assert_eq!((rig.read_warm("a.txt").as_str(), rig.held()), ("two", 0), "late, and yet");
}

#[tokio::test]
async fn without_a_budget_nothing_is_held() {
    let rig = Rig::new().await;
    rig.warm("a.txt", "one").await;
    for _ in 0..100 {
        rig.pass_recheck();
        rig.read_warm("a.txt");
        assert_eq!(rig.held(), 0);
        within(rig.revalidator.quiet()).await;
    }
    assert_eq!(rig.s3.requests().total(), 100);
}

#[tokio::test]
async fn what_clients_wait_for_goes_at_once_also_while_a_check_of_the_same_key_is_held() {
    let rig = Rig::with(poor()).await;
    rig.bucket.put("d/cold", "bytes", &[]);
    rig.bucket.put("d/other", "bytes", &[("file-permissions", "0100600")]);
    rig.bucket.put("e/f", "x", &[]);
    rig.list("d").await;
    rig.spend_all().await;
    rig.pass_recheck();
    let (cold, other) = (rig.known("d/cold").unwrap(), rig.known("d/other").unwrap());
    [&cold, &other, &rig.known("d/").unwrap()].into_iter().for_each(|node| rig.revalidator.touch(node));
    assert_eq!(rig.held(), 3);
    assert!(!cold.freshness.is_pending(), "nobody can come to wait for what is only noted");
    // READ, SETATTR, LOOKUP, READDIR, and a command
    assert_eq!(rig.read("d/cold").await, "bytes");
    within(rig.revalidator.describe(other.ino)).await;
    assert_eq!(rig.known("d/other").unwrap().mode, 0o600);
    assert!(rig.find("e/f").await.unwrap().is_some());
    assert!(rig.find("e/none").await.unwrap().is_none());
    assert_eq!(rig.list("e").await, ["f"]);
    assert_eq!(within(rig.revalidator.refresh(cold.ino)).await.unwrap().checked, 1);
    assert!(rig.held() > 0 && rig.left() < 0.0);
}

#[tokio::test]
async fn open_in_the_strict_mode_does_not_wait_for_the_budget() {
    // F6: "the next *open* of that file waits [...] for the check and copy then in flight"
    let mut setup = poor();
    setup.settings.stale_wait = Some(SOON * 2);
    let rig = Rig::with(setup).await;
    rig.warm("a.txt", "one").await;
    rig.spend_all().await;
    rig.pass_recheck();
    rig.bucket.put("a.txt", "two", &[]);
    assert!(!rig.revalidator.must_settle(&rig.known("a.txt").unwrap()), "the first one is served at once");
    assert_eq!(rig.read_warm("a.txt"), "one");
    assert_eq!((rig.held(), rig.s3.requests().total()), (1, 0));
    let node = rig.known("a.txt").unwrap();
    assert!(rig.revalidator.must_settle(&node));
    within(rig.revalidator.settled(node.ino)).await;
    assert_eq!(rig.read_warm("a.txt"), "two");
    let node = rig.known("a.txt").unwrap();
    assert!(!rig.revalidator.must_settle(&node), "it was checked just now, though it is still in the line");
    rig.pass(60).await;
    assert_eq!((rig.held(), rig.s3.requests().total()), (0, 1), "and is not checked once more for that");
}

#[tokio::test]
async fn checks_that_wait_together_are_answered_by_one_listing() {
    let rig = Rig::with(poor()).await;
    for n in 0..100 {
        rig.bucket.put(&format!("d/{n}"), "x", &[]);
    }
    rig.list("d").await;
    for n in 0..100 {
        within(rig.revalidator.refresh(rig.known(&format!("d/{n}")).unwrap().ino)).await.unwrap();
    }
    rig.spend_all().await;
    rig.pass_recheck();
    for n in 0..100 {
        rig.revalidator.touch(&rig.known(&format!("d/{n}")).unwrap());
    }
    rig.pass(1).await;
    assert_eq!((rig.held(), rig.s3.requests().total()), (100, 0));
    rig.pass(61).await;
    assert_eq!((rig.held(), rig.count(Request::List), rig.s3.requests().total()), (0, 1, 1));
}

#[tokio::test]
async fn line_of_held_checks_is_bounded() {
    let rig = Rig::with(poor()).await;
    rig.spend_all().await;
    let nodes: Vec<_> = (0..=queue::QUEUE as u64).map(|n| some_node(1_000 + n)).collect();
    for _ in 0..2 {
        nodes.iter().for_each(|node| rig.revalidator.touch(node));
    }
    let stats = rig.revalidator.stats();
    assert_eq!((stats.held, stats.dropped), (queue::QUEUE as u64, 2));
}

#[tokio::test]
async fn mirror_goes_as_slowly_as_it_must_and_readers_pass_it() {
    let rig = Rig::with(poor()).await;
    for n in 0..40 {
        rig.bucket.put(&n.to_string(), format!("text {n}"), &[]);
    }
    rig.spend_all().await;
    let mirror = tokio::spawn(rig.revalidator.clone().mirror(rig.stop.clone()));
    rig.pass(1).await;
    assert_eq!(rig.s3.requests().total(), 0, "its listing has to wait");
    assert_eq!(rig.read("7").await, "text 7");
    let (mut minutes, debt) = (0, -rig.left());
    while !mirror.is_finished() {
        // As long as there is money, it is at work.
        let at_work = async {
            while !mirror.is_finished() && (rig.left() > 0.0 || rig.revalidator.stores.budget.is_anybody_in()) {
                tokio::task::yield_now().await;
            }
        };
        within(at_work).await;
        rig.clock.advance(MINUTE);
        minutes += 1;
    }
    let (asked, earned) = (12.5 + 39.0, (minutes * HEADS_AN_HOUR) as f64 / 60.0 - debt);
    assert!((earned - 13.5..=earned + 1.0).contains(&asked), "{asked} for {earned} in {minutes} minutes");
    // One listing of all, and the reader's look for a directory of that name.
    assert_eq!((rig.count(Request::List), rig.revalidator.mirror_progress().done), (2, 40));
}

#[tokio::test]
async fn who_waits_for_the_budget_stops_when_told() {
    let rig = Rig::with(poor()).await;
    rig.bucket.put("a", "one", &[]);
    rig.warm("b", "one").await;
    rig.spend_all().await;
    rig.pass_recheck();
    rig.read_warm("b");
    let mirror = tokio::spawn(rig.revalidator.clone().mirror(rig.stop.clone()));
    rig.someone_waits().await;
    rig.stop.cancel();
    within(mirror).await.unwrap();
    rig.shut_down().await;
}

#[tokio::test]
async fn names_that_are_said_to_be_new_are_asked_about_when_there_is_money() {
    let rig = Rig::with(poor()).await;
    rig.bucket.put("d/a", "x", &[]);
    rig.list("d").await;
    rig.spend_all().await;
    rig.bucket.put("d/b", "x", &[]);
    let (said, key) = (Said::Written { etag: None, size: None }, Key::new("d/b").unwrap());
    let hint = Hint { key, said, sequencer: None, at: None, origin: Origin::Sqs };
    rig.revalidator.hinted(&hint).await.unwrap();
    rig.someone_waits().await;
    assert_eq!(rig.s3.requests().total(), 0);
    assert!(rig.find("d/b").await.unwrap().is_some(), "who looks for it finds it at once");
    rig.clock.advance(MINUTE * 60);
    let asked = async {
        while rig.count(Request::Head) == 0 {
            rig.clock.advance(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    };
    within(asked).await;
}
