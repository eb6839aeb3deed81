//! What survives: restarts, crashes, and the end of the writer.

use super::*;
use crate::index::tables;

#[tokio::test]
async fn everything_answered_survives_a_crash() {
    let bench = Bench::new();
    bench.see("d/", head("m", &[("mode", "16832"), ("gid", "3")])).await;
    let (node, object) = bench.put_with_content("d/f", "not an MD5").await;
    bench.put("md5", "0123456789abcdef0123456789abcdef").await;
    bench.list(node.parent, false, &[("d/", "m"), ("d/f", "not an MD5")], 9).await;
    let before: Vec<Inode> = ["", "d/", "d/f", "md5"].map(|key| bench.node(key).unwrap().inode.clone()).into();

    // when the file is what a crash would leave: copied while the index runs
    let copy = bench.dir.path().join("copy.redb");
    std::fs::copy(bench.dir.path().join("index.redb"), &copy).unwrap();
    let index = Index::open(&copy, OPTIONS, DEFAULTS, bench.clock.clone()).unwrap();
    let crashed = Bench { dir: tempfile::tempdir().unwrap(), index, clock: bench.clock.clone() };

    let after: Vec<Inode> = ["", "d/", "d/f", "md5"].map(|key| crashed.node(key).unwrap().inode.clone()).into();
    assert_eq!(after, before);
    assert_eq!(crashed.index.counts(), bench.index.counts());
    assert_eq!(crashed.index.presence(object).unwrap().unwrap().presence, Presence::Complete);
}

#[tokio::test]
async fn numbers_are_never_given_twice_over_a_crash() {
    let mut bench = Bench::new();
    let mut last = 0;
    for round in 0..3 {
        let number = bench.index.allocate().await.unwrap();
        assert!(number > last && number >= 16);
        let node = bench.put(&format!("f{round}"), "1").await;
        assert!(node.ino.0 > number);
        last = bench.index.allocate().await.unwrap();
        assert!(last > node.ino.0);
        let copy = bench.dir.path().join("copy.redb");
        std::fs::copy(bench.dir.path().join("index.redb"), &copy).unwrap();
        let Bench { dir, index, clock } = bench;
        drop(index);
        std::fs::rename(&copy, dir.path().join("index.redb")).unwrap();
        let index = Index::open(&dir.path().join("index.redb"), OPTIONS, DEFAULTS, clock.clone()).unwrap();
        bench = Bench { dir, index, clock };
    }
}

#[tokio::test]
async fn more_numbers_than_a_block_are_all_different() {
    let bench = Bench::new();
    let mut last = 0;
    for _ in 0..150_000 {
        let number = bench.index.allocate().await.unwrap();
        assert!(number > last);
        last = number;
    }
}

#[tokio::test]
async fn cookies_stay_over_removal_insertion_and_restart() {
    let mut bench = Bench::new();
    for n in 0..50 {
        bench.put(&format!("f{n}"), "1").await;
    }
    let all = bench.index.entries(Ino::ROOT, 0, 100).unwrap();
    assert!(all.is_sorted_by_key(|entry| entry.cookie) && all[0].cookie > 2 && all.len() == 50);
    for n in (0..50).step_by(2) {
        bench.see(&format!("f{n}"), Seen::Absent).await;
    }
    bench = bench.reopen();
    bench.put("f0", "1").await;
    bench.put("a", "1").await;

    let after: Vec<DirEntry> = bench.index.entries(Ino::ROOT, 0, 100).unwrap();
    let old: Vec<_> = all.iter().skip(1).step_by(2).map(|e| (e.cookie, e.name.clone(), e.node.ino)).collect();
    let kept: Vec<_> = after.iter().take(25).map(|e| (e.cookie, e.name.clone(), e.node.ino)).collect();
    assert_eq!(kept, old);
    assert_eq!(after[25..].iter().map(|e| e.name.to_string()).collect::<Vec<_>>(), ["f0", "a"]);
    assert!(after.is_sorted_by_key(|entry| entry.cookie), "new entries come last");
    // a reader in the middle goes on after an entry that is gone meanwhile
    let rest = bench.index.entries(Ino::ROOT, all[10].cookie, 3).unwrap();
    assert_eq!(rest[0].cookie, all[11].cookie);
    assert!(bench.index.entries(Ino::ROOT, u64::MAX, 3).unwrap().is_empty());
}

