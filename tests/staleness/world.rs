//! One bucket, three servers of this process over it, and the record of what all of them said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fasts3::cli::ServeArgs;
use fasts3::config::Config;
use fasts3::s3server::{Bucket, Change, Options, S3Server};
use fasts3::server::Server;
use fasts3::types::ETag;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, mpsc};

use super::history::{self, History, Life, Record, Written};
use super::support::soon;

pub const SERVERS: usize = 3;
/// Changes that nobody was told of yet; the bench makes less.
const BACKLOG: usize = 1 << 20;

/// How a world is.
pub struct Setup {
    pub keys: usize,
    /// Whether all objects are of a kilobyte.
    pub are_small: bool,
    pub recheck: Duration,
    /// Further flags of each server.
    pub flags: [Vec<String>; SERVERS],
}

/// A change of the bucket, for whoever tells of it.
#[derive(Clone, Debug)]
pub struct News {
    pub key: usize,
    pub number: u64,
    /// `None`: removed.
    pub version: Option<(ETag, u64)>,
    /// When it was made, for whoever is interested.
    #[allow(dead_code)]
    pub at: Instant,
}

pub struct World {
    pub s3: S3Server,
    pub bucket: Bucket,
    pub setup: Setup,
    pub history: Arc<Mutex<History>>,
    pub record: Mutex<Record>,
    start: Instant,
    places: [RwLock<Place>; SERVERS],
    /// The number of a removal that is about to be made, by key.
    removals: Arc<Vec<AtomicU64>>,
}

/// Where a server runs.
pub struct Place {
    pub server: Option<Server>,
    pub life: Life,
    cache: TempDir,
}

impl World {
    /// With version 1 of every key. The other end is told of every change after that.
    pub async fn new(setup: Setup) -> (Arc<World>, mpsc::Receiver<News>) {
        let start = Instant::now();
        let s3 = S3Server::start(Options { anonymous: true, ..Options::default() }).unwrap();
        let history = Arc::new(Mutex::new(History::of_keys(setup.keys)));
        let removals: Arc<Vec<AtomicU64>> = Arc::new((0..setup.keys).map(|_| AtomicU64::new(0)).collect());
        let bucket = s3.bucket("bucket");
        for key in 0..setup.keys {
            history.lock().version(key, 1).in_s3 = Some(start.elapsed());
            bucket.put(&name(key), history::body(history::base(key, setup.are_small), 1), &[]);
        }
        let (news, told) = mpsc::channel(BACKLOG);
        s3.set_witness({
            let (history, removals, are_small) = (history.clone(), removals.clone(), setup.are_small);
            move |change| {
                let Some(seen) = read(&change, are_small, &removals) else { return };
                // with other metadata it may come again
                history.lock().version(seen.key, seen.number).in_s3.get_or_insert_with(|| start.elapsed());
                news.try_send(seen).expect("told of faster than changed");
            }
        });
        let places = std::array::from_fn(|server| {
            let (life, cache) = (Life { server, number: 0 }, tempfile::tempdir().unwrap());
            RwLock::new(Place { server: None, life, cache })
        });
        let world = World { s3, bucket, setup, history, record: Mutex::default(), start, places, removals };
        for server in 0..SERVERS {
            world.restart(server).await;
        }
        (Arc::new(world), told)
    }

    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn base(&self, key: usize) -> u64 {
        history::base(key, self.setup.are_small)
    }

    /// A server; while this is held it is not stopped.
    pub async fn at(&self, server: usize) -> RwLockReadGuard<'_, Place> {
        soon(self.places[server].read()).await
    }

    /// Stops a server, if it runs, and starts it.
    pub async fn restart(&self, server: usize) {
        let mut place = soon(self.places[server].write()).await;
        if let Some(running) = place.server.take() {
            soon(running.stop()).await;
        }
        let config = self.config(server, &place.cache);
        place.server = Some(soon(Server::start(config)).await.unwrap());
        place.life.number += 1;
    }

    fn config(&self, server: usize, cache: &TempDir) -> Config {
        let (endpoint, cache) = (self.s3.endpoint(), cache.path().to_str().unwrap());
        let recheck = format!("{}ms", self.setup.recheck.as_millis());
        let mut line = vec!["serve", "s3://bucket", "--lazy", "--listen", "127.0.0.1:0", "--admin", "off"];
        line.extend(["--uid", "0", "--gid", "0", "--cache-size", "1GiB", "--region", "us-east-1"]);
        line.extend([
            "--small-object",
            "256KiB",
            "--upload-delay",
            "0s",
            "--recheck",
            &recheck,
            "--endpoint-url",
            &endpoint,
            "--cache",
            cache,
        ]);
        line.extend(self.setup.flags[server].iter().map(String::as_str));
        Config::try_from(ServeArgs::parse_from_iter(line.into_iter())).unwrap()
    }

    /// Somebody else writes the next version of `key`.
    pub fn put(&self, key: usize) {
        let number = {
            let mut history = self.history.lock();
            let number = history.next(key);
            history.version(key, number);
            number
        };
        self.bucket.put(&name(key), history::body(self.base(key), number), &[]);
    }

    /// Somebody else removes `key`.
    pub fn remove(&self, key: usize) {
        let number = {
            let mut history = self.history.lock();
            let number = history.next(key);
            history.version(key, number).is_removal = true;
            number
        };
        self.removals[key].store(number, Ordering::SeqCst);
        self.bucket.delete(&name(key));
    }

    /// The number of the next version of `key`, which is about to be written at `server`, and its bytes.
    pub fn writing(&self, key: usize, server: usize) -> (u64, Vec<u8>) {
        let mut history = self.history.lock();
        let number = history.next(key);
        history.version(key, number).written = Some(Written { server, begun: self.now(), ended: None });
        (number, history::body(self.base(key), number))
    }

    /// The WRITE of this version was answered.
    pub fn wrote(&self, key: usize, number: u64) {
        let ended = Some(self.now());
        self.history.lock().version(key, number).written.as_mut().expect("it was being written").ended = ended;
    }

    /// The last version of `key` in S3; `None`: it was removed.
    pub fn last(&self, key: usize) -> Option<u64> {
        let history = self.history.lock();
        let (number, version) =
            history.versions(key).iter().rfind(|(_, version)| version.in_s3.is_some()).expect("it had one");
        (!version.is_removal).then_some(*number)
    }
}

impl Place {
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}

pub fn name(key: usize) -> String {
    format!("k{key}")
}

fn read(change: &Change<'_>, are_small: bool, removals: &[AtomicU64]) -> Option<News> {
    let key: usize = change.key.strip_prefix('k')?.parse().ok()?;
    let number = match change.version {
        None => removals[key].load(Ordering::SeqCst),
        Some((_, size)) => match history::of_size(history::base(key, are_small), size) {
            history::Shown::Number(number) => number,
            shown => panic!("{} bytes of {} in S3: {shown:?}", size, change.key),
        },
    };
    let version = change.version.map(|(etag, size)| (etag.clone(), size));
    Some(News { key, number, version, at: Instant::now() })
}
