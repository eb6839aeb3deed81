//! `fasts3 mount`: serves a bucket as `serve` does, and mounts it with the system's own NFS client.
//!
//! Order: the server answers, then the record of the mount is written, then it is mounted. At the end the reverse: the
//! client writes what it held back while we still serve, it is unmounted, and the server stops.
//! A server that was killed leaves a mount behind, which waits. The next `mount` on the same place and cache serves at
//! the same port, and the mount lives again, with all files that were open.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::config::ConfigError;
use super::serve::{Foreground, ServeArgs};
use super::{Failure, output, systemd};
use crate::config::Config;
use crate::content::{CacheDir, DirError};
use crate::mount::options::Options;
use crate::mount::record::{self, Record};
use crate::mount::{self, Entry, Plan, UnmountError, os, place};

/// Flags of `serve` that have another default here: a client is told the port, and many may be on one machine. Only that
/// of Windows has no option for it, and looks for a portmapper.
const LISTEN: &str = if cfg!(windows) { "127.0.0.1:2049" } else { "127.0.0.1:0" };
const PORTMAP: &str = if cfg!(windows) { "on" } else { "off" };

/// Flags of `mount`: its own, and those of `serve`.
#[derive(Debug, Args)]
#[command(mut_arg("cache", |arg| arg.required(false).help(CACHE_HELP)))]
#[command(mut_arg("listen", |arg| arg.default_value(LISTEN)))]
#[command(mut_arg("portmap", |arg| arg.default_value(PORTMAP)))]
#[command(mut_arg("admin", |arg| arg.default_value("off")))]
#[command(after_help = AFTER_HELP)]
pub struct MountArgs {
    /// What to serve, and how.
    #[command(flatten)]
    pub serve: ServeArgs,

    /// Directory to mount on (on Windows a drive letter, as in X:)
    #[arg(value_name = "MOUNTPOINT")]
    pub point: PathBuf,

    /// Options for the system's NFS client, besides and instead of ours (see below)
    #[arg(short = 'o', long, env = "FASTS3_OPTIONS", value_name = "OPTION,...", help_heading = "Mounting")]
    pub options: Vec<String>,

    /// Return as soon as it is mounted, and go on in the background; the log is then DIR/fasts3.log of the cache
    #[arg(long, env = "FASTS3_BACKGROUND", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue,
          help_heading = "Mounting")]
    pub background: bool,

    /// Be the process in the background
    #[arg(long, env = "FASTS3_DETACHED", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue, hide = true)]
    pub detached: bool,
}

const CACHE_HELP: &str = "Directory for the copy of the bucket [default: BUCKET in the user's cache directory: \
    ~/.cache/fasts3, ~/Library/Caches/fasts3 or %LOCALAPPDATA%\\fasts3; /var/cache/fasts3 of root on Linux]";

const AFTER_HELP: &str = "\
When it can answer, `ready nfs=ADDRESS export=/ admin=ADDRESS` goes to stdout, and when it is mounted `mounted MOUNTPOINT`.
It ends, and unmounts, on SIGTERM and SIGINT; it ends too when somebody else unmounts it.

What the NFS client is told on Linux; a word in -o with the same meaning wins:
  nolock              programs of this machine share one client, which knows their locks itself
  noacl               no POSIX ACLs, which S3 does not have
  actimeo=1           trust what is known of a file for 1 s, not for up to a minute
  hard                calls wait for a server that is being restarted, and never fail because of it
  noresvport          connect from any port, so that a lost connection is back at once
  rsize, wsize        1 MiB a call, the most that the kernel does
  nosuid, nodev       who can write to the bucket does not become root here
On macOS: hard, nosuid, locallocks, actimeo=1. On Windows: anon, nolock, mtype=hard.";

/// What is to be done, once all has been looked at.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) config: Config,
    plan: Plan,
    /// A mount of ours is there already, and waits for its server.
    revives: bool,
}

