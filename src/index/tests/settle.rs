//! What the answers of S3 do to the journal.

use super::edit::new_inode;
use super::*;
use crate::index::tables;

impl Bench {
    /// An answer to what `task` calls for, under its key.
    fn answer(&self, task: &Task, etag: &str) -> Settled {
        Settled {
            ino: task.node.ino,
            change: task.pending.change,
            key: task.key.clone().unwrap(),
            etag: ETag::new(etag),
            size: task.node.size,
            sent: self.tick(),
            answered: self.tick(),
            content: task.pending.content,
            local: None,
        }
    }

    fn task(&self, ino: Ino) -> Task {
        self.index.task(ino).unwrap().expect("something is pending")
    }

    async fn settle(&self, settled: Settled) -> Outcome {
        let outcome = self.index.settle(settled).await.unwrap();
        assert_eq!(self.index.contradictions().unwrap(), Vec::<String>::new());
        outcome
    }

    /// A file with bytes in a staging file.
    async fn staged_file(&self, name: &str) -> (Ino, ObjectId) {
        let ino = self.make(Ino::ROOT, name, Kind::File).await;
        (ino, self.index.node(ino).unwrap().unwrap().staged.unwrap())
    }

    async fn change_mode(&self, ino: Ino) {
        let mode = NewAttributes { mode: Some(0o611), ..Default::default() };
        self.edit(move |edit| edit.set(ino, mode)).await;
    }
}

fn object(ino: Ino, object: ObjectId) -> Option<(Local, ObjectRow)> {
    object_of(ino, object, 0)
}

fn object_of(ino: Ino, object: ObjectId, size: u64) -> Option<(Local, ObjectRow)> {
    Some((Local { object, complete: true }, ObjectRow { ino, size, presence: Presence::Complete }))
}

#[tokio::test]
async fn an_upload_that_nothing_overtook_settles_all() {
    let bench = Bench::new();
    let (ino, staged) = bench.staged_file("f").await;
    let answer = Settled { local: object(ino, staged), ..bench.answer(&bench.task(ino), "e1") };
    let answered = answer.answered;
    assert_eq!(bench.settle(answer.clone()).await, Outcome::Done);
    let node = bench.index.node(ino).unwrap().unwrap();
    assert_eq!(node.remote.as_ref().unwrap().last_modified, Remote::UNTOLD);
    assert_eq!((node.staged, node.local.unwrap().object), (None, staged));
    assert_eq!(node.freshness.observed(), answered);
    assert_eq!((bench.index.backlog(), bench.index.garbage(9).unwrap()), (Backlog::default(), vec![]));
    assert!(bench.index.presence(staged).unwrap().is_some());
    assert_eq!(bench.places(ino), ("f".into(), "f".into()));
    // told twice
    assert_eq!(bench.settle(Settled { local: None, ..answer }).await, Outcome::Done);
    assert_eq!(bench.index.backlog(), Backlog::default());
}

#[tokio::test]
async fn attributes_that_were_asked_for_before_an_upload_are_not_those_after_it() {
    let bench = Bench::new();
    let old = [("file-permissions", "0100600")];
    for key in ["f", "d/"] {
        let ino = bench.see(key, head("e1", &old)).await.node.unwrap().ino;
        bench.change_mode(ino).await;
        let older = bench.observation(key, head("e1", &old));
        let answer = Settled { size: 2, ..bench.answer(&bench.task(ino), "e1") };
        assert_eq!(bench.settle(answer).await, Outcome::Done);
        assert_eq!(bench.index.apply(older).await.unwrap().verdict, Verdict::Unchanged);
        let node = bench.get(ino);
        assert_eq!((node.mode, node.remote.as_ref().unwrap().last_modified), (0o611, Remote::UNTOLD), "{key}");
    }
}

