//! A whole server to which events are pushed, and a client that reads there. By itself it would look again in
//! an hour, and its clock goes by milliseconds: what is fresh was told.

use std::io::Write;

use aws_smithy_types::base64;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http::{Answer, head, post, raw};
use super::support::{Client, World, soon};
use super::*;

const SECRET: &str = "0123456789abcdef+/=";
const NAME: &str = "red flower+ü 100%.jpg";
/// `NAME` as forms write it.
const ENCODED: &str = "red+flower%2B%C3%BC+100%25.jpg";

/// A server with a webhook, over a bucket with `dir/{NAME}`, which was read.
struct Pushed {
    world: World,
    reader: Client,
    address: String,
    _secret: tempfile::NamedTempFile,
}

impl Pushed {
    async fn new() -> Pushed {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        writeln!(secret, "{SECRET}").unwrap();
        let (events, file) = (format!("webhook={address}"), secret.path().to_str().unwrap().to_owned());
        let flags = ["--lazy", "--sweep", "off", "--recheck", "1h", "--recheck-healthy", "1h"];
        let source = ["--events", &events, "--events-secret-file", &file];
        let mut world = World::stopped(&[&flags[..], &source].concat()).await;
        world.put(&path(), b"old");
        world.start().await;
        let mut reader = world.client().await;
        assert_eq!(reader.list("dir").await.unwrap(), [NAME]);
        assert_eq!(reader.read(&path()).await.unwrap(), b"old");
        world.quiet().await;
        Pushed { world, reader, address, _secret: secret }
    }

    async fn push(&self, header: &str, body: &str) -> Answer {
        post(&self.address, "/events", &[header, "Content-Type: application/json"], body).await
    }

    /// What is read once what was told has been followed.
    async fn read(&mut self) -> Vec<u8> {
        self.world.clock.advance(Duration::from_millis(1));
        let quiet = self.world.quiet();
        tokio::pin!(quiet);
        // what is asked is sent in a later tick than what was told, each time
        while tokio::time::timeout(Duration::from_millis(2), &mut quiet).await.is_err() {
            self.world.clock.advance(Duration::from_millis(1));
        }
        self.reader.read(&path()).await.unwrap()
    }
}

fn path() -> String {
    format!("dir/{NAME}")
}

fn bearer() -> String {
    format!("Authorization: Bearer {SECRET}")
}

fn minio(event: &str, key: &str) -> String {
    json!({"EventName": event, "Key": format!("bucket/{key}"), "Records": [{
        "eventVersion": "2.0", "eventSource": "minio:s3", "awsRegion": "", "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": event, "userIdentity": {"principalId": "me"}, "requestParameters": {"sourceIPAddress": "::1"},
        "responseElements": {"x-amz-request-id": "1"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "Config", "bucket": {"name": "bucket",
            "ownerIdentity": {"principalId": "me"}, "arn": "arn:aws:s3:::bucket"},
            "object": {"key": key, "contentType": "text/plain", "sequencer": "17E6FD0B2C1A5C3D"}},
        "source": {"host": "::1", "port": "", "userAgent": "mc"}}]})
    .to_string()
}

fn ceph(event: &str, key: &str) -> String {
    json!({"Records": [{"eventVersion": "2.2", "eventSource": "ceph:s3", "awsRegion": "", "eventTime":
        "2026-01-01T00:00:01.000000Z", "eventName": event, "userIdentity": {"principalId": "me"},
        "requestParameters": {"sourceIPAddress": ""}, "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "n", "bucket": {"name": "bucket", "ownerIdentity":
            {"principalId": "me"}, "arn": "arn:aws:s3:::bucket", "id": "1"},
            "object": {"key": key, "size": 5, "eTag": "", "versionId": "", "sequencer": "F7E6FD0B2C1A5C3D",
                "metadata": [], "tags": []}},
        "eventId": "1.2.x", "opaqueData": ""}]})
    .to_string()
}

