//! The cache against a real index and a real directory.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::index::{Defaults, IndexOptions, Kind, Observation, Seen, Source};
use crate::positioned::read_exact_at;
use crate::store::ObjectMeta;
use crate::types::{ETag, Ino, Key, Name, Time};

pub(super) const MIB: u64 = 1 << 20;

pub(super) struct Rig {
    pub(super) dir: TempDir,
    pub(super) clock: Clock,
    pub(super) index: Arc<Index>,
    pub(super) content: Arc<Content>,
}

impl Rig {
    pub(super) fn new(limit: CacheLimit) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual();
        let options = IndexOptions { cached_inodes: 100, cached_names: 100, page_cache_bytes: 1 << 20 };
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
        let index = Index::open(&dir.path().join("index.redb"), options, defaults, clock.clone()).unwrap();
        let index = Arc::new(index);
        let content = Content::open(dir.path(), index.clone(), limit, clock.clone()).unwrap();
        Rig { dir, clock, index, content }
    }

    pub(super) fn roomy() -> Rig {
        Rig::new(CacheLimit::Bytes(1 << 40))
    }

    /// The same directory after a restart: nothing in memory but the index.
    pub(super) fn restart(&mut self) {
        self.restart_with(CacheLimit::Bytes(1 << 40));
    }

    pub(super) fn restart_with(&mut self, limit: CacheLimit) {
        self.content = Content::open(self.dir.path(), self.index.clone(), limit, self.clock.clone()).unwrap();
    }

    /// S3 has `key` in this version.
    pub(super) async fn observe(&self, key: &str, etag: &str, size: u64) -> Ino {
        self.clock.advance(Duration::from_secs(1));
        let sent = self.clock.now();
        self.clock.advance(Duration::from_secs(1));
        let meta = ObjectMeta { etag: ETag::new(etag), size, last_modified: Time(0), user: None, content_type: None };
        let observation = Observation {
            key: Key::new(key).unwrap(),
            seen: Seen::Object(meta),
            sent,
            answered: self.clock.now(),
            source: Source::Check,
            content: None,
        };
        self.index.apply(observation).await.unwrap().node.unwrap().ino
    }

    /// A file of version "v1" with `filled` here and known to the index.
    pub(super) async fn cached(&self, key: &str, size: u64, filled: Range<u64>) -> (Ino, ObjectId) {
        let ino = self.observe(key, "v1", size).await;
        let object = self.content.create(size).await.unwrap();
        object.bind(ino, ETag::new("v1"));
        object.fill(filled.start, &vec![7; (filled.end - filled.start) as usize]).unwrap();
        assert!(self.content.save(&object).await.unwrap());
        self.clock.advance(Duration::from_secs(1));
        (ino, object.id())
    }

    /// Runs the owner task until it has settled.
    pub(super) async fn settle(&self) {
        let stop = CancellationToken::new();
        stop.cancel();
        self.content.clone().run(stop).await;
    }

    pub(super) fn exists(&self, id: ObjectId) -> bool {
        self.content.objects.path(id).exists()
    }

    pub(super) fn local(&self, ino: Ino) -> Option<ObjectId> {
        self.index.node(ino).unwrap().unwrap().local.map(|local| local.object)
    }
}

#[tokio::test]
async fn what_was_saved_is_here_after_a_restart_and_no_more() {
    let mut rig = Rig::roomy();
    let (_, id) = rig.cached("a", 10 * MIB, MIB..2 * MIB).await;
    rig.content.get(id).unwrap().fill(5 * MIB, b"never saved").unwrap();

    rig.content.ledger.take_unsaved();
    rig.restart();

    let object = rig.content.get(id).unwrap();
    assert!(object.has(MIB..2 * MIB) && !object.has(5 * MIB..5 * MIB + 1) && !object.is_complete());
    assert_eq!(rig.content.usage().bytes, MIB);
}

/// A mirror saves thousands of files a second: those that wait for the next round must not all be open.
#[tokio::test]
async fn what_is_saved_is_not_kept_open_for_it() {
    let rig = Rig::roomy();
    rig.cached("a", 100, 0..100).await;
    let (_, partial) = rig.cached("b", 10 * MIB, MIB..2 * MIB).await;
    assert!(rig.content.ledger.take_unsaved().is_empty());

    rig.content.get(partial).unwrap().fill(5 * MIB, b"more").unwrap();
    let unsaved = rig.content.ledger.take_unsaved();
    assert_eq!(unsaved.iter().map(|object| object.id()).collect::<Vec<_>>(), [partial]);
}

#[tokio::test]
async fn complete_file_is_complete_after_a_restart() {
    let mut rig = Rig::roomy();
    let (ino, id) = rig.cached("a", 100, 0..100).await;
    assert!(rig.index.node(ino).unwrap().unwrap().local.unwrap().complete);
    rig.restart();
    let object = rig.content.get(id).unwrap();
    assert!(object.is_complete());
    let mut bytes = [0; 100];
    read_exact_at(object.file(), &mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 100]);
}

