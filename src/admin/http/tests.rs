//! Both listeners over real sockets, with a backend that is none.

use std::ffi::OsStr;

use async_trait::async_trait;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::client::Client;
use crate::admin::status::Status;
use crate::admin::why::Why;
use crate::admin::{Invalidated, Listed, Synced};
use crate::index::Conflict;
use crate::notify::Told;
use crate::revalidate::{Refreshed, Warmed};
use crate::writeback::Failure;

/// Says back what it was asked.
struct Echo;

#[async_trait]
impl Backend for Echo {
    fn status(&self) -> Status {
        Status { bucket: "media".into(), ..Status::default() }
    }

    fn stale_histogram(&self) -> Vec<(u64, u64)> {
        vec![(10, 2)]
    }

    fn why(&self, path: &[u8]) -> Result<Why, Error> {
        Ok(Why { path: path.escape_ascii().to_string(), ..Why::default() })
    }

    async fn refresh(&self, path: &[u8]) -> Result<Refreshed, Error> {
        Ok(Refreshed { checked: path.len() as u64, changed: 0 })
    }

    async fn invalidate(&self, key: &[u8], peers: bool) -> Result<Invalidated, Error> {
        let told = Told { applied: key.len(), ..Told::default() };
        match peers {
            true => Err(Error::NoPeers),
            false => Ok(Invalidated { told, peers: Vec::new() }),
        }
    }

    async fn warm(&self, path: &[u8]) -> Result<Warmed, Error> {
        Err(Error::Wait { path: super::super::shown(path), source: WaitError::NoSpace })
    }

    async fn sync(&self, path: &[u8]) -> Result<Synced, Error> {
        let failure = Failure { key: path.escape_ascii().to_string(), why: "denied".into(), may_pass: false };
        Ok(Synced { failures: vec![failure] })
    }

    fn conflicts(&self) -> Result<Vec<Listed>, Error> {
        let conflict = Conflict { key: "a".into(), kept_as: "b".into(), at: 1, what: "both".into() };
        Ok(vec![Listed { number: 7, conflict }])
    }

    async fn forget_conflict(&self, number: u64) -> Result<bool, Error> {
        Ok(number == 7)
    }

    async fn fsck(&self, options: fsck::Options) -> fsck::Report {
        fsck::Report { keys: u64::from(options.remote), repaired: u64::from(options.repair), ..Default::default() }
    }
}

/// A running HTTP side over a cache directory of its own.
struct Rig {
    dir: TempDir,
    pages: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    async fn start() -> Rig {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listeners = Listeners::bind(dir.path(), "127.0.0.1:0".parse().ok()).await.expect("free addresses");
        Rig::run(dir, listeners)
    }

    /// As on a system without Unix sockets.
    async fn start_with_token() -> Rig {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let control = Control::bind_tcp(dir.path()).await.expect("a free port");
        let pages = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let cache = dir.path().into();
        Rig::run(dir, Listeners { pages: Some(pages), control, cache })
    }

    fn run(dir: TempDir, listeners: Listeners) -> Rig {
        let (pages, stop) = (listeners.address().expect("pages are on"), CancellationToken::new());
        let task = tokio::spawn(listeners.run(Arc::new(Echo), stop.clone()));
        Rig { dir, pages, stop, task }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path())
    }

    /// What the pages answer to raw bytes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.pages).await.expect("it listens");
        let _ = stream.write_all(request.as_bytes()).await; // it may refuse before it has read all
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("answers are text")
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.pages)).await
    }
}

