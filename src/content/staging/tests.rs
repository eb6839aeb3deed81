//! Staging files against a real index and a real directory.
#![allow(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]

use std::convert::Infallible;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::tests::{MIB, Rig};
use super::super::{CacheLimit, Faults, Object};
use super::*;
use crate::index::{Kind, Local, NewInode, ObjectRow, Outcome, Presence, Settled};
use crate::positioned::{read_exact_at, write_all_at};
use crate::types::{ETag, Key, Name};

impl Rig {
    fn sick(limit: CacheLimit) -> (Rig, Faults) {
        let (mut rig, faults) = (Rig::new(limit), Faults::default());
        rig.content =
            Content::open_on(rig.dir.path(), rig.index.clone(), limit, rig.clock.clone(), faults.clone()).unwrap();
        (rig, faults)
    }

    /// A new, empty file.
    pub(super) async fn made(&self, name: &str) -> Arc<Staged> {
        let id = self.content.new_staging().await.unwrap();
        let ino = self.enter(name, Kind::File, id, 0).await;
        self.content.staged(&self.node(ino)).unwrap()
    }

    async fn enter(&self, name: &str, kind: Kind, id: ObjectId, size: u64) -> Ino {
        let name = Name::new(name.as_bytes()).unwrap();
        let time = Time(5);
        let new = NewInode {
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            rdev: (0, 0),
            atime: time,
            mtime: time,
            staged: Some(id),
            size,
        };
        let edit = self.index.edit(move |edit| {
            let component = edit.component(Ino::ROOT, &name, kind)?.unwrap();
            Ok(Ok::<_, Infallible>(edit.create(Ino::ROOT, component, new)?))
        });
        edit.await.unwrap().unwrap()
    }

    /// A file of `base` in S3, of which `here` are here, that is staged from now on.
    async fn staged_over(&self, base: &[u8], here: &[Range<u64>]) -> Arc<Staged> {
        let size = base.len() as u64;
        let ino = self.observe("f", "v1", size).await;
        let object = self.content.create(size).await.unwrap();
        object.bind(ino, ETag::new("v1"));
        for part in here {
            object.fill(part.start, &base[part.start as usize..part.end as usize]).unwrap();
        }
        assert!(self.content.save(&object).await.unwrap());
        self.stage(ino, size).await
    }

    async fn stage(&self, ino: Ino, size: u64) -> Arc<Staged> {
        let id = self.content.new_staging().await.unwrap();
        let edit = self.index.edit(move |edit| Ok(Ok::<_, Infallible>(edit.stage(ino, id, size, size)?)));
        edit.await.unwrap().unwrap();
        self.content.staged(&self.node(ino)).unwrap()
    }

    fn node(&self, ino: Ino) -> Arc<Node> {
        self.index.node(ino).unwrap().unwrap()
    }

    fn reopen(&mut self, staged: Arc<Staged>) -> Arc<Staged> {
        let ino = staged.ino();
        drop(staged);
        self.restart();
        self.content.staged(&self.node(ino)).unwrap()
    }

    async fn write(&self, staged: &Arc<Staged>, offset: u64, data: &[u8]) -> io::Result<(Live, Live)> {
        let turn = staged.write_turn().await.unwrap();
        let at = (self.clock.now(), Time(1000 + self.clock.now().0 as i64));
        self.content.write(staged, turn, offset, Bytes::copy_from_slice(data), at).await
    }

    async fn resize(&self, staged: &Arc<Staged>, size: u64) {
        let turn = staged.sole_turn().await.unwrap();
        staged.resize(&turn, size).unwrap();
    }

    fn base(&self, staged: &Staged) -> Option<Arc<Object>> {
        self.local(staged.ino()).and_then(|object| self.content.get(object))
    }

    /// All bytes, as an upload reads them.
    fn whole(&self, staged: &Staged) -> Vec<u8> {
        let below = self.base(staged).map(Below::Version);
        staged.read(0..u64::MAX, below.as_ref()).unwrap().0.to_vec()
    }

