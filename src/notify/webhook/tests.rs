//! Over a socket, as senders and strangers come in.
#![allow(clippy::unwrap_used)]

use aws_smithy_types::base64;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::DropGuard;

use super::*;
use crate::notify::source::double::Recorder;
use crate::notify::{Origin, Said, Scope, SourceHealth};
use crate::types::{Clock, Tick};

const SECRET: &str = "0123456789abcdef+/=";

struct Rig {
    address: SocketAddr,
    tell: Arc<Recorder>,
    health: Arc<SourceHealth>,
    _stop: DropGuard,
}

impl Rig {
    async fn new() -> Rig {
        let (tell, stop) = (Recorder::new(), CancellationToken::new());
        let health = Arc::new(SourceHealth::new("webhook", Origin::Webhook));
        let source = Source {
            scope: Arc::new(Scope::new("b", "")),
            tell: tell.clone(),
            health: health.clone(),
            clock: Clock::manual(),
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let webhook = Webhook::bind(any, Secret::new(SECRET).unwrap(), source).await.unwrap();
        let address = webhook.addr().unwrap();
        tokio::spawn(webhook.run(stop.clone()));
        Rig { address, tell, health, _stop: stop.drop_guard() }
    }

    /// Sends bytes and gives all that comes back until the connection is closed.
    async fn raw(&self, bytes: &[u8]) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // it may be closed before it has read all
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("the connection is closed")
    }

    /// The status of a request with these lines in its head.
    async fn status(&self, line: &str, headers: &[String], body: &str) -> u16 {
        let mut head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        status(&self.raw(format!("{head}\r\n{body}").as_bytes()).await)
    }

