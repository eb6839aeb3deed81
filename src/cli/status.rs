//! `fasts3 status`: what a running server has and does.

use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::output::{self, count, number, size};
use super::{ServerArgs, progress};
use crate::admin::status::Status;

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Asks for the status and prints it.
pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let status = args.server.client()?.get("/status").await?;
    if args.server.json {
        return output::print_json(&status);
    }
    let status: Status = serde_json::from_value(status).context("the server is of another version: try --json")?;
    output::print(describe(&status).trim_end())
}

/// The status as a short table.
fn describe(status: &Status) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let mut text = format!("s3://{}/{}  up {uptime}, fasts3 {}\n", status.bucket, status.prefix, status.version);
    for (title, line) in [
        ("objects", objects(status)),
        ("cache", format!("{} of {}", size(status.bytes_cached), size(status.cache_limit))),
        ("mirror", mirror(status)),
        ("fresh", fresh(status)),
        ("s3", s3(status)),
        ("budget", budget(status)),
        ("nfs", nfs(status)),
        ("locks", locks(status)),
        ("journal", journal(status)),
        ("events", events(status)),
        ("sweep", sweep(status)),
    ] {
        if line.is_empty() {
            continue;
        }
        text.push_str(&format!("  {title:<8} {line}\n"));
    }
    text
}

fn objects(status: &Status) -> String {
    format!("{} in {}, {}", count(status.objects, "file"), count(status.dirs, "directory"), size(status.bytes))
}

fn mirror(status: &Status) -> String {
    if status.lazy {
        return "off (--lazy): files come when they are read".into();
    }
    let mirror = &status.mirror;
    format!("{}, {}", if mirror.running { "running" } else { "at rest" }, progress::describe(mirror))
}

fn fresh(status: &Status) -> String {
    let f = &status.fresh;
    let stale = match f.stale_served {
        0 => "no stale answer".into(),
        n => format!("{} (the oldest by {} ms)", count(n, "stale answer"), number(f.max_stale_ms)),
    };
    let waiting = f.queued + f.in_flight;
    format!("{}, {} found, {stale}, {} waiting", count(f.checks, "check"), count(f.changes, "change"), number(waiting))
}

fn s3(status: &Status) -> String {
    let s3 = &status.s3;
    let requests: u64 = s3.requests_by_kind.values().sum();
    format!(
        "{} (about ${:.4}, ${:.4} in the last hour), {} in, {} out, {}, {} throttled{}",
        count(requests, "request"),
        s3.cost_usd,
        s3.cost_usd_hour,
        size(s3.bytes_in),
        size(s3.bytes_out),
        count(s3.errors, "error"),
        number(s3.throttled),
        most(s3.requests_by_kind.iter()),
    )
}

/// Empty: there is none.
fn budget(status: &Status) -> String {
    let Some(budget) = &status.s3.budget else { return String::new() };
    let now = match budget.slow_s {
        None => format!("${:.4} of it left for work behind the answers", budget.usd_left.max(0.0)),
        Some(seconds) => format!(
            "used up for now: work behind the answers has been slow for {}, {}",
            humantime::format_duration(Duration::from_secs(seconds)),
            match status.fresh.held {
                1 => "1 check waits".into(),
                n => format!("{} checks wait", number(n)),
            },
        ),
    };
    format!("${:.2} a day, {now}", budget.usd_day)
}

fn nfs(status: &Status) -> String {
    let nfs = &status.nfs;
    format!(
        "{} on {}{}",
        count(nfs.clients, "client"),
        count(nfs.connections, "connection"),
        most(nfs.ops_by_proc.iter())
    )
}

fn locks(status: &Status) -> String {
    let locks = &status.locks;
    if !locks.enabled {
        return "none are given (--no-locks)".into();
    }
    let shares = if locks.shares > 0 { format!(", {}", count(locks.shares, "share")) } else { String::new() };
    let grace = if locks.grace { ", only old ones are given until the grace period ends" } else { "" };
    let (held, hosts, waiting) = (number(locks.held), count(locks.hosts, "client"), number(locks.waiting));
    format!("{held} held{shares}, {waiting} waited for, {hosts}{grace}")
}

/// The largest counts: `: read 9, lookup 7`; nothing when there are none.
fn most<'a>(counts: impl Iterator<Item = (&'a String, &'a u64)>) -> String {
    let mut counts: Vec<_> = counts.filter(|(_, n)| **n > 0).collect();
    counts.sort_by(|a, b| b.1.cmp(a.1));
    let list: Vec<_> = counts.iter().take(5).map(|(name, n)| format!("{name} {}", number(**n))).collect();
    if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) }
}

fn journal(status: &Status) -> String {
    let journal = &status.journal;
    if journal.pending == 0 && status.conflicts == 0 {
        return "everything is in S3".into();
    }
    let moving =
        if journal.moving > 0 { format!(", {} to be moved", count(journal.moving, "object")) } else { String::new() };
    let mut line = format!(
        "{} not in S3 yet ({}, the oldest for {} s, {} failed){moving}, {}",
        count(journal.pending, "change"),
        size(journal.bytes),
        journal.oldest_s,
        number(journal.failed),
        count(status.conflicts, "conflict"),
    );
    for failure in &journal.failures {
        line.push_str(&format!("\n           {}: {}", failure.key, failure.why));
    }
    line
}

