//! `fasts3 serve`: its flags, and the life of a server in the foreground.

use std::future::{self, Future};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use tracing::{info, warn};

use super::allow::AllowRule;
use super::peers::PeersArgs;
use super::signals::Signals;
use super::values::{self, AdminAddress, BucketUrl};
use super::{output, progress, systemd};
use crate::config::{self, Config, Durability, EventSource, PortmapMode};
use crate::server::Server;
use crate::store::Dollars;
use crate::writeback::{self, OnConflict};

/// Flags of `serve`. What each may be is checked by `Config::try_from`.
#[derive(Debug, Args)]
#[command(after_help = "When it can answer, one line goes to stdout: `ready nfs=ADDRESS export=/ admin=ADDRESS`.\n\
    Where port 111 leads to it (--portmap), mount it on Linux with: mount -t nfs 127.0.0.1:/ DIR\n\
    and elsewhere with: mount -t nfs -o nfsvers=3,proto=tcp,port=2049,mountport=2049,nolock,actimeo=1 127.0.0.1:/ DIR")]
pub struct ServeArgs {
    /// The bucket, or the part of it below a prefix, to serve
    #[arg(env = "FASTS3_BUCKET", value_name = "s3://BUCKET[/PREFIX]")]
    pub bucket: BucketUrl,

    /// Directory for the copy of the bucket; one server a directory, and a restart goes on with what is there
    #[arg(long, env = "FASTS3_CACHE", value_name = "DIR", required = true, help_heading = "Cache")]
    pub cache: Option<PathBuf>,

    /// Most bytes of objects to keep, as in 50GiB; the least recently used go first [default: what leaves 10% of the
    /// disk free, or 4 GiB where that is less]
    #[arg(long, env = "FASTS3_CACHE_SIZE", value_name = "SIZE", value_parser = values::bytes, help_heading = "Cache")]
    pub cache_size: Option<u64>,

    /// Fetch what is asked for and nothing else, instead of copying the whole bucket in the background
    #[arg(long, env = "FASTS3_LAZY", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "Cache")]
    pub lazy: bool,