    async fn post(&self, body: &str) -> u16 {
        self.status("POST /events", &[bearer()], body).await
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn bearer() -> String {
    format!("Authorization: Bearer {SECRET}")
}

fn body(key: &str) -> String {
    json!({"EventName": "s3:ObjectRemoved:Delete", "Key": format!("b/{key}"), "Records": [{"eventSource": "minio:s3",
        "eventName": "s3:ObjectRemoved:Delete", "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}]})
    .to_string()
}

#[tokio::test]
async fn events_are_applied_when_they_are_answered() {
    let rig = Rig::new().await;
    assert_eq!(rig.post(&body("k")).await, 204);
    let told = rig.tell.told();
    assert_eq!((told[0].key.as_str(), &told[0].said, told[0].origin), ("k", &Said::Removed, Origin::Webhook));
    let state = rig.health.state();
    assert_eq!((state.messages, state.hints, state.unreadable), (1, 1, 0));
    assert!(state.last_good > Tick::NEVER);
    assert_eq!(rig.post(r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#).await, 204);
}

#[tokio::test]
async fn secret_comes_as_each_sender_can_send_it() {
    let rig = Rig::new().await;
    let basic = |user: &str| format!("Authorization: Basic {}", base64::encode(format!("{user}:{SECRET}")));
    for header in [
        bearer(),
        format!("authorization: bearer  {SECRET}"),
        format!("Authorization: {SECRET}"),
        basic("fasts3"),
        basic(""),
        format!("X-Api-Key: {SECRET}"),
    ] {
        assert_eq!(rig.status("POST /", std::slice::from_ref(&header), &body("k")).await, 204, "{header}");
    }
    let in_query = "POST /any/path?a=b&secret=0123456789abcdef%2B%2F%3D";
    assert_eq!(rig.status(in_query, &[], &body("k")).await, 204);
    assert_eq!(rig.tell.told().len(), 7);
}

#[tokio::test]
async fn without_the_secret_nothing_is_read() {
    let rig = Rig::new().await;
    let basic = |pair: &str| format!("Authorization: Basic {}", base64::encode(pair));
    for header in [
        "X-Nothing: 1".to_owned(),
        "Authorization: Bearer".to_owned(),
        "Authorization: Bearer 0123456789abcdef+/".to_owned(),
        format!("Authorization: Digest {SECRET}"),
        basic(SECRET),
        basic("fasts3:wrong"),
        "Authorization: Basic %%%".to_owned(),
        "X-Api-Key: ".to_owned(),
    ] {
        assert_eq!(rig.status("POST /", std::slice::from_ref(&header), &body("k")).await, 401, "{header}");
    }
    assert_eq!(rig.status("POST /?secret=", &[], &body("k")).await, 401);
    assert_eq!(rig.status("POST /?secret=%", &[], &body("k")).await, 401);
    // the body of a stranger is not waited for
    let answer = rig.raw(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!(status(&answer), 401);
    assert!(rig.tell.told().is_empty());
    assert_eq!(rig.health.state().last_good, Tick::NEVER, "a stranger proves nothing");
}

#[tokio::test]
async fn who_only_looks_whether_somebody_is_there_is_answered() {
    let rig = Rig::new().await;
    assert_eq!(rig.status("HEAD /events", &[], "").await, 204);
    assert_eq!(rig.status("GET /", &[], "").await, 204);
    assert_eq!(rig.status("DELETE /", &[bearer()], "").await, 405);
    assert_eq!(rig.health.state().last_good, Tick::NEVER);
}

#[tokio::test]
async fn hostile_bodies_are_refused() {
    let rig = Rig::new().await;
    let deep = "[".repeat(500_000);
    for junk in ["", "{}", "\0", "[1]", "{\"Records\":", deep.as_str()] {
        assert_eq!(rig.post(junk).await, 400, "{}", &junk[..junk.len().min(20)]);
    }
    let head = |length: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{}\r\n{length}\r\n\r\n", bearer());
    let mut no_utf8 = head("content-length: 2").into_bytes();
    no_utf8.extend([0xff, 0xfe]);
    assert_eq!(status(&rig.raw(&no_utf8).await), 400);
    // longer than it may be, as it says itself, and as it turns out
    assert_eq!(rig.post(&" ".repeat(MAX_MESSAGE_BYTES + 1)).await, 413);
    assert_eq!(status(&rig.raw(head("content-length: 1099511627776").as_bytes()).await), 413, "it is not waited for");
    let mut chunked = head("transfer-encoding: chunked").into_bytes();
    (0..80).for_each(|_| {
        chunked.extend(b"8000\r\n");
        chunked.extend([b' '; 0x8000]);
        chunked.extend(b"\r\n");
    });
    assert_eq!(status(&rig.raw(&chunked).await), 413);
    // one that never ends, and one that never begins
    assert_eq!(status(&rig.raw(format!("{}x", head("content-length: 5")).as_bytes()).await), 408);
    rig.raw(b"POST / HTTP/1.1\r\nhost").await;
    rig.raw(b"").await;
    let long = format!("POST / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    assert_eq!(status(&rig.raw(long.as_bytes()).await), 431);
    assert!(rig.tell.told().is_empty());
    assert_eq!(rig.post(&body("k")).await, 204, "others are served");
}

#[tokio::test]
async fn who_comes_while_there_is_too_much_is_told_to_come_again() {
    let rig = Rig::new().await;
    rig.tell.hold(true);
    assert_eq!(rig.post(&body("k")).await, 503);
    rig.tell.hold(false);
    assert_eq!(rig.post(&body("k")).await, 204);
}

#[tokio::test]
async fn subscriptions_of_others_than_amazon_are_refused() {
    let rig = Rig::new().await;
    for (url, expected) in [
        ("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription", 204),
        ("https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription", 204),
        ("http://sns.us-east-1.amazonaws.com/", 400),
        ("https://sns.us-east-1.amazonaws.com.example.org/", 400),
        ("https://example.org/?https://sns.us-east-1.amazonaws.com", 400),
        ("https://sns.me@example.amazonaws.com/", 400),
        ("https://s3.amazonaws.com/", 400),
        ("https://sns.s3.amazonaws.com/", 400),
        ("https://sns.s3-us-west-2.amazonaws.com/", 400),
        ("https://x.sns.us-east-1.amazonaws.com/", 400),
        ("", 400),
    ] {
        let body = json!({"Type": "SubscriptionConfirmation", "TopicArn": "t", "SubscribeURL": url});
        assert_eq!(rig.post(&body.to_string()).await, expected, "{url}");
    }
    assert!(rig.tell.told().is_empty());
}
