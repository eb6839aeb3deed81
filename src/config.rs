//! All settings of a server, checked once. `cli/` makes a `Config` from flags and environment; the rest
//! of the server takes its part of it.
//! Invariant: a `Config` that exists is legal. Every default is a constant here with its reason beside it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Rules;
use crate::content::CacheLimit;
use crate::index::Defaults;
use crate::notify::{QueueUrl, Secret, peers};
use crate::store::Dollars;
use crate::writeback;

/// Loopback only, because NFS trusts whoever connects; 2049 is the port a mount asks for by default.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2049);
/// Loopback only, beside the usual range of exporters (9100 and up).
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9049);
/// 10%: file systems slow down when they are fuller, and the rest of the machine wants to live.
pub const FREE_SHARE: f64 = 0.1;
/// 4 GiB: enough for both, however large the disk is.
pub const MOST_LEFT_FREE: u64 = 4 << 30;
/// 1 MiB: below, a cache could not hold what one READ asks for.
pub const MIN_CACHE_BYTES: u64 = 1 << 20;
/// 1 s: what an NFS client caches attributes for at its shortest (`actimeo=1`), so asking more often shows nobody anything.
pub const RECHECK: Duration = Duration::from_secs(1);
/// 60 s: what a client of NFS caches attributes for at its longest by default, so who relies on it is no worse off even
/// when an event is lost; and a sixtieth of the checks.
pub const RECHECK_HEALTHY: Duration = Duration::from_secs(60);
/// 15 min: how long a change of which the event was lost stays unknown in a file that nobody uses. A bucket of a million
/// objects is listed 86 times a day then, for less than half a dollar; a small one for a twentieth of a cent.
pub const SWEEP: Duration = Duration::from_secs(15 * 60);
/// 10 s: Linux and macOS retry a JUKEBOX after some seconds, and give up on a silent server after 60 s or more.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// 2 s: S3 answers a check in 0.2 s and sends some MiB in a second; who must wait longer is better served stale.
pub const STALE_WAIT: Duration = Duration::from_secs(2);
/// 1 MiB: one conditional GET brings check and body in a round trip while the body costs no more than the round trip.
pub const SMALL_OBJECT_BYTES: u64 = 1 << 20;
/// 64 MiB: such a body is held in memory, as often as `--s3-concurrency` says.
pub const MAX_SMALL_OBJECT_BYTES: u64 = 64 << 20;
/// 64 requests at once: enough to fill 10 Gbit/s from S3 at 30 ms, far below the 5,500/s of a prefix.
pub const S3_CONCURRENCY: u32 = 64;
/// 512: half of the usual limit of 1,024 open files; the other half is for the files of the cache.
pub const MAX_CONNECTIONS: usize = 512;
/// 8 s: below the 10 s after which `docker stop` kills.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);
/// 1 s: an editor has written its file by then, and others see the change as soon as a check of theirs would.
pub const UPLOAD_DELAY: Duration = Duration::from_secs(1);
/// 30 s: a log that never is quiet goes up twice a minute.
pub const LONGEST_UPLOAD_DELAY: Duration = Duration::from_secs(30);
/// 16: a fourth of `--s3-concurrency`, so that uploads leave room for what clients wait for.
pub const UPLOADS: usize = 16;
/// 16 MiB: a PUT of that length is over in a second; what is longer gains from parts in parallel.
pub const MULTIPART_BYTES: u64 = 16 << 20;
/// 8 MiB: above S3's least 5 MiB, and few enough bytes to be sent again after a failure.
pub const PART_BYTES: u64 = 8 << 20;
/// 30 s: a client that is told of a restart reclaims within one, and one that asks too early asks again after 5.
pub const GRACE: Duration = Duration::from_secs(30);
/// 64 KiB: four of them make a message, and S3 sends as much in the time that it takes to say that nothing has changed.
pub const MAX_PEER_INLINE_BYTES: u64 = 64 << 10;
/// Readable for everybody, as a web server under another user needs it.
pub const FILE_MODE: u32 = 0o644;
/// Searchable for everybody, likewise.
pub const DIR_MODE: u32 = 0o755;