    /// All bytes, as a READ finds them.
    fn pieced(&self, staged: &Staged, range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |file: &File, offset: u64, len: u64| {
            let at = all.len();
            all.resize(at + len as usize, 0);
            read_exact_at(file, &mut all[at..], offset).unwrap();
        };
        for piece in staged.pieces(range) {
            match piece {
                Piece::Here(part) => add(&part.file, part.offset, u64::from(part.len)),
                Piece::Base(part) => add(self.base(staged).unwrap().file(), part.start, part.end - part.start),
                Piece::Zeros(count) => add(&zeros(count), 0, count),
            }
        }
        all
    }

    async fn promote(&self, staged: &Arc<Staged>) -> (Local, ObjectRow) {
        let _turn = staged.sole_turn().await.unwrap();
        self.content.promote(staged, Some(&self.node(staged.ino()).inode)).await.unwrap()
    }

    fn object_bytes(&self, object: ObjectId) -> Vec<u8> {
        std::fs::read(self.content.objects.path(object)).unwrap()
    }

    fn has_staging(&self, id: ObjectId) -> bool {
        self.content.volume.dir.path(id).exists()
    }
}

/// How `Block`s are written: the one after the other, again and again, each with the number of its write.
const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_the_file_was_at_one_moment() {
    let rig = Arc::new(Rig::new(CacheLimit::Bytes(1 << 30)));
    let staged = rig.made("f").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, file, stopped) = (rig.clone(), staged.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut number = 0u64;
        while !stopped.load(Ordering::Acquire) {
            let block = number.to_be_bytes().repeat(BLOCK_BYTES as usize / 8);
            writer.write(&file, number % BLOCKS * BLOCK_BYTES, &block).await.unwrap();
            number += 1;
        }
    });
    for _ in 0..20 {
        while staged.live().size < BLOCKS * BLOCK_BYTES {
            tokio::task::yield_now().await;
        }
        let frozen = rig.content.freeze(&staged).await.unwrap();
        let bytes = frozen.bytes().read(0..u64::MAX, None).unwrap().0;
        let numbers: Vec<u64> = bytes.chunks_exact(8).map(|n| u64::from_be_bytes(n.try_into().unwrap())).collect();
        let last = *numbers.iter().max().unwrap();
        for (block, numbers) in numbers.chunks_exact(BLOCK_BYTES as usize / 8).enumerate() {
            let wanted = last - (last - block as u64) % BLOCKS;
            assert!(numbers.iter().all(|number| *number == wanted), "block {block} at write {last}: {}", numbers[0]);
        }
        let id = frozen.bytes().id();
        assert!(rig.has_staging(id) && rig.content.stray_staging().unwrap().is_empty());
        drop(frozen);
        assert!(!rig.has_staging(id));
    }
    stop.store(true, Ordering::Release);
    writing.await.unwrap();
    assert_eq!(rig.content.staging_usage().1, 1);
}

#[tokio::test]
async fn a_copy_lies_over_the_same_version() {
    let rig = Rig::new(CacheLimit::Bytes(1 << 30));
    let staged = rig.staged_over(b"0123456789", &[0..10]).await;
    rig.write(&staged, 2, b"ab").await.unwrap();
    rig.write(&staged, 12, b"cd").await.unwrap();
    let frozen = rig.content.freeze(&staged).await.unwrap();
    rig.write(&staged, 0, b"later").await.unwrap();
    rig.resize(&staged, 3).await;
    let below = rig.base(&staged).map(Below::Version);
    let bytes = frozen.bytes().read(0..u64::MAX, below.as_ref()).unwrap().0;
    assert_eq!(bytes, &b"01ab456789\0\0cd"[..]);
    assert_eq!(frozen.bytes().written(), [2..4, 12..14]);
    assert!(frozen.origin().1 < staged.version());
}

fn zeros(count: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(count).unwrap();
    file
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 + 1).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Resize(u64),
    Sync,
    /// Without a sync; what is in the file may survive.
    Kill,
    PowerCut,
    /// The keeper's turn.
    Cut,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300u64, 1..60usize, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, vec![byte; len])),
        2 => (0..300u64).prop_map(Step::Resize),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
        1 => Just(Step::Cut),
    ]
}

/// What the file may be: its bytes now, and all that it has been since it was last durable.
struct Model {
    now: Vec<u8>,
    since: Vec<Vec<u8>>,
}

