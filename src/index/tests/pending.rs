//! What an observation does to what is pending here: one row of the table a test.

use super::*;

fn etag(node: &Node) -> Option<&str> {
    node.remote.as_ref().map(|remote| remote.etag.as_str())
}

impl Bench {
    fn pending(&self, ino: Ino) -> Option<Pending> {
        self.index.pending(ino).unwrap()
    }

    fn away(&self, key: &str) -> Option<Away> {
        self.index.away(&Key::new(key).unwrap()).unwrap()
    }

    pub(super) fn get(&self, ino: Ino) -> Arc<Node> {
        self.index.node(ino).unwrap().unwrap()
    }

    fn conflicts_noted(&self) -> usize {
        use redb::ReadableTableMetadata;
        self.index.shared.cache.snapshot().unwrap().conflicts.len().unwrap() as usize
    }
}

#[tokio::test]
async fn what_was_removed_here_does_not_come_back_while_s3_still_has_it() {
    let bench = Bench::new();
    let file = bench.put("d/f", "v1").await;
    bench.put("d/g", "v1").await;
    bench.remove(file.ino).await;
    for seen in [head("v1", &[]), listed("v1")] {
        let applied = bench.see("d/f", seen).await;
        assert_eq!((applied.verdict, applied.node.is_none()), (Verdict::Unchanged, true));
    }
    let dir = bench.node("d/").unwrap().ino;
    for recursive in [false, true] {
        bench.list(dir, recursive, &[("d/f", "v1"), ("d/g", "v1")], 1).await;
        bench.list(Ino::ROOT, true, &[("d/f", "v1"), ("d/g", "v1")], 1).await;
        assert_eq!(bench.names(dir), ["g"]);
    }
    assert!(bench.away("d/f").is_some());
}

#[tokio::test]
async fn another_version_at_a_removed_key_is_somebody_elses_and_appears() {
    let bench = Bench::new();
    let file = bench.put("f", "v1").await;
    bench.remove(file.ino).await;
    let applied = bench.see("f", head("v2", &[])).await;
    assert_eq!(applied.verdict, Verdict::Created);
    assert!(bench.away("f").is_none());

    let file = applied.node.unwrap();
    bench.remove(file.ino).await;
    assert_eq!(bench.list(Ino::ROOT, true, &[("f", "v3")], 9).await.created, 1);
    assert!(bench.away("f").is_none());
}

#[tokio::test]
async fn an_older_word_than_the_last_one_is_not_somebody_elses_version() {
    let bench = Bench::new();
    let file = bench.put("f", "v1").await;
    let early = [bench.observation("f", head("v1", &[])), bench.observation("f", Seen::Absent)];
    bench.put("f", "v2").await;
    bench.remove(file.ino).await;
    for observation in early {
        assert_eq!(bench.index.apply(observation).await.unwrap().verdict, Verdict::Late);
        assert!(bench.away("f").is_some());
    }
}

#[tokio::test]
async fn a_replaced_key_is_left_to_the_upload() {
    let bench = Bench::new();
    let old = bench.put("f", "v1").await;
    bench.remove(old.ino).await;
    let new = bench.create("f").await;
    for version in ["v1", "v2"] {
        let applied = bench.see("f", head(version, &[])).await;
        assert_eq!((applied.verdict, applied.node.is_none()), (Verdict::Unchanged, true));
        bench.list(Ino::ROOT, false, &[("f", version)], 9).await;
    }
    assert_eq!(etag(&bench.get(new)), None);
    assert_eq!(bench.away("f").unwrap().etag, ETag::new("v1"));
    assert_eq!(bench.names(Ino::ROOT), ["f"]);
}

#[tokio::test]
async fn a_removed_key_that_s3_has_lost_is_done() {
    let bench = Bench::new();
    let file = bench.put("f", "v1").await;
    bench.remove(file.ino).await;
    assert_eq!(bench.see("f", Seen::Absent).await.verdict, Verdict::Unchanged);
    assert!(bench.away("f").is_none());
}

#[tokio::test]
async fn the_old_key_of_a_renamed_file_is_the_files() {
    let bench = Bench::new();
    let file = bench.put("p", "v1").await;
    bench.rename(file.ino, "q").await;
    assert_eq!(bench.index.remote_key(file.ino).unwrap(), Key::new("p"));

    let observation = bench.observation("p", head("v1", &[]));
    let sent = observation.sent;
    let applied = bench.index.apply(observation).await.unwrap();
    assert_eq!((applied.verdict, applied.node.unwrap().ino), (Verdict::Unchanged, file.ino));
    assert_eq!(bench.get(file.ino).freshness.checked(), sent, "it settles the file's freshness");

    let applied = bench.see("p", head("longer", &[])).await;
    assert_eq!(applied.verdict, Verdict::Replaced);
    let after = bench.get(file.ino);
    assert_eq!((etag(&after), after.size), (Some("longer"), 6));
    let away = bench.away("p").unwrap();
    assert_eq!((away.etag.as_str(), away.size, away.ino), ("longer", 6, Some(file.ino)), "the move takes it along");
    assert_eq!(bench.names(Ino::ROOT), ["q"]);
    assert!(bench.pending(file.ino).unwrap().place);
}

