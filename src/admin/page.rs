//! The status page: one document, no script, nothing loaded from elsewhere; it asks for itself again every two seconds.

use bytesize::ByteSize;

use super::status::Status;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width"><title>fasts3</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; }
td { padding: .15rem 0; border-top: 1px solid #8883; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
progress { width: 100%; }
p { margin: .2rem 0; color: GrayText; }
</style></head><body>
"#;

/// The page of `status`.
pub(super) fn render(status: &Status) -> String {
    let mut page = Page(HEAD.into());
    page.title(status);
    page.cache(status);
    page.changes(status);
    page.fresh(status);
    page.traffic(status);
    page.0.push_str("<p><a href=\"/status\">status</a> · <a href=\"/metrics\">metrics</a></p>\n</body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn title(&mut self, status: &Status) {
        let (bucket, prefix) = (escaped(&status.bucket), escaped(&status.prefix));
        let uptime = humantime::format_duration(std::time::Duration::from_secs(status.uptime_s));
        let version = escaped(&status.version);
        self.0.push_str(&format!("<h1>s3://{bucket}/{prefix}</h1>\n<p>fasts3 {version}, up {uptime}</p>\n"));
    }

    fn cache(&mut self, status: &Status) {
        let mirror = &status.mirror;
        self.section("Cache");
        if !status.lazy && mirror.bytes_total > 0 {
            let (done, total) = (mirror.bytes_done, mirror.bytes_total);
            self.0.push_str(&format!("<progress max=\"{total}\" value=\"{done}\"></progress>\n"));
        }
        self.table(&[
            ("files", status.objects.to_string()),
            ("directories", status.dirs.to_string()),
            ("size of the files", size(status.bytes)),
            ("here", format!("{} of at most {}", size(status.bytes_cached), size(status.cache_limit))),
            ("mirror", mirror_line(status)),
        ]);
    }

    fn changes(&mut self, status: &Status) {
        let journal = &status.journal;
        self.section("Changes");
        if journal.pending == 0 && status.conflicts == 0 {
            self.0.push_str("<p>S3 has everything.</p>\n");
            return;
        }
        let oldest = humantime::format_duration(std::time::Duration::from_secs(journal.oldest_s));
        self.table(&[
            ("not in S3 yet", journal.pending.to_string()),
            ("bytes to send", size(journal.bytes)),
            ("the oldest waits for", oldest.to_string()),
            ("objects to move", journal.moving.to_string()),
            ("failed at the last try", journal.failed.to_string()),
            ("conflicts", status.conflicts.to_string()),
        ]);
        let failures: Vec<_> =
            journal.failures.iter().map(|failure| (failure.key.as_str(), failure.why.clone())).collect();
        if !failures.is_empty() {
            self.table(&failures);
        }
    }

    fn fresh(&mut self, status: &Status) {
        let fresh = &status.fresh;
        self.section("Freshness");
        self.table(&[
            ("checks behind answers", fresh.checks.to_string()),
            ("of which found a change", fresh.changes.to_string()),
            ("stale answers", fresh.stale_served.to_string()),
            ("the oldest was stale for", format!("{} ms", fresh.max_stale_ms)),
            ("checks waiting", (fresh.queued + fresh.in_flight).to_string()),
        ]);
    }

    fn traffic(&mut self, status: &Status) {
        let (s3, nfs) = (&status.s3, &status.nfs);
        self.section("S3");
        let mut rows: Vec<(&str, String)> = counts(&s3.requests_by_kind);
        rows.push(("errors, throttled", format!("{}, {}", s3.errors, s3.throttled)));
        rows.push(("received, sent", format!("{}, {}", size(s3.bytes_in), size(s3.bytes_out))));
        rows.push(("cost, about", format!("${:.4}", s3.cost_usd)));
        rows.push(("in the last hour", format!("${:.4}", s3.cost_usd_hour)));
        if let Some(budget) = &s3.budget {
            let slow = if budget.slow_s.is_some() { ", used up for now" } else { "" };
            rows.push(("budget", format!("${:.2} a day{slow}", budget.usd_day)));
        }
        self.table(&rows);
        self.section("NFS");
        let mut rows = vec![("clients, connections", format!("{}, {}", nfs.clients, nfs.connections))];
        rows.extend(counts(&nfs.ops_by_proc));
        self.table(&rows);
    }

    fn section(&mut self, title: &str) {
        self.0.push_str(&format!("<h2>{title}</h2>\n"));
    }

    fn table(&mut self, rows: &[(&str, String)]) {
        self.0.push_str("<table>\n");
        for (name, value) in rows {
            self.0.push_str(&format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(name), escaped(value)));
        }
        self.0.push_str("</table>\n");
    }
}

fn counts(counts: &std::collections::BTreeMap<String, u64>) -> Vec<(&str, String)> {
    counts.iter().map(|(name, n)| (name.as_str(), n.to_string())).collect()
}

fn mirror_line(status: &Status) -> String {
    let mirror = &status.mirror;
    match (status.lazy, mirror.running) {
        (true, _) => "off".into(),
        (false, true) => format!("{} of {} files", mirror.done, mirror.total),
        (false, false) => format!("at rest, {} of {} files", mirror.done, mirror.total),
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_shows_the_status_and_runs_nothing() {
        let mut status = Status { bucket: "media".into(), prefix: "<script>&\"/".into(), ..Status::default() };
        (status.mirror.bytes_done, status.mirror.bytes_total) = (1, 4);
        status.nfs.ops_by_proc = [("readdirplus".into(), 42)].into();
        assert!(render(&status).contains("<p>S3 has everything.</p>"));
        let why = "denied <by> S3".into();
        let failure = crate::writeback::Failure { key: "a<b".into(), why, may_pass: false };
        (status.journal.pending, status.journal.bytes, status.journal.oldest_s) = (3, 2048, 61);
        status.journal.failures = vec![failure];
        let page = render(&status);
        assert!(page.contains("<tr><td>not in S3 yet</td><td>3</td></tr>"), "{page}");
        assert!(page.contains("<tr><td>bytes to send</td><td>2.0 KiB</td></tr>"), "{page}");
        assert!(page.contains("<tr><td>the oldest waits for</td><td>1m 1s</td></tr>"), "{page}");
        assert!(page.contains("<tr><td>a&lt;b</td><td>denied &lt;by&gt; S3</td></tr>"), "{page}");
        assert!(page.contains("<h1>s3://media/&lt;script&gt;&amp;&quot;/</h1>"), "{page}");
        assert!(page.contains("<progress max=\"4\" value=\"1\">"));
        assert!(page.contains("<tr><td>readdirplus</td><td>42</td></tr>"));
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    }
}
