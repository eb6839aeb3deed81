//! How soon what is written at one server is read at another, for `scripts/bench/peers`: two servers, their S3 and their
//! clients in this process, over a nats-server of its own.
//!
//! `cargo run --release --example peers -- [--rounds 300] [--size 4096] [--inline 0] [--jetstream]` writes one file again
//! and again at one server and reads it every millisecond at the other, which without a word would believe it for an hour.
//! It prints percentiles: `write` from the WRITE to the first READ of the new bytes, `told` from the moment S3 has them.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use clap::Parser;
use fasts3::s3server::{Bucket, Options, S3Server};
use fasts3::server::Server;
use nfs3_client::nfs3_types::nfs3::{nfs_fh3, stable_how};
use support::nats::Nats;
use support::{Client, config, soon};
use tempfile::TempDir;

/// How often S3 is looked at for the new version.
const LOOK: Duration = Duration::from_micros(50);
/// How often the other server is read.
const READ: Duration = Duration::from_millis(1);

#[derive(Parser)]
struct Args {
    /// Changes measured.
    #[arg(long, default_value_t = 300)]
    rounds: u64,
    /// Bytes in the object, 8 at least.
    #[arg(long, default_value_t = 4 << 10)]
    size: usize,
    /// `--peer-inline` of both servers.
    #[arg(long, default_value = "0")]
    inline: String,
    /// Over a stream.
    #[arg(long)]
    jetstream: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let nats = if args.jetstream { Nats::with_jetstream() } else { Nats::start(&[]) };
    let nats = nats.expect("nats-server: apt-get install nats-server, or FASTS3_NATS_SERVER=PATH");
    let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
    let bucket = s3.bucket("bucket");
    bucket.put("page", contents(&args, 0), &[]);
    let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (endpoint, url) = (s3.endpoint(), nats.url());
    let [a, b] = caches.each_ref().map(|cache| server(&endpoint, &url, &args.inline, cache));
    let (a, b) = (a.await, b.await);
    let (mut at_a, mut at_b) = (client(&a).await, client(&b).await);
    let (of_a, of_b) = (at_a.lookup("page").await.unwrap().handle, at_b.lookup("page").await.unwrap().handle);
    at_b.read_handle(&of_b).await.unwrap();

    let (mut write, mut told) = (Vec::new(), Vec::new());
    // the first ones find a server that the other has not heard of, perhaps
    for round in 1..=args.rounds + WARM_UP {
        let new = contents(&args, round);
        let begun = Instant::now();
        let landed = tokio::task::spawn_blocking({
            let (bucket, new) = (bucket.clone(), new.clone());
            move || in_s3(&bucket, &new)
        });
        at_a.write_at(&of_a, 0, &new, stable_how::FILE_SYNC).await.unwrap();
        let fresh = is_read(&mut at_b, &of_b, &new);
        let (fresh, landed) = tokio::join!(soon(fresh), soon(landed));
        if round > WARM_UP {
            write.push(fresh - begun);
            told.push(fresh.saturating_duration_since(landed.unwrap()));
        }
    }
    let stream = if args.jetstream { "stream" } else { "plain" };
    println!(
        "{stream} size={} inline={} rounds={} write {} told {}",
        args.size,
        args.inline,
        args.rounds,
        percentiles(write),
        percentiles(told)
    );
    a.stop().await;
    b.stop().await;
}

/// Rounds that do not count.
const WARM_UP: u64 = 20;

fn contents(args: &Args, round: u64) -> Vec<u8> {
    let mut bytes = vec![b'.'; args.size.max(8)];
    bytes[..8].copy_from_slice(&round.to_be_bytes());
    bytes
}

async fn server(endpoint: &str, nats: &str, inline: &str, cache: &TempDir) -> Server {
    let flags = ["--lazy", "--no-sign-request", "--upload-delay", "0s", "--peers", nats, "--peer-inline", inline];
    let mut config = config(endpoint, cache, flags);
    config.recheck = Duration::from_secs(3_600);
    Server::start(config).await.unwrap()
}

async fn client(server: &Server) -> Client {
    Client::connect(server.nfs_addr().port(), "/", 0, 0).await
}

/// When S3 has it.
fn in_s3(bucket: &Bucket, new: &[u8]) -> Instant {
    let give_up = Instant::now() + Duration::from_secs(30);
    while bucket.get("page").is_none_or(|stored| stored.bytes != new) && Instant::now() < give_up {
        std::thread::sleep(LOOK);
    }
    Instant::now()
}

/// When a READ answers it.
async fn is_read(client: &mut Client, file: &nfs_fh3, new: &[u8]) -> Instant {
    while client.read_handle(file).await.unwrap() != new {
        tokio::time::sleep(READ).await;
    }
    Instant::now()
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    format!("p50={:.1}ms p99={:.1}ms max={:.1}ms", at(50), at(99), at(100))
}
