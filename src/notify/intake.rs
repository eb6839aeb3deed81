//! The one place that takes hints, whoever tells them: leaves out what is old news, and has the rest distrusted.
//! Owns: the order of events of one key, and the counters of hints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tracing::warn;

use super::order::Order;
use super::wave::Wave;
use super::{Hint, Tell, Told};
use crate::revalidate::{Effect, Revalidator};

/// Hints taken between two looks at the pace.
const BATCH: usize = 64;

/// Takes hints. Cheap to share behind an `Arc`.
pub struct Intake {
    revalidator: Arc<Revalidator>,
    order: Order,
    wave: Wave,
    hints: AtomicU64,
    applied: AtomicU64,
    echoes: AtomicU64,
    outdated: AtomicU64,
    elsewhere: AtomicU64,
}

/// How many hints there were, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub hints: u64,
    /// Those for which something here is distrusted.
    pub applied: u64,
    /// Those that told what is here.
    pub echoes: u64,
    /// Those that came after a later one of their key.
    pub outdated: u64,
    /// Those of nothing that is here.
    pub elsewhere: u64,
}

impl Intake {
    /// Brings hints to `revalidator`.
    pub fn new(revalidator: Arc<Revalidator>) -> Arc<Intake> {
        Arc::new(Intake {
            revalidator,
            order: Order::new(),
            wave: Wave::new(),
            hints: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            echoes: AtomicU64::new(0),
            outdated: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
        })
    }

