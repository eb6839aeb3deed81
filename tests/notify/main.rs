//! Events of an S3 that is not ours, through a queue that is not ours: moto's.
#![allow(clippy::unwrap_used, missing_docs)]

mod http;
#[path = "../store/moto.rs"]
#[allow(dead_code)]
mod moto;
mod pushed;
mod served;
mod setup;
#[path = "../support/mod.rs"]
mod support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration, TopicConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use fasts3::config::{EventSource, NewObjects, S3Config};
use fasts3::notify::sqs::{self, Sqs};
use fasts3::notify::{Hint, Origin, QueueUrl, Said, Scope, Source, SourceHealth, Tell, Told, setup as wiring};
use fasts3::store::{Connected, Connecting, Timing, connect_with};
use fasts3::types::{Clock, ETag};
use moto::Moto;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const BUCKET: &str = "media";
const OTHERS: &str = "arn:aws:sqs:us-east-1:123456789012:others";

fn credentials() -> Credentials {
    Credentials::new("AKIATEST", "secret", None, None, "test")
}

/// moto with a bucket, and a client of ours for it.
struct World {
    moto: Moto,
    s3: aws_sdk_s3::Client,
    connected: Connected,
}

impl World {
    async fn new() -> Option<World> {
        let moto = Moto::start().await?;
        let s3 = moto.client(credentials());
        s3.create_bucket().bucket(BUCKET).send().await.unwrap();
        let connecting = Connecting { credentials: Some(credentials()), timing: Timing::default() };
        let connected = connect_with(&config(&moto), Arc::default(), connecting).await.unwrap();
        let world = World { moto, s3, connected };
        world.have_others_set_up().await;
        Some(world)
    }

    /// A notification that is not ours. Also, moto answers with the wrong XML where there is none.
    async fn have_others_set_up(&self) {
        let service = wiring::service(&self.connected);
        service.create_queue().queue_name("others").send().await.unwrap();
        let queue =
            QueueConfiguration::builder().id("others").queue_arn(OTHERS).events(Event::from("s3:ObjectTagging:Put"));
        let all = NotificationConfiguration::builder().queue_configurations(queue.build().unwrap()).build();
        let put = self.s3.put_bucket_notification_configuration().bucket(BUCKET).notification_configuration(all);
        put.send().await.unwrap();
    }

    fn sqs(&self, url: &QueueUrl) -> aws_sdk_sqs::Client {
        sqs::client(&self.connected.shared, url, sqs::Timing::default())
    }

    /// Sets the queue up and gives its URL.
    async fn set_up(&self, prefix: &str, queue: &str) -> QueueUrl {
        let plan = wiring::Plan::new(BUCKET, prefix, queue);
        let service = wiring::service(&self.connected);
        wiring::apply(&plan, &self.s3, &service).await.unwrap().url
    }

    /// A queue to which nothing is sent.
    async fn queue(&self, name: &str) -> QueueUrl {
        let made = wiring::service(&self.connected).create_queue().queue_name(name).send().await.unwrap();
        made.queue_url().unwrap().parse().unwrap()
    }

    /// Has the bucket send its events to these queues, by way of a topic.
    async fn send_to_topic(&self, queues: &[&str]) {
        let topic = "arn:aws:sns:us-east-1:123456789012:topic";
        self.sns("Action=CreateTopic&Name=topic").await;
        for queue in queues {
            let arn = format!("arn:aws:sqs:us-east-1:123456789012:{queue}");
            self.sns(&format!("Action=Subscribe&TopicArn={topic}&Protocol=sqs&Endpoint={arn}")).await;
        }
        let topic = TopicConfiguration::builder().topic_arn(topic);
        let topic = topic.events(Event::from("s3:ObjectCreated:*")).events(Event::from("s3:ObjectRemoved:*"));
        let all = NotificationConfiguration::builder().topic_configurations(topic.build().unwrap()).build();
        let put = self.s3.put_bucket_notification_configuration().bucket(BUCKET).notification_configuration(all);
        put.send().await.unwrap();
    }