/// 65534: what Linux calls nobody and nogroup, and NFS clients know as the user who is none of theirs.
pub const ANONYMOUS: u32 = 65_534;

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
    /// What new objects are given.
    pub new_objects: NewObjects,
}

/// What S3 is told of every object that is written, beside what is known of the object itself. All in S3's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewObjects {
    /// `--storage-class`, for objects that have none of their own yet; `None` = the bucket's.
    pub storage_class: Option<String>,
    /// `--acl`: a canned one; `None` = the bucket's.
    pub acl: Option<String>,
    /// `--sse`, `--sse-kms-key-id`; `None` = the bucket's.
    pub encryption: Option<Encryption>,
}

/// Encryption at rest, done by S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub method: String,
    /// The key of KMS; `None` = the account's own for S3.
    pub kms_key: Option<String>,
}

/// How long a copy may be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleLimit {
    /// An answer never waits (F1).
    Any,
    /// At most one request is stale; the next open waits, at most so long (F6).
    One(Duration),
}

/// `--events`: where S3's events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// `sqs=URL`: out of a queue.
    Sqs(QueueUrl),
    /// `webhook=IP:PORT`: from whoever pushes them there.
    Webhook(SocketAddr),
}

/// Everything `serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bucket.
    pub s3: S3Config,
    /// `--s3-budget`: what a day's requests may cost before work behind the answers is slowed; `None` = anything.
    pub s3_budget: Option<Dollars>,
    /// `--cache`.
    pub cache: PathBuf,
    /// `--cache-size`.
    pub cache_limit: CacheLimit,
    /// `--listen`.
    pub listen: SocketAddr,
    /// `--portmap`.
    pub portmap: PortmapMode,
    /// `--admin`; `None` with `--admin off`.
    pub admin: Option<SocketAddr>,
    /// `--export`: a name besides `/`, without slashes.
    pub export: Option<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--allow --secure-ports --squash --anon-uid --anon-gid`.
    pub access: Rules,
    /// `--lazy`: no mirror.
    pub lazy: bool,
    /// `--recheck`.
    pub recheck: Duration,
    /// `--recheck-healthy`.
    pub recheck_healthy: Duration,
    /// `--sweep`; `None`: off.
    pub sweep: Option<Duration>,
    /// `--peers` and its like; `None`: nobody is told of what is written here.
    pub peers: Option<peers::Settings>,
    /// `--deadline`.
    pub deadline: Duration,
    /// `--small-object`, in bytes.
    pub small_object: u64,
    /// `--stale-limit`, `--stale-wait`.
    pub stale_limit: StaleLimit,
    /// `--uid --gid --file-mode --dir-mode`.
    pub defaults: Defaults,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--shutdown-timeout`.
    pub shutdown_timeout: Duration,
    /// `--upload-delay --uploads --exclude --on-conflict --host`.
    pub writeback: writeback::Settings,
    /// `--durability`.
    pub durability: Durability,
    /// `--no-locks --grace`: how long after a start only locks from before can be had; `None` gives no locks.
    pub grace: Option<Duration>,
    /// `--events`.
    pub events: Vec<EventSource>,
    /// `--events-secret-file`, FASTS3_EVENTS_SECRET: there when a webhook is.
    pub events_secret: Option<Secret>,
}

/// Whether clients find the server by port 111, where they look for a portmapper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PortmapMode {
    /// If NFS is on its own port and this can be had.
    #[default]
    Auto,
    /// They must.
    On,
    /// Port 111 is left alone.
    Off,
}

/// When COMMIT is answered (D5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// When the bytes are on the local disk.
    #[default]
    Local,
    /// When they are in S3.
    S3,
}
