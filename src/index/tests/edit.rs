//! What an edit makes of the tree and of the journal, rule by rule; `drain.rs` has them all mixed.

use super::*;
use crate::types::name::MAX_NAME_BYTES;

impl Bench {
    /// Runs an edit that is not refused.
    pub(super) async fn edit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Edit<'_, '_>) -> Result<T, IndexError> + Send + 'static,
    ) -> T {
        self.tick();
        let done = self.index.edit(|edit| work(edit).map(Ok::<T, ()>)).await.unwrap().unwrap();
        assert_eq!(self.index.contradictions().unwrap(), Vec::<String>::new());
        done
    }

    /// Makes a file that will have its bytes in a staging file, or a directory.
    pub(super) async fn make(&self, dir: Ino, name: &str, kind: Kind) -> Ino {
        let staged = ObjectId(self.index.allocate().await.unwrap());
        let new = new_inode(kind, (kind == Kind::File).then_some(staged));
        let name = Name::new(name.as_bytes()).unwrap();
        self.edit(move |edit| {
            let component = edit.component(dir, &name, kind)?.unwrap();
            edit.create(dir, component, new)
        })
        .await
    }

    pub(super) async fn unlink(&self, dir: Ino, name: &str) {
        let name = Name::new(name.as_bytes()).unwrap();
        self.edit(move |edit| {
            let found = edit.child(dir, &name)?.unwrap();
            edit.remove(dir, &found)
        })
        .await;
    }

    pub(super) async fn mv(&self, (from, old): (Ino, &str), (to, new): (Ino, &str)) {
        let [old, new] = [old, new].map(|name| Name::new(name.as_bytes()).unwrap());
        self.edit(move |edit| {
            let found = edit.child(from, &old)?.unwrap();
            let replaced = edit.child(to, &new)?;
            let component = edit.component(to, &new, found.inode.kind)?.unwrap();
            edit.rename(from, &found, to, component, replaced.as_ref())
        })
        .await;
    }

    pub(super) fn lacks(&self, ino: Ino) -> Option<(bool, bool, bool)> {
        let pending = self.index.pending(ino).unwrap();
        pending.map(|pending| (pending.content, pending.attributes, pending.place))
    }

    /// Keys away, with whom they wait for.
    pub(super) fn away_keys(&self) -> Vec<(String, Option<Ino>)> {
        let rows = self.index.away_rows(None, 100).unwrap();
        rows.into_iter().map(|(key, away)| (key.to_string(), away.ino)).collect()
    }

    /// Where S3 has it, and where it should have it.
    pub(super) fn places(&self, ino: Ino) -> (String, String) {
        let text = |key: Option<Key>| key.map_or_else(|| "-".to_owned(), |key| key.to_string());
        (text(self.index.remote_key(ino).unwrap()), text(self.index.key(ino).unwrap()))
    }
}

pub(super) fn new_inode(kind: Kind, staged: Option<ObjectId>) -> NewInode {
    let (atime, mtime) = (MODIFIED, MODIFIED);
    NewInode { kind, mode: 0o640, uid: 1, gid: 2, rdev: (0, 0), atime, mtime, staged, size: 0 }
}

const CONTENT: Option<(bool, bool, bool)> = Some((true, false, false));
const ATTRIBUTES: Option<(bool, bool, bool)> = Some((false, true, false));
const PLACE: Option<(bool, bool, bool)> = Some((false, false, true));

fn places(remote: &str, path: &str) -> (String, String) {
    (remote.to_owned(), path.to_owned())
}

