//! How soon S3's events make a server fresh. `scripts/bench/events` runs it.
//!
//! `latency`: a fasts3 of this process listens to a queue of moto, to which moto's S3 sends the events of a bucket. Beside
//! it somebody else reads a second queue, with nothing but the SDK: what that takes is the queue's own delay.
//! `wave`: tells a running fasts3, through its webhook, that all objects of `examples/s3server` have changed.

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "../tests/store/moto.rs"]
mod moto;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration};
use clap::Parser;
use fasts3::cli::ServeArgs;
use fasts3::config::Config;
use fasts3::server::Server;
use moto::Moto;
use support::{Client, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

#[derive(Parser)]
enum Args {
    /// PUT in S3 to fresh here.
    Latency {
        /// How many times.
        #[arg(long, default_value_t = 200)]
        puts: usize,
    },
    /// Many events at once.
    Wave {
        /// Where the webhook listens.
        #[arg(long)]
        to: SocketAddr,
        /// Its secret.
        #[arg(long)]
        secret: String,
        /// How many objects have changed.
        #[arg(long, default_value_t = 100_000)]
        objects: usize,
        /// Which wave it is: its events come after those of the one before.
        #[arg(long, default_value_t = 1)]
        round: usize,
    },
}

#[tokio::main]
async fn main() {
    match Args::parse() {
        Args::Latency { puts } => latency(puts).await,
        Args::Wave { to, secret, objects, round } => wave(to, secret, round, objects).await,
    }
}

const BUCKET: &str = "bucket";
const KEY: &str = "page";

async fn latency(puts: usize) {
    let moto = Moto::start().await.expect("FASTS3_MOTO_SERVER is set");
    let s3 = moto.client(credentials());
    s3.create_bucket().bucket(BUCKET).send().await.unwrap();
    let sqs = sqs(&moto);
    let queues = [queue(&sqs, "ours").await, queue(&sqs, "plain").await];
    let configurations = ["ours", "plain"].map(|name| {
        let arn = format!("arn:aws:sqs:us-east-1:123456789012:{name}");
        QueueConfiguration::builder().id(name).queue_arn(arn).events(Event::from("s3:ObjectCreated:*")).build().unwrap()
    });
    let all = NotificationConfiguration::builder().set_queue_configurations(Some(configurations.to_vec())).build();
    let told = s3.put_bucket_notification_configuration().bucket(BUCKET).notification_configuration(all);
    told.send().await.unwrap();
    put(&s3, 1).await;
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&moto, &queues[0], cache.path().to_str().unwrap()).await;
    let mut client = Client::connect(server.nfs_addr().port(), "/", 0, 0).await;
    client.read(KEY).await.unwrap();
    let (seen, plain) = watch::channel(0);
    tokio::spawn(poll(sqs, queues[1].clone(), seen));
    let (mut fresh, mut handed) = (Vec::new(), Vec::new());
    for size in 2..puts + 12 {
        let (begun, mut plain) = (Instant::now(), plain.clone());
        put(&s3, size).await;
        let queue = async {
            soon(plain.wait_for(|seen| *seen >= size)).await.unwrap();
            begun.elapsed()
        };
        let (of_queue, of_us) = tokio::join!(queue, fresh_after(&mut client, size, begun));
        // the first ones find connections closed, and code not yet loaded
        if size >= 12 {
            handed.push(of_queue);
            fresh.push(of_us);
        }
    }
    server.stop().await;
    let (queue, ours) = (percentiles(&mut handed), percentiles(&mut fresh));
    println!("PUT to message of the queue, SDK alone: p50 {:.1?}, p99 {:.1?}", queue.0, queue.1);
    println!("PUT to fresh on the server:             p50 {:.1?}, p99 {:.1?}", ours.0, ours.1);
    println!("beyond the queue's own delay: p99 {:.1?} (wanted <= 200ms)", ours.1.saturating_sub(queue.1));
}

/// When the server shows the version of this size. It asks S3 behind an answer once an hour: this is told.
async fn fresh_after(client: &mut Client, size: usize, begun: Instant) -> Duration {
    let file = client.lookup(KEY).await.unwrap().handle;
    while client.getattr(&file).await.unwrap().size != size as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.read_handle(&file).await.unwrap().len(), size);
    begun.elapsed()
}

