//! All settings of a server, checked once. `cli/` makes a `Config` from flags and environment; the rest
//! of the server takes its part of it.
//! Invariant: a `Config` that exists is legal. Every default is a constant here with its reason beside it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::content::CacheLimit;
use crate::index::Defaults;

/// 1 s: what an NFS client caches attributes for at its shortest (`actimeo=1`), so asking more often shows nobody anything.
pub const RECHECK: Duration = Duration::from_secs(1);
/// 10 s: Linux and macOS retry a JUKEBOX after some seconds, and give up on a silent server after 60 s or more.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// 1 MiB: one conditional GET brings check and body in a round trip while the body costs no more than the round trip.
pub const SMALL_OBJECT_BYTES: u64 = 1 << 20;
/// 64 requests at once: enough to fill 10 Gbit/s from S3 at 30 ms, far below the 5,500/s of a prefix.
pub const S3_CONCURRENCY: u32 = 64;

/// Where the bucket is and how to reach it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Bucket.
    pub bucket: String,
    /// Mounted prefix: empty, or ending in `/`.
    pub prefix: String,
    /// `--endpoint-url`, which implies path style.
    pub endpoint_url: Option<String>,
    /// `--region`.
    pub region: Option<String>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--no-sign-request`.
    pub anonymous: bool,
    /// `--request-payer`.
    pub requester_pays: bool,
    /// `--s3-concurrency`: requests in flight.
    pub concurrency: NonZeroU32,
    /// `--s3-rate`: requests a second; `None` = as many as S3 takes.
    pub rate: Option<NonZeroU32>,
}

/// How long a copy may be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleLimit {
    /// An answer never waits (F1).
    Any,
    /// At most one request is stale; the next open waits, at most so long (F6).
    One(Duration),
}

/// Everything `serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bucket.
    pub s3: S3Config,
    /// `--cache`.
    pub cache: PathBuf,
    /// `--cache-size`.
    pub cache_limit: CacheLimit,
    /// `--listen`.
    pub listen: SocketAddr,
    /// `--admin`; `None` with `--admin off`.
    pub admin: Option<SocketAddr>,
    /// `--export`: a name besides `/`, without slashes.
    pub export: Option<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--lazy`: no mirror.
    pub lazy: bool,
    /// `--recheck`.
    pub recheck: Duration,
    /// `--deadline`.
    pub deadline: Duration,
    /// `--stale-limit`, `--stale-wait`.
    pub stale_limit: StaleLimit,
    /// `--uid --gid --file-mode --dir-mode`.
    pub defaults: Defaults,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--shutdown-timeout`.
    pub shutdown_timeout: Duration,
}