#[tokio::test]
async fn a_created_file_is_there_at_once_with_what_s3_lacks_of_it() {
    let bench = Bench::new();
    let before = bench.node("").unwrap();
    let ino = bench.make(Ino::ROOT, "f", Kind::File).await;
    let node = bench.child(Ino::ROOT, "f").unwrap();
    assert_eq!((node.ino, node.mode, node.uid, node.gid, node.size), (ino, 0o640, 1, 2, 0));
    assert!(node.attributes_known && node.remote.is_none());
    assert_eq!(bench.lacks(ino), CONTENT);
    assert_eq!(bench.index.staged(node.staged.unwrap()).unwrap().unwrap().ino, ino);
    assert_eq!(bench.index.take_work(), [Work::Inode(ino)]);
    let after = bench.node("").unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    assert_eq!((bench.index.counts().files, bench.index.backlog().inodes), (1, 1));
    assert_eq!(bench.places(ino), places("-", "f"));

    // what was given stays, whatever the defaults become
    let Bench { dir, index, clock } = bench;
    drop(index);
    let defaults = Defaults { uid: 77, gid: 77, file_mode: 0o777, dir_mode: 0o777 };
    let index = Index::open(&dir.path().join("index.redb"), OPTIONS, defaults, clock).unwrap();
    let node = index.node(ino).unwrap().unwrap();
    assert_eq!((node.mode, node.uid, node.gid), (0o640, 1, 2));
}

#[tokio::test]
async fn a_file_created_and_removed_before_its_upload_leaves_nothing_to_do() {
    let bench = Bench::new();
    let ino = bench.make(Ino::ROOT, "f", Kind::File).await;
    let staged = bench.index.node(ino).unwrap().unwrap().staged.unwrap();
    bench.unlink(Ino::ROOT, "f").await;
    assert!(bench.child(Ino::ROOT, "f").is_none() && bench.index.node(ino).unwrap().is_none());
    assert_eq!(bench.index.backlog(), Backlog::default());
    assert_eq!(bench.index.staged(staged).unwrap(), None);
    assert_eq!(bench.index.garbage(9).unwrap(), [staged]);
}

#[tokio::test]
async fn names_that_no_key_can_say_are_refused() {
    let bench = Bench::new();
    bench.make(Ino::ROOT, "d", Kind::Dir).await;
    let component = |dir: Ino, name: Vec<u8>, kind: Kind| {
        let name = Name::new(&name).unwrap();
        bench.edit(move |edit| edit.component(dir, &name, kind))
    };
    let long = "x".repeat(MAX_NAME_BYTES);
    for refused in ["x‛~", "‛q", long.as_str(), "x‛f"] {
        assert_eq!(component(Ino::ROOT, refused.into(), Kind::File).await, None, "{refused}");
    }
    for legal in ["‛0x".replace("‛0", "‛‛"), "d‛f".into(), "é".into()] {
        let found = component(Ino::ROOT, legal.clone().into(), Kind::File).await.unwrap();
        assert_eq!(found.name(legal == "d‛f").to_string(), legal);
    }
    assert!(component(Ino::ROOT, b"\xFF".to_vec(), Kind::Dir).await.is_some());

    // the key of a directory has a slash more
    let mut dir = Ino::ROOT;
    for _ in 0..5 {
        dir = bench.make(dir, &"p".repeat(200), Kind::Dir).await;
    }
    let fits = vec![b'f'; 1024 - 5 * 201];
    assert!(component(dir, fits.clone(), Kind::File).await.is_some());
    assert!(component(dir, fits.clone(), Kind::Dir).await.is_none());
    assert!(component(dir, [fits, vec![b'f']].concat(), Kind::File).await.is_none());
}

#[tokio::test]
async fn a_directory_that_comes_or_goes_changes_the_name_of_the_file_beside_it() {
    let bench = Bench::new();
    bench.put("x", "1").await;
    bench.put("y/", "m").await;
    let (file, dir) = (bench.child(Ino::ROOT, "x").unwrap().ino, bench.child(Ino::ROOT, "y").unwrap().ino);
    bench
        .edit(move |edit| {
            let found = edit.child(Ino::ROOT, &Name::new(b"y").unwrap())?.unwrap();
            let component = edit.component(Ino::ROOT, &Name::new(b"x").unwrap(), Kind::Dir)?.unwrap();
            edit.rename(Ino::ROOT, &found, Ino::ROOT, component, None)
        })
        .await;
    assert_eq!(bench.child(Ino::ROOT, "x").unwrap().ino, dir);
    assert_eq!(bench.child(Ino::ROOT, "x‛f").unwrap().ino, file);
    bench.mv((Ino::ROOT, "x"), (Ino::ROOT, "z")).await;
    assert_eq!(bench.child(Ino::ROOT, "x").unwrap().ino, file);
    assert!(bench.child(Ino::ROOT, "x‛f").is_none());
}

