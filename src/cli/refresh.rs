//! `fasts3 refresh PATH`: ask S3 now.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;

use super::ServerArgs;
use super::output::{self, count};
use crate::revalidate::Refreshed;

/// Flags of `refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// Path of a file or directory, a directory meaning all below it: from the root of the export with --cache, else
    /// where `fasts3 mount` mounted it
    #[arg(value_name = "PATH")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Has S3 asked and prints what came of it.
pub(super) async fn run(args: RefreshArgs) -> anyhow::Result<()> {
    let (client, path) = args.server.client_for(&args.path)?;
    let done = client.post_path("/refresh", &path).await?;
    if args.server.json {
        return output::print_json(&done);
    }
    let done: Refreshed = serde_json::from_value(done).context("the server is of another version: try --json")?;
    output::print(&format!("{} checked, {}", count(done.checked, "object"), count(done.changed, "change")))
}
