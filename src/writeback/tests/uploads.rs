//! Uploads: coalesced, quiet, identical, with their headers; what stays here.

use super::*;

#[tokio::test]
async fn a_file_written_a_hundred_times_is_one_put() {
    let rig = Rig::new().await;
    for n in 0..100 {
        rig.write("f.txt", format!("version {n}")).await;
    }
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Put, "f.txt")]);
    let stored = rig.bucket.get("f.txt").unwrap();
    assert_eq!(stored.bytes, "version 99");
    assert_eq!(stored.content_type.as_deref(), Some("text/plain"));
    assert_eq!(stored.user["file-permissions"], "0100644");
    assert_eq!(stored.user["file-mtime"], format!("{}ns", rig.node("f.txt").mtime.0));
    assert_eq!(rig.read("f.txt").await, "version 99");
    assert_eq!(rig.node("f.txt").staged, None);
    assert_eq!(rig.writeback.counts().uploads, 1);
}

#[tokio::test]
async fn created_and_removed_before_the_upload_is_nothing() {
    let rig = Rig::new().await;
    rig.write("f", "x").await;
    rig.remove("f").await;
    rig.sync().await;
    rig.clock.advance(DELAY * 2);
    rig.sync().await;
    assert_eq!(rig.s3.requests().total(), 0);
}

#[tokio::test]
async fn an_upload_waits_until_the_file_is_quiet() {
    let rig = Rig::new().await;
    let gate = rig.s3.faults().hold(Request::Put);
    rig.write_at("f", 0, "one ").await;
    rig.clock.advance(DELAY - Duration::from_millis(1));
    rig.write_at("f", 4, "two").await;
    rig.clock.advance(DELAY - Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert_eq!(gate.count(), 0);
    rig.clock.advance(Duration::from_millis(1));
    within(gate.arrived()).await;
    gate.release();
    rig.sync().await;
    assert_eq!(rig.stored("f").as_deref(), Some("one two"));
    assert_eq!(rig.s3.requests().count(Request::Put), 1);
}

#[tokio::test]
async fn sync_uploads_neighbours_together() {
    let rig = Rig::with(Settings { uploads: 1, ..settings() }).await;
    let written = Arc::new(Mutex::new(Vec::new()));
    rig.s3.set_witness({
        let written = written.clone();
        move |change| written.lock().push(change.key.to_string())
    });
    let names: Vec<String> = (0..50).map(|number| format!("f{number:02}")).collect();
    for name in &names {
        rig.write(name, "one").await;
    }
    rig.sync().await;
    assert_eq!(*written.lock(), names);
}

#[tokio::test]
async fn who_only_tells_the_index_leaves_its_place_to_the_next() {
    let rig = Rig::with(Settings { uploads: 1, ..settings() }).await;
    let gate = rig.s3.faults().hold(Request::Put);
    rig.write("a", "one").await;
    rig.write("b", "two").await;
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    let running = || rig.writeback.state.lock().queue.running();
    assert_eq!(running(), 1);

    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    let standing = rig.index.edit(move |_| {
        let _ = (begun.send(()), goes_on.recv());
        Ok::<_, IndexError>(Ok::<_, std::convert::Infallible>(()))
    });
    let next_begins = async {
        has_begun.await.unwrap();
        gate.release();
        while running() < 2 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).unwrap();
    };
    within(async { futures::join!(standing, next_begins).0.unwrap().unwrap() }).await;
    rig.sync().await;
    assert_eq!((rig.stored("a").as_deref(), rig.stored("b").as_deref()), (Some("one"), Some("two")));
    assert_eq!(rig.writeback.state.lock().settling, 0);
}

#[tokio::test]
async fn sync_waits_for_what_was_written_during_an_upload_and_not_committed() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let gate = rig.s3.faults().hold((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write_at("f", 0, "newer").await;
    let waiting = async {
        while rig.writeback.state.lock().waiters.is_empty() {
            tokio::task::yield_now().await;
        }
        gate.release();
    };
    let (synced, ()) = within(async { tokio::join!(rig.writeback.synced(None), waiting) }).await;
    synced.unwrap();
    assert_eq!(rig.stored("f").as_deref(), Some("newer"));
}

#[tokio::test]
async fn a_file_that_changes_during_its_upload_goes_up_again() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let gate = rig.s3.faults().hold((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write("f", "second").await;
    gate.release();
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), rig.read("f").await.as_str()), (Some("second"), "second"));
    assert_eq!(rig.s3.requests().count(Request::Put), 2);
    assert!(rig.conflicts().is_empty());
}

