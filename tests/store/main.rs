//! The store against an S3 with switches for trouble.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;
mod garage;
mod moto;
mod writes;
mod writing;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::Credentials;
use bytes::Bytes;
use conformance::{Shortfalls, SomebodyElse, key, list_all, names, read};
use fasts3::config::{NewObjects, S3Config};
use fasts3::revalidate::Stores;
use fasts3::s3server::{ACCESS_KEY, Bucket, Fault, Kind, Options, S3Server, SECRET_KEY, generated};
use fasts3::store::*;
use fasts3::types::{Clock, ETag, Key};
use futures::StreamExt;
use garage::Garage;
use moto::Moto;

/// Everything that would make a test wait is short, but for the wait for an answer held at a gate.
const QUICK: Timing = Timing {
    connect: Duration::from_secs(5),
    attempt: Duration::from_secs(5),
    operation: Duration::from_secs(20),
    stall: Duration::from_millis(50),
    attempts: 3,
    backoff: Duration::from_millis(1),
    probe: Duration::from_secs(10),
};

fn server() -> S3Server {
    S3Server::start(Options { clock: Clock::manual(), ..Options::default() }).unwrap()
}

fn settings(server: &S3Server) -> S3Config {
    S3Config {
        bucket: "bucket".into(),
        prefix: String::new(),
        endpoint_url: Some(server.endpoint()),
        region: Some("us-east-1".into()),
        profile: None,
        anonymous: false,
        requester_pays: false,
        concurrency: NonZeroU32::new(8).unwrap(),
        rate: None,
        new_objects: NewObjects::default(),
    }
}

fn with_secret(secret: &str) -> Connecting {
    let credentials = Credentials::new(ACCESS_KEY, secret, None, None, "test");
    Connecting { credentials: Some(credentials), timing: QUICK }
}

async fn try_connect(config: &S3Config) -> Result<Connected, StartError> {
    connect_with(config, Arc::default(), with_secret(SECRET_KEY)).await
}

async fn open(config: &S3Config) -> (Stores, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let connected = connect_with(config, counters.clone(), with_secret(SECRET_KEY)).await.unwrap();
    assert_eq!(connected.warning, None);
    (connected.stores, counters)
}

/// The server, its bucket, and a store of all of it.
async fn given() -> (S3Server, Bucket, Arc<dyn Store>) {
    let server = server();
    let (stores, _) = open(&settings(&server)).await;
    let bucket = server.bucket("bucket");
    server.requests().reset();
    (server, bucket, stores.foreground)
}

struct Local {
    bucket: Bucket,
    prefix: &'static str,
}

#[async_trait]
impl SomebodyElse for Local {
    async fn put(&self, key: &str, bytes: Bytes, user: &[(&str, &str)]) -> ETag {
        self.bucket.put(&format!("{}{key}", self.prefix), bytes, user)
    }

    async fn delete(&self, key: &str) {
        assert!(self.bucket.delete(&format!("{}{key}", self.prefix)));
    }
}

#[tokio::test]
async fn the_store_of_a_bucket_conforms() {
    let (_server, bucket, store) = given().await;
    let somebody = Local { bucket, prefix: "" };
    conformance::reading(&*store, &somebody).await;
    conformance::odd_keys(&*store, &somebody, Shortfalls::default()).await;
}

#[tokio::test]
async fn the_store_of_a_prefix_conforms_and_sees_nothing_else() {
    let server = server();
    let bucket = server.bucket("bucket");
    for outside in ["a", "p +\u{fc}", "p +\u{fc}.", "p +\u{fc}0", "z"] {
        bucket.put(outside, "outside", &[]);
    }
    let prefix = "p +\u{fc}/";
    let (stores, _) = open(&S3Config { prefix: prefix.into(), ..settings(&server) }).await;
    let somebody = Local { bucket, prefix };
    conformance::reading(&*stores.background, &somebody).await;
    conformance::odd_keys(&*stores.background, &somebody, Shortfalls::default()).await;
}