impl Model {
    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.since.push(self.now.clone());
        change(&mut self.now);
    }

    /// After a crash: the durable size, and each byte as it was then or as it was written later.
    fn crashed(&mut self, found: Vec<u8>) {
        self.since.push(self.now.clone());
        assert_eq!(found.len(), self.since[0].len(), "size is the durable one");
        for (at, byte) in found.iter().enumerate() {
            assert!(self.since.iter().any(|then| then.get(at) == Some(byte)), "byte {at} is {byte}");
        }
        self.now = found;
        self.since.clear();
    }
}

async fn follow(steps: Vec<Step>, here: Vec<Range<u64>>) {
    let (mut rig, base) = (Rig::roomy(), pattern(200));
    let mut staged = rig.staged_over(&base, &here).await;
    let mut model = Model { now: base, since: Vec::new() };
    for step in steps {
        let before = staged.version();
        match step {
            Step::Write(at, data) => {
                let (start, end) = (at as usize, at as usize + data.len());
                rig.write(&staged, at, &data).await.unwrap();
                model.change(|bytes| {
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(&data);
                });
                assert!(staged.version() > before);
            }
            Step::Resize(size) => {
                rig.resize(&staged, size).await;
                // a truncation is made durable before it is answered; its bytes are gone for good
                rig.content.sync(&staged).await.unwrap();
                model.now.resize(size as usize, 0);
                model.since.clear();
            }
            Step::Sync => {
                rig.content.sync(&staged).await.unwrap();
                model.since.clear();
            }
            Step::Cut => rig.content.cut_files().await,
            Step::Kill | Step::PowerCut => {
                if matches!(step, Step::PowerCut) {
                    rig.content.lose_power().unwrap();
                }
                staged = rig.reopen(staged);
                model.crashed(rig.whole(&staged));
            }
        }
        assert_eq!(rig.whole(&staged), model.now);
        assert_eq!(rig.pieced(&staged, 30..150), model.now[model.now.len().min(30)..model.now.len().min(150)]);
        assert_eq!(staged.live().size, model.now.len() as u64);
    }
    let (local, row) = rig.promote(&staged).await;
    assert!(local.complete && row.presence == Presence::Complete && row.size == model.now.len() as u64);
    assert_eq!(rig.object_bytes(local.object), model.now);
    assert_eq!(rig.whole(&staged), model.now, "what is not settled is as it was");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn reads_as_a_file_does_and_a_crash_leaves_what_was_durable(steps in prop::collection::vec(any_step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(follow(steps, std::iter::once(0..200).collect()));
    }
}

#[tokio::test]
async fn attributes_run_ahead_and_the_row_follows_a_sync() {
    let mut rig = Rig::roomy();
    let staged = rig.made("f").await;
    assert_eq!(staged.live().size, 0);
    rig.clock.advance(Duration::from_secs(3));
    let (before, after) = rig.write(&staged, 10, b"hello").await.unwrap();
    assert_eq!((before.size, after.size, staged.live()), (0, 15, after));
    assert_eq!((after.mtime, after.ctime, staged.written_at()), (after.mtime, after.mtime, rig.clock.now()));
    assert_eq!(rig.node(staged.ino()).size, 0);
    assert_eq!(rig.content.staged_if_open(staged.ino()).unwrap().id(), staged.id());

    rig.content.sync(&staged).await.unwrap();
    let node = rig.node(staged.ino());
    assert_eq!((node.size, node.mtime), (15, after.mtime));
    let staged = rig.reopen(staged);
    assert_eq!(rig.whole(&staged), b"\0\0\0\0\0\0\0\0\0\0hello");
    assert_eq!(staged.written(), vec![10..15; 1]);
    assert_eq!(rig.content.staging_usage(), (5, 1));
}

#[tokio::test]
async fn write_of_nothing_changes_nothing_and_one_beyond_all_files_is_refused() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let version = staged.version();
    let (before, after) = rig.write(&staged, 100, b"").await.unwrap();
    assert_eq!((before, staged.version()), (after, version));
    for offset in [u64::MAX, i64::MAX as u64] {
        assert_eq!(rig.write(&staged, offset, b"x").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
    assert!(!rig.has_staging(staged.id()));
}

#[tokio::test]
async fn read_tells_the_version_and_misses_what_the_base_lacks() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..40]).await;
    rig.write(&staged, 30, b"abc").await.unwrap();
    let base = rig.base(&staged).unwrap();
    let below = Below::Version(base.clone());
    let (bytes, version) = staged.read(29..34, Some(&below)).unwrap();
    assert_eq!((&bytes[..], version), (&[30, b'a', b'b', b'c', 34][..], staged.version()));
    let lacking = staged.read(29..41, Some(&below)).unwrap_err();
    assert_eq!(lacking.kind(), io::ErrorKind::UnexpectedEof);
    let (left, _) = staged.read(38..42, Some(&Below::Remains(Some(base)))).unwrap();
    assert_eq!(left[..], [39, 40, 0, 0], "what S3 has no more and is not here is zeros");
    let (left, _) = staged.read(32..34, Some(&Below::Remains(None))).unwrap();
    assert_eq!(left[..], [b'c', 0]);
    assert_eq!(staged.read(29..34, None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn those_who_sync_at_once_share_one_fdatasync() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let held = staged.saving.clone().lock_owned().await;
    let syncs = futures::future::join_all((0..10).map(|_| rig.content.sync(&staged)));
    tokio::pin!(syncs);
    assert!(futures::poll!(&mut syncs).is_pending());
    drop(held);
    for result in syncs.await {
        result.unwrap();
    }
    assert_eq!(faults.syncs(), 1);
    let change = || rig.index.pending(staged.ino()).unwrap().unwrap().change;
    let before = change();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(change(), before, "what is known is not recorded again");
}

#[tokio::test]
async fn failed_fsync_is_told_to_all_who_waited_and_changes_the_verifier() {
    let (mut rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let verifier = rig.content.write_verifier();
    faults.fail_syncs(1);
    let held = staged.saving.clone().lock_owned().await;
    let mut both = Box::pin(futures::future::join(rig.content.sync(&staged), rig.content.sync(&staged)));
    assert!(futures::poll!(&mut both).is_pending());
    drop(held);
    let (first, second) = both.as_mut().await;
    drop(both);
    assert!(first.is_err() && second.is_err());
    assert_ne!(rig.content.write_verifier(), verifier);
    assert!(rig.index.staged(staged.id()).unwrap().unwrap().ranges.is_empty());

    let verifier = rig.content.write_verifier();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.content.write_verifier(), verifier);
    rig.content.lose_power().unwrap();
    let staged = rig.reopen(staged);
    assert_eq!(rig.whole(&staged), b"abc");
}

#[tokio::test]
async fn failed_write_back_fails_the_next_sync_which_changes_the_verifier() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let verifier = rig.content.write_verifier();
    faults.fail_write_backs(1);
    staged.write_back(0..3);
    staged.write_back(0..3);
    rig.content.sync(&staged).await.unwrap_err();
    assert_ne!(rig.content.write_verifier(), verifier);
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.index.staged(staged.id()).unwrap().unwrap().ranges, [0..3]);
}