#[tokio::test]
async fn a_file_that_is_removed_during_its_upload_goes_from_s3_too() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let gate = rig.s3.faults().hold_answer((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.remove("f").await;
    gate.release();
    rig.meanwhile(rig.s3.requests().reached(Request::Delete, 1)).await;
    rig.sync().await;
    assert_eq!((rig.bucket.keys(), rig.names()), (vec![], vec![]));
}

#[tokio::test]
async fn a_write_that_is_not_durable_yet_goes_up_too() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let gate = rig.s3.faults().hold_answer((Request::Put, "f"));
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    rig.write_at("f", 5, " and more").await;
    gate.release();
    rig.meanwhile(rig.s3.requests().reached(Request::Put, 2)).await;
    rig.sync().await;
    assert_eq!(rig.stored("f").as_deref(), Some("first and more"));
}

#[tokio::test]
async fn renaming_over_a_file_leaves_no_gap_in_s3() {
    let rig = Rig::new().await;
    rig.bucket.put_as("page.html", "old", Some("text/x-own"), &[("colour", "blue"), ("uid", "99")]);
    rig.refresh().await;
    rig.s3.requests().reset();
    rig.write("page.tmp", "new").await;
    rig.rename("page.tmp", "page.html").await;
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Put, "page.html")]);
    let stored = rig.bucket.get("page.html").unwrap();
    assert_eq!((&*stored.bytes, stored.content_type.as_deref()), (&b"new"[..], Some("text/x-own")));
    assert_eq!((stored.user["colour"].as_str(), stored.user.get("uid")), ("blue", None));
    assert_eq!(rig.names(), ["page.html"]);
}

#[tokio::test]
async fn a_rewrite_with_the_same_bytes_sends_none() {
    let rig = Rig::new().await;
    rig.write("f", "same").await;
    rig.sync().await;
    rig.s3.requests().reset();
    rig.clock.advance(DELAY * 10);
    rig.write("f", "same").await;
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Copy, "f")]);
    assert_eq!(rig.bucket.get("f").unwrap().user["file-mtime"], format!("{}ns", rig.node("f").mtime.0));
    assert_eq!(rig.read("f").await, "same");
}

#[tokio::test]
async fn chmod_is_one_copy_that_keeps_all_else() {
    let rig = Rig::new().await;
    rig.bucket.put_as("f", "bytes", Some("text/x-own"), &[("colour", "blue"), ("mode", "33188")]);
    rig.refresh().await;
    rig.read("f").await;
    rig.s3.requests().reset();
    for mode in [0o600, 0o640, 0o755] {
        rig.chmod("f", mode).await;
    }
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Copy, "f")]);
    let stored = rig.bucket.get("f").unwrap();
    assert_eq!((&*stored.bytes, stored.content_type.as_deref()), (&b"bytes"[..], Some("text/x-own")));
    assert_eq!(stored.user["colour"], "blue");
    assert_eq!(stored.user["file-permissions"], "0100755");
    assert_eq!(stored.user["mode"], 0o100_755.to_string());
}

#[tokio::test]
async fn a_small_write_goes_over_the_version_of_s3() {
    let rig = Rig::new().await;
    rig.bucket.put("f", "hello world", &[]);
    rig.refresh().await;
    rig.write_at("f", 6, "W").await;
    rig.sync().await;
    assert_eq!((rig.stored("f").as_deref(), rig.read("f").await.as_str()), (Some("hello World"), "hello World"));
    assert_eq!(rig.s3.requests().count(Request::Put), 1);
}

#[tokio::test]
async fn links_and_fifos_are_objects_with_their_type() {
    let rig = Rig::new().await;
    rig.make("pipe", Kind::Fifo, 0o600).await;
    rig.sync().await;
    let stored = rig.bucket.get("pipe").unwrap();
    assert_eq!((stored.bytes.len(), stored.user["file-permissions"].as_str()), (0, "0010600"));
}

#[tokio::test]
async fn a_device_is_the_same_one_for_another_server() {
    let rig = Rig::new().await;
    rig.make_device("disk", (8, 17)).await;
    rig.sync().await;
    let stored = rig.bucket.get("disk").unwrap();
    assert_eq!((stored.user["file-permissions"].as_str(), stored.user["rdev"].as_str()), ("0060640", "2065"));
    let Rig { s3, clock, stop, .. } = rig;
    stop.cancel();
    let other = Rig::on(s3, clock, TempDir::new().unwrap(), settings()).await;
    within(other.revalidator.look_up(Ino::ROOT, &name("disk"))).await.unwrap();
    within(other.revalidator.describe(other.node("disk").ino)).await;
    let device = within(other.revalidator.look_up(Ino::ROOT, &name("disk"))).await.unwrap().unwrap();
    assert_eq!((device.kind, device.rdev), (Kind::BlockDevice, (8, 17)));
}

