//! What an observation does: one row of the table a test.

use super::*;

const SECOND: i64 = 1_000_000_000;

#[tokio::test]
async fn a_key_makes_the_directories_on_its_way() {
    let bench = Bench::new();
    let applied = bench.see("a/b/c.txt", head("v1", &[])).await;

    assert_eq!(applied.verdict, Verdict::Created);
    let file = applied.node.unwrap();
    assert_eq!((file.kind, file.mode, file.uid, file.gid, file.size), (Kind::File, 0o644, 10, 20, 2));
    assert_eq!((file.mtime, file.ctime, file.attributes_known), (MODIFIED, MODIFIED, true));
    let dir = bench.child(bench.child(Ino::ROOT, "a").unwrap().ino, "b").unwrap();
    assert_eq!((dir.kind, dir.mode, dir.ino, dir.listed), (Kind::Dir, 0o755, file.parent, false));
    assert_eq!(bench.index.key(file.ino).unwrap(), Key::new("a/b/c.txt"));
    assert_eq!(bench.index.key(dir.ino).unwrap(), Key::new("a/b/"));
    assert_eq!(bench.index.counts(), Counts { files: 1, dirs: 2, bytes: 2 });
}

#[tokio::test]
async fn the_same_version_changes_nothing_and_settles_the_check() {
    let bench = Bench::new();
    let before = bench.put("f", "v1").await;
    let observation = bench.observation("f", head("v1", &[]));
    let sent = observation.sent;
    let applied = bench.index.apply(observation).await.unwrap();

    assert_eq!(applied.verdict, Verdict::Unchanged);
    assert_eq!(applied.node.unwrap().inode, before.inode);
    assert_eq!(before.freshness.checked(), sent, "all snapshots of an inode share its freshness");
}

#[tokio::test]
async fn milliseconds_of_a_listing_make_no_new_version() {
    let bench = Bench::new();
    let before = bench.put("f", "v1").await;
    let mut meta = version("v1", None);
    meta.last_modified = Time(MODIFIED.0 + SECOND - 1);
    let applied = bench.see("f", Seen::Object(meta)).await;

    assert_eq!(applied.verdict, Verdict::Unchanged);
    assert_eq!(applied.node.unwrap().inode, before.inode);
}

#[tokio::test]
async fn another_version_keeps_inode_and_cookie_and_moves_ctime_on() {
    let bench = Bench::new();
    let before = bench.put("f", "v1").await;
    let cookie = bench.index.cookie(before.ino).unwrap();
    let applied = bench.see("f", head("longer", &[])).await;

    let after = applied.node.unwrap();
    assert_eq!((applied.verdict, after.ino), (Verdict::Replaced, before.ino));
    assert_eq!(bench.index.cookie(after.ino).unwrap(), cookie);
    assert_eq!((after.size, after.remote.as_ref().unwrap().etag.as_str()), (6, "longer"));
    assert!(after.ctime > before.ctime, "the same Last-Modified, and yet another ctime");
    assert!(after.mtime > before.mtime, "and another mtime, for clients that go by it alone");
    let again = bench.see("f", head("longer", &[])).await.node.unwrap();
    assert_eq!(again.mtime, after.mtime, "a further check of the same version moves nothing back");
    assert_eq!(bench.index.counts().bytes, 6);
}

#[tokio::test]
async fn ctime_grows_when_the_clock_of_s3_goes_back() {
    let bench = Bench::new();
    let before = bench.put("f", "v1").await;
    let mut meta = version("v2", None);
    meta.last_modified = Time(MODIFIED.0 - 10 * SECOND);
    let after = bench.see("f", Seen::Object(meta)).await.node.unwrap();

    assert_eq!(after.mtime, Time(MODIFIED.0 - 10 * SECOND));
    assert!(after.ctime > before.ctime);
}