/// Looks at everything that can be wrong before a server is started.
pub(super) fn prepare(args: MountArgs) -> Result<Task, Failure> {
    let bucket = format!("s3://{}/{}", args.serve.bucket.bucket, args.serve.bucket.prefix);
    let options = Options::parse(args.options.iter().map(String::as_str));
    if let Some(word) = options.not_theirs() {
        return Err(ConfigError::MountOption(word.to_owned()).into());
    }
    let mut config = Config::try_from(args.serve)?;
    config.cache = std::path::absolute(&config.cache).context("the current directory is gone")?;
    let export = config.export.get_or_insert_with(|| config.s3.bucket.clone());
    let table = os::table().context("cannot read the mount table")?;
    let point = place::resolve(&args.point, &table)
        .with_context(|| format!("the mount point {} does not exist", args.point.display()))?;
    let mut plan = Plan {
        bucket: bucket.trim_end_matches('/').to_owned(),
        server: mount::reached_at(config.listen),
        export: format!("/{export}"),
        point,
        options: options.over(implied(&config)),
    };
    let left_over = match mount::mounted_at(&plan.point).context("cannot read the mount table")? {
        Some(entry) => Some(left_over(&entry, &config.cache)?),
        None => None,
    };
    let revives = match left_over {
        Some(record) => takes_port_of(&record, &mut config.listen),
        None => {
            check_point(&plan.point)?;
            false
        }
    };
    plan.server = mount::reached_at(config.listen);
    if !revives {
        os::may_mount(&plan).map_err(anyhow::Error::from)?;
    }
    Ok(Task { config, plan, revives })
}

/// What flags of the server mean for the client. Windows has no word for either.
fn implied(config: &Config) -> impl Iterator<Item = &'static str> {
    let words = [(config.read_only, "ro"), (config.access.secure_ports, "resvport")];
    words.into_iter().filter(|(is_so, _)| *is_so && !cfg!(windows)).map(|(_, word)| word)
}

fn check_point(point: &Path) -> anyhow::Result<()> {
    if !place::check(point)? {
        warn!("{} is not empty: what is in it is hidden until it is unmounted", point.display());
    }
    Ok(())
}

/// The record of a mount that a dead server of `cache` left behind.
/// # Errors
/// It is anything else.
fn left_over(entry: &Entry, cache: &Path) -> anyhow::Result<Record> {
    let (point, source) = (entry.point.display(), &entry.source);
    let Some(record) = record::find(&entry.point).filter(|record| record.is_of(entry)) else {
        bail!("{point} is a mount point already (of {source}): unmount that first, or give another directory")
    };
    let bucket = &record.bucket;
    if is_served(&record.cache) {
        bail!("{bucket} is mounted on {point} already: `fasts3 umount {point}` unmounts it")
    }
    if record.cache != cache {
        let dead = record.cache.display();
        bail!(
            "{bucket} is mounted on {point} from the cache {dead}, and its server is dead: `fasts3 umount {point}` first"
        )
    }
    Ok(record)
}

/// Whether a server runs on a cache directory.
pub(super) fn is_served(cache: &Path) -> bool {
    cache.join("identity").exists() && matches!(CacheDir::open(cache), Err(DirError::InUse { .. }))
}

/// Whether the port of a dead server can be had and is wanted; it is then `listen`'s.
fn takes_port_of(record: &Record, listen: &mut SocketAddr) -> bool {
    let wanted = SocketAddr::new(listen.ip(), record.server.port());
    let is_wanted = (listen.port() == 0 || *listen == wanted) && mount::reached_at(wanted) == record.server;
    let takes = is_wanted && TcpListener::bind(wanted).is_ok();
    if takes {
        *listen = wanted;
    }
    takes
}

/// Serves and mounts until a signal says stop, or somebody unmounts it.
pub(super) async fn run(task: Task) -> anyhow::Result<()> {
    let Task { config, mut plan, revives } = task;
    let cache = config.cache.clone();
    let Some(mut foreground) = Foreground::start(config).await? else { return Ok(()) };
    plan.server = mount::reached_at(foreground.nfs_addr());
    let mounted = match foreground.meanwhile(Mounted::make(plan, cache, revives)).await {
        Some(Ok(mounted)) => mounted,
        failed => {
            foreground.stop(std::future::ready(())).await?;
            return failed.unwrap_or_else(|| bail!("stopped by a signal before it was mounted")).map(drop);
        }
    };
    output::print(&format!("mounted {}", mounted.record.point.display()))?;
    systemd::ready();
    foreground.serve_until(mounted.gone()).await;
    foreground.stop(mounted.unmount()).await
}