#[tokio::test]
async fn an_upload_proves_the_directories_that_it_is_in() {
    let bench = Bench::new();
    let dir = bench.make(Ino::ROOT, "d", Kind::Dir).await;
    let file = bench.make(dir, "f", Kind::File).await;
    bench.index.settle_without(dir, bench.task(dir).pending.change).await.unwrap();
    // answered before the upload, and heard of after it
    let (sent, source) = (bench.tick(), Source::Check);
    let staged = bench.index.node(file).unwrap().unwrap().staged.unwrap();
    let answer = Settled { local: object(file, staged), ..bench.answer(&bench.task(file), "e1") };
    assert_eq!(bench.settle(answer).await, Outcome::Done);
    let key = Key::new("d/").unwrap();
    let gone = Observation { key, seen: Seen::Absent, sent, answered: bench.tick(), source, content: None };
    assert_eq!(bench.index.apply(gone).await.unwrap().verdict, Verdict::Late);
    assert!(bench.index.node(file).unwrap().is_some());
}

#[tokio::test]
async fn the_files_that_a_settled_version_replaces_are_garbage() {
    let bench = Bench::new();
    let (node, old) = bench.put_with_content("f", "123").await;
    let ino = node.ino;
    let [staged, new] = [bench.index.allocate().await.unwrap(), bench.index.allocate().await.unwrap()].map(ObjectId);
    bench.edit(move |edit| edit.stage(ino, staged, 3, 3)).await;
    let task = bench.task(ino);
    let not_current = Settled { change: 1, local: object(ino, staged), ..bench.answer(&task, "e1") };
    assert_eq!(bench.settle(not_current).await, Outcome::Again);
    assert_eq!(bench.index.garbage(9).unwrap(), [], "it is a second name of the staging file");
    let answer = Settled { local: object_of(ino, new, 3), ..bench.answer(&bench.task(ino), "e2") };
    assert_eq!(bench.settle(answer).await, Outcome::Done);
    assert_eq!(bench.index.garbage(9).unwrap(), [old, staged]);

    // merged into the version below: that file stays
    bench.edit(move |edit| edit.stage(ino, ObjectId(staged.0 + 100_000), 3, 3)).await;
    let answer = Settled { local: object_of(ino, new, 3), ..bench.answer(&bench.task(ino), "e3") };
    assert_eq!(bench.settle(answer).await, Outcome::Done);
    assert_eq!(bench.index.garbage(9).unwrap(), [old, staged, ObjectId(staged.0 + 100_000)]);
    assert_eq!(bench.index.node(ino).unwrap().unwrap().local.unwrap().object, new);
}

#[tokio::test]
async fn a_change_since_stays_pending_and_is_young() {
    let bench = Bench::new();
    let (ino, staged) = bench.staged_file("f").await;
    let answer = Settled { local: object(ino, ObjectId(1 << 40)), ..bench.answer(&bench.task(ino), "e1") };
    bench.change_mode(ino).await;
    let before = bench.index.pending(ino).unwrap().unwrap();
    bench.clock.advance(Duration::from_secs(9));
    assert_eq!(bench.settle(answer).await, Outcome::Again);
    let after = bench.index.pending(ino).unwrap().unwrap();
    assert_eq!((after.content, after.change), (true, before.change));
    assert!(after.since > before.since);
    let node = bench.index.node(ino).unwrap().unwrap();
    assert_eq!((node.staged, node.remote.as_ref().unwrap().etag.as_str()), (Some(staged), "e1"));
    assert_eq!(bench.index.garbage(9).unwrap(), [ObjectId(1 << 40)]);
    assert_eq!(bench.index.settle_without(ino, before.change - 1).await.unwrap(), Outcome::Again);
}

#[tokio::test]
async fn an_upload_of_what_is_gone_is_removed_again() {
    let bench = Bench::new();
    let (ino, staged) = bench.staged_file("f").await;
    let answer = Settled { local: object(ino, staged), ..bench.answer(&bench.task(ino), "e1") };
    bench.unlink(Ino::ROOT, "f").await;
    let next = bench.staged_file("f").await.0;
    assert_eq!(bench.settle(answer).await, Outcome::Gone);
    assert_eq!(bench.away_keys(), [("f".into(), None)]);
    assert_eq!(bench.task(next).in_the_way.unwrap().etag.as_str(), "e1", "or replaced by what has its name");
    assert_eq!(bench.settle(bench.answer(&bench.task(next), "e2")).await, Outcome::Again, "its bytes are staged yet");
    assert_eq!(bench.away_keys(), []);
}