#[tokio::test]
async fn suspect_bytes_are_written_again_and_newer_ones_kept() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &[1; 100]).await.unwrap();
    faults.fail_syncs(1);
    rig.content.sync(&staged).await.unwrap_err();
    rig.write(&staged, 50, &[2; 10]).await.unwrap();
    let snapshot = staged.state.lock().begin_sync();
    assert_eq!(snapshot.suspect, vec![0..100; 1]);
    rig.resize(&staged, 80).await;
    rig.content.sync(&staged).await.unwrap();
    assert!(staged.state.lock().begin_sync().suspect.is_empty());
    assert_eq!(rig.whole(&staged), [vec![1; 50], vec![2; 10], vec![1; 20]].concat());
}

#[tokio::test]
async fn sync_that_nobody_waits_for_still_ends_in_its_turn() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    {
        let sync = rig.content.sync(&staged);
        tokio::pin!(sync);
        assert!(futures::poll!(&mut sync).is_pending());
    }
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(staged.ino()).size, 3);
}

#[tokio::test]
async fn times_set_meanwhile_are_not_undone_by_a_sync() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    let ino = staged.ino();
    let touch = crate::index::NewAttributes { mtime: Some(Time(77)), ..Default::default() };
    let edit = rig.index.edit(move |edit| Ok(Ok::<_, Infallible>(edit.set(ino, touch)?)));
    let inode = edit.await.unwrap().unwrap();
    rig.content.sync(&staged).await.unwrap();
    staged.adopt(&inode);
    assert_eq!((rig.node(ino).mtime, rig.node(ino).size, staged.live().mtime), (Time(77), 3, Time(77)));
    rig.write(&staged, 0, b"x").await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(ino).mtime, staged.live().mtime);
    assert_ne!(rig.node(ino).mtime, Time(77));
}

