//! The drain against the real index, the real staging files and an S3 in this process, with a clock that stands still
//! until a test moves it. Changes are made as `fs/` makes them.
#![allow(clippy::unwrap_used)]

mod announced;
mod attributes;
mod conflicts;
mod failures;
mod model;
mod moving;
mod parts;
mod sent;
mod swept;
mod uploads;

use std::future::Future;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{self, S3Config};
use crate::content::{CacheLimit, Staged};
use crate::index::{Conflict, Defaults, IndexError, IndexOptions, Inode, Kind, NewAttributes, NewInode, Node};
use crate::s3server::{self, Bucket, Kind as Request, S3Server};
use crate::store::{self, Budget, Conditions, Connected, Connecting, Dollars, Timing, connect_with};
use crate::types::{Component, Ino, Name, Time};

/// Far above what anything here takes.
const SOON: Duration = Duration::from_secs(20);
const DELAY: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

/// A file of nobody in particular.
pub(super) fn some_inode() -> Inode {
    Inode {
        ino: Ino(7),
        parent: Ino::ROOT,
        component: Component::from_bytes(b"f").unwrap(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: (0, 0),
        size: 3,
        atime: Time(0),
        mtime: Time(0),
        ctime: Time(0),
        remote: None,
        attributes_known: true,
        local: None,
        listed: true,
        staged: None,
        origin: None,
    }
}

fn settings() -> Settings {
    Settings {
        upload_delay: DELAY,
        longest_delay: config::LONGEST_UPLOAD_DELAY,
        uploads: 4,
        multipart_threshold: 12 << 20,
        part_bytes: 5 << 20,
        on_conflict: OnConflict::KeepBoth,
        exclude: Exclude::new(&DEFAULT_EXCLUDES.map(String::from)).unwrap(),
        host: "test".into(),
        conditions: Some(Conditions::all()),
    }
}

/// A server without its wire.
struct Rig {
    s3: S3Server,
    bucket: Bucket,
    clock: Clock,
    index: Arc<Index>,
    content: Arc<Content>,
    revalidator: Arc<Revalidator>,
    writeback: Arc<Writeback>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    dir: TempDir,
    settings: Settings,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(settings()).await
    }

    async fn with(settings: Settings) -> Rig {
        let clock = Clock::manual();
        let s3 = S3Server::start(s3server::Options { clock: clock.clone(), ..s3server::Options::default() }).unwrap();
        Rig::on(s3, clock, TempDir::new().unwrap(), settings).await
    }

    async fn on(s3: S3Server, clock: Clock, dir: TempDir, settings: Settings) -> Rig {
        Rig::within_budget(s3, clock, dir, settings, Budget::unlimited()).await
    }

    async fn within_budget(s3: S3Server, clock: Clock, dir: TempDir, settings: Settings, budget: Arc<Budget>) -> Rig {
        let counters = store::Counters::new(clock.clone(), budget);
        let Connected { stores, writes, .. } = connect(&s3, counters).await;
        let index = Arc::new(open_index(dir.path(), &clock));
        let content = Content::open(dir.path(), index.clone(), CacheLimit::Bytes(1 << 30), clock.clone()).unwrap();
        let reading = crate::revalidate::Settings {
            recheck: config::RECHECK,
            deadline: config::DEADLINE,
            stale_wait: None,
            small_object: config::SMALL_OBJECT_BYTES,
            recheck_healthy: config::RECHECK_HEALTHY,
        };
        let revalidator = Revalidator::new(index.clone(), content.clone(), stores, reading, clock.clone());
        let rooms =
            Rooms { index: index.clone(), content: content.clone(), revalidator: revalidator.clone(), store: writes };
        let writeback = Writeback::new(rooms, settings.clone(), clock.clone());
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(writeback.clone().run(stop.clone())),
            tokio::spawn(revalidator.clone().run(stop.clone())),
            tokio::spawn(content.clone().run(stop.clone())),
        ];
        let bucket = s3.bucket("bucket");
        s3.requests().reset();
        let rig = Rig { s3, bucket, clock, index, content, revalidator, writeback, stop, tasks, dir, settings };
        rig.list(Ino::ROOT).await;
        rig.s3.requests().reset();
        rig
    }

    /// Stops in an orderly way and starts again.
    async fn restart(self) -> Rig {
        self.restart_with(|_| ()).await
    }

    /// The same, doing something to S3 in between.
    async fn restart_with(mut self, between: impl FnOnce(&S3Server)) -> Rig {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            within(task).await.unwrap();
        }
        self.index.close().await;
        let Rig { s3, clock, dir, settings, index, content, revalidator, writeback, .. } = self;
        drop((index, content, revalidator, writeback));
        between(&s3);
        Rig::on(s3, clock, dir, settings).await
    }

    /// Dies in the middle of whatever goes on: nothing is finished, nothing is told.
    async fn crash(mut self) -> Rig {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        // what was committed is; what was not has never been
        self.index.close().await;
        let Rig { s3, clock, dir, settings, index, content, revalidator, writeback, .. } = self;
        drop((index, content, revalidator, writeback));
        s3.faults().clear();
        Rig::on(s3, clock, dir, settings).await
    }

    async fn list(&self, dir: Ino) {
        let mut listing = self.revalidator.list(dir);
        while !within(listing.advanced()).await.unwrap() {}
    }

    /// Learns of what is in S3.
    async fn refresh(&self) {
        self.clock.advance(config::RECHECK * 2);
        within(self.revalidator.refresh(Ino::ROOT)).await.unwrap();
    }

    fn known(&self, path: &str) -> Option<Arc<Node>> {
        let mut at = self.index.node(Ino::ROOT).unwrap();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = self.index.child(at?.ino, &name(part)).unwrap();
        }
        at
    }

    fn node(&self, path: &str) -> Arc<Node> {
        self.known(path).unwrap_or_else(|| panic!("{path} is not there"))
    }

    fn split<'p>(&self, path: &'p str) -> (Ino, &'p str) {
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
        (self.node(dir).ino, last)
    }

    async fn make(&self, path: &str, kind: Kind, mode: u32) -> Arc<Node> {
        self.make_with(path, kind, mode, (0, 0)).await
    }

    async fn make_device(&self, path: &str, rdev: (u32, u32)) {
        self.make_with(path, Kind::BlockDevice, 0o640, rdev).await;
    }

    async fn make_with(&self, path: &str, kind: Kind, mode: u32, rdev: (u32, u32)) -> Arc<Node> {
        let (dir, last) = self.split(path);
        let staged = match kind {
            Kind::File => Some(self.content.new_staging().await.unwrap()),
            _ => None,
        };
        let now = self.clock.wall();
        let name = name(last);
        let made = self.index.edit(move |edit| {
            let component = edit.component(dir, &name, kind)?.unwrap();
            let (uid, gid, size) = (0, 0, 0);
            let new = NewInode { kind, mode, uid, gid, rdev, atime: now, mtime: now, staged, size };
            edit.create(dir, component, new).map(Ok::<_, ()>)
        });
        made.await.unwrap().unwrap();
        self.node(path)
    }

    async fn mkdir(&self, path: &str) {
        self.make(path, Kind::Dir, 0o755).await;
    }

    /// Writes to a file at `offset`, making it if need be; not durable.
    async fn write_at(&self, path: &str, offset: u64, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.known(path).is_none() {
            self.make(path, Kind::File, 0o644).await;
        }
        loop {
            let staged = self.staged(path).await;
            let Some(turn) = staged.write_turn().await else { continue };
            let at = (self.clock.now(), self.clock.wall());
            self.content.write(&staged, turn, offset, bytes.clone(), at).await.unwrap();
            return;
        }
    }

    /// The staging file, which one without gets.
    async fn staged(&self, path: &str) -> Arc<Staged> {
        loop {
            let node = self.node(path);
            if node.staged.is_none() {
                let staged = self.content.new_staging().await.unwrap();
                let (ino, size) = (node.ino, node.size);
                let stage = self.index.edit(move |edit| edit.stage(ino, staged, size, size).map(Ok::<_, ()>));
                stage.await.unwrap().unwrap();
            } else if let Ok(staged) = self.content.staged(&node) {
                return staged;
            }
        }
    }

    /// Replaces all of a file.
    async fn write(&self, path: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        self.write_at(path, 0, bytes).await;
        loop {
            let staged = self.staged(path).await;
            let Some(turn) = staged.sole_turn().await else { continue };
            staged.resize(&turn, length).unwrap();
            drop(turn);
            return self.content.sync(&staged).await.unwrap();
        }
    }

    async fn chmod(&self, path: &str, mode: u32) {
        self.set(path, NewAttributes { mode: Some(mode), ..NewAttributes::default() }).await;
    }

    async fn set(&self, path: &str, new: NewAttributes) {
        let ino = self.node(path).ino;
        let inode = self.index.edit(move |edit| edit.set(ino, new).map(Ok::<_, ()>)).await.unwrap().unwrap();
        if let Some(staged) = self.content.staged_if_open(ino) {
            staged.adopt(&inode);
        }
    }

    async fn remove(&self, path: &str) {
        let (dir, last) = self.split(path);
        let name = name(last);
        let removed = self.index.edit(move |edit| {
            let found = edit.child(dir, &name)?.unwrap();
            edit.remove(dir, &found).map(Ok::<_, ()>)
        });
        removed.await.unwrap().unwrap();
    }

    async fn rename(&self, from: &str, to: &str) {
        let ((from, old), (to, new)) = (self.split(from), self.split(to));
        let (old, new) = (name(old), name(new));
        let renamed = self.index.edit(move |edit| {
            let found = edit.child(from, &old)?.unwrap();
            let replaced = edit.child(to, &new)?;
            let component = edit.component(to, &new, found.inode.kind)?.unwrap();
            edit.rename(from, &found, to, component, replaced.as_ref()).map(Ok::<_, IndexError>)
        });
        renamed.await.unwrap().unwrap();
    }

    /// Everything is in S3.
    async fn sync(&self) {
        within(self.writeback.synced(None)).await.unwrap();
        assert_eq!(self.writeback.progress(), Progress::default(), "nothing is left after sync");
        let check = self.index.contradictions().unwrap();
        assert!(check.is_empty(), "{check:?}");
    }

    /// What S3 has under `key`, as text.
    fn stored(&self, key: &str) -> Option<String> {
        self.bucket.get(key).map(|stored| String::from_utf8_lossy(&stored.bytes).into_owned())
    }

    /// What a reader gets here.
    async fn read(&self, path: &str) -> String {
        let node = self.node(path);
        if node.size == 0 {
            return String::new();
        }
        let bytes = match node.staged {
            Some(_) => self.content.staged(&node).unwrap().read(0..u64::MAX, None).unwrap().0,
            None => {
                let object = match node.local.filter(|local| local.complete) {
                    Some(local) => self.content.get(local.object).unwrap(),
                    None => within(self.revalidator.fetch(node.ino, 0..node.size)).await.unwrap().1,
                };
                let mut bytes = vec![0; node.size as usize];
                crate::positioned::read_exact_at(object.file(), &mut bytes, 0).unwrap();
                bytes.into()
            }
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The requests that changed something, in order.
    fn writes(&self) -> Vec<(Request, String)> {
        let reads = [Request::List, Request::Head, Request::Get, Request::ListParts, Request::GetTagging];
        self.s3.requests().recent().into_iter().filter(|(kind, _)| !reads.contains(kind)).collect()
    }

    fn conflicts(&self) -> Vec<Conflict> {
        self.index.conflicts().unwrap().into_iter().map(|(_, conflict)| conflict).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = self.index.entries(Ino::ROOT, 0, 10_000).unwrap();
        let mut names: Vec<String> =
            entries.iter().map(|entry| String::from_utf8_lossy(entry.name.as_bytes()).into_owned()).collect();
        names.sort();
        names
    }

    /// Waits for `wait` while time goes by, a second at a step.
    async fn meanwhile<T>(&self, wait: impl Future<Output = T>) -> T {
        let pass = async {
            loop {
                self.clock.advance(DELAY);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            done = within(wait) => done,
            () = pass => unreachable!("time never ends"),
        }
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("nothing came within SOON")
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn request(kind: Request, key: &str) -> (Request, String) {
    (kind, key.to_owned())
}

fn open_index(dir: &Path, clock: &Clock) -> Index {
    let options = IndexOptions { cached_inodes: 10_000, cached_names: 10_000, page_cache_bytes: 8 << 20 };
    let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
    Index::open(&dir.join("index.redb"), options, defaults, clock.clone()).unwrap()
}

async fn connect(s3: &S3Server, counters: store::Counters) -> Connected {
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
        new_objects: Default::default(),
    };
    let timing = Timing { attempts: 1, backoff: Duration::from_millis(1), ..Timing::default() };
    let credentials =
        aws_sdk_s3::config::Credentials::new(s3server::ACCESS_KEY, s3server::SECRET_KEY, None, None, "test");
    let connecting = Connecting { credentials: Some(credentials), timing };
    connect_with(&config, Arc::new(counters), connecting).await.unwrap()
}
