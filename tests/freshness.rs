//! Section "Freshness" of the README, sentence by sentence, over the wire.

#![allow(clippy::unwrap_used)]

#[path = "store/garage.rs"]
mod garage;
mod support;

use std::time::Duration;

use fasts3::s3server::{Kind, On, generated};
use fasts3::server::{Server, Surroundings};
use fasts3::store::{Connecting, Timing};
use fasts3::types::Clock;
use garage::Garage;
use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use support::{Client, RECHECK, World, soon};

/// F1: a warm LOOKUP, GETATTR, ACCESS, READDIR or READ never waits for S3.
#[tokio::test(flavor = "multi_thread")]
async fn warm_answers_do_not_wait_for_a_silent_s3() {
    let world = World::new().await;
    world.put("dir/file.txt", b"hello");
    let mut client = world.client().await;
    assert_eq!(client.read("dir/file.txt").await.unwrap(), b"hello");
    assert_eq!(client.list("dir").await.unwrap(), ["file.txt"]);
    world.quiet().await;

    world.age();
    let _silence = world.s3.faults().hold(On::any());
    assert_eq!(client.read("dir/file.txt").await.unwrap(), b"hello");
    assert_eq!(client.list("dir").await.unwrap(), ["file.txt"]);
}

/// F1: ... whether S3 is slow, failing or gone.
#[tokio::test(flavor = "multi_thread")]
async fn warm_answers_do_not_need_s3_at_all() {
    let world = World::new().await;
    world.put("file.txt", b"hello");
    let mut client = world.client().await;
    assert_eq!(client.read("file.txt").await.unwrap(), b"hello");
    world.s3.faults().set_down(true);
    for _ in 0..3 {
        world.age();
        assert_eq!(client.read("file.txt").await.unwrap(), b"hello");
    }
}

/// F2: at most one request is served stale before the copy starts; the next one after the swap is fresh.
#[tokio::test(flavor = "multi_thread")]
async fn one_stale_answer_then_the_fresh_one() {
    let world = World::new().await;
    world.put("file.txt", b"old");
    let mut client = world.client().await;
    assert_eq!(client.read("file.txt").await.unwrap(), b"old");
    world.quiet().await;

    world.put("file.txt", b"new and longer");
    world.age();
    let file = client.lookup("file.txt").await.unwrap();
    world.quiet().await;
    let (bytes, eof, attr) = client.read_at(&file.handle, 0, 100).await.unwrap();
    assert_eq!((&bytes[..], eof, attr.size), (&b"new and longer"[..], true, 14));
}

/// F2: it schedules a check behind the answer, unless that key was checked less than `--recheck` ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_checked_within_recheck_is_not_asked_for_again() {
    let world = World::new().await;
    world.put("file.txt", b"hello");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap();
    client.read_handle(&file.handle).await.unwrap();
    world.quiet().await;
    world.age();

    let before = world.s3.requests().total();
    for _ in 0..100 {
        client.getattr(&file.handle).await.unwrap();
    }
    world.quiet().await;
    assert_eq!(world.s3.requests().total() - before, 1);
}

/// F2: when S3 has a new version it is copied in and swapped atomically.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_version_is_served_whole_until_the_new_one_is_in() {
    let world = World::with(&["--lazy", "--small-object", "1KiB"]).await;
    let (old, new) = (vec![1; 3 << 20], vec![2; 4 << 20]);
    world.put("big", &old);
    let mut client = world.client().await;
    assert_eq!(client.read("big").await.unwrap(), old);
    world.quiet().await;

    world.put("big", &new);
    world.age();
    let copying = world.s3.faults().hold((Kind::Get, "big"));
    assert_eq!(client.read("big").await.unwrap(), old);
    soon(copying.arrived()).await;
    assert_eq!(client.read("big").await.unwrap(), old, "the copy has begun, not ended");
    copying.release();
    world.quiet().await;
    assert_eq!(client.read("big").await.unwrap(), new);
}