    async fn sns(&self, form: &str) {
        let headers = [
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/sns/aws4_request, \
             SignedHeaders=host, Signature=0",
            "Content-Type: application/x-www-form-urlencoded",
        ];
        let answer = http::post(&self.moto.address(), "/", &headers, &format!("{form}&Version=2010-03-31")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Waits until nothing is in the queue, nor with somebody who received it.
    async fn empties(&self, url: &QueueUrl) {
        let sqs = self.sqs(url);
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let empty = async {
            loop {
                let ask = sqs.get_queue_attributes().queue_url(url.as_str()).set_attribute_names(Some(names.to_vec()));
                let told = ask.send().await.unwrap();
                if told.attributes().unwrap().values().all(|n| n == "0") {
                    return;
                }
            }
        };
        soon(empty).await;
    }

    /// Nobody is told of anything any more.
    async fn forget_notifications(&self) {
        self.have_others_set_up().await;
    }

    async fn remove(&self, key: &str) {
        self.s3.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }

    async fn put(&self, key: &str, bytes: &'static [u8]) -> ETag {
        let put = self.s3.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(bytes));
        ETag::new(put.send().await.unwrap().e_tag().unwrap())
    }
}

fn config(moto: &Moto) -> S3Config {
    S3Config {
        bucket: BUCKET.into(),
        prefix: String::new(),
        endpoint_url: Some(moto.endpoint()),
        region: Some("us-east-1".into()),
        profile: None,
        anonymous: false,
        requester_pays: false,
        concurrency: NonZeroU32::new(8).unwrap(),
        rate: None,
        new_objects: NewObjects::default(),
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Recorder(watch::Sender<Vec<Hint>>);

#[async_trait]
impl Tell for Recorder {
    async fn tell(&self, hints: Vec<Hint>) -> Told {
        let told = Told { applied: hints.len(), ..Told::default() };
        self.0.send_modify(|all| all.extend(hints));
        told
    }

    async fn distrust_all(&self) {}
}

impl Recorder {
    async fn until(&self, enough: impl FnMut(&Vec<Hint>) -> bool) -> Vec<Hint> {
        let mut told = self.0.subscribe();
        soon(told.wait_for(enough)).await.unwrap().clone()
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("this should have happened by now")
}

/// A source on the queue, and who is told.
fn listen(world: &World, url: &QueueUrl, prefix: &str) -> (Arc<Recorder>, Arc<SourceHealth>, DropGuard) {
    let tell = Arc::new(Recorder::default());
    let health = Arc::new(SourceHealth::new(format!("sqs={url}"), Origin::Sqs));
    let source = Source {
        scope: Arc::new(Scope::new(BUCKET, prefix)),
        tell: tell.clone(),
        health: health.clone(),
        clock: Clock::system(),
    };
    let stop = CancellationToken::new();
    let sqs = Sqs::new(world.sqs(url), url.clone(), source, sqs::Timing::default());
    tokio::spawn(sqs.run(stop.clone()));
    (tell, health, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_s3_comes_out_of_the_queue() {
    let Some(world) = World::new().await else { return };
    let url = world.set_up("a/", "q").await;
    let (tell, health, _stop) = listen(&world, &url, "a/");
    let key = "a/red flower+ü/100%.jpg";
    let etag = world.put(key, b"hello").await;
    world.put("b/elsewhere", b"x").await;
    world.remove(key).await;
    let told = tell.until(|told| told.iter().any(|hint| hint.said == Said::Removed)).await;
    let expected = Said::Written { etag: Some(etag), size: Some(5) };
    assert!(told.iter().any(|hint| hint.said == expected), "{told:?}");
    assert!(told.iter().all(|hint| hint.key.as_str() == "red flower+ü/100%.jpg" && hint.at.is_some()), "{told:?}");
    assert_eq!((health.state().trouble, health.state().unreadable), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn handled_messages_leave_the_queue_empty() {
    let Some(world) = World::new().await else { return };
    let url = world.set_up("", "q").await;
    let (tell, health, _stop) = listen(&world, &url, "");
    for n in 0..30 {
        world.put(&format!("k{n}"), b"x").await;
    }
    tell.until(|told| told.len() == 30).await;
    world.empties(&url).await;
    assert_eq!((health.state().hints, tell.0.borrow().len()), (30, 30), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_that_is_not_there_is_trouble_that_says_what_to_do() {
    let Some(world) = World::new().await else { return };
    let url: QueueUrl = format!("{}/123456789012/none", world.moto.endpoint()).parse().unwrap();
    let (_tell, health, _stop) = listen(&world, &url, "");
    let trouble = async {
        loop {
            match health.state().trouble {
                Some(trouble) => return trouble,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let trouble = soon(trouble).await;
    assert!(trouble.contains("does not exist") && trouble.contains("fasts3 events setup"), "{trouble}");
}