#[tokio::test]
async fn excluded_files_stay_here_and_are_not_counted() {
    let rig = Rig::new().await;
    rig.write(".DS_Store", "x").await;
    rig.write("kept.txt", "y").await;
    rig.sync().await;
    assert_eq!(rig.bucket.keys(), ["kept.txt"]);
    rig.rename("kept.txt", ".nfs0001").await;
    rig.sync().await;
    assert_eq!((rig.bucket.keys(), rig.read(".nfs0001").await.as_str()), (vec![], "y"));
    rig.rename(".nfs0001", "back.txt").await;
    rig.rename(".DS_Store", "store").await;
    rig.sync().await;
    assert_eq!((rig.stored("back.txt").as_deref(), rig.stored("store").as_deref()), (Some("y"), Some("x")));
}

#[tokio::test]
async fn directories_have_markers_where_they_must_be() {
    let rig = Rig::new().await;
    rig.mkdir("empty").await;
    rig.mkdir("full").await;
    rig.write("full/f", "x").await;
    rig.make("own", Kind::Dir, 0o700).await;
    rig.write("own/f", "x").await;
    rig.sync().await;
    assert_eq!(rig.bucket.keys(), ["empty/", "full/f", "own/", "own/f"]);
    assert_eq!(rig.bucket.get("own/").unwrap().user["file-permissions"], "0040700");
    rig.s3.requests().reset();
    rig.remove("full/f").await;
    rig.sync().await;
    assert_eq!(rig.writes(), [request(Request::Put, "full/"), request(Request::Delete, "full/f")]);
    rig.remove("full").await;
    rig.sync().await;
    assert_eq!(rig.bucket.keys(), ["empty/", "own/", "own/f"]);
}

#[tokio::test]
async fn what_was_not_uploaded_goes_up_after_a_restart() {
    let rig = Rig::new().await;
    rig.write("f", "bytes").await;
    rig.bucket.put("gone", "x", &[]);
    rig.refresh().await;
    rig.remove("gone").await;
    let rig = rig.crash().await;
    rig.sync().await;
    assert_eq!((rig.bucket.keys(), rig.stored("f").as_deref()), (vec!["f".to_owned()], Some("bytes")));
}

#[tokio::test]
async fn sync_of_a_directory_waits_for_what_is_below_it_alone() {
    let rig = Rig::new().await;
    rig.mkdir("a").await;
    rig.write("a/f", "x").await;
    rig.write("b", "y").await;
    let held = rig.s3.faults().hold((Request::Put, "b"));
    within(rig.writeback.synced(Some(rig.node("a").ino))).await.unwrap();
    assert_eq!(rig.stored("a/f").as_deref(), Some("x"));
    held.release();
    rig.sync().await;
}

#[tokio::test]
async fn what_s3_honours_is_found_out_before_the_first_write_and_leaves_nothing() {
    let rig = Rig::with(Settings { conditions: None, ..settings() }).await;
    assert_eq!(rig.s3.requests().total(), 0);
    rig.write("f", "x").await;
    rig.sync().await;
    assert_eq!((rig.bucket.keys(), rig.stored("f").as_deref()), (vec!["f".to_owned()], Some("x")));
    assert!(rig.s3.requests().recent().iter().any(|(_, key)| key.starts_with(".fasts3-probe-")));
}

#[tokio::test]
async fn uploads_count_against_the_budget_and_never_wait_for_it() {
    let clock = Clock::manual();
    let s3 = S3Server::start(s3server::Options { clock: clock.clone(), ..s3server::Options::default() }).unwrap();
    // Of so little the first listing leaves nothing.
    let budget = Budget::new(Dollars(10_000), clock.clone());
    let rig = Rig::within_budget(s3, clock, TempDir::new().unwrap(), settings(), budget.clone()).await;
    let left = || budget.state().unwrap().left;
    assert!(left() < 0.0);
    rig.write("small", "x").await;
    rig.write("large", "x".repeat(13 * MIB)).await;
    rig.sync().await;
    assert_eq!(rig.stored("small").as_deref(), Some("x"));
    assert_eq!(rig.stored("large").map(|text| text.len()), Some(13 * MIB));
    rig.clock.advance(Duration::from_secs(3_600));
    assert!(left() > -1e-12, "debt is an hour's worth at most");
    rig.write("small", "y").await;
    rig.sync().await;
    assert!(left() < 0.0, "they count");
}
