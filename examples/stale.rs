//! How many answers are stale when three servers of one bucket are read while it changes: with no events, with events
//! through SQS (moto's), with servers that tell each other over NATS. The judge is that of the tests.
//!
//! `scripts/bench/stale` runs it. FASTS3_MOTO_SERVER names moto, nats-server is the one that is installed; S3 is the
//! server of the tests, whose keys the environment has to give.

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "../tests/staleness/checker.rs"]
mod checker;
#[path = "../tests/staleness/history.rs"]
mod history;
#[path = "../tests/store/moto.rs"]
mod moto;
#[path = "../tests/staleness/people.rs"]
mod people;
#[path = "../tests/staleness/random.rs"]
mod random;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/staleness/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use checker::{Findings, Promise};
use clap::Parser;
use fasts3::s3server::Kind;
use moto::Moto;
use people::{Reading, Visitor};
use random::Random;
use support::nats::Nats;
use support::soon;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::{News, SERVERS, Setup, World, name};

/// How often events go into the queues; S3 itself takes longer.
const EVENTS_EVERY: Duration = Duration::from_millis(50);
/// Most that one message takes.
const BATCH: usize = 100;

#[derive(Parser)]
struct Args {
    /// How long each figure takes.
    #[arg(long, default_value_t = 20)]
    secs: u64,
    /// Changes a second.
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// Objects, of a kilobyte.
    #[arg(long, default_value_t = 100)]
    objects: usize,
    /// Readers of each server.
    #[arg(long, default_value_t = 2)]
    readers: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nothing,
    Sqs,
    Peers,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    println!(
        "| hints | answers | stale | share | longest | checks | S3 requests (HEAD, GET, LIST) | requests a change |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for mode in [Mode::Nothing, Mode::Sqs, Mode::Peers] {
        measure(&args, mode).await;
    }
}

async fn measure(args: &Args, mode: Mode) {
    let (moto, nats) = match mode {
        Mode::Nothing => (None, None),
        Mode::Sqs => (Some(Moto::start().await.expect("FASTS3_MOTO_SERVER is set")), None),
        Mode::Peers => (None, Some(Nats::start(&[]).expect("nats-server is installed"))),
    };
    let queues = match &moto {
        Some(moto) => Some(Queues::make(moto).await),
        None => None,
    };
    let flags = |server: usize| match (&queues, &nats) {
        (Some(queues), _) => vec!["--events".to_owned(), format!("sqs={}", queues.urls[server])],
        (_, Some(nats)) => vec!["--peers".to_owned(), nats.url()],
        _ => Vec::new(),
    };
    let recheck = Duration::from_secs(1);
    let setup = Setup { keys: args.objects, are_small: true, recheck, flags: std::array::from_fn(flags) };
    let (world, news) = World::new(setup).await;
    let telling = tokio::spawn(tell(news, queues));
    for server in 0..SERVERS {
        let mut visitor = Visitor::new(&world, server);
        for key in 0..args.objects {
            visitor.read_all(key).await;
        }
    }
    // the sources prove themselves, the servers meet
    change(&world, args, mode, Duration::from_secs(3)).await;
    let (requests, checks) = (asked(&world), checks(&world).await);
    world.record.lock().answers.clear();
    let changed = read_meanwhile(&world, args, mode).await;
    let (requests, checks) = (asked(&world) - requests, self::checks(&world).await - checks);
    world.s3.set_witness(|_| {});
    soon(telling).await.unwrap();
    // while events come in time
    let recheck = if mode == Mode::Sqs { Duration::from_secs(60) } else { recheck };
    let promise = Promise { recheck, is_strict: vec![false; SERVERS] };
    let findings = checker::judge(&world.history.lock(), &world.record.lock(), &promise);
    print(mode, &findings, changed, checks, requests);
}

fn print(mode: Mode, findings: &Findings, changed: u64, checks: u64, requests: u64) {
    let Findings { answers, stale, longest, .. } = findings;
    let name = match mode {
        Mode::Nothing => "none, `--recheck 1s`",
        Mode::Sqs => "S3's events through SQS",
        Mode::Peers => "NATS, changed at one server",
    };
    let share = *stale as f64 * 100.0 / *answers as f64;
    let per_change = requests as f64 / changed as f64;
    let longest = longest.as_millis();
    println!(
        "| {name} | {answers} | {stale} | {share:.2} % | {longest} ms | {checks} | {requests} | {per_change:.1} |"
    );
    assert!(findings.breaches.is_empty(), "{:?}", findings.broken());
}

