//! The one place that takes hints, whoever tells them: leaves out what is old news, and has the rest distrusted.
//! Owns: the order of events of one key, and the counters of hints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tracing::warn;

use super::order::Order;
use super::wave::Wave;
use super::{Hint, Said, Tell, Told};
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
        let is_prefix = hint.said == Said::Changed && hint.key.is_prefix();
        let effect = match is_prefix {
            true => self.revalidator.hinted_below(&hint.key).await,
            false => self.revalidator.hinted(hint),
        };
        match effect {
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
