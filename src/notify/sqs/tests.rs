//! Against a queue in this process that does what the test says.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use aws_credential_types::Credentials;
use aws_sdk_sqs::config::{BehaviorVersion, SharedCredentialsProvider};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::*;
use crate::notify::source::double::Recorder;
use crate::notify::{Origin, Scope, SourceHealth};
use crate::types::Clock;

/// What the queue has and does.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, u32)>,
    hidden: Vec<(String, u32)>,
    deleted: Vec<String>,
    receives: Vec<Tick>,
    /// Error code of every request but for attributes.
    refuses: Option<&'static str>,
    refuses_attributes: bool,
    refuses_deletes: bool,
    has_dead_letters: bool,
}

#[derive(Clone)]
struct Fake {
    queue: Arc<watch::Sender<Queue>>,
    clock: Clock,
}

impl Fake {
    fn push(&self, body: impl Into<String>) {
        self.queue.send_modify(|queue| queue.waiting.push_back((body.into(), 0)));
    }

    /// What is hidden is seen again.
    fn show(&self) {
        self.queue.send_modify(|queue| {
            let hidden = std::mem::take(&mut queue.hidden);
            queue.waiting.extend(hidden);
        });
    }

    async fn until(&self, what: impl FnMut(&Queue) -> bool) {
        let mut queue = self.queue.subscribe();
        let wait = queue.wait_for(what);
        drop(tokio::time::timeout(Duration::from_secs(60), wait).await.expect("by now").unwrap());
    }

    async fn receive(&self) -> Value {
        let clock = self.clock.clone();
        self.queue.send_modify(|queue| queue.receives.push(clock.now()));
        let mut queue = self.queue.subscribe();
        drop(queue.wait_for(|queue| !queue.waiting.is_empty()).await.unwrap());
        let mut messages = Vec::new();
        self.queue.send_modify(|queue| {
            while let Some((body, receives)) = queue.waiting.pop_front() {
                let attributes =
                    json!({"ApproximateReceiveCount": (receives + 1).to_string(), "SentTimestamp": "1767225600000"});
                messages.push(json!({"MessageId": "m", "ReceiptHandle": body, "Body": body, "Attributes": attributes}));
                queue.hidden.push((body, receives + 1));
                if messages.len() == BATCH as usize {
                    break;
                }
            }
        });
        json!({ "Messages": messages })
    }

    fn delete(&self, request: &Value) -> Value {
        let entries = request["Entries"].as_array().unwrap();
        let ids: Vec<Value> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
        if self.queue.borrow().refuses_deletes {
            let failed = ids.iter().map(|id| json!({"Id": id["Id"], "Code": "No", "SenderFault": true}));
            return json!({"Successful": [], "Failed": failed.collect::<Vec<_>>()});
        }
        self.queue.send_modify(|queue| {
            for entry in entries {
                let receipt = entry["ReceiptHandle"].as_str().unwrap().to_owned();
                queue.hidden.retain(|(body, _)| *body != receipt);
                queue.deleted.push(receipt);
            }
        });
        json!({"Successful": ids, "Failed": []})
    }
}

async fn answer(State(fake): State<Fake>, headers: HeaderMap, body: String) -> Response {
    let request: Value = serde_json::from_str(&body).unwrap();
    let refused = |code: &str| {
        let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "said so"});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    let target = headers["x-amz-target"].to_str().unwrap().to_owned();
    if target.ends_with("GetQueueAttributes") {
        let (refuses, dead) = (fake.queue.borrow().refuses_attributes, fake.queue.borrow().has_dead_letters);
        return match (refuses, dead) {
            (true, _) => refused("AccessDenied"),
            (_, true) => Json(json!({"Attributes": {"RedrivePolicy": "{}"}})).into_response(),
            _ => Json(json!({})).into_response(),
        };
    }
    let refuses = fake.queue.borrow().refuses;
    if let Some(code) = refuses {
        let clock = fake.clock.clone();
        fake.queue.send_modify(|queue| queue.receives.push(clock.now()));
        return refused(code);
    }
    match target.as_str() {
        "AmazonSQS.ReceiveMessage" => Json(fake.receive().await).into_response(),
        "AmazonSQS.DeleteMessageBatch" => Json(fake.delete(&request)).into_response(),
        other => panic!("{other}"),
    }
}