#[tokio::test]
async fn an_upload_under_a_name_that_was_given_up_is_moved() {
    let bench = Bench::new();
    let (ino, staged) = bench.staged_file("f").await;
    let answer = Settled { local: object(ino, staged), ..bench.answer(&bench.task(ino), "e1") };
    bench.mv((Ino::ROOT, "f"), (Ino::ROOT, "g")).await;
    assert_eq!(bench.settle(answer).await, Outcome::Again);
    assert_eq!(bench.lacks(ino), Some((false, false, true)));
    assert_eq!((bench.places(ino), bench.away_keys()), (("f".into(), "g".into()), vec![("f".into(), Some(ino))]));
    let copied = bench.answer(&bench.task(ino), "e2");
    assert_eq!(bench.settle(copied).await, Outcome::Done);
    assert_eq!((bench.places(ino), bench.away_keys()), (("g".into(), "g".into()), vec![("f".into(), None)]));
}

#[tokio::test]
async fn a_marker_under_a_name_that_was_given_up_is_removed() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, false, &[], 9).await;
    let dir = bench.make(Ino::ROOT, "d", Kind::Dir).await;
    let answer = bench.answer(&bench.task(dir), "m1");
    bench.mv((Ino::ROOT, "d"), (Ino::ROOT, "e")).await;
    assert_eq!(bench.settle(answer).await, Outcome::Elsewhere);
    assert_eq!((bench.lacks(dir), bench.away_keys()), (Some((true, false, false)), vec![("d/".into(), None)]));
    let answer = bench.answer(&bench.task(dir), "m2");
    assert_eq!(bench.settle(answer).await, Outcome::Done);
}

#[tokio::test]
async fn what_a_moved_directory_has_in_doubt_is_not_of_who_has_its_name_now() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a/f", "1")], 9).await;
    let (old, file) = (bench.node("a/").unwrap().ino, bench.node("a/f").unwrap().ino);
    bench.change_mode(file).await;
    assert!(bench.index.note_sent(file, Key::new("a/f").unwrap(), b"1".to_vec()).await.unwrap());
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "b")).await;
    let nothing = (Vec::<String>::new(), vec![]);
    // the one, the other, and the directory without either leave the name
    let new = bench.make(Ino::ROOT, "a", Kind::Dir).await;
    bench.make(new, "f", Kind::File).await;
    bench.unlink(new, "f").await;
    assert_eq!((bench.index.contradictions().unwrap(), bench.away_keys()), nothing);
    bench.make(new, "f", Kind::File).await;
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "c")).await;
    assert_eq!((bench.index.contradictions().unwrap(), bench.away_keys()), nothing);
    bench.make(Ino::ROOT, "a", Kind::Dir).await;
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "d")).await;
    assert_eq!((bench.index.contradictions().unwrap(), bench.away_keys()), nothing);
    // what was sent is the old one's
    bench.mv((old, "f"), (old, "g")).await;
    assert_eq!(bench.away_keys(), [("a/f".into(), Some(file))]);
}

#[tokio::test]
async fn what_was_removed_is_not_brought_back_by_an_older_word() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let older = bench.observation("d/f", head("1", &[]));
    let d = bench.node("d/").unwrap().ino;
    bench.unlink(d, "f").await;
    let (sent, answered) = (bench.tick(), bench.tick());
    bench.index.removed(Key::new("d/f").unwrap(), sent, answered).await.unwrap();
    assert_eq!(bench.away_keys(), []);
    assert_eq!(bench.index.apply(older).await.unwrap().verdict, Verdict::Late);
    assert!(bench.node("d/f").is_none());
    assert_eq!(bench.see("d/f", head("2", &[])).await.verdict, Verdict::Created);
}

#[tokio::test]
async fn what_was_removed_is_not_brought_back_once_another_had_its_name() {
    let bench = Bench::new();
    let (key, d) = (Key::new("d/f").unwrap(), "d/");
    let other = bench.put("other", "o").await.ino;
    for is_new in [true, false] {
        bench.see("d/f", head("1", &[])).await;
        let older = bench.observation("d/f", head("1", &[]));
        let d = bench.node(d).unwrap().ino;
        bench.unlink(d, "f").await;
        if is_new {
            bench.make(d, "f", Kind::File).await;
        } else {
            bench.mv((Ino::ROOT, "other"), (d, "f")).await;
        }
        let (sent, answered) = (bench.tick(), bench.tick());
        bench.index.removed(key.clone(), sent, answered).await.unwrap();
        if is_new {
            bench.unlink(d, "f").await;
        } else {
            bench.mv((d, "f"), (Ino::ROOT, "other")).await;
            assert_eq!(bench.places(other), ("other".into(), "other".into()));
        }
        assert_eq!(bench.index.apply(older).await.unwrap().verdict, Verdict::Late);
        assert_eq!(bench.names(d), [""; 0]);
    }
}

