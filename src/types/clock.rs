//! The one seam to time, so that tests step a clock and never sleep.
//! Owns: `Clock` (monotonic ticks and wall time). Nothing else reads the system's clocks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// Monotonic time since the clock was made, in milliseconds, from 1 up: 0 is free to mean "never".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// Before every other tick.
    pub const NEVER: Tick = Tick(0);

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// From whole seconds and nanoseconds since the epoch; saturates.
    pub fn from_parts(seconds: i64, nanos: u32) -> Time {
        Time(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second.
    pub fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }
}

impl From<SystemTime> for Time {
    fn from(t: SystemTime) -> Time {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Time(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)),
            Err(e) => Time(i64::try_from(e.duration().as_nanos()).map_or(i64::MIN, |n| -n)),
        }
    }
}

/// Source of ticks and wall time; cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(Instant),
    Manual(Arc<Manual>),
}

struct Manual {
    ms: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Clock {
        Clock(Source::System(Instant::now()))
    }

    /// A clock that stands still until `advance` moves it; for tests.
    pub fn manual() -> Clock {
        Clock(Source::Manual(Arc::new(Manual { ms: AtomicU64::new(1), moved: Notify::new() })))
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// On the system's clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(manual) = &self.0 else { panic!("only a manual clock can be moved") };
        manual.ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        manual.moved.notify_waiters();
    }

    /// Monotonic now.
    pub fn now(&self) -> Tick {
        match &self.0 {
            Source::System(start) => Tick(start.elapsed().as_millis() as u64 + 1),
            Source::Manual(manual) => Tick(manual.ms.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic now, as the end of something: what began in the same millisecond must not pass for later. A manual clock
    /// stands still on purpose.
    pub fn end(&self) -> Tick {
        match &self.0 {
            Source::System(_) => Tick(self.now().0 + 1),
            Source::Manual(_) => self.now(),
        }
    }

    /// Waits until it is `tick`: of a manual clock, until somebody moves it there.
    pub async fn reached(&self, tick: Tick) {
        loop {
            let Source::Manual(manual) = &self.0 else {
                return tokio::time::sleep(tick.since(self.now())).await;
            };
            let moved = manual.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.now() >= tick {
                return;
            }
            moved.await;
        }
    }

    /// Wall time now. A manual clock counts from 2026-01-01T00:00:00Z.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    pub fn wall(&self) -> Time {
        match &self.0 {
            Source::System(_) => SystemTime::now().into(),
            Source::Manual(manual) => {
                Time(1_767_225_600_000_000_000 + manual.ms.load(Ordering::SeqCst) as i64 * 1_000_000)
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", if matches!(self.0, Source::System(_)) { "system" } else { "manual" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_stands_still_until_moved() {
        let clock = Clock::manual();
        let (tick, wall) = (clock.now(), clock.wall());
        assert!(tick > Tick::NEVER);
        assert_eq!((clock.now(), clock.wall()), (tick, wall));
        clock.clone().advance(Duration::from_millis(1500));
        assert_eq!(clock.now().since(tick), Duration::from_millis(1500));
        assert_eq!(clock.wall().0 - wall.0, 1_500_000_000);
        assert_eq!(tick.since(clock.now()), Duration::ZERO);
    }

    #[tokio::test]
    async fn who_waits_for_a_tick_is_woken_when_the_clock_is_moved_there() {
        let clock = Clock::manual();
        let due = Tick(clock.now().0 + 1_000);
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move { clock.reached(due).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(999));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_millis(1));
        waiting.await.expect("it ended");
    }

    #[test]
    fn system_clock_never_says_never() {
        assert!(Clock::system().now() > Tick::NEVER);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        let before = Time::from(UNIX_EPOCH - Duration::from_millis(1));
        assert_eq!(before, Time::from_parts(-1, 999_000_000));
        assert_eq!((before.seconds(), before.subsec_nanos()), (-1, 999_000_000));
        assert_eq!(Time::from_parts(i64::MAX, 0), Time(i64::MAX));
    }
}
