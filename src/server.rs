//! A whole server: builds the rooms in order, owns their tasks, and stops them in the order that loses
//! nothing: no new calls, calls in flight end, uploads end, checks and fetches end, bytes are synced, the index closes.

mod answers;
mod behind;
mod ports;
mod registration;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::Access;
use crate::admin;
use crate::config::{Config, Durability, StaleLimit};
use crate::content::{CacheDir, Content};
use crate::fs::{self, Fs, HandleKey};
use crate::index::{Index, IndexOptions, LockStart};
use crate::locks::{self, Locks};
use crate::nfs::Nfs3;
use crate::nfs::mount::Mount3;
use crate::nfs::nlm::{CallBack, Nlm4, Outbox};
use crate::nfs::nsm::{Notifier, Nsm1};
use crate::nfs::portmap::{self, Portmap};
use crate::nfs::reach::Directory;
use crate::notify::{Health, Intake, Scope, Sources, peers, sources};
use crate::revalidate::{Revalidator, Rounds, Settings};
use crate::rpc::{self, Gate, Program, Programs};
use crate::store::{self, Budget};
use crate::types::Clock;
use crate::writeback::{Rooms, Writeback};
use answers::Answers;
pub use behind::stand_back;
use ports::{Desks, Ports};
use registration::Registration;

/// 256 Ki inodes of some 300 bytes: what a busy tree touches, at a fifth of the memory of a million objects.
const CACHED_INODES: usize = 256 << 10;
/// As many names as inodes.
const CACHED_NAMES: usize = CACHED_INODES;
/// 64 MiB of redb pages: the inner pages of an index of a million objects, and then some.
const PAGE_CACHE_BYTES: usize = 64 << 20;

/// What a server finds around it, where the demo and the tests bring their own.
pub struct Surroundings {
    /// Source of time.
    pub clock: Clock,
    /// Credentials, and the bounds on what S3 may take.
    pub connecting: store::Connecting,
    /// Port of the clients' portmappers.
    pub client_portmapper: u16,
    /// Where calls are answered; `None`: on a runtime of its own.
    pub answers: Option<Handle>,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        let (clock, connecting) = (Clock::system(), store::Connecting::default());
        Surroundings { clock, connecting, client_portmapper: portmap::PORT, answers: None }
    }
}

/// A running server.
pub struct Server {
    nfs_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    fs: Fs,
    index: Arc<Index>,
    revalidator: Arc<Revalidator>,
    writeback: Arc<Writeback>,
    intake: Arc<Intake>,
    locks: Option<Arc<Locks>>,
    shutdown_timeout: Duration,
    /// Taken back first, so that nobody is sent to a port that is about to close.
    registration: Registration,
    /// Stops accepting calls; those in flight end.
    stop_calls: CancellationToken,
    /// Stops the uploads, which still need what runs behind the answers.
    stop_uploads: CancellationToken,
    /// Stops what runs behind the answers.
    stop_background: CancellationToken,
    calls: Vec<JoinHandle<()>>,
    uploads: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    /// Ends with this.
    _answers: Answers,
    /// Held to the end: one server a directory.
    _dir: CacheDir,
}

impl Server {
    /// Starts a server; it answers when this returns.
    /// # Errors
    /// One line that says what is wrong and what to do: the cache directory is in use or newer, the
    /// address is taken, or S3 refuses (an S3 that is merely unreachable is a warning, F8).
    pub async fn start(config: Config) -> anyhow::Result<Server> {
        Server::start_in(config, Surroundings::default()).await
    }

