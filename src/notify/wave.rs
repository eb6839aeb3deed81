//! How fast a wave of hints is taken: its work is a fifth of what a core does, so that answers from the cache keep their
//! rate. A burst goes at once.
//! Invariant: a hint is charged `MOST_WORK` at most, however slow the machine: no wave is slower than 10,000 hints a second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time for each time of work.
const LEISURE: u32 = 5;
/// 100 ms: 20 ms of work, some thousand hints, are not waited for.
const BURST: Duration = Duration::from_millis(100);
/// 20 us: a hint takes a third of that on a machine that does nothing else.
const MOST_WORK: Duration = Duration::from_micros(20);

/// The pace of all sources together.
#[derive(Debug)]
pub(super) struct Wave {
    /// When what was taken so far is paid off.
    paid: Mutex<Instant>,
}

impl Wave {
    pub(super) fn new() -> Wave {
        Wave { paid: Mutex::new(Instant::now()) }
    }

    /// Charges `hints` that took `work`, and waits where that is too much for the moment.
    pub(super) async fn charge(&self, hints: usize, work: Duration) {
        let work = work.min(MOST_WORK * u32::try_from(hints).unwrap_or(u32::MAX));
        let now = Instant::now();
        let paid = {
            let mut paid = self.paid.lock();
            *paid = (*paid).max(now) + work * LEISURE;
            *paid
        };
        match paid > now + BURST {
            true => tokio::time::sleep_until(paid - BURST).await,
            false => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_micros(10);

    #[tokio::test(start_paused = true)]
    async fn a_wave_has_a_fifth_of_a_core_and_a_burst_goes_at_once() {
        let (wave, begun) = (Wave::new(), Instant::now());
        for _ in 0..20 {
            wave.charge(100, WORK * 100).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "2,000 hints");
        for _ in 0..980 {
            wave.charge(100, WORK * 100).await;
        }
        let took = begun.elapsed();
        assert!((4_900..=5_000).contains(&took.as_millis()), "100,000 hints of 1 s of work: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_machine_slows_no_wave_further() {
        let (wave, begun) = (Wave::new(), Instant::now());
        for _ in 0..1_000 {
            wave.charge(100, Duration::from_secs(1)).await;
        }
        assert!((9_900..=10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }
}