#[tokio::test]
async fn full_disk_refuses_after_clean_bytes_are_gone_and_keeps_what_it_took() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    faults.shrink_disk(Some(10 * MIB));
    let (clean_ino, clean) = rig.cached("clean", 6 * MIB, 0..6 * MIB).await;
    let staged = rig.made("f").await;
    let data = vec![3; MIB as usize];
    for n in 0..9 {
        rig.write(&staged, n * MIB, &data).await.unwrap();
        rig.clock.advance(Duration::from_millis(10));
    }
    assert_eq!((rig.local(clean_ino), rig.exists(clean)), (None, false));
    let full = rig.write(&staged, 9 * MIB, &data).await.unwrap_err();
    assert_eq!((full.kind(), staged.live().size), (io::ErrorKind::StorageFull, 9 * MIB));
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(staged.ino()).size, 9 * MIB);

    rig.resize(&staged, MIB).await;
    rig.content.sync(&staged).await.unwrap();
    rig.write(&staged, MIB, &data).await.unwrap();
    assert_eq!(rig.content.usage().bytes, 2 * MIB);
}

#[tokio::test]
async fn dirty_bytes_crowd_out_clean_ones_and_never_the_reverse() {
    let rig = Rig::new(CacheLimit::Bytes(4 * MIB));
    let (_, clean) = rig.cached("clean", 2 * MIB, 0..2 * MIB).await;
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &vec![1; 3 * MIB as usize]).await.unwrap();
    assert!(rig.exists(clean));
    rig.content.make_room(0).await.unwrap();
    assert!(!rig.exists(clean));
    rig.write(&staged, 3 * MIB, &vec![1; 3 * MIB as usize]).await.unwrap();
    assert_eq!(rig.content.make_room(0).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(rig.whole(&staged).len() as u64, 6 * MIB);
}

#[tokio::test]
async fn what_a_truncation_cut_off_is_given_back_once_the_row_says_so() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &pattern(1000)).await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    rig.resize(&staged, 100).await;
    let length = || std::fs::metadata(rig.content.volume.dir.path(staged.id())).unwrap().len();
    rig.content.cut_files().await;
    assert_eq!(length(), 1000, "a crash now would need it");
    rig.content.sync(&staged).await.unwrap();
    let turn = staged.write_turn().await.unwrap();
    rig.content.cut_files().await;
    assert_eq!(length(), 1000, "somebody writes");
    drop(turn);
    rig.content.cut_files().await;
    assert_eq!(length(), 100);
    rig.resize(&staged, 200).await;
    assert_eq!(rig.whole(&staged), [&pattern(1000)[..100], &[0; 100]].concat());
}

#[tokio::test]
async fn whole_write_becomes_the_object_by_a_second_name() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&staged, 0, &[9; 100]).await.unwrap();
    rig.resize(&staged, 130).await;
    let (local, row) = rig.promote(&staged).await;
    assert!(local.complete);
    assert_eq!((row.ino, row.size, row.presence), (staged.ino(), 130, Presence::Complete));
    assert_eq!(rig.object_bytes(local.object), [vec![9; 100], vec![0; 30]].concat());
    #[cfg(unix)]
    assert_eq!(links(&rig.content.volume.dir.path(staged.id())), 2);
}

#[cfg(unix)]
fn links(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(path).unwrap())
}

