//! The commands of the program, over the control socket of a real server.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;

use serde_json::Value;
use support::World;

/// Runs the program against the server of `world`.
async fn fasts3(world: &World, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fasts3"));
    command.args(args).arg("--cache").arg(world.cache.path());
    support::soon(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
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
    for command in [&["status"][..], &["why", "/x"], &["refresh", "/"], &["warm", "/"]] {
        let said = fasts3(&world, command).await;
        assert_eq!(said.status.code(), Some(1), "{command:?}");
        assert_eq!(String::from_utf8_lossy(&said.stderr).lines().count(), 1, "{command:?}");
    }
}
