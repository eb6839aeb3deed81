//! `fasts3 invalidate PREFIX`: trust nothing that is here of these keys.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;

use super::ServerArgs;
use super::output;
use crate::notify::Told;

/// Flags of `invalidate`.
#[derive(Debug, Args)]
pub struct InvalidateArgs {
    /// A key below the mounted prefix, or, ending in `/`, all keys below it; `/` is everything
    #[arg(value_name = "PREFIX")]
    pub prefix: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Has the server told and prints what came of it. S3 is asked behind that.
pub(super) async fn run(args: InvalidateArgs) -> anyhow::Result<()> {
    let prefix = if args.prefix == "/" { OsString::new() } else { args.prefix };
    let done = args.server.client()?.post_path("/invalidate", &prefix).await?;
    if args.server.json {
        return output::print_json(&done);
    }
    let told: Told = serde_json::from_value(done).context("the server is of another version: try --json")?;
    output::print(match told.applied {
        0 => "nothing of it is here",
        _ => "distrusted: S3 is asked now, and behind the next answers",
    })
}
