//! What others say has changed: distrusted at once, and asked about at once where somebody would see it.
//! Owns: the names and subtrees that are still to be asked about, and what was said lately of keys not here (`recent`).
//! Invariants
//! - A hint changes nothing but trust: an answer to what was asked before it settles nothing, and what is asked is sent
//!   in a later tick than the hint came in. The rest is the reconcile function's.
//! - What is asked about for a hint is bounded. What is too much is only distrusted: the next touch asks.

mod recent;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

pub(super) use recent::Recent;

use super::listing::How;
use super::queue::LIST_PAYS;
use super::{Asked, Revalidator, Stamps, Trouble, check};
use crate::index::{IndexError, Kind, Located, Node, Remote, Seen, Source};
use crate::store::{self, RequestKind, Turn};
use crate::types::{Component, Hint, Ino, Key, Origin, Said, Tick, Time};

/// Names to be asked about: with keys of 100 bytes some MB.
const MOST_NAMES: usize = 16_384;
/// Directories to be listed with all below them; one that is too many stands for the root.
const MOST_SUBTREES: usize = 64;
/// Of one wave, asked at once.
const AT_ONCE: usize = 16;
/// So many names of a directory are worth a listing of unknown length.
const MANY: usize = 1_000;
/// Copies that nobody has used lately are replaced for hints: so many at once, and then one each `PAUSE_MS`. A wave would
/// bring the whole mirror here again at once. What is left out is asked about when it is used, or by the sweep.
pub(super) const FEW: usize = 256;
/// 100 ms: ten a second, each with its fsync, are a few hundredths of what a core does.
const PAUSE_MS: u64 = 100;
/// Nodes looked at between two yields.
const BATCH: usize = 1_000;
/// 2 s: Last-Modified tells whole seconds, and the event of a write comes a little after it.
const ECHO_SLACK: Duration = Duration::from_secs(2);

/// What a hint came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something here is distrusted for it.
    Applied,
    /// What is here is what it tells.
    Echo,
    /// It is of nothing that is here.
    Elsewhere,
}

/// What is still to be asked about, and whether somebody is at it.
#[derive(Default)]
pub(super) struct Wanted {
    /// Keys and prefixes that have come or gone, by directory; `None`: nobody can tell, or they are too many.
    names: HashMap<Ino, Option<HashSet<Key>>>,
    /// How many those are.
    count: usize,
    asking: bool,
    subtrees: BTreeSet<Ino>,
    sweeping: bool,
}

impl Wanted {
    fn add(&mut self, dir: Ino, key: Option<Key>) {
        let is_full = self.count.max(self.names.len()) >= MOST_NAMES;
        if is_full && !self.names.contains_key(&dir) {
            return;
        }
        let names = self.names.entry(dir).or_insert_with(|| Some(HashSet::new()));
        match (names, key.filter(|_| !is_full)) {
            (Some(keys), Some(key)) => self.count += usize::from(keys.insert(key)),
            (names, None) => self.count -= names.take().map_or(0, |keys| keys.len()),
            (None, Some(_)) => {}
        }
    }

    /// All that there is to be asked about; `None`, and whoever asked is done, when there is nothing.
    fn take(&mut self) -> Option<HashMap<Ino, Option<HashSet<Key>>>> {
        self.count = 0;
        self.asking = !self.names.is_empty();
        self.asking.then(|| std::mem::take(&mut self.names))
    }
}

impl Revalidator {
    /// Takes what was said of one key, or of all below a prefix: from now on no answer trusts what was there before.
    /// # Errors
    /// When the index cannot tell what the key is.
    pub async fn hinted(&self, hint: &Hint) -> Result<Effect, IndexError> {
        match hint.said {
            Said::Changed if hint.key.is_prefix() => self.hinted_below(&hint.key).await,
            _ => self.hinted_key(hint),
        }
    }

