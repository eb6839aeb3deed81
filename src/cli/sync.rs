//! `fasts3 sync [PATH]`: wait until S3 has it.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;

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
    /// Path of a file or directory, a directory meaning all below it: from the root of the export with --cache, else
    /// where `fasts3 mount` mounted it
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Waits, with what is left on the terminal; fails when something cannot be brought to S3.
pub(super) async fn run(args: SyncArgs) -> anyhow::Result<()> {
    let (client, path) = args.server.client_for(&args.path)?;
    let done = ask(&client, &path).await?;
    if args.server.json {
        output::print_json(&done)?;
    }
    judge(done)
}

/// Waits until S3 has all changes of `path` and below it.
pub(super) async fn wait(client: &Client, path: &OsStr) -> anyhow::Result<()> {
    judge(ask(client, path).await?)
}

async fn ask(client: &Client, path: &OsStr) -> anyhow::Result<Value> {
    tokio::select! {
        done = client.post_path("/sync", path) => done,
        never = show_progress(client) => match never {},
    }
}

fn judge(done: Value) -> anyhow::Result<()> {
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
