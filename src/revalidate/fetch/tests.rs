//! Fetches against an S3 that does what each test tells it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::content::CacheLimit;
use crate::index::{Defaults, IndexOptions};
use crate::positioned::read_exact_at;
use crate::store::{Budget, Error, GetIf, Got, ListPage, ListRequest, ObjectMeta};
use crate::types::{ETag, Key, Tick, Time};

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);

/// What happens to the next GET.
enum Fault {
    Down,
    Denied,
    /// The body breaks off after so many bytes.
    Break(u64),
    /// The body just ends after so many bytes.
    Short(u64),
    /// The body is longer than asked for.
    Long,
    /// The body waits after so many bytes until told.
    Pause(u64, watch::Receiver<bool>),
}

#[derive(Default)]
struct FakeS3 {
    objects: Mutex<HashMap<Key, (ETag, Bytes)>>,
    faults: Mutex<VecDeque<Fault>>,
    gets: watch::Sender<Vec<Option<Range<u64>>>>,
    heads: watch::Sender<usize>,
    ignores_if_match: AtomicBool,
    fails_always: AtomicBool,
}

impl FakeS3 {
    fn put(&self, key: &str, etag: &str, bytes: Vec<u8>) -> ObjectMeta {
        let (key, etag) = (Key::new(key).unwrap(), ETag::new(etag));
        let meta = meta(&etag, bytes.len() as u64);
        self.objects.lock().insert(key, (etag, bytes.into()));
        meta
    }

    fn fault(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }

    fn gets(&self) -> Vec<Option<Range<u64>>> {
        self.gets.borrow().clone()
    }

    async fn reached(&self, gets: usize) {
        self.gets.subscribe().wait_for(|log| log.len() >= gets).await.unwrap();
    }
}

fn meta(etag: &ETag, size: u64) -> ObjectMeta {
    let user = Some(BTreeMap::from([("file-permissions".to_owned(), "0100600".to_owned())]));
    ObjectMeta { etag: etag.clone(), size, last_modified: Time(0), user, content_type: None }
}

fn unavailable() -> Error {
    Error::Unavailable { what: "GET".into(), message: "down".into() }
}

#[async_trait]
impl Store for FakeS3 {
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        self.heads.send_modify(|n| *n += 1);
        let objects = self.objects.lock();
        let (etag, bytes) = objects.get(key).ok_or(Error::NotFound { key: key.clone() })?;
        Ok(meta(etag, bytes.len() as u64))
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error> {
        self.gets.send_modify(|log| log.push(range.clone()));
        let fault = self.faults.lock().pop_front();
        if self.fails_always.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        let (etag, bytes) = self.objects.lock().get(key).cloned().ok_or(Error::NotFound { key: key.clone() })?;
        if let GetIf::Match(wanted) = condition
            && wanted != etag
            && !self.ignores_if_match.load(Ordering::SeqCst)
        {
            return Err(Error::PreconditionFailed { key: key.clone() });
        }
        let size = bytes.len() as u64;
        let range = range.unwrap_or(0..size);
        let part = bytes.slice(range.start as usize..range.end as usize);
        Ok(Got::Body { meta: meta(&etag, size), body: body(part, fault)? })
    }

    async fn list(&self, _: &ListRequest) -> Result<ListPage, Error> {
        unreachable!("a fetch lists nothing")
    }
}

fn body(bytes: Bytes, fault: Option<Fault>) -> Result<Body, Error> {
    let cut = |n: u64| n.min(bytes.len() as u64) as usize;
    let (head, tail) = match &fault {
        Some(Fault::Break(n) | Fault::Short(n)) => (bytes.slice(..cut(*n)), Bytes::new()),
        Some(Fault::Pause(n, _)) => (bytes.slice(..cut(*n)), bytes.slice(cut(*n)..)),
        _ => (bytes.clone(), Bytes::new()),
    };
    let chunks: Vec<_> = head.chunks(64 << 10).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let head = futures::stream::iter(chunks);
    Ok(match fault {
        Some(Fault::Down) => return Err(unavailable()),
        Some(Fault::Denied) => return Err(Error::Denied { what: "GET".into(), message: "no".into() }),
        Some(Fault::Break(_)) => head.chain(futures::stream::iter([Err(unavailable())])).boxed(),
        Some(Fault::Long) => head.chain(futures::stream::iter([Ok(Bytes::from_static(b"more"))])).boxed(),
        Some(Fault::Pause(_, mut go)) => {
            let rest = async move { go.wait_for(|go| *go).await.map(|_| tail).map_err(|_| unavailable()) };
            head.chain(futures::stream::once(rest)).boxed()
        }
        Some(Fault::Short(_)) | None => head.boxed(),
    })
}

