//! Timeouts of one connection, at the price of one timer that is never moved: it ticks, and a tick that
//! sees nothing new since the last one counts against the peer.
//! Invariant: a timeout is never early, and late by at most two ticks, half its length.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::Limits;

/// Ticks in the shorter of the two timeouts.
const TICKS: u32 = 4;

/// The peer took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TimedOut {
    #[error("idle for too long")]
    Idle,
    #[error("a record was begun and not completed in time")]
    Partial,
}

/// What a tick looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vitals {
    /// Whether we owe the peer something, so that waiting is not its fault.
    pub(super) busy: bool,
    /// Whether a record has begun, and its rest would be taken.
    pub(super) partial: bool,
    /// Records that were completed.
    pub(super) records: u64,
}

/// The timer and what it saw last.
#[derive(Debug)]
pub(super) struct Watchdog {
    timer: Pin<Box<Sleep>>,
    tick: Duration,
    idle_ticks: u32,
    partial_ticks: u32,
    /// Completed ticks of silence that are too many.
    max_idle: u32,
    max_partial: u32,
    progress: bool,
    records: u64,
}

impl Watchdog {
    pub(super) fn new(limits: &Limits) -> Watchdog {
        let tick = (limits.idle_timeout.min(limits.partial_timeout) / TICKS).max(Duration::from_millis(1));
        // the first tick of a silence saw only its end, so one more is waited for
        let ticks = |d: Duration| {
            u32::try_from(d.as_nanos().div_ceil(tick.as_nanos())).map_or(u32::MAX, |n| n.saturating_add(1))
        };
        Watchdog {
            timer: Box::pin(sleep(tick)),
            tick,
            idle_ticks: 0,
            partial_ticks: 0,
            max_idle: ticks(limits.idle_timeout),
            max_partial: ticks(limits.partial_timeout),
            progress: false,
            records: 0,
        }
    }

    /// Notes that the peer sent or took bytes.
    pub(super) fn note_progress(&mut self) {
        self.progress = true;
    }

    /// Whether a tick has passed; the caller then says how things are by `judge`.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ticked = false;
        while let Poll::Ready(()) = self.timer.as_mut().poll(cx) {
            self.timer.as_mut().reset(Instant::now() + self.tick);
            ticked = true;
        }
        ticked
    }

    /// Counts a tick.
    /// # Errors
    /// The peer has been silent, or slow with a record, for too long.
    pub(super) fn judge(&mut self, vitals: Vitals) -> Result<(), TimedOut> {
        let idle = !self.progress && !vitals.busy;
        self.idle_ticks = if idle { self.idle_ticks + 1 } else { 0 };
        let stuck = vitals.partial && vitals.records == self.records;
        self.partial_ticks = if stuck { self.partial_ticks + 1 } else { 0 };
        self.progress = false;
        self.records = vitals.records;
        if self.partial_ticks >= self.max_partial {
            return Err(TimedOut::Partial);
        }
        if self.idle_ticks >= self.max_idle {
            return Err(TimedOut::Idle);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks of 1 s; idle after 8 s, a record is late after 4 s.
    fn watchdog() -> Watchdog {
        let (idle_timeout, partial_timeout) = (Duration::from_secs(8), Duration::from_secs(4));
        Watchdog::new(&Limits { idle_timeout, partial_timeout, ..Limits::default() })
    }

    const QUIET: Vitals = Vitals { busy: false, partial: false, records: 0 };

    /// How many ticks end in a timeout, and in which.
    fn ticks(watchdog: &mut Watchdog, vitals: Vitals) -> Option<(u32, TimedOut)> {
        (1..100).find_map(|n| watchdog.judge(vitals).err().map(|e| (n, e)))
    }

    #[tokio::test]
    async fn silence_ends_after_the_idle_timeout_and_not_before() {
        assert_eq!(ticks(&mut watchdog(), QUIET), Some((9, TimedOut::Idle)));
    }

    #[tokio::test]
    async fn a_byte_starts_the_idle_timeout_anew() {
        let mut watchdog = watchdog();
        (0..8).for_each(|_| assert_eq!(watchdog.judge(QUIET), Ok(())));
        watchdog.note_progress();
        assert_eq!(watchdog.judge(QUIET), Ok(()));
        assert_eq!(ticks(&mut watchdog, QUIET), Some((9, TimedOut::Idle)));
    }

    #[tokio::test]
    async fn a_peer_that_waits_for_us_is_not_idle() {
        assert_eq!(ticks(&mut watchdog(), Vitals { busy: true, ..QUIET }), None);
    }

    #[tokio::test]
    async fn a_record_that_trickles_in_is_late_all_the_same() {
        let mut watchdog = watchdog();
        let trickle = Vitals { partial: true, ..QUIET };
        for _ in 0..4 {
            watchdog.note_progress();
            assert_eq!(watchdog.judge(trickle), Ok(()));
        }
        watchdog.note_progress();
        assert_eq!(watchdog.judge(trickle), Err(TimedOut::Partial));
    }

    #[tokio::test]
    async fn parts_of_one_record_after_another_are_not_late() {
        let mut watchdog = watchdog();
        for records in 1..50 {
            watchdog.note_progress();
            assert_eq!(watchdog.judge(Vitals { partial: true, records, ..QUIET }), Ok(()));
        }
    }
}
