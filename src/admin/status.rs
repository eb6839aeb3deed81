//! The status of a server: what `status --json`, `/status`, the page and the metrics say.
//! Invariant: fields are added, never renamed or removed, and a missing one reads as its default, so that
//! commands and servers of different versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::State;
use crate::nfs;
use crate::notify::SourceState;
use crate::revalidate::{MirrorProgress, SweepProgress};
use crate::store::RequestKind;
use crate::writeback::Failure;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the server.
    pub version: String,
    /// Bucket.
    pub bucket: String,
    /// Mounted prefix: empty, or ending in `/`.
    pub prefix: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether the mirror is off.
    pub lazy: bool,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Files known.
    pub objects: u64,
    /// Directories known.
    pub dirs: u64,
    /// Sum of the sizes of the files known, in bytes.
    pub bytes: u64,
    /// Bytes of objects on the cache disk.
    pub bytes_cached: u64,
    /// How many of those there may be.
    pub cache_limit: u64,
    /// The background copy of the bucket.
    pub mirror: MirrorProgress,
    /// The listing that finds what events have missed.
    pub sweep: SweepProgress,
    /// Checks behind answers (F7).
    pub fresh: Fresh,
    /// Changes that are not in S3 yet.
    pub journal: Journal,
    /// Files that both sides changed.
    pub conflicts: u64,
    /// Requests to S3.
    pub s3: S3,
    /// Calls from clients.
    pub nfs: Nfs,
    /// Locks of clients.
    pub locks: Locks,
    /// Word from S3 of changes.
    pub events: Events,
    /// Other servers of this bucket.
    pub peers: Vec<String>,
}

/// Checks behind answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fresh {
    /// Checks made.
    pub checks: u64,
    /// Checks that found no change.
    pub hits: u64,
    /// Checks that found a change.
    pub changes: u64,
    /// Answers that may have been outdated: at most so many.
    pub stale_served: u64,
    /// The longest that one of them can have been outdated.
    pub max_stale_ms: u64,
    /// Checks waiting.
    pub queued: u64,
    /// Those of them that wait for the budget.
    pub held: u64,
    /// Checks under way.
    pub in_flight: u64,
    /// Checks dropped because too many were waiting.
    pub dropped: u64,
}

/// Changes that are not in S3 yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// How many.
    pub pending: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest_s: u64,
    /// How many failed at the last attempt.
    pub failed: u64,
    /// The first of those, and why.
    pub failures: Vec<Failure>,
    /// Objects of renamed directories that are still to be copied.
    pub moving: u64,
}

/// So many failures are told with their reasons: enough to see what is wrong.
const FAILURES_TOLD: usize = 20;

/// Requests to S3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct S3 {
    /// By kind.
    pub requests_by_kind: BTreeMap<String, u64>,
    /// Failed ones.
    pub errors: u64,
    /// Those answered SlowDown.
    pub throttled: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
    /// About what they cost since the start, in US dollars, with those to a queue of events.
    pub cost_usd: f64,
    /// About what those of the last hour cost.
    pub cost_usd_hour: f64,
    /// About what those of each kind cost since the start.
    pub cost_usd_by_kind: BTreeMap<String, f64>,
    /// What they may cost; nothing without `--s3-budget`.
    pub budget: Option<BudgetStatus>,
}

/// What requests may cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetStatus {
    /// In a day, in US dollars.
    pub usd_day: f64,
    /// What is left of it at the moment for work behind the answers; below zero when clients and uploads spent more.
    pub usd_left: f64,
    /// For how long that work has been slowed; nothing while it is not.
    pub slow_s: Option<u64>,
}

/// Calls from clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nfs {
    /// Addresses that are connected.
    pub clients: u64,
    /// Their connections.
    pub connections: u64,
    /// Calls by procedure: `getattr`, `mount.mnt`.
    pub ops_by_proc: BTreeMap<String, u64>,
}

/// Locks of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locks {
    /// Whether any are given.
    pub enabled: bool,
    /// Whether only those get locks who had them before the restart.
    pub grace: bool,
    /// Byte ranges that are locked.
    pub held: u64,
    /// Files opened so that others may not.
    pub shares: u64,
    /// Clients that have some, or wait for one.
    pub hosts: u64,
    /// Locks that somebody waits for.
    pub waiting: u64,
}

