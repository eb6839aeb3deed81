//! `fasts3 events setup` and `check`, by what they call and as programs.

use std::process::Output;

use fasts3::notify::check::{Check, Queue, Verdict};
use fasts3::notify::setup::Plan;
use tokio::process::Command;

use super::*;

/// Runs `fasts3 events` and ends it if it hangs.
pub(super) async fn run(world: &World, args: &[&str]) -> Output {
    let place = ["--endpoint-url", &world.moto.endpoint(), "--region", "us-east-1"];
    fasts3(&[&["events"], args, &place].concat()).await
}

/// The same of any command.
pub(super) async fn fasts3(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
    command.args(args).env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secret").kill_on_drop(true);
    soon(command.output()).await.unwrap()
}

pub(super) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn notifications(world: &World) -> Vec<aws_sdk_s3::types::QueueConfiguration> {
    let told = world.s3.get_bucket_notification_configuration().bucket(BUCKET).send().await.unwrap();
    told.queue_configurations.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_done_twice_is_done_once_and_leaves_what_others_made() {
    let Some(world) = World::new().await else { return };
    let service = wiring::service(&world.connected);
    let plan = Plan::new(BUCKET, "a/", "q");
    let first = wiring::apply(&plan, &world.s3, &service).await.unwrap();
    let again = wiring::apply(&plan, &world.s3, &service).await.unwrap();
    assert_eq!((first.was_there, again.was_there), (false, true));
    assert_eq!(first.arn, again.arn);
    let there = notifications(&world).await;
    assert_eq!(there.iter().filter(|queue| queue.queue_arn() == first.arn).count(), 1);
    assert_eq!(there.len(), 2, "{there:?}");
    assert!(there.iter().any(|queue| queue.queue_arn() == OTHERS && queue.id() == Some("others")), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_sets_up_and_finds_it_right() {
    let Some(world) = World::new().await else { return };
    let made = run(&world, &["setup", "s3://media/a", "--queue", "q"]).await;
    assert!(made.status.success(), "{}", out(&made));
    assert!(out(&made).contains("--events sqs=http"), "{}", out(&made));
    let url = format!("sqs={}/123456789012/q", world.moto.endpoint());
    let found = run(&world, &["check", "s3://media/a", "--events", &url]).await;
    assert!(found.status.success(), "{}", out(&found));
    assert!(out(&found).contains("the event of a probe object came after"), "{}", out(&found));
    let left = world.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(left.key_count(), Some(0), "the probe is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_says_what_is_wrong() {
    let Some(world) = World::new().await else { return };
    let url = |queue: &str| format!("sqs={}/123456789012/{queue}", world.moto.endpoint());
    let none = run(&world, &["check", "s3://media", "--events", &url("none")]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(out(&none).contains("does not exist") && out(&none).contains("events setup"), "{}", out(&none));

    let service = wiring::service(&world.connected);
    service.create_queue().queue_name("bare").send().await.unwrap();
    let bare = run(&world, &["check", "s3://media", "--events", &url("bare"), "--timeout", "1s"]).await;
    assert_eq!(bare.status.code(), Some(1));
    for wrong in ["does not let S3 send", "sends no events to the queue", "did not come in 1 s"] {
        assert!(out(&bare).contains(wrong), "{wrong}: {}", out(&bare));
    }

    world.set_up("b/", "b").await;
    let other = run(&world, &["check", "s3://media/a", "--events", &url("b"), "--timeout", "1s", "--json"]).await;
    assert_eq!(other.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&other.stdout).unwrap();
    let wrong = found.as_array().unwrap().iter().filter(|finding| finding["verdict"] == "wrong");
    let wrong: Vec<_> = wrong.filter_map(|finding| finding["what"].as_str()).collect();
    assert!(wrong[0].contains("below b/") && wrong[0].contains("s3://media/a/"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn printing_needs_neither_credentials_nor_network() {
    let print = async |form: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
        command.args(["events", "setup", "s3://media/a b", "--host", "web1", "--print", form]).env_clear();
        let printed = soon(command.output()).await.unwrap();
        assert!(printed.status.success(), "{}", out(&printed));
        assert!(out(&printed).contains("fasts3-media-a-b-web1"), "{}", out(&printed));
        String::from_utf8(printed.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&print("json").await).unwrap();
    assert_eq!(json["queue"]["QueueName"], "fasts3-media-a-b-web1");
    let script = print("cli").await;
    let parsed = soon(Command::new("sh").args(["-n", "-c", &script]).output()).await.unwrap();
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{}", out(&parsed));
    assert!(print("terraform").await.contains("filter_prefix = \"a b/\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_puts_back_what_is_not_its_own() {
    let Some(world) = World::new().await else { return };
    let url = world.set_up("", "q").await;
    world.put("k", b"x").await;
    let sqs = world.sqs(&url);
    let check = Check { bucket: BUCKET, prefix: "", s3: &world.s3, clock: Clock::system() };
    let queue = Queue { url: &url, sqs: &sqs };
    let findings = check.configuration(&queue).await;
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good), "{findings:?}");
    let probe = check.probe().await.unwrap();
    assert!(probe.comes(&queue, Duration::from_secs(60)).await);
    assert_eq!(probe.remove().await, None);
    let (tell, _health, _stop) = listen(&world, &url, "");
    tell.until(|told| told.iter().any(|hint| hint.key.as_str() == "k")).await;
}