#[tokio::test]
async fn a_removed_version_is_away_and_the_last_one_leaves_a_marker_behind() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    bench.put("m/", "marker").await;
    bench.put("m/f", "1").await;
    let [d, m] = ["d/", "m/"].map(|key| bench.node(key).unwrap().ino);
    bench.unlink(d, "f").await;
    bench.unlink(m, "f").await;
    assert_eq!(bench.away_keys(), [("d/f".into(), None), ("m/f".into(), None)]);
    assert_eq!((bench.lacks(d), bench.lacks(m)), (CONTENT, None));
    let task = bench.index.task(d).unwrap().unwrap();
    assert!(!task.has_entries && task.has_default_attributes && task.remote_key.is_none());
    bench.unlink(Ino::ROOT, "d").await;
    bench.unlink(Ino::ROOT, "m").await;
    assert_eq!(bench.away_keys(), [("d/f".into(), None), ("m/".into(), None), ("m/f".into(), None)]);
    assert_eq!(bench.index.backlog(), Backlog { inodes: 0, away: 3 });
}

#[tokio::test]
async fn attributes_become_pending_where_s3_can_have_them() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let [d, f] = ["d/", "d/f"].map(|key| bench.node(key).unwrap().ino);
    let before = bench.index.node(f).unwrap().unwrap();
    let mode = NewAttributes { mode: Some(0o600), ..Default::default() };
    let times = NewAttributes { mtime: Some(Time(5)), atime: Some(Time(6)), ..Default::default() };
    bench.edit(move |edit| edit.set(Ino::ROOT, mode)).await;
    assert_eq!(bench.lacks(Ino::ROOT), None);
    assert_eq!(bench.node("").unwrap().mode, 0o600);
    bench.edit(move |edit| edit.set(d, mode)).await;
    assert_eq!(bench.lacks(d), CONTENT, "it needs a marker to keep them");
    let inode = bench.edit(move |edit| edit.set(f, times)).await;
    assert_eq!(bench.lacks(f), ATTRIBUTES);
    assert_eq!((inode.mtime, inode.atime), (Time(5), Time(6)));
    assert!(inode.ctime > before.ctime);
}

#[tokio::test]
async fn what_is_recorded_of_a_staging_file_is_its_owners() {
    let bench = Bench::new();
    let (node, _) = bench.put_with_content("f", "123").await;
    let (ino, staged) = (node.ino, ObjectId(bench.index.allocate().await.unwrap()));
    let inode = bench.edit(move |edit| edit.stage(ino, staged, 2, 2)).await;
    assert_eq!((inode.size, inode.staged, bench.index.counts().bytes), (2, Some(staged), 2));
    assert!(inode.mtime > node.mtime && inode.ctime > node.ctime && inode.local == node.local);
    let first = bench.index.pending(ino).unwrap().unwrap();
    let row = StagedRow { ino, base_len: 2, ranges: vec![4..9] };
    let at = bench.index.wall();
    let progress = StagedProgress { staged, row: row.clone(), size: 9, mtime: at, ctime: at };
    let other = StagedProgress { staged: ObjectId(staged.0 + 1), size: 77, ..progress.clone() };
    bench.edit(move |edit| edit.record(progress)).await;
    bench.edit(move |edit| edit.record(other)).await;
    assert_eq!(bench.index.node(ino).unwrap().unwrap().size, 9);
    assert_eq!(bench.index.staged_rows(ObjectId(0), 9).unwrap(), [(staged, row)]);
    let second = bench.index.pending(ino).unwrap().unwrap();
    assert!(second.change > first.change && second.since == first.since);
}

