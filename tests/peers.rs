//! Servers that tell each other over a real NATS what they have written: what is told arrives, once NATS is there, at
//! all others and at nobody else; and what cannot be told is made up for.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use async_trait::async_trait;
use bytes::Bytes;
use fasts3::cli::ServeArgs;
use fasts3::config::Config;
use fasts3::notify::peers::{Pace, Papers, PeersState, Place, Servers, Settings};
use fasts3::notify::{Hint, Origin, Peers, Said, Scope, Source, SourceHealth, Tell, Told};
use fasts3::s3server::{Options, S3Server};
use fasts3::store::{Announce, Announced, Carried, Error, GetIf, Got, ListPage, ListRequest, ObjectMeta, Store};
use fasts3::types::{Clock, ETag, Key, Time};
use futures::StreamExt;
use support::Client;
use support::nats::Nats;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes.
const SOON: Duration = Duration::from_secs(60);
const PACE: Pace = Pace {
    batch: Duration::from_millis(5),
    heartbeat: Duration::from_millis(500),
    retry: Duration::from_millis(20),
    longest_retry: Duration::from_millis(200),
};

/// What a server was told.
struct Notes {
    told: watch::Sender<Vec<Hint>>,
    held: watch::Sender<bool>,
    /// How often nothing was to be trusted any more.
    starts: watch::Sender<usize>,
}

#[async_trait]
impl Tell for Notes {
    async fn tell(&self, hints: Vec<Hint>) -> Told {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let told = Told { applied: hints.len(), ..Told::default() };
        self.told.send_modify(|all| all.extend(hints));
        told
    }

    async fn distrust_all(&self) {
        self.starts.send_modify(|starts| *starts += 1);
    }
}

/// A server, as far as its peers see it.
struct Server {
    peers: Arc<Peers>,
    notes: Arc<Notes>,
    carried: Arc<Carried>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    fn start(nats: &Nats, name: &str) -> Server {
        Server::of(&nats.url(), place(name, ""))
    }

    fn of(url: &str, place: Place) -> Server {
        let servers: Servers = url.parse().unwrap();
        let settings = Settings { servers, papers: Papers::default(), group: None, inline_bytes: 0, pace: PACE };
        Server::with(settings, place)
    }

    fn with(settings: Settings, place: Place) -> Server {
        let notes = Arc::new(Notes {
            told: watch::Sender::new(Vec::new()),
            held: watch::Sender::new(false),
            starts: watch::Sender::new(0),
        });
        let source = Source {
            scope: Arc::new(Scope::new(&place.bucket, &place.prefix)),
            tell: notes.clone(),
            health: Arc::new(SourceHealth::new("nats", Origin::Peer)),
            clock: Clock::system(),
        };
        let carried = Arc::new(Carried::default());
        let peers = Peers::new(settings, place, source, carried.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (peers, stop) = (peers.clone(), stop.clone());
            async move { peers.run(stop).await.unwrap() }
        });
        Server { peers, notes, carried, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        within(self.task).await.unwrap();
    }

    fn write(&self, key: &str) {
        let (key, etag) = (Key::new(key).unwrap(), ETag::new(&format!("tag of {key}")));
        self.peers.announce(Announced::Written { key, etag, size: 5, bytes: Some(Bytes::from_static(b"hello")) });
    }

    fn remove(&self, key: &str) {
        self.peers.announce(Announced::Removed { key: Key::new(key).unwrap() });
    }

    /// Waits until it was told enough.
    async fn told(&self, enough: impl Fn(&[Hint]) -> bool) -> Vec<Hint> {
        let mut told = self.notes.told.subscribe();
        within(told.wait_for(|told| enough(told))).await.unwrap().clone()
    }

    /// Waits until it was told of all these keys.
    async fn told_of(&self, keys: &[&str]) -> Vec<Hint> {
        self.told(|told| keys.iter().all(|key| told.iter().any(|hint| hint.key.as_str() == *key))).await
    }

    /// Whether it was told to distrust everything.
    fn distrusts(&self) -> bool {
        self.notes.told.borrow().iter().any(is_everything)
    }