fn bridge(kind: &str, key: &str) -> String {
    json!({"version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind, "source": "aws.s3",
        "account": "111122223333", "time": "2026-01-01T00:00:02Z", "region": "eu-west-1",
        "resources": ["arn:aws:s3:::bucket"], "detail": {"version": "0", "bucket": {"name": "bucket"},
            "object": {"key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184",
                "sequencer": "F8E6FD0B2C1A5C3D"}, "request-id": "1", "requester": "1", "source-ip-address": "1.2.3.4",
            "reason": "PutObject", "deletion-type": "Permanently Deleted"}})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_sender_pushes_is_fresh_at_the_next_request() {
    let mut pushed = Pushed::new().await;
    let basic = format!("Authorization: Basic {}", base64::encode(format!("fasts3:{SECRET}")));
    let (encoded, plain) = (format!("dir%2F{ENCODED}"), path());
    for (n, (header, body)) in [
        (bearer(), minio("s3:ObjectCreated:Put", &encoded)),
        (basic, ceph("ObjectCreated:Put", &plain)),
        (format!("x-api-key: {SECRET}"), bridge("Object Created", &plain)),
    ]
    .iter()
    .enumerate()
    {
        let version = format!("version {n}");
        let before = pushed.read().await;
        pushed.world.put(&path(), &version);
        assert_eq!(pushed.read().await, before, "only the event can tell");
        let answer = pushed.push(header, body).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        assert_eq!(pushed.read().await, version.as_bytes(), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_senders_tell_of_come_and_go() {
    let mut pushed = Pushed::new().await;
    for (n, (created, removed)) in [
        (minio("s3:ObjectCreated:Put", "dir%2Fa+b"), minio("s3:ObjectRemoved:Delete", "dir%2Fa+b")),
        (ceph("ObjectCreated:Put", "dir/a b"), ceph("ObjectRemoved:Delete", "dir/a b")),
        (bridge("Object Created", "dir/a b"), bridge("Object Deleted", "dir/a b")),
    ]
    .iter()
    .enumerate()
    {
        // an event that is not newer than the last one of its key is none
        let newer = |body: &str, m: usize| body.replace("E6FD0B2C1A5C3D", &format!("E6FD0B2C1A5C{n}{m}"));
        pushed.world.put("dir/a b", b"new");
        assert_eq!(pushed.push(&bearer(), &newer(created, 0)).await.status, 204);
        pushed.read().await;
        assert_eq!(pushed.reader.list("dir").await.unwrap(), ["a b", NAME], "{created}");
        pushed.world.bucket.delete("dir/a b");
        assert_eq!(pushed.push(&bearer(), &newer(removed, 1)).await.status, 204);
        pushed.read().await;
        assert_eq!(pushed.reader.list("dir").await.unwrap(), [NAME], "{removed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_change_nothing() {
    let mut pushed = Pushed::new().await;
    pushed.world.put(&path(), b"newer");
    pushed.world.s3.requests().reset();
    let body = ceph("ObjectCreated:Put", &path());
    for header in ["X-Nothing: 1", "Authorization: Bearer 0123456789abcdef+/x", "X-Api-Key: secret"] {
        let answer = pushed.push(header, &body).await;
        assert_eq!(answer.status, 401, "{header}: {}", answer.text);
    }
    assert_eq!(pushed.read().await, b"old");
    assert_eq!(pushed.world.s3.requests().total(), 0, "nothing is asked");
    assert_eq!(pushed.push(&bearer(), &body).await.status, 204);
    assert_eq!(pushed.read().await, b"newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_the_server_lives_on() {
    let mut pushed = Pushed::new().await;
    let (address, bearer) = (pushed.address.clone(), bearer());
    let many = format!(r#"{{"Records":[{}]}}"#, vec!["{}"; 100_000].join(","));
    for (junk, status) in [
        ("".into(), 400),
        ("[".repeat(1 << 20), 400),
        (r#"{"Records":"#.repeat(90_000), 400),
        (many, 400),
        ("\0\u{1}{]".into(), 400),
        (minio("s3:ObjectCreated:Put", "%ff%fe"), 400),
        (format!("{}{}", " ".repeat(1 << 20), "{}"), 413),
    ] {
        let answer = pushed.push(&bearer, &junk).await;
        assert_eq!(answer.status, status, "{}...: {}", &junk[..junk.len().min(20)], answer.text);
    }
    // it is not waited for what is promised, and a body without end has one
    let promise = raw(&address, head(&address, "/", &[&bearer], 1 << 40).as_bytes()).await;
    assert_eq!(promise.status, 413, "{}", promise.text);
    let mut endless = soon(TcpStream::connect(&address)).await.unwrap();
    let start = format!("POST / HTTP/1.1\r\nHost: x\r\n{bearer}\r\nTransfer-Encoding: chunked\r\n\r\n");
    endless.write_all(start.as_bytes()).await.unwrap();
    let chunk = [&b"8000\r\n"[..], &[b' '; 0x8000], b"\r\n"].concat();
    let taken = async {
        let mut taken = 0;
        while endless.write_all(&chunk).await.is_ok() {
            taken += chunk.len();
        }
        taken
    };
    let taken = soon(taken).await;
    assert!(taken < 64 << 20, "{taken} bytes");
    // slow ones: each of them is held, and others are served meanwhile
    let mut slow = Vec::new();
    for _ in 0..32 {
        let mut stream = soon(TcpStream::connect(&address)).await.unwrap();
        stream.write_all(head(&address, "/", &[&bearer], 100).as_bytes()).await.unwrap();
        slow.push(stream);
    }
    pushed.world.put(&path(), b"newer");
    assert_eq!(pushed.push(&bearer, &ceph("ObjectCreated:Put", &path())).await.status, 204);
    assert_eq!(pushed.read().await, b"newer");
    for stream in slow {
        let mut answer = String::new();
        let read = async { tokio::io::AsyncReadExt::read_to_string(&mut { stream }, &mut answer).await };
        soon(read).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}
