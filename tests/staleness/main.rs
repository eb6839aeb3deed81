//! Three servers of one bucket, written to from all sides, and a judge of every answer that any of them gives: sections
//! F2, F4 and F6 of the README, and what hints promise.
//!
//! FASTS3_STALENESS_SECS (3) is how long each test goes on at least, FASTS3_SEED repeats one (but for what the threads do).

#![allow(unreachable_pub, clippy::print_stdout, clippy::unwrap_used)]

mod checker;
mod hints;
mod history;
mod people;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use checker::{Findings, Promise, Rule};
use hints::Way;
use people::{Reading, Visitor};
use random::Random;
use support::soon;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::{SERVERS, Setup, World, name};

/// Written by somebody else in S3, and removed now and then.
const FOREIGN: std::ops::Range<usize> = 0..6;
/// Written through NFS, each at one server: two that are written at the same time are a conflict (D4), not stale.
const OURS: std::ops::Range<usize> = 6..12;
const READING: Reading = Reading { pause: Duration::from_micros(2_000), lists: true };
/// Readers of each server.
const READERS: usize = 2;
/// How often each rule is put to the test before a test may end, and when it is taken for never.
const OFTEN: u64 = 10;
const NEVER: Duration = Duration::from_secs(60);

struct Run {
    recheck: Duration,
    way: Way,
    is_strict: bool,
    restarts: bool,
    /// What it is about.
    rules: &'static [Rule],
}

impl Run {
    /// Lets everybody loose for a while; then all servers must agree with S3.
    async fn go(self) {
        let seed = std::env::var("FASTS3_SEED").map_or_else(|_| rand_seed(), |seed| seed.parse().unwrap());
        println!("FASTS3_SEED={seed}");
        let mut random = Random::new(seed);
        // one server alone has the strict mode
        let is_strict = vec![false, false, self.is_strict];
        let flags = std::array::from_fn(|server| match is_strict[server] {
            true => ["--no-sign-request", "--stale-limit", "one", "--stale-wait", "60s"].map(String::from).to_vec(),
            false => vec!["--no-sign-request".to_owned()],
        });
        let setup = Setup { keys: OURS.end, are_small: false, recheck: self.recheck, flags };
        let (world, news) = World::new(setup).await;
        let telling = tokio::spawn(hints::tell(world.clone(), news, self.way, random.fork()));
        let promise = Promise { recheck: self.recheck, is_strict };
        let judge = || checker::judge(&world.history.lock(), &world.record.lock(), &promise);
        warm_up(&world).await;
        self.let_loose(&world, &mut random, || self.is_tested(&judge())).await;
        // The witness, which holds the other end, goes with this one; then all hints arrive.
        world.s3.set_witness(|_| {});
        soon(telling).await.unwrap();
        self.settle(&world).await;
        let findings = judge();
        println!(
            "{} answers, {} stale, at most {:?}, bound {:?}",
            findings.answers, findings.stale, findings.longest, findings.bound
        );
        let first: Vec<_> = findings.breaches.iter().take(5).collect();
        assert!(first.is_empty(), "{:?}, as {first:#?}", findings.broken());
        assert!(self.is_tested(&findings), "not all of {:?} were put to the test {OFTEN} times", self.rules);
        agree(&world).await;
    }

    /// Whether each rule was put to the test often enough: on a busy machine that takes longer.
    fn is_tested(&self, findings: &Findings) -> bool {
        self.rules.iter().all(|rule| findings.bound(*rule) >= OFTEN)
    }

    async fn let_loose(&self, world: &Arc<World>, random: &mut Random, is_enough: impl Fn() -> bool) {
        let (readers_stop, writers_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut readers, mut writers) = (JoinSet::new(), JoinSet::new());
        for server in 0..SERVERS {
            for _ in 0..READERS {
                readers.spawn(people::read_on(world.clone(), server, random.fork(), READING, readers_stop.clone()));
            }
            readers.spawn(people::note_quiet(world.clone(), server, readers_stop.clone()));
            writers.spawn(write_on(world.clone(), server, random.fork(), writers_stop.clone()));
        }
        writers.spawn(change_on(world.clone(), random.fork(), writers_stop.clone()));
        let secs = std::env::var("FASTS3_STALENESS_SECS").map_or(3.0, |secs| secs.parse().unwrap());
        let half = Duration::from_secs_f64(secs / 2.0);
        tokio::time::sleep(half).await;
        if self.restarts {
            world.restart(random.below(SERVERS as u64) as usize).await;
        }
        tokio::time::sleep(half).await;
        let begun = Instant::now();
        while !is_enough() && begun.elapsed() < NEVER {
            tokio::time::sleep(half).await;
        }
        writers_stop.cancel();
        ended(writers).await;
        for server in 0..SERVERS {
            let place = world.at(server).await;
            soon(place.server().writeback().synced(None)).await.unwrap();
        }
        readers_stop.cancel();
        ended(readers).await;
    }

