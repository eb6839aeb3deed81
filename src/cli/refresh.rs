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
    /// Path of a file or directory, from the root of the export; a directory means all below it
    #[arg(value_name = "PATH")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Has S3 asked and prints what came of it.
pub(super) async fn run(args: RefreshArgs) -> anyhow::Result<()> {
    let done = args.server.client().post_path("/refresh", &args.path).await?;
    if args.server.json {
        return output::print_json(&done);
    }
    let done: Refreshed = serde_json::from_value(done).context("the server is of another version: try --json")?;
    output::print(&format!("{} checked, {}", count(done.checked, "object"), count(done.changed, "change")))
}