struct Rig {
    fake: Fake,
    tell: Arc<Recorder>,
    health: Arc<SourceHealth>,
    clock: Clock,
    running: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    _server: DropGuard,
}

impl Rig {
    /// What `prepare` made of the queue, and a source that listens to it.
    async fn new(timing: Timing, prepare: impl FnOnce(&mut Queue)) -> Rig {
        let clock = Clock::manual();
        let mut queue = Queue::default();
        prepare(&mut queue);
        let fake = Fake { queue: Arc::new(watch::Sender::new(queue)), clock: clock.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/1/q", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback_service(post(answer).with_state(fake.clone()));
        let server = CancellationToken::new();
        let ended = server.clone();
        tokio::spawn(async move {
            let serving = std::future::IntoFuture::into_future(axum::serve(listener, router));
            ended.run_until_cancelled(serving).await
        });
        let (tell, stop) = (Recorder::new(), CancellationToken::new());
        let health = Arc::new(SourceHealth::new("sqs=q", Origin::Sqs));
        let source = Source {
            scope: Arc::new(Scope::new("b", "")),
            tell: tell.clone(),
            health: health.clone(),
            clock: clock.clone(),
        };
        let client = client(&shared(), &url, timing);
        let running = tokio::spawn(Sqs::new(client, url, source, timing).run(stop.clone()));
        Rig { fake, tell, health, clock, running, stop, _server: server.drop_guard() }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.running).await.expect("it ends").unwrap();
    }
}