/// moto has its own idea of every answer; its conditions are right.
#[tokio::test]
async fn the_store_of_moto_conforms() {
    let Some(moto) = Moto::start().await else { return };
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
    let client = moto.client(credentials.clone());
    client.create_bucket().bucket("bucket").send().await.unwrap();
    const UNPRINTABLE: &str = "cannot name as the prefix of a listing";
    let keys = &[
        ("tab\tand\nnewline\r", "has no route to"),
        ("control\u{1}\u{7f}", UNPRINTABLE),
        ("\u{fffd}\u{ffff}", UNPRINTABLE),
    ];
    let shortfalls = Shortfalls { keys };
    conforms(&moto.endpoint(), credentials, client, shortfalls).await;
}

/// garage is what many run at home. Its keys end at about 500 bytes.
#[tokio::test]
async fn the_store_of_garage_conforms() {
    let Some(garage) = Garage::start().await else { return };
    let shortfalls = Shortfalls { keys: &[("/leading", "takes for \"leading\"")] };
    conforms(&garage.endpoint(), garage.credentials(), garage.client(), shortfalls).await;
}

/// A server that is a process of its own, with an empty bucket.
async fn conforms(endpoint: &str, credentials: Credentials, client: aws_sdk_s3::Client, shortfalls: Shortfalls) {
    let config = S3Config { endpoint_url: Some(endpoint.to_owned()), ..settings(&server()) };
    // The pauses of a server written in Python are no stalls.
    let timing = Timing { stall: Duration::from_secs(5), ..QUICK };
    let connecting = Connecting { credentials: Some(credentials), timing };
    let connected = connect_with(&config, Arc::default(), connecting).await.unwrap();
    assert_eq!(connected.warning, None);
    let somebody = Remote { client, bucket: config.bucket, prefix: String::new() };
    conformance::reading(&*connected.stores.foreground, &somebody).await;
    conformance::odd_keys(&*connected.stores.foreground, &somebody, shortfalls).await;
}

struct Remote {
    client: aws_sdk_s3::Client,
    bucket: String,
    prefix: String,
}

#[async_trait]
impl SomebodyElse for Remote {
    async fn put(&self, key: &str, bytes: Bytes, user: &[(&str, &str)]) -> ETag {
        let put = self.client.put_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        let user = user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let answer =
            put.set_metadata(Some(user)).body(bytes.into()).send().await.unwrap_or_else(|e| panic!("{key:?}: {e:?}"));
        ETag::new(answer.e_tag().unwrap())
    }

    async fn delete(&self, key: &str) {
        let delete = self.client.delete_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        delete.send().await.unwrap();
    }
}

#[tokio::test]
async fn a_listing_of_many_pages_is_whole_and_in_order() {
    let (server, bucket, store) = given().await;
    let keys: Vec<String> = (0..2500).map(|n| format!("d/{n:05}")).collect();
    for name in &keys {
        bucket.put(name, "", &[]);
    }
    assert_eq!(names(&list_all(&*store, ListRequest::default()).await), keys);
    assert_eq!(server.requests().count(Kind::List), 3);
    let folded = list_all(&*store, ListRequest { delimited: true, ..ListRequest::default() }).await;
    assert_eq!((folded.objects.len(), folded.prefixes), (0, vec![key("d/")]));
}