#[tokio::test]
async fn object_that_is_being_filled_is_one_object_however_it_is_come_by() {
    let rig = Rig::roomy();
    let (_, id) = rig.cached("a", 100, 0..10).await;
    let first = rig.content.get(id).unwrap();
    rig.content.open.remove(&id);
    assert!(Arc::ptr_eq(&first, &rig.content.get(id).unwrap()));
}

#[tokio::test]
async fn torn_or_missing_file_is_detected_and_detached() {
    let mut rig = Rig::roomy();
    let (short_ino, short) = rig.cached("short", 100, 0..100).await;
    let (long_ino, long) = rig.cached("long", 100, 0..100).await;
    let (gone_ino, gone) = rig.cached("gone", 100, 0..100).await;
    let (partial_ino, partial) = rig.cached("partial", 100, 10..50).await;
    let (good_ino, good) = rig.cached("good", 100, 10..50).await;
    rig.restart();
    let resize = |id, len| File::options().write(true).open(rig.content.objects.path(id)).unwrap().set_len(len);
    resize(short, 99).unwrap();
    resize(long, 101).unwrap();
    resize(partial, 49).unwrap();
    std::fs::remove_file(rig.content.objects.path(gone)).unwrap();

    for id in [short, long, gone, partial] {
        assert!(rig.content.get(id).is_none());
    }
    assert!(rig.content.get(good).is_some());
    rig.settle().await;

    for (ino, id) in [(short_ino, short), (long_ino, long), (gone_ino, gone), (partial_ino, partial)] {
        assert_eq!(rig.local(ino), None);
        assert!(!rig.exists(id));
    }
    assert_eq!(rig.local(good_ino), Some(good));
    assert!(rig.index.garbage(10).unwrap().is_empty());
}

#[tokio::test]
async fn least_recently_used_is_evicted_first() {
    let rig = Rig::new(CacheLimit::Bytes(3 * MIB));
    let (_, a) = rig.cached("a", MIB, 0..MIB).await;
    let (b_ino, b) = rig.cached("b", MIB, 0..MIB).await;
    let (_, c) = rig.cached("c", MIB, 0..MIB).await;
    rig.content.get(a).unwrap();
    let reading = rig.content.get(b).unwrap();
    rig.clock.advance(Duration::from_secs(1));
    rig.content.get(c).unwrap();
    rig.content.get(a).unwrap();

    rig.content.create(MIB).await.unwrap();

    assert_eq!(rig.local(b_ino), None);
    assert!(rig.exists(a) && !rig.exists(b) && rig.exists(c));
    assert_eq!(rig.content.usage().bytes, 2 * MIB);
    let mut byte = [0];
    read_exact_at(reading.file(), &mut byte, MIB - 1).unwrap();
    assert_eq!(byte, [7], "who reads an evicted file reads on");
}

#[tokio::test]
async fn last_use_survives_the_closing_of_the_file() {
    let rig = Rig::new(CacheLimit::Bytes(2 * MIB));
    let (_, a) = rig.cached("a", MIB, 0..MIB).await;
    let (_, b) = rig.cached("b", MIB, 0..MIB).await;
    rig.content.ledger.take_unsaved();
    rig.content.get(a).unwrap();
    rig.content.open.clear();
    rig.content.create(MIB).await.unwrap();
    assert!(rig.exists(a) && !rig.exists(b));
}

#[tokio::test]
async fn what_is_being_fetched_is_not_evicted_and_the_cache_says_full() {
    let rig = Rig::new(CacheLimit::Bytes(2 * MIB));
    let (_, a) = rig.cached("a", 10 * MIB, 0..2 * MIB).await;
    let hold = rig.content.get(a).unwrap().hold();
    let full = rig.content.create(MIB).await.unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert!(rig.exists(a));
    drop(hold);
    rig.content.create(MIB).await.unwrap();
    assert!(!rig.exists(a));
}