    /// Starts a server with a clock and credentials of the caller's.
    /// # Errors
    /// See `start`.
    pub async fn start_in(config: Config, around: Surroundings) -> anyhow::Result<Server> {
        let Surroundings { clock, connecting, client_portmapper, answers } = around;
        let dir = CacheDir::open(&config.cache)?;
        let answers = Answers::on(answers).context("cannot start the threads that answer")?;
        let mut ports = answers.within(|| Ports::bind(config.listen, config.portmap))?;
        if config.grace.is_none() {
            ports = ports.without_monitor();
        }
        let nfs_addr = ports.addr();

        let budget = config.s3_budget.map_or_else(Budget::unlimited, |day| Budget::new(day, clock.clone()));
        let counters = Arc::new(store::Counters::new(clock.clone(), budget));
        let connected = store::connect_with(&config.s3, counters.clone(), connecting).await?;
        if let Some(warning) = connected.warning {
            warn!("{warning}");
        }

        let options = IndexOptions {
            cached_inodes: CACHED_INODES,
            cached_names: CACHED_NAMES,
            page_cache_bytes: PAGE_CACHE_BYTES,
        };
        let index = Arc::new(Index::open(&dir.index(), options, config.defaults, clock.clone())?);
        let content = Content::open(dir.path(), index.clone(), config.cache_limit, clock.clone())
            .with_context(|| format!("cannot use {}", dir.path().display()))?;
        let carried = Arc::new(store::Carried::default());
        let stores = match config.peers {
            Some(_) => connected.stores.map(|store| carried.before(store)),
            None => connected.stores,
        };
        let revalidator = Revalidator::new(index.clone(), content.clone(), stores, settings(&config), clock.clone());

        let health = Health::new(revalidator.clone(), clock.clone());
        let intake = Intake::new(revalidator.clone());

        let identity = dir.identity();
        let (fsid, _) = identity.uuid.split_first_chunk::<8>().expect("a uuid has 16 bytes");
        let handles = HandleKey::new(identity.handle_key, u64::from_be_bytes(*fsid));
        let fs_settings = fs::Settings { read_only: config.read_only };
        let rooms = Rooms {
            index: index.clone(),
            content: content.clone(),
            revalidator: revalidator.clone(),
            store: connected.writes.clone(),
        };
        let writeback = Writeback::new(rooms, config.writeback.clone(), clock.clone());
        let mut fs = Fs::new(index.clone(), content.clone(), revalidator.clone(), handles, fs_settings, clock.clone());
        if config.durability == Durability::S3 && !config.read_only {
            fs = fs.committing_to_s3(writeback.clone(), config.deadline);
        }

        let LockStart { state, hosts } = index.lock_start().await?;
        let locks = match config.grace {
            Some(grace) => Some(Arc::new(Locks::new(hosts.clone(), grace, locks::Limits::default(), clock.clone()))),
            None => {
                // they are to reclaim nothing, now or later
                index.note_lock_hosts(Vec::new(), hosts.clone()).await?;
                None
            }
        };
        let portmap = Arc::new(ports.portmap(clock.clone()));
        let directory = Arc::new(Directory::new(client_portmapper, portmap.clone(), nfs_addr.port(), clock.clone()));
        let notifier = Notifier::new(hosts, state, config.writeback.host.clone(), directory.clone(), clock.clone());
        let (outbox, call_back) = CallBack::new(locks.clone(), directory, clock.clone());

        let stop_calls = CancellationToken::new();
        let setting = sources::Setting {
            scope: Scope::new(&config.s3.bucket, &config.s3.prefix),
            tell: intake.clone(),
            health: health.clone(),
            clock: clock.clone(),
            shared: connected.shared,
            requests: counters.clone(),
            secret: config.events_secret.clone(),
        };
        let sources = Sources::start(&config.events, &setting, &stop_calls).await?;
        let peers = config.peers.clone().map(|peers| {
            let place = peers::Place {
                server: uuid::Uuid::from_bytes(identity.uuid).simple().to_string(),
                host: config.writeback.host.clone(),
                endpoint: setting.shared.endpoint_url().map(str::to_owned),
                bucket: config.s3.bucket.clone(),
                prefix: config.s3.prefix.clone(),
            };
            setting.peers(peers, place, carried)
        });
        if let Some(peers) = &peers {
            writeback.announce_to(peers.clone());
        }

        let stats = Arc::new(rpc::Stats::default());
        let config = Arc::new(config);
        let status = admin::State {
            index: index.clone(),
            content: content.clone(),
            revalidator: revalidator.clone(),
            store: connected.writes,
            writeback: (!config.read_only).then(|| writeback.clone()),
            config: config.clone(),
            intake: intake.clone(),
            health: health.clone(),
            sources: sources.health,
            peers: peers.clone(),
            requests: counters,
            calls: stats.clone(),
            locks: locks.clone(),
            started: clock.now(),
            clock: clock.clone(),
        };

        let (stop_uploads, stop_background) = (CancellationToken::new(), CancellationToken::new());
        let uploads = match config.read_only {
            true => Vec::new(),
            false => vec![tokio::spawn(writeback.clone().run(stop_uploads.clone()))],
        };
        let mut background = vec![
            tokio::spawn(content.run(stop_background.clone())),
            tokio::spawn(revalidator.clone().run(stop_background.clone())),
            tokio::spawn(health.clone().run(stop_background.clone())),
        ];
        if let Some(every) = config.sweep {
            let rounds = Rounds { every, listed_only: config.lazy };
            let stop = stop_background.clone();
            background.push(tokio::spawn(revalidator.clone().keep_sweeping(rounds, health.clone(), stop)));
        }
        if !config.lazy {
            background.push(tokio::spawn(revalidator.clone().mirror(stop_background.clone())));
        }
        background.push(tokio::spawn(call_back.run(stop_background.clone())));
        if let Some(peers) = peers {
            // it tells of the last uploads too
            background.push(tokio::spawn(sources::run_peers(peers, stop_background.clone())));
        }
        if let Some(locks) = &locks {
            background.push(tokio::spawn(locks.clone().keep(index.clone(), stop_background.clone())));
            background.push(tokio::spawn(notifier.run(stop_background.clone())));
        }
        let admin = admin::serve(status, stop_calls.clone()).await?;
        let admin_addr = admin.addr();
        let mut calls = admin.into_tasks();
        calls.extend(sources.tasks);
        let registration = ports.announce().await?;
        let desks = desks(&fs, &config, portmap, Locking { locks: locks.clone(), outbox, state });
        calls.extend(answers.within(|| ports.serve(desks, limits(&config), stats, &stop_calls)));

        info!(bucket = %config.s3.bucket, prefix = %config.s3.prefix, cache = %dir.path().display(), "serving");
        Ok(Server {
            nfs_addr,
            admin_addr,
            fs,
            index,
            revalidator,
            writeback,
            intake,
            locks,
            shutdown_timeout: config.shutdown_timeout,
            registration,
            stop_calls,
            stop_uploads,
            stop_background,
            calls,
            uploads,
            background,
            _answers: answers,
            _dir: dir,
        })
    }

