//! Names that are not here: looked for in S3 while the caller waits, and remembered when S3 has none (F4).
//! Owns: the lookups under way, and the absences of the last `recheck`.
//! Where S3 may have the name still because what had it was removed or renamed here, S3 is not asked.
//! Invariant: an absence is only ever remembered from the moment its question was sent.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::future::join_all;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use smallvec::SmallVec;

use super::flights::Landing;
use super::{Asked, Revalidator, Stamps, Trouble, WaitError};
use crate::index::{Node, Seen, Source};
use crate::store::{self, ListRequest, Store};
use crate::types::name::{ComponentKind, split};
use crate::types::{Component, Ino, Key, Name, Tick};

/// Lookups at once; a client that asks for more is told to ask again.
const MOST_LOOKUPS: usize = 4_096;
/// Absences remembered: about 10 MB of ordinary names at most.
const ABSENCES: usize = 65_536;

/// What a lookup ends in.
pub(super) type Found = Result<Option<Arc<Node>>, WaitError>;

/// Names that S3 said it does not have, and when it was asked.
pub(super) struct Absences(Cache<(Ino, Name), Tick>);

impl Absences {
    pub(super) fn new() -> Absences {
        Absences(Cache::new(ABSENCES))
    }
}

/// A borrowed key of `Absences`.
struct Sought<'a>(Ino, &'a Name);

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, self.1).hash(state);
    }
}

impl Equivalent<(Ino, Name)> for Sought<'_> {
    fn equivalent(&self, key: &(Ino, Name)) -> bool {
        self.0 == key.0 && *self.1 == key.1
    }
}

/// One question to S3 and its answer: a fact, or nothing there.
type Answer = Result<Option<(Key, Seen, Stamps)>, Trouble>;

impl Revalidator {
    /// Whether S3 said lately (within `recheck`) that `dir` has no such name, or a fresh listing says so, or it is known
    /// here: the directory is new, or the name was removed or renamed here.
    pub fn is_absent(&self, dir: &Arc<Node>, name: &Name) -> bool {
        let now = self.clock.now();
        let is_fresh = |asked: Tick| asked != Tick::NEVER && now.since(asked) < self.settings.recheck;
        (dir.listed && is_fresh(dir.freshness.checked()))
            || self.absences.0.get(&Sought(dir.ino, name)).is_some_and(is_fresh)
            || self.is_ours(dir)
            || self.index.has_left(dir.ino, name).unwrap_or(false)
    }

    /// Looks in S3 for a name the index does not have: that one key, and whether it is a prefix (F4).
    /// `Ok(None)`: it is not there, remembered for `recheck`.
    pub async fn look_up(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, WaitError> {
        let (node, _) = self.node_and_key(dir).map_err(|trouble| trouble.to_wait())?;
        // While S3 is away a directory that was listed is what its last listing said (F8).
        if self.is_absent(&node, name) || (node.listed && self.outage.is_on()) {
            return Ok(None);
        }
        let started =
            self.lookups.join(&(dir, name.clone()), MOST_LOOKUPS, None, |landing| self.start(dir, name, landing));
        let Some(mut flight) = started else { return Err(WaitError::Busy) };
        match tokio::time::timeout(self.settings.deadline, flight.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().unwrap_or(Err(WaitError::Busy)),
            // Late, or the server stops. A late answer is in the index when the client asks again.
            Ok(Err(_)) | Err(_) => Err(WaitError::Busy),
        }
    }

    fn start(&self, dir: Ino, name: &Name, landing: Landing<(Ino, Name), Option<Found>>) {
        let (me, name) = (self.me(), name.clone());
        self.tasks.spawn(async move {
            let found = tokio::select! {
                found = me.find(dir, &name) => found,
                () = me.stopping.cancelled() => return,
            };
            let found = found.map_err(|trouble| trouble.to_wait());
            landing.finish(|state| *state = Some(found));
        });
    }

    /// Asks for all that `name` can stand for, at once, and lets the index decide which of it is shown.
    async fn find(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, Trouble> {
        let (node, prefix) = self.node_and_key(dir)?;
        if let Some(child) = self.index.child(dir, name)? {
            return Ok(Some(child));
        }
        let sent = self.clock.now();
        let candidates = asked_for(name);
        let answers = join_all(candidates.iter().map(|candidate| self.ask_for(&prefix, candidate))).await;
        let mut trouble = None;
        for answer in answers {
            match answer {
                Ok(Some((key, seen, at))) => drop(self.apply(key, seen, at, Source::Lookup).await?),
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        match (self.index.child(dir, name)?, trouble) {
            (Some(child), _) => Ok(Some(child)),
            (None, None) => {
                self.absences.0.insert((dir, name.clone()), sent);
                Ok(None)
            }
            (None, Some(Trouble::Store(store::Error::Unavailable { .. }))) if node.listed => Ok(None),
            (None, Some(trouble)) => Err(trouble),
        }
    }

    /// Asks S3 whether the directory with `prefix` has `candidate`.
    async fn ask_for(&self, prefix: &Key, candidate: &Component) -> Answer {
        let store = &self.stores.foreground;
        // Longer than any key, or not how its key would be shown: it is not there.
        let Some(key) = Key::new(&format!("{}{}", &**prefix, candidate.suffix())) else { return Ok(None) };
        match candidate.kind() {
            ComponentKind::Chunk => self.ask_for_chunk(&key).await,
            _ if split(&key).last() != Some(candidate) => Ok(None),
            ComponentKind::Dir => {
                let (seen, at) = self.look_below(store, &key).await?;
                Ok((!matches!(seen, Seen::Absent)).then_some((key, seen, at)))
            }
            ComponentKind::File => {
                let Asked { answer, at } = self.ask(store.head(&key)).await;
                match answer {
                    Ok(meta) => Ok(Some((key, Seen::Object(meta), at))),
                    Err(store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// A chunk is there when a longer key begins with it; that key is the fact.
    async fn ask_for_chunk(&self, text: &Key) -> Answer {
        let request = ListRequest {
            prefix: text.to_string(),
            start_after: Some(text.clone()),
            max_keys: Some(1),
            ..ListRequest::default()
        };
        let Asked { answer, at } = self.ask(self.stores.foreground.list(&request)).await;
        Ok(answer?.objects.into_iter().next().map(|(key, meta)| (key, Seen::Object(meta), at)))
    }

    /// What S3 has under a prefix that ends in `/`: its marker, which sorts first, other keys, or nothing.
    pub(super) async fn look_below(&self, store: &Arc<dyn Store>, key: &Key) -> Result<(Seen, Stamps), Trouble> {
        let request = ListRequest { prefix: key.to_string(), max_keys: Some(1), ..ListRequest::default() };
        let Asked { answer, at } = self.ask(store.list(&request)).await;
        let seen = match answer?.objects.into_iter().next() {
            Some((first, meta)) if first == *key => Seen::Object(meta),
            Some(_) => Seen::Prefix,
            None => Seen::Absent,
        };
        Ok((seen, at))
    }
}

/// What S3 is asked for to resolve `name`: all it can stand for. Whether a file is hidden, and so has
/// this name at all, is told by the directory beside it.
fn asked_for(name: &Name) -> SmallVec<[Component; 2]> {
    let mut candidates = name.candidates();
    if let [only] = &candidates[..]
        && only.kind() == ComponentKind::File
    {
        candidates.extend(Component::from_bytes(&[only.as_bytes(), b"/"].concat()));
    }
    candidates
}