    fn hinted_key(&self, hint: &Hint) -> Result<Effect, IndexError> {
        let now = self.clock.now();
        // First of all: what comes in between this and the next line finds it.
        self.recent.note(&hint.key, now);
        match self.index.locate(&hint.key)? {
            Located::Here(node) if self.is_echo(&node, hint) => Ok(Effect::Echo),
            Located::Here(node) => {
                self.hinted_node(&node, hint, now)?;
                Ok(Effect::Applied)
            }
            Located::Missing { dir, component, key } if hint.said != Said::Removed => {
                self.expect_name(&dir, &component, key, now);
                Ok(Effect::Applied)
            }
            Located::Missing { .. } | Located::Elsewhere => Ok(Effect::Elsewhere),
        }
    }

    /// The same, of all that is below a prefix.
    async fn hinted_below(&self, prefix: &Key) -> Result<Effect, IndexError> {
        let now = self.clock.now();
        self.doubt_names(prefix, now);
        let dir = match self.index.locate(prefix)? {
            Located::Here(dir) if dir.kind == Kind::Dir => dir,
            Located::Missing { dir, component, key } => {
                self.expect_name(&dir, &component, key, now);
                return Ok(Effect::Applied);
            }
            Located::Here(_) | Located::Elsewhere => return Ok(Effect::Elsewhere),
        };
        self.distrust_below(dir.ino, now).await;
        self.sweep_soon(dir.ino);
        Ok(Effect::Applied)
    }

    /// Trusts nothing any more, and leaves it to the next touches to ask.
    pub async fn distrust_all(&self) {
        let now = self.clock.now();
        self.doubt_names(&Key::root(), now);
        self.distrust_below(Ino::ROOT, now).await;
    }

    /// What is on its way of names below `prefix`, and what is believed not to be there, may be outdated. What was said of
    /// a prefix is never forgotten, so that absences can stay where they are.
    fn doubt_names(&self, prefix: &Key, now: Tick) {
        self.recent.note_prefix(prefix, now);
        self.lookups.forsake_all();
    }

    fn hinted_node(&self, node: &Arc<Node>, hint: &Hint, now: Tick) -> Result<(), IndexError> {
        node.freshness.distrust(now);
        if self.is_ours(node) {
            return Ok(());
        }
        if hint.said == Said::Removed || node.kind == Kind::Dir {
            // With its last entry a directory goes, too.
            if let Some(parent) = self.index.node(node.parent)? {
                parent.freshness.distrust(now);
            }
            self.ask_soon(node.parent, Some(hint.key.clone()));
        } else if node.freshness.served() > 0 || (check::is_complete(node) && self.has_leisure(now)) {
            self.enqueue_anew(node);
        }
        Ok(())
    }

