//! The semantics F1 to F8 against the real index, the real cache and an S3 in this process, with a clock
//! that stands still until a test moves it. Each test quotes the line that it proves.
#![allow(clippy::unwrap_used)]

mod behind;
mod budget;
mod commands;
mod hinted;
mod listing;
mod lookup;
mod many;
mod mirror;
mod outage;
mod pending;
mod strict;
mod sweep;

use std::io::{Seek, SeekFrom};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::config::{self, S3Config};
use crate::content::CacheLimit;
use crate::index::changes;
use crate::index::{Defaults, IndexOptions, Inode, Kind, Remote};
use crate::s3server::{self, Bucket, Fault, Kind as Request, On, S3Server};
use crate::store::{Connecting, Counters, Dollars, Timing, connect_with};
use crate::types::{Component, ETag, Time};

/// As long as tests that nothing should keep waiting wait.
const SOON: Duration = Duration::from_secs(20);

/// How a rig differs from the usual one.
#[derive(Clone, Copy)]
struct Setup {
    settings: Settings,
    limit: CacheLimit,
    /// For a day.
    budget: Option<Dollars>,
}

impl Default for Setup {
    fn default() -> Setup {
        let settings = Settings {
            recheck: config::RECHECK,
            deadline: config::DEADLINE,
            stale_wait: None,
            small_object: config::SMALL_OBJECT_BYTES,
            recheck_healthy: config::RECHECK_HEALTHY,
        };
        Setup { settings, limit: CacheLimit::Bytes(1 << 30), budget: None }
    }
}

/// A server without its wire: S3, cache and revalidator, used as `fs/` uses them.
pub(crate) struct Rig {
    s3: S3Server,
    bucket: Bucket,
    pub(crate) clock: Clock,
    index: Arc<Index>,
    content: Arc<Content>,
    pub(crate) revalidator: Arc<Revalidator>,
    pub(crate) stop: CancellationToken,
    _stop_at_end: DropGuard,
    tasks: Vec<JoinHandle<()>>,
    dir: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        Rig::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Rig {
        let clock = Clock::manual();
        let s3 = S3Server::start(s3server::Options { clock: clock.clone(), ..s3server::Options::default() }).unwrap();
        Rig::on(s3, clock, TempDir::new().unwrap(), setup).await
    }

    /// On an S3 and a cache directory that are there already.
    async fn on(s3: S3Server, clock: Clock, dir: TempDir, setup: Setup) -> Rig {
        let budget = setup.budget.map_or_else(Budget::unlimited, |day| Budget::new(day, clock.clone()));
        let stores = connect(&s3, Counters::new(clock.clone(), budget)).await;
        let index = Arc::new(open_index(dir.path(), &clock));
        let content = Content::open(dir.path(), index.clone(), setup.limit, clock.clone()).unwrap();
        let revalidator = Revalidator::new(index.clone(), content.clone(), stores, setup.settings, clock.clone());
        let stop = CancellationToken::new();
        let tasks =
            vec![tokio::spawn(revalidator.clone().run(stop.clone())), tokio::spawn(content.clone().run(stop.clone()))];
        let bucket = s3.bucket("bucket");
        s3.requests().reset();
        let _stop_at_end = stop.clone().drop_guard();
        Rig { s3, bucket, clock, index, content, revalidator, stop, _stop_at_end, tasks, dir }
    }

    /// Stops the server in an orderly way; S3 and the cache directory stay.
    async fn shut_down(self) -> (S3Server, Clock, TempDir) {
        self.stop.cancel();
        for task in self.tasks {
            within(task).await.unwrap();
        }
        self.index.close().await;
        (self.s3, self.clock, self.dir)
    }

