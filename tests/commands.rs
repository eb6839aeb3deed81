//! The commands of the program, over the control socket of a real server.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::{World, soon};

/// Runs the program against the server of `world`.
async fn fasts3(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
    command.args(args).arg("--cache").arg(world.cache.path());
    soon(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
}

async fn json(world: &World, args: &[&str]) -> Value {
    let said = fasts3(world, args).await;
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_the_server_did() {
    let world = World::new().await;
    world.put("dir/file.txt", b"hello");
    assert_eq!(world.client().await.read("dir/file.txt").await.unwrap(), b"hello");
    world.quiet().await;

    let status = json(&world, &["status", "--json"]).await;
    assert_eq!(status["bucket"], "bucket");
    assert_eq!(status["bytes_cached"], 5);
    assert!(status["s3"]["requests_by_kind"]["get"].as_u64().unwrap() >= 1);
    assert!(status["nfs"]["ops_by_proc"]["read"].as_u64().unwrap() >= 1);
    let human = fasts3(&world, &["status"]).await;
    assert!(human.status.success() && !human.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn why_explains_one_file() {
    let world = World::new().await;
    world.put("dir/file.txt", b"hello");
    let mut client = world.client().await;
    client.read("dir/file.txt").await.unwrap();
    let why = fasts3(&world, &["why", "/dir/file.txt"]).await;
    assert!(why.status.success());
    let text = String::from_utf8(why.stdout).unwrap();
    assert!(text.contains("dir/file.txt") && text.contains("5"), "{text}");
    assert!(json(&world, &["why", "dir/file.txt", "--json"]).await.is_object());

    // A name that is not here is explained too: nobody is asked.
    world.s3.requests().reset();
    let absent = fasts3(&world, &["why", "/dir/absent"]).await;
    assert!(absent.status.success());
    assert!(String::from_utf8_lossy(&absent.stdout).contains("The next lookup asks S3"), "{absent:?}");
    assert_eq!(world.s3.requests().total(), 0);
    let refresh = fasts3(&world, &["refresh", "/dir/absent"]).await;
    assert_eq!(refresh.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refresh.stderr).lines().count(), 1, "one line that says what is wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_asks_s3_now_and_warm_fetches_now() {
    let world = World::new().await;
    for i in 0..20 {
        world.put(&format!("dir/f{i:02}"), b"old");
    }
    let mut client = world.client().await;
    client.list("dir").await.unwrap();
    let warm = json(&world, &["warm", "/dir", "--json"]).await;
    assert_eq!(warm["files"], 20, "{warm}");
    world.s3.requests().reset();
    assert_eq!(client.read("dir/f07").await.unwrap(), b"old");
    assert_eq!(world.s3.requests().count(fasts3::s3server::Kind::Get), 0, "it is here");

    // The clock stands still: no check is due, and only the command asks.
    world.put("dir/f07", b"newer");
    let refreshed = json(&world, &["refresh", "/dir", "--json"]).await;
    assert_eq!(refreshed["changed"], 1, "{refreshed}");
    world.quiet().await;
    assert_eq!(client.read("dir/f07").await.unwrap(), b"newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidate_distrusts_a_key_or_all_below_a_prefix() {
    let world = World::new().await;
    let mut client = world.client().await;
    for key in ["dir/a", "dir/b", "other"] {
        world.put(key, b"old");
        assert_eq!(client.read(key).await.unwrap(), b"old");
        world.put(key, b"newer");
    }
    world.quiet().await;
    // The clock stands still: no check is due, and only the command asks.
    let invalidate = async |prefix: &str| {
        let done = json(&world, &["invalidate", prefix, "--json"]).await;
        world.clock.advance(Duration::from_millis(1));
        world.quiet().await;
        done["applied"].as_u64().unwrap()
    };
    assert_eq!(invalidate("dir/a").await, 1);
    assert_eq!(client.read("dir/a").await.unwrap(), b"newer");
    assert_eq!(client.read("dir/b").await.unwrap(), b"old");
    assert_eq!(invalidate("dir/").await, 1);
    assert_eq!(client.read("dir/b").await.unwrap(), b"newer");
    assert_eq!(client.read("other").await.unwrap(), b"old");
    assert_eq!(invalidate("/").await, 1);
    assert_eq!(client.read("other").await.unwrap(), b"newer");

    let said = fasts3(&world, &["invalidate", "dir/"]).await;
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("distrusted"), "{said:?}");
    for (args, why) in [(&["dir/", "--peers"][..], "fasts3 serve --peers"), (&["\n".repeat(2_000).as_str()], "no key")]
    {
        let said = fasts3(&world, &[&["invalidate"], args].concat()).await;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!((said.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_cache_is_refused_with_one_line() {
    let world = World::new().await;
    let endpoint = world.s3.endpoint();
    let args = [
        "serve",
        "s3://bucket",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--no-sign-request",
        "--endpoint-url",
        &endpoint,
    ];
    let refused = fasts3(&world, &args).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("in use") && said.lines().count() == 1, "{said}");
    assert!(refused.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_without_a_server_say_so() {
    let mut world = World::new().await;
    world.stop().await;
    for command in [&["status"][..], &["why", "/x"], &["refresh", "/"], &["warm", "/"], &["invalidate", "/"]] {
        let said = fasts3(&world, command).await;
        assert_eq!(said.status.code(), Some(1), "{command:?}");
        assert_eq!(String::from_utf8_lossy(&said.stderr).lines().count(), 1, "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_what_s3_does_not_have_yet() {
    let world = World::new().await;
    world.put("dir/old", b"hello");
    let mut client = world.client().await;
    client.read("dir/old").await.unwrap();
    let dir = client.lookup("dir").await.unwrap().handle;
    client.save_in(&dir, b"new", b"12345").await.unwrap();
    client.rename_in((&dir, b"old"), (&dir, b"renamed")).await.unwrap();

    let why = json(&world, &["why", "dir/new", "--json"]).await;
    assert_eq!((&why["change"]["content"], &why["change"]["staged_bytes"]), (&true.into(), &5.into()), "{why}");
    assert_eq!(why["remote_key"], Value::Null);
    let text = String::from_utf8(fasts3(&world, &["why", "dir/new"]).await.stdout).unwrap();
    assert!(text.contains(r#"it is only here, and goes to S3 as "dir/new""#), "{text}");
    let why = json(&world, &["why", "dir/renamed", "--json"]).await;
    assert_eq!((&why["change"]["place"], &why["remote_key"]), (&true.into(), &"dir/old".into()), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_asks_the_server_and_looks_itself_when_there_is_none() {
    let mut world = World::new().await;
    world.put("dir/file.txt", b"hello");
    let mut client = world.client().await;
    client.read("dir/file.txt").await.unwrap();
    client.save("new", b"not in S3 yet").await.unwrap();
    world.quiet().await;
    let well = fasts3(&world, &["fsck", "--remote"]).await;
    let said = String::from_utf8(well.stdout).unwrap();
    assert!(well.status.success() && said.ends_with("1 object of S3 checked: no problems\n"), "{said}");

    // Somebody else's change is told, and with --repair asked for.
    world.put("dir/file.txt", b"hello, world");
    let stale = fasts3(&world, &["fsck", "--remote"]).await;
    assert_eq!(stale.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&stale.stderr).lines().count(), 1);
    let said = String::from_utf8(stale.stdout).unwrap();
    assert!(said.starts_with("dir/file.txt: S3 has another version at dir/file.txt\n"), "{said}");
    let report = json(&world, &["fsck", "--remote", "--repair", "--json"]).await;
    assert_eq!((&report["found"], &report["repaired"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(client.read("dir/file.txt").await.unwrap(), b"hello, world");

    world.stop().await;
    std::fs::write(world.cache.path().join("staging/00000000000a00ff"), "stray").unwrap();
    assert_eq!(json_of(fasts3(&world, &["fsck", "--json"]).await, 1)["found"], 1);
    assert_eq!(json_of(fasts3(&world, &["fsck", "--json", "--repair"]).await, 0)["repaired"], 1);
    assert_eq!(json_of(fasts3(&world, &["fsck", "--json"]).await, 0)["found"], 0);
    let remote = fasts3(&world, &["fsck", "--remote"]).await;
    let said = String::from_utf8(remote.stderr).unwrap();
    assert!(remote.status.code() == Some(1) && said.contains("needs a running server"), "{said}");
    world.start().await;
    assert_eq!(world.client().await.read("new").await.unwrap(), b"not in S3 yet");
}

fn json_of(said: Output, code: i32) -> Value {
    assert_eq!(said.status.code(), Some(code), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_of_what_is_no_cache_directory_makes_none() {
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().join("typo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
    let said = command.arg("fsck").arg("--cache").arg(&dir).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("no cache directory") && !dir.exists());
}

/// The program with few file descriptors, which Windows does not count.
#[cfg(unix)]
mod descriptors {
    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpStream;
    use std::process::{Child, Command, Stdio};

    use super::support::{Client, World, soon};

    /// A program that ends with its test.
    struct Ends(Child);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Accepting fails with EMFILE, again and again; it goes on when there are descriptors again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_without_descriptors_serves_on_and_accepts_when_it_has_some() {
        const DESCRIPTORS: usize = 64;
        let world = World::stopped(&[]).await;
        world.put("file.txt", b"hello");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_fasts3")]);
        command.args([
            "serve",
            "s3://bucket",
            "--lazy",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--no-sign-request",
        ]);
        command.args(["--endpoint-url", &world.s3.endpoint(), "--cache"]).arg(world.cache.path());
        let mut server = Ends(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let stdout = server.0.stdout.take().unwrap();
        let ready = line_with("ready nfs=", stdout).await;
        let port = ready.split(['=', ':', ' ']).nth(3).unwrap().parse().unwrap();
        let mut client = Client::connect(port, "/", 0, 0).await;
        assert_eq!(client.read("file.txt").await.unwrap(), b"hello");

        let idle: Vec<_> = (0..DESCRIPTORS).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        line_with("cannot accept, will retry", server.0.stderr.take().unwrap()).await;
        assert_eq!(client.read("file.txt").await.unwrap(), b"hello", "who is connected is served");
        drop(idle);
        let mut late = Client::connect(port, "/", 0, 0).await;
        assert_eq!(late.read("file.txt").await.unwrap(), b"hello");
    }

    /// Waits for the program to say `what`; the rest is read and dropped, so that it never waits for us.
    async fn line_with(what: &'static str, said: impl Read + Send + 'static) -> String {
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let found = tokio::task::spawn_blocking(move || {
            let found = lines.find(|line| line.contains(what));
            std::thread::spawn(move || lines.for_each(drop));
            found
        });
        soon(found).await.unwrap().expect("the program says so before it ends")
    }
}
