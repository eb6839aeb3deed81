//! `/metrics`: the status in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::status::Status;

/// The whole page.
pub(super) fn render(status: &Status, stale: &[(u64, u64)]) -> String {
    let mut page = Page(String::new());
    page.info(status);
    page.store(status);
    page.changes(status);
    page.fresh(status, stale);
    page.traffic(status);
    page.events(status);
    page.0
}

struct Page(String);

impl Page {
    fn info(&mut self, status: &Status) {
        let labels = [("bucket", &status.bucket), ("prefix", &status.prefix), ("version", &status.version)];
        let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).join(",");
        self.head("fasts3_info", "gauge", "What is served.");
        self.line(&format!("fasts3_info{{{labels}}}"), 1);
        self.one("fasts3_uptime_seconds", "gauge", "Time since the start.", status.uptime_s);
    }

    fn store(&mut self, status: &Status) {
        let mirror = &status.mirror;
        self.one("fasts3_objects", "gauge", "Files known.", status.objects);
        self.one("fasts3_objects_bytes", "gauge", "Sum of their sizes.", status.bytes);
        self.one("fasts3_cache_bytes", "gauge", "Bytes of objects on the cache disk.", status.bytes_cached);
        self.one("fasts3_cache_limit_bytes", "gauge", "How many of those there may be.", status.cache_limit);
        self.one("fasts3_mirror_running", "gauge", "Whether the mirror is at work.", u8::from(mirror.running));
        self.one("fasts3_mirror_objects_done", "gauge", "Files that the mirror has here.", mirror.done);
        self.one("fasts3_mirror_objects", "gauge", "Files that it wants here.", mirror.total);
        self.one("fasts3_mirror_bytes_done", "gauge", "Bytes that the mirror has here.", mirror.bytes_done);
        self.one("fasts3_mirror_bytes", "gauge", "Bytes that it wants here.", mirror.bytes_total);
    }

    fn changes(&mut self, status: &Status) {
        self.one("fasts3_journal_pending", "gauge", "Changes that are not in S3 yet.", status.journal.pending);
        self.one("fasts3_journal_bytes", "gauge", "Their bytes.", status.journal.bytes);
        self.one("fasts3_journal_oldest_seconds", "gauge", "Age of the oldest.", status.journal.oldest_s);
        self.one("fasts3_journal_failed", "gauge", "Changes whose last attempt failed.", status.journal.failed);
        self.one(
            "fasts3_journal_moving",
            "gauge",
            "Objects of renamed directories still to copy.",
            status.journal.moving,
        );
        self.one("fasts3_conflicts", "gauge", "Files that both sides changed.", status.conflicts);
    }

    fn fresh(&mut self, status: &Status, stale: &[(u64, u64)]) {
        let fresh = &status.fresh;
        self.one("fasts3_checks_total", "counter", "Checks made behind answers.", fresh.checks);
        self.one("fasts3_check_hits_total", "counter", "Checks that found no change.", fresh.hits);
        self.one("fasts3_changes_total", "counter", "Checks that found a change.", fresh.changes);
        self.one("fasts3_checks_dropped_total", "counter", "Checks dropped: too many were waiting.", fresh.dropped);
        self.one("fasts3_checks_queued", "gauge", "Checks waiting.", fresh.queued);
        self.one("fasts3_checks_in_flight", "gauge", "Checks under way.", fresh.in_flight);
        self.one("fasts3_stale_answers_total", "counter", "Answers that may have been outdated.", fresh.stale_served);
        self.one(
            "fasts3_stale_max_milliseconds",
            "gauge",
            "The longest that one can have been outdated.",
            fresh.max_stale_ms,
        );
        self.histogram("fasts3_stale_seconds", "Changes by how long the old version can have been served.", stale);
    }

    fn traffic(&mut self, status: &Status) {
        let (s3, nfs) = (&status.s3, &status.nfs);
        self.many("fasts3_s3_requests_total", "Requests to S3.", "kind", &s3.requests_by_kind);
        self.one("fasts3_s3_errors_total", "counter", "Requests that failed.", s3.errors);
        self.one("fasts3_s3_throttled_total", "counter", "Requests answered SlowDown.", s3.throttled);
        self.one("fasts3_s3_received_bytes_total", "counter", "Bytes of bodies received.", s3.bytes_in);
        self.one("fasts3_s3_sent_bytes_total", "counter", "Bytes of bodies sent.", s3.bytes_out);
        self.cost(status);
        self.one("fasts3_nfs_clients", "gauge", "Addresses that are connected.", nfs.clients);
        self.one("fasts3_nfs_connections", "gauge", "Their connections.", nfs.connections);
        self.many("fasts3_nfs_calls_total", "Calls from clients.", "procedure", &nfs.ops_by_proc);
        let locks = &status.locks;
        self.one("fasts3_locks", "gauge", "Byte ranges that clients have locked.", locks.held);
        self.one("fasts3_lock_shares", "gauge", "Files that clients keep others from.", locks.shares);
        self.one("fasts3_lock_hosts", "gauge", "Clients with locks.", locks.hosts);
        self.one("fasts3_locks_waiting", "gauge", "Locks that somebody waits for.", locks.waiting);
        self.one("fasts3_locks_grace", "gauge", "Whether only those get locks who had them.", u8::from(locks.grace));
    }

    fn cost(&mut self, status: &Status) {
        let s3 = &status.s3;
        self.one("fasts3_s3_cost_dollars_total", "counter", "About what the requests cost.", s3.cost_usd);
        self.one("fasts3_s3_cost_hour_dollars", "gauge", "About what those of the last hour cost.", s3.cost_usd_hour);
        if let Some(budget) = &s3.budget {
            self.one("fasts3_s3_budget_dollars", "gauge", "What a day's requests may cost.", budget.usd_day);
            self.one("fasts3_s3_budget_left_dollars", "gauge", "Left for work behind the answers.", budget.usd_left);
            let is_slow = u8::from(budget.slow_s.is_some());
            self.one("fasts3_s3_budget_slow", "gauge", "Whether that work is slowed for it.", is_slow);
            self.one("fasts3_checks_held", "gauge", "Checks that wait for the budget.", status.fresh.held);
        }
    }

    fn events(&mut self, status: &Status) {
        let events = &status.events;
        self.one("fasts3_events_healthy", "gauge", "Whether S3 tells of changes.", u8::from(events.healthy));
        if let Some(lag) = events.lag_ms {
            self.one("fasts3_events_lag_milliseconds", "gauge", "How late the last event was.", lag);
        }
        self.one("fasts3_events_hints_total", "counter", "Changes that were told.", events.hints);
        self.one("fasts3_events_echoes_total", "counter", "Those that told what was here.", events.echoes);
        self.one("fasts3_events_outdated_total", "counter", "Those that came after a later one.", events.outdated);
        self.one("fasts3_events_missed_total", "counter", "Changes found that nobody told.", events.missed);
        let sweep = &status.sweep;
        self.one("fasts3_sweep_passes_total", "counter", "Times that the sweep has listed the bucket.", sweep.passes);
        self.one("fasts3_sweep_changes_total", "counter", "Changes that it found, told of or not.", sweep.changes);
        self.one("fasts3_sweep_pages", "gauge", "Pages that it has listed in this pass.", sweep.pages);
        self.one("fasts3_sweep_last_pages", "gauge", "Pages that the last whole pass listed.", sweep.last_pages);
        self.one("fasts3_sweep_last_seconds", "gauge", "How long that took.", sweep.last_took_s);
        self.one("fasts3_checks_saved_total", "counter", "Checks not made for events.", events.checks_saved);
        self.one("fasts3_saved_dollars_total", "counter", "What these would have cost.", events.saved_usd);
        self.one("fasts3_events_requests_total", "counter", "Requests to a queue of events.", events.requests);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, series: &str, value: impl Display) {
        writeln!(self.0, "{series} {value}").expect("a String takes what it is given");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, value);
    }

    fn many(&mut self, name: &str, help: &str, label: &str, counts: &BTreeMap<String, u64>) {
        self.head(name, "counter", help);
        for (value, n) in counts {
            self.line(&format!("{name}{{{label}=\"{}\"}}", escaped(value)), n);
        }
    }

    /// `buckets`: upper bounds in milliseconds with the counts between them, in order. Prometheus wants seconds
    /// and counts from zero up; the sum is not kept.
    fn histogram(&mut self, name: &str, help: &str, buckets: &[(u64, u64)]) {
        self.head(name, "histogram", help);
        let mut total = 0;
        for &(upper_ms, n) in buckets {
            total += n;
            if upper_ms != u64::MAX {
                self.line(&format!("{name}_bucket{{le=\"{}\"}}", upper_ms as f64 / 1000.0), total);
            }
        }
        self.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), total);
        self.line(&format!("{name}_count"), total);
    }
}

