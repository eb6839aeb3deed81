//! Random changes of a tree, with uploads and questions to S3 that run beside them, crashes and restarts: what is here is
//! always the tree, and once all of it is brought to S3, S3 is too. Time goes by, as it tells older words from newer ones.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Mkdir(usize, usize),
    Chmod(usize),
    Remove(usize),
    Rename(usize, usize, usize),
    /// The same, of a directory.
    RenameDir(usize, usize, usize),
    /// S3 is asked about a file, or about all below a directory.
    Ask(usize),
    /// Others have so many turns.
    Pass(usize),
    Sync,
    Crash,
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let (n, name) = (0..30_usize, 0..NAMES.len());
    prop_oneof![
        4 => (n.clone(), name.clone()).prop_map(|(dir, name)| Step::Write(dir, name)),
        3 => (n.clone(), name.clone()).prop_map(|(dir, name)| Step::Mkdir(dir, name)),
        1 => n.clone().prop_map(Step::Chmod),
        2 => n.clone().prop_map(Step::Remove),
        3 => (n.clone(), n.clone(), name.clone()).prop_map(|(what, to, name)| Step::Rename(what, to, name)),
        6 => (n.clone(), n.clone(), name).prop_map(|(what, to, name)| Step::RenameDir(what, to, name)),
        4 => n.clone().prop_map(Step::Ask),
        4 => n.prop_map(Step::Pass),
        1 => Just(Step::Sync),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thing {
    /// `None` is a directory.
    text: Option<String>,
    mode: u32,
}

impl Thing {
    fn is_dir(&self) -> bool {
        self.text.is_none()
    }
}

/// What is to be there.
#[derive(Default)]
struct Model {
    /// By path.
    tree: BTreeMap<String, Thing>,
    written: usize,
}

impl Model {
    fn nth(&self, n: usize, is_dir: bool) -> Option<String> {
        let mut paths: Vec<&String> =
            self.tree.iter().filter(|(_, thing)| thing.is_dir() == is_dir).map(|(path, _)| path).collect();
        (!paths.is_empty()).then(|| paths.swap_remove(n % paths.len()).clone())
    }

    fn place(&self, dir: usize, name: usize) -> String {
        let dirs = 1 + self.tree.values().filter(|thing| thing.is_dir()).count();
        match self.nth(dir % dirs, true).filter(|_| dir % dirs < dirs - 1) {
            Some(dir) => format!("{dir}/{}", NAMES[name]),
            None => NAMES[name].to_owned(),
        }
    }

    fn has_entries(&self, dir: &str) -> bool {
        let below = format!("{dir}/");
        self.tree.keys().any(|path| path.starts_with(&below))
    }

    /// Whether `rename(2)` would do it.
    fn may_rename(&self, from: &str, to: &str) -> bool {
        let is_dir = self.tree[from].is_dir();
        let may_replace = self.tree.get(to).is_none_or(|other| other.is_dir() == is_dir && !self.has_entries(to));
        from != to && !to.starts_with(&format!("{from}/")) && may_replace
    }

    fn rename(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let moving: Vec<String> =
            self.tree.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moving {
            let entry = self.tree.remove(&path).unwrap();
            self.tree.insert(format!("{to}{}", &path[from.len()..]), entry);
        }
    }

    async fn play(&mut self, rig: Rig, step: Step) -> Rig {
        match step {
            Step::Write(dir, name) => {
                let path = self.place(dir, name);
                let mode = match self.tree.get(&path) {
                    Some(thing) if thing.is_dir() => return rig,
                    other => other.map_or(0o644, |thing| thing.mode),
                };
                self.written += 1;
                let text = format!("{} at {path}", self.written);
                rig.write(&path, text.clone()).await;
                self.tree.insert(path, Thing { text: Some(text), mode });
            }
            Step::Mkdir(dir, name) => {
                let path = self.place(dir, name);
                if let Entry::Vacant(place) = self.tree.entry(path) {
                    rig.mkdir(place.key()).await;
                    place.insert(Thing { text: None, mode: 0o755 });
                }
            }
            Step::Chmod(n) => {
                if let Some(path) = self.nth(n, n % 2 == 0) {
                    let mode = 0o700 + n as u32;
                    rig.chmod(&path, mode).await;
                    self.tree.get_mut(&path).unwrap().mode = mode;
                }
            }
            Step::Remove(n) => {
                let path = self.nth(n, n % 2 == 0).filter(|path| !self.has_entries(path));
                if let Some(path) = path {
                    rig.remove(&path).await;
                    self.tree.remove(&path);
                }
            }
            Step::Rename(what, dir, name) | Step::RenameDir(what, dir, name) => {
                let (from, to) = (self.nth(what, matches!(step, Step::RenameDir(..))), self.place(dir, name));
                if let Some(from) = from.filter(|from| self.may_rename(from, &to)) {
                    rig.rename(&from, &to).await;
                    self.tree.remove(&to);
                    self.rename(&from, &to);
                }
            }
            Step::Ask(n) => {
                let path = self.nth(n, n % 2 == 0).unwrap_or_default();
                let (ino, revalidator) = (rig.node(&path).ino, rig.revalidator.clone());
                // what it asks about may go meanwhile
                drop(tokio::spawn(async move { revalidator.refresh(ino).await }));
            }
            Step::Pass(turns) => {
                for _ in 0..turns * 20 {
                    tokio::task::yield_now().await;
                }
            }
            Step::Sync => self.is_in_s3(&rig).await,
            Step::Crash => return rig.crash().await,
            Step::Restart => return rig.restart().await,
        }
        rig
    }

    fn is_here(&self, rig: &Rig) {
        let (mut found, mut left) = (BTreeMap::new(), vec![(String::new(), Ino::ROOT)]);
        while let Some((prefix, dir)) = left.pop() {
            for entry in rig.index.entries(dir, 0, 1_000).unwrap() {
                let path = format!("{prefix}{}", entry.name);
                let is_dir = entry.node.kind == Kind::Dir;
                if is_dir {
                    left.push((format!("{path}/"), entry.node.ino));
                }
                found.insert(path, (is_dir, entry.node.mode));
            }
        }
        let wanted = self.tree.iter().map(|(path, thing)| (path.clone(), (thing.is_dir(), thing.mode))).collect();
        assert_eq!(found, wanted);
    }

    async fn is_in_s3(&self, rig: &Rig) {
        within(rig.writeback.synced(None)).await.unwrap();
        assert_eq!(rig.index.contradictions().unwrap(), Vec::<String>::new());
        self.is_here(rig);
        let keys = rig.bucket.keys();
        for (path, Thing { text, mode }) in &self.tree {
            match text {
                Some(text) => {
                    assert_eq!(rig.stored(path).as_ref(), Some(text), "{path}, of {keys:?}");
                    assert_eq!(rig.read(path).await, *text, "{path}");
                    let told = &rig.bucket.get(path).unwrap().user["file-permissions"];
                    assert_eq!(*told, format!("{:07o}", 0o100_000 | mode), "{path}");
                }
                None => assert!(keys.iter().any(|key| key.starts_with(&format!("{path}/"))), "{path}/ of {keys:?}"),
            }
        }
        let is_known = |key: &String| match key.strip_suffix('/') {
            Some(dir) => self.tree.get(dir).is_some_and(Thing::is_dir),
            None => self.tree.get(key).is_some_and(|thing| !thing.is_dir()),
        };
        let strange: Vec<_> = keys.iter().filter(|key| !is_known(key)).collect();
        assert!(strange.is_empty(), "S3 has {strange:?}, too");
        assert_eq!(rig.conflicts(), []);
    }
}

async fn play(steps: Vec<Step>) {
    let (clock, dir) = (Clock::system(), TempDir::new().unwrap());
    let s3 = S3Server::start(s3server::Options { clock: clock.clone(), ..s3server::Options::default() }).unwrap();
    let settings = Settings { upload_delay: Duration::ZERO, ..settings() };
    let (mut model, mut rig) = (Model::default(), Rig::on(s3, clock, dir, settings).await);
    for step in steps {
        rig = model.play(rig, step).await;
        model.is_here(&rig);
    }
    model.is_in_s3(&rig).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_here_s3_becomes_the_tree(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(steps));
    }
}