/// F3: the handle and fileid stay the same across a swap; size, mtime, ctime change.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_keeps_handle_and_fileid_and_changes_the_times() {
    let world = World::new().await;
    world.put("file.txt", b"old");
    let mut client = world.client().await;
    let old = client.lookup("file.txt").await.unwrap();
    world.put("file.txt", b"newer");
    world.age();
    client.getattr(&old.handle).await.unwrap();
    world.quiet().await;

    let new = client.lookup("file.txt").await.unwrap();
    assert_eq!(new.handle, old.handle);
    assert_eq!(new.attr.fileid, old.attr.fileid);
    assert_eq!(new.attr.size, 5);
    let time = |t: &nfs3_client::nfs3_types::nfs3::nfstime3| (t.seconds, t.nseconds);
    assert!(time(&new.attr.mtime) > time(&old.attr.mtime));
    assert!(time(&new.attr.ctime) > time(&old.attr.ctime));
}

/// F4: a name that is not here is looked for in S3 while the caller waits; the absence is remembered.
#[tokio::test(flavor = "multi_thread")]
async fn an_absent_name_is_asked_for_once_and_found_when_it_appears() {
    let world = World::new().await;
    let mut client = world.client().await;
    assert_eq!(client.lookup("later.txt").await.unwrap_err(), NFS3ERR_NOENT);
    let before = world.s3.requests().total();
    for _ in 0..10 {
        assert_eq!(client.lookup("later.txt").await.unwrap_err(), NFS3ERR_NOENT);
    }
    world.quiet().await;
    let again = world.s3.requests().total() - before;
    assert_eq!(again, 0, "the absence is remembered for --recheck");

    world.put("later.txt", b"here");
    world.age();
    assert_eq!(client.read("later.txt").await.unwrap(), b"here");
}

/// F4: a LOOKUP never waits for a whole listing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_asks_for_its_key_and_not_for_the_listing() {
    let world = World::new().await;
    for i in 0..2500 {
        world.put(&format!("many/f{i:04}"), b"x");
    }
    let mut client = world.client().await;
    world.s3.requests().reset();
    client.lookup("many/f1234").await.unwrap();
    assert!(world.s3.requests().count(Kind::List) <= 2, "one LIST of one key for each name");
}

/// F4: a cold READDIR of a huge directory is answered page by page as S3's pages arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_listing_answers_its_first_page_before_the_last_one_is_known() {
    let world = World::new().await;
    for i in 0..3500 {
        world.put(&format!("f{i:04}"), b"x");
    }
    let mut client = world.client().await;
    // Every LIST after the first is held.
    let root = client.root();
    let rest = world.s3.faults().hold(Kind::List);
    rest.pass(1);
    let first = soon(client.first_page(&root)).await.unwrap();
    assert!(!first.is_empty());
    rest.release();
    assert_eq!(client.list("").await.unwrap().len(), 3500);
}

/// F4: a known directory is served at once and re-listed behind; deleted keys disappear, new ones appear.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_directory_follows_s3_behind_the_answer() {
    let world = World::new().await;
    world.put("dir/a", b"1");
    world.put("dir/b", b"2");
    let mut client = world.client().await;
    assert_eq!(client.list("dir").await.unwrap(), ["a", "b"]);
    world.quiet().await;

    world.bucket.delete("dir/a");
    world.put("dir/c", b"3");
    world.age();
    client.list("dir").await.unwrap();
    world.quiet().await;
    assert_eq!(client.list("dir").await.unwrap(), ["b", "c"]);
    assert_eq!(client.lookup("dir/a").await.unwrap_err(), NFS3ERR_NOENT);
}

/// A store whose LIST lags behind (S3's does not) misleads a listing for as long as it lags, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_lags_behind_misleads_for_a_while_only() {
    let world = World::new().await;
    world.put("dir/a", b"1");
    world.put("dir/b", b"2");
    let mut client = world.client().await;
    assert_eq!(client.list("dir").await.unwrap(), ["a", "b"]);
    world.quiet().await;

    world.s3.faults().set_stale_list(true);
    world.bucket.delete("dir/a");
    world.put("dir/b", b"newer");
    world.put("dir/c", b"3");
    for _ in 0..3 {
        world.age();
        client.list("dir").await.unwrap();
        // Misled or not, meanwhile: what is answered is up to the LIST.
        let _ = (client.read("dir/b").await, client.read("dir/c").await);
        world.quiet().await;
    }
    world.s3.faults().set_stale_list(false);
    for _ in 0..2 {
        world.age();
        client.list("dir").await.unwrap();
        let _ = client.read("dir/b").await;
        world.quiet().await;
    }
    assert_eq!(client.list("dir").await.unwrap(), ["b", "c"]);
    assert_eq!(client.read("dir/b").await.unwrap(), b"newer");
}