#[tokio::test]
async fn another_version_below_a_renamed_and_changed_file_is_left_to_writeback() {
    let bench = Bench::new();
    let file = bench.put("p", "v1").await;
    bench.rename(file.ino, "q").await;
    bench.stage(file.ino).await;
    let before = bench.get(file.ino);
    assert_eq!(bench.see("p", head("v2", &[])).await.verdict, Verdict::Unchanged);
    assert_eq!(bench.get(file.ino).inode, before.inode);
    assert_eq!(bench.away("p").unwrap().etag.as_str(), "v1");
}

#[tokio::test]
async fn bytes_changed_here_win_over_another_version() {
    let bench = Bench::new();
    let (file, object) = bench.put_with_content("f", "v1").await;
    let staged = bench.stage(file.ino).await;
    let before = bench.get(file.ino);
    for _ in 0..2 {
        assert_eq!(bench.see("f", head("version", &[("mode", "33152")])).await.verdict, Verdict::Unchanged);
        let applied = bench.list(Ino::ROOT, true, &[("f", "version")], 9).await;
        assert!(applied.outdated.is_empty(), "nobody copies in what is not taken");
        assert_eq!(bench.get(file.ino).inode, before.inode);
    }
    assert_eq!((before.staged, before.size, before.local.unwrap().object), (Some(staged), 1000, object));
}

#[tokio::test]
async fn the_version_below_changed_bytes_settles_and_tells_only_what_is_not_changed() {
    let bench = Bench::new();
    let file = bench.see("f", listed("v1")).await.node.unwrap();
    bench.stage(file.ino).await;
    let before = bench.get(file.ino);
    let observation = bench.observation("f", head("v1", &[("mode", "33152"), ("mtime", "5")]));
    let sent = observation.sent;
    assert_eq!(bench.index.apply(observation).await.unwrap().verdict, Verdict::Unchanged);
    let after = bench.get(file.ino);
    assert_eq!(after.freshness.checked(), sent);
    assert_eq!((after.mode, after.mtime, after.size), (0o600, before.mtime, 1000), "the mode is S3's, the time is not");
    assert_eq!(after.remote.as_ref().unwrap().size, 2);
}

#[tokio::test]
async fn bytes_that_come_below_a_change_have_the_length_of_the_version() {
    let bench = Bench::new();
    let file = bench.put("f", "v1").await;
    bench.stage(file.ino).await;
    let object = ObjectId(bench.index.allocate().await.unwrap());
    assert!(bench.index.attach(file.ino, ETag::new("v1"), object, Presence::Partial(vec![0..1])).await.unwrap());
    assert_eq!(bench.index.presence(object).unwrap().unwrap().size, 2);
    let (_, whole) = bench.put_with_content("f", "v1").await;
    assert_eq!(bench.get(file.ino).local, Some(Local { object: whole, complete: true }));
    assert_eq!(bench.index.presence(whole).unwrap().unwrap().size, 2);
    assert_eq!(bench.get(file.ino).size, 1000);
}

#[tokio::test]
async fn an_object_at_the_path_of_a_new_file_is_left_to_the_upload() {
    let bench = Bench::new();
    let new = bench.create("f").await;
    let before = bench.get(new);
    assert_eq!(bench.see("f", head("v1", &[])).await.verdict, Verdict::Unchanged);
    bench.list(Ino::ROOT, true, &[("f", "v1")], 9).await;
    assert_eq!(bench.get(new).inode, before.inode);

    let moved = bench.put("p", "v1").await;
    bench.rename(moved.ino, "q").await;
    let before = bench.get(moved.ino);
    assert_eq!(bench.see("q", head("theirs", &[])).await.verdict, Verdict::Unchanged);
    bench.list(Ino::ROOT, true, &[("f", "v1"), ("p", "v1"), ("q", "theirs")], 9).await;
    assert_eq!(bench.get(moved.ino).inode, before.inode);
    assert_eq!(bench.see("q", Seen::Absent).await.verdict, Verdict::Unchanged);
    assert_eq!(bench.get(moved.ino).inode, before.inode);
}

