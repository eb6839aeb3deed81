//! The mirror's progress while `serve` runs: a bar on a terminal, a log line now and then elsewhere.
//! Invariant: what else goes to the terminal goes through `AboveBar`, or it ends up in the middle of the bar.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tracing::info;

use super::output::{number, size};
use crate::revalidate::MirrorProgress;

/// Often enough to look alive.
const BAR_INTERVAL: Duration = Duration::from_millis(250);
/// Seldom enough for a log that is kept.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// While the bucket is being listed: a part of a whole that still grows says nothing.
const LISTING: &str = "{spinner} mirror {wide_msg}";
/// `wide_msg` is cut where the terminal ends, so a line never becomes two, which could not be drawn over.
const LISTED: &str = "mirror {bar:10} {percent:>3}% {eta:>3} {wide_msg}";

/// Shows `mirror` until it has run to its end.
pub(super) async fn follow(mirror: impl Fn() -> MirrorProgress) {
    let on_terminal = io::stderr().is_terminal();
    let mut ticks = tokio::time::interval(if on_terminal { BAR_INTERVAL } else { LOG_INTERVAL });
    let mut bar = None;
    let mut has_run = false;
    loop {
        ticks.tick().await;
        let progress = mirror();
        has_run |= progress.running;
        if has_run && !progress.running {
            drop(bar);
            return info!("mirror done: {}", describe(&progress));
        }
        if on_terminal && has_run {
            bar.get_or_insert_with(Bar::new).show(&progress);
        } else if has_run {
            info!("mirror: {}", describe(&progress));
        }
    }
}

/// One line for a person.
pub(super) fn describe(progress: &MirrorProgress) -> String {
    let open_end = if progress.listed { "" } else { " so far" };
    format!(
        "{} of {} files, {} of {}{open_end}",
        number(progress.done),
        number(progress.total),
        size(progress.bytes_done),
        size(progress.bytes_total),
    )
}

/// The bar that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar; dropping it clears its line.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::new(0).with_style(style(LISTING));
        *SHOWN.lock() = Some(bar.clone());
        Bar(bar)
    }

    fn show(&self, progress: &MirrorProgress) {
        let just_listed = progress.listed && self.0.length() == Some(0);
        self.0.update(|state| {
            state.set_len(if progress.listed { progress.bytes_total } else { 0 });
            state.set_pos(progress.bytes_done);
        });
        if just_listed {
            self.0.set_style(style(LISTED));
        }
        self.0.set_message(format!("{}, {}/s", describe(progress), size(self.0.per_sec() as u64)));
        self.0.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        *SHOWN.lock() = None;
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}

/// Where log lines go: stderr, above the bar if there is one.
pub(super) struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let bar = SHOWN.lock().clone();
        let write = || io::stderr().write(lines);
        bar.map_or_else(write, |bar| bar.suspend(write))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_open_until_all_is_listed() {
        let mut progress = MirrorProgress {
            running: true,
            listed: false,
            done: 1200,
            total: 3400,
            bytes_done: 1 << 20,
            bytes_total: 1 << 30,
        };
        assert_eq!(describe(&progress), "1,200 of 3,400 files, 1.0 MiB of 1.0 GiB so far");
        progress.listed = true;
        assert_eq!(describe(&progress), "1,200 of 3,400 files, 1.0 MiB of 1.0 GiB");
    }

    #[test]
    fn templates_are_templates() {
        let _ = [LISTING, LISTED].map(style);
    }
}