#[tokio::test]
async fn a_renamed_file_leaves_its_key_and_comes_back_to_it() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    bench.put("g", "2").await;
    let [d, f, g] = ["d/", "d/f", "g"].map(|key| bench.node(key).unwrap().ino);
    let before = (bench.index.cookie(f).unwrap(), bench.index.node(f).unwrap().unwrap().ctime);
    // over another: that one's version is replaced, or removed
    bench.mv((d, "f"), (Ino::ROOT, "g")).await;
    assert_eq!(bench.child(Ino::ROOT, "g").unwrap().ino, f);
    assert!(bench.child(d, "f").is_none() && bench.index.node(g).unwrap().is_none());
    assert_eq!(bench.places(f), places("d/f", "g"));
    assert_eq!(bench.away_keys(), [("d/f".into(), Some(f)), ("g".into(), None)]);
    assert_eq!((bench.lacks(f), bench.lacks(d)), (PLACE, CONTENT));
    assert!(bench.index.cookie(f).unwrap() > before.0);
    assert!(bench.index.node(f).unwrap().unwrap().ctime > before.1);
    assert_eq!(bench.index.task(f).unwrap().unwrap().in_the_way.unwrap().etag, ETag::new("2"));

    // what takes its old name waits until it has left
    let new = bench.make(d, "f", Kind::File).await;
    assert_eq!(bench.index.task(new).unwrap().unwrap().in_the_way.unwrap().ino, Some(f));
    bench.mv((Ino::ROOT, "g"), (d, "f")).await;
    assert_eq!(bench.places(f), places("d/f", "d/f"));
    assert_eq!((bench.lacks(f), bench.away_keys()), (None, vec![("g".into(), None)]));
}

#[tokio::test]
async fn a_file_that_s3_never_had_just_moves() {
    let bench = Bench::new();
    let ino = bench.make(Ino::ROOT, "tmp", Kind::File).await;
    let before = bench.index.pending(ino).unwrap();
    bench.index.take_work();
    bench.mv((Ino::ROOT, "tmp"), (Ino::ROOT, "f")).await;
    assert_eq!(bench.index.pending(ino).unwrap(), before, "an upload under way is not made in vain");
    assert_eq!((bench.away_keys(), bench.index.take_work()), (vec![], vec![Work::Inode(ino)]));
}

#[tokio::test]
async fn a_renamed_directory_is_one_row() {
    let bench = Bench::new();
    bench.put("a/", "m").await;
    bench.put("a/s/f", "1").await;
    bench.put("b/x", "1").await;
    let [a, s, f, b] = ["a/", "a/s/", "a/s/f", "b/"].map(|key| bench.node(key).unwrap().ino);
    bench.mv((Ino::ROOT, "a"), (b, "c")).await;
    assert_eq!((bench.lacks(a), bench.lacks(s), bench.lacks(f)), (PLACE, None, None));
    assert_eq!(bench.away_keys(), []);
    assert_eq!(bench.places(f), places("a/s/f", "b/c/s/f"));
    assert_eq!(bench.places(a), places("a/", "b/c/"));
    assert_eq!(bench.index.remote_prefix(s).unwrap().unwrap().as_str(), "a/s/");
    // again, and the one above as well
    bench.mv((b, "c"), (b, "e")).await;
    bench.mv((Ino::ROOT, "b"), (Ino::ROOT, "w")).await;
    assert_eq!(bench.places(f), places("a/s/f", "w/e/s/f"));
    // a directory of a directory that is not where its path says
    bench.mv((a, "s"), (b, "s")).await;
    assert_eq!(bench.places(f), places("a/s/f", "w/s/f"));
    bench.mv((b, "s"), (a, "s")).await;
    assert_eq!(bench.lacks(s), None, "it is where its directory is");
    bench.mv((b, "e"), (Ino::ROOT, "a")).await;
    bench.mv((Ino::ROOT, "w"), (Ino::ROOT, "b")).await;
    assert_eq!(bench.index.backlog(), Backlog::default());
    assert_eq!(bench.places(f), places("a/s/f", "a/s/f"));
}

