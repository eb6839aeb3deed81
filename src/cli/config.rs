//! From the flags of `serve` to a legal `Config`: what no flag can check alone.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::allow;
use super::peers;
use super::serve::{ServeArgs, StaleLimitArg};
use super::values::{AdminAddress, BucketUrl};
use crate::access::Network;
use crate::config::{self, Config, Encryption, EventSource, NewObjects, S3Config, StaleLimit};
use crate::content::CacheLimit;
use crate::index::Defaults;
use crate::mount::place;
use crate::notify::Secret;
use crate::store::conditions::Conditions;
use crate::writeback::{self, Exclude};

/// Why flags, each well written, make no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number outside its range.
    #[error("{flag} must be {wanted}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What it may be.
        wanted: String,
    },
    /// `--cache` is a file.
    #[error("--cache {0}: not a directory")]
    CacheNoDirectory(String),
    /// An empty value, as an unset variable gives in a script.
    #[error("{0} is empty: leave it out, or give it a value")]
    Empty(&'static str),
    /// `--stale-wait` alone.
    #[error("--stale-wait only means something with --stale-limit one")]
    StaleWaitAlone,
    /// `--anon-uid` or `--anon-gid` alone.
    #[error("{0} only means something with --squash root or --squash all, or a rule that squashes")]
    AnonymousUnused(&'static str),
    /// Other machines can reach it, and nobody said which may.
    #[error(
        "--listen {0} takes clients from other machines: say which may come in, as in --allow 192.168.1.0/24 (all of them: --allow {1})"
    )]
    ListenOpen(SocketAddr, &'static str),
    /// Only this machine can reach it, and may not come in.
    #[error("--listen {0} takes clients from this machine alone, which --allow does not let in: add --allow {ip}, or listen elsewhere", ip = .0.ip())]
    NobodyAllowed(SocketAddr),
    /// Two rules for one network.
    #[error("--allow has {0} twice: say once what it may")]
    AllowedTwice(Network),
    /// Two listeners on one port.
    #[error("--listen and --admin have the same address: give one of them another port")]
    SameAddress,
    /// `--endpoint-url` is no HTTP URL.
    #[error("--endpoint-url must begin with http:// or https:// and hold no user name or password")]
    EndpointUrl,
    /// Credentials asked for and refused.
    #[error("--no-sign-request sends no credentials, so --profile and --request-payer cannot go with it")]
    Anonymous,
    /// `--sse-kms-key-id` without KMS.
    #[error("--sse-kms-key-id only means something with --sse aws:kms or --sse aws:kms:dsse")]
    KmsKeyAlone,
    /// KMS asked for by nobody in particular.
    #[error("--sse {0} needs signed requests, so it cannot go with --no-sign-request")]
    AnonymousKms(String),
    /// `--peers` names no NATS.
    #[error("--peers: {0}")]
    Peers(String),
    /// `--exclude` is no glob.
    #[error("--exclude {0}")]
    Exclude(String),
    /// No `--cache`, and no place for one.
    #[error("give --cache DIR: nothing says where this user's caches are (HOME is not set)")]
    NoCache,
    /// `-o` holds what fasts3 says itself.
    #[error("-o {0}: fasts3 says that itself; the port is that of --listen")]
    MountOption(String),
    /// A webhook that anybody could use.
    #[error(
        "--events webhook= needs a secret that senders show: make one with `openssl rand -hex 32 > FILE` and give \
         --events-secret-file FILE, or set FASTS3_EVENTS_SECRET"
    )]
    NoEventsSecret,
    /// `--events-secret-file` alone.
    #[error("--events-secret-file only means something with --events webhook=")]
    EventsSecretAlone,
    /// `--events-secret-file` cannot be read, or what it holds cannot be used.
    #[error("{0}: {1}")]
    EventsSecret(String, String),
    /// One source twice.
    #[error("--events has {0} twice")]
    EventsTwice(String),
    /// A queue for somebody without a name.
    #[error("--events sqs= needs signed requests, so it cannot go with --no-sign-request")]
    AnonymousEvents,
    /// `--log` is no filter.
    #[error("--log: {0}; write a level, as in debug, or one for each module, as in warn,fasts3::revalidate=debug")]
    Log(String),
}