/// A label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::super::status::BudgetStatus;
    use super::*;

    #[test]
    fn every_line_is_a_sample_or_a_comment() {
        let mut status = Status { bucket: "b\"\n".into(), ..Status::default() };
        status.s3.requests_by_kind = [("head".into(), 3)].into();
        (status.s3.bytes_out, status.conflicts) = (11, 12);
        (status.journal.pending, status.journal.bytes, status.journal.oldest_s) = (5, 6, 7);
        (status.journal.failed, status.journal.moving) = (8, 9);
        status.nfs.ops_by_proc = [("read".into(), 4)].into();
        (status.locks.held, status.locks.waiting) = (13, 14);
        (status.s3.cost_usd, status.s3.cost_usd_hour, status.fresh.held) = (1.25, 0.5, 15);
        status.s3.budget = Some(BudgetStatus { usd_day: 5.0, usd_left: -0.000_000_4, slow_s: Some(7) });
        (status.events.checks_saved, status.events.saved_usd, status.events.requests) = (16, 0.000_006_4, 17);
        (status.sweep.passes, status.sweep.changes, status.sweep.last_pages) = (18, 19, 20);
        let page = render(&status, &[(10, 1), (100, 2), (u64::MAX, 3)]);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("two columns");
            assert!(series.starts_with("fasts3_") && value.parse::<f64>().is_ok(), "{line}");
        }
        for line in [
            r#"fasts3_info{bucket="b\"\n",prefix="",version=""} 1"#,
            r#"fasts3_s3_requests_total{kind="head"} 3"#,
            r#"fasts3_nfs_calls_total{procedure="read"} 4"#,
            r#"fasts3_stale_seconds_bucket{le="0.01"} 1"#,
            r#"fasts3_stale_seconds_bucket{le="0.1"} 3"#,
            r#"fasts3_stale_seconds_bucket{le="+Inf"} 6"#,
            "fasts3_stale_seconds_count 6",
            "fasts3_journal_pending 5",
            "fasts3_journal_bytes 6",
            "fasts3_journal_oldest_seconds 7",
            "fasts3_journal_failed 8",
            "fasts3_journal_moving 9",
            "fasts3_conflicts 12",
            "fasts3_s3_sent_bytes_total 11",
            "fasts3_s3_cost_dollars_total 1.25",
            "fasts3_s3_cost_hour_dollars 0.5",
            "fasts3_s3_budget_dollars 5",
            "fasts3_s3_budget_left_dollars -0.0000004",
            "fasts3_s3_budget_slow 1",
            "fasts3_checks_held 15",
            "fasts3_checks_saved_total 16",
            "fasts3_saved_dollars_total 0.0000064",
            "fasts3_events_requests_total 17",
            "fasts3_sweep_passes_total 18",
            "fasts3_sweep_changes_total 19",
            "fasts3_sweep_last_pages 20",
            "fasts3_locks 13",
            "fasts3_locks_waiting 14",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} not in\n{page}");
        }
    }
}
