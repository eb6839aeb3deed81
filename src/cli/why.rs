//! `fasts3 why PATH`: where the answer for one file comes from and how fresh that is.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;

use super::{ServerArgs, output};
use crate::admin::why::Why;

/// Flags of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Path of a file or directory: from the root of the export with --cache, else where `fasts3 mount` mounted it
    #[arg(value_name = "PATH")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Asks for the explanation and prints it.
pub(super) async fn run(args: WhyArgs) -> anyhow::Result<()> {
    let (client, path) = args.server.client_for(&args.path)?;
    let why = client.get_path("/why", &path).await?;
    if args.server.json {
        return output::print_json(&why);
    }
    let why: Why = serde_json::from_value(why).context("the server is of another version: try --json")?;
    let lines: Vec<_> = why.explanation.iter().map(|line| format!("  {line}")).collect();
    output::print(&format!("{}\n{}", why.path, lines.join("\n")))
}