/// Word from S3 of changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Where it comes from.
    pub source: Option<String>,
    /// Whether it can be relied on.
    pub healthy: bool,
    /// How late it is.
    pub lag_ms: Option<u64>,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Changes that were told.
    pub hints: u64,
    /// Those that told what was here already: mostly our own.
    pub echoes: u64,
    /// Those that came after a later one of their key.
    pub outdated: u64,
    /// Changes found by looking, which should have been told.
    pub missed: u64,
    /// Checks that were not made because changes are told.
    pub checks_saved: u64,
    /// What they would have cost at most, in US dollars: a HEAD each.
    pub saved_usd: f64,
    /// Requests to a queue.
    pub requests: u64,
    /// Each source by itself.
    pub sources: Vec<SourceState>,
}

/// Asks all rooms.
pub(super) fn collect(state: &State) -> Status {
    let (counts, usage, config) = (state.index.counts(), state.content.usage(), &state.config);
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        bucket: config.s3.bucket.clone(),
        prefix: config.s3.prefix.clone(),
        uptime_s: state.clock.now().since(state.started).as_secs(),
        lazy: config.lazy,
        read_only: config.read_only,
        objects: counts.files,
        dirs: counts.dirs,
        bytes: counts.bytes,
        bytes_cached: usage.bytes,
        cache_limit: usage.limit,
        mirror: state.revalidator.mirror_progress(),
        sweep: state.revalidator.sweep_progress(),
        fresh: fresh(state),
        journal: journal(state),
        conflicts: state.index.conflicts().map_or(0, |conflicts| conflicts.len() as u64),
        s3: s3(state),
        nfs: nfs(state),
        locks: locks(state),
        events: events(state),
        peers: state.peers.iter().flat_map(|peers| peers.state().servers).map(|peer| peer.host).collect(),
    }
}

fn fresh(state: &State) -> Fresh {
    let stats = state.revalidator.stats();
    Fresh {
        checks: stats.checks,
        hits: stats.hits,
        changes: stats.changes,
        stale_served: stats.stale_served,
        max_stale_ms: stats.max_stale_ms,
        queued: stats.queued,
        held: stats.held,
        in_flight: stats.in_flight,
        dropped: stats.dropped,
    }
}

fn events(state: &State) -> Events {
    let (sources, counts) = (state.health.sources(), state.intake.counts());
    let spared = state.revalidator.stats().spared;
    let names: Vec<_> = sources.iter().map(|source| source.origin.name()).collect();
    Events {
        source: (!names.is_empty()).then(|| names.join(", ")),
        healthy: state.health.since().is_some(),
        lag_ms: sources.iter().filter_map(|source| source.lag).max().map(|lag| lag.as_millis() as u64),
        error: sources.into_iter().find_map(|source| source.error),
        hints: counts.hints,
        echoes: counts.echoes,
        outdated: counts.outdated,
        missed: state.health.missed_events(),
        checks_saved: spared,
        saved_usd: (RequestKind::Head.price() * spared).to_f64(),
        requests: state.requests.snapshot().queue,
        sources: state.sources.iter().map(|source| source.state()).collect(),
    }
}

fn journal(state: &State) -> Journal {
    let Some(writeback) = &state.writeback else { return Journal::default() };
    let mut progress = writeback.progress_lately();
    let failed = progress.failures.len() as u64;
    progress.failures.truncate(FAILURES_TOLD);
    Journal {
        pending: progress.pending,
        bytes: progress.bytes,
        oldest_s: progress.oldest.as_secs(),
        failed,
        failures: progress.failures,
        moving: progress.moving,
    }
}

fn s3(state: &State) -> S3 {
    let (requests, now) = (state.requests.snapshot(), state.clock.now());
    let budget = state.requests.budget().state().map(|budget| BudgetStatus {
        usd_day: budget.day,
        usd_left: budget.left,
        slow_s: budget.slow_since.map(|since| now.since(since).as_secs()),
    });
    let by_kind = requests.cost_by_kind.into_iter();
    S3 {
        requests_by_kind: requests.by_kind.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect(),
        errors: requests.errors,
        throttled: requests.throttled,
        bytes_in: requests.bytes_in,
        bytes_out: requests.bytes_out,
        cost_usd: requests.cost.to_f64(),
        cost_usd_hour: requests.cost_last_hour.to_f64(),
        cost_usd_by_kind: by_kind.map(|(kind, cost)| (kind.to_owned(), cost.to_f64())).collect(),
        budget,
    }
}

