//! The mirror's progress while `serve` runs: a bar on a terminal, a log line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

use super::output::{number, size};
use crate::revalidate::MirrorProgress;

/// Often enough to look alive.
const BAR_INTERVAL: Duration = Duration::from_millis(250);
/// Seldom enough for a log that is kept.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Shows `mirror` until it has run to its end.
pub(super) async fn follow(mirror: impl Fn() -> MirrorProgress) {
    let bar = std::io::stderr().is_terminal().then(new_bar);
    let mut ticks = tokio::time::interval(if bar.is_some() { BAR_INTERVAL } else { LOG_INTERVAL });
    let mut has_run = false;
    loop {
        ticks.tick().await;
        let progress = mirror();
        has_run |= progress.running;
        match &bar {
            Some(bar) => show(bar, &progress),
            None if progress.running => info!("mirror: {}", describe(&progress)),
            None => {}
        }
        if has_run && !progress.running {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return info!("mirror done: {}", describe(&progress));
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

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("mirror {bar:30} {percent:>3}% {msg} {binary_bytes_per_sec} {eta}");
    ProgressBar::new(0).with_style(style.expect("the template is a constant"))
}

fn show(bar: &ProgressBar, progress: &MirrorProgress) {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
    bar.set_message(describe(progress));
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
    fn bar_template_is_one() {
        new_bar();
    }
}