impl TryFrom<ServeArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: ServeArgs) -> Result<Config, ConfigError> {
        let cache = cache(&args)?;
        let admin = admin(&args)?;
        let (uid, gid) = owner();
        Ok(Config {
            cache_limit: cache_limit(args.cache_size)?,
            stale_limit: stale_limit(&args)?,
            small_object: within(
                "--small-object",
                args.small_object,
                0..=config::MAX_SMALL_OBJECT_BYTES,
                "64 MiB or less",
            )?,
            recheck: within("--recheck", args.recheck, Duration::ZERO..=DAY, "a day or less")?,
            recheck_healthy: within("--recheck-healthy", args.recheck_healthy, Duration::ZERO..=DAY, "a day or less")?,
            sweep: sweep(&args)?,
            deadline: within("--deadline", args.deadline, MIN_DEADLINE..=MAX_DEADLINE, "from 100ms to 10m")?,
            max_connections: within("--max-connections", args.max_connections, 1..=1 << 20, "from 1 to 1,048,576")?,
            shutdown_timeout: within(
                "--shutdown-timeout",
                args.shutdown_timeout,
                Duration::ZERO..=DAY,
                "a day or less",
            )?,
            defaults: Defaults {
                uid: args.uid.unwrap_or(uid),
                gid: args.gid.unwrap_or(gid),
                file_mode: args.file_mode,
                dir_mode: args.dir_mode,
            },
            writeback: writeback(&args)?,
            peers: peers::settings(&args.peers)?,
            durability: args.durability,
            grace: grace(&args)?,
            events: events(&args)?,
            events_secret: events_secret(&args, std::env::var(EVENTS_SECRET).ok())?,
            listen: args.listen,
            portmap: args.portmap,
            admin,
            export: args.export.clone(),
            read_only: args.read_only,
            access: allow::rules(&args)?,
            lazy: args.lazy,
            cache,
            s3_budget: args.s3_budget,
            s3: s3(args)?,
        })
    }
}

