//! Crashes at any write or sync of either file, by the death of the process and by a loss of power: what was answered
//! is there, and what is there is the work of whole groups, in order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::disk::Disk;
use super::*;
use crate::index::tables;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    PutBelow(u8, u8),
    Remove(u8),
    RemoveDir(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..20_u8, 0..9_u8).prop_map(|(name, etag)| Op::Put(name, etag)),
        2 => (0..4_u8, 0..9_u8).prop_map(|(name, etag)| Op::PutBelow(name, etag)),
        2 => (0..20_u8).prop_map(Op::Remove),
        1 => (0..4_u8).prop_map(Op::RemoveDir),
    ]
}

impl Bench {
    fn on(disk: &Disk, log_bytes: usize, clock: &Clock) -> Bench {
        let index = disk.open(log_bytes, clock).unwrap();
        Bench { dir: tempfile::tempdir().unwrap(), index, clock: clock.clone() }
    }

    async fn run(&self, op: &Op) -> Result<Applied, IndexError> {
        let version = |etag: &u8| head(&"e".repeat(usize::from(*etag) * 9 + 1), &[("mode", "33188")]);
        let observation = match op {
            Op::Put(name, etag) => self.observation(&format!("f{name}"), version(etag)),
            Op::PutBelow(name, etag) => self.observation(&format!("d{name}/f{etag}"), version(etag)),
            Op::Remove(name) => self.observation(&format!("f{name}"), Seen::Absent),
            Op::RemoveDir(name) => self.observation(&format!("d{name}/"), Seen::Absent),
        };
        self.index.apply(observation).await
    }

    /// Everything that a client can see.
    fn state(&self) -> State {
        let (mut dirs, mut entries) = (vec![Ino::ROOT], Vec::new());
        while let Some(dir) = dirs.pop() {
            for entry in self.index.entries(dir, 0, 1000).unwrap() {
                let node = entry.node;
                if node.kind == Kind::Dir {
                    dirs.push(node.ino);
                }
                entries.push((entry.cookie, node.inode.clone()));
            }
        }
        let root = self.index.node(Ino::ROOT).unwrap().unwrap().inode.clone();
        State { root, entries, counts: self.index.counts() }
    }
}

/// Everything that a client can see.
#[derive(PartialEq)]
struct State {
    root: Inode,
    entries: Vec<(u64, Inode)>,
    counts: Counts,
}

/// The states after each of `ops`, where nothing fails.
async fn states(disk: Disk, log_bytes: usize, ops: &[Op]) -> Vec<State> {
    let bench = Bench::on(&disk, log_bytes, &Clock::manual());
    bench.orphans_removed().await;
    let mut states = vec![bench.state()];
    for op in ops {
        bench.run(op).await.unwrap();
        bench.orphans_removed().await;
        states.push(bench.state());
    }
    states
}

/// Runs `ops` until the power fails after `writes`, has `crash` say what is left, and checks it.
async fn fail(disk: &Disk, log_bytes: usize, ops: &[Op], writes: usize, crash: impl Fn(&Disk) -> Disk) -> Disk {
    let expected = states(disk.copy(), log_bytes, ops).await;
    let bench = Bench::on(disk, log_bytes, &Clock::manual());
    disk.fail_after(writes);
    let mut answered = 0;
    while answered < ops.len() && bench.run(&ops[answered]).await.is_ok() {
        answered += 1;
    }
    drop(bench);

    let left = crash(disk);
    let bench = Bench::on(&left.copy(), log_bytes, &Clock::manual());
    bench.orphans_removed().await;
    let after = bench.state();
    let groups = expected.iter().rposition(|state| *state == after);
    assert!(groups.is_some_and(|groups| groups >= answered), "{answered} answered, {groups:?} are there");
    left
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_write_leaves_what_was_answered_and_whole_groups(
        ops in vec(op(), 1..40),
        more in vec(op(), 1..4),
        writes in 0..160_usize,
        again in 0..20_usize,
        log_bytes in prop_oneof![Just(0), 500..3000_usize, Just(1 << 16)],
        kept in vec((any::<bool>(), any::<prop::sample::Index>()), 64),
        killed in any::<bool>(),
    ) {
        let crash = |disk: &Disk| {
            let mut kept = kept.iter().cycle();
            let mut kept = |len: usize| {
                let (torn, at) = kept.next().unwrap();
                if *torn { at.index(len + 1) } else { at.index(2) * len }
            };
            match killed {
                true => Disk::with(disk.index.written(), disk.log.written()),
                false => Disk::with(disk.index.after_power_loss(&mut kept), disk.log.after_power_loss(&mut kept)),
            }
        };
        block_on(async {
            let disk = Disk::default();
            drop(Bench::on(&disk, log_bytes, &Clock::manual()));
            let disk = fail(&disk.copy(), log_bytes, &ops, writes, crash).await;
            // and once more, soon after the power is back
            fail(&disk, log_bytes, &more, again, crash).await;
        });
    }
}

