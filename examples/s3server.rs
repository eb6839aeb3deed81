//! The S3 server of the demo and the tests as a program of its own, for benchmarks and for playing.
//!
//! `cargo run --release --example s3server -- [--objects 1000] [--size 16384] [--big 268435456] [--port 0]`
//! makes the bucket `bench` with `f000000`, `f000001`, ... of `size` bytes and `bench.dat` of `big`, and
//! prints `s3 endpoint=URL bucket=bench`. Lines on stdin change the weather, each answered with `ok`:
//! `latency MILLISECONDS`, `down`, `up`. `rewrite` gives all but `bench.dat` other bytes. It ends with its stdin.

#![allow(clippy::print_stdout)]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use fasts3::s3server::{Options, S3Server, generated};

const BUCKET: &str = "bench";

#[derive(Parser)]
struct Args {
    /// Number of small objects.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Bytes in each of them.
    #[arg(long, default_value_t = 16 << 10)]
    size: u64,
    /// Bytes in `bench.dat`.
    #[arg(long, default_value_t = 256 << 20)]
    big: u64,
    /// Port on 127.0.0.1; 0 picks one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listen = (Ipv4Addr::LOCALHOST, args.port).into();
    let s3 = S3Server::start(Options { listen, buckets: vec![BUCKET.to_owned()], ..Options::default() })?;
    let bucket = s3.bucket(BUCKET);
    let put_all = |seed| {
        let body = generated(seed, 0..args.size);
        (0..args.objects).for_each(|i| drop(bucket.put(&format!("f{i:06}"), body.clone(), &[])));
    };
    put_all(1);
    bucket.put_generated("bench.dat", args.big, 2);
    println!("s3 endpoint={} bucket={BUCKET}", s3.endpoint());

    let mut rewritten = 0;
    // Blocks this thread only: the server runs on the others.
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["latency", ms] => s3.faults().set_latency(Duration::from_millis(ms.parse().context(line.clone())?)),
            ["down"] => s3.faults().set_down(true),
            ["up"] => s3.faults().set_down(false),
            ["rewrite"] => {
                rewritten += 1;
                put_all(2 + rewritten);
            }
            _ => bail!("what is {line:?}? One of: latency MILLISECONDS, down, up, rewrite"),
        }
        println!("ok");
    }
    Ok(())
}