fn events(status: &Status) -> String {
    let events = &status.events;
    let saved = match events.checks_saved {
        0 => String::new(),
        n => format!(", {} saved (about ${:.4})", count(n, "check"), events.saved_usd),
    };
    let missed = match events.missed {
        0 => String::new(),
        n => format!(", {} missed", count(n, "change")),
    };
    match (&events.source, events.healthy) {
        (None, _) => "none: S3 is asked behind the answers".into(),
        (Some(source), true) => format!("from {source}, {} ms behind{missed}{saved}", events.lag_ms.unwrap_or(0)),
        (Some(source), false) => {
            let why = events.error.as_ref().map(|error| format!("\n           {error}")).unwrap_or_default();
            format!("{source} is not healthy: S3 is asked behind the answers{missed}{saved}{why}")
        }
    }
}

fn sweep(status: &Status) -> String {
    let sweep = &status.sweep;
    if sweep.every_s == 0 {
        return "off (--sweep)".into();
    }
    let long = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let now = match sweep.running {
        true if sweep.passes > 0 => format!("at page {} of about {}", number(sweep.pages), number(sweep.last_pages)),
        true => format!("at page {}", number(sweep.pages)),
        false => "at rest".into(),
    };
    let last = match sweep.ended_s {
        Some(ago) => {
            let pages = count(sweep.last_pages, "page");
            format!("the last one of {pages} ended {} ago and took {}", long(ago), long(sweep.last_took_s))
        }
        None => "none is done yet".into(),
    };
    format!("every {}, {now}, {last}, {} found", long(sweep.every_s), count(sweep.changes, "change"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::BudgetStatus;

    #[test]
    fn status_is_a_short_table() {
        let mut status = Status { bucket: "media".into(), prefix: "a/".into(), uptime_s: 3725, ..Status::default() };
        (status.version, status.objects, status.dirs, status.bytes) = ("0.1.0".into(), 12345, 1, 3 << 30);
        (status.fresh.checks, status.fresh.stale_served, status.fresh.max_stale_ms) = (1000, 1, 140);
        status.s3.requests_by_kind = [("head".into(), 7), ("list".into(), 9000), ("get".into(), 0)].into();
        (status.s3.cost_usd, status.s3.cost_usd_hour) = (0.04521, 0.012);
        status.nfs.clients = 2;
        (status.locks.enabled, status.locks.held, status.locks.hosts) = (true, 3, 1);
        let text = describe(&status);
        for line in [
            "s3://media/a/  up 1h 2m 5s, fasts3 0.1.0\n",
            "  objects  12,345 files in 1 directory, 3.0 GiB\n",
            "  fresh    1,000 checks, 0 changes found, 1 stale answer (the oldest by 140 ms), 0 waiting\n",
            "  s3       9,007 requests (about $0.0452, $0.0120 in the last hour), 0 B in, 0 B out, 0 errors, 0 throttled: list 9,000, head 7\n",
            "  nfs      2 clients on 0 connections\n",
            "  locks    3 held, 0 waited for, 1 client\n",
            "  journal  everything is in S3\n",
            "  events   none: S3 is asked behind the answers\n",
            "  sweep    off (--sweep)\n",
        ] {
            assert!(text.contains(line), "{line}not in\n{text}");
        }
    }

    #[test]
    fn money_is_told_where_it_is_limited_or_saved() {
        let mut status = Status::default();
        assert!(!describe(&status).contains("budget"));
        status.s3.budget = Some(BudgetStatus { usd_day: 5.0, usd_left: 0.123, slow_s: None });
        assert!(describe(&status).contains("  budget   $5.00 a day, $0.1230 of it left for work behind the answers\n"));
        status.s3.budget = Some(BudgetStatus { usd_day: 0.5, usd_left: -0.1, slow_s: Some(120) });
        status.fresh.held = 1200;
        let slow = "$0.50 a day, used up for now: work behind the answers has been slow for 2m, 1,200 checks wait\n";
        assert!(describe(&status).contains(slow), "{}", describe(&status));
        (status.events.source, status.events.healthy) = (Some("sqs".into()), true);
        (status.events.checks_saved, status.events.saved_usd) = (12_000, 0.0048);
        let saved = "  events   from sqs, 0 ms behind, 12,000 checks saved (about $0.0048)\n";
        assert!(describe(&status).contains(saved), "{}", describe(&status));
    }

    #[test]
    fn sweep_says_how_far_it_is_and_what_it_found() {
        let mut status = Status::default();
        (status.sweep.every_s, status.sweep.running, status.sweep.pages) = (900, true, 3);
        assert!(describe(&status).contains("  sweep    every 15m, at page 3, none is done yet, 0 changes found\n"));
        (status.sweep.passes, status.sweep.last_pages, status.sweep.changes) = (1, 2000, 1);
        (status.sweep.ended_s, status.sweep.last_took_s) = (Some(61), 2000);
        (status.events.source, status.events.missed) = (Some("sqs".into()), 1);
        let text = describe(&status);
        let sweep = "every 15m, at page 3 of about 2,000, the last one of 2,000 pages ended 1m 1s ago and took 33m 20s, \
                     1 change found\n";
        assert!(text.contains(sweep) && text.contains("behind the answers, 1 change missed\n"), "{text}");
    }

    #[test]
    fn lazy_server_says_so() {
        let status = Status { lazy: true, ..Status::default() };
        assert!(describe(&status).contains("off (--lazy)"));
    }
}