#[tokio::test]
async fn attributes_changed_here_stay_over_other_bytes_and_no_others() {
    let bench = Bench::new();
    let (file, object) = bench.put_with_content("f", "v1").await;
    bench.chmod(file.ino, 0o400).await;
    let applied = bench.see("f", head("longer", &[("mode", "33188"), ("uid", "7"), ("mtime", "5")])).await;
    assert_eq!(applied.verdict, Verdict::Replaced);
    let after = bench.get(file.ino);
    assert_eq!((after.mode, after.uid, after.mtime, after.size), (0o400, 7, Time(5_000_000_000), 6));
    assert!(after.ctime > file.ctime && bench.pending(file.ino).unwrap().attributes);
    assert_eq!(bench.index.garbage(9).unwrap(), [object]);
}

#[tokio::test]
async fn a_change_outlives_its_version_and_goes_up_again() {
    let bench = Bench::new();
    let kept = bench.put("kept", "v1").await;
    bench.stage(kept.ino).await;
    bench.see("kept", Seen::Absent).await;
    let moved = bench.put("p", "v1").await;
    bench.rename(moved.ino, "q").await;
    bench.stage(moved.ino).await;
    bench.see("p", Seen::Absent).await;
    for ino in [kept.ino, moved.ino] {
        let (node, pending) = (bench.get(ino), bench.pending(ino).unwrap());
        assert_eq!((&node.remote, &node.origin), (&None, &None));
        assert!(node.staged.is_some() && pending.content && !pending.place);
        assert!(bench.index.staged(node.staged.unwrap()).unwrap().is_some());
    }
    assert_eq!((bench.away("p"), bench.conflicts_noted()), (None, 2));
    bench.list(Ino::ROOT, true, &[], 9).await;
    assert_eq!(bench.names(Ino::ROOT), ["kept", "q"]);
}

#[tokio::test]
async fn what_is_new_here_stays_though_s3_has_nothing_of_it() {
    let bench = Bench::new();
    let dir = bench.create("d/").await;
    let file = bench.create("d/f").await;
    bench.see("d/f", Seen::Absent).await;
    bench.see("d/", Seen::Absent).await;
    bench.list(dir, false, &[], 9).await;
    bench.list(dir, true, &[], 9).await;
    bench.list(Ino::ROOT, false, &[], 9).await;
    bench.list(Ino::ROOT, true, &[], 9).await;
    assert_eq!((bench.get(file).parent, bench.get(dir).parent), (dir, Ino::ROOT));
    assert_eq!(bench.names(dir), ["f"]);
}

#[tokio::test]
async fn attributes_and_places_go_with_the_version_they_are_of() {
    let bench = Bench::new();
    let (changed, moved) = (bench.put("f", "v1").await, bench.put("p", "v1").await);
    bench.chmod(changed.ino, 0o400).await;
    bench.rename(moved.ino, "q").await;
    assert_eq!(bench.see("f", Seen::Absent).await.verdict, Verdict::Removed);
    assert_eq!(bench.see("p", Seen::Absent).await.verdict, Verdict::Removed);
    for ino in [changed.ino, moved.ino] {
        assert!(bench.index.node(ino).unwrap().is_none() && bench.pending(ino).is_none());
    }
    assert!(bench.away("p").is_none() && bench.names(Ino::ROOT).is_empty());
}

#[tokio::test]
async fn a_directory_above_a_change_stays_and_its_other_entries_go() {
    let bench = Bench::new();
    bench.see("d/", head("m", &[("file-permissions", "0700")])).await;
    let staged = bench.put("d/s/changed", "v1").await;
    bench.put("d/s/clean", "v1").await;
    bench.put("d/clean/x", "v1").await;
    bench.stage(staged.ino).await;
    let (d, s) = (bench.node("d/").unwrap().ino, bench.node("d/s/").unwrap().ino);
    bench.list(d, false, &[("d/", "m"), ("d/clean/", ""), ("d/s/", "")], 9).await;

    bench.see("d/", Seen::Absent).await;
    assert_eq!(bench.names(d), ["s", "clean"]);
    assert_eq!((bench.get(d).mode, etag(&bench.get(d))), (0o755, None), "its marker is gone");
    assert_eq!(bench.get(d).freshness.checked(), Tick::NEVER, "so that it is listed");
    bench.list(d, false, &[], 9).await;
    assert_eq!(bench.names(d), ["s"]);
    bench.list(s, false, &[], 9).await;
    assert_eq!(bench.names(s), ["changed"]);
    assert_eq!(etag(&bench.get(staged.ino)), None);
    bench.list(Ino::ROOT, true, &[], 9).await;
    assert_eq!(bench.get(staged.ino).parent, s);
}