#[tokio::test]
async fn rewritten_metadata_puts_attributes_in_doubt_and_keeps_bytes() {
    let bench = Bench::new();
    let (before, object) = bench.put_with_content("f", "v1").await;
    let mut meta = version("v1", None);
    meta.last_modified = Time(MODIFIED.0 + 5 * SECOND);
    let applied = bench.see("f", Seen::Object(meta.clone())).await;

    let after = applied.node.unwrap();
    assert_eq!(applied.verdict, Verdict::Unchanged);
    assert!(before.attributes_known && !after.attributes_known);
    assert_eq!(after.local, Some(Local { object, complete: true }));

    // then HEAD tells them
    meta.user = Some(BTreeMap::from([("file-permissions".into(), "0100600".into())]));
    let known = bench.see("f", Seen::Object(meta)).await.node.unwrap();
    assert_eq!((known.mode, known.attributes_known), (0o600, true));
    assert!(known.ctime > after.ctime);
}

#[tokio::test]
async fn attributes_come_with_head_and_stay_over_a_listing() {
    let bench = Bench::new();
    let created = bench.see("f", listed("v1")).await.node.unwrap();
    assert!(!created.attributes_known);
    let mine: &[(&str, &str)] = &[("mode", "33152"), ("uid", "7"), ("mtime", "5")];
    let told = bench.see("f", head("v1", mine)).await.node.unwrap();
    assert_eq!((told.mode, told.uid, told.gid, told.mtime.seconds()), (0o600, 7, 20, 5));
    assert!(told.attributes_known && told.ctime > created.ctime);

    let listed = bench.see("f", listed("v1")).await.node.unwrap();
    assert_eq!(listed.inode, told.inode);
}

#[tokio::test]
async fn an_absent_file_is_removed_and_its_inode_is_stale() {
    let bench = Bench::new();
    let (node, object) = bench.put_with_content("d/f", "v1").await;
    let dir = bench.index.node(node.parent).unwrap().unwrap();
    let applied = bench.see("d/f", Seen::Absent).await;

    assert_eq!((applied.verdict, applied.node.is_none()), (Verdict::Removed, true));
    assert!(bench.index.node(node.ino).unwrap().is_none());
    assert!(bench.child(dir.ino, "f").is_none());
    assert_eq!(bench.index.garbage(9).unwrap(), [object]);
    let after = bench.index.node(dir.ino).unwrap().unwrap();
    assert!(after.mtime > dir.mtime && after.ctime > dir.ctime, "clients drop their listing of the directory");
    assert_eq!(bench.index.counts(), Counts { files: 0, dirs: 1, bytes: 0 });
}

#[tokio::test]
async fn what_was_never_here_is_not_removed() {
    let bench = Bench::new();
    for key in ["f", "d/f", "d/"] {
        let applied = bench.see(key, Seen::Absent).await;
        assert_eq!((applied.verdict, applied.node.is_none()), (Verdict::Unchanged, true));
    }
    assert_eq!(bench.index.counts(), Counts::default());
    assert_eq!(bench.see("", Seen::Absent).await.node.unwrap().ino, Ino::ROOT);
}

#[tokio::test]
async fn an_absent_directory_goes_with_all_below_it() {
    let bench = Bench::new();
    let keys: Vec<String> = (0..5000).map(|n| format!("d/{}/{n}", n % 7)).collect();
    let keys: Vec<(&str, &str)> = {
        let mut keys: Vec<_> = keys.iter().map(|key| (key.as_str(), "v1")).collect();
        keys.sort();
        keys
    };
    bench.list(Ino::ROOT, true, &keys, 1000).await;
    let (file, _) = bench.put_with_content("d/3/3", "v2").await;
    let dir = bench.node("d/").unwrap();
    assert_eq!(bench.index.counts().files, 5000);
    let applied = bench.see("d/", Seen::Absent).await;

    assert_eq!(applied.verdict, Verdict::Removed);
    assert!(bench.child(Ino::ROOT, "d").is_none() && bench.index.node(dir.ino).unwrap().is_none());
    // its subtree follows when the writer has nothing else to do
    bench.orphans_removed().await;
    assert_eq!(bench.index.counts(), Counts::default());
    assert!(bench.index.node(file.ino).unwrap().is_none());
    assert_eq!(bench.index.garbage(9).unwrap().len(), 1);
}