#[tokio::test]
async fn a_marker_that_was_removed_is_not_that_of_a_new_directory() {
    for is_listed in [true, false] {
        let bench = Bench::new();
        bench.list(Ino::ROOT, true, &[("a/", "m")], 9).await;
        let listed = Page { last: true, ..bench.page(&[("a/", "m"), ("a/f", "1")]) };
        let asked = bench.observation("a/", head("m", &[]));
        bench.unlink(Ino::ROOT, "a").await;
        let (sent, answered) = (bench.tick(), bench.tick());
        bench.index.removed(Key::new("a/").unwrap(), sent, answered).await.unwrap();
        let dir = bench.make(Ino::ROOT, "a", Kind::Dir).await;
        bench.make(dir, "f", Kind::File).await;
        bench.index.settle_without(dir, bench.task(dir).pending.change).await.unwrap();
        if is_listed {
            bench.index.apply_page(bench.sweep(Ino::ROOT, true), listed).await.unwrap();
        } else {
            assert_eq!(bench.index.apply(asked).await.unwrap().verdict, Verdict::Late);
        }
        assert_eq!(bench.index.remote_key(dir).unwrap(), None);
    }
}

#[tokio::test]
async fn a_marker_is_not_removed_with_what_is_below_it() {
    let bench = Bench::new();
    let keys = [("a/", "m"), ("a/f", "1")];
    bench.list(Ino::ROOT, true, &keys, 9).await;
    let a = bench.node("a/").unwrap().ino;
    bench.unlink(a, "f").await;
    let older = Page { last: true, ..bench.page(&keys) };
    let (sent, answered) = (bench.tick(), bench.tick());
    bench.index.removed(Key::new("a/f").unwrap(), sent, answered).await.unwrap();
    bench.index.apply_page(bench.sweep(a, true), older).await.unwrap();
    assert_eq!(bench.index.remote_key(a).unwrap(), Key::new("a/"));
    assert_eq!(bench.names(a), [""; 0]);
}

#[tokio::test]
async fn what_was_listed_of_a_prefix_is_not_of_a_directory_that_has_left_it() {
    for is_between in [false, true] {
        let bench = Bench::new();
        bench.list(Ino::ROOT, true, &[("d/", "m"), ("d/f", "1")], 9).await;
        let (d, f) = (bench.node("d/").unwrap().ino, bench.node("d/f").unwrap().ino);
        let leave = async |to| {
            let from = bench.get(d).component.text().to_owned();
            bench.mv((Ino::ROOT, &from), (Ino::ROOT, to)).await;
            assert!(bench.index.expand(d, 9).await.unwrap().done);
        };
        leave("e").await;
        let mut listing = bench.sweep(d, false);
        let (listed, checked) = (Page { last: true, ..bench.page(&[]) }, bench.get(d).freshness.checked());
        if is_between {
            (listing, _) = bench.index.apply_page(listing, bench.page(&[])).await.unwrap();
        }
        leave("d").await;
        bench.index.settle_without(f, bench.task(f).pending.change).await.unwrap();
        assert_eq!(bench.places(f), ("d/f".into(), "d/f".into()));
        bench.index.apply_page(listing, listed).await.unwrap();
        assert_eq!(bench.names(d), ["f"]);
        assert_eq!(bench.get(d).freshness.checked(), checked, "it was not listed");
    }
}

#[tokio::test]
async fn the_rest_of_a_listing_is_not_of_a_directory_that_was_moved_since_its_first_page() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/b", "1")], 9).await;
    let [d, a, b] = ["d/", "d/a", "d/b"].map(|key| bench.node(key).unwrap().ino);
    let listing = bench.sweep(Ino::ROOT, true);
    let (listing, _) = bench.index.apply_page(listing, bench.page(&[("d/a", "1")])).await.unwrap();
    bench.mv((Ino::ROOT, "d"), (Ino::ROOT, "e")).await;
    assert!(bench.index.expand(d, 9).await.unwrap().done);
    for ino in [a, b] {
        assert_eq!(bench.settle(bench.answer(&bench.task(ino), "1")).await, Outcome::Done);
    }
    let rest = Page { last: true, ..bench.page(&[("e/a", "1"), ("e/b", "1")]) };
    bench.index.apply_page(listing, rest).await.unwrap();
    assert_eq!([a, b].map(|ino| bench.places(ino).0), ["e/a", "e/b"]);
}

