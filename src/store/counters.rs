//! How many requests went to S3, how they ended, and what they cost.
//! Invariant: every attempt that goes over the wire is counted once, retries included.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use std::sync::Arc;

/// PUT, COPY, POST and LIST: $0.005 per 1,000 (us-east-1, November 2026).
const WRITE_OR_LIST_USD: f64 = 0.005 / 1000.0;
/// GET, HEAD and everything else: $0.0004 per 1,000.
const READ_USD: f64 = 0.0004 / 1000.0;

/// The kinds of request, in words, with the price of one.
const KINDS: [(&str, f64); 9] = [
    ("head", READ_USD),
    ("get", READ_USD),
    ("list", WRITE_OR_LIST_USD),
    ("put", WRITE_OR_LIST_USD),
    ("copy", WRITE_OR_LIST_USD),
    ("multipart", WRITE_OR_LIST_USD),
    ("delete", 0.0),
    ("abort", 0.0),
    ("other", READ_USD),
];

/// The place in `KINDS` of an operation of the SDK.
fn kind_of(operation: &str) -> usize {
    match operation {
        "HeadObject" | "HeadBucket" => 0,
        "GetObject" => 1,
        "ListObjectsV2" | "ListParts" | "ListMultipartUploads" | "ListBuckets" => 2,
        "PutObject" => 3,
        "CopyObject" | "UploadPartCopy" => 4,
        "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => 5,
        "DeleteObject" | "DeleteObjects" => 6,
        "AbortMultipartUpload" => 7,
        _ => 8,
    }
}

/// Counts requests; shared by everything that speaks to S3.
#[derive(Debug, Default)]
pub struct Counters {
    sent: [AtomicU64; KINDS.len()],
    errors: AtomicU64,
    throttled: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A copy of the counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestCounts {
    /// Requests sent by kind (`head`, `get`, `list`, ...); kinds never sent are left out.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Those that ended in 5xx, in a refusal (401, 403), or in no answer.
    pub errors: u64,
    /// Those that S3 asked to slow down (429, 503); they are errors too.
    pub throttled: u64,
    /// Bytes of object bodies received.
    pub bytes_in: u64,
    /// Bytes of object bodies that S3 took.
    pub bytes_out: u64,
    /// What the requests cost on AWS in US dollars, without the traffic.
    pub cost_usd: f64,
}

impl Counters {
    /// What has been counted so far.
    pub fn snapshot(&self) -> RequestCounts {
        let sent = KINDS.iter().zip(&self.sent).map(|(kind, n)| (kind, n.load(Ordering::Relaxed)));
        let mut counts = RequestCounts {
            errors: self.errors.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            ..RequestCounts::default()
        };
        for ((kind, price), n) in sent.filter(|(_, n)| *n > 0) {
            counts.by_kind.insert(kind, n);
            counts.cost_usd += price * n as f64;
        }
        counts
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, operation: &str) {
        self.sent[kind_of(operation)].fetch_add(1, Ordering::Relaxed);
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
        self.0.sent(config.load::<Metadata>().map_or("", Metadata::name));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_kinds_and_cost() {
        let counters = Counters::default();
        for operation in ["HeadObject", "HeadObject", "ListObjectsV2", "DeleteObject"] {
            counters.sent(operation);
        }
        counters.ended(Some(503));
        counters.ended(Some(404));
        counters.ended(None);
        let counts = counters.snapshot();
        assert_eq!(counts.by_kind, BTreeMap::from([("head", 2), ("list", 1), ("delete", 1)]));
        assert_eq!((counts.errors, counts.throttled), (2, 1));
        assert!((counts.cost_usd - 0.000_005_8).abs() < 1e-12);
    }
}