#[tokio::test]
async fn an_entry_that_comes_moves_its_directory_on_and_a_new_version_does_not() {
    let bench = Bench::new();
    bench.put("d/f", "v1").await;
    let before = bench.node("d/").unwrap();
    bench.put("d/f", "v2").await;
    assert_eq!(bench.node("d/").unwrap().inode, before.inode);
    bench.put("d/g", "v1").await;
    let after = bench.node("d/").unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
}

#[tokio::test]
async fn a_file_that_becomes_a_link_is_another_inode() {
    let bench = Bench::new();
    let (file, object) = bench.put_with_content("f", "v1").await;
    let applied = bench.see("f", head("v2", &[("file-permissions", "0120777")])).await;

    let link = applied.node.unwrap();
    assert_eq!((applied.verdict, link.kind), (Verdict::Created, Kind::Symlink));
    assert!(link.ino != file.ino && bench.index.node(file.ino).unwrap().is_none());
    assert_eq!(bench.child(Ino::ROOT, "f").unwrap().ino, link.ino);
    assert_eq!(bench.index.garbage(9).unwrap(), [object]);
    assert_eq!(bench.index.counts().files, 1);
}

#[tokio::test]
async fn a_marker_gives_its_directory_attributes() {
    let bench = Bench::new();
    let mine: &[(&str, &str)] = &[("file-permissions", "0040700"), ("file-owner", "5")];
    let applied = bench.see("d/", head("v1", mine)).await;
    let dir = applied.node.unwrap();
    assert_eq!((applied.verdict, dir.kind, dir.mode, dir.uid), (Verdict::Created, Kind::Dir, 0o700, 5));
    assert!(dir.remote.is_some());
    assert_eq!(dir.freshness.checked(), Tick::NEVER, "only a complete listing settles a directory");

    // a common prefix says nothing of the marker
    assert_eq!(bench.see("d/", Seen::Prefix).await.node.unwrap().inode, dir.inode);
}

#[tokio::test]
async fn a_file_and_a_directory_of_the_same_text_are_two_entries() {
    let bench = Bench::new();
    let file = bench.put("a", "v1").await;
    assert_eq!(bench.child(Ino::ROOT, "a").unwrap().ino, file.ino);
    assert!(bench.child(Ino::ROOT, "a‛f").is_none());

    let below = bench.put("a/b", "v1").await;
    assert_eq!(bench.child(Ino::ROOT, "a").unwrap().ino, below.parent, "the directory has the name");
    assert_eq!(bench.child(Ino::ROOT, "a‛f").unwrap().ino, file.ino);
    assert_eq!(bench.names(Ino::ROOT), ["a‛f", "a"]);

    bench.see("a/", Seen::Absent).await;
    assert_eq!(bench.child(Ino::ROOT, "a").unwrap().ino, file.ino);
    assert!(bench.child(Ino::ROOT, "a‛f").is_none());
    assert_eq!(bench.names(Ino::ROOT), ["a"]);

    // and the other way round: the directory first
    bench.see("a", Seen::Absent).await;
    bench.put("a/b", "v1").await;
    bench.put("a", "v1").await;
    assert_eq!(bench.names(Ino::ROOT), ["a", "a‛f"]);
}