#[tokio::test]
async fn one_failed_write_or_sync_fails_its_command_and_loses_no_other() {
    for failing in 0..30 {
        let (disk, clock) = (Disk::default(), Clock::manual());
        let bench = Bench::on(&disk, 1 << 16, &clock);
        disk.fail_once_after(failing);
        let mut answered = Vec::new();
        for n in 0..12 {
            if bench.run(&Op::Put(n, 1)).await.is_ok() {
                answered.push(format!("f{n}"));
            }
        }
        assert!(answered.len() >= 11, "{failing}: {answered:?}");
        assert_eq!(answered.len() == 12, failing >= 24, "twelve writes and twelve syncs");
        assert_eq!(bench.names(Ino::ROOT), answered, "{failing}");

        // and then the power fails
        let left = Disk::with(disk.index.after_power_loss(|_| 0), disk.log.after_power_loss(|_| 0));
        drop(bench);
        assert_eq!(Bench::on(&left, 1 << 16, &clock).names(Ino::ROOT), answered, "{failing}");
    }
}

#[tokio::test]
async fn a_file_of_the_format_without_a_log_gets_one() {
    let Bench { dir, index, clock } = Bench::new();
    let bench = Bench { dir, index, clock };
    let node = bench.put("f", "1").await;
    let Bench { dir, index, clock } = bench;
    index.close().await;
    drop(index);
    let path = dir.path().join("index.redb");
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut meta = txn.open_table(tables::META).unwrap();
        meta.insert(tables::META_FORMAT, 1).unwrap();
        meta.remove(tables::META_LOG).unwrap();
        meta.remove(tables::META_LOGGED).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    std::fs::remove_file(path.with_extension("log")).unwrap();

    let index = Index::open(&path, OPTIONS, DEFAULTS, clock.clone()).unwrap();
    let bench = Bench { dir, index, clock };
    assert_eq!(bench.node("f").unwrap().inode, node.inode);
    let later = bench.put("g", "1").await;
    assert_eq!(bench.crashed().node("g").unwrap().inode, later.inode);
}

#[tokio::test]
async fn a_file_that_lacks_the_last_table_gets_it() {
    let bench = Bench::new();
    let node = bench.put("f", "1").await;
    let Bench { dir, index, clock } = bench;
    index.close().await;
    drop(index);
    let path = dir.path().join("index.redb");
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    assert!(txn.delete_table(tables::SENT).unwrap());
    txn.commit().unwrap();
    drop(db);

    let index = Index::open(&path, OPTIONS, DEFAULTS, clock.clone()).unwrap();
    let bench = Bench { dir, index, clock }.crashed();
    let (ino, key) = (node.ino, Key::new("f").unwrap());
    assert!(!bench.index.note_sent(ino, key.clone(), b"1".to_vec()).await.unwrap(), "nothing of it is pending");
    let mode = NewAttributes { mode: Some(0o600), ..NewAttributes::default() };
    bench.edit(move |edit| edit.set(ino, mode)).await;
    assert!(bench.index.note_sent(ino, key.clone(), b"1".to_vec()).await.unwrap());
    assert_eq!(bench.crashed().index.sent(&key).unwrap().as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
async fn a_log_that_is_missing_or_of_another_time_is_refused() {
    let bench = Bench::new();
    bench.put("f", "1").await;
    let early = bench.crashed();
    let Bench { dir, index, clock } = early;
    drop(index);
    let path = dir.path().join("index.redb");
    let log = path.with_extension("log");
    let refused = || match Index::open(&path, OPTIONS, DEFAULTS, clock.clone()) {
        Err(IndexError::Open(line)) => line.contains("index.log"),
        other => panic!("{}", other.is_ok()),
    };
    std::fs::rename(&log, dir.path().join("kept")).unwrap();
    assert!(refused(), "missing");
    std::fs::copy(Bench::new().dir.path().join("index.log"), &log).unwrap();
    assert!(refused(), "another index's");
    std::fs::rename(dir.path().join("kept"), &log).unwrap();
    let index = Index::open(&path, OPTIONS, DEFAULTS, clock.clone()).unwrap();
    assert_eq!(index.counts().files, 1);
}

#[tokio::test]
async fn a_log_later_than_its_index_is_refused() {
    let disk = Disk::default();
    let clock = Clock::manual();
    drop(Bench::on(&disk, 1000, &clock));
    let early = disk.index.written();
    let bench = Bench::on(&disk, 1000, &clock);
    for n in 0..20 {
        bench.put(&format!("f{n}"), "1").await;
    }
    let late = Disk::with(early, disk.log.written());
    assert!(matches!(late.open(1000, &clock), Err(IndexError::Open(line)) if line.contains("index.log")));
}