#[tokio::test]
async fn pages_are_answered() {
    let rig = Rig::start().await;
    for (path, part) in [
        ("/", "<h1>s3://media/</h1>"),
        ("/status", r#""bucket":"media""#),
        ("/metrics", "fasts3_stale_seconds_count 2"),
        ("/healthz", "\r\n\r\nok\n"),
    ] {
        let answer = rig.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(part), "{path}: {answer}");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed_over_the_pages() {
    let rig = Rig::start().await;
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
    for path in [
        "/refresh?path=a",
        "/warm?path=a",
        "/sync?path=a",
        "/conflicts",
        "/conflicts/forget?number=7",
        "/fsck",
        "/why?path=a",
    ] {
        assert!(rig.raw(&post(path)).await.starts_with("HTTP/1.1 404"), "{path}");
        assert!(rig.get(path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(rig.raw(&post("/status")).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn pages_are_not_shown_under_a_name() {
    let rig = Rig::start().await;
    for (host, status) in [
        ("127.0.0.1:9049", 200),
        ("192.0.2.7", 200),
        ("[::1]:9049", 200),
        ("LocalHost:9049", 200),
        ("rebound.example:9049", 403),
        ("127.0.0.1.example", 403),
        ("localhost.example", 403),
        ("", 403),
        ("a b", 403),
    ] {
        let answer = rig.raw(&format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host:?}: {answer}");
        assert_eq!(answer.contains("media"), status == 200, "{host:?}: {answer}");
    }
    assert!(rig.raw("GET /status HTTP/1.0\r\n\r\n").await.contains("403"), "no host at all");
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_only() {
    let rig = Rig::start().await;
    let endless = format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}", "x".repeat(1 << 20));
    let many: String = (0..500).map(|i| format!("X-{i}: y\r\n")).collect();
    let many = format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n{many}\r\n");
    for bytes in [&*endless, &*many, "\0\x01\x02\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET\r\n\r\n"] {
        let answer = rig.raw(bytes).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(rig.get("/status").await.contains(" 200 "));
}

#[tokio::test]
async fn commands_go_over_the_control_socket() {
    for rig in [Rig::start().await, Rig::start_with_token().await] {
        let client = rig.client();
        assert_eq!(client.get("/status").await.expect("an answer")["bucket"], "media");
        let why = client.get_path("/why", OsStr::new("a b/ü&x=1?#%2F")).await.expect("an answer");
        assert_eq!(why["path"], r"a b/\xc3\xbc&x=1?#%2F");
        let done = client.post_path("/refresh", OsStr::new("abc")).await.expect("an answer");
        assert_eq!(done, json!({ "checked": 3, "changed": 0 }));
        let error = client.post_path("/warm", OsStr::new("a/b")).await.expect_err("the disk is full");
        assert_eq!(error.to_string(), "/a/b: the cache disk is full");
        assert_eq!(client.get("/metrics").await.expect_err("pages only").to_string(), "no such page");
        assert_eq!(client.get("/why").await.expect_err("no path").to_string(), "?path= is missing, or no path");
        let synced = client.post_path("/sync", OsStr::new("a")).await.expect("an answer");
        assert_eq!(synced, json!({ "failures": [{ "key": "a", "why": "denied", "may_pass": false }] }));
        let conflicts = client.get("/conflicts").await.expect("an answer");
        assert_eq!(conflicts, json!([{ "number": 7, "key": "a", "kept_as": "b", "at": 1, "what": "both" }]));
        let checked = client.post("/fsck?remote=true&repair=false").await.expect("an answer");
        assert_eq!((&checked["keys"], &checked["repaired"]), (&json!(1), &json!(0)));
        assert!(client.post("/conflicts/forget?number=7").await.is_ok());
        for (query, error) in
            [("?number=8", "there is no conflict 8: see `fasts3 conflicts`"), ("", "?number= is missing, or no number")]
        {
            let refused = client.post(&format!("/conflicts/forget{query}")).await.expect_err("no such conflict");
            assert_eq!(refused.to_string(), error);
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let rig = Rig::start().await;
    let why = rig.client().get_path("/why", OsStr::from_bytes(b"caf\xE9")).await.expect("an answer");
    assert_eq!(why["path"], r"caf\xe9");
}

#[tokio::test]
async fn token_is_asked_for() {
    let rig = Rig::start_with_token().await;
    let path = control::token_path(rig.dir.path());
    let mut contents: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("JSON");
    for wrong in ["", "0", &"0".repeat(64)] {
        contents["token"] = json!(wrong);
        std::fs::write(&path, contents.to_string()).expect("it is ours");
        let error = rig.client().get("/status").await.expect_err("a wrong token");
        assert!(error.to_string().contains("token"), "{error}");
    }
    std::fs::write(&path, "{").expect("it is ours");
    assert!(rig.client().get("/status").await.expect_err("a damaged file").to_string().contains("damaged"));
}

#[cfg(unix)]
#[tokio::test]
async fn control_files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (socket, token) = (Rig::start().await, Rig::start_with_token().await);
    for path in [control::socket_path(socket.dir.path()), control::token_path(token.dir.path())] {
        assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "{path:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn directory_too_deep_for_a_socket_has_a_token() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).expect("a new directory");
    let listeners = Listeners::bind(&deep, None).await.expect("a port instead");
    let task = tokio::spawn(listeners.run(Arc::new(Echo), CancellationToken::new()));
    assert_eq!(Client::new(&deep).get("/status").await.expect("an answer")["bucket"], "media");
    task.abort();
}

#[tokio::test]
async fn stop_leaves_nothing_behind_and_the_client_says_so() {
    for rig in [Rig::start().await, Rig::start_with_token().await] {
        rig.stop.cancel();
        rig.task.await.expect("it ended by itself");
        assert_eq!(std::fs::read_dir(rig.dir.path()).expect("it is there").count(), 0);
        let error = Client::new(rig.dir.path()).get("/status").await.expect_err("nobody").to_string();
        assert!(error.starts_with("no server is running on ") && error.contains("fasts3 serve"), "{error}");
    }
}

#[tokio::test]
async fn what_a_killed_server_left_is_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // dropped without its end, as by kill -9
    drop(Control::bind(dir.path()).await.expect("a socket"));
    drop(Control::bind_tcp(dir.path()).await.expect("a port"));
    let error = Client::new(dir.path()).get("/status").await.expect_err("nobody").to_string();
    assert!(error.starts_with("no server is running on "), "{error}");
    let listeners = Listeners::bind(dir.path(), None).await.expect("the left-overs are no hindrance");
    let rig = tokio::spawn(listeners.run(Arc::new(Echo), CancellationToken::new()));
    assert!(Client::new(dir.path()).get("/status").await.is_ok());
    rig.abort();
}

#[tokio::test]
async fn taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = taken.local_addr().expect("it is bound");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = Listeners::bind(dir.path(), Some(at)).await.err().expect("it is taken").to_string();
    assert!(error.contains(&at.to_string()) && error.contains("--admin"), "{error}");
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_for_long() {
    let rig = Rig::start().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(rig.pages).await.expect("it listens"));
    }
    // the timer of a head that never comes frees the slots; nothing here waits but for that
    assert!(tokio::time::timeout(HEAD_TIMEOUT * 3, rig.get("/healthz")).await.expect("in time").contains("ok"));
}