/// No more than a page a second is listed.
const MIN_SWEEP: Duration = Duration::from_secs(1);
/// Above, it finds nothing in time.
const MAX_SWEEP: Duration = Duration::from_secs(30 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
/// Below, even a nearby S3 would often be too slow.
const MIN_DEADLINE: Duration = Duration::from_millis(100);
/// Above, every client has given up.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

fn within<T: PartialOrd>(
    flag: &'static str,
    value: T,
    range: RangeInclusive<T>,
    wanted: &str,
) -> Result<T, ConfigError> {
    match range.contains(&value) {
        true => Ok(value),
        false => Err(ConfigError::Range { flag, wanted: wanted.into() }),
    }
}

/// Without anybody who tells of changes everything is as it was before there were any: unless it is asked for.
fn sweep(args: &ServeArgs) -> Result<Option<Duration>, ConfigError> {
    let is_told = !args.events.is_empty() || args.peers.peers.is_some();
    let sweep = args.sweep.or(is_told.then_some(config::SWEEP)).filter(|sweep| !sweep.is_zero());
    sweep.map(|sweep| within("--sweep", sweep, MIN_SWEEP..=MAX_SWEEP, "off, or from 1s to 30d")).transpose()
}

fn grace(args: &ServeArgs) -> Result<Option<Duration>, ConfigError> {
    let grace = within("--grace", args.grace, Duration::ZERO..=MAX_DEADLINE, "10m or less")?;
    Ok((!args.no_locks).then_some(grace))
}

/// `--cache`, or a place of this user's with the bucket's name.
fn cache(args: &ServeArgs) -> Result<PathBuf, ConfigError> {
    if let Some(cache) = &args.cache {
        check_cache(cache)?;
        return Ok(cache.clone());
    }
    let BucketUrl { bucket, prefix } = &args.bucket;
    let name = place::cache_name(bucket, prefix, args.endpoint_url.as_deref());
    Ok(place::cache_root().ok_or(ConfigError::NoCache)?.join(name))
}

fn check_cache(cache: &Path) -> Result<(), ConfigError> {
    if cache.as_os_str().is_empty() {
        return Err(ConfigError::Empty("--cache"));
    }
    match cache.metadata() {
        Ok(found) if !found.is_dir() => Err(ConfigError::CacheNoDirectory(cache.display().to_string())),
        _ => Ok(()), // missing is made, and what else is wrong shows when it is opened
    }
}

fn cache_limit(bytes: Option<u64>) -> Result<CacheLimit, ConfigError> {
    let Some(bytes) = bytes else { return Ok(CacheLimit::LeaveFree(config::FREE_SHARE, config::MOST_LEFT_FREE)) };
    within("--cache-size", bytes, config::MIN_CACHE_BYTES..=u64::MAX, "1 MiB or more").map(CacheLimit::Bytes)
}

fn stale_limit(args: &ServeArgs) -> Result<StaleLimit, ConfigError> {
    match (args.stale_limit, args.stale_wait) {
        (StaleLimitArg::Any, None) => Ok(StaleLimit::Any),
        (StaleLimitArg::Any, Some(_)) => Err(ConfigError::StaleWaitAlone),
        (StaleLimitArg::One, wait) => {
            let wait = wait.unwrap_or(config::STALE_WAIT);
            let longest = Duration::from_millis(1)..=MAX_DEADLINE;
            within("--stale-wait", wait, longest, "from 1ms to 10m").map(StaleLimit::One)
        }
    }
}

fn writeback(args: &ServeArgs) -> Result<writeback::Settings, ConfigError> {
    let globs: Vec<String> = args.exclude.iter().filter(|glob| !glob.is_empty()).cloned().collect();
    Ok(writeback::Settings {
        upload_delay: within("--upload-delay", args.upload_delay, Duration::ZERO..=DAY, "a day or less")?,
        longest_delay: config::LONGEST_UPLOAD_DELAY.max(args.upload_delay),
        uploads: within("--uploads", args.uploads, 1..=1_024, "from 1 to 1,024")?,
        multipart_threshold: config::MULTIPART_BYTES,
        part_bytes: config::PART_BYTES,
        on_conflict: args.on_conflict,
        exclude: Exclude::new(&globs).map_err(ConfigError::Exclude)?,
        host: args.host.clone().unwrap_or_else(host),
        // S3 itself honours all; of another server it is found out
        conditions: args.endpoint_url.is_none().then(Conditions::all),
    })
}

/// Holds the secret of `--events webhook=` itself, where a file is not wanted.
const EVENTS_SECRET: &str = "FASTS3_EVENTS_SECRET";

fn events(args: &ServeArgs) -> Result<Vec<EventSource>, ConfigError> {
    let events = &args.events;
    if args.no_sign_request && events.iter().any(|source| matches!(source, EventSource::Sqs(_))) {
        return Err(ConfigError::AnonymousEvents);
    }
    let mut twice = events.iter().enumerate().filter(|(n, source)| events[..*n].contains(source));
    match twice.next() {
        Some((_, source)) => Err(ConfigError::EventsTwice(source.to_string())),
        None => Ok(events.clone()),
    }
}

/// The file goes before the environment, which others may have set.
fn events_secret(args: &ServeArgs, environment: Option<String>) -> Result<Option<Secret>, ConfigError> {
    let has_webhook = args.events.iter().any(|source| matches!(source, EventSource::Webhook(_)));
    let (origin, text) = match (&args.events_secret_file, environment) {
        (Some(_), _) if !has_webhook => return Err(ConfigError::EventsSecretAlone),
        _ if !has_webhook => return Ok(None),
        (Some(file), _) => {
            let origin = format!("--events-secret-file {}", file.display());
            let text = std::fs::read_to_string(file);
            (origin.clone(), text.map_err(|e| ConfigError::EventsSecret(origin, e.to_string()))?)
        }
        (None, Some(text)) => (EVENTS_SECRET.to_owned(), text),
        (None, None) => return Err(ConfigError::NoEventsSecret),
    };
    Secret::new(&text).map(Some).map_err(|wrong| ConfigError::EventsSecret(origin, wrong))
}

/// The host's name, as far as somebody tells.
pub(super) fn host() -> String {
    #[cfg(unix)]
    let told = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let told = std::env::var("COMPUTERNAME").unwrap_or_default();
    let first = told.split('.').next().unwrap_or_default();
    if first.is_empty() { "host".to_owned() } else { first.to_owned() }
}

fn admin(args: &ServeArgs) -> Result<Option<SocketAddr>, ConfigError> {
    match args.admin {
        AdminAddress::Off => Ok(None),
        AdminAddress::At(admin) if admin == args.listen && admin.port() != 0 => Err(ConfigError::SameAddress),
        AdminAddress::At(admin) => Ok(Some(admin)),
    }
}

fn new_objects(args: &ServeArgs) -> Result<NewObjects, ConfigError> {
    let is_kms = args.sse.as_deref().is_some_and(|method| method.starts_with("aws:kms"));
    let kms_key = filled("--sse-kms-key-id", args.sse_kms_key_id.clone())?;
    if kms_key.is_some() && !is_kms {
        return Err(ConfigError::KmsKeyAlone);
    }
    if args.no_sign_request
        && is_kms
        && let Some(method) = &args.sse
    {
        return Err(ConfigError::AnonymousKms(method.clone()));
    }
    Ok(NewObjects {
        storage_class: args.storage_class.clone(),
        acl: args.acl.clone(),
        encryption: args.sse.clone().map(|method| Encryption { method, kms_key }),
    })
}

pub(super) fn filled(flag: &'static str, value: Option<String>) -> Result<Option<String>, ConfigError> {
    match value.as_deref() {
        Some("") => Err(ConfigError::Empty(flag)),
        _ => Ok(value),
    }
}

fn s3(args: ServeArgs) -> Result<S3Config, ConfigError> {
    let anonymous = args.no_sign_request;
    if anonymous && (args.profile.is_some() || args.request_payer) {
        return Err(ConfigError::Anonymous);
    }
    if args.endpoint_url.as_deref().is_some_and(|url| !is_endpoint(url)) {
        return Err(ConfigError::EndpointUrl);
    }
    Ok(S3Config {
        new_objects: new_objects(&args)?,
        bucket: args.bucket.bucket,
        prefix: args.bucket.prefix,
        endpoint_url: args.endpoint_url,
        region: filled("--region", args.region)?,
        profile: filled("--profile", args.profile)?,
        anonymous,
        requester_pays: args.request_payer,
        concurrency: args.s3_concurrency,
        rate: args.s3_rate,
    })
}

pub(super) fn is_endpoint(url: &str) -> bool {
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty() && !host.contains(|c: char| c == '@' || c.is_whitespace()))
}