#[tokio::test]
async fn what_left_a_directory_is_not_brought_back_to_the_one_above_that_has_moved() {
    for recursive in [true, false] {
        let bench = Bench::new();
        bench.list(Ino::ROOT, true, &[("a/g", "1"), ("a/s/f", "1")], 9).await;
        let [a, s] = ["a/", "a/s/"].map(|key| bench.node(key).unwrap().ino);
        bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "b")).await;
        bench.mv((a, "s"), (a, "t")).await;
        bench.unlink(s, "f").await;
        let keys: &[_] = if recursive { &[("a/g", "1"), ("a/s/f", "1")] } else { &[("a/g", "1"), ("a/s/", "")] };
        let older = Page { last: true, ..bench.page(keys) };
        let (sent, answered) = (bench.tick(), bench.tick());
        bench.index.removed(Key::new("a/s/f").unwrap(), sent, answered).await.unwrap();
        assert!(bench.index.expand(s, 9).await.unwrap().done);
        bench.index.apply_page(bench.sweep(a, recursive), older).await.unwrap();
        assert_eq!(bench.names(a), ["g", "t"]);
    }
}

#[tokio::test]
async fn an_older_version_than_the_one_that_was_removed_is_not_taken_for_somebody_elses() {
    let bench = Bench::new();
    let f = bench.put("f", "1").await.ino;
    let older = bench.observation("f", head("1", &[]));
    bench.stage(f).await;
    bench.settle(bench.answer(&bench.task(f), "2")).await;
    bench.unlink(Ino::ROOT, "f").await;
    assert_eq!(bench.index.apply(older).await.unwrap().verdict, Verdict::Late);
    assert_eq!((bench.names(Ino::ROOT), bench.away_keys()), (vec![], vec![("f".into(), None)]));

    // nor one than what was sent and came to S3 after the file was gone
    let (g, _) = bench.staged_file("g").await;
    let task = bench.task(g);
    bench.unlink(Ino::ROOT, "g").await;
    let older = bench.observation("g", head("1", &[]));
    assert_eq!(bench.settle(bench.answer(&task, "2")).await, Outcome::Gone);
    assert_eq!(bench.index.apply(older).await.unwrap().verdict, Verdict::Late);
    let away = ["f", "g"].map(|key| (key.into(), None));
    assert_eq!((bench.names(Ino::ROOT), bench.away_keys()), (vec![], away.to_vec()));
}

#[tokio::test]
async fn a_moved_directory_comes_apart_in_batches() {
    let bench = Bench::new();
    let keys = [("a/", "m"), ("a/f1", "1"), ("a/f2", "1"), ("a/s/f", "1"), ("a/t/", "m")];
    bench.list(Ino::ROOT, true, &keys, 9).await;
    let [a, f, s, t, below] = ["a/", "a/f1", "a/s/", "a/t/", "a/s/f"].map(|key| bench.node(key).unwrap().ino);
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "b")).await;
    let new = bench.make(a, "new", Kind::File).await;
    let mut batches = Vec::new();
    loop {
        let expanded = bench.index.expand(a, 2).await.unwrap();
        assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
        batches.push(expanded.entries);
        if expanded.done {
            break;
        }
    }
    assert_eq!(batches, [2, 1, 1]);
    assert_eq!((bench.places(f), bench.lacks(f)), (("a/f1".into(), "b/f1".into()), Some((false, false, true))));
    assert_eq!((bench.places(below), bench.lacks(below)), (("a/s/f".into(), "b/s/f".into()), None));
    assert_eq!((bench.lacks(s), bench.lacks(new)), (Some((false, false, true)), Some((true, false, false))));
    // its own marker is made anew
    assert_eq!((bench.places(a), bench.lacks(a)), (("-".into(), "b/".into()), Some((true, false, false))));
    assert!(bench.away_keys().contains(&("a/".into(), None)));
    assert_eq!(bench.index.expand(t, 2).await.unwrap(), Expanded { entries: 0, done: true });
    assert_eq!(bench.index.expand(a, 2).await.unwrap(), Expanded { entries: 0, done: true }, "twice does no harm");
}