/// A mount of ours that is there.
struct Mounted {
    record: Record,
    id: Option<u64>,
}

impl Mounted {
    /// Mounts `plan`, or takes over the mount that is there.
    async fn make(plan: Plan, cache: PathBuf, revives: bool) -> anyhow::Result<Mounted> {
        let (source, point) = (plan.source(), plan.point.clone());
        let mut record = Record { point, source, server: plan.server, bucket: plan.bucket.clone(), cache };
        if revives && let Some(old) = record::find(&record.point) {
            info!(point = %record.point.display(), "the mount that a dead server left here has one again");
            record.source = old.source;
        }
        record.save().context("cannot write the record of the mount")?;
        if !revives {
            let done = blocking(move || mount_anew(&plan)).await;
            if let Err(error) = done {
                record.forget();
                return Err(error);
            }
        }
        let entry = mount::mounted_at(&record.point)?.context("it is mounted, and not in the mount table")?;
        if entry.source != record.source {
            // a line of fstab says what is mounted
            record = Record { source: entry.source, ..record };
            record.save().context("cannot write the record of the mount")?;
        }
        Ok(Mounted { record, id: entry.id })
    }

    /// Whether it is there, and whether it is what is seen at its place.
    fn state(&self) -> io::Result<State> {
        let is_ours = |entry: &Entry| entry.id == self.id && self.record.is_of(entry);
        let table = os::table()?;
        let seen = table.iter().rfind(|entry| entry.point == self.record.point);
        Ok(match seen {
            Some(entry) if is_ours(entry) => State::Seen,
            _ if table.iter().any(is_ours) => State::Covered,
            _ => State::Gone,
        })
    }

    /// Waits until somebody has unmounted it.
    async fn gone(&self) {
        let watched = async {
            let mut changes = os::Changes::new()?;
            while self.state()? != State::Gone {
                changes.next().await?;
            }
            io::Result::Ok(())
        };
        match watched.await {
            Ok(()) => info!(point = %self.record.point.display(), "unmounted by somebody"),
            Err(error) => {
                warn!(%error, "the mount table cannot be watched: this ends with a signal, not with an umount");
                std::future::pending().await
            }
        }
    }

    /// Unmounts; the server must still answer.
    async fn unmount(&self) {
        match self.state() {
            Ok(State::Seen) => self.unmount_seen().await,
            Ok(State::Gone) => {}
            Ok(State::Covered) => {
                warn!(point = %self.record.point.display(), "something else is mounted over it: it stays, without a server");
                return;
            }
            Err(error) => return warn!(%error, "cannot read the mount table: not unmounted"),
        }
        self.record.forget();
    }

    async fn unmount_seen(&self) {
        let point = self.record.point.clone();
        let unmounted = blocking(move || match os::unmount(&point) {
            Err(UnmountError::Busy { .. } | UnmountError::Refused { .. }) if mount::mounted_at(&point)?.is_none() => {
                Ok(())
            }
            Err(error @ UnmountError::Busy { .. }) => {
                warn!("{error}: it is taken from under them; what they wrote is kept");
                if let Err(error) = os::flush(&point) {
                    warn!(%error, "not everything that programs wrote can be kept");
                }
                Ok(os::detach(&point)?)
            }
            done => Ok(done?),
        });
        match unmounted.await {
            Ok(()) => info!(point = %self.record.point.display(), "unmounted"),
            Err(error) => warn!("{error:#}"),
        }
    }
}

/// What the mount table says of a mount of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is what is seen at its place.
    Seen,
    /// Another is mounted over it.
    Covered,
    /// It is not there.
    Gone,
}

/// Mounts, after what a dead server left there has been taken away.
fn mount_anew(plan: &Plan) -> anyhow::Result<()> {
    if mount::mounted_at(&plan.point)?.is_some() {
        warn!("the port of the dead server is taken: files that are open on {} are lost", plan.point.display());
        os::detach(&plan.point)?;
    }
    Ok(os::mount(plan)?)
}

/// Runs `work` on a thread of its own, which does not keep the program from ending: the kernel may take as long as it
/// likes over a mount.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("mount".into()).spawn(move || drop(done.send(work())))?;
    result.await.context("the thread that mounts ended")?
}