/// A key that becomes a directory and back again works.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_becomes_a_directory_and_a_file_again() {
    let world = World::new().await;
    world.put("x", b"file");
    let mut client = world.client().await;
    assert_eq!(client.read("x").await.unwrap(), b"file");

    for round in 0..2 {
        // A check that is under way may have been answered before the change; the next one tells (F2).
        world.quiet().await;
        world.bucket.delete("x");
        world.put("x/inside", b"dir");
        world.age();
        client.list("").await.unwrap();
        let _ = client.lookup("x").await;
        world.quiet().await;
        world.age();
        assert_eq!(client.read("x/inside").await.unwrap(), b"dir", "round {round}");

        world.quiet().await;
        world.bucket.delete("x/inside");
        world.put("x", b"file");
        world.age();
        client.list("").await.unwrap();
        world.quiet().await;
        world.age();
        assert_eq!(client.read("x").await.unwrap(), b"file", "round {round}");
    }
}

/// F5: a cold READ returns as soon as its own range is here, not the whole object.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_of_5_gib_answers_its_first_mib_without_the_rest() {
    let world = World::new().await;
    const SIZE: u64 = 5 << 30;
    world.bucket.put_generated("large", SIZE, 7);
    let mut client = world.client().await;
    let file = client.lookup("large").await.unwrap();
    // A handful of GETs may pass, in whatever order they come; thousands would be needed for the whole.
    let rest = world.s3.faults().hold(Kind::Get);
    rest.pass(8);
    let (bytes, eof, attr) = client.read_at(&file.handle, 0, 1 << 20).await.unwrap();
    assert_eq!((attr.size, eof), (SIZE, false));
    assert!(bytes == generated(7, 0..1 << 20));
    rest.release();
    let (bytes, eof, _) = client.read_at(&file.handle, SIZE - 1000, 1 << 20).await.unwrap();
    assert!(eof && bytes == generated(7, SIZE - 1000..SIZE));
}

/// F5: past a deadline the answer is JUKEBOX, never a hang.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_past_its_deadline_is_told_to_ask_again() {
    let world = World::with(&["--lazy", "--deadline", "100ms"]).await;
    let content = vec![7; 1 << 20];
    world.put("file.txt", &content);
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap();
    world.quiet().await;
    let held = world.s3.faults().hold((Kind::Get, "file.txt"));
    assert_eq!(client.read_at(&file.handle, 0, 10).await.unwrap_err(), NFS3ERR_JUKEBOX);
    held.release();
    assert_eq!(client.read_handle(&file.handle).await.unwrap(), content);
}

/// F6: `--stale-limit one`: the request that finds the age in doubt is served at once, the next open waits.
#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_the_second_open_is_never_stale() {
    let world = World::with(&["--lazy", "--stale-limit", "one", "--stale-wait", "30s"]).await;
    world.put("file.txt", b"old");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap();
    assert_eq!(client.read_handle(&file.handle).await.unwrap(), b"old");
    world.quiet().await;

    world.put("file.txt", b"newer");
    world.age();
    assert_eq!(client.getattr(&file.handle).await.unwrap().size, 3, "served at once");
    assert_eq!(client.getattr(&file.handle).await.unwrap().size, 5, "this open waited");
}

/// F6: ... waits at most `--stale-wait`.
#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_an_open_does_not_wait_for_ever() {
    let world = World::with(&["--lazy", "--stale-limit", "one", "--stale-wait", "20ms"]).await;
    world.put("file.txt", b"old");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap();
    world.quiet().await;
    world.age();
    let _silence = world.s3.faults().hold(On::any());
    for _ in 0..3 {
        assert_eq!(client.getattr(&file.handle).await.unwrap().size, 3);
    }
}

