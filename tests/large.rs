//! A directory of very many objects is renamed: at once here, copied inside S3 behind, and right meanwhile: under both
//! names, through a crash in the middle, and at the end.
//!
//! `FASTS3_LARGE` is how many objects: 2,000 are usual, `scripts/test --soak` takes 100,000.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fasts3::s3server::Bucket;
use nfs3_client::nfs3_types::nfs3::*;
use support::changes::no_attributes;
use support::{Client, World};
use tokio::sync::watch;

/// Files of one directory.
const WIDTH: usize = 1_000;
/// Far above what 100,000 copies take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_very_many_objects_is_renamed() {
    let objects = std::env::var("FASTS3_LARGE").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let mut world = World::mortal().await;
    (0..objects).for_each(|n| drop(world.bucket.put(&key("old", n), body(n), &[])));
    let mut client = world.client().await;
    let root = client.root();
    client.lookup("old").await.unwrap();

    let mut copied = count_copies(&world);
    let begun = Instant::now();
    client.rename_in((&root, b"old"), (&root, b"new")).await.unwrap();
    println!("renamed here after {:?}", begun.elapsed());
    both_names(&mut client, objects).await;
    change(&mut client, objects).await;

    // the delay, and the pauses of what is tried again, are in the time of this clock
    let ticking = tick(&world);
    let half = tokio::time::timeout(PATIENCE, copied.wait_for(|count| *count >= objects / 2));
    half.await.expect("half of it is copied").unwrap();
    let progress = world.server().writeback().progress();
    println!("half of it in S3 after {:?}: {progress:?}", begun.elapsed());
    assert!(progress.moving + progress.pending > 0, "{progress:?}");
    drop(client);
    world.kill().await;
    world.start().await;
    let mut client = world.client().await;
    both_names(&mut client, objects).await;

    let synced = tokio::time::timeout(PATIENCE, world.server().writeback().synced(None));
    synced.await.expect("it ends").unwrap();
    ticking.abort();
    println!("all of it in S3 after {:?}", begun.elapsed());
    both_names(&mut client, objects).await;
    in_s3(&world.bucket, objects);
    let progress = world.server().writeback().progress();
    assert_eq!((progress.moving, progress.pending), (0, 0), "{progress:?}");
}

fn key(top: &str, n: usize) -> String {
    format!("{top}/d{}/f{n}", n / WIDTH)
}

fn body(n: usize) -> Bytes {
    Bytes::from(format!("the bytes of {n}"))
}

/// Some that are spread over all.
fn some(objects: usize) -> impl Iterator<Item = usize> {
    (1..objects).step_by(objects / 50)
}

/// Written to, removed, and made while it moves.
const WRITTEN: usize = 7;
const REMOVED: usize = 8;

/// What was there is under the new name, and only there.
async fn both_names(client: &mut Client, objects: usize) {
    for n in some(objects).filter(|n| ![WRITTEN, REMOVED].contains(n)) {
        assert_eq!(client.read(&key("new", n)).await.unwrap(), body(n), "{n}");
        assert!(matches!(client.lookup(&key("old", n)).await, Err(nfsstat3::NFS3ERR_NOENT)), "{n}");
    }
}

/// Changes under the new name, and a new directory of the old one.
async fn change(client: &mut Client, objects: usize) {
    let written = client.lookup(&key("new", WRITTEN)).await.unwrap();
    client.write_at(&written.handle, 0, b"changed", stable_how::FILE_SYNC).await.unwrap();
    let dir = client.lookup(&format!("new/d{}", REMOVED / WIDTH)).await.unwrap();
    client.remove_in(&dir.handle, format!("f{REMOVED}").as_bytes()).await.unwrap();
    let root = client.root();
    let old = client.mkdir_in(&root, b"old").await.unwrap();
    let sub = client.mkdir_in(&old.handle, b"d0").await.unwrap();
    // a key that an object still has which is to move away
    let how = createhow3::GUARDED(no_attributes());
    let again = client.create_in(&sub.handle, format!("f{}", objects.min(WIDTH) - 1).as_bytes(), how).await.unwrap();
    client.write_at(&again.handle, 0, b"another", stable_how::FILE_SYNC).await.unwrap();
}

/// Tells how many of the objects have been copied so far.
fn count_copies(world: &World) -> watch::Receiver<usize> {
    let (count, counted) = watch::channel(0);
    world.s3.set_witness(move |change| {
        if change.key.starts_with("new/") {
            count.send_modify(|count| *count += 1);
        }
    });
    counted
}

/// Each object is where it belongs, and nothing else is there.
fn in_s3(bucket: &Bucket, objects: usize) {
    let again = key("old", objects.min(WIDTH) - 1);
    for n in (0..objects).filter(|n| ![WRITTEN, REMOVED].contains(n)) {
        let stored = bucket.get(&key("new", n)).unwrap_or_else(|| panic!("S3 lacks {n}"));
        assert_eq!(stored.bytes, body(n), "{n}");
    }
    assert!(bucket.get(&key("new", WRITTEN)).unwrap().bytes.starts_with(b"changed"));
    assert_eq!(bucket.get(&again).unwrap().bytes, b"another"[..]);
    let left = bucket.keys().into_iter().filter(|key| !key.starts_with("new/")).collect::<Vec<_>>();
    assert!(left.iter().all(|key| *key == again || key.ends_with('/')), "{left:?}");
    let here = bucket.keys().into_iter().filter(|key| key.starts_with("new/") && !key.ends_with('/')).count();
    assert_eq!(here, objects - 1);
}

/// Lets the clock go on, a second every 100 ms.
fn tick(world: &World) -> tokio::task::JoinHandle<()> {
    let clock = world.clock.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            clock.advance(Duration::from_secs(1));
        }
    })
}