#[tokio::test]
async fn a_marker_changed_here_is_written_again_when_s3_lost_it() {
    let bench = Bench::new();
    let dir = bench.see("d/", head("m", &[])).await.node.unwrap().ino;
    bench.put("d/f", "v1").await;
    bench.chmod(dir, 0o700).await;
    assert_eq!(bench.see("d/", head("other", &[("file-permissions", "0711")])).await.verdict, Verdict::Replaced);
    assert_eq!((bench.get(dir).mode, etag(&bench.get(dir))), (0o700, Some("other")));
    bench.list(dir, false, &[("d/f", "v1")], 9).await;
    assert_eq!((bench.get(dir).mode, etag(&bench.get(dir))), (0o700, None));
    assert!(bench.pending(dir).unwrap().content);
}

#[tokio::test]
async fn a_prefix_brings_no_removed_or_moved_directory_back() {
    let bench = Bench::new();
    let (file, moved) = (bench.put("r/f", "v1").await, bench.put("m/f", "v1").await);
    bench.remove(file.ino).await;
    bench.remove(file.parent).await;
    bench.rename(moved.parent, "n/").await;
    bench.put("p/deep/f", "v1").await;
    let (p, deep) = (bench.node("p/").unwrap().ino, bench.node("p/deep/").unwrap().ino);
    bench.rename(deep, "deep/").await;
    bench.remove(p).await;
    for key in ["r/", "m/", "p/"] {
        bench.see(key, Seen::Prefix).await;
    }
    bench.list(Ino::ROOT, false, &[("m/", ""), ("p/", ""), ("r/", "")], 1).await;
    bench.list(Ino::ROOT, true, &[("m/f", "v1"), ("p/deep/f", "v1"), ("r/f", "v1")], 1).await;
    assert_eq!(bench.names(Ino::ROOT), ["n", "deep"]);

    assert_eq!(bench.see("r/new", head("v1", &[])).await.verdict, Verdict::Created, "somebody's object does");
}

#[tokio::test]
async fn a_moved_directory_is_reconciled_where_s3_has_it() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/b", "1"), ("d/s/x", "1")], 9).await;
    let (dir, a) = (bench.node("d/").unwrap().ino, bench.node("d/a").unwrap().ino);
    bench.rename(dir, "e/").await;
    let new = bench.create("e/new").await;
    assert_eq!(bench.index.remote_key(a).unwrap(), Key::new("d/a"));
    assert_eq!(bench.index.remote_prefix(bench.node("e/s/").unwrap().ino).unwrap(), Key::new("d/s/"));

    // at its parent, by its old prefix; and in a listing of everything
    assert_eq!(bench.list(Ino::ROOT, false, &[("d/", "")], 9).await.removed, 0);
    let all = [("d/a", "2"), ("d/b", "1"), ("d/c", "1"), ("d/s/x", "1")];
    let applied = bench.list(Ino::ROOT, true, &all, 2).await;
    assert_eq!((applied.created, applied.replaced, applied.removed), (1, 1, 0));
    assert_eq!(etag(&bench.get(a)), Some("2"));
    assert_eq!(bench.names(Ino::ROOT), ["e"]);

    // its own listing
    let level = [("d/a", "2"), ("d/c", "1"), ("d/s/", "")];
    assert_eq!(bench.list(dir, false, &level, 1).await.removed, 1, "b");
    assert_eq!(bench.names(dir), ["a", "s", "new", "c"]);
    assert_eq!(bench.list(dir, true, &[("d/a", "2"), ("d/c", "1")], 1).await.removed, 1, "s");
    bench.see("d/c", Seen::Absent).await;
    bench.list(dir, false, &[], 9).await;
    assert_eq!((bench.names(dir), bench.get(new).parent), (vec!["new".into()], dir));
}

#[tokio::test]
async fn a_moved_directory_that_s3_lost_goes_with_its_rows() {
    let bench = Bench::new();
    bench.put("d/a", "1").await;
    let dir = bench.node("d/").unwrap().ino;
    bench.rename(dir, "e/").await;
    assert_eq!(bench.see("d/", Seen::Absent).await.verdict, Verdict::Removed);
    assert!(bench.pending(dir).is_none() && bench.names(Ino::ROOT).is_empty());
    assert_eq!(bench.see("d/a", head("1", &[])).await.verdict, Verdict::Created, "and its prefix is free again");
    assert_eq!(bench.names(Ino::ROOT), ["d"]);
}