struct Rig {
    _dir: TempDir,
    clock: Clock,
    index: Arc<Index>,
    content: Arc<Content>,
    s3: Arc<FakeS3>,
    fetcher: Arc<Fetcher>,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(LONG, CacheLimit::Bytes(1 << 40))
    }

    fn with(deadline: Duration, limit: CacheLimit) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual();
        let options = IndexOptions { cached_inodes: 100, cached_names: 100, page_cache_bytes: 1 << 20 };
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
        let index = Index::open(&dir.path().join("index.redb"), options, defaults, clock.clone()).unwrap();
        let index = Arc::new(index);
        let content = Content::open(dir.path(), index.clone(), limit, clock.clone()).unwrap();
        let s3 = Arc::new(FakeS3::default());
        let stores = Stores { foreground: s3.clone(), background: s3.clone(), budget: Budget::unlimited() };
        let recheck = Duration::from_secs(1);
        let settings =
            Settings { recheck, recheck_healthy: recheck, deadline, stale_wait: None, small_object: 1 << 20 };
        let fetcher = Fetcher::new(index.clone(), content.clone(), stores, settings, clock.clone());
        Rig { _dir: dir, clock, index, content, s3, fetcher }
    }

    /// S3 has `key`, and the index knows it from a listing.
    async fn given(&self, key: &str, etag: &str, bytes: Vec<u8>) -> Ino {
        let mut meta = self.s3.put(key, etag, bytes);
        meta.user = None;
        let observation = Observation {
            key: Key::new(key).unwrap(),
            seen: Seen::Object(meta),
            sent: self.clock.now(),
            answered: self.clock.now(),
            source: Source::Check,
            content: None,
        };
        let ino = self.index.apply(observation).await.unwrap().node.unwrap().ino;
        self.clock.advance(Duration::from_secs(1));
        ino
    }

    fn node(&self, ino: Ino) -> Arc<Node> {
        self.index.node(ino).unwrap().unwrap()
    }

    /// Waits for the tasks that go on behind the answers.
    async fn quiet(&self) {
        self.fetcher.tasks.close();
        self.fetcher.tasks.wait().await;
    }
}

/// Bytes that differ everywhere from their neighbours a block away.
fn pattern(len: u64, salt: u8) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8 ^ salt).collect()
}

fn read(object: &Object, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    read_exact_at(object.file(), &mut bytes, range.start).unwrap();
    bytes
}

fn total(ranges: &[Option<Range<u64>>]) -> u64 {
    ranges.iter().flatten().map(|r| r.end - r.start).sum()
}

#[tokio::test]
async fn small_object_comes_whole_by_one_get_and_is_attached() {
    let rig = Rig::new();
    let bytes = pattern(300_000, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;

    let (node, object) = rig.fetcher.fetch(ino, 0..4096).await.unwrap();

    assert_eq!(node.remote.as_ref().unwrap().etag, ETag::new("v1"));
    rig.quiet().await;
    assert_eq!(read(&object, 0..300_000), bytes);
    assert_eq!(rig.s3.gets(), [None]);
    let local = rig.node(ino).local.unwrap();
    assert!(local.complete && local.object == object.id());
}

#[tokio::test]
async fn attributes_that_come_with_the_bytes_become_known() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(100, 0)).await;
    assert!(!rig.node(ino).attributes_known);
    rig.fetcher.fetch(ino, 0..100).await.unwrap();
    rig.quiet().await;
    assert!(rig.node(ino).attributes_known);
    assert_eq!(rig.node(ino).mode, 0o600);
    assert_eq!(rig.node(ino).freshness.checked(), rig.clock.now());
}

