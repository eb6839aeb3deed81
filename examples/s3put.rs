//! What the SDK alone needs to put many objects, for benchmarks of uploads.
//!
//! `cargo run --release --example s3put -- --endpoint-url URL --bucket NAME [--objects 10000] [--size 16384]
//! [--concurrency 16]` puts `f000000`, `f000001`, ... and prints `put objects=N secs=S`. Credentials are the
//! environment's.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt, TryStreamExt};

#[derive(Parser)]
struct Args {
    /// Where S3 is.
    #[arg(long)]
    endpoint_url: String,
    /// Where to put them.
    #[arg(long)]
    bucket: String,
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Bytes in each of them.
    #[arg(long, default_value_t = 16 << 10)]
    size: usize,
    /// How many at once.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { endpoint_url, bucket, objects, size, concurrency } = Args::parse();
    let shared = aws_config::defaults(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    let shared = shared.endpoint_url(endpoint_url).load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(true).build();
    let (client, body) = (Client::from_conf(config), Bytes::from(vec![7; size]));
    let begun = Instant::now();
    let put =
        |i: usize| client.put_object().bucket(&bucket).key(format!("f{i:06}")).body(ByteStream::from(body.clone()));
    futures::stream::iter(0..objects)
        .map(|i| Ok::<_, anyhow::Error>(put(i)))
        // each on a task of its own, so that all cores are used
        .try_for_each_concurrent(concurrency, |put| async {
            tokio::spawn(put.send()).await??;
            Ok(())
        })
        .await?;
    println!("put objects={objects} secs={:.3}", begun.elapsed().as_secs_f64());
    Ok(())
}