#[tokio::test]
async fn a_new_directory_owns_nothing_of_the_one_that_had_its_name() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a/f", "1"), ("a/g", "1")], 9).await;
    let [old, f] = ["a/", "a/f"].map(|key| bench.node(key).unwrap().ino);
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "b")).await;
    let new = bench.make(Ino::ROOT, "a", Kind::Dir).await;
    let made = bench.make(new, "n", Kind::File).await;
    let whole = bench.index.task(made).unwrap().unwrap().in_the_way.unwrap();
    assert_eq!((whole.ino, whole.etag.as_str()), (Some(old), ""), "the old one comes apart first");
    // back into a directory of that name, which is another one
    bench.mv((old, "f"), (new, "f")).await;
    assert_eq!((bench.places(f), bench.lacks(f)), (places("a/f", "a/f"), PLACE));
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "c")).await;
    assert_eq!(bench.places(f), places("a/f", "c/f"));
    assert_eq!(bench.lacks(new), CONTENT);
    bench.mv((Ino::ROOT, "b"), (Ino::ROOT, "a")).await;
    assert_eq!(bench.lacks(old), None);
    assert_eq!(bench.away_keys(), [("a/f".into(), Some(f))]);
}

#[tokio::test]
async fn a_new_directory_is_known_where_its_parent_is_and_nothing_of_it_is_in_dispute() {
    let bench = Bench::new();
    let unknown = bench.make(Ino::ROOT, "u", Kind::Dir).await;
    assert!(!bench.index.node(unknown).unwrap().unwrap().listed);
    bench.list(Ino::ROOT, false, &[("a/", ""), ("b", "1")], 9).await;
    let listed = bench.make(Ino::ROOT, "n", Kind::Dir).await;
    let below = bench.make(listed, "n", Kind::Dir).await;
    for ino in [listed, below] {
        let node = bench.index.node(ino).unwrap().unwrap();
        assert!(node.listed);
        assert_eq!(node.freshness.checked(), bench.node("").unwrap().freshness.checked());
    }
    bench.mv((Ino::ROOT, "a"), (Ino::ROOT, "c")).await;
    let again = bench.make(Ino::ROOT, "a", Kind::Dir).await;
    assert!(!bench.index.node(again).unwrap().unwrap().listed);
}

#[tokio::test]
async fn what_is_above_what() {
    let bench = Bench::new();
    bench.put("a/b/f", "1").await;
    let [a, f] = ["a/", "a/b/f"].map(|key| bench.node(key).unwrap().ino);
    let seen = bench
        .edit(move |edit| {
            Ok([
                edit.is_above(a, f)?,
                edit.is_above(f, f)?,
                edit.is_above(Ino::ROOT, f)?,
                edit.is_above(f, a)?,
                edit.is_empty(a)?,
                edit.is_empty(f)?,
            ])
        })
        .await;
    assert_eq!(seen, [true, true, true, false, false, true]);
}

#[tokio::test]
async fn what_is_below_a_directory_that_s3_has_lost_is_gone_although_it_is_not_removed_yet() {
    let bench = Bench::new();
    bench.put("a/b/f", "1").await;
    let [b, f] = ["a/b/", "a/b/f"].map(|key| bench.node(key).unwrap().ino);
    let lost = bench.observation("a/", Seen::Absent);
    let (release, held) = std::sync::mpsc::channel();
    // both in one transaction: between two of them the writer removes what is below
    let hold = bench.index.edit(move |_| Ok(held.recv().map_err(drop)));
    let look = bench.index.edit(move |edit| Ok(Ok::<_, ()>([edit.inode(b)?, edit.inode(f)?])));
    let (_, applied, seen, _) =
        tokio::join!(hold, bench.index.apply(lost), look, async move { release.send(()).unwrap() });
    assert_eq!(applied.unwrap().verdict, Verdict::Removed);
    assert_eq!(seen.unwrap(), Ok([None, None]), "what would be changed of it would be lost");
    bench.orphans_removed().await;
    assert_eq!(bench.index.counts(), Counts::default());
}