#[tokio::test]
async fn bytes_that_s3_does_not_have_are_not_evicted() {
    let rig = Rig::new(CacheLimit::Bytes(2 * MIB));
    let (ino, only) = rig.cached("only", MIB, 0..MIB).await;
    rig.clock.advance(Duration::from_secs(1));
    let (_, clean) = rig.cached("clean", MIB, 0..MIB).await;
    let name = Name::new(b".nfs1").unwrap();
    let renamed = rig.index.edit(move |edit| {
        let found = edit.child(Ino::ROOT, &Name::new(b"only").unwrap())?.unwrap();
        let component = edit.component(Ino::ROOT, &name, Kind::File)?.unwrap();
        edit.rename(Ino::ROOT, &found, Ino::ROOT, component, None).map(Ok::<_, ()>)
    });
    renamed.await.unwrap().unwrap();
    let change = rig.index.pending(ino).unwrap().unwrap().change;
    rig.index.localise(ino, change).await.unwrap();

    rig.content.create(MIB).await.unwrap();

    assert!(rig.exists(only) && !rig.exists(clean));
    assert_eq!(rig.content.make_room(2 * MIB).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(rig.local(ino), Some(only));
}

#[tokio::test]
async fn version_larger_than_the_limit_can_be_here_in_part() {
    let rig = Rig::new(CacheLimit::Bytes(4 * MIB));
    let (_, id) = rig.cached("huge", 1 << 42, 1 << 40..(1 << 40) + MIB).await;
    assert_eq!(rig.content.usage(), Usage { bytes: MIB, objects: 1, limit: 4 * MIB });
    assert!(rig.content.get(id).unwrap().has(1 << 40..(1 << 40) + 5));
}

#[tokio::test]
async fn limit_leaves_its_share_of_the_disk_free() {
    let rig = Rig::new(CacheLimit::LeaveFree(0.5, u64::MAX));
    let (limit, disk) = (rig.content.usage().limit, rig.content.disk().unwrap());
    assert!(limit <= disk.total.div_ceil(2));
    let rig = Rig::new(CacheLimit::LeaveFree(1.0, 0));
    assert!(rig.content.create(1).await.is_ok(), "a large disk that is nearly full has room all the same");
    let rig = Rig::new(CacheLimit::LeaveFree(1.0, u64::MAX));
    assert_eq!(rig.content.create(1).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn rows_are_counted_and_cut_to_the_limit_after_a_restart() {
    let mut rig = Rig::roomy();
    for key in ["a", "b", "c"] {
        rig.cached(key, MIB, 0..MIB).await;
    }
    rig.cached("d", 100 * MIB, 3 * MIB..4 * MIB).await;
    rig.restart_with(CacheLimit::Bytes(2 * MIB));
    rig.content.load_rows().await.unwrap();
    assert_eq!(rig.content.usage(), Usage { bytes: 4 * MIB, objects: 4, limit: 2 * MIB });
    rig.content.make_room(0).await.unwrap();
    assert_eq!((rig.content.usage().bytes, rig.content.usage().objects), (2 * MIB, 2));
}

#[tokio::test]
async fn orphans_are_swept_and_nothing_else() {
    let mut rig = Rig::roomy();
    let (_, known) = rig.cached("a", 100, 0..100).await;
    let orphan = rig.content.create(100).await.unwrap();
    orphan.fill(0, b"of a crash").unwrap();
    rig.content.ledger.take_unsaved();
    rig.restart();
    let fresh = rig.content.create(100).await.unwrap();

    rig.content.load_rows().await.unwrap();
    rig.content.sweep_orphans().await.unwrap();

    assert!(rig.exists(known) && rig.exists(fresh.id()) && !rig.exists(orphan.id()));
}

#[tokio::test]
async fn save_of_a_version_that_was_replaced_leaves_nothing_behind() {
    let rig = Rig::roomy();
    let ino = rig.observe("a", "v1", 100).await;
    let object = rig.content.create(100).await.unwrap();
    object.bind(ino, ETag::new("v1"));
    object.fill(0, &[1; 50]).unwrap();
    rig.observe("a", "v2", 100).await;

    assert!(!rig.content.save(&object).await.unwrap());
    assert!(object.is_discarded());
    object.fill(50, &[1; 50]).unwrap();
    assert!(!rig.content.save(&object).await.unwrap());
    rig.settle().await;

    assert_eq!(rig.local(ino), None);
    assert!(!rig.exists(object.id()));
    assert_eq!((rig.content.usage().bytes, rig.content.usage().objects), (0, 0));
}

#[tokio::test]
async fn evicted_object_is_not_brought_back_by_a_late_save() {
    let rig = Rig::roomy();
    let (ino, id) = rig.cached("a", 100, 0..10).await;
    let object = rig.content.get(id).unwrap();
    object.fill(10, &[1; 10]).unwrap();
    rig.content.discard(id).await.unwrap();
    assert!(!rig.content.save(&object).await.unwrap());
    assert_eq!(rig.local(ino), None);
    assert!(rig.content.get(id).is_none());
}

#[tokio::test]
async fn owner_task_saves_what_came_in_before_it_ends() {
    let mut rig = Rig::roomy();
    let (_, id) = rig.cached("a", 100, 0..10).await;
    let object = rig.content.get(id).unwrap();
    object.fill(10, &[1; 10]).unwrap();
    drop(object);
    rig.settle().await;
    rig.restart();
    assert!(rig.content.get(id).unwrap().has(0..20));
}

#[tokio::test]
async fn owner_task_unlinks_a_replaced_version_while_it_runs() {
    let rig = Rig::roomy();
    let (_, id) = rig.cached("a", 100, 0..100).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(rig.content.clone().run(stop.clone()));
    let next = rig.content.create(5).await.unwrap();
    next.fill(0, b"newer").unwrap();
    next.sync().unwrap();
    let meta = ObjectMeta { etag: ETag::new("v2"), size: 5, last_modified: Time(0), user: None, content_type: None };
    let observation = Observation {
        key: Key::new("a").unwrap(),
        seen: Seen::Object(meta),
        sent: rig.clock.now(),
        answered: rig.clock.now(),
        source: Source::Check,
        content: Some(next.id()),
    };
    rig.index.apply(observation).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    assert!(!rig.exists(id) && rig.exists(next.id()));
    assert_eq!(rig.content.usage().bytes, 5);
}