#[tokio::test]
async fn small_write_goes_into_a_complete_base() {
    let mut rig = Rig::roomy();
    let base = pattern(MIB as usize);
    let staged = rig.staged_over(&base, &[0..MIB]).await;
    let reader = rig.base(&staged).unwrap();
    rig.write(&staged, 1000, b"hello").await.unwrap();
    rig.write(&staged, MIB + 10, b"end").await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    let mut wanted = base.clone();
    wanted[1000..1005].copy_from_slice(b"hello");
    wanted.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0end");
    assert_eq!((local.complete, row.size), (true, MIB + 13));
    assert!(rig.object_bytes(local.object) == wanted);
    #[cfg(unix)]
    assert_eq!(links(&rig.content.objects.path(reader.id())), 2, "nothing was copied but what was written");
    // all but what is staged reads as before, for whoever has it open; and until it is settled, the base is not torn
    let mut byte = [0; 2];
    read_exact_at(reader.file(), &mut byte, 1005).unwrap();
    assert_eq!(byte, base[1005..1007]);
    drop(reader);
    let staged = rig.reopen(staged);
    assert!(rig.base(&staged).is_some());
    assert!(rig.whole(&staged) == wanted);
}

#[tokio::test]
async fn shortened_base_with_a_small_write_is_not_copied_either() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(1000), &[0..1000]).await;
    rig.resize(&staged, 500).await;
    rig.write(&staged, 600, b"x").await.unwrap();
    let (local, _) = rig.promote(&staged).await;
    assert_eq!(rig.object_bytes(local.object), [&pattern(1000)[..500], &[0; 100], b"x"].concat());
}

#[tokio::test]
async fn evicted_base_is_read_through_whoever_has_it_open() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(1000), &[0..1000]).await;
    rig.write(&staged, 0, b"x").await.unwrap();
    rig.content.objects.unlink(rig.local(staged.ino()).unwrap()).unwrap();
    let (local, _) = rig.promote(&staged).await;
    assert_eq!(rig.object_bytes(local.object), [b"x", &pattern(1000)[1..]].concat());
}

#[tokio::test]
async fn partial_base_makes_a_partial_object_that_can_be_filled_up() {
    let rig = Rig::roomy();
    let base = pattern(1000);
    let staged = rig.staged_over(&base, &[0..300, 600..700]).await;
    rig.write(&staged, 100, &[255; 100]).await.unwrap();
    rig.write(&staged, 650, &[255; 100]).await.unwrap();
    rig.resize(&staged, 900).await;
    rig.write(&staged, 1000, &[255; 10]).await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.size), (false, 1010));
    assert_eq!(row.presence, Presence::Partial(vec![0..300, 600..750, 900..1010]));
    let bytes = rig.object_bytes(local.object);
    assert!(bytes[..100] == base[..100] && bytes[100..200] == [255; 100] && bytes[200..300] == base[200..300]);
    assert!(bytes[600..650] == base[600..650] && bytes[650..750] == [255; 100]);
    assert!(bytes[900..1000] == [0; 100] && bytes[1000..] == [255; 10]);
}

#[tokio::test]
async fn base_that_is_not_here_leaves_what_was_written() {
    let rig = Rig::roomy();
    let ino = rig.observe("f", "v1", 100).await;
    let staged = rig.stage(ino, 100).await;
    rig.write(&staged, 10, b"abc").await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.presence), (false, Presence::Partial(vec![10..13; 1])));
}

#[tokio::test]
async fn empty_file_becomes_an_empty_object() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.size, rig.object_bytes(local.object)), (true, 0, Vec::new()));
}

#[tokio::test]
async fn promoted_object_is_swept_unless_it_is_settled_and_nothing_is_lost() {
    let mut rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&staged, 5, b"abc").await.unwrap();
    let (local, _) = rig.promote(&staged).await;
    let staged = rig.reopen(staged);
    rig.settle().await;
    let start = async {
        rig.content.load_rows().await.unwrap();
        rig.content.sweep_orphans().await.unwrap();
    };
    start.await;
    assert!(!rig.exists(local.object) && rig.has_staging(staged.id()));
    assert_eq!(rig.whole(&staged), [&pattern(5)[..], b"abc", &pattern(100)[8..]].concat());
}