    /// Address for NFS, MOUNT and portmap; port 0 picks a free one. One that other machines can reach needs `--allow`
    #[arg(long, env = "FASTS3_LISTEN", value_name = "IP:PORT", value_parser = values::address,
          default_value_t = config::LISTEN, help_heading = "Serving")]
    pub listen: SocketAddr,

    /// Whether clients find the server by port 111, as a mount without options does: `auto` if NFS is on 2049 and this
    /// can be had, `on` or fail, `off`. Where the system has a portmapper (rpcbind), the server registers there, else it
    /// is the portmapper, which takes root
    #[arg(long, env = "FASTS3_PORTMAP", value_name = "auto|on|off", value_enum, default_value_t = PortmapMode::Auto,
          help_heading = "Serving")]
    pub portmap: PortmapMode,

    /// A name for the export besides `/` (Windows needs one)
    #[arg(long, env = "FASTS3_EXPORT", value_name = "NAME", value_parser = values::export, help_heading = "Serving")]
    pub export: Option<String>,

    /// Who may come in: addresses or networks, IPv4 or IPv6, each perhaps with `=` and, joined by `+`, what it may: `ro`
    /// or `rw`, and `squash-none`, `squash-root` or `squash-all` in the place of `--squash`; as in
    /// 10.0.0.0/8=ro,10.1.2.3,fd00::/8=rw+squash-all. The longest prefix that fits decides, all others are refused, this
    /// machine too unless it is named [default: this machine, 127.0.0.0/8 and ::1]
    #[arg(long, env = "FASTS3_ALLOW", value_name = "RULE", value_delimiter = ',', help_heading = "Serving")]
    pub allow: Vec<AllowRule>,

    /// Let clients in only from ports below 1024, which on Unix the superuser alone can use. Off, because Windows, macOS
    /// and clients in user space may use any port, and who owns a machine has them all
    #[arg(long, env = "FASTS3_SECURE_PORTS", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "Serving")]
    pub secure_ports: bool,

    /// Refuse all changes
    #[arg(long, env = "FASTS3_READ_ONLY", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "Serving")]
    pub read_only: bool,

    /// Whom to take for nobody, whatever a client says: `none`, the superuser (`root`), or everybody (`all`). The
    /// default trusts whom `--allow` lets in
    #[arg(long, env = "FASTS3_SQUASH", value_name = "none|root|all", value_enum, default_value_t = SquashArg::None,
          help_heading = "Serving")]
    pub squash: SquashArg,

    /// With `--squash root` or `all`: the user that is nobody [default: 65534]
    #[arg(long, env = "FASTS3_ANON_UID", value_name = "ID", help_heading = "Serving")]
    pub anon_uid: Option<u32>,

    /// With `--squash root` or `all`: the group that is nobody's [default: 65534]
    #[arg(long, env = "FASTS3_ANON_GID", value_name = "ID", help_heading = "Serving")]
    pub anon_gid: Option<u32>,

    /// Give no locks: every flock or fcntl lock fails at once with "no locks available", instead of being kept apart from
    /// those of other clients
    #[arg(long, env = "FASTS3_NO_LOCKS", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "Serving")]
    pub no_locks: bool,

    /// How long after a restart only those get locks who had them before
    #[arg(long, env = "FASTS3_GRACE", value_name = "TIME", value_parser = values::duration, default_value = "30s",
          hide = true)]
    pub grace: Duration,

    /// Most client connections at once; further ones wait
    #[arg(long, env = "FASTS3_MAX_CONNECTIONS", value_name = "N", default_value_t = config::MAX_CONNECTIONS,
          help_heading = "Serving")]
    pub max_connections: usize,

    /// Address of the status page, of /status (JSON) and /metrics (Prometheus), or off
    #[arg(long, env = "FASTS3_ADMIN", value_name = "IP:PORT|off", default_value_t = AdminAddress::At(config::ADMIN),
          help_heading = "Serving")]
    pub admin: AdminAddress,

    /// How long to let calls finish after SIGTERM or SIGINT
    #[arg(long, env = "FASTS3_SHUTDOWN_TIMEOUT", value_name = "TIME", value_parser = values::duration,
          default_value = "8s", help_heading = "Serving")]
    pub shutdown_timeout: Duration,

    /// How old an answer may be before S3 is asked again behind it; each such question is a request S3 bills
    #[arg(long, env = "FASTS3_RECHECK", value_name = "TIME", value_parser = values::duration,
          default_value = "1s", help_heading = "Freshness")]
    pub recheck: Duration,

    /// The same while an event source proves that it tells of changes
    #[arg(long, env = "FASTS3_RECHECK_HEALTHY", value_name = "TIME", value_parser = values::duration,
          default_value = "60s", help_heading = "Freshness")]
    pub recheck_healthy: Duration,

    /// How long to take for listing the whole bucket, over and over, to find what no event told of; or off. At most one LIST a
    /// second is sent, for 1,000 keys each: beyond 900,000 keys 15m are not enough, and a pass takes as long as it takes.
    /// With `--lazy` only directories that were listed are [default: 15m with --events or --peers, else off]
    #[arg(long, env = "FASTS3_SWEEP", value_name = "TIME|off", value_parser = values::duration_or_off,
          help_heading = "Freshness")]
    pub sweep: Option<Duration>,

    /// What a stale copy may still be used for: `any` answers at once, always; `one` lets the next open of a file wait
    /// for the check that an earlier request set off
    #[arg(long, env = "FASTS3_STALE_LIMIT", value_name = "any|one", value_enum, default_value_t = StaleLimitArg::Any,
          help_heading = "Freshness")]
    pub stale_limit: StaleLimitArg,

    /// With `--stale-limit one`: the longest wait of an open [default: 2s]
    #[arg(long, env = "FASTS3_STALE_WAIT", value_name = "TIME", value_parser = values::duration,
          help_heading = "Freshness")]
    pub stale_wait: Option<Duration>,

    /// Longest wait for what is not in the cache; then the client is told to ask again
    #[arg(long, env = "FASTS3_DEADLINE", value_name = "TIME", value_parser = values::duration,
          default_value = "10s", help_heading = "Freshness")]
    pub deadline: Duration,

    /// Up to this size, an object is checked and fetched by one request
    #[arg(long, env = "FASTS3_SMALL_OBJECT", value_name = "SIZE", value_parser = values::bytes, default_value = "1MiB",
          help_heading = "Freshness")]
    pub small_object: u64,

    /// Where S3's events come from, so that a change is known at once: a queue that the bucket sends them to (`fasts3
    /// events setup` makes one), or an address where MinIO, Ceph or EventBridge push them. Give it several times for
    /// several
    #[arg(
        long,
        env = "FASTS3_EVENTS",
        value_name = "sqs=URL|webhook=IP:PORT",
        value_delimiter = ',',
        help_heading = "Freshness"
    )]
    pub events: Vec<EventSource>,

    /// With `--events webhook=`: a file with the secret that senders show. FASTS3_EVENTS_SECRET may hold the secret
    /// itself
    #[arg(long, env = "FASTS3_EVENTS_SECRET_FILE", value_name = "FILE", help_heading = "Freshness")]
    pub events_secret_file: Option<PathBuf>,

    /// Other servers
    #[command(flatten)]
    pub peers: PeersArgs,

    /// URL of an S3 that is not Amazon's (MinIO, Ceph, R2, garage); implies path-style requests
    #[arg(long, env = "FASTS3_ENDPOINT_URL", value_name = "URL", help_heading = "S3")]
    pub endpoint_url: Option<String>,

    /// Region of the bucket [default: what the AWS environment or profile says]
    #[arg(long, env = "FASTS3_REGION", value_name = "REGION", help_heading = "S3")]
    pub region: Option<String>,

    /// Profile of the AWS configuration files to take credentials and region from
    #[arg(long, env = "FASTS3_PROFILE", value_name = "PROFILE", help_heading = "S3")]
    pub profile: Option<String>,

    /// Send no credentials: for public buckets
    #[arg(long, env = "FASTS3_NO_SIGN_REQUEST", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "S3")]
    pub no_sign_request: bool,

    /// Agree to pay for requests to a requester-pays bucket
    #[arg(long, env = "FASTS3_REQUEST_PAYER", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "S3")]
    pub request_payer: bool,

    /// Most requests to S3 at once
    #[arg(long, env = "FASTS3_S3_CONCURRENCY", value_name = "N", default_value = "64", help_heading = "S3")]
    pub s3_concurrency: NonZeroU32,

    /// Most requests to S3 a second [default: as many as S3 takes]
    #[arg(long, env = "FASTS3_S3_RATE", value_name = "N", help_heading = "S3")]
    pub s3_rate: Option<NonZeroU32>,

    /// What a day's requests to S3 may cost, in US dollars at AWS's list prices, as in 5 or 0.50. When it is used up, checks
    /// behind answers and the mirror go slowly; clients and uploads count too, and never wait [default: no limit]
    #[arg(long, env = "FASTS3_S3_BUDGET", value_name = "DOLLARS", value_parser = values::dollars, help_heading = "S3")]
    pub s3_budget: Option<Dollars>,

    /// Storage class of new objects, as in STANDARD_IA or INTELLIGENT_TIERING; one that is rewritten keeps its own
    /// [default: that of the bucket, which is STANDARD on AWS]
    #[arg(long, env = "FASTS3_STORAGE_CLASS", value_name = "CLASS", value_parser = values::storage_class,
          help_heading = "New objects")]
    pub storage_class: Option<String>,

    /// Canned ACL of what is written; the bucket must have ACLs switched on, which AWS's have not by themselves
    #[arg(long, env = "FASTS3_ACL", value_name = "ACL", value_parser = values::acl(), help_heading = "New objects")]
    pub acl: Option<String>,

    /// Encryption at rest of what is written: S3's own keys (AES256), or those of KMS, once or twice over
    /// [default: that of the bucket, which is AES256 on AWS]
    #[arg(long, env = "FASTS3_SSE", value_name = "METHOD", value_parser = values::sse(), help_heading = "New objects")]
    pub sse: Option<String>,

    /// With `--sse aws:kms` or `aws:kms:dsse`: id, alias or ARN of the key [default: the account's key for S3]
    #[arg(long, env = "FASTS3_SSE_KMS_KEY_ID", value_name = "KEY", help_heading = "New objects")]
    pub sse_kms_key_id: Option<String>,

    /// How long a file must be quiet before it is uploaded
    #[arg(long, env = "FASTS3_UPLOAD_DELAY", value_name = "TIME", value_parser = values::duration,
          default_value = "1s", help_heading = "Uploads")]
    pub upload_delay: Duration,

    /// Most objects uploaded at once
    #[arg(long, env = "FASTS3_UPLOADS", value_name = "N", default_value_t = config::UPLOADS, help_heading = "Uploads")]
    pub uploads: usize,

    /// Files with such names stay here and are not uploaded; give it several times, or separate by commas. An empty one
    /// uploads all
    #[arg(long, env = "FASTS3_EXCLUDE", value_name = "GLOB", value_delimiter = ',',
          default_values_t = writeback::DEFAULT_EXCLUDES.map(String::from), help_heading = "Uploads")]
    pub exclude: Vec<String>,

    /// When a file was changed here and in S3: keep both, the one of here beside the other under a name that says so, or
    /// let one of them win
    #[arg(long, env = "FASTS3_ON_CONFLICT", value_name = "WHAT", value_enum, default_value_t = OnConflict::KeepBoth,
          help_heading = "Uploads")]
    pub on_conflict: OnConflict,

    /// What COMMIT (fsync) waits for: the local disk, or S3
    #[arg(long, env = "FASTS3_DURABILITY", value_name = "local|s3", value_enum, default_value_t = Durability::Local,
          help_heading = "Uploads")]
    pub durability: Durability,

    /// What stands for this server in the names of conflicting copies [default: the host's name]
    #[arg(long, env = "FASTS3_HOST", value_name = "NAME", help_heading = "Uploads")]
    pub host: Option<String>,

    /// Owner of objects whose metadata names none [default: who runs the server]
    #[arg(long, env = "FASTS3_UID", value_name = "ID", help_heading = "Attributes")]
    pub uid: Option<u32>,

    /// Group of objects whose metadata names none [default: that of who runs the server]
    #[arg(long, env = "FASTS3_GID", value_name = "ID", help_heading = "Attributes")]
    pub gid: Option<u32>,

    /// Permissions of files whose metadata has none
    #[arg(long, env = "FASTS3_FILE_MODE", value_name = "OCTAL", value_parser = values::mode, default_value = "0644",
          help_heading = "Attributes")]
    pub file_mode: u32,

    /// Permissions of directories whose metadata has none
    #[arg(long, env = "FASTS3_DIR_MODE", value_name = "OCTAL", value_parser = values::mode, default_value = "0755",
          help_heading = "Attributes")]
    pub dir_mode: u32,
}