/// F7: counters say how many answers were stale and for how long.
#[tokio::test(flavor = "multi_thread")]
async fn stale_answers_are_counted() {
    let world = World::new().await;
    world.put("file.txt", b"old");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap();
    client.read_handle(&file.handle).await.unwrap();
    world.quiet().await;
    assert_eq!(world.server().revalidator().stats().stale_served, 0);

    world.put("file.txt", b"new");
    world.clock.advance(Duration::from_secs(5));
    client.getattr(&file.handle).await.unwrap();
    world.quiet().await;
    let stats = world.server().revalidator().stats();
    assert!(stats.stale_served >= 1, "{stats:?}");
    assert!(stats.max_stale_ms <= 5_000, "{stats:?}");
}

/// F8: the server starts and serves with S3 unreachable, and catches up later.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_s3_and_catches_up() {
    let mut world = World::new().await;
    world.put("file.txt", b"old");
    assert_eq!(world.client().await.read("file.txt").await.unwrap(), b"old");
    assert_eq!(world.client().await.list("").await.unwrap(), ["file.txt"]);
    world.quiet().await;
    world.stop().await;

    world.s3.faults().set_down(true);
    world.start().await;
    let mut client = world.client().await;
    assert_eq!(client.read("file.txt").await.unwrap(), b"old");
    assert_eq!(client.list("").await.unwrap(), ["file.txt"]);
    world.quiet().await;

    world.put("file.txt", b"new");
    world.s3.faults().set_down(false);
    world.clock.advance(Duration::from_secs(60));
    client.lookup("file.txt").await.unwrap();
    world.quiet().await;
    assert_eq!(client.read("file.txt").await.unwrap(), b"new");
}

/// One LIST in place of 13 or more HEADs of one directory.
#[tokio::test(flavor = "multi_thread")]
async fn many_checks_of_one_directory_are_one_list() {
    let world = World::new().await;
    for i in 0..200 {
        world.put(&format!("dir/f{i:03}"), b"x");
    }
    let mut client = world.client().await;
    let dir = client.lookup("dir").await.unwrap();
    let names = client.list_handle(&dir.handle).await.unwrap();
    let mut handles = Vec::new();
    for name in names.keys() {
        handles.push(client.lookup_in(&dir.handle, name.as_bytes()).await.unwrap().handle);
    }
    world.quiet().await;
    world.age();
    let before = world.s3.requests().total();
    let gate = world.s3.faults().hold(On::any());
    for handle in &handles {
        client.getattr(handle).await.unwrap();
    }
    gate.release();
    world.quiet().await;
    let asked = world.s3.requests().total() - before;
    assert!(asked < 100, "{asked} requests for 200 checks");
}

/// F2, F3 and F4 with an S3 that is not ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_garage_is_served_once_stale_then_fresh() {
    let Some(garage) = Garage::start().await else { return };
    let somebody = garage.client();
    let put = async |bytes: &'static [u8]| {
        somebody.put_object().bucket(garage::BUCKET).key("dir/file").body(bytes.to_vec().into()).send().await.unwrap();
    };
    put(b"old").await;
    let (cache, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let connecting = Connecting { credentials: Some(garage.credentials()), timing: Timing::default() };
    let around = Surroundings { clock: clock.clone(), connecting, ..Surroundings::default() };
    let config = support::config(&garage.endpoint(), &cache, ["--lazy"]);
    let server = Server::start_in(config, around).await.unwrap();
    let mut client = Client::connect(server.nfs_addr().port(), "/", 0, 0).await;
    let cold = client.lookup("dir/file").await.unwrap();
    assert_eq!(client.read_handle(&cold.handle).await.unwrap(), b"old");
    soon(server.revalidator().quiet()).await;

    put(b"new and longer").await;
    assert_eq!(client.read_handle(&cold.handle).await.unwrap(), b"old", "checked less than --recheck ago");
    clock.advance(RECHECK);
    assert_eq!(client.getattr(&cold.handle).await.unwrap().size, 3, "the one stale answer");
    soon(server.revalidator().quiet()).await;
    let fresh = client.lookup("dir/file").await.unwrap();
    assert_eq!((fresh.handle.clone(), fresh.attr.size), (cold.handle, 14));
    assert_eq!(client.read_handle(&fresh.handle).await.unwrap(), b"new and longer");
    assert_eq!(client.list("dir").await.unwrap(), ["file"]);
    server.stop().await;
}