#[tokio::test]
async fn a_file_that_is_to_stay_here_gives_up_its_version() {
    let bench = Bench::new();
    let ino = bench.put_with_content("f", "1").await.0.ino;
    bench.mv((Ino::ROOT, "f"), (Ino::ROOT, ".nfs1")).await;
    let change = bench.index.pending(ino).unwrap().unwrap().change;
    assert_eq!(bench.index.localise(ino, change - 1).await.unwrap(), Outcome::Again);
    let local = bench.index.node(ino).unwrap().unwrap().local.unwrap();
    bench.index.detach(local.object).await.unwrap();
    assert_eq!(bench.index.localise(ino, change).await.unwrap(), Outcome::Again, "S3 alone has the bytes");
    let fetched = ObjectId(bench.index.allocate().await.unwrap());
    assert!(bench.index.attach(ino, ETag::new("1"), fetched, Presence::Complete).await.unwrap());
    assert_eq!(bench.index.localise(ino, change).await.unwrap(), Outcome::Done);
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    assert_eq!((bench.away_keys(), bench.lacks(ino)), (vec![("f".into(), None)], Some((true, false, false))));
    let node = bench.index.node(ino).unwrap().unwrap();
    assert!(node.remote.is_none() && node.local.is_some());
}

fn record(key: &str) -> Conflict {
    Conflict { key: key.into(), kept_as: "f.conflict".into(), at: 7, what: "both changed it".into() }
}

#[tokio::test]
async fn both_versions_of_a_conflict_are_kept() {
    let bench = Bench::new();
    let ino = bench.put_with_content("f", "1").await.0.ino;
    let staged = ObjectId(bench.index.allocate().await.unwrap());
    bench.edit(move |edit| edit.stage(ino, staged, 0, 0)).await;
    bench.put("f.conflict", "1").await;
    let name = Name::new(b"f.conflict").unwrap();
    let times = (bench.tick(), bench.tick());
    bench.index.conflict(ino, name, version("22", Some(&[])), times, record("f")).await.unwrap();
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    assert_eq!(bench.child(Ino::ROOT, "f.conflict-1").unwrap().ino, ino);
    assert_eq!((bench.places(ino).0, bench.lacks(ino)), ("-".into(), Some((true, false, false))));
    let theirs = bench.child(Ino::ROOT, "f").unwrap();
    assert_eq!((theirs.remote.as_ref().unwrap().etag.as_str(), theirs.staged), ("22", None));
    assert_eq!(bench.away_keys(), []);

    bench.index.note_conflict(record("g")).await.unwrap();
    let notes = bench.index.conflicts().unwrap();
    let kept = Conflict { kept_as: "f.conflict-1".into(), ..record("f") };
    assert_eq!(notes.iter().map(|(_, note)| note.clone()).collect::<Vec<_>>(), [kept, record("g")]);
    bench.index.forget_conflict(notes[0].0).await.unwrap();
    assert_eq!(bench.index.conflicts().unwrap(), notes[1..]);
}

#[tokio::test]
async fn their_version_has_the_name_at_once_whatever_came_while_we_asked_for_it() {
    let bench = Bench::new();
    let ino = bench.put("f", "1").await.ino;
    bench.stage(ino).await;
    let times = (bench.tick(), bench.tick());
    bench.see("f", head("1", &[])).await;
    let name = Name::new(b"f.conflict").unwrap();
    bench.index.conflict(ino, name, version("22", Some(&[])), times, record("f")).await.unwrap();
    assert_eq!((bench.names(Ino::ROOT), bench.away_keys()), (vec!["f.conflict".into(), "f".into()], vec![]));
}