#[tokio::test]
async fn attributes_that_came_late_stay_in_doubt() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(100, 0)).await;
    let (go, held) = watch::channel(false);
    rig.s3.fault(Fault::Pause(0, held));
    let reader = tokio::spawn({
        let fetcher = rig.fetcher.clone();
        async move { fetcher.fetch(ino, 0..100).await.map(|_| ()) }
    });
    rig.s3.reached(1).await;
    rig.clock.advance(Duration::from_secs(1));
    rig.given("a", "v1", pattern(100, 0)).await;
    go.send(true).unwrap();
    reader.await.unwrap().unwrap();
    rig.quiet().await;
    let node = rig.node(ino);
    assert_eq!((node.attributes_known, node.freshness.checked()), (false, Tick::NEVER), "the next touch asks");
    assert!(node.local.unwrap().complete);
}

#[tokio::test]
async fn empty_object_needs_no_request() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", vec![]).await;
    let (_, object) = rig.fetcher.fetch(ino, 0..4096).await.unwrap();
    rig.quiet().await;
    assert!(object.is_complete() && rig.node(ino).local.unwrap().complete);
    assert!(rig.s3.gets().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_readers_share_one_get() {
    let rig = Rig::new();
    let bytes = pattern(MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    let (go, held) = watch::channel(false);
    rig.s3.fault(Fault::Pause(0, held));

    let readers: Vec<_> = (0..50u64)
        .map(|n| {
            let fetcher = rig.fetcher.clone();
            tokio::spawn(async move { fetcher.fetch(ino, n * 1000..n * 1000 + 1000).await.unwrap().1 })
        })
        .collect();
    rig.s3.reached(1).await;
    go.send(true).unwrap();

    for (n, reader) in join_all(readers).await.into_iter().enumerate() {
        let range = n as u64 * 1000..n as u64 * 1000 + 1000;
        assert_eq!(read(&reader.unwrap(), range.clone()), bytes[range.start as usize..range.end as usize]);
    }
    assert_eq!(rig.s3.gets(), [None]);
}

#[tokio::test]
async fn first_bytes_are_answered_while_the_rest_is_held() {
    let rig = Rig::new();
    let bytes = pattern(4 * MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    let (go, held) = watch::channel(false);
    rig.s3.fault(Fault::Pause(700_000, held));

    let (_, object) = rig.fetcher.fetch(ino, 0..700_000).await.unwrap();

    assert_eq!(read(&object, 0..700_000), bytes[..700_000]);
    assert!(!object.is_complete());
    go.send(true).unwrap();
    rig.quiet().await;
    assert!(object.is_complete());
    assert_eq!(rig.s3.gets().len(), 1);
}

#[tokio::test]
async fn read_past_its_deadline_is_busy_and_the_bytes_still_come() {
    let rig = Rig::with(Duration::from_millis(20), CacheLimit::Bytes(1 << 40));
    let ino = rig.given("a", "v1", pattern(1000, 0)).await;
    let (go, held) = watch::channel(false);
    rig.s3.fault(Fault::Pause(10, held));

    let busy = rig.fetcher.fetch(ino, 0..1000).await;

    assert!(matches!(busy, Err(WaitError::Busy)));
    go.send(true).unwrap();
    rig.quiet().await;
    assert!(rig.node(ino).local.unwrap().complete);
    assert_eq!(rig.s3.gets().len(), 1);
}

#[tokio::test]
async fn broken_short_and_overlong_bodies_go_on_where_they_stopped() {
    for (fault, kept) in
        [(Fault::Break(100_000), 100_000..300_000), (Fault::Short(70_000), 70_000..300_000), (Fault::Down, 0..300_000)]
    {
        let rig = Rig::new();
        let bytes = pattern(300_000, 0);
        let ino = rig.given("a", "v1", bytes.clone()).await;
        rig.s3.fault(fault);
        let (_, object) = rig.fetcher.fetch(ino, 0..300_000).await.unwrap();
        assert_eq!(read(&object, 0..300_000), bytes);
        let second = if kept.start == 0 { None } else { Some(kept) };
        assert_eq!(rig.s3.gets(), [None, second]);
    }
    let rig = Rig::new();
    let bytes = pattern(1000, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    rig.s3.fault(Fault::Long);
    let (_, object) = rig.fetcher.fetch(ino, 0..1000).await.unwrap();
    rig.quiet().await;
    assert_eq!(read(&object, 0..1000), bytes);
    assert_eq!(object.file().metadata().unwrap().len(), 1000);
}

#[tokio::test]
async fn large_object_is_fetched_in_aligned_blocks_and_kept() {
    let rig = Rig::new();
    let bytes = pattern(40 * MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    let at = 30 * MIB + 5000;

    let (_, object) = rig.fetcher.fetch(ino, at..at + 4096).await.unwrap();

    assert_eq!(read(&object, at..at + 4096), bytes[at as usize..at as usize + 4096]);
    assert_eq!(rig.s3.gets(), [Some(30 * MIB..31 * MIB)]);
    rig.fetcher.fetch(ino, at + 4096..31 * MIB).await.unwrap();
    assert_eq!(total(&rig.s3.gets()), MIB, "nothing is fetched twice, nothing ahead of a reader that jumps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_reader_is_fetched_ahead_and_also_when_it_finds_everything_here() {
    let rig = Rig::new();
    let bytes = pattern(40 * MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    let mut asked = 0;
    let (_, object) = rig.fetcher.fetch(ino, 0..128 << 10).await.unwrap();

    for n in 0..(40 * MIB / (128 << 10)) {
        let range = n * (128 << 10)..(n + 1) * (128 << 10);
        if !object.has(range.clone()) {
            asked += 1;
            rig.fetcher.fetch(ino, range.clone()).await.unwrap();
        }
        assert_eq!(read(&object, range.clone()), bytes[range.start as usize..range.end as usize]);
    }

    assert!(object.is_complete());
    assert_eq!(total(&rig.s3.gets()), 40 * MIB, "each byte was asked for once: {:?}", rig.s3.gets());
    assert!(asked < 250, "most reads found their bytes here: {asked} of 320 did not");
}

#[tokio::test]
async fn version_that_changes_in_mid_fetch_starts_again_with_the_new_one() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(20 * MIB, 1)).await;
    let (_, old) = rig.fetcher.fetch(ino, 10 * MIB..11 * MIB).await.unwrap();
    let new = pattern(20 * MIB, 2);
    rig.s3.put("a", "v2", new.clone());
    rig.clock.advance(Duration::from_secs(1));

    let (node, object) = rig.fetcher.fetch(ino, 15 * MIB..16 * MIB).await.unwrap();

    assert_eq!(node.remote.as_ref().unwrap().etag, ETag::new("v2"));
    assert_ne!(object.id(), old.id());
    assert_eq!(read(&object, 15 * MIB..16 * MIB), new[15 << 20..16 << 20]);
    assert!(!object.has(10 * MIB..11 * MIB), "no byte of one version in the other's file");
    assert_eq!(*rig.s3.heads.borrow(), 1);
}

#[tokio::test]
async fn store_that_ignores_if_match_is_found_out_by_its_etag() {
    let rig = Rig::new();
    rig.s3.ignores_if_match.store(true, Ordering::SeqCst);
    let ino = rig.given("a", "v1", pattern(1000, 1)).await;
    let new = pattern(1000, 2);
    rig.s3.put("a", "v2", new.clone());
    let (node, object) = rig.fetcher.fetch(ino, 0..1000).await.unwrap();
    assert_eq!(node.remote.as_ref().unwrap().etag, ETag::new("v2"));
    assert_eq!(read(&object, 0..1000), new);
    assert_eq!(*rig.s3.heads.borrow(), 0, "the GET had told");
}

#[tokio::test]
async fn object_deleted_in_s3_is_gone() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(1000, 1)).await;
    rig.s3.objects.lock().clear();
    assert!(matches!(rig.fetcher.fetch(ino, 0..10).await, Err(WaitError::Gone)));
    assert!(rig.index.node(ino).unwrap().is_none());
    assert!(matches!(rig.fetcher.complete(ino, Pace::Free).await, Err(WaitError::Gone)));
}

#[tokio::test]
async fn refusal_and_a_full_disk_are_told_apart() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(1000, 1)).await;
    rig.s3.fault(Fault::Denied);
    assert!(matches!(rig.fetcher.fetch(ino, 0..10).await, Err(WaitError::Denied)));
    rig.fetcher.fetch(ino, 0..10).await.unwrap();

    let rig = Rig::with(LONG, CacheLimit::Bytes(100));
    let ino = rig.given("a", "v1", pattern(1000, 1)).await;
    assert!(matches!(rig.fetcher.fetch(ino, 0..10).await, Err(WaitError::NoSpace)));
    assert!(rig.s3.gets().is_empty());
}

#[tokio::test]
async fn object_larger_than_the_cache_can_be_read_from_end_to_end() {
    let rig = Rig::with(LONG, CacheLimit::Bytes(4 * MIB));
    let bytes = pattern(20 * MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    for n in 0..20 {
        let range = n * MIB..(n + 1) * MIB;
        let (_, object) = rig.fetcher.fetch(ino, range.clone()).await.unwrap();
        assert_eq!(read(&object, range.clone()), bytes[range.start as usize..range.end as usize]);
    }
    assert!(rig.content.usage().bytes <= 5 * MIB, "{:?}", rig.content.usage());
}

#[tokio::test]
async fn unreachable_s3_is_busy_at_the_deadline_and_leaves_no_file() {
    let rig = Rig::with(Duration::from_millis(20), CacheLimit::Bytes(1 << 40));
    let ino = rig.given("a", "v1", pattern(1000, 1)).await;
    rig.s3.fails_always.store(true, Ordering::SeqCst);
    assert!(matches!(rig.fetcher.fetch(ino, 0..10).await, Err(WaitError::Busy)));
    rig.fetcher.shut_down().await;
    assert_eq!(rig.content.usage().objects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complete_fetches_what_is_missing_and_no_more() {
    let rig = Rig::new();
    let bytes = pattern(40 * MIB + 5, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    rig.fetcher.fetch(ino, 20 * MIB..21 * MIB).await.unwrap();

    assert_eq!(rig.fetcher.complete(ino, Pace::Free).await.unwrap(), 39 * MIB + 5);

    let local = rig.node(ino).local.unwrap();
    assert!(local.complete);
    assert_eq!(read(&rig.content.get(local.object).unwrap(), 0..40 * MIB + 5), bytes);
    assert_eq!(total(&rig.s3.gets()), 40 * MIB + 5);
    assert_eq!(rig.fetcher.complete(ino, Pace::Free).await.unwrap(), 0);
}

#[tokio::test]
async fn reader_does_not_wait_for_the_whole_of_what_is_being_completed() {
    let rig = Rig::new();
    let bytes = pattern(48 * MIB, 0);
    let ino = rig.given("a", "v1", bytes.clone()).await;
    let (_go, held) = watch::channel(false);
    for _ in 0..PIECES_AT_ONCE {
        rig.s3.fault(Fault::Pause(0, held.clone()));
    }
    let mirror = tokio::spawn({
        let fetcher = rig.fetcher.clone();
        async move { fetcher.complete(ino, Pace::Free).await }
    });
    rig.s3.reached(PIECES_AT_ONCE).await;

    let (_, object) = rig.fetcher.fetch(ino, 40 * MIB..41 * MIB).await.unwrap();
    assert_eq!(read(&object, 40 * MIB..41 * MIB), bytes[40 << 20..41 << 20]);

    mirror.abort();
    assert!(mirror.await.unwrap_err().is_cancelled());
    rig.fetcher.fetch(ino, 0..10).await.unwrap();
}

#[tokio::test]
async fn complete_of_an_unreachable_object_ends_busy() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(1000, 0)).await;
    rig.s3.fails_always.store(true, Ordering::SeqCst);
    assert!(matches!(rig.fetcher.complete(ino, Pace::Free).await, Err(WaitError::Busy)));
    assert_eq!(rig.s3.gets().len(), TRIES as usize);
}

#[tokio::test]
async fn download_brings_a_new_version_beside_the_old_one() {
    let rig = Rig::new();
    let ino = rig.given("a", "v1", pattern(20 * MIB, 1)).await;
    let new = pattern(20 * MIB + 7, 2);
    let meta = rig.s3.put("a", "v2", new.clone());
    rig.s3.fault(Fault::Break(MIB));

    let object = rig.fetcher.download(&Key::new("a").unwrap(), &meta).await.unwrap();

    assert!(object.is_complete());
    assert_eq!(read(&object, 0..20 * MIB + 7), new);
    assert_eq!(rig.node(ino).local, None, "it is the caller's to swap in");
}

#[tokio::test]
async fn download_that_fails_leaves_no_file() {
    let rig = Rig::new();
    let meta = rig.s3.put("a", "v1", pattern(1000, 1));
    let key = Key::new("a").unwrap();
    rig.s3.put("a", "v2", pattern(1000, 2));
    assert!(matches!(rig.fetcher.download(&key, &meta).await, Err(DownloadError::Changed { found: None })));
    rig.s3.objects.lock().clear();
    assert!(matches!(rig.fetcher.download(&key, &meta).await, Err(DownloadError::Changed { found: None })));
    let short = body(pattern(10, 0).into(), None).unwrap();
    assert!(matches!(rig.fetcher.store_body(&meta, short).await, Err(DownloadError::Store(_))));
    assert_eq!(rig.content.usage().objects, 0);
}

#[tokio::test]
async fn body_that_is_on_its_way_is_stored_whole() {
    let rig = Rig::new();
    let bytes = pattern(3 * MIB, 3);
    let meta = meta(&ETag::new("v1"), 3 * MIB);
    let object = rig.fetcher.store_body(&meta, body(bytes.clone().into(), None).unwrap()).await.unwrap();
    assert!(object.is_complete());
    assert_eq!(read(&object, 0..3 * MIB), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_wire_a_reset_a_short_body_and_an_outage_cost_requests_and_no_bytes() {
    use crate::s3server::{Fault, Kind, Options, S3Server};
    let server = S3Server::start(Options::default()).unwrap();
    let mut rig = Rig::new();
    let stores = wire::stores(&server).await;
    let settings = rig.fetcher.settings;
    let (index, content, clock) = (rig.index.clone(), rig.content.clone(), rig.clock.clone());
    rig.fetcher = Fetcher::new(index, content, stores, settings, clock);
    let bytes = pattern(5 * MIB, 9);
    let etag = server.bucket("bucket").put("a", bytes.clone(), &[]);
    let ino = rig.given("a", etag.as_str(), bytes.clone()).await;
    server.requests().reset();
    server.faults().inject(Kind::Get, 1, Fault::ResetAfter(MIB));
    server.faults().inject(Kind::Get, 1, Fault::ShortBody(MIB));
    server.faults().inject(Kind::Get, 1, Fault::SlowDown);

    let (_, object) = rig.fetcher.fetch(ino, 0..5 * MIB).await.unwrap();

    assert_eq!(read(&object, 0..5 * MIB), bytes);
    assert!(server.requests().count(Kind::Get) >= 4);
    server.stop().await;
}

mod wire {
    use aws_sdk_s3::config::Credentials;

    use super::*;
    use crate::config::S3Config;
    use crate::s3server::{ACCESS_KEY, S3Server, SECRET_KEY};
    use crate::store::{Connecting, Timing, connect_with};

    pub(super) async fn stores(server: &S3Server) -> Stores {
        let config = S3Config {
            bucket: "bucket".into(),
            prefix: String::new(),
            endpoint_url: Some(server.endpoint()),
            region: Some("us-east-1".into()),
            profile: None,
            anonymous: false,
            requester_pays: false,
            concurrency: 8.try_into().unwrap(),
            rate: None,
            new_objects: crate::config::NewObjects::default(),
        };
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
        let connecting = Connecting { credentials: Some(credentials), timing: Timing::default() };
        connect_with(&config, Arc::default(), connecting).await.unwrap().stores
    }
}