/// Reads at all servers while things change; how many changes there were.
async fn read_meanwhile(world: &Arc<World>, args: &Args, mode: Mode) -> u64 {
    let (stop, mut readers, mut random) = (CancellationToken::new(), JoinSet::new(), Random::new(1));
    let reading = Reading { pause: Duration::from_millis(4), lists: false };
    for server in 0..SERVERS {
        for _ in 0..args.readers {
            readers.spawn(people::read_on(world.clone(), server, random.fork(), reading, stop.clone()));
        }
        readers.spawn(people::note_quiet(world.clone(), server, stop.clone()));
    }
    let changed = change(world, args, mode, Duration::from_secs(args.secs)).await;
    stop.cancel();
    while let Some(ended) = soon(readers.join_next()).await {
        ended.unwrap();
    }
    changed
}

/// Changes objects for so long, at an even pace: at server 0 where servers tell each other, else in S3.
async fn change(world: &Arc<World>, args: &Args, mode: Mode, how_long: Duration) -> u64 {
    let mut random = Random::new(2);
    let mut writer = Visitor::new(world, 0);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / args.changes);
    let changes = u64::from(args.changes) * how_long.as_secs();
    for _ in 0..changes {
        pace.tick().await;
        let key = random.below(args.objects as u64) as usize;
        match mode {
            Mode::Peers => writer.write(key, false).await,
            Mode::Nothing | Mode::Sqs => world.put(key),
        }
    }
    changes
}

fn asked(world: &World) -> u64 {
    [Kind::Head, Kind::Get, Kind::List].into_iter().map(|kind| world.s3.requests().count(kind)).sum()
}

async fn checks(world: &World) -> u64 {
    let mut checks = 0;
    for server in 0..SERVERS {
        checks += world.at(server).await.server().revalidator().stats().checks;
    }
    checks
}

/// A queue for each server.
struct Queues {
    client: aws_sdk_sqs::Client,
    urls: Vec<String>,
}

impl Queues {
    async fn make(moto: &Moto) -> Queues {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version_latest()
            .endpoint_url(moto.endpoint())
            .region(aws_sdk_sqs::config::Region::new("us-east-1"))
            .credentials_provider(aws_sdk_sqs::config::Credentials::new("a", "b", None, None, "bench"));
        let client = aws_sdk_sqs::Client::from_conf(config.build());
        let mut urls = Vec::new();
        for server in 0..SERVERS {
            let made = client.create_queue().queue_name(format!("q{server}")).send().await.unwrap();
            urls.push(made.queue_url.unwrap());
        }
        Queues { client, urls }
    }

    /// One message with all of them: of as many as S3 sends, moto takes fewer than this bench makes.
    async fn send(&self, events: &[String]) {
        let message = format!(r#"{{"Records":[{}]}}"#, events.join(","));
        let send = |url| self.client.send_message().queue_url(url).message_body(&message).send();
        for sent in futures::future::join_all(self.urls.iter().map(send)).await {
            sent.unwrap();
        }
    }
}

/// Takes what is new and, where there are queues, hands it on as S3 does.
async fn tell(mut news: mpsc::Receiver<News>, queues: Option<Queues>) {
    let mut every = tokio::time::interval(EVENTS_EVERY);
    let (mut some, mut longest) = (Vec::new(), Duration::ZERO);
    while news.recv_many(&mut some, BATCH).await > 0 {
        if let Some(queues) = &queues {
            queues.send(&some.iter().map(event).collect::<Vec<_>>()).await;
            longest = longest.max(some.iter().map(|news| news.at.elapsed()).max().unwrap_or_default());
        }
        some.clear();
        every.tick().await;
    }
    if queues.is_some() {
        eprintln!("an event was in the queues {longest:?} after its change at the latest");
    }
}

fn event(news: &News) -> String {
    let (what, object) = match &news.version {
        Some((etag, size)) => ("ObjectCreated:Put", format!(r#","size":{size},"eTag":"{etag}""#)),
        None => ("ObjectRemoved:Delete", String::new()),
    };
    let (key, number) = (name(news.key), news.number);
    format!(
        r#"{{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"{what}","s3":{{"bucket":{{"name":"bucket"}},"object":{{"key":"{key}"{object},"sequencer":"{number:016X}"}}}}}}"#
    )
}
