//! `fasts3 fsck`: check the cache directory, of a running server or of none.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::ServerArgs;
use super::output::{self, count};
use crate::config;
use crate::content::{CacheDir, CacheLimit, Content, DirError};
use crate::fsck::{self, Options, Problem, Report};
use crate::index::{Defaults, Index, IndexOptions, Rescued};
use crate::types::Clock;

/// Flags of `fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Compare with S3, too: lists the whole bucket, one request for 1,000 keys
    #[arg(long, env = "FASTS3_REMOTE", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub remote: bool,

    /// Repair what can be repaired; what only this disk has is never removed
    #[arg(long, env = "FASTS3_REPAIR", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub repair: bool,

    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Checks, prints, and fails when something is left that is not as it should be.
pub(super) async fn run(args: FsckArgs) -> anyhow::Result<()> {
    let options = Options { remote: args.remote, repair: args.repair };
    let report = check(&args.server, options).await?;
    if args.server.json {
        output::print_json(&report)?;
    } else {
        let rescued = report.rescued.iter().map(|Rescued { name, what }| format!("kept as {name}: {what}"));
        let lines: Vec<String> =
            report.problems.iter().map(describe).chain(rescued).chain([summary(&report)]).collect();
        output::print(&lines.join("\n"))?;
    }
    match report.found - report.repaired.min(report.found) {
        0 => Ok(()),
        left if options.repair => bail!("{} could not be repaired", count(left, "problem")),
        left => bail!("{} found; `fasts3 fsck --repair` repairs what can be repaired", count(left, "problem")),
    }
}

/// By the server that has the cache directory, or here where none has.
async fn check(server: &ServerArgs, options: Options) -> anyhow::Result<Report> {
    let cache = &server.cache()?;
    if !cache.join("identity").is_file() {
        bail!("{} is no cache directory of fasts3: give the --cache of `serve`", cache.display());
    }
    match CacheDir::open(cache) {
        Ok(_) if options.remote => {
            let cache = cache.display();
            bail!("--remote needs a running server: start one with `fasts3 serve s3://BUCKET --cache {cache}`")
        }
        Ok(dir) => check_here(&dir, options).await,
        Err(DirError::InUse { .. }) => {
            let Options { remote, repair } = options;
            let told = server.client()?.post(&format!("/fsck?remote={remote}&repair={repair}")).await?;
            serde_json::from_value(told).context("the server is of another version")
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the rooms as a server does, without S3.
async fn check_here(dir: &CacheDir, options: Options) -> anyhow::Result<Report> {
    let clock = Clock::system();
    let index = Arc::new(open_index(&dir.index(), clock.clone())?);
    let content = Content::open(dir.path(), index.clone(), CacheLimit::Bytes(u64::MAX), clock);
    let content = content.with_context(|| format!("cannot use {}", dir.path().display()))?;
    let report = fsck::run(&index, &content, None, options).await;
    index.close().await;
    Ok(report)
}

/// Opens the index of a server that does not run.
pub(super) fn open_index(path: &Path, clock: Clock) -> anyhow::Result<Index> {
    // every row is read about once
    let options = IndexOptions { cached_inodes: 1_024, cached_names: 1_024, page_cache_bytes: 64 << 20 };
    // how objects without attributes are shown is nothing that is checked
    let defaults = Defaults { uid: 0, gid: 0, file_mode: config::FILE_MODE, dir_mode: config::DIR_MODE };
    Ok(Index::open(path, options, defaults, clock)?)
}

/// One line.
fn describe(Problem { what, key, repaired }: &Problem) -> String {
    let key = key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
    let repaired = if *repaired { " (repaired)" } else { "" };
    format!("{key}{what}{repaired}")
}

fn summary(report: &Report) -> String {
    let mut checked = vec![count(report.inodes, "inode"), count(report.journal, "pending change")];
    checked.push(count(report.files, "file"));
    if report.keys > 0 {
        checked.push(count(report.keys, "object") + " of S3");
    }
    let untold = report.found - report.problems.len() as u64;
    let untold = if untold > 0 { format!(", {} of them not told", output::number(untold)) } else { String::new() };
    let problems = match report.found {
        0 => "no problems".to_owned(),
        found => format!("{}{untold}, {} repaired", count(found, "problem"), output::number(report.repaired)),
    };
    format!("{} checked: {problems}", checked.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_and_all_of_them_a_sum() {
        let problem = Problem { what: "is lost".into(), key: Some("a/b".into()), repaired: true };
        assert_eq!(describe(&problem), "a/b: is lost (repaired)");
        assert_eq!(describe(&Problem { key: None, repaired: false, ..problem.clone() }), "is lost");
        let mut report = Report { inodes: 1, files: 2, ..Report::default() };
        assert_eq!(summary(&report), "1 inode, 0 pending changes, 2 files checked: no problems");
        (report.keys, report.found, report.repaired, report.problems) = (3_000, 5, 1, vec![problem]);
        let told = "1 inode, 0 pending changes, 2 files, 3,000 objects of S3 checked: 5 problems, 4 of them not told, 1 repaired";
        assert_eq!(summary(&report), told);
    }
}