    /// Waits until this is so.
    async fn is(&self, so: impl Fn(&PeersState) -> bool) -> PeersState {
        within(async {
            loop {
                let state = self.peers.state();
                if so(&state) {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }
}

/// An S3 that has `hello` and does not send it.
struct Hello;

const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";

#[async_trait]
impl Store for Hello {
    async fn head(&self, _: &Key) -> Result<ObjectMeta, Error> {
        let etag = ETag::new(HELLO);
        Ok(ObjectMeta { etag, size: 5, last_modified: Time(0), user: None, content_type: None })
    }

    async fn get(&self, key: &Key, _: Option<Range<u64>>, _: GetIf) -> Result<Got, Error> {
        Err(Error::NotFound { key: key.clone() })
    }

    async fn list(&self, _: &ListRequest) -> Result<ListPage, Error> {
        unreachable!("nobody lists")
    }
}

fn is_everything(hint: &Hint) -> bool {
    hint.key == Key::root() && hint.said == Said::Changed
}

fn place(name: &str, prefix: &str) -> Place {
    Place {
        server: format!("id-of-{name}"),
        host: name.into(),
        endpoint: Some("http://127.0.0.1:9000".into()),
        bucket: "bucket".into(),
        prefix: prefix.into(),
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("nothing came within SOON")
}

/// Waits until each hears of all the others: from then on nothing that is told is missed.
async fn acquainted(servers: &[&Server]) {
    for server in servers {
        server.is(|state| state.servers.len() == servers.len() - 1 && state.source.trouble.is_none()).await;
    }
}

/// Waits until NATS keeps what these miss.
async fn in_stream(servers: &[&Server]) {
    for server in servers {
        server.is(|state| state.stream).await;
    }
}

fn keys(hints: &[Hint]) -> Vec<&str> {
    hints.iter().map(|hint| hint.key.as_str()).collect()
}

#[tokio::test]
async fn what_one_server_writes_all_others_are_told_and_not_itself() {
    let Some(nats) = Nats::start(&[]) else { return };
    let servers = ["a", "b", "c"].map(|name| Server::start(&nats, name));
    let [a, b, c] = &servers;
    acquainted(&[a, b, c]).await;
    a.write("x/new");
    a.remove("x/gone");
    b.write("of b");
    for other in [b, c] {
        let told = other.told_of(&["x/new", "x/gone"]).await;
        let hint = told.iter().find(|hint| hint.key.as_str() == "x/new").unwrap();
        let etag = Some(ETag::new("tag of x/new"));
        assert_eq!((&hint.said, hint.origin), (&Said::Written { etag, size: Some(5) }, Origin::Peer));
        assert!(told.iter().any(|hint| hint.key.as_str() == "x/gone" && hint.said == Said::Removed));
    }
    assert_eq!(keys(&a.told_of(&["of b"]).await), ["of b"], "its own words are no news");
    c.told_of(&["of b"]).await;
    let state = a.is(|state| state.waiting == 0).await;
    assert!(state.connected && !state.stream && state.source.trouble.is_none());
    assert_eq!((state.told, state.source.hints), (2, 1));
    assert_eq!(state.servers.iter().map(|server| server.host.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_at_one_server_is_soon_read_at_another() {
    let Some(nats) = Nats::start(&[]) else { return };
    let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
    s3.bucket("bucket").put("page", "first", &[]);
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [a, b] = caches.each_ref().map(|cache| whole(&s3, &nats, cache));
    let (a, b) = (a.await, b.await);
    let connect = async |server: &fasts3::server::Server| Client::connect(server.nfs_addr().port(), "/", 0, 0).await;
    let (mut at_a, mut at_b) = (connect(&a).await, connect(&b).await);
    assert_eq!(at_b.read("page").await.unwrap(), b"first");
    assert_eq!(at_a.read("page").await.unwrap(), b"first");
    at_a.save("page", b"second").await.unwrap();
    // whoever is not told believes the first for an hour
    within(async {
        while at_b.read("page").await.unwrap() != b"second" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_nats_was_there_is_not_trusted_after_it() {
    let Some(mut nats) = Nats::stopped(&[]) else { return };
    let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
    s3.bucket("bucket").put("page", "first", &[]);
    let cache = TempDir::new().unwrap();
    let server = whole(&s3, &nats, &cache).await;
    let mut client = Client::connect(server.nfs_addr().port(), "/", 0, 0).await;
    assert_eq!(client.read("page").await.unwrap(), b"first");
    // by one that has told it to whoever was there
    s3.bucket("bucket").put("page", "second", &[]);
    nats.run();
    within(async {
        while client.read("page").await.unwrap() != b"second" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.stop().await;
}

/// Runs the program against the server of this cache.
async fn fasts3(args: &[&str], cache: &TempDir) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fasts3"));
    command.args(args).arg("--cache").arg(cache.path());
    within(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invalidated_at_one_server_is_so_at_all() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
    s3.bucket("bucket").put("dir/page", "first", &[]);
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [a, b] = caches.each_ref().map(|cache| whole(&s3, &nats, cache));
    let (a, b) = (a.await, b.await);
    let mut at_b = Client::connect(b.nfs_addr().port(), "/", 0, 0).await;
    within(async {
        loop {
            let status = fasts3(&["status", "--json"], &caches[0]).await.stdout;
            let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
            if status["peers"].as_array().is_some_and(|peers| !peers.is_empty()) {
                break;
            }
        }
    })
    .await;
    assert_eq!(at_b.read("dir/page").await.unwrap(), b"first");
    s3.bucket("bucket").put("dir/page", "second", &[]);
    let said = String::from_utf8(fasts3(&["invalidate", "dir/", "--peers"], &caches[0]).await.stdout).unwrap();
    assert!(said.contains("\ntold to 1 other server: "), "{said}");
    within(async {
        while at_b.read("dir/page").await.unwrap() != b"second" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    nats.kill();
    let error = within(async {
        loop {
            let said = fasts3(&["invalidate", "dir/", "--peers"], &caches[1]).await;
            if !said.status.success() {
                return String::from_utf8(said.stderr).unwrap();
            }
        }
    })
    .await;
    assert!(error.contains("not connected to nats://127.0.0.1") && error.lines().count() == 1, "{error}");
    a.stop().await;
    b.stop().await;
}

/// A whole server that asks S3 behind an answer once an hour.
async fn whole(s3: &S3Server, nats: &Nats, cache: &TempDir) -> fasts3::server::Server {
    let (endpoint, nats, cache) = (s3.endpoint(), nats.url(), cache.path().to_str().unwrap());
    let mut line =
        vec!["serve", "s3://bucket", "--lazy", "--no-sign-request", "--listen", "127.0.0.1:0", "--admin", "off"];
    line.extend(["--uid", "0", "--gid", "0", "--cache-size", "1GiB", "--region", "us-east-1"]);
    line.extend(["--recheck", "1h", "--upload-delay", "0s", "--endpoint-url", &endpoint]);
    line.extend(["--peers", &nats, "--cache", cache]);
    let config = Config::try_from(ServeArgs::parse_from_iter(line.into_iter())).unwrap();
    fasts3::server::Server::start(config).await.unwrap()
}

#[tokio::test]
async fn servers_of_one_bucket_understand_each_other_whatever_they_mount() {
    let Some(nats) = Nats::start(&[]) else { return };
    let all = Server::start(&nats, "all");
    let part = Server::of(&nats.url(), place("part", "a/b/"));
    let other_bucket = Server::of(&nats.url(), Place { bucket: "other".into(), ..place("other", "") });
    acquainted(&[&all, &part]).await;
    all.write("a/c");
    all.write("a/b/k");
    all.peers.invalidate(&Key::new("a/b/d/").unwrap());
    all.peers.invalidate(&Key::new("a/").unwrap());
    let told = part.told(|told| told.len() == 3).await;
    assert_eq!(keys(&told), ["k", "d/", ""]);
    assert!(is_everything(&told[2]) && told[1].said == Said::Changed);
    assert_eq!(part.peers.state().source.ignored, 1);
    part.write("mine");
    part.peers.invalidate(&Key::root());
    assert_eq!(keys(&all.told(|told| told.len() == 2).await), ["a/b/mine", "a/b/"]);
    let state = other_bucket.is(|state| state.source.messages > 2).await;
    assert_eq!((state.servers.len(), state.source.hints + state.source.ignored), (0, 0));
}

#[tokio::test]
async fn a_nats_that_is_down_at_the_start_is_waited_for() {
    let Some(mut nats) = Nats::stopped(&[]) else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    a.write("early");
    let state = a.is(|state| state.source.trouble.is_some()).await;
    assert!(!state.connected && state.waiting == 1);
    nats.run();
    // said to nobody perhaps, if a was there first
    within(b.notes.starts.subscribe().wait_for(|starts| *starts == 1)).await.unwrap();
    a.is(|state| state.waiting == 0).await;
    acquainted(&[&a, &b]).await;
    a.write("late");
    b.told_of(&["late"]).await;
    assert!(!a.distrusts() && !b.distrusts());
}

#[tokio::test]
async fn what_is_written_while_nats_is_away_is_told_when_it_is_back() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    nats.kill();
    b.is(|state| !state.connected && state.source.trouble.is_some()).await;
    a.is(|state| !state.connected).await;
    a.write("meanwhile");
    nats.run();
    let told = b.told(|told| told.iter().any(is_everything)).await;
    assert!(!told.is_empty(), "nobody knows what it has missed");
    b.is(|state| state.connected && state.source.trouble.is_none()).await;
    a.is(|state| state.waiting == 0).await;
    a.write("after");
    b.told_of(&["after"]).await;
}

#[tokio::test]
async fn no_change_is_lost_when_nats_dies_in_the_middle() {
    for with_stream in [false, true] {
        let nats = if with_stream { Nats::with_jetstream() } else { Nats::start(&[]) };
        let Some(mut nats) = nats else { return };
        let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
        acquainted(&[&a, &b]).await;
        if with_stream {
            in_stream(&[&a, &b]).await;
        }
        let all: Vec<String> = (0..20_000).map(|n| format!("k{n}")).collect();
        for key in &all {
            a.write(key);
        }
        b.told(|told| !told.is_empty()).await;
        nats.kill();
        nats.run();
        a.is(|state| state.waiting == 0).await;
        // without a stream the first of these are lost, if a is back before b is
        within(async {
            while !keys(&b.notes.told.borrow()).contains(&"last") {
                a.write("last");
                tokio::time::sleep(PACE.batch).await;
            }
        })
        .await;
        let told = b.notes.told.borrow().clone();
        let mut known: std::collections::HashSet<&str> = keys(&told).into_iter().collect();
        if b.distrusts() {
            // of what came before that, nothing is trusted
            known.extend(all.iter().map(String::as_str));
        }
        assert!(with_stream != b.distrusts(), "with a stream nothing is missed");
        let lost: Vec<_> = all.iter().filter(|key| !known.contains(key.as_str())).collect();
        assert!(lost.is_empty(), "{} are lost, as {:?}", lost.len(), lost.first());
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_catches_up() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    in_stream(&[&a, &b]).await;
    b.stop().await;
    a.write("missed/1");
    a.remove("missed/2");
    a.is(|state| state.waiting == 0).await;
    let b = Server::start(&nats, "b");
    b.told_of(&["missed/1", "missed/2"]).await;
    assert!(!b.distrusts());
    let stranger = Server::start(&nats, "new");
    acquainted(&[&a, &b, &stranger]).await;
    assert!(stranger.notes.told.borrow().is_empty(), "what was before its time is nothing to it");
}

#[tokio::test]
async fn a_stream_that_cannot_be_had_yet_is_taken_up_in_the_middle() {
    let Some(nats) = Nats::with_jetstream() else { return };
    let stranger = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let in_the_way = stream::Config { name: "other".into(), subjects: vec!["fasts3.>".into()], ..Default::default() };
    within(stranger.create_stream(in_the_way)).await.unwrap();
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    a.write("without");
    b.told_of(&["without"]).await;
    assert!(!a.peers.state().stream);
    stranger.delete_stream("other").await.unwrap();
    in_stream(&[&a, &b]).await;
    a.write("with");
    b.told_of(&["with"]).await;
    b.stop().await;
    a.write("missed");
    let b = Server::start(&nats, "b");
    b.told_of(&["missed"]).await;
    let state = a.peers.state();
    assert_eq!((state.source.errors, a.distrusts()), (0, false), "nothing has failed, and nothing was missed");
}

#[tokio::test]
async fn a_stream_survives_a_restart_of_nats() {
    let Some(mut nats) = Nats::with_jetstream() else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    in_stream(&[&a, &b]).await;
    for round in 0..3 {
        nats.kill();
        a.is(|state| !state.connected).await;
        let key = format!("round {round}");
        a.write(&key);
        nats.run();
        b.told_of(&[&key]).await;
    }
    a.is(|state| state.stream).await;
    assert!(!a.distrusts() && !b.distrusts());
}

#[tokio::test]
async fn a_stream_that_forgot_something_makes_everything_distrusted() {
    let Some(mut nats) = Nats::with_jetstream() else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    in_stream(&[&a, &b]).await;
    nats.kill();
    a.is(|state| !state.connected).await;
    std::fs::remove_dir_all(nats.dir().join("store")).unwrap();
    nats.run();
    b.told(|told| told.iter().any(is_everything)).await;
    a.write("after");
    b.told_of(&["after"]).await;
    b.is(|state| state.stream).await;
}

/// Somebody else who may speak where the servers do, and where that is.
async fn stranger(nats: &Nats) -> (async_nats::Client, String) {
    let stranger = async_nats::connect(nats.url()).await.unwrap();
    let mut heard = stranger.subscribe("fasts3.>").await.unwrap();
    let alive = within(heard.next()).await.unwrap().subject;
    (stranger, alive.strip_suffix(".alive").unwrap().to_owned())
}

#[tokio::test]
async fn hostile_messages_are_refused_and_harm_nobody() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    let (stranger, subject) = stranger(&nats).await;
    let hostile = [
        Bytes::new(),
        Bytes::from_static(b"\xff\xfe"),
        Bytes::from("[".repeat(100_000)),
        Bytes::from(format!(r#"{{"v":1,"from":"x","at":1,"changes":[{}]}}"#, vec![r#"{"key":"k"}"#; 20_000].join(","))),
        Bytes::from_static(br#"{"v":2,"from":"x","at":1}"#),
        Bytes::from(vec![b' '; 1 << 20]),
    ];
    for payload in &hostile {
        stranger.publish(subject.clone(), payload.clone()).await.unwrap();
    }
    b.is(|state| state.source.unreadable == hostile.len() as u64).await;
    a.write("after");
    b.told_of(&["after"]).await;
    assert!(b.peers.state().source.trouble.is_none());
}

#[tokio::test]
async fn who_is_told_more_than_it_takes_distrusts_everything() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    let (stranger, subject) = stranger(&nats).await;
    b.notes.held.send_replace(true);
    for n in 0..1_000 {
        let text = format!(r#"{{"v":1,"from":"flood","at":1,"changes":[{{"key":"k{n}"}}]}}"#);
        stranger.publish(subject.clone(), text.into()).await.unwrap();
    }
    stranger.flush().await.unwrap();
    // that it was too much is known while the first of them is still held
    a.write("meanwhile");
    a.is(|state| state.waiting == 0).await;
    b.notes.held.send_replace(false);
    b.told(|told| told.iter().any(is_everything)).await;
    a.write("after");
    b.told_of(&["after"]).await;
}

#[tokio::test]
async fn a_password_or_a_token_lets_in_and_a_wrong_one_does_not() {
    let Some(nats) = Nats::start(&["--user", "me", "--pass", "s3cret"]) else { return };
    let url = |login: &str| format!("nats://{login}127.0.0.1:{}", nats.port);
    let (a, b) = (Server::of(&url("me:s3cret@"), place("a", "")), Server::of(&url("me:s3cret@"), place("b", "")));
    acquainted(&[&a, &b]).await;
    let stranger = Server::of(&url("me:wrong-word@"), place("stranger", ""));
    let state = stranger.is(|state| state.source.errors > 2).await;
    let trouble = state.source.trouble.unwrap();
    assert!(!state.connected && trouble.contains("authorization") && !trouble.contains("word@"), "{trouble}");
    let Some(nats) = Nats::start(&["--auth", "t0ken"]) else { return };
    let url = format!("nats://t0ken@127.0.0.1:{}", nats.port);
    let (a, b) = (Server::of(&url, place("a", "")), Server::of(&url, place("b", "")));
    acquainted(&[&a, &b]).await;
}

#[tokio::test]
async fn without_leave_to_use_jetstream_it_goes_without() {
    let only = r#"{ publish: ["fasts3.>"], subscribe: ["fasts3.>", "_INBOX.>"] }"#;
    let text = format!(
        "jetstream {{ store_dir: \"STORE\" }}\n\
         authorization {{ users: [ {{ user: me, password: s3cret, permissions: {only} }} ] }}"
    );
    let Some(nats) = Nats::configured(&text) else { return };
    let url = format!("nats://me:s3cret@127.0.0.1:{}", nats.port);
    let (a, b) = (Server::of(&url, place("a", "")), Server::of(&url, place("b", "")));
    acquainted(&[&a, &b]).await;
    a.write("k");
    b.told_of(&["k"]).await;
    assert!(!a.peers.state().stream);
}

#[tokio::test]
async fn what_is_still_to_be_told_at_the_end_is_told() {
    let Some(nats) = Nats::start(&[]) else { return };
    let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
    acquainted(&[&a, &b]).await;
    a.write("at the end");
    a.stop().await;
    b.told_of(&["at the end"]).await;
}

#[tokio::test]
async fn a_change_is_told_within_a_tenth_of_a_second() {
    for with_stream in [false, true] {
        let nats = if with_stream { Nats::with_jetstream() } else { Nats::start(&[]) };
        let Some(nats) = nats else { return };
        let (a, b) = (Server::start(&nats, "a"), Server::start(&nats, "b"));
        acquainted(&[&a, &b]).await;
        if with_stream {
            in_stream(&[&a, &b]).await;
        }
        let mut took = Vec::new();
        for n in 0..200 {
            let begun = Instant::now();
            a.write(&format!("k{n}"));
            b.told(|told| told.len() > n).await;
            took.push(begun.elapsed());
        }
        took.sort();
        eprintln!("stream {with_stream}: median {:?}, p99 {:?}", took[100], took[197]);
        assert!(took[100] < Duration::from_millis(100), "{:?}", took[100]);
    }
}

#[tokio::test]
async fn small_objects_ride_along() {
    let Some(nats) = Nats::start(&[]) else { return };
    let riding = |name| {
        let servers = nats.url().parse().unwrap();
        let settings = Settings { servers, papers: Papers::default(), group: None, inline_bytes: 8, pace: PACE };
        Server::with(settings, place(name, ""))
    };
    let (a, b) = (riding("a"), riding("b"));
    acquainted(&[&a, &b]).await;
    let write = |key: &str, etag: &str, bytes: &'static str| {
        let (key, etag, bytes) = (Key::new(key).unwrap(), ETag::new(etag), Bytes::from_static(bytes.as_bytes()));
        a.peers.announce(Announced::Written { key, etag, size: bytes.len() as u64, bytes: Some(bytes) });
    };
    write("small", HELLO, "hello");
    write("long", "d41f2e8b8f2f0d8a2d51ee6e6e5a3e4f", "hello, world");
    write("no digest", "opaque", "hello");
    b.told_of(&["small", "long", "no digest"]).await;
    let store = b.carried.before(Arc::new(Hello));
    let got = async |key| store.get(&Key::new(key).unwrap(), None, GetIf::Any).await;
    let Ok(Got::Body { body, .. }) = got("small").await else { panic!("it came along") };
    assert_eq!(body.map(Result::unwrap).collect::<Vec<_>>().await, ["hello"]);
    assert!(got("long").await.is_err() && got("no digest").await.is_err());
}

/// A certificate of an authority, and one of that for 127.0.0.1.
fn certificates(dir: &std::path::Path) -> bool {
    let script = "set -e; cd \"$1\"; \
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem; \
        openssl req -newkey rsa:2048 -nodes -subj /CN=nats -keyout nats.key -out nats.csr; \
        printf 'subjectAltName=IP:127.0.0.1\n' > ext; \
        openssl x509 -req -in nats.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out nats.pem";
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(dir).output();
    let is_made = made.is_ok_and(|made| made.status.success());
    assert!(is_made || std::env::var("CI").as_deref() != Ok("true"), "no openssl to make certificates with");
    is_made
}

#[tokio::test]
async fn over_tls_only_a_nats_of_the_given_authority_is_talked_to() {
    let dir = tempfile::TempDir::new().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let file = |name: &str| dir.path().join(name);
    let (cert, key) = (file("nats.pem"), file("nats.key"));
    let flags = ["--tls", "--tlscert", cert.to_str().unwrap(), "--tlskey", key.to_str().unwrap()];
    let Some(nats) = Nats::start(&flags) else { return };
    let server = |name, authority: Option<&str>| {
        let servers = format!("tls://127.0.0.1:{}", nats.port).parse().unwrap();
        let papers = Papers { authority: authority.map(file), ..Papers::default() };
        Server::with(Settings { servers, papers, group: None, inline_bytes: 0, pace: PACE }, place(name, ""))
    };
    let (a, b) = (server("a", Some("ca.pem")), server("b", Some("ca.pem")));
    acquainted(&[&a, &b]).await;
    let stranger = server("stranger", None);
    let state = stranger.is(|state| state.source.errors > 1).await;
    assert!(!state.connected, "{state:?}");
}
