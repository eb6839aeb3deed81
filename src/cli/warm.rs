//! `fasts3 warm PATH`: fetch into the cache.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;

use super::ServerArgs;
use super::output::{self, count, number, size};
use crate::revalidate::Warmed;

/// Flags of `warm`.
#[derive(Debug, Args)]
pub struct WarmArgs {
    /// Path of a file or directory, a directory meaning all below it: from the root of the export with --cache, else
    /// where `fasts3 mount` mounted it
    #[arg(value_name = "PATH")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Has the bytes fetched and prints how many came.
pub(super) async fn run(args: WarmArgs) -> anyhow::Result<()> {
    let (client, path) = args.server.client_for(&args.path)?;
    let done = client.post_path("/warm", &path).await?;
    if args.server.json {
        return output::print_json(&done);
    }
    let done: Warmed = serde_json::from_value(done).context("the server is of another version: try --json")?;
    let (files, bytes, already) = (count(done.files, "file"), size(done.bytes), number(done.already));
    output::print(&format!("{files} fetched ({bytes}), {already} already here"))
}