#[tokio::test]
async fn nobody_writes_to_a_closed_file() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let writing = staged.write_turn().await.unwrap();
    let sole = tokio::spawn({
        let staged = staged.clone();
        async move { staged.sole_turn().await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(!sole.is_finished());
    assert!(staged.try_write_turn().is_none(), "who wants it alone is not starved");
    drop(writing);
    let sole = sole.await.unwrap();
    let waiting = tokio::spawn({
        let staged = staged.clone();
        async move { staged.write_turn().await }
    });
    tokio::task::yield_now().await;
    rig.remove(&staged).await;
    rig.content.close_staged(&staged, sole);
    assert!(waiting.await.unwrap().is_none());
    assert!(staged.try_write_turn().is_none() && staged.sole_turn().await.is_none());
    assert!(rig.content.staged_if_open(staged.ino()).is_none());
    assert_eq!(rig.content.staging_usage(), (0, 0));
}

#[tokio::test]
async fn closed_file_that_is_still_wanted_is_opened_again_as_it_was() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, b"abc").await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    let sole = staged.sole_turn().await.unwrap();
    rig.content.close_staged(&staged, sole);
    let again = rig.content.staged(&rig.node(staged.ino())).unwrap();
    assert!(!Arc::ptr_eq(&staged, &again) && again.version() > staged.version());
    assert_eq!(rig.whole(&again), b"abc");
}

impl Rig {
    async fn remove(&self, staged: &Staged) {
        let name = Name::new(b"f").unwrap();
        let edit = self.index.edit(move |edit| {
            let found = edit.child(Ino::ROOT, &name)?.unwrap();
            Ok(Ok::<_, Infallible>(edit.remove(Ino::ROOT, &found)?))
        });
        edit.await.unwrap().unwrap();
        assert!(self.index.staged(staged.id()).unwrap().is_none());
    }
}

#[tokio::test]
async fn removed_file_goes_with_the_garbage_and_its_writers_come_to_nothing() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let node = rig.node(staged.ino());
    rig.write(&staged, 0, b"abc").await.unwrap();
    rig.remove(&staged).await;
    rig.content.sync(&staged).await.unwrap();
    rig.settle().await;
    assert!(!rig.has_staging(staged.id()) && staged.write_turn().await.is_none());
    assert_eq!(rig.content.staging_usage(), (0, 0));
    let stale = rig.content.staged(&node).unwrap_err();
    assert_eq!(stale.kind(), io::ErrorKind::StaleNetworkFileHandle);
}

#[tokio::test]
async fn start_counts_rows_sweeps_orphans_and_keeps_what_is_lost() {
    let mut rig = Rig::roomy();
    let kept = rig.made("kept").await;
    let lost = rig.made("lost").await;
    let fresh = rig.made("fresh").await;
    for staged in [&kept, &lost] {
        rig.write(staged, 5, b"abc").await.unwrap();
        rig.content.sync(staged).await.unwrap();
    }
    std::fs::write(rig.content.volume.dir.path(lost.id()), "short").unwrap();
    let orphan = ObjectId(0xdead);
    std::fs::write(rig.content.volume.dir.path(orphan), "of a crash").unwrap();
    std::fs::write(rig.dir.path().join("staging/notes"), "not ours").unwrap();
    rig.restart();
    let link = rig.content.stage_bytes(Bytes::from_static(b"target")).await.unwrap();

    rig.content.load_rows().await.unwrap();
    rig.content.sweep_orphans().await.unwrap();

    assert_eq!(rig.content.staging_usage(), (12, 4));
    assert!(rig.has_staging(kept.id()) && rig.has_staging(lost.id()) && rig.has_staging(link));
    assert!(!rig.has_staging(orphan) && rig.dir.path().join("staging/notes").exists());
    assert_eq!(rig.content.staged(&rig.node(lost.ino())).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(rig.index.staged(lost.id()).unwrap().is_some());
    rig.content.staged(&rig.node(fresh.ino())).unwrap();
}

#[tokio::test]
async fn bytes_of_a_link_are_there_before_its_inode() {
    let mut rig = Rig::roomy();
    let id = rig.content.stage_bytes(Bytes::from_static(b"../target")).await.unwrap();
    let ino = rig.enter("link", Kind::Symlink, id, 9).await;
    rig.content.lose_power().unwrap();
    rig.restart();
    let staged = rig.content.staged(&rig.node(ino)).unwrap();
    assert_eq!(rig.whole(&staged), b"../target");
    let unwanted = rig.content.stage_bytes(Bytes::from_static(b"x")).await.unwrap();
    rig.content.abandon(unwanted);
    assert!(!rig.has_staging(unwanted));
}

#[tokio::test]
async fn files_that_nobody_uses_are_closed_and_those_that_are_ahead_are_not() {
    let rig = Rig::roomy();
    let (settled, ahead, used) = (rig.made("a").await, rig.made("b").await, rig.made("c").await);
    rig.write(&ahead, 0, b"abc").await.unwrap();
    let ids = [settled.id(), ahead.id(), used.id()];
    drop((settled, ahead));
    rig.content.most_staged.store(0, Ordering::Relaxed);
    rig.content.close_idle();
    assert_eq!(ids.map(|id| rig.content.staged.contains_key(&id)), [false, true, true]);
    assert_eq!(rig.content.staging_usage().0, 3);
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "that it is held is what the test is about")]
async fn read_waits_for_a_write_that_has_begun() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &[1; 8]).await.unwrap();
    let writing = staged.gate.read();
    let (begun, has_begun) = oneshot::channel();
    let reading = tokio::task::spawn_blocking({
        let staged = staged.clone();
        move || {
            begun.send(()).unwrap();
            staged.read(0..8, None).unwrap()
        }
    });
    has_begun.await.unwrap();
    write_all_at(&staged.file().unwrap(), &[2; 8], 0).unwrap();
    staged.state.lock().wrote(0..8, (Tick(1), Time(1)), u64::MAX);
    drop(writing);
    let (bytes, version) = reading.await.unwrap();
    assert!(version == u64::MAX && bytes == [2; 8][..] || version < u64::MAX && bytes == [1; 8][..]);
}

