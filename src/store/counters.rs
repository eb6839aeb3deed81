//! How many requests went to S3, how they ended, and what they cost.
//! Invariant: every attempt that goes over the wire is counted once, retries included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use parking_lot::Mutex;

use super::Budget;
use super::cost::{Dollars, LastHour, RequestKind};
use crate::types::Clock;

/// Counts requests; shared by everything that speaks to S3.
#[derive(Debug)]
pub struct Counters {
    clock: Clock,
    budget: Arc<Budget>,
    sent: [AtomicU64; RequestKind::ALL.len()],
    last_hour: Mutex<LastHour>,
    errors: AtomicU64,
    throttled: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A copy of the counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestCounts {
    /// Requests sent to S3 by kind (`head`, `get`, `list`, ...); kinds never sent are left out.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Those that ended in 5xx, in a refusal (401, 403), or in no answer.
    pub errors: u64,
    /// Those that S3 asked to slow down (429, 503); they are errors too.
    pub throttled: u64,
    /// Bytes of object bodies received.
    pub bytes_in: u64,
    /// Bytes of object bodies that S3 took.
    pub bytes_out: u64,
    /// Requests sent to SQS.
    pub queue: u64,
    /// What all of them cost at AWS's prices (see `cost`).
    pub cost: Dollars,
    /// Of that, what those of the last hour did.
    pub cost_last_hour: Dollars,
    /// Of that, what each kind of request did, `queue` included.
    pub cost_by_kind: BTreeMap<&'static str, Dollars>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::new(Clock::system(), Budget::unlimited())
    }
}

impl Counters {
    /// All at zero; what is sent is taken out of `budget`.
    pub fn new(clock: Clock, budget: Arc<Budget>) -> Counters {
        Counters {
            clock,
            budget,
            sent: Default::default(),
            last_hour: Mutex::default(),
            errors: AtomicU64::default(),
            throttled: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
        }
    }

    /// What requests are taken out of.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What has been counted so far.
    pub fn snapshot(&self) -> RequestCounts {
        let mut counts = RequestCounts {
            errors: self.errors.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            cost_last_hour: self.last_hour.lock().sum(self.clock.now()),
            ..RequestCounts::default()
        };
        let sent = RequestKind::ALL.iter().zip(&self.sent).map(|(kind, n)| (kind, n.load(Ordering::Relaxed)));
        for (kind, n) in sent.filter(|(_, n)| *n > 0) {
            let cost = kind.price() * n;
            match kind {
                RequestKind::Queue => counts.queue = n,
                _ => drop(counts.by_kind.insert(kind.name(), n)),
            }
            counts.cost_by_kind.insert(kind.name(), cost);
            counts.cost += cost;
        }
        counts
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, kind: RequestKind) {
        self.sent[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.last_hour.lock().add(self.clock.now(), kind.price());
        self.budget.spend(kind);
    }

    /// Counts the end of an attempt; `None` = no answer.
    fn ended(&self, status: Option<u16>) {
        if matches!(status, None | Some(401 | 403 | 429 | 500..)) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(status, Some(429 | 503)) {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Puts the counters into the SDK's way.
#[derive(Debug)]
pub(super) struct Count(pub(super) Arc<Counters>);

impl Intercept for Count {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.sent(RequestKind::of(config.load::<Metadata>().map_or("", Metadata::name)));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.ended(context.response().map(|response| response.status().as_u16()));
        Ok(())
    }
}

/// The same for a queue, whose failures are not S3's.
#[derive(Debug)]
pub(crate) struct CountQueue(pub(crate) Arc<Counters>);

impl Intercept for CountQueue {
    fn name(&self) -> &'static str {
        "CountQueueRequests"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.sent(RequestKind::Queue);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_tells_kinds_and_cost() {
        let clock = Clock::manual();
        let counters = Counters::new(clock.clone(), Budget::unlimited());
        for operation in ["HeadObject", "HeadObject", "ListObjectsV2", "DeleteObject"] {
            counters.sent(RequestKind::of(operation));
        }
        counters.ended(Some(503));
        counters.ended(Some(404));
        counters.ended(None);
        clock.advance(Duration::from_secs(3_600));
        counters.sent(RequestKind::Queue);
        let counts = counters.snapshot();
        assert_eq!(counts.by_kind, BTreeMap::from([("head", 2), ("list", 1), ("delete", 1)]));
        assert_eq!((counts.errors, counts.throttled, counts.queue), (2, 1, 1));
        assert_eq!((counts.cost, counts.cost_last_hour), (Dollars(6_200), Dollars(400)));
        let each = [("head", 800), ("list", 5_000), ("delete", 0), ("queue", 400)];
        assert_eq!(counts.cost_by_kind, each.map(|(kind, cost)| (kind, Dollars(cost))).into());
    }

    #[test]
    fn whatever_is_sent_is_taken_out_of_the_budget() {
        let clock = Clock::manual();
        let budget = Budget::new(Dollars(25 * 5_000), clock.clone());
        let counters = Counters::new(clock, budget.clone());
        counters.sent(RequestKind::Delete);
        assert!(budget.try_turn(RequestKind::Head).is_some());
        counters.sent(RequestKind::Put);
        assert!(budget.try_turn(RequestKind::Head).is_none());
    }
}