#[tokio::test]
async fn local_bytes_go_on_top_of_another_version_or_of_none() {
    let bench = Bench::new();
    let ino = bench.put_with_content("f", "1").await.0.ino;
    let staged = ObjectId(bench.index.allocate().await.unwrap());
    bench.edit(move |edit| edit.stage(ino, staged, 0, 5)).await;
    let (sent, answered) = (bench.tick(), bench.tick());
    bench.index.rebase(ino, Some(version("22", None)), sent, answered).await.unwrap();
    let node = bench.index.node(ino).unwrap().unwrap();
    assert_eq!((node.remote.as_ref().unwrap().etag.as_str(), node.size, node.staged), ("22", 5, Some(staged)));
    bench.index.rebase(ino, None, sent, answered).await.unwrap();
    assert_eq!((bench.places(ino).0, bench.away_keys()), ("-".into(), vec![]));
    assert_eq!(bench.lacks(ino), Some((true, false, false)));
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn somebody_elses_version_appears_again() {
    let bench = Bench::new();
    bench.put("f", "1").await;
    bench.unlink(Ino::ROOT, "f").await;
    let (sent, answered) = (bench.tick(), bench.tick());
    let key = Key::new("f").unwrap();
    bench.index.not_ours(key, version("22", None), sent, answered).await.unwrap();
    assert_eq!(bench.away_keys(), []);
    assert_eq!(bench.child(Ino::ROOT, "f").unwrap().size, 2);
}

#[tokio::test]
async fn notes_of_uploads_outlive_a_restart_and_the_inode() {
    let bench = Bench::new();
    let (ino, _) = bench.staged_file("f").await;
    bench.index.note_upload(ino, Some(b"id".to_vec())).await.unwrap();
    let bench = bench.reopen();
    assert_eq!(bench.index.upload(ino).unwrap().as_deref(), Some(&b"id"[..]));
    bench.unlink(Ino::ROOT, "f").await;
    assert_eq!(bench.index.take_work(), [Work::Inode(ino)], "it is to be aborted");
    assert_eq!(bench.index.uploads().unwrap(), [(ino, b"id".to_vec())]);
    bench.index.note_upload(ino, None).await.unwrap();
    assert_eq!(bench.index.uploads().unwrap(), []);
}

#[tokio::test]
async fn contradictions_are_told() {
    let bench = Bench::new();
    let (ino, staged) = bench.staged_file("f").await;
    let spoil = move |change: &mut change::Change<'_>| {
        change.settle_pending(ino)?;
        change.remove_staged(staged)
    };
    bench.index.writer.run(1, spoil).await.unwrap();
    assert_eq!(bench.index.contradictions().unwrap().len(), 3);
}

#[tokio::test]
async fn a_link_has_its_target_from_the_first_moment() {
    let bench = Bench::new();
    let staged = ObjectId(bench.index.allocate().await.unwrap());
    let new = NewInode { size: 3, ..new_inode(Kind::Symlink, Some(staged)) };
    let name = Name::new(b"l").unwrap();
    bench
        .edit(move |edit| {
            let component = edit.component(Ino::ROOT, &name, Kind::Symlink)?.unwrap();
            edit.create(Ino::ROOT, component, new)
        })
        .await;
    assert_eq!(bench.index.staged(staged).unwrap().unwrap().ranges, [0..3]);
}

#[tokio::test]
async fn an_index_of_format_1_is_brought_to_this_one() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let before = bench.node("d/f").unwrap().inode.clone();
    let Bench { dir, index, clock } = bench;
    index.close().await;
    drop(index);
    let path = dir.path().join("index.redb");
    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut meta = txn.open_table(tables::META).unwrap();
        meta.insert(tables::META_FORMAT, 1).unwrap();
        for row in [tables::META_LOG, tables::META_LOGGED] {
            meta.remove(row).unwrap();
        }
    }
    std::fs::remove_file(path.with_extension("log")).unwrap();
    for table in [tables::PENDING, tables::EXPANDING, tables::STAGING, tables::UPLOADS, tables::CONFLICTS] {
        txn.delete_table(table).unwrap();
    }
    txn.delete_table(tables::AWAY).unwrap();
    txn.delete_table(tables::MOVED).unwrap();
    txn.commit().unwrap();
    drop(db);
    let index = Index::open(&path, OPTIONS, DEFAULTS, clock.clone()).unwrap();
    let bench = Bench { dir, index, clock };
    assert_eq!(bench.node("d/f").unwrap().inode, before);
    bench.unlink(before.parent, "f").await;
    assert_eq!(bench.away_keys(), [("d/f".into(), None)]);
}