    /// Has everything checked that is still due: by hints it was, by the clock it is when it is used.
    async fn settle(&self, world: &Arc<World>) {
        if self.way != Way::Straight {
            tokio::time::sleep(self.recheck).await;
            for server in 0..SERVERS {
                let mut visitor = Visitor::new(world, server);
                for key in 0..world.setup.keys {
                    visitor.read_all(key).await;
                }
            }
        }
        for server in 0..SERVERS {
            soon(world.at(server).await.server().revalidator().quiet()).await;
        }
    }
}

/// Everything is read once everywhere, and so complete there.
async fn warm_up(world: &Arc<World>) {
    for server in 0..SERVERS {
        let mut visitor = Visitor::new(world, server);
        for key in 0..world.setup.keys {
            visitor.read_all(key).await;
        }
    }
}

/// Somebody else's changes in S3.
async fn change_on(world: Arc<World>, mut random: Random, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let key = FOREIGN.start + random.below(FOREIGN.len() as u64) as usize;
        if world.last(key).is_some() && random.once_in(4) {
            world.remove(key)
        } else {
            world.put(key)
        }
        tokio::time::sleep(random.micros(60_000)).await;
    }
}

/// Changes through NFS at one server, of the keys that are its own.
async fn write_on(world: Arc<World>, server: usize, mut random: Random, stop: CancellationToken) {
    let mut visitor = Visitor::new(&world, server);
    while !stop.is_cancelled() {
        let of_server = OURS.len() / SERVERS;
        let key = OURS.start + server * of_server + random.below(of_server as u64) as usize;
        visitor.write(key, random.once_in(2)).await;
        tokio::time::sleep(random.micros(120_000)).await;
    }
}

/// What all servers show is what S3 has, and that is all that S3 has.
async fn agree(world: &Arc<World>) {
    for server in 0..SERVERS {
        let mut visitor = Visitor::new(world, server);
        for key in 0..world.setup.keys {
            let here = visitor.read_all(key).await;
            let there = world.bucket.get(&name(key)).map(|stored| stored.bytes.to_vec());
            let wanted = world.last(key).map(|number| history::body(world.base(key), number));
            assert!(there == wanted, "{} is torn in S3", name(key));
            assert!(here == there, "server {server} differs from S3 in {}, which has {:?}", name(key), world.last(key));
        }
    }
    let conflicts: Vec<_> = world.bucket.keys().into_iter().filter(|key| key.contains("conflict")).collect();
    assert!(conflicts.is_empty(), "{conflicts:?}");
}

async fn ended(mut tasks: JoinSet<()>) {
    while let Some(ended) = soon(tasks.join_next()).await {
        ended.unwrap();
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hints_every_answer_keeps_the_bounds_of_f2_f4_and_f6() {
    let (recheck, rules) = (Duration::from_millis(100), &[Rule::F2, Rule::F4, Rule::F6]);
    Run { recheck, way: Way::Nowhere, is_strict: true, restarts: false, rules }.go().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_change_told_no_answer_is_stale_once_the_hint_was_taken() {
    let recheck = Duration::from_secs(3600);
    Run { recheck, way: Way::Straight, is_strict: false, restarts: false, rules: &[Rule::Hint] }.go().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_that_are_lost_doubled_late_and_out_of_order_cost_requests_and_no_more() {
    let (recheck, rules) = (Duration::from_millis(200), &[Rule::F2, Rule::F6, Rule::Hint]);
    Run { recheck, way: Way::Crooked, is_strict: true, restarts: true, rules }.go().await;
}