#[tokio::test]
async fn the_longest_key_is_served_and_a_longer_one_is_not_found() {
    let (server, bucket, _) = given().await;
    let longest = "k".repeat(1024);
    bucket.put(&longest, "x", &[]);
    let (stores, _) = open(&settings(&server)).await;
    assert!(stores.foreground.head(&key(&longest)).await.is_ok());
    assert_eq!(list_all(&*stores.foreground, ListRequest::default()).await.objects.len(), 1);
    let (mounted, _) = open(&S3Config { prefix: "p/".into(), ..settings(&server) }).await;
    assert!(matches!(mounted.foreground.head(&key(&longest)).await, Err(Error::NotFound { .. })));
    assert!(matches!(stores.foreground.head(&Key::root()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn the_marker_of_a_mounted_prefix_is_the_key_of_the_root() {
    let (server, bucket, _) = given().await;
    bucket.put("p/", "", &[("mode", "1")]);
    let (mounted, _) = open(&S3Config { prefix: "p/".into(), ..settings(&server) }).await;
    assert_eq!(mounted.foreground.head(&Key::root()).await.unwrap().user.unwrap()["mode"], "1");
    assert_eq!(names(&list_all(&*mounted.foreground, ListRequest::default()).await), [""]);
}

#[tokio::test]
async fn a_request_that_was_slowed_down_is_tried_again_and_counted() {
    let server = server();
    let (stores, counters) = open(&settings(&server)).await;
    server.bucket("bucket").put("k", "x", &[]);
    server.faults().inject(Kind::Head, 2, Fault::SlowDown);
    assert!(stores.foreground.head(&key("k")).await.is_ok());
    assert_eq!(read(&*stores.foreground, "k", None).await.unwrap().1, "x");
    let counts = counters.snapshot();
    assert_eq!(counts.by_kind, [("get", 1), ("head", 3), ("list", 1)].into());
    assert_eq!((counts.errors, counts.throttled, counts.bytes_in), (2, 2, 1));
    assert_eq!(counts.cost, RequestKind::Head.price() * 4 + RequestKind::List.price());
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_unavailable() {
    let (server, bucket, store) = given().await;
    bucket.put("k", "x", &[]);
    for fault in [Fault::SlowDown, Fault::InternalError, Fault::Close] {
        server.faults().inject_always(Kind::Get, fault.clone());
        let error = read(&*store, "k", None).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{fault:?}: {error}");
        server.faults().clear();
    }
    assert_eq!(server.requests().count(Kind::Get), 9, "three tries each");
    server.faults().inject_always(Kind::Head, Fault::Denied);
    assert!(matches!(store.head(&key("k")).await, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_in_an_error() {
    let (server, bucket, store) = given().await;
    bucket.put_generated("k", 1 << 20, 7);
    for fault in [Fault::ResetAfter(70_000), Fault::ShortBody(70_000), Fault::StallAfter(70_000)] {
        server.faults().inject(Kind::Get, 1, fault.clone());
        let Ok(Got::Body { mut body, .. }) = store.get(&key("k"), None, GetIf::Any).await else { panic!("{fault:?}") };
        let (mut good, mut error) = (Vec::new(), None);
        while let Some(item) = body.next().await {
            assert!(error.is_none(), "the error is the last item");
            match item {
                Ok(chunk) => good.extend_from_slice(&chunk),
                Err(e) => error = Some(e),
            }
        }
        assert!(matches!(error, Some(Error::Unavailable { .. })), "{fault:?}: {error:?}");
        assert!(good.len() <= 70_000 && generated(7, 0..1 << 20).starts_with(&good), "{fault:?}");
    }
    assert_eq!(read(&*store, "k", None).await.unwrap().1, generated(7, 0..1 << 20));
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_and_comes_back() {
    let (server, bucket, store) = given().await;
    bucket.put("k", "x", &[]);
    assert!(store.head(&key("k")).await.is_ok());
    server.faults().set_down(true);
    assert!(matches!(store.head(&key("k")).await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.list(&ListRequest::default()).await, Err(Error::Unavailable { .. })));
    server.faults().set_down(false);
    assert!(store.head(&key("k")).await.is_ok());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable() {
    let server = server();
    let mut connecting = with_secret(SECRET_KEY);
    let connected = connect_with(&settings(&server), Arc::default(), connecting.clone()).await.unwrap();
    drop(connected);
    connecting.timing.attempt = Duration::from_millis(20);
    let gate = server.faults().hold(Kind::Head);
    let connected = connect_with(&settings(&server), Arc::default(), connecting).await.unwrap();
    assert!(matches!(connected.stores.foreground.head(&key("k")).await, Err(Error::Unavailable { .. })));
    assert_eq!(gate.count(), 3);
}

#[tokio::test]
async fn requests_in_flight_stay_within_their_number() {
    let server = server();
    let (stores, _) = open(&S3Config { concurrency: NonZeroU32::new(4).unwrap(), ..settings(&server) }).await;
    server.bucket("bucket").put("k", "x", &[]);
    let gate = server.faults().hold(Kind::Head);
    let ask = |store: &Arc<dyn Store>| {
        let store = store.clone();
        tokio::spawn(async move { store.head(&key("k")).await.is_ok() })
    };
    let mut calls: Vec<_> = (0..5).map(|_| ask(&stores.background)).collect();
    gate.arrived_count(3).await;
    calls.extend((0..2).map(|_| ask(&stores.foreground)));
    gate.arrived_count(4).await;
    assert_eq!(gate.count(), 4);
    for done in 1..=3 {
        gate.pass(1);
        gate.arrived_count(4 + done).await;
        assert_eq!(gate.count(), 4 + done, "one came in for one that went");
    }
    gate.release();
    for call in calls {
        assert!(call.await.unwrap());
    }
}

async fn refused(config: &S3Config, secret: &str) -> String {
    let outcome = connect_with(config, Arc::default(), with_secret(secret)).await;
    outcome.err().expect("it must not start").to_string()
}

#[tokio::test]
async fn what_is_wrong_at_start_is_one_line_that_says_what_to_do() {
    let server = server();
    let config = settings(&server);
    let denied = refused(&config, "wrong").await;
    assert!(denied.starts_with("access to bucket bucket is denied (SignatureDoesNotMatch"), "{denied}");
    assert!(!denied.contains("wrong") && !denied.contains(SECRET_KEY) && !denied.contains('\n'));
    let missing = refused(&S3Config { bucket: "missing".into(), ..config.clone() }, SECRET_KEY).await;
    assert!(missing.starts_with("bucket missing does not exist"), "{missing}");
    let unsigned = refused(&S3Config { anonymous: true, ..config.clone() }, SECRET_KEY).await;
    assert!(unsigned.starts_with("access to bucket bucket is denied"), "{unsigned}");
    server.faults().inject(Kind::List, 1, Fault::WrongRegion("eu-west-1".into()));
    let elsewhere = refused(&config, SECRET_KEY).await;
    assert!(elsewhere.ends_with("use --region eu-west-1, or leave --region out"), "{elsewhere}");
}

#[tokio::test]
async fn a_bucket_is_followed_to_its_region_unless_one_was_given() {
    let server = server();
    server.bucket("bucket").put("k", "x", &[]);
    server.faults().inject(Kind::List, 1, Fault::WrongRegion("eu-west-1".into()));
    let connected = try_connect(&S3Config { region: None, ..settings(&server) }).await.unwrap();
    assert_eq!(connected.warning, None);
    assert_eq!(server.requests().count(Kind::List), 2);
    assert!(connected.stores.foreground.head(&key("k")).await.is_ok());
}

#[tokio::test]
async fn an_unreachable_server_is_a_warning_and_works_once_it_is_there() {
    let server = server();
    server.bucket("bucket").put("k", "x", &[]);
    server.faults().set_down(true);
    let connected = try_connect(&settings(&server)).await.unwrap();
    assert!(connected.warning.unwrap().contains("is not reachable"));
    assert!(matches!(connected.stores.foreground.head(&key("k")).await, Err(Error::Unavailable { .. })));
    server.faults().set_down(false);
    assert!(connected.stores.foreground.head(&key("k")).await.is_ok());
}

#[tokio::test]
async fn a_public_bucket_needs_no_credentials() {
    let server = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
    server.bucket("bucket").put("k", "x", &[]);
    let config = S3Config { anonymous: true, ..settings(&server) };
    let connecting = Connecting { credentials: None, timing: QUICK };
    let connected = connect_with(&config, Arc::default(), connecting).await.unwrap();
    assert_eq!(read(&*connected.stores.foreground, "k", None).await.unwrap().1, "x");
}