fn shared() -> SdkConfig {
    let credentials = Credentials::new("AKIATEST", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

const ONE: Timing = Timing {
    wait: Duration::from_secs(20),
    hidden: Duration::from_secs(60),
    pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(4),
    pollers: 1,
    helpers: 0,
};

fn body(key: &str) -> String {
    json!({"Records": [{"eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00.000Z",
        "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}]})
    .to_string()
}

#[tokio::test]
async fn message_is_deleted_after_it_is_applied() {
    let rig = Rig::new(ONE, |_| {}).await;
    rig.tell.hold(true);
    rig.fake.push(body("k"));
    rig.fake.until(|queue| !queue.hidden.is_empty()).await;
    assert!(rig.fake.queue.borrow().deleted.is_empty());
    rig.clock.advance(Duration::from_millis(2_000));
    rig.tell.hold(false);
    rig.fake.until(|queue| !queue.deleted.is_empty()).await;
    assert_eq!(rig.tell.told()[0].key.as_str(), "k");
    let state = rig.health.state();
    assert_eq!((state.hints, state.trouble), (1, None));
    assert!(state.lag_ms >= 2_000 && state.last_good > Tick::NEVER);
    rig.stop().await;
}

#[tokio::test]
async fn events_of_others_and_tests_are_deleted_and_tell_nobody() {
    let rig = Rig::new(ONE, |_| {}).await;
    rig.fake.push(body("k").replace("\"b\"", "\"other\""));
    rig.fake.push(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#);
    rig.fake.until(|queue| queue.deleted.len() == 2).await;
    assert!(rig.tell.told().is_empty());
    assert_eq!((rig.health.state().ignored, rig.health.state().unreadable), (1, 0));
    rig.stop().await;
}

#[tokio::test]
async fn queue_that_refuses_is_asked_ever_more_rarely_and_heard_again() {
    let rig = Rig::new(ONE, |queue| queue.refuses = Some("QueueDoesNotExist")).await;
    let times = |n: usize| {
        let mut times = rig.fake.queue.subscribe();
        let clock = rig.clock.clone();
        async move {
            while times.borrow_and_update().receives.len() < n {
                clock.advance(Duration::from_millis(100));
                tokio::task::yield_now().await;
            }
            times.borrow().receives.clone()
        }
    };
    let times = tokio::time::timeout(Duration::from_secs(60), times(5)).await.expect("it is asked again");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    assert!(gaps.iter().zip([1, 2, 4, 4]).all(|(gap, least)| *gap >= least), "{gaps:?}");
    let trouble = rig.health.state().trouble.unwrap();
    assert!(trouble.contains("fasts3 events setup"), "{trouble}");
    assert_eq!(rig.health.state().last_good, Tick::NEVER);
    rig.fake.queue.send_modify(|queue| queue.refuses = None);
    rig.fake.push(body("k"));
    let told = async {
        while rig.tell.told().is_empty() {
            rig.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is heard again");
    assert_eq!(rig.health.state().trouble, None);
    assert!(rig.health.state().last_good > Tick::NEVER);
    rig.stop().await;
}

#[tokio::test]
async fn poison_is_counted_once_and_deleted_when_it_has_come_three_times() {
    let rig = Rig::new(ONE, |_| {}).await;
    rig.fake.push("poison");
    for receives in [1, 2] {
        rig.fake.until(|queue| queue.hidden.first().is_some_and(|(_, n)| *n == receives)).await;
        // what comes after it is handled after it
        rig.fake.push(body(&format!("k{receives}")));
        rig.fake.until(|queue| queue.deleted.len() == receives as usize).await;
        assert!(!rig.fake.queue.borrow().deleted.iter().any(|body| body == "poison"));
        rig.fake.show();
    }
    rig.fake.until(|queue| queue.deleted.iter().any(|body| body == "poison")).await;
    assert_eq!((rig.health.state().unreadable, rig.tell.told().len()), (1, 2));
    rig.stop().await;
}

#[tokio::test]
async fn poison_is_left_to_the_policy_of_the_queue() {
    for (has_dead_letters, refuses_attributes) in [(true, false), (false, true)] {
        let rig = Rig::new(ONE, |queue| {
            (queue.has_dead_letters, queue.refuses_attributes) = (has_dead_letters, refuses_attributes);
        })
        .await;
        rig.fake.push("poison");
        for receives in 1..=5 {
            rig.fake.until(|queue| queue.hidden.first().is_some_and(|(_, n)| *n == receives)).await;
            rig.fake.show();
        }
        // what comes after it is handled after it
        rig.fake.push(body("k"));
        rig.fake.until(|queue| !queue.deleted.is_empty()).await;
        assert!(rig.fake.queue.borrow().deleted.iter().all(|body| body != "poison"));
        rig.stop().await;
    }
}

#[tokio::test]
async fn many_messages_bring_helpers() {
    let timing = Timing { helpers: 4, ..ONE };
    let rig = Rig::new(timing, |_| {}).await;
    rig.tell.hold(true);
    (0..100).for_each(|n| rig.fake.push(body(&format!("k{n}"))));
    // ten a poller, while each waits for the one who is told
    rig.fake.until(|queue| queue.hidden.len() == 50).await;
    rig.tell.hold(false);
    rig.fake.until(|queue| queue.deleted.len() == 100).await;
    let told = rig.tell.told();
    let keys: std::collections::BTreeSet<_> = told.iter().map(|hint| hint.key.as_str()).collect();
    assert_eq!((told.len(), keys.len()), (100, 100), "each once");
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_deleted_is_applied_and_counted() {
    let rig = Rig::new(ONE, |queue| queue.refuses_deletes = true).await;
    rig.fake.push(body("k"));
    rig.fake.until(|queue| queue.receives.len() == 2).await;
    assert_eq!(rig.tell.told().len(), 1);
    assert_eq!((rig.health.state().errors, rig.health.state().trouble), (1, None));
    rig.stop().await;
}

#[tokio::test]
async fn it_stops_while_it_waits_for_a_message_or_for_whom_it_tells() {
    let rig = Rig::new(ONE, |_| {}).await;
    rig.fake.until(|queue| queue.receives.len() == 1).await;
    rig.stop().await;
    let rig = Rig::new(ONE, |_| {}).await;
    rig.tell.hold(true);
    rig.fake.push(body("k"));
    rig.fake.until(|queue| !queue.hidden.is_empty()).await;
    let fake = rig.fake.clone();
    rig.stop().await;
    assert!(fake.queue.borrow().deleted.is_empty());
}
