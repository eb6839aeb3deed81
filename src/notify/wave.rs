//! How fast a wave of hints is taken: slowly, so that little of it stands before answers from the cache. A burst goes at
//! once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// 5,000 hints a second: more than S3 takes writes of one prefix, and some hundredths of what a core does.
const PAUSE: Duration = Duration::from_micros(200);
/// 2,000 hints are not waited for.
const BURST: Duration = Duration::from_millis(400);

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

    /// Counts `hints` that were taken, and waits where those are too many for the moment; lets others run in any case.
    pub(super) async fn took(&self, hints: usize) {
        let now = Instant::now();
        let paid = {
            let mut paid = self.paid.lock();
            *paid = (*paid).max(now) + PAUSE * u32::try_from(hints).unwrap_or(u32::MAX);
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

    #[tokio::test(start_paused = true)]
    async fn a_wave_is_slow_and_a_burst_goes_at_once() {
        let (wave, begun) = (Wave::new(), Instant::now());
        for _ in 0..20 {
            wave.took(100).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "2,000 hints");
        for _ in 0..980 {
            wave.took(100).await;
        }
        let took = begun.elapsed().as_millis();
        assert!((19_500..=20_000).contains(&took), "100,000 hints: {took} ms");
    }
}