#[tokio::test]
async fn only_what_is_small_whole_and_left_alone_is_read_at_once() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 10, b"hello").await.unwrap();
    let (bytes, version) = staged.read_at_once().unwrap();
    assert_eq!((&bytes[..], version), (&b"\0\0\0\0\0\0\0\0\0\0hello"[..], staged.version()));
    let writing = staged.gate.read();
    assert!(staged.read_at_once().is_none(), "somebody writes");
    drop(writing);
    rig.write(&staged, file::AT_ONCE_BYTES - 1, b"!").await.unwrap();
    assert_eq!(staged.read_at_once().unwrap().0.len() as u64, file::AT_ONCE_BYTES);
    rig.write(&staged, file::AT_ONCE_BYTES, b"!").await.unwrap();
    assert!(staged.read_at_once().is_none(), "it is long");
    let rig = Rig::roomy();
    let over = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&over, 30, b"abc").await.unwrap();
    assert!(over.read_at_once().is_none(), "the rest is below");
}

#[tokio::test]
async fn settled_object_takes_the_place_of_staging_file_and_base() {
    for here in [0..1000, 0..400] {
        let rig = Rig::roomy();
        let staged = rig.staged_over(&pattern(1000), std::slice::from_ref(&here)).await;
        let base = rig.local(staged.ino()).unwrap();
        rig.write(&staged, 100, b"hello").await.unwrap();
        rig.content.sync(&staged).await.unwrap();
        let change = rig.index.pending(staged.ino()).unwrap().unwrap().change;

        let turn = staged.sole_turn().await.unwrap();
        let local = rig.content.promote(&staged, Some(&rig.node(staged.ino()).inode)).await.unwrap();
        let settled = Settled {
            ino: staged.ino(),
            change,
            key: Key::new("f").unwrap(),
            etag: ETag::new("v2"),
            size: 1000,
            sent: rig.clock.now(),
            answered: rig.clock.now(),
            content: true,
            local: Some(local),
        };
        assert_eq!(rig.index.settle(settled).await.unwrap(), Outcome::Done);
        rig.content.close_staged(&staged, turn);
        rig.settle().await;

        assert!(!rig.exists(base) && !rig.has_staging(staged.id()));
        let object = rig.content.get(rig.local(staged.ino()).unwrap()).unwrap();
        assert_eq!((object.has(0..here.end), object.is_complete()), (true, here.end == 1000));
        let mut bytes = vec![0; here.end as usize];
        read_exact_at(object.file(), &mut bytes, 0).unwrap();
        assert!(bytes[..] == [&pattern(100)[..], b"hello", &pattern(1000)[105..here.end as usize]].concat());
        assert_eq!((rig.content.usage().bytes, rig.content.staging_usage()), (here.end, (0, 0)));
    }
}