fn nfs(state: &State) -> Nfs {
    let calls = state.calls.snapshot();
    let mut ops_by_proc = BTreeMap::new();
    for (program, procedure, n) in calls.calls {
        *ops_by_proc.entry(procedure_name(program, procedure)).or_default() += n;
    }
    Nfs { clients: calls.clients as u64, connections: calls.connections as u64, ops_by_proc }
}

fn locks(state: &State) -> Locks {
    let Some(locks) = &state.locks else { return Locks::default() };
    let counts = locks.counts();
    Locks {
        enabled: true,
        grace: locks.is_in_grace(),
        held: counts.locks as u64,
        shares: counts.shares as u64,
        hosts: counts.hosts as u64,
        waiting: counts.waiting as u64,
    }
}

/// RFC 1813 section 5.2.
const MOUNT: [&str; 6] = ["null", "mnt", "dump", "umnt", "umntall", "export"];
/// RFC 1833 section 3.
const PORTMAP: [&str; 6] = ["null", "set", "unset", "getport", "dump", "callit"];

/// `read` for NFS; other programs have their name in front.
fn procedure_name(program: u32, procedure: u32) -> String {
    let (prefix, names): (_, &[&str]) = match program {
        nfs::PROGRAM => ("", &nfs::PROCEDURES),
        100_005 => ("mount.", &MOUNT),
        100_000 => ("portmap.", &PORTMAP),
        nfs::nlm::PROGRAM => ("nlm.", &nfs::nlm::PROCEDURES),
        nfs::nsm::PROGRAM => ("nsm.", &nfs::nsm::PROCEDURES),
        _ => return format!("{program}.{procedure}"),
    };
    match names.get(procedure as usize) {
        Some(name) => format!("{prefix}{name}"),
        None => format!("{prefix}{procedure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_fields_that_scripts_rely_on() {
        let json = serde_json::to_value(Status::default()).expect("a status is JSON");
        for pointer in [
            "/bucket",
            "/prefix",
            "/uptime_s",
            "/objects",
            "/bytes_cached",
            "/cache_limit",
            "/mirror/done",
            "/mirror/total",
            "/mirror/bytes_done",
            "/mirror/bytes_total",
            "/sweep/every_s",
            "/sweep/pages",
            "/sweep/last_pages",
            "/sweep/ended_s",
            "/sweep/changes",
            "/fresh/checks",
            "/fresh/hits",
            "/fresh/stale_served",
            "/fresh/max_stale_ms",
            "/journal/pending",
            "/journal/bytes",
            "/journal/oldest_s",
            "/journal/failed",
            "/conflicts",
            "/s3/requests_by_kind",
            "/s3/errors",
            "/s3/cost_usd",
            "/s3/cost_usd_hour",
            "/s3/cost_usd_by_kind",
            "/s3/budget",
            "/fresh/held",
            "/events/saved_usd",
            "/events/requests",
            "/nfs/clients",
            "/nfs/ops_by_proc",
            "/locks/held",
            "/locks/hosts",
            "/locks/waiting",
            "/events/source",
            "/events/healthy",
            "/events/lag_ms",
            "/events/hints",
            "/events/echoes",
            "/events/outdated",
            "/events/missed",
            "/events/checks_saved",
            "/peers",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn status_of_another_version_is_understood() {
        let status: Status = serde_json::from_str(r#"{"bucket":"b","novelty":1,"fresh":{"checks":2}}"#).expect("JSON");
        assert_eq!((status.bucket.as_str(), status.fresh.checks, status.nfs.clients), ("b", 2, 0));
    }

    #[test]
    fn procedures_have_names() {
        assert_eq!((procedure_name(100_003, 6), procedure_name(100_003, 21)), ("read".into(), "commit".into()));
        assert_eq!(
            (procedure_name(100_005, 1), procedure_name(100_000, 3)),
            ("mount.mnt".into(), "portmap.getport".into())
        );
        assert_eq!(
            (procedure_name(100_021, 22), procedure_name(100_024, 6)),
            ("nlm.nm_lock".into(), "nsm.notify".into())
        );
        assert_eq!((procedure_name(100_003, 22), procedure_name(100_227, 0)), ("22".into(), "100227.0".into()));
    }
}