impl ServeArgs {
    /// Reads a command line whose first word is the command's name; like the program, it ends with a message and
    /// code 2 when the line is wrong.
    pub fn parse_from_iter<'a>(line: impl Iterator<Item = &'a str>) -> ServeArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ServeArgs,
        }
        <Line as clap::Parser>::parse_from(line).args
    }
}

/// `--stale-limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StaleLimitArg {
    /// An answer never waits.
    Any,
    /// At most one request is stale.
    One,
}

/// `--squash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SquashArg {
    /// Nobody.
    None,
    /// The superuser.
    Root,
    /// Everybody.
    All,
}

/// Serves until a signal says stop.
pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let Some(mut foreground) = Foreground::start(config).await? else { return Ok(()) };
    systemd::ready();
    foreground.serve_until(future::pending()).await;
    foreground.stop(future::ready(())).await
}

/// A server in the foreground, from its ready line to its end.
pub(super) struct Foreground {
    server: Server,
    signals: Signals,
    lazy: bool,
}

impl Foreground {
    /// Starts a server and prints its ready line. `None`: a signal came before that.
    pub(super) async fn start(config: Config) -> anyhow::Result<Option<Foreground>> {
        for rule in config.access.rules.iter().filter(|rule| rule.network.prefix() == 0) {
            let do_what = if config.read_only || rule.grant.read_only { "read" } else { "read and change" };
            warn!(listen = %config.listen, rule = %rule.network, "everybody who can reach this address can {do_what} the bucket");
        }
        let lazy = config.lazy;
        // before anything else, so that a signal during a slow start is not lost
        let mut signals = Signals::new()?;
        let server = tokio::select! {
            server = Server::start(config) => server?,
            () = signals.stop() => return Ok(None),
        };
        output::print(&server.ready_line())?;
        Ok(Some(Foreground { server, signals, lazy }))
    }

    /// Where NFS and MOUNT answer.
    pub(super) fn nfs_addr(&self) -> SocketAddr {
        self.server.nfs_addr()
    }

    /// Does `work` while it serves. `None`: a signal said stop before it was done.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.signals.stop() => None,
        }
    }

    /// Serves until a signal says stop, or `over` ends.
    pub(super) async fn serve_until(&mut self, over: impl Future<Output = ()>) {
        let (server, lazy) = (&self.server, self.lazy);
        let mirror = async {
            if !lazy {
                progress::follow(|| server.revalidator().mirror_progress()).await;
            }
            future::pending::<()>().await;
        };
        tokio::select! {
            () = self.signals.stop() => {}
            () = over => {}
            () = mirror => {}
        }
        info!("stopping");
    }

    /// Stops, once `first` is done, for which it still serves.
    pub(super) async fn stop(self, first: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Foreground { server, mut signals, .. } = self;
        let all = async {
            first.await;
            server.stop().await;
        };
        tokio::select! {
            () = all => Ok(()),
            () = signals.stop() => anyhow::bail!("stopped at once by a second signal: what was in flight is lost"),
        }
    }
}
