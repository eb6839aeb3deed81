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

use super::fetch::Body;
use super::flights::Landing;
use super::{Asked, Revalidator, Stamps, Trouble, WaitError};
use crate::index::{Node, Seen, Source};
use crate::store::{self, GetIf, Got, ListRequest, ObjectMeta, Store};
use crate::types::name::{ComponentKind, split};
use crate::types::{Component, Ino, Key, Name, Tick};

/// Lookups at once; a client that asks for more is told to ask again.
const MOST_LOOKUPS: usize = 4_096;
/// Absences remembered: about 10 MB of ordinary names at most.
const ABSENCES: usize = 65_536;

/// 128 KiB: an object of up to so many bytes comes with its lookup, as most that are opened by name and not
/// from a listing are read at once (pages, scripts, small pictures). More would be saved in fewer cases, and
/// a larger object that is only asked about wastes so much.
const FIRST_LOOK_BYTES: u64 = 128 << 10;

/// What a lookup ends in.
pub(super) type Found = Result<Option<Arc<Node>>, WaitError>;

/// Names that S3 said it does not have, and when it was asked.
pub(super) struct Absences(Cache<(Ino, Name), Tick>);

impl Absences {
    pub(super) fn new() -> Absences {
        Absences(Cache::new(ABSENCES))
    }

    pub(super) fn forget(&self, name: &(Ino, Name)) {
        self.0.remove(name);
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
type Answer = Result<Option<Fact>, Trouble>;

/// What S3 has, and the first bytes of it where they came along.
struct Fact {
    key: Key,
    seen: Seen,
    at: Stamps,
    body: Option<(ObjectMeta, Body)>,
}

impl Fact {
    fn bare(key: Key, seen: Seen, at: Stamps) -> Fact {
        Fact { key, seen, at, body: None }
    }
}

impl Revalidator {
    /// Whether S3 said lately (within `recheck`) that `dir` has no such name, or a fresh listing says so, or it is known
    /// here: the directory is new, or the name was removed or renamed here.
    pub fn is_absent(&self, dir: &Arc<Node>, name: &Name) -> bool {
        let now = self.clock.now();
        let holds = |asked: &Tick| {
            *asked != Tick::NEVER && now.since(*asked) < self.recheck(*asked) && !self.was_said(dir.ino, name, *asked)
        };
        let listed = dir.listed.then(|| dir.freshness.checked());
        listed.as_ref().is_some_and(holds)
            || self.absences.0.get(&Sought(dir.ino, name)).as_ref().is_some_and(holds)
            || self.is_ours(dir)
            || self.index.has_left(dir.ino, name).unwrap_or(false)
    }

    /// Looks in S3 for a name the index does not have: that one key, and whether it is a prefix (F4).
    /// `Ok(None)`: it is not there, remembered for `recheck`.
    pub async fn look_up(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, WaitError> {
        let (node, _) = self.node_and_key(dir).map_err(|trouble| trouble.to_wait())?;
        // While S3 is away a directory that was listed is what its last listing said (F8).
        if self.is_absent(&node, name) || (node.listed && self.outage.is_on()) {
            // The listing that says so may have ended just now, and have brought the name.
            return self.index.child(dir, name).map_err(|error| Trouble::from(error).to_wait());
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
                Ok(Some(fact)) => self.learn(fact).await?,
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        match (self.index.child(dir, name)?, trouble) {
            (Some(child), _) => Ok(Some(child)),
            (None, None) => {
                self.remember_absence((dir, name.clone()), &prefix, sent);
                Ok(None)
            }
            (None, Some(Trouble::Store(store::Error::Unavailable { .. }))) if node.listed => Ok(None),
            (None, Some(trouble)) => Err(trouble),
        }
    }

    /// Remembers that S3 did not have `name` when it was asked at `sent`, unless somebody has said since that it does.
    fn remember_absence(&self, name: (Ino, Name), prefix: &Key, sent: Tick) {
        let said = || self.was_said_below(prefix, &name.1, sent);
        if said() {
            return;
        }
        self.absences.0.insert(name.clone(), sent);
        // Said between the two: whoever says it notes it first, and forgets the absence then.
        if said() {
            self.absences.forget(&name);
        }
    }

    /// Whether somebody has said something of `name` since S3 was asked at `sent`. What was here then may be gone by an
    /// older answer since: then no hint has told the directory to forget that.
    fn was_said(&self, dir: Ino, name: &Name, sent: Tick) -> bool {
        self.recent.is_anything_since(sent)
            && matches!(self.index.remote_prefix(dir), Ok(Some(prefix)) if self.was_said_below(&prefix, name, sent))
    }

    fn was_said_below(&self, prefix: &Key, name: &Name, sent: Tick) -> bool {
        let keys = asked_for(name).into_iter().filter_map(|c| Key::new(&format!("{}{}", &**prefix, c.suffix())));
        keys.filter_map(|key| self.recent.since(&key, sent)).next().is_some()
    }

    /// Tells the index, and takes in what came along before anybody can ask for it.
    async fn learn(&self, fact: Fact) -> Result<(), Trouble> {
        let Fact { key, seen, at, body } = fact;
        let applied = self.apply(key, seen, at, Source::Lookup).await?;
        if let (Some(node), Some((meta, body))) = (applied.node, body) {
            self.fetcher.adopt(node.ino, &meta, self.first_look(), body).await;
        }
        Ok(())
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
                Ok((!matches!(seen, Seen::Absent)).then(|| Fact::bare(key, seen, at)))
            }
            ComponentKind::File => self.ask_for_object(key).await,
        }
    }

    /// The object with this very key, by a GET of its beginning: what it is and, of a small one, all its bytes.
    async fn ask_for_object(&self, key: Key) -> Answer {
        let store = &self.stores.foreground;
        let look = async {
            let head = async || Ok((store.head(&key).await?, None));
            if self.first_look() == 0 {
                return head().await;
            }
            match store.get(&key, Some(0..self.first_look()), GetIf::Any).await {
                Ok(Got::Body { meta, body }) => Ok((meta, Some(body))),
                Err(error @ (store::Error::NotFound { .. } | store::Error::Unavailable { .. })) => Err(error),
                // Empty objects have no range, archived ones no bytes: what they are is told all the same.
                Ok(Got::NotModified { .. }) | Err(_) => head().await,
            }
        };
        let Asked { answer, at } = self.ask(look).await;
        match answer {
            Ok((meta, body)) => {
                let body = body.map(|body| (meta.clone(), body));
                Ok(Some(Fact { key, seen: Seen::Object(meta), at, body }))
            }
            Err(store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes to ask for with a lookup.
    fn first_look(&self) -> u64 {
        self.settings.small_object.min(FIRST_LOOK_BYTES)
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
        Ok(answer?.objects.into_iter().next().map(|(key, meta)| Fact::bare(key, Seen::Object(meta), at)))
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
