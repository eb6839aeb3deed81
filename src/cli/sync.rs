//! `fasts3 sync [PATH]`: wait until S3 has it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::ProgressBar;

use super::ServerArgs;
use super::output::{self, count, size};
use crate::admin::Synced;
use crate::admin::client::Client;
use crate::admin::status::Status;

/// Often enough to see it move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Flags of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Path of a file or directory, from the root of the export; a directory means all below it
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Waits, with what is left on the terminal; fails when something cannot be brought to S3.
pub(super) async fn run(args: SyncArgs) -> anyhow::Result<()> {
    let client = args.server.client();
    let done = tokio::select! {
        done = client.post_path("/sync", &args.path) => done?,
        never = show_progress(&client) => match never {},
    };
    if args.server.json {
        output::print_json(&done)?;
    }
    let Synced { failures } = serde_json::from_value(done).context("the server is of another version: try --json")?;
    if failures.is_empty() {
        return Ok(());
    }
    for failure in &failures {
        eprintln!("{}: {}", failure.key, failure.why);
    }
    bail!("{} cannot be brought to S3; nothing is lost: it is tried again", count(failures.len() as u64, "change"))
}

/// What is left, on a terminal; until it is dropped.
async fn show_progress(client: &Client) -> std::convert::Infallible {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let spinner = ProgressBar::new_spinner();
    loop {
        if let Ok(status) = client.get("/status").await
            && let Ok(Status { journal, .. }) = serde_json::from_value(status)
        {
            spinner.set_message(format!("{} to go, {}", count(journal.pending, "change"), size(journal.bytes)));
        }
        spinner.tick();
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
}