#[tokio::test]
async fn a_new_directory_at_the_prefix_of_a_moved_one_takes_nothing_of_it() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/s/x", "1")], 9).await;
    let dir = bench.node("d/").unwrap().ino;
    bench.rename(dir, "e/").await;
    let new = bench.create("d/").await;
    bench.create("d/mine").await;
    for _ in 0..2 {
        bench.list(new, false, &[("d/a", "1"), ("d/s/", "")], 1).await;
        bench.list(new, true, &[("d/a", "1"), ("d/s/x", "1"), ("d/t", "1")], 1).await;
        bench.list(Ino::ROOT, false, &[("d/", "")], 1).await;
        bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/s/x", "1"), ("d/t", "1")], 1).await;
        assert_eq!(bench.names(new), ["mine"]);
        assert_eq!(bench.names(dir), ["a", "s", "t"]);
    }
    assert_eq!(bench.get(bench.node("e/a").unwrap().ino).parent, dir);
}

#[tokio::test]
async fn an_object_at_the_new_path_of_a_moved_directory_is_in_it_and_is_moved_too() {
    let bench = Bench::new();
    bench.put("d/a", "1").await;
    let dir = bench.node("d/").unwrap().ino;
    bench.rename(dir, "e/").await;
    let file = bench.see("e/f", head("v1", &[])).await.node.unwrap();
    assert_eq!((file.parent, &file.origin), (dir, &Key::new("e/f")));
    assert_eq!(bench.index.remote_key(file.ino).unwrap(), Key::new("e/f"));
    let deep = bench.see("e/h/i", head("v1", &[])).await.node.unwrap();
    assert_eq!(bench.index.remote_key(deep.ino).unwrap(), Key::new("e/h/i"));

    let all = [("d/a", "1"), ("e/f", "v1"), ("e/h/i", "v1")];
    let applied = bench.list(Ino::ROOT, true, &all, 1).await;
    assert_eq!((applied.created, applied.replaced, applied.removed), (0, 0, 0));
    assert_eq!(bench.list(dir, true, &[("d/a", "1")], 1).await.removed, 0, "what is not below its prefix stays");
    assert_eq!(bench.names(dir), ["a", "f", "h"]);
    assert_eq!(bench.see("e/f", Seen::Absent).await.verdict, Verdict::Removed);
}

#[tokio::test]
async fn an_untold_last_modified_is_taken_from_whoever_tells_it_first() {
    let bench = Bench::new();
    let file = bench.put("f", "v1").await;
    changes::untell(&bench.index, file.ino).await;
    let before = bench.node("f").unwrap();
    assert_eq!(bench.see("f", listed("v1")).await.verdict, Verdict::Unchanged);
    let after = bench.node("f").unwrap();
    assert_eq!(after.remote.as_ref().unwrap().last_modified, MODIFIED);
    assert_eq!((after.mtime, after.ctime, after.attributes_known), (before.mtime, before.ctime, true));
}

#[tokio::test]
async fn a_buried_key_is_not_brought_back_by_a_listing_sent_before() {
    let bench = Bench::new();
    let file = bench.put("d/f", "v1").await;
    let page = Page { last: true, ..bench.page(&[("d/f", "v1")]) };
    bench.remove(file.ino).await;
    bench.remove(file.parent).await;
    let answered = bench.tick();
    bench
        .index
        .writer
        .run(1, move |change| {
            change.bury_key(&Key::new("d/f").unwrap(), answered);
            change.remove_away("d/f")
        })
        .await
        .unwrap();
    bench.index.apply_page(bench.sweep(Ino::ROOT, true), page).await.unwrap();
    assert!(bench.names(Ino::ROOT).is_empty());
    assert_eq!(bench.see("d/f", listed("v1")).await.verdict, Verdict::Created, "a newer word does");
}

#[tokio::test]
async fn names_that_were_removed_or_moved_here_have_left() {
    let bench = Bench::new();
    let (file, moved) = (bench.put("f", "v1").await, bench.put("d/a", "v1").await);
    let gone = bench.put("r/x", "v1").await;
    let has_left = |dir, name: &str| bench.index.has_left(dir, &Name::new(name.as_bytes()).unwrap()).unwrap();
    assert!(!has_left(Ino::ROOT, "f"));
    bench.remove(file.ino).await;
    bench.rename(moved.parent, "e/").await;
    bench.remove(moved.ino).await;
    bench.remove(gone.ino).await;
    bench.remove(gone.parent).await;
    assert!(["f", "d", "r"].iter().all(|name| has_left(Ino::ROOT, name)));
    assert!(has_left(moved.parent, "a"));
    assert!(["e", "a", "ff"].iter().all(|name| !has_left(Ino::ROOT, name)));
}
