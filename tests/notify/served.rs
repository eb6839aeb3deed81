//! Whole servers that hear of changes through moto's queues, and a client that reads there. By themselves they would look
//! again in an hour: what is fresh was told.

use std::time::UNIX_EPOCH;

use fasts3::admin::client::Client as Control;
use fasts3::admin::status::Status;
use fasts3::server::{Server, Surroundings};
use nfs3_client::nfs3_types::nfs3::nfsstat3;
use serde_json::json;
use tempfile::TempDir;

use super::setup::{fasts3, out, run};
use super::support::{self, Client};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

struct Served {
    server: Server,
    cache: TempDir,
    reader: Client,
}

impl Served {
    /// A server that listens to these queues.
    async fn start(world: &World, queues: &[&QueueUrl]) -> Served {
        Served::checking(world, queues, HOUR).await
    }

    /// The same, which looks by itself every `recheck` while nothing can be relied on.
    async fn checking(world: &World, queues: &[&QueueUrl], recheck: Duration) -> Served {
        let (cache, endpoint) = (tempfile::tempdir().unwrap(), world.moto.endpoint());
        let mut config = support::config(&endpoint, &cache, ["--lazy", "--sweep", "off", "--shutdown-timeout", "1s"]);
        config.s3.bucket = BUCKET.into();
        config.events = queues.iter().map(|url| EventSource::Sqs((*url).clone())).collect();
        (config.recheck, config.recheck_healthy) = (recheck, HOUR);
        let connecting = Connecting { credentials: Some(credentials()), timing: Timing::default() };
        let around = Surroundings { connecting, ..Surroundings::default() };
        let server = Server::start_in(config, around).await.unwrap();
        let reader = Client::connect(server.nfs_addr().port(), "/", 0, 0).await;
        Served { server, cache, reader }
    }

    async fn status(&self) -> Status {
        let status = Control::new(self.cache.path()).get("/status").await.unwrap();
        serde_json::from_value(status).unwrap()
    }

