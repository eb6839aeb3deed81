//! Each kind of damage, made by hand, is told and, where that can be, repaired: after that nothing is found any more.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::config::{self, NewObjects, S3Config};
use crate::content::{CacheLimit, Staged};
use crate::index::{Defaults, IndexOptions, Local, Node, changes};
use crate::revalidate::Settings;
use crate::s3server::{self, Bucket, S3Server};
use crate::store::{Connecting, connect_with};
use crate::types::ObjectId;

/// A cache over a bucket in this process, with the tasks that a server has.
struct Rig {
    bucket: Bucket,
    clock: Clock,
    index: Arc<Index>,
    content: Arc<Content>,
    remote: Remote,
    dir: TempDir,
    _s3: S3Server,
    _stop: DropGuard,
}

impl Rig {
    /// With these objects, listed.
    async fn new(objects: &[(&str, &'static str)]) -> Rig {
        let clock = Clock::manual();
        let s3 = S3Server::start(s3server::Options { clock: clock.clone(), ..s3server::Options::default() }).unwrap();
        let bucket = s3.bucket("bucket");
        objects.iter().for_each(|(key, bytes)| drop(bucket.put(key, *bytes, &[])));
        let dir = tempfile::tempdir().unwrap();
        let options = IndexOptions { cached_inodes: 100, cached_names: 100, page_cache_bytes: 1 << 20 };
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
        let index = Index::open(&dir.path().join("index.redb"), options, defaults, clock.clone()).unwrap();
        let index = Arc::new(index);
        let content = Content::open(dir.path(), index.clone(), CacheLimit::Bytes(1 << 40), clock.clone()).unwrap();
        let (stores, store) = connect(&s3).await;
        let revalidator = Revalidator::new(index.clone(), content.clone(), stores, settings(), clock.clone());
        let stop = CancellationToken::new();
        tokio::spawn(revalidator.clone().run(stop.clone()));
        revalidator.refresh(Ino::ROOT).await.unwrap();
        let remote = Remote { revalidator, store, clock: clock.clone() };
        Rig { bucket, clock, index, content, remote, dir, _s3: s3, _stop: stop.drop_guard() }
    }

    async fn fsck(&self, repair: bool) -> Report {
        run(&self.index, &self.content, None, Options { repair, remote: false }).await
    }

    async fn fsck_remote(&self, repair: bool) -> Report {
        run(&self.index, &self.content, Some(self.remote.clone()), Options { repair, remote: true }).await
    }

    fn node(&self, key: &str) -> Arc<Node> {
        self.index.resolve(&Key::new(key).unwrap()).unwrap().unwrap()
    }

    /// Brings a file here, and lets go of it: the file of its object.
    async fn cached(&self, key: &str) -> PathBuf {
        let ino = self.node(key).ino;
        self.remote.revalidator.warm(ino).await.unwrap();
        let Local { object, .. } = self.node(key).local.unwrap();
        self.dir.path().join(format!("objects/{:02x}/{:016x}", object.0 as u8, object.0))
    }

    /// Writes to a file, durably: what is staged, and its file.
    async fn written(&self, key: &str, bytes: &'static [u8]) -> (Arc<Staged>, PathBuf) {
        let (ino, size) = (self.node(key).ino, self.node(key).size);
        let id = self.content.new_staging().await.unwrap();
        let staged = self.index.edit(move |edit| Ok(Ok::<_, ()>(edit.stage(ino, id, size, size)?)));
        staged.await.unwrap().unwrap();
        let staged = self.content.staged(&self.node(key)).unwrap();
        let turn = staged.write_turn().await.unwrap();
        let at = (self.clock.now(), self.clock.wall());
        self.content.write(&staged, turn, 0, Bytes::from_static(bytes), at).await.unwrap();
        self.content.sync(&staged).await.unwrap();
        (staged, self.dir.path().join(format!("staging/{:016x}", id.0)))
    }

    /// As after a restart: nothing in memory.
    fn reopen(&mut self) {
        let limit = CacheLimit::Bytes(1 << 40);
        self.content = Content::open(self.dir.path(), self.index.clone(), limit, self.clock.clone()).unwrap();
    }

    /// What is wrong, before and after it was repaired.
    async fn repaired(&self, remote: bool) -> Report {
        let options = |repair| Options { remote, repair };
        let run = |repair| run(&self.index, &self.content, Some(self.remote.clone()), options(repair));
        let (told, repaired, after) = (run(false).await, run(true).await, run(false).await);
        assert_eq!((told.found, told.repaired), (repaired.found, 0), "looking repairs nothing");
        assert_eq!(repaired.repaired, repaired.found, "{repaired:#?}");
        assert_eq!(after.problems, [], "what is repaired is not found again");
        told
    }
}

fn settings() -> Settings {
    Settings {
        recheck: config::RECHECK,
        deadline: config::DEADLINE,
        stale_wait: None,
        small_object: config::SMALL_OBJECT_BYTES,
        recheck_healthy: config::RECHECK_HEALTHY,
    }
}

async fn connect(s3: &S3Server) -> (crate::revalidate::Stores, Arc<dyn WriteStore>) {
    let config = S3Config {
        bucket: "bucket".into(),
        prefix: String::new(),
        endpoint_url: Some(s3.endpoint()),
        region: Some(s3server::REGION.into()),
        profile: None,
        anonymous: false,
        requester_pays: false,
        concurrency: NonZeroU32::new(config::S3_CONCURRENCY).unwrap(),
        rate: None,
        new_objects: NewObjects::default(),
    };
    let timing = store::Timing { attempts: 2, backoff: Duration::from_millis(1), ..store::Timing::default() };
    let credentials =
        aws_sdk_s3::config::Credentials::new(s3server::ACCESS_KEY, s3server::SECRET_KEY, None, None, "test");
    let connecting = Connecting { credentials: Some(credentials), timing };
    let connected = connect_with(&config, Arc::default(), connecting).await.unwrap();
    (connected.stores, connected.writes)
}

fn whats(report: &Report) -> Vec<&str> {
    report.problems.iter().map(|problem| problem.what.as_str()).collect()
}

#[tokio::test]
async fn a_sound_cache_has_no_problems() {
    let rig = Rig::new(&[("dir/a", "12345"), ("dir/", ""), ("b", "")]).await;
    rig.cached("dir/a").await;
    rig.written("dir/a", b"x").await;
    let report = rig.fsck_remote(true).await;
    assert_eq!(report.problems, []);
    assert_eq!((report.inodes, report.entries, report.files, report.journal, report.keys), (4, 3, 2, 1, 3));
}

#[tokio::test]
async fn objects_that_are_lost_or_torn_are_let_go_of() {
    let mut rig = Rig::new(&[("lost", "12345"), ("torn", "12345"), ("well", "12345")]).await;
    rig.cached("well").await;
    fs::remove_file(rig.cached("lost").await).unwrap();
    fs::write(rig.cached("torn").await, "123").unwrap();
    rig.reopen();
    let told = rig.repaired(false).await;
    let mut keys: Vec<_> = told.problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["lost", "torn"]);
    assert!(
        whats(&told).iter().any(|what| what.ends_with("has 3 bytes, not 5; it is to be fetched again")),
        "{told:?}"
    );
    assert!(rig.node("lost").local.is_none() && rig.node("torn").local.is_none() && rig.node("well").local.is_some());
    assert!(rig.cached("lost").await.exists(), "it is fetched again");
}

#[tokio::test]
async fn files_that_nobody_knows_are_unlinked_and_those_in_use_are_not() {
    let rig = Rig::new(&[("a", "12345")]).await;
    let known = rig.cached("a").await;
    let being_made = rig.content.create(10).await.unwrap();
    let strays = ["objects/ab/00000000000a00ab", "staging/00000000000a00ff"].map(|path| rig.dir.path().join(path));
    strays.iter().for_each(|path| fs::write(path, "x").unwrap());
    fs::write(rig.dir.path().join("objects/ab/notes.txt"), "not ours").unwrap();
    let told = rig.repaired(false).await;
    assert_eq!(told.found, 2, "{told:#?}");
    assert!(strays.iter().all(|path| !path.exists()) && known.exists());
    assert!(rig.dir.path().join("objects/ab/notes.txt").exists());
    drop(being_made);
}

#[tokio::test]
async fn staged_bytes_that_are_lost_give_way_to_s3() {
    let mut rig = Rig::new(&[("a", "12345")]).await;
    let (staged, file) = rig.written("a", b"new").await;
    drop(staged);
    fs::remove_file(file).unwrap();
    rig.reopen();
    let told = rig.repaired(false).await;
    assert!(whats(&told)[0].starts_with("DATA LOSS: staged file"), "{told:#?}");
    assert_eq!((rig.node("a").staged, rig.node("a").size), (None, 5));
    assert_eq!(rig.index.conflicts().unwrap().len(), 1);
    assert!(rig.cached("a").await.exists());
}

#[tokio::test]
async fn staged_bytes_that_only_this_disk_had_are_told_and_kept_as_they_are() {
    let rig = Rig::new(&[]).await;
    let ino = changes::create(&rig.index, Ino::ROOT, "new").await;
    let report = rig.fsck(true).await;
    assert_eq!((report.found, report.repaired), (1, 0));
    let Problem { what, key, .. } = &report.problems[0];
    assert!(what.contains("DATA LOSS") && what.contains("is missing") && what.contains("S3 has no version"), "{what}");
    assert_eq!(key.as_deref(), Some("new"));
    assert!(rig.index.node(ino).unwrap().unwrap().staged.is_some());
}

/// While it is open its bytes are there: what would take their place must not.
#[tokio::test]
async fn a_staging_file_that_lost_its_name_is_kept_while_it_is_open() {
    let rig = Rig::new(&[("a", "12345")]).await;
    let (staged, file) = rig.written("a", b"new").await;
    fs::remove_file(file).unwrap();
    let report = rig.fsck(true).await;
    assert_eq!((report.found, report.repaired), (1, 0), "{report:#?}");
    assert!(whats(&report)[0].contains("fasts3 sync"), "{report:#?}");
    assert_eq!(rig.node("a").staged, Some(staged.id()));
}

#[tokio::test]
async fn problems_are_told_up_to_a_number_and_counted_beyond() {
    let rig = Rig::new(&[]).await;
    for n in 0..MOST_TOLD as u64 + 5 {
        let id = ObjectId((1 << 40) + n);
        fs::write(rig.dir.path().join(format!("staging/{:016x}", id.0)), "").unwrap();
    }
    let report = rig.fsck(false).await;
    assert_eq!((report.problems.len(), report.found), (MOST_TOLD, MOST_TOLD as u64 + 5));
    let repaired = rig.fsck(true).await;
    assert_eq!(repaired.repaired, MOST_TOLD as u64 + 5, "those that are not told, too");
}

#[tokio::test]
async fn what_s3_has_otherwise_is_asked_for_again() {
    let rig = Rig::new(&[("d/changed", "1"), ("d/gone", "1"), ("d/kept", "1"), ("e/gone", "1")]).await;
    rig.cached("d/changed").await;
    rig.bucket.put("d/changed", "another", &[]);
    rig.bucket.delete("d/gone");
    rig.bucket.delete("e/gone");
    rig.bucket.put("d/new", "1", &[]);
    rig.bucket.put("f/new", "1", &[]);
    let told = rig.repaired(true).await;
    let mut whats = whats(&told);
    whats.sort_unstable();
    assert_eq!(
        whats,
        [
            "S3 has another version at d/changed",
            "S3 has d/new, which is not known here",
            "S3 has f/new, which is not known here",
            "S3 has nothing at d/gone",
            "S3 has nothing at e/gone",
        ]
    );
    assert_eq!((rig.node("d/changed").size, rig.node("d/new").size, rig.node("f/new").size), (7, 1, 1));
    assert!(rig.node("d/changed").local.is_some_and(|local| local.complete), "what was warm stays so");
}

/// What is changed here wins; what is on its way is no difference.
#[tokio::test]
async fn what_is_pending_is_no_difference() {
    let rig = Rig::new(&[("a", "12345"), ("gone", "1"), ("old/x", "1"), ("removed", "1")]).await;
    rig.written("a", b"mine").await;
    changes::create(&rig.index, Ino::ROOT, "dir/").await;
    let old = rig.node("old/").ino;
    changes::rename(&rig.index, old, Ino::ROOT, "renamed/").await;
    changes::remove(&rig.index, rig.node("removed").ino).await;
    rig.bucket.put("a", "theirs", &[]);
    assert_eq!(rig.fsck_remote(false).await.problems, []);
}

#[tokio::test]
async fn what_is_to_leave_s3_and_is_gone_is_forgotten() {
    let rig = Rig::new(&[("removed", "1"), ("rewritten", "1"), ("z", "1")]).await;
    for key in ["removed", "rewritten"] {
        changes::remove(&rig.index, rig.node(key).ino).await;
    }
    rig.bucket.delete("removed");
    rig.bucket.put("rewritten", "somebody else's", &[]);
    let told = rig.repaired(true).await;
    let expected =
        ["S3 has rewritten, which is not known here", "removed is to be removed from S3, and is gone already"];
    assert_eq!(whats(&told), expected);
    assert_eq!(rig.index.backlog().away, 0);
    assert_eq!(rig.node("rewritten").size, 15, "it is somebody else's, and appears again");
}

#[tokio::test]
async fn uploads_that_nothing_needs_are_aborted() {
    let rig = Rig::new(&[("a", "12345")]).await;
    let key = Key::new("a").unwrap();
    let [left, needed] = [rig.node("a").ino, changes::create(&rig.index, Ino::ROOT, "dir/").await];
    for ino in [left, needed] {
        let upload = rig.remote.store.begin_upload(&key, &store::Headers::default()).await.unwrap();
        let note = format!(r#"{{"id":"{}"}}"#, upload.id);
        rig.index.note_upload(ino, Some(note.into_bytes())).await.unwrap();
    }
    let told = rig.repaired(true).await;
    assert_eq!(told.found, 1, "{told:#?}");
    assert_eq!((rig.bucket.uploads(), rig.index.uploads().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn an_s3_that_does_not_answer_is_a_problem_and_the_rest_is_checked() {
    let rig = Rig::new(&[("a", "12345")]).await;
    fs::write(rig.dir.path().join("staging/00000000000a00ff"), "x").unwrap();
    rig._s3.faults().set_down(true);
    let report = rig.fsck_remote(false).await;
    assert_eq!(report.found, 2, "{report:#?}");
    assert!(whats(&report)[1].starts_with("S3 cannot be looked at to the end"), "{report:#?}");
}

#[tokio::test]
async fn an_index_that_contradicts_itself_is_told_and_repaired() {
    let mut rig = Rig::new(&[("d/f", "of s3"), ("kept", "k")]).await;
    rig.written("d/f", b"OURS!").await;
    let ino = rig.node("d/f").ino;
    changes::spoil(&rig.index, ino).await;
    rig.reopen();
    let told = rig.repaired(false).await;
    assert!(whats(&told).iter().all(|what| what.contains("the index contradicts itself")), "{told:#?}");
    assert_eq!((rig.node("d/f").ino, told.rescued.len()), (ino, 0), "its name was free");
    let staged = rig.content.staged(&rig.node("d/f")).unwrap();
    assert_eq!(staged.read(0..u64::MAX, None).unwrap().0, &b"OURS!"[..]);
    assert!(rig.index.pending(ino).unwrap().unwrap().content);
}