async fn put(s3: &aws_sdk_s3::Client, size: usize) {
    s3.put_object().bucket(BUCKET).key(KEY).body(vec![7; size].into()).send().await.unwrap();
}

async fn serve(moto: &Moto, queue: &str, cache: &str) -> Server {
    let (endpoint, events) = (moto.endpoint(), format!("sqs={queue}"));
    let mut line =
        vec!["serve", "s3://bucket", "--lazy", "--listen", "127.0.0.1:0", "--admin", "off", "--recheck", "1h"];
    line.extend(["--uid", "0", "--gid", "0", "--region", "us-east-1", "--cache-size", "1GiB", "--cache", cache]);
    line.extend(["--endpoint-url", &endpoint, "--events", &events]);
    let config = Config::try_from(ServeArgs::parse_from_iter(line.into_iter())).unwrap();
    Server::start(config).await.unwrap()
}

/// Reads a queue with nothing but the SDK, and says the last size it was told of.
async fn poll(sqs: aws_sdk_sqs::Client, queue: String, seen: watch::Sender<usize>) {
    loop {
        let poll = sqs.receive_message().queue_url(&queue).max_number_of_messages(10).wait_time_seconds(20);
        for message in poll.send().await.unwrap().messages.unwrap_or_default() {
            let body: serde_json::Value = serde_json::from_str(message.body().unwrap()).unwrap();
            let size = body["Records"][0]["s3"]["object"]["size"].as_u64().unwrap_or(0) as usize;
            seen.send_if_modified(|seen| std::mem::replace(seen, size.max(*seen)) < size);
            let delete = sqs.delete_message().queue_url(&queue);
            delete.receipt_handle(message.receipt_handle().unwrap()).send().await.unwrap();
        }
    }
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[(times.len() * 99).div_ceil(100) - 1])
}

fn credentials() -> Credentials {
    Credentials::new("AKIATEST", "secret", None, None, "bench")
}

fn sqs(moto: &Moto) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version_latest()
        .endpoint_url(moto.endpoint())
        .region(aws_sdk_sqs::config::Region::new("us-east-1"))
        .credentials_provider(credentials());
    aws_sdk_sqs::Client::from_conf(config.build())
}

async fn queue(sqs: &aws_sdk_sqs::Client, name: &str) -> String {
    sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
}

/// Events in a message: S3 sends one, but a webhook of MinIO's may bring many.
const EVENTS: usize = 10;
/// Senders at once.
const SENDERS: usize = 16;

async fn wave(to: SocketAddr, secret: String, round: usize, objects: usize) {
    let (begun, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let senders = (0..SENDERS).map(|_| tokio::spawn(send(to, secret.clone(), (round, objects), next.clone())));
    for sent in futures::future::join_all(senders).await {
        sent.unwrap();
    }
    println!("told of {objects} changes in {:.2} s (wanted <= 30)", begun.elapsed().as_secs_f64());
}

/// Posts messages until all objects were told of; an answer means that they were taken.
async fn send(to: SocketAddr, secret: String, (round, objects): (usize, usize), next: Arc<AtomicUsize>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    loop {
        let first = next.fetch_add(EVENTS, Ordering::Relaxed);
        if first >= objects {
            return;
        }
        let records: Vec<_> = (first..objects.min(first + EVENTS)).map(|i| record(i, round)).collect();
        let body = format!(r#"{{"Records":[{}]}}"#, records.join(","));
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {secret}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let (mut answer, mut got) = ([0; 4096], 0);
        while !answer[..got].ends_with(b"\r\n\r\n") {
            let more = stream.read(&mut answer[got..]).await.unwrap();
            assert_ne!(more, 0, "the server hung up: {}", String::from_utf8_lossy(&answer[..got]));
            got += more;
        }
        assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..got]));
    }
}

fn record(i: usize, round: usize) -> String {
    format!(
        r#"{{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"bench"}},"object":{{"key":"f{i:06}","size":100,"eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"{round:016X}"}}}}}}"#
    )
}
