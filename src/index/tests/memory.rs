//! Memory and redb tell the same, whoever reads and whoever writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_version_older_than_one_already_answered() {
    let bench = Arc::new(Bench::new());
    for n in 0..8 {
        bench.put(&format!("f{n}"), "0").await;
    }
    // the newest version of each file that the writer has answered
    let answered: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (bench, answered, done) = (Arc::clone(&bench), Arc::clone(&answered), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut reads = 0_u64;
                while !done.load(Ordering::Acquire) || reads < 1000 {
                    for (n, answered) in answered.iter().enumerate() {
                        let floor = answered.load(Ordering::Acquire);
                        let node = bench.child(Ino::ROOT, &format!("f{n}")).expect("it is never removed for good");
                        let etag: u64 = node.remote.as_ref().unwrap().etag.as_str().parse().unwrap();
                        assert!(etag >= floor, "f{n}: {etag} after {floor}");
                        reads += 1;
                    }
                }
            })
        })
        .collect();
    for round in 1..=150 {
        for (n, answered) in answered.iter().enumerate() {
            // every third version is another inode under the same name
            let link = [("file-permissions", "0120777")];
            let user: &[(&str, &str)] = if round % 3 == 0 { &link } else { &[] };
            bench.see(&format!("f{n}"), head(&round.to_string(), user)).await;
            answered.store(round, Ordering::Release);
        }
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[tokio::test]
async fn memory_smaller_than_the_directory_answers_all_the_same() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let options = IndexOptions { cached_inodes: 1, cached_names: 1, page_cache_bytes: 0 };
    let index = Index::open(&dir.path().join("index.redb"), options, DEFAULTS, clock.clone()).unwrap();
    let bench = Bench { dir, index, clock };
    let keys: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
    bench.list(Ino::ROOT, true, &keys.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>(), 100).await;
    assert_eq!(bench.names(Ino::ROOT), keys);
    for key in &keys {
        let node = bench.child(Ino::ROOT, key).unwrap();
        assert_eq!(bench.index.node(node.ino).unwrap().unwrap().inode, node.inode);
    }
}

#[tokio::test]
async fn commands_of_one_group_fail_and_succeed_on_their_own() {
    let bench = Bench::new();
    let node = bench.put("f", "1").await;
    let late = bench.observation("f", head("0", &[]));
    let newer = bench.observation("f", head("2", &[]));
    let stray = Page { last: true, ..bench.page(&[("x/1", "1")]) };
    let object = ObjectId(bench.index.allocate().await.unwrap());
    let (newer, late, attached, page) = futures::join!(
        bench.index.apply(newer),
        bench.index.apply(late),
        bench.index.attach(node.ino, ETag::new("2"), object, Presence::Complete),
        bench.index.apply_page(Sweep::new(Ino(987), Key::root(), true), stray),
    );
    assert_eq!(newer.unwrap().verdict, Verdict::Replaced);
    assert_eq!(late.unwrap().verdict, Verdict::Late);
    assert!(attached.unwrap());
    assert_eq!(page.unwrap().1.created, 0);
}

#[tokio::test]
async fn who_is_in_no_hurry_goes_along_with_the_next_group_or_alone_after_a_moment() {
    let bench = Bench::new();
    let ino = bench.put("f", "1").await.ino;
    let mode = NewAttributes { mode: Some(0o600), ..NewAttributes::default() };
    bench.edit(move |edit| edit.set(ino, mode)).await;
    let key = Key::new("f").unwrap();

    let mut along = Box::pin(bench.index.note_sent(ino, key.clone(), b"1".to_vec()));
    assert!((&mut along).now_or_never().is_none());
    assert_eq!(bench.index.sent(&key).unwrap(), None);
    bench.put("g", "1").await;
    assert_eq!(bench.index.sent(&key).unwrap().as_deref(), Some(b"1".as_slice()));
    assert!(along.await.unwrap());

    assert!(bench.index.note_sent(ino, key.clone(), b"2".to_vec()).await.unwrap());
    assert_eq!(bench.crashed().index.sent(&key).unwrap().as_deref(), Some(b"2".as_slice()));
    bench.index.close().await;
    let late = bench.index.note_sent(ino, key, b"3".to_vec()).await;
    assert!(matches!(late, Err(IndexError::Closed)), "{late:?}");
}