    /// What has been taken so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            hints: read(&self.hints),
            applied: read(&self.applied),
            echoes: read(&self.echoes),
            outdated: read(&self.outdated),
            elsewhere: read(&self.elsewhere),
        }
    }

    async fn take(&self, hint: &Hint, told: &mut Told) {
        let is_news = hint.sequencer.as_ref().is_none_or(|sequencer| self.order.advance(&hint.key, sequencer));
        if !is_news {
            told.outdated += 1;
            return;
        }
        match self.revalidator.hinted(hint).await {
            Ok(Effect::Applied) => told.applied += 1,
            Ok(Effect::Echo) => told.echoes += 1,
            Ok(Effect::Elsewhere) => told.elsewhere += 1,
            // The checks behind answers find it.
            Err(error) => warn!(key = %hint.key, %error, "cannot tell what has changed"),
        }
    }

    fn count(&self, told: Told) {
        let all = told.applied + told.echoes + told.outdated + told.elsewhere;
        for (counter, n) in [
            (&self.hints, all),
            (&self.applied, told.applied),
            (&self.echoes, told.echoes),
            (&self.outdated, told.outdated),
            (&self.elsewhere, told.elsewhere),
        ] {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Tell for Intake {
    async fn tell(&self, hints: Vec<Hint>) -> Told {
        let mut told = Told::default();
        for batch in hints.chunks(BATCH) {
            for hint in batch {
                self.take(hint, &mut told).await;
            }
            self.wave.took(batch.len()).await;
        }
        self.count(told);
        told
    }

    async fn distrust_all(&self) {
        self.revalidator.distrust_all().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::revalidate::tests::Rig;
    use crate::types::{ETag, Key, Origin, Said, Sequencer};

    fn hint(key: &str, said: Said) -> Hint {
        Hint { key: Key::new(key).unwrap(), said, sequencer: None, at: None, origin: Origin::Webhook }
    }

    fn written(key: &str, digits: &str) -> Hint {
        let said = Said::Written { etag: Some(ETag::new("new")), size: None };
        Hint { sequencer: Sequencer::new(digits), ..hint(key, said) }
    }

    async fn tell(intake: &Intake, hints: Vec<Hint>) -> [usize; 4] {
        let Told { applied, echoes, outdated, elsewhere } = intake.tell(hints).await;
        [applied, echoes, outdated, elsewhere]
    }

    #[tokio::test]
    async fn each_hint_is_counted_once_for_what_it_came_to() {
        let rig = Rig::new().await;
        rig.warm("here", "one").await;
        let known = rig.known("here").unwrap().remote.clone().unwrap();
        let intake = Intake::new(rig.revalidator.clone());
        let echo = hint("here", Said::Written { etag: Some(known.etag), size: Some(3) });
        let gone = hint("not/here", Said::Removed);
        let told = tell(&intake, vec![written("here", "2"), written("here", "1"), echo, gone.clone()]).await;
        assert_eq!(told, [1, 1, 1, 1]);
        assert_eq!(tell(&intake, vec![gone; 2]).await, [0, 0, 0, 2]);
        assert_eq!(tell(&intake, Vec::new()).await, [0; 4]);
        let counts = Counts { hints: 6, applied: 1, echoes: 1, outdated: 1, elsewhere: 3 };
        assert_eq!(intake.counts(), counts, "of all messages");
    }

    #[tokio::test]
    async fn only_a_later_event_of_the_same_key_is_news() {
        let rig = Rig::new().await;
        let intake = Intake::new(rig.revalidator.clone());
        let hints = ["9", "0A", "A", "9"].map(|digits| written("a", digits));
        assert_eq!(tell(&intake, hints.to_vec()).await, [2, 0, 2, 0]);
        assert_eq!(tell(&intake, vec![written("b", "1")]).await, [1, 0, 0, 0], "another key");
        let unnumbered = Hint { sequencer: None, ..written("a", "1") };
        assert_eq!(tell(&intake, vec![unnumbered; 2]).await, [2, 0, 0, 0], "whoever numbers nothing is always heard");
        assert_eq!(tell(&intake, vec![written("a", "A")]).await, [0, 0, 1, 0], "and changes no order");
    }

    #[tokio::test]
    async fn outdated_hint_distrusts_nothing() {
        let rig = Rig::new().await;
        rig.warm("a", "one").await;
        let intake = Intake::new(rig.revalidator.clone());
        let distrusted = || rig.known("a").unwrap().freshness.distrusted();
        tell(&intake, vec![written("a", "2")]).await;
        let before = distrusted();
        assert_eq!(before, rig.clock.now());
        rig.pass_recheck();
        tell(&intake, vec![written("a", "1"), written("a", "2")]).await;
        assert_eq!(distrusted(), before);
        tell(&intake, vec![written("a", "3")]).await;
        assert_eq!(distrusted(), rig.clock.now());
    }

    #[tokio::test]
    async fn change_of_a_prefix_is_of_all_below_and_any_other_word_of_its_marker_alone() {
        let rig = Rig::new().await;
        rig.warm("d/a", "one").await;
        let intake = Intake::new(rig.revalidator.clone());
        let is_trusted = || rig.known("d/a").unwrap().freshness.distrusted() != rig.clock.now();
        rig.pass_recheck();
        for marker in [written("d/", "1"), hint("d/", Said::Removed)] {
            assert_eq!(tell(&intake, vec![marker]).await, [1, 0, 0, 0]);
            assert!(is_trusted());
        }
        assert_eq!(tell(&intake, vec![hint("d/a", Said::Changed)]).await, [1, 0, 0, 0], "a key");
        assert!(!is_trusted());
        rig.pass_recheck();
        assert!(is_trusted());
        assert_eq!(tell(&intake, vec![hint("d/", Said::Changed)]).await, [1, 0, 0, 0]);
        assert!(!is_trusted());
    }

    #[tokio::test]
    async fn word_that_nothing_is_to_be_trusted_is_passed_on_and_counts_as_no_hint() {
        let rig = Rig::new().await;
        rig.warm("a", "one").await;
        let intake = Intake::new(rig.revalidator.clone());
        rig.pass_recheck();
        intake.distrust_all().await;
        assert_eq!(rig.known("a").unwrap().freshness.distrusted(), rig.clock.now());
        assert_eq!(intake.counts(), Counts::default());
    }
}