#[tokio::test]
async fn a_second_opener_is_told_that_it_is_in_use() {
    let bench = Bench::new();
    let second = Index::open(&bench.dir.path().join("index.redb"), OPTIONS, DEFAULTS, bench.clock.clone());
    assert!(matches!(second, Err(IndexError::InUse)));
}

#[tokio::test]
async fn a_newer_format_is_refused_with_what_to_do() {
    let Bench { dir, index, clock } = Bench::new();
    index.close().await;
    let path = dir.path().join("index.redb");
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(tables::META).unwrap().insert(tables::META_FORMAT, tables::FORMAT + 1).unwrap();
    txn.commit().unwrap();
    drop(db);

    let Err(IndexError::Open(line)) = Index::open(&path, OPTIONS, DEFAULTS, clock) else { panic!("it opened") };
    assert!(line.contains(&format!("format {}", tables::FORMAT + 1)) && line.contains("--cache"), "{line}");
}

#[tokio::test]
async fn a_file_that_is_no_index_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let Err(IndexError::Open(line)) = Index::open(&path, OPTIONS, DEFAULTS, Clock::manual()) else {
        panic!("it opened")
    };
    assert!(line.contains("damaged or no index"), "{line}");
}

#[tokio::test]
async fn closing_commits_what_is_queued_and_then_refuses() {
    let bench = Bench::new();
    let applies = (0..200).map(|n| {
        let key = format!("f{n}");
        let observation = bench.observation(&key, head("1", &[]));
        bench.index.apply(observation)
    });
    let (results, ()) = futures::join!(futures::future::join_all(applies), bench.index.close());
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(IndexError::Closed))));
    assert!(matches!(bench.index.allocate().await, Ok(_) | Err(IndexError::Closed)));
    assert!(matches!(bench.index.detach(ObjectId(1)).await, Err(IndexError::Closed)));
    assert!(matches!(bench.index.entries(Ino::ROOT, 0, 9), Err(IndexError::Closed)));
    bench.index.close().await;

    let bench = bench.reopen();
    assert_eq!(bench.index.entries(Ino::ROOT, 0, 1000).unwrap().len(), done);
}

#[tokio::test]
async fn rows_of_any_kind_read_back_as_written_and_torn_ones_are_refused() {
    use crate::index::row::{Given, Row};
    let component = crate::types::name::split(&Key::new("näme").unwrap()).remove(0);
    let mut row = Row::directory(Ino(17), Ino(3), component, &DEFAULTS, Time(-5));
    let given = Given { mode: true, uid: true, gid: true };
    let remote = |etag: &str, size| Some(Remote { etag: ETag::new(etag), size, last_modified: Time(9) });
    for kind in [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice] {
        for remote in [None, remote("", 0), remote("abc-5", 4096), remote("0123456789abcdef0123456789ABCDEF", 1)] {
            row.inode.kind = kind;
            row.inode.remote = remote;
            row.inode.local = row.inode.remote.as_ref().map(|_| Local { object: ObjectId(u64::MAX), complete: true });
            (row.inode.mode, row.inode.uid, row.inode.gid) = (0o7777, u32::MAX, 0);
            (row.inode.rdev, row.inode.atime, row.given) = ((8, 1), Time(i64::MAX), given);
            let bytes = row.encode();
            assert_eq!(Row::decode(Ino(17), &bytes, &DEFAULTS).unwrap(), row);
            for cut in 0..bytes.len() - "näme".len() {
                assert_eq!(Row::decode(Ino(17), &bytes[..cut], &DEFAULTS), None, "cut at {cut}");
            }
        }
    }
}
