//! What the demo prints.

#![allow(clippy::print_stdout, reason = "the table is the result of the command")]

use std::time::Duration;

use super::sample::MANY;
use super::{Step, sample};
use crate::s3server::{ACCESS_KEY, REGION, SECRET_KEY};

/// One line of the table.
pub(super) struct Row {
    pub(super) step: Step,
    pub(super) first: Duration,
    pub(super) again: Duration,
    pub(super) alone: Duration,
}

pub(super) struct Screen;

impl Screen {
    pub(super) fn opening(&self, objects: usize, latency: Duration) {
        println!("A sample bucket of {objects} objects, in an S3 server that takes {} to answer.", show(latency));
        println!("fasts3 serves it from an empty cache; an NFS client reads it.\n");
    }

    pub(super) fn head(&self) {
        println!("  {:<34}{:>12}{:>12}{:>16}", "", "first time", "again", "S3 alone");
    }

    pub(super) fn row(&self, row: &Row) {
        let (first, again, alone) = (show(row.first), show(row.again), show(row.alone));
        println!("  {:<34}{first:>12}{again:>12}{alone:>16}", row.step.name());
    }

    pub(super) fn change(&self, stale: Duration, until: Duration, fresh: Duration) {
        println!("\nSomebody changes the page in S3.");
        println!("  {:<34}{:>12}   and S3 is asked behind the answer", "the next reader: first edition", show(stale));
        println!("  {:<34}{:>12}   {} after the change", "a later one: second edition", show(fresh), show(until));
    }

    pub(super) fn outage(&self) {
        println!("\nS3 goes down.");
    }

    pub(super) fn outage_row(&self, step: Step, took: Duration, alone: Option<Duration>) {
        let alone = alone.map_or("no answer".to_owned(), show);
        println!("  {:<34}{:>12}{:>12}{alone:>16}", step.name(), "", show(took));
    }

    pub(super) fn changes_meanwhile(&self, saved: Duration, renamed: Duration) {
        println!("\nSomebody writes, while it is down.");
        println!("  {:<34}{:>12}   on the local disk when it returns", "save a letter", show(saved));
        println!("  {:<34}{:>12}", format!("rename a directory of {MANY} names"), show(renamed));
    }

    pub(super) fn uploaded(&self, after: Duration) {
        println!("S3 is back: the letter is there {} later.", show(after));
    }

    pub(super) fn conclusion(&self, rows: &[Row]) {
        let factor = |row: &Row| row.alone.as_secs_f64() / row.again.as_secs_f64().max(1e-9);
        let best = rows.iter().max_by(|a, b| factor(a).total_cmp(&factor(b)));
        let worst = rows.iter().min_by(|a, b| factor(a).total_cmp(&factor(b)));
        let (Some(best), Some(worst)) = (best, worst) else { return };
        println!(
            "\nWhat is here is served {:.0} to {:.0} times faster than S3 alone, S3 up or down.",
            factor(worst),
            factor(best)
        );
    }

    pub(super) fn how_to_play(&self, port: u16, endpoint: &str, bucket: &str) {
        println!("\nIt stays up until Ctrl-C. Mount it:\n\n{}", mount_help(std::env::consts::OS, port, bucket));
        println!("Change it in S3 and look again:\n");
        println!("  export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_REGION={REGION}");
        println!("  echo '<h1>mine</h1>' | aws --endpoint-url {endpoint} s3 cp - s3://{bucket}/{}", sample::PAGE);
    }
}

/// The commands that mount and unmount on this system, indented.
fn mount_help(os: &str, port: u16, export: &str) -> String {
    match os {
        "macos" => format!(
            "  mkdir -p /tmp/fasts3\n  sudo mount_nfs -o vers=3,tcp,port={port},mountport={port},locallocks,actimeo=1 127.0.0.1:/ /tmp/fasts3\n  \
             ls /tmp/fasts3\n  sudo umount /tmp/fasts3\n"
        ),
        "windows" => format!(
            "  mount -o anon,nolock,mtype=hard \\\\127.0.0.1\\{export} Z:\n  dir Z:\n  umount Z:\n\n\
             (Client for NFS is a Windows feature of Pro and Server; it finds the server through port 111.)\n"
        ),
        _ => format!(
            "  sudo mkdir -p /mnt/fasts3\n  sudo mount -t nfs -o nfsvers=3,proto=tcp,port={port},mountport={port},nolock,noacl,actimeo=1 \
             127.0.0.1:/ /mnt/fasts3\n  ls /mnt/fasts3\n  sudo umount /mnt/fasts3\n"
        ),
    }
}

/// Three digits are enough: `0.08 ms`, `1.2 ms`, `104 ms`, `2.4 s`.
fn show(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_to_read() {
        let shown = |micros| show(Duration::from_micros(micros));
        assert_eq!(
            [shown(84), shown(1_240), shown(104_400), shown(2_350_000)],
            ["0.08 ms", "1.2 ms", "104 ms", "2.4 s"]
        );
        assert_eq!([shown(9_960), shown(999_600)], ["10 ms", "1.0 s"]);
    }

    #[test]
    fn every_system_gets_a_command_with_what_it_needs() {
        let linux = mount_help("linux", 4321, "demo");
        assert!(linux.contains("nfsvers=3,proto=tcp,port=4321,mountport=4321,nolock,noacl"));
        assert!(mount_help("macos", 4321, "demo").contains("vers=3,tcp,port=4321,mountport=4321,locallocks"));
        assert!(mount_help("windows", 111, "demo").contains(r"\\127.0.0.1\demo Z:"));
    }
}