    /// Whether it is time to replace another copy that nobody has used lately.
    fn has_leisure(&self, now: Tick) -> bool {
        let latest = now.0 + FEW as u64 * PAUSE_MS;
        let charge = |paid: u64| Some(paid.max(now.0) + PAUSE_MS).filter(|paid| *paid <= latest);
        self.unused_paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge).is_ok()
    }

    /// S3 may have `component` of `dir` now, at `key`. Where clients believe to know all names of `dir`, it is asked.
    fn expect_name(&self, dir: &Arc<Node>, component: &Component, key: Key, now: Tick) {
        self.recent.note(&key, now);
        dir.freshness.distrust(now);
        for shadowed in [false, true] {
            let name = (dir.ino, component.name(shadowed));
            self.absences.forget(&name);
            self.lookups.forsake(&name);
        }
        if dir.listed && !self.is_ours(dir) {
            self.ask_soon(dir.ino, Some(key));
        }
    }

    /// Whether the hint tells of the very version that is here. Of one that was only rewritten with other metadata the
    /// tag is the same, and the time is later.
    fn is_echo(&self, node: &Node, hint: &Hint) -> bool {
        let (Some(remote), Said::Written { etag: Some(etag), .. }) = (&node.remote, &hint.said) else { return false };
        if remote.etag != *etag {
            return false;
        }
        let Some(at) = hint.at else { return hint.origin != Origin::Peer };
        let known = match (remote.last_modified, node.freshness.observed()) {
            (Remote::UNTOLD, Tick::NEVER) => return false,
            (Remote::UNTOLD, written) => {
                let ago = self.clock.now().since(written);
                Time(self.clock.wall().0.saturating_sub(nanos(ago)))
            }
            (last_modified, _) => last_modified,
        };
        at.0 <= known.0.saturating_add(nanos(ECHO_SLACK))
    }

    /// Distrusts `top` and all below it that is in memory; of the rest nothing is trusted anyway.
    async fn distrust_below(&self, top: Ino, now: Tick) {
        let mut below = HashMap::from([(Ino::ROOT, top == Ino::ROOT), (top, true)]);
        for (n, node) in self.index.in_memory().into_iter().enumerate() {
            if n % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            if self.is_below(&node, &mut below) {
                node.freshness.distrust(now);
            }
        }
    }

    /// Whether `node` is below what `below` has as true. Where the index fails, it may be.
    fn is_below(&self, node: &Arc<Node>, below: &mut HashMap<Ino, bool>) -> bool {
        let (mut way, mut at) = (Vec::new(), node.clone());
        let is_below = loop {
            if let Some(known) = below.get(&at.ino) {
                break *known;
            }
            way.push(at.ino);
            match self.index.node(at.parent) {
                Ok(Some(parent)) => at = parent,
                Ok(None) | Err(_) => break true,
            }
        };
        // Files are looked at once each: only the directories on the way are worth remembering.
        below.extend(way.into_iter().skip(usize::from(node.kind != Kind::Dir)).map(|ino| (ino, is_below)));
        is_below
    }

    /// Has S3 asked about `key`, which is, or would be, an entry of `dir`; `None`: about all entries.
    fn ask_soon(&self, dir: Ino, key: Option<Key>) {
        let mut wanted = self.wanted.lock();
        wanted.add(dir, key);
        if !std::mem::replace(&mut wanted.asking, true) {
            let me = self.me();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = me.ask_for_names() => {}
                    () = me.stopping.cancelled() => {}
                }
            });
        }
    }

    /// Asks until there is nothing left to ask about.
    async fn ask_for_names(&self) {
        loop {
            // Names of one wave that are on their way join it.
            tokio::task::yield_now().await;
            let Some(names) = self.wanted.lock().take() else { return };
            self.past(self.clock.now()).await;
            let mut alone = Vec::new();
            for (dir, keys) in names {
                match keys {
                    Some(keys) if !self.listing_finds(dir, keys.len()) => alone.extend(keys),
                    _ => self.list_again(dir).await,
                }
            }
            let turns = stream::iter(alone).then(async |key| (key, self.stores.budget.turn(RequestKind::Head).await));
            turns.for_each_concurrent(AT_ONCE, |(key, turn)| self.ask_for_name(key, turn)).await;
        }
    }

    /// One listing in the place of many questions.
    async fn list_again(&self, dir: Ino) {
        let turn = self.stores.budget.turn(RequestKind::List).await;
        let listed = self.check_dir(dir, Source::Event).await;
        drop(turn);
        match listed {
            Ok(outdated) => self.renew_all(outdated, AT_ONCE).await,
            Err(trouble) => self.note(dir, &trouble),
        }
    }

    /// Whether `dir` is listed, and that costs less than asking about `count` of its names.
    fn listing_finds(&self, dir: Ino, count: usize) -> bool {
        let pays = || match self.pages.get(&dir) {
            None => count >= MANY || self.is_short(dir),
            Some(_) => self.listing_pays(dir, count),
        };
        count >= LIST_PAYS && matches!(self.index.node(dir), Ok(Some(node)) if node.listed) && pays()
    }

    async fn ask_for_name(&self, key: Key, _turn: Turn) {
        if self.outage.is_on() {
            return;
        }
        let store = &self.stores.background;
        let seen = match key.is_prefix() {
            true => self.look_below(store, &key).await,
            false => {
                let Asked { answer, at } = self.ask(store.head(&key)).await;
                match answer {
                    Ok(meta) => Ok((Seen::Object(meta), at)),
                    Err(store::Error::NotFound { .. }) => Ok((Seen::Absent, at)),
                    Err(error) => Err(error.into()),
                }
            }
        };
        let told = match seen {
            Ok((seen, at)) => self.learn_of(key, seen, at).await,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = told {
            tracing::debug!(%trouble, "cannot ask about a name that is said to have come or gone");
        }
    }

    /// Applies what S3 says of a key; of a file that is complete here, only when its new version is here as well.
    async fn learn_of(&self, key: Key, seen: Seen, at: Stamps) -> Result<(), Trouble> {
        match self.index.locate(&key)? {
            Located::Here(node) if matches!(seen, Seen::Object(_)) && check::is_complete(&node) => {
                self.enqueue_anew(&node)
            }
            _ => drop(self.apply(key, seen, at, Source::Event).await?),
        }
        Ok(())
    }

    /// Has everything below `dir` listed.
    fn sweep_soon(&self, dir: Ino) {
        let mut wanted = self.wanted.lock();
        let is_full = wanted.subtrees.len() >= MOST_SUBTREES;
        wanted.subtrees.insert(if is_full { Ino::ROOT } else { dir });
        if !std::mem::replace(&mut wanted.sweeping, true) {
            let me = self.me();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = me.sweep_subtrees() => {}
                    () = me.stopping.cancelled() => {}
                }
            });
        }
    }

    async fn sweep_subtrees(&self) {
        loop {
            let next = {
                let mut wanted = self.wanted.lock();
                let next = wanted.subtrees.pop_first();
                wanted.sweeping = next.is_some();
                next
            };
            let Some(dir) = next else { return };
            self.past(self.clock.now()).await;
            let how = How { store: &self.stores.background, recursive: true, patient: false, paced: true };
            match self.sweep(dir, how, || ()).await {
                Ok(swept) => self.renew_all(swept.outdated, AT_ONCE).await,
                Err(trouble) => self.note(dir, &trouble),
            }
        }
    }

    /// Waits until it is later than `tick`: at most a millisecond.
    pub(super) async fn past(&self, tick: Tick) {
        if self.clock.now() <= tick {
            self.clock.reached(Tick(tick.0 + 1)).await;
        }
    }

    /// What came in by an answer to a question sent at `sent`, older than what was said of it, is distrusted and asked
    /// about. To be called when it is in the index: who says something of it later finds it there.
    pub(super) fn distrust_again(&self, keys: &[Key], sent: Tick) -> Result<(), Trouble> {
        if !self.recent.is_anything_since(sent) {
            return Ok(());
        }
        let mut level = None;
        for key in keys {
            if let Some(said) = self.recent.since(key, sent)
                && let Located::Here(node) = self.index.locate(key)?
            {
                node.freshness.distrust(said);
                self.ask_soon(node.parent, Some(key.clone()));
            }
            let of_key = prefixes(key).last();
            if of_key != level {
                self.distrust_level(key, sent)?;
                level = of_key;
            }
        }
        Ok(())
    }

    /// The same, of the directory that `key` is in: a listing of all below brings it in as listed, and may lack a name
    /// that was said to be there. As the directory was not here then, only the first one on the way to it was noted.
    fn distrust_level(&self, key: &Key, sent: Tick) -> Result<(), IndexError> {
        let way: Vec<Key> = prefixes(key).filter_map(Key::new).collect();
        if let Some(said) = way.iter().filter_map(|prefix| self.recent.since(prefix, sent)).max()
            && let Located::Here(node) = self.index.locate(key)?
            && let Some(dir) = self.index.node(node.parent)?
        {
            dir.freshness.distrust(said);
            if way.iter().any(|prefix| self.recent.of(prefix, sent).is_some()) {
                self.ask_soon(dir.ino, None);
            }
        }
        Ok(())
    }
}

/// The prefixes of the directories on the way to `key`, the outermost first.
fn prefixes(key: &Key) -> impl DoubleEndedIterator<Item = &str> {
    let inner = &key[..key.len().saturating_sub(1)];
    inner.match_indices('/').map(|(at, _)| &inner[..=at])
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