    /// What clients find at `path`; names that are not here are looked up in S3.
    async fn find(&self, path: &str) -> Result<Option<Arc<Node>>, WaitError> {
        let mut node = self.root();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let name = name(part);
            node = match self.index.child(node.ino, &name).unwrap() {
                Some(child) => child,
                None if self.revalidator.is_absent(&node, &name) => return Ok(None),
                None => match within(self.revalidator.look_up(node.ino, &name)).await? {
                    Some(child) => child,
                    None => return Ok(None),
                },
            };
            self.revalidator.touch(&node);
        }
        Ok(Some(node))
    }

    /// The node at `path`, which must be there.
    async fn node(&self, path: &str) -> Arc<Node> {
        self.find(path).await.unwrap().unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// What is here at `path` now, without asking and without telling anybody.
    pub(crate) fn known(&self, path: &str) -> Option<Arc<Node>> {
        self.index.resolve(&Key::new(path).unwrap()).unwrap()
    }

    fn root(&self) -> Arc<Node> {
        self.index.node(Ino::ROOT).unwrap().unwrap()
    }

    /// Reads a file to its end; fetches what is not here.
    async fn read(&self, path: &str) -> String {
        let node = self.node(path).await;
        let (node, object) = within(self.revalidator.fetch(node.ino, 0..node.size.max(1))).await.unwrap();
        text(&object, node.size)
    }

    /// Reads a file that is complete here, as a warm READ does: without a single await.
    fn read_warm(&self, path: &str) -> String {
        let node = self.known(path).unwrap();
        let local = node.local.unwrap_or_else(|| panic!("{path} is cold"));
        assert!(local.complete, "{path} is not all here");
        let object = self.content.get(local.object).unwrap();
        // only now: the check may take the object away at once
        self.revalidator.touch(&node);
        text(&object, node.size)
    }

    /// All names of a directory; lists it when it never was.
    async fn list(&self, path: &str) -> Vec<String> {
        let node = self.node(path).await;
        self.revalidator.touch(&node);
        if !node.listed {
            let mut progress = self.revalidator.list(node.ino);
            while !within(progress.advanced()).await.unwrap() {}
        }
        self.names(node.ino)
    }

    fn names(&self, dir: Ino) -> Vec<String> {
        let entries = self.index.entries(dir, 0, 10_000).unwrap();
        entries.iter().map(|entry| String::from_utf8_lossy(entry.name.as_bytes()).into_owned()).collect()
    }

    /// Waits until no check of `path` is queued or in flight.
    async fn settled(&self, path: &str) {
        if let Some(node) = self.known(path) {
            within(self.revalidator.waiters.released(&node)).await;
        }
    }

    /// Longer than `--recheck` passes.
    pub(crate) fn pass_recheck(&self) {
        self.clock.advance(config::RECHECK * 2);
    }

    fn count(&self, request: Request) -> u64 {
        self.s3.requests().count(request)
    }

    /// A file that is whole here, with a check just settled.
    pub(crate) async fn warm(&self, key: &str, text: &str) {
        self.bucket.put(key, text.to_owned(), &[]);
        assert_eq!(self.read(key).await, text);
        self.settled(key).await;
        self.wait_complete(key).await;
        self.s3.requests().reset();
    }

    async fn wait_complete(&self, key: &str) {
        let node = self.known(key).unwrap();
        within(self.revalidator.fetcher.complete(node.ino, fetch::Pace::Free)).await.unwrap();
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("nothing came within SOON")
}

/// A file that no index knows.
pub(super) fn some_node(ino: u64) -> Arc<Node> {
    let inode = Inode {
        ino: Ino(ino),
        parent: Ino::ROOT,
        component: Component::from_bytes(b"file").unwrap(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: (0, 0),
        size: 0,
        atime: Time(0),
        mtime: Time(0),
        ctime: Time(0),
        remote: Some(Remote { etag: ETag::new("v1"), size: 0, last_modified: Time(0) }),
        attributes_known: true,
        local: None,
        listed: false,
        staged: None,
        origin: None,
    };
    Arc::new(Node { inode, freshness: Arc::default() })
}

/// Takes S3 away, from the very next request on, also on connections that are open.
fn take_down(s3: &S3Server) {
    s3.faults().inject_always(On::any(), Fault::Close);
    s3.faults().set_down(true);
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn text(object: &Object, size: u64) -> String {
    let mut file: &std::fs::File = object.file();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, size), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn open_index(dir: &Path, clock: &Clock) -> Index {
    let options = IndexOptions { cached_inodes: 10_000, cached_names: 10_000, page_cache_bytes: 8 << 20 };
    let defaults = Defaults { uid: 1000, gid: 1000, file_mode: 0o644, dir_mode: 0o755 };
    Index::open(&dir.join("index.redb"), options, defaults, clock.clone()).unwrap()
}

async fn connect(s3: &S3Server, counters: Counters) -> Stores {
    let config = S3Config {
        bucket: "bucket".into(),
        prefix: String::new(),
        endpoint_url: Some(s3.endpoint()),
        region: Some(s3server::REGION.into()),
        profile: None,
        anonymous: false,
        requester_pays: false,
        concurrency: NonZeroU32::new(config::S3_CONCURRENCY).unwrap(),
        rate: None,
        new_objects: crate::config::NewObjects::default(),
    };
    let timing = Timing { attempts: 2, backoff: Duration::from_millis(1), ..Timing::default() };
    let credentials =
        aws_sdk_s3::config::Credentials::new(s3server::ACCESS_KEY, s3server::SECRET_KEY, None, None, "test");
    let connecting = Connecting { credentials: Some(credentials), timing };
    connect_with(&config, Arc::new(counters), connecting).await.unwrap().stores
}
