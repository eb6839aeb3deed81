//! `fasts3 umount`: unmounts what `fasts3 mount` mounted, whether its server runs or is dead.
//! The server ends by itself when it sees that its mount is gone; this waits for that and tells what S3 does not have yet.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::mount::{blocking, is_served};
use super::output::{self, count};
use super::{fsck, sync};
use crate::admin::client::Client;
use crate::content::CacheDir;
use crate::index::IndexError;
use crate::mount::record::{self, Record};
use crate::mount::{self, UnmountError, os, place};
use crate::types::{Clock, Ino};

/// How often to look whether the server has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Beyond any `--shutdown-timeout` that makes sense.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows of the journal read at once.
const BATCH: usize = 1_024;

/// Flags of `umount`.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub point: PathBuf,

    /// Wait first until S3 has every change
    #[arg(long, env = "FASTS3_SYNC", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub sync: bool,

    /// Unmount it though programs use it; what they do with it then fails
    #[arg(short, long, env = "FASTS3_FORCE", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub force: bool,
}

/// Unmounts, waits for the server to end, and tells what is not in S3 yet.
pub(super) async fn run(args: UmountArgs) -> anyhow::Result<()> {
    let table = os::table().context("cannot read the mount table")?;
    let point =
        place::resolve(&args.point, &table).with_context(|| format!("no such directory: {}", args.point.display()))?;
    let record = find(&point)?;
    if is_served(&record.cache) {
        if args.sync {
            let flushed = point.clone();
            blocking(move || Ok(os::flush(&flushed)?)).await.context("the client cannot write what it holds back")?;
            sync::wait(&Client::new(&record.cache), "/".as_ref()).await?;
        }
        let force = args.force;
        blocking(move || unmount(&point, force)).await?;
        ended(&record).await?;
    } else {
        // its calls wait for a server that will not answer
        os::detach(&point)?;
    }
    record.forget();
    let left = not_in_s3(&record.cache).unwrap_or_default();
    output::print(&format!("unmounted {}", record.point.display()))?;
    if left > 0 {
        eprintln!(
            "fasts3: {} not in S3 yet: they go up when {} is mounted or served again",
            count(left, "change"),
            record.bucket
        );
    }
    Ok(())
}

/// The record of what is mounted at `point`.
/// # Errors
/// Nothing is, or it is none of ours.
fn find(point: &Path) -> anyhow::Result<Record> {
    let shown = point.display();
    let Some(entry) = mount::mounted_at(point)? else { bail!("nothing is mounted on {shown}") };
    match record::find(point).filter(|record| record.is_of(&entry)) {
        Some(record) => Ok(record),
        None => {
            bail!("{shown} was not mounted by `fasts3 mount` (it is {}): use the system's own umount", entry.source)
        }
    }
}

fn unmount(point: &Path, force: bool) -> anyhow::Result<()> {
    match os::unmount(point) {
        Err(UnmountError::Busy { .. }) if force => {
            os::flush(point).context("the client cannot write what it holds back")?;
            Ok(os::detach(point)?)
        }
        Err(error @ UnmountError::Busy { .. }) => bail!("{error}: end that first, or give --force"),
        done => Ok(done?),
    }
}

/// Waits until the server of `record` has ended.
async fn ended(record: &Record) -> anyhow::Result<()> {
    let start = Instant::now();
    while is_served(&record.cache) {
        if start.elapsed() > PATIENCE {
            bail!("unmounted, but the server of {} still runs: see its log", record.cache.display());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Changes in the journal of a cache directory that no server has; `None` when one has it after all.
fn not_in_s3(cache: &Path) -> Option<u64> {
    let dir = CacheDir::open(cache).ok()?;
    let index = fsck::open_index(&dir.index(), Clock::system()).ok()?;
    let count = || -> Result<u64, IndexError> {
        let (mut total, mut after) = (0, Ino(0));
        loop {
            let rows = index.pending_rows(after, BATCH)?;
            let Some((last, _)) = rows.last() else { return Ok(total) };
            (after, total) = (*last, total + rows.len() as u64);
        }
    };
    count().ok()
}