    /// Where NFS, MOUNT and portmap answer.
    pub fn nfs_addr(&self) -> SocketAddr {
        self.nfs_addr
    }

    /// The line that `serve` prints when it can answer.
    pub fn ready_line(&self) -> String {
        let admin = self.admin_addr.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        format!("ready nfs={} export=/ admin={admin}", self.nfs_addr)
    }

    /// The file system, for whoever wants to serve it through a listener of their own.
    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// What asks S3.
    pub fn revalidator(&self) -> &Arc<Revalidator> {
        &self.revalidator
    }

    /// What brings changes to S3.
    pub fn writeback(&self) -> &Arc<Writeback> {
        &self.writeback
    }

    /// What takes hints, for whoever has sources of their own.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Locks of clients; `None` with `--no-locks`.
    pub fn locks(&self) -> Option<&Arc<Locks>> {
        self.locks.as_ref()
    }

    /// Stops: calls in flight end first, then what runs behind them, within the shutdown timeout in all.
    pub async fn stop(mut self) {
        let all = async {
            self.registration.withdraw().await;
            self.stop_calls.cancel();
            join(self.calls).await;
            self.stop_uploads.cancel();
            join(self.uploads).await;
            self.stop_background.cancel();
            join(self.background).await;
            self.index.close().await;
        };
        if tokio::time::timeout(self.shutdown_timeout, all).await.is_err() {
            warn!(timeout = ?self.shutdown_timeout, "not all work ended in time; nothing committed is lost");
        }
    }
}

async fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            warn!(%error, "a task of the server failed");
        }
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        recheck: config.recheck,
        recheck_healthy: config.recheck_healthy,
        deadline: config.deadline,
        stale_wait: match config.stale_limit {
            StaleLimit::Any => None,
            StaleLimit::One(wait) => Some(wait),
        },
        small_object: config.small_object,
    }
}

fn limits(config: &Config) -> rpc::Limits {
    rpc::Limits { max_connections: config.max_connections, ..rpc::Limits::default() }
}

/// What the programs for locks are made of.
struct Locking {
    locks: Option<Arc<Locks>>,
    outbox: Outbox,
    /// The number of this start.
    state: u32,
}

/// What is answered, over TCP and over UDP.
fn desks(fs: &Fs, config: &Config, portmap: Arc<Portmap>, locking: Locking) -> Desks {
    let (fs, Locking { locks, outbox, state }) = (Arc::new(fs.clone()), locking);
    let nfs: Arc<dyn Program> = Arc::new(Nfs3::new(fs.clone()));
    let mut both: Vec<Arc<dyn Program>> = vec![
        Arc::new(Mount3::new(fs.clone(), config.export.clone())),
        portmap.clone(),
        Arc::new(Nlm4::new(fs, locks.clone(), outbox)),
    ];
    both.extend(locks.map(|locks| Arc::new(Nsm1::new(locks, state)) as Arc<dyn Program>));
    let gate: Arc<dyn Gate> = Arc::new(Access::new(config.access.clone()));
    Desks {
        streams: Programs::new([nfs].into_iter().chain(both.clone())).behind(gate.clone()),
        datagrams: Programs::new(both).behind(gate.clone()),
        portmap,
        gate,
    }
}