#[tokio::test]
async fn a_late_observation_changes_nothing_and_expires_the_key() {
    let bench = Bench::new();
    let early = bench.observation("f", head("v1", &[]));
    let mut gone = bench.observation("f", Seen::Absent);
    gone.sent = early.sent;
    let node = bench.put("f", "v2").await;
    for late in [early, gone] {
        node.freshness.settle(bench.tick(), bench.tick());
        let applied = bench.index.apply(late).await.unwrap();
        assert_eq!(applied.verdict, Verdict::Late);
        assert_eq!(applied.node.unwrap().inode, node.inode);
        assert_eq!(node.freshness.checked(), Tick::NEVER);
    }
}

#[tokio::test]
async fn a_late_observation_that_agrees_is_no_news() {
    let bench = Bench::new();
    let early = bench.observation("f", head("v1", &[]));
    let node = bench.put("f", "v1").await;
    let checked = node.freshness.checked();
    assert_eq!(bench.index.apply(early).await.unwrap().verdict, Verdict::Unchanged);
    assert_eq!(node.freshness.checked(), checked, "and makes no check younger or older");
}

#[tokio::test]
async fn a_late_observation_does_not_settle_what_is_in_doubt() {
    let bench = Bench::new();
    let ino = bench.see("f", listed("v1")).await.node.unwrap().ino;
    let object = ObjectId(bench.index.allocate().await.unwrap());
    let told = head("v1", &[("file-permissions", "0100600")]);
    let early = Observation { content: Some(object), ..bench.observation("f", told.clone()) };
    bench.see("f", listed("v1")).await;
    assert_eq!(bench.index.apply(early).await.unwrap().verdict, Verdict::Late);
    let node = bench.get(ino);
    assert_eq!((node.attributes_known, node.freshness.checked()), (false, Tick::NEVER));
    assert_eq!(node.local, Some(Local { object, complete: true }), "the bytes are those of the version");
    assert_eq!(bench.see("f", told).await.node.unwrap().mode, 0o600);
}

#[tokio::test]
async fn a_late_observation_does_not_bring_back_what_was_removed() {
    let bench = Bench::new();
    bench.put("d/f", "v1").await;
    let (file, below) = (bench.observation("d/f", listed("v1")), bench.observation("d/f", listed("v1")));
    bench.see("d/f", Seen::Absent).await;
    assert_eq!(bench.index.apply(file).await.unwrap().verdict, Verdict::Late);
    bench.see("d/", Seen::Absent).await;
    assert_eq!(bench.index.apply(below).await.unwrap().verdict, Verdict::Late);
    assert!(bench.node("d/").is_none());
    assert_eq!(bench.see("d/f", listed("v1")).await.verdict, Verdict::Created, "a newer word does");
}

#[tokio::test]
async fn a_late_word_does_not_remove_a_directory_that_got_a_file_since() {
    let bench = Bench::new();
    bench.put("d/f", "v1").await;
    let gone = bench.observation("d/", Seen::Absent);
    bench.put("d/g", "v1").await;
    assert_eq!(bench.index.apply(gone).await.unwrap().verdict, Verdict::Late);
    assert!(bench.node("d/g").is_some());
}

#[tokio::test]
async fn defaults_of_a_later_start_show_where_metadata_gave_nothing() {
    let bench = Bench::new();
    bench.see("plain", head("v1", &[])).await;
    bench.see("mine", head("v1", &[("uid", "10"), ("mode", "33188")])).await;
    let Bench { dir, index, clock } = bench;
    drop(index);
    let defaults = Defaults { uid: 99, gid: 98, file_mode: 0o600, dir_mode: 0o700 };
    let index = Index::open(&dir.path().join("index.redb"), OPTIONS, defaults, clock.clone()).unwrap();
    let bench = Bench { dir, index, clock };

    let plain = bench.node("plain").unwrap();
    assert_eq!((plain.uid, plain.gid, plain.mode), (99, 98, 0o600));
    let mine = bench.node("mine").unwrap();
    assert_eq!((mine.uid, mine.gid, mine.mode), (10, 98, 0o644));
    assert_eq!(bench.index.node(Ino::ROOT).unwrap().unwrap().mode, 0o700);
}