/// User and group that this process runs as: its files are theirs.
#[cfg(unix)]
fn owner() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// Windows has no numbers for them: clients map 0 to whom they like.
#[cfg(not(unix))]
fn owner() -> (u32, u32) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::access::Rules;
    use crate::rpc::Squash;
    use crate::store::Dollars;

    /// What `serve s3://media/a --cache c` and `flags` make.
    fn config(flags: &str) -> Result<Config, String> {
        let line = format!("fasts3 serve s3://media/a --cache no-such-directory {flags}");
        let cli = Cli::try_parse_from(line.split(' ').filter(|word| !word.is_empty()).map(|w| w.replace("''", "")));
        match cli.map_err(|e| e.to_string())?.command {
            Command::Serve(args) => Config::try_from(*args).map_err(|e| e.to_string()),
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn sweep_is_on_where_somebody_tells_of_changes() {
        let sweep = |flags: &str| config(flags).map(|config| config.sweep);
        let queue = "--events sqs=https://sqs.eu-west-1.amazonaws.com/123456789012/q";
        assert_eq!(sweep(""), Ok(None), "without events everything is as it was");
        assert_eq!(sweep(queue), Ok(Some(config::SWEEP)));
        assert_eq!(sweep("--peers nats://localhost"), Ok(Some(config::SWEEP)));
        assert_eq!(sweep("--sweep 1h"), Ok(Some(Duration::from_secs(3600))));
        for off in ["off", "0", "0s"] {
            assert_eq!(sweep(&format!("{queue} --sweep {off}")), Ok(None));
        }
        assert!(sweep("--sweep 10ms").is_err() && sweep("--sweep 31d").is_err());
    }

    #[test]
    fn defaults_are_those_of_the_config() {
        let config = config("").expect("nothing is wrong");
        assert_eq!((config.s3.bucket.as_str(), config.s3.prefix.as_str()), ("media", "a/"));
        assert_eq!((config.listen, config.admin), (config::LISTEN, Some(config::ADMIN)));
        assert_eq!(config.cache_limit, CacheLimit::LeaveFree(config::FREE_SHARE, config::MOST_LEFT_FREE));
        assert_eq!((config.recheck, config.deadline), (config::RECHECK, config::DEADLINE));
        assert_eq!((config.recheck_healthy, config.sweep), (config::RECHECK_HEALTHY, None));
        assert_eq!(config.stale_limit, StaleLimit::Any);
        assert_eq!(
            (config.small_object, config.shutdown_timeout),
            (config::SMALL_OBJECT_BYTES, config::SHUTDOWN_TIMEOUT)
        );
        assert_eq!((config.defaults.file_mode, config.defaults.dir_mode), (config::FILE_MODE, config::DIR_MODE));
        assert_eq!((config.s3.concurrency.get(), config.s3.rate), (config::S3_CONCURRENCY, None));
        assert_eq!(config.s3_budget, None);
        assert_eq!(config.s3.new_objects, NewObjects::default());
        assert_eq!(config.access, Rules { rules: Rules::loopback(Squash::None), secure_ports: false });
        assert!(!config.lazy && !config.read_only && !config.s3.anonymous && config.export.is_none());
    }

    #[test]
    fn flags_reach_the_config() {
        let config = config(
            "--cache-size 50GiB --lazy --listen [::1]:0 --export /media --admin off --recheck 5s --stale-limit one \
             --stale-wait 300ms --deadline 3s --small-object 0 --endpoint-url http://127.0.0.1:9000 --region eu-west-1 \
             --no-sign-request --s3-concurrency 8 --s3-rate 100 --s3-budget $.5 --uid 33 --gid 34 --file-mode 0600 --dir-mode 700",
        )
        .expect("nothing is wrong");
        assert_eq!(config.cache_limit, CacheLimit::Bytes(50 << 30));
        assert_eq!((config.listen.to_string(), config.admin), ("[::1]:0".into(), None));
        assert_eq!(config.export.as_deref(), Some("media"));
        assert_eq!(config.stale_limit, StaleLimit::One(Duration::from_millis(300)));
        assert_eq!((config.recheck, config.small_object), (Duration::from_secs(5), 0));
        assert_eq!((config.defaults.uid, config.defaults.gid), (33, 34));
        assert_eq!((config.defaults.file_mode, config.defaults.dir_mode), (0o600, 0o700));
        assert_eq!(config.s3_budget, Some(Dollars(500_000_000)));
        assert!(config.lazy && config.s3.anonymous);
    }

    #[test]
    fn flags_for_new_objects_reach_the_config() {
        let flags = "--storage-class standard_ia --acl public-read --sse aws:kms --sse-kms-key-id alias/media";
        let new = config(flags).expect("nothing is wrong").s3.new_objects;
        let encryption = Encryption { method: "aws:kms".into(), kms_key: Some("alias/media".into()) };
        assert_eq!((new.storage_class.as_deref(), new.acl.as_deref()), (Some("STANDARD_IA"), Some("public-read")));
        assert_eq!(new.encryption, Some(encryption));
        let plain = config("--sse AES256").expect("nothing is wrong").s3.new_objects.encryption;
        assert_eq!(plain, Some(Encryption { method: "AES256".into(), kms_key: None }));
    }

    #[test]
    fn squashing_maps_to_nobody_unless_told_whom() {
        let squash = |flags| config(flags).map(|config| config.access.rules[0].grant.squash);
        assert_eq!(squash("--squash root"), Ok(Squash::Root(65_534, 65_534)));
        assert_eq!(squash("--squash all --anon-uid 33 --anon-gid 34"), Ok(Squash::All(33, 34)));
    }

    #[test]
    fn a_rule_squashes_in_the_place_of_the_flag() {
        let flags = "--squash root --allow 127.0.0.1,10.0.0.0/8=ro+squash-all,fd00::/8=squash-none --anon-uid 33";
        let rules = config(flags).expect("nothing is wrong").access.rules;
        let told: Vec<_> = rules.iter().map(|rule| (rule.grant.read_only, rule.grant.squash)).collect();
        let (root, all) = (Squash::Root(33, 65_534), Squash::All(33, 65_534));
        assert_eq!(told, [(false, root), (true, all), (false, Squash::None)]);
        assert!(config("--allow ::1,127.0.0.1=squash-all --anon-gid 5").is_ok());
    }

    #[test]
    fn other_machines_come_in_only_by_a_rule() {
        for (listen, everybody) in [
            ("0.0.0.0:2049", "--allow 0.0.0.0/0)"),
            ("192.168.1.1:2049", "--allow 0.0.0.0/0)"),
            ("[::]:2049", "--allow 0.0.0.0/0,::/0)"),
            ("[fd00::1]:2049", "--allow ::/0)"),
        ] {
            let flags = format!("--listen {listen}");
            let error = config(&flags).expect_err(listen);
            assert!(error.contains(listen) && error.contains("--allow 192.168.1.0/24"), "{error}");
            assert!(error.contains(everybody), "{error}");
            let allowed = config(&format!("{flags} --allow 192.168.1.0/24")).expect("a rule");
            assert_eq!(allowed.access.rules.len(), 1, "this machine is not let in unasked");
        }
        for listen in ["127.0.0.5:2049", "[::1]:2049", "[::ffff:127.0.0.1]:2049"] {
            assert!(config(&format!("--listen {listen}")).is_ok(), "{listen}");
        }
    }

    #[test]
    fn secret_of_the_webhook_comes_from_a_file_or_the_environment() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        let flags = format!("--events webhook=127.0.0.1:1 --events-secret-file {}", file.display());
        std::fs::write(&file, "short\n").expect("written");
        let error = config(&flags).expect_err("a weak secret");
        assert!(error.contains("openssl") && error.contains("--events-secret-file"), "{error}");
        std::fs::write(&file, "0123456789abcdef\n").expect("written");
        let told = config(&format!("{flags} --events sqs=http://h/1/q")).expect("nothing is wrong");
        assert_eq!((told.events.len(), told.events_secret), (2, Secret::new("0123456789abcdef").ok()));
        let args = ServeArgs::parse_from_iter("serve s3://media --cache c --events webhook=127.0.0.1:1".split(' '));
        let given = events_secret(&args, Some("fedcba9876543210".into()));
        assert_eq!(given, Ok(Secret::new("fedcba9876543210").ok()));
        assert!(events_secret(&args, Some("weak".into())).is_err_and(|e| e.to_string().contains(EVENTS_SECRET)));
    }

    #[test]
    fn wrong_configuration_says_which_flag_and_what_is_right() {
        for (flags, flag, hint) in [
            ("--recheck 5", "--recheck", "500ms"),
            ("--recheck 2days", "--recheck", "a day"),
            ("--deadline 1ms", "--deadline", "100ms"),
            ("--cache-size 10", "--cache-size", "1 MiB"),
            ("--cache-size huge", "--cache-size", "50GiB"),
            ("--small-object 1GiB", "--small-object", "64 MiB"),
            ("--stale-limit none", "--stale-limit", "any"),
            ("--stale-wait 1s", "--stale-wait", "--stale-limit one"),
            ("--stale-limit one --stale-wait 0s", "--stale-wait", "1ms"),
            ("--listen 127.0.0.1", "--listen", "127.0.0.1:2049"),
            ("--listen 127.0.0.1:7 --admin 127.0.0.1:7", "--admin", "another port"),
            ("--admin yes", "--admin", "off"),
            ("--export a/b", "--export", "without slashes"),
            ("--max-connections 0", "--max-connections", "from 1"),
            ("--s3-concurrency 0", "--s3-concurrency", "zero"),
            ("--s3-rate -1", "", "-1"),
            ("--s3-budget 0", "--s3-budget", "a cent"),
            ("--s3-budget $0.001", "--s3-budget", "a cent"),
            ("--s3-budget 5€", "--s3-budget", "US dollars"),
            ("--s3-budget 5/day", "--s3-budget", "0.50"),
            ("--s3-budget 1e3", "--s3-budget", "0.50"),
            ("--s3-budget=-5", "--s3-budget", "0.50"),
            ("--s3-budget 10000000", "--s3-budget", "a million"),
            ("--endpoint-url minio:9000", "--endpoint-url", "http://"),
            ("--endpoint-url http://me:secret@minio", "--endpoint-url", "password"),
            ("--region ''", "--region", "empty"),
            ("--no-sign-request --profile p", "--no-sign-request", "--profile"),
            ("--storage-class DEEP_ARCHIVE", "--storage-class", "GLACIER_IR"),
            ("--acl everybody", "--acl", "public-read"),
            ("--sse AES512", "--sse", "aws:kms:dsse"),
            ("--sse-kms-key-id k", "--sse-kms-key-id", "--sse aws:kms"),
            ("--sse AES256 --sse-kms-key-id k", "--sse-kms-key-id", "--sse aws:kms"),
            ("--sse aws:kms --sse-kms-key-id ''", "--sse-kms-key-id", "empty"),
            ("--sse aws:kms --no-sign-request", "--sse aws:kms", "--no-sign-request"),
            ("--file-mode 999", "--file-mode", "octal"),
            ("--uid root", "--uid", "invalid"),
            ("--squash some", "--squash", "root"),
            ("--anon-uid 33", "--anon-uid", "--squash"),
            ("--allow 10.0.0.0/8", "--allow 127.0.0.1", "listen elsewhere"),
            ("--listen [::1]:7 --allow 127.0.0.1", "--allow ::1", "listen elsewhere"),
            ("--allow 127.0.0.1=ro,127.0.0.1=rw", "--allow", "127.0.0.1 twice"),
            ("--allow 127.0.0.1=wr", "--allow", "rw"),
            ("--allow ''", "--allow", "10.0.0.0/8"),
            ("--events q", "--events", "sqs=https://"),
            ("--events sqs=arn:aws:sqs:eu-west-1:1:q", "--events", "not by its ARN"),
            ("--events sqs=http://me:x@host/1/q", "--events", "password"),
            ("--events webhook=9050", "--events", "IP:PORT"),
            ("--events webhook=127.0.0.1:1", "--events webhook=", "--events-secret-file"),
            ("--events sqs=http://h/1/q,sqs=http://h/1/q", "--events", "twice"),
            ("--events sqs=http://h/1/q --no-sign-request", "--events sqs=", "--no-sign-request"),
            ("--events sqs=http://h/1/q --events-secret-file f", "--events-secret-file", "webhook="),
            ("--events webhook=[::1]:1 --events-secret-file no-such-file", "--events-secret-file no-such-file", ""),
            ("--peers http://one", "--peers", "nats://HOST"),
            ("--peers nats://me:pass@one,nats://me:word@two", "--peers", "the same user"),
            ("--peers-creds f", "--peers", "--peers"),
            ("--peers nats://one --peer-inline 1MiB", "--peer-inline", "64 KiB"),
            ("--peers nats://one --peers-cert c", "--peers-key", "--peers-key"),
            ("--peers nats://one --peers-group ''", "--peers-group", "empty"),
            ("--cache-szie 1GiB", "--cache-szie", "--cache-size"),
        ] {
            let error = config(flags).expect_err(flags);
            assert!(error.contains(flag) && error.contains(hint), "{flags}: {error}");
        }
    }

    #[test]
    fn cache_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert!(matches!(check_cache(file.path()), Err(ConfigError::CacheNoDirectory(_))));
        assert_eq!(check_cache(Path::new("")), Err(ConfigError::Empty("--cache")));
    }

    #[test]
    fn two_listeners_may_both_take_a_free_port() {
        assert!(config("--listen 127.0.0.1:0 --admin 127.0.0.1:0").is_ok());
    }
}