    /// Waits until its status is so.
    async fn is(&self, so: impl Fn(&Status) -> bool) -> Status {
        soon(async {
            loop {
                let status = self.status().await;
                if so(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Waits until it was told so much in all, and has done what follows from it.
    async fn told(&self, hints: u64) {
        self.is(|status| status.events.hints >= hints).await;
        self.quiet().await;
    }

    async fn quiet(&self) {
        soon(self.server.revalidator().quiet()).await;
    }

    async fn read(&mut self, path: &str) -> Vec<u8> {
        self.reader.read(path).await.unwrap()
    }

    /// What is read after one request has made it look.
    async fn read_again(&mut self, path: &str) -> Vec<u8> {
        self.read(path).await;
        self.quiet().await;
        self.read(path).await
    }

    fn cache(&self) -> &str {
        self.cache.path().to_str().unwrap()
    }

    async fn stop(self) {
        soon(self.server.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_s3_is_fresh_at_the_next_request() {
    let Some(world) = World::new().await else { return };
    for key in ["dir/file", "dir/goes", "dir/stays"] {
        world.put(key, b"old").await;
    }
    let url = world.set_up("", "q").await;
    let (mut told, mut deaf) = (Served::start(&world, &[&url]).await, Served::start(&world, &[]).await);
    for served in [&mut told, &mut deaf] {
        assert_eq!(served.reader.list("dir").await.unwrap(), ["file", "goes", "stays"]);
        for path in ["dir/file", "dir/goes", "dir/stays"] {
            assert_eq!(served.read(path).await, b"old");
        }
        assert_eq!(served.reader.lookup("dir/red flower+ü").await.unwrap_err(), nfsstat3::NFS3ERR_NOENT);
        served.quiet().await;
    }
    world.put("dir/file", b"newer").await;
    world.remove("dir/goes").await;
    world.put("dir/red flower+ü", b"new").await;
    told.told(3).await;
    assert_eq!(told.read("dir/file").await, b"newer");
    assert_eq!(told.reader.lookup("dir/goes").await.unwrap_err(), nfsstat3::NFS3ERR_NOENT);
    assert_eq!(told.reader.list("dir").await.unwrap(), ["file", "red flower+ü", "stays"]);
    assert_eq!(told.read("dir/red flower+ü").await, b"new");
    assert_eq!(told.status().await.fresh.stale_served, 0);
    world.empties(&url).await;
    assert_eq!(deaf.read("dir/file").await, b"old", "only the event could tell");
    assert_eq!(deaf.reader.list("dir").await.unwrap(), ["file", "goes", "stays"]);
    deaf.stop().await;
    told.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_a_topic_and_each_hears_it_all() {
    let Some(world) = World::new().await else { return };
    world.put("dir/file", b"old").await;
    let (one, two) = (world.queue("one").await, world.queue("two").await);
    world.send_to_topic(&["one", "two"]).await;
    let mut servers = [Served::start(&world, &[&one]).await, Served::start(&world, &[&two]).await];
    for served in &mut servers {
        assert_eq!(served.read("dir/file").await, b"old");
        assert_eq!(served.reader.list("dir").await.unwrap(), ["file"]);
        served.quiet().await;
    }
    world.put("dir/file", b"newer").await;
    world.put("dir/more", b"new").await;
    for served in &mut servers {
        served.told(2).await;
        assert_eq!(served.read("dir/file").await, b"newer");
        assert_eq!(served.reader.list("dir").await.unwrap(), ["file", "more"]);
    }
    for url in [&one, &two] {
        world.empties(url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_writes_itself_comes_back_and_is_no_news() {
    let Some(world) = World::new().await else { return };
    let url = world.queue("q").await;
    let mut served = Served::start(&world, &[&url]).await;
    served.reader.save("mine", b"from here").await.unwrap();
    soon(served.server.writeback().synced(None)).await.unwrap();
    served.quiet().await;
    let before = served.status().await.s3.requests_by_kind;
    let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(Clock::system().wall().0).unwrap());
    // moto sends it before it answers the PUT, S3 a while after that
    let there = world.s3.head_object().bucket(BUCKET).key("mine").send().await.unwrap();
    let event = json!({"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "eventTime": humantime::format_rfc3339_millis(now).to_string(), "s3": {"bucket": {"name": BUCKET},
        "object": {"key": "mine", "size": 9, "eTag": there.e_tag().unwrap().trim_matches('"'), "sequencer": "1"}}}]});
    let send = world.sqs(&url).send_message().queue_url(url.as_str()).message_body(event.to_string());
    send.send().await.unwrap();
    served.is(|status| status.events.echoes == 1).await;
    assert_eq!(served.read("mine").await, b"from here");
    served.quiet().await;
    assert_eq!(served.status().await.s3.requests_by_kind, before, "nothing is asked for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_the_server_that_reads_the_queue() {
    let Some(world) = World::new().await else { return };
    let url = world.set_up("", "q").await;
    let served = Served::start(&world, &[&url]).await;
    let events = format!("sqs={url}");
    let found = run(&world, &["check", "s3://media", "--events", &events, "--cache", served.cache()]).await;
    assert!(found.status.success(), "{}", out(&found));
    assert!(out(&found).contains("the event of a probe object came to the running server after"), "{}", out(&found));
    assert!(served.status().await.events.healthy, "and that proves the queue to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_the_server_cannot_hear() {
    let Some(world) = World::new().await else { return };
    let (bare, good) = (world.queue("bare").await, world.set_up("", "good").await);
    let served = Served::start(&world, &[&bare, &good]).await;
    let events = format!("sqs={bare}");
    let args = ["check", "s3://media", "--events", &events, "--timeout", "1s", "--cache"];
    let found = run(&world, &[&args[..], &[served.cache()]].concat()).await;
    assert_eq!(found.status.code(), Some(1), "{}", out(&found));
    for wrong in
        ["sends no events to the queue: run `fasts3 events setup`", "did not come to the running server in 1 s"]
    {
        assert!(out(&found).contains(wrong), "{wrong}: {}", out(&found));
    }
    let deaf = Served::start(&world, &[&good]).await;
    let found = run(&world, &[&args[..], &[deaf.cache()]].concat()).await;
    assert_eq!(found.status.code(), Some(1), "{}", out(&found));
    assert!(out(&found).contains(&format!("start it with --events {events}")), "{}", out(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_that_goes_away_brings_checks_back_until_it_is_there_again() {
    let Some(world) = World::new().await else { return };
    for key in ["a", "b", "c"] {
        world.put(key, b"old").await;
    }
    let url = world.set_up("", "q").await;
    let mut served = Served::checking(&world, &[&url], Duration::from_millis(1)).await;
    world.put("proof", b"x").await;
    served.is(|status| status.events.healthy).await;
    for key in ["a", "b", "c"] {
        assert_eq!(served.read(key).await, b"old");
    }
    served.quiet().await;

    world.forget_notifications().await;
    world.put("a", b"untold").await;
    assert_eq!(served.read_again("a").await, b"old", "who is told of changes does not look");

    // a poller that has something to do learns of it before its poll is over
    let sqs = world.sqs(&url);
    for _ in 0..2 {
        sqs.send_message().queue_url(url.as_str()).message_body("wake up").send().await.unwrap();
    }
    sqs.delete_queue().queue_url(url.as_str()).send().await.unwrap();
    let status = served.is(|status| !status.events.healthy && status.events.error.is_some()).await;
    let error = status.events.error.unwrap();
    assert!(error.contains("does not exist") && error.contains("fasts3 events setup"), "{error}");
    assert_eq!(served.read_again("a").await, b"untold", "it looks again at once");
    let said = fasts3(&["status", "--cache", served.cache()]).await;
    assert!(out(&said).contains("is not healthy") && out(&said).contains("does not exist"), "{}", out(&said));

    world.put("b", b"untold").await;
    assert_eq!(world.set_up("", "q").await, url);
    served.is(|status| status.events.error.is_none()).await;
    world.put("proof", b"y").await;
    served.is(|status| status.events.healthy).await;
    assert_eq!(served.read_again("b").await, b"untold", "what was seen before counts for no longer");
    let before = served.status().await.events.hints;
    world.put("c", b"told").await;
    served.told(before + 1).await;
    assert_eq!(served.read("c").await, b"told");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_goes_on_while_s3_and_queue_are_away() {
    let Some(mut world) = World::new().await else { return };
    world.put("a", b"old").await;
    let url = world.set_up("", "q").await;
    let mut served = Served::checking(&world, &[&url], Duration::from_millis(1)).await;
    assert_eq!(served.read("a").await, b"old");
    world.put("proof", b"x").await;
    served.is(|status| status.events.healthy).await;
    world.moto.kill();
    let status = served.is(|status| !status.events.healthy).await;
    assert!(status.events.error.is_some() && status.events.sources[0].trouble.is_some(), "{status:?}");
    assert_eq!(served.read("a").await, b"old");
    assert_eq!(served.read_again("a").await, b"old", "it is served while S3 cannot be asked");
    // it comes back with nothing
    world.moto.run().await;
    world.s3.create_bucket().bucket(BUCKET).send().await.unwrap();
    world.have_others_set_up().await;
    world.put("a", b"newer").await;
    assert_eq!(world.set_up("", "q").await, url);
    served.is(|status| status.events.error.is_none()).await;
    world.put("proof", b"y").await;
    served.is(|status| status.events.healthy).await;
    assert_eq!(served.read_again("a").await, b"newer");
    served.stop().await;
}
