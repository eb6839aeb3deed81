//! `fasts3 invalidate PREFIX`: trust nothing that is here of these keys.

use std::ffi::OsString;

use anyhow::Context;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::ServerArgs;
use super::output::{self, count};
use crate::admin::Invalidated;

/// Flags of `invalidate`.
#[derive(Debug, Args)]
pub struct InvalidateArgs {
    /// A key below the mounted prefix, or, ending in `/`, all keys below it; `/` is everything
    #[arg(value_name = "PREFIX")]
    pub prefix: OsString,

    /// Have all other servers of the bucket do the same; the server must have been started with --peers
    #[arg(long, env = "FASTS3_INVALIDATE_PEERS", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub peers: bool,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Has the server told and prints what came of it. S3 is asked behind that.
pub(super) async fn run(args: InvalidateArgs) -> anyhow::Result<()> {
    let prefix = if args.prefix == "/" { OsString::new() } else { args.prefix };
    let endpoint = format!("/invalidate?peers={}", args.peers);
    let done = args.server.client()?.post_path(&endpoint, &prefix).await?;
    if args.server.json {
        return output::print_json(&done);
    }
    let done: Invalidated = serde_json::from_value(done).context("the server is of another version: try --json")?;
    let here = match done.told.applied {
        0 => "nothing of it is here",
        _ => "distrusted: S3 is asked now, and behind the next answers",
    };
    let elsewhere = args.peers.then(|| format!("\n{}", others(&done.peers)));
    output::print(&format!("{here}{}", elsewhere.unwrap_or_default()))
}

fn others(hosts: &[String]) -> String {
    match hosts {
        [] => "no other server was heard of lately; those that come back are told, if NATS keeps it".into(),
        hosts => format!("told to {}: {}", count(hosts.len() as u64, "other server"), hosts.join(", ")),
    }
}
