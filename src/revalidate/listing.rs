//! Listings: the first one of a directory, which clients wait for page by page, and those that come behind.
//! Owns: the listings under way. Memory is bounded by two pages each: one is fetched while one is applied.
//! Invariants
//! - One first listing of a directory is under way at a time; who stops waiting for it does not stop it.
//! - A listing that fails settles nothing: the directory counts as listed only after the last page.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Asked, Revalidator, Trouble, WaitError};
use crate::index::{Page, Sweep};
use crate::store::{self, ListRequest, RequestKind, Store};
use crate::types::{Ino, Key};

/// How often a directory is listed anew because its entries have come to be elsewhere in S3 meanwhile.
const ATTEMPTS: usize = 5;

/// First listings at once; a client that asks for more is told to ask again.
const MOST_LISTINGS: usize = 1_024;

/// How a listing is walked.
pub(super) struct How<'a> {
    /// Over which view of S3.
    pub(super) store: &'a Arc<dyn Store>,
    /// All levels below, not only one.
    pub(super) recursive: bool,
    /// Waits for S3 where it does not answer, instead of failing.
    pub(super) patient: bool,
    /// Takes a turn of the budget for each page: never while it holds what others wait for.
    pub(super) paced: bool,
}

/// What a whole listing did.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Objects and prefixes listed.
    pub(super) keys: u64,
    /// Entries created, replaced or removed.
    pub(super) changed: u64,
    /// Files whose complete copy is of another version, left as they are.
    pub(super) outdated: Vec<Ino>,
    /// S3 has nothing under the prefix, so the directory is gone.
    pub(super) is_gone: bool,
}

impl Swept {
    /// Whether S3 had anything else than what was here.
    pub(super) fn has_changed(&self) -> bool {
        self.changed > 0 || !self.outdated.is_empty()
    }
}

/// How far a first listing is.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pages: u64,
    end: Option<Result<(), WaitError>>,
}

/// A listing under way.
pub struct ListingProgress {
    state: watch::Receiver<State>,
    deadline: Duration,
}

impl ListingProgress {
    /// Waits until more entries are in the index than at the last call, or the listing has ended; at most the
    /// deadline. `Ok(true)`: it has ended, and what the index has is all.
    /// # Errors
    /// `Busy`: the deadline passed, or S3 does not answer. `Gone`: there is no such directory any more.
    pub async fn advanced(&mut self) -> Result<bool, WaitError> {
        if self.state.borrow().end.is_none() {
            match tokio::time::timeout(self.deadline, self.state.changed()).await {
                Ok(Ok(())) => {}
                // Late, or the server stops.
                Ok(Err(_)) | Err(_) => return Err(WaitError::Busy),
            }
        }
        match &self.state.borrow_and_update().end {
            Some(end) => end.clone().map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits until the whole listing has ended; at most the deadline.
    /// # Errors
    /// As `advanced`.
    pub async fn ended(mut self) -> Result<(), WaitError> {
        let deadline = self.deadline;
        let all = async {
            while !self.advanced().await? {}
            Ok(())
        };
        tokio::time::timeout(deadline, all).await.unwrap_or(Err(WaitError::Busy))
    }
}

impl Revalidator {
    /// Starts the first listing of `dir`, or joins the one under way.
    pub fn list(&self, dir: Ino) -> ListingProgress {
        let is_listed = matches!(self.index.node(dir), Ok(Some(node)) if node.listed);
        let joined = (!is_listed).then(|| {
            self.listings.join(&dir, MOST_LISTINGS, State::default(), |landing| {
                let me = self.me();
                self.tasks.spawn(async move {
                    let how = How { store: &me.stores.foreground, recursive: false, patient: false, paced: false };
                    let swept = tokio::select! {
                        swept = me.sweep(dir, how, || landing.report(|state| state.pages += 1)) => swept,
                        () = me.stopping.cancelled() => return,
                    };
                    let end = me.end_first_listing(swept);
                    landing.finish(|state| state.end = Some(end));
                });
            })
        });
        let ended = |end| watch::channel(State { pages: 0, end: Some(end) }).1;
        let state = match joined {
            None => ended(Ok(())),
            Some(None) => ended(Err(WaitError::Busy)),
            Some(Some(state)) => state,
        };
        ListingProgress { state, deadline: self.settings.deadline }
    }

    fn end_first_listing(&self, swept: Result<Swept, Trouble>) -> Result<(), WaitError> {
        let swept = swept.map_err(|trouble| trouble.to_wait())?;
        for ino in swept.outdated {
            if let Ok(Some(node)) = self.index.node(ino) {
                self.enqueue(&node);
            }
        }
        if swept.is_gone { Err(WaitError::Gone) } else { Ok(()) }
    }

    /// The way of a listing of one level that is part of a check.
    pub(super) fn behind(&self) -> How<'_> {
        How { store: &self.stores.background, recursive: false, patient: false, paced: false }
    }

    /// Lists `dir` and reconciles the index with it, calling `on_page` after each page that is in the index.
    pub(super) async fn sweep(&self, dir: Ino, how: How<'_>, mut on_page: impl FnMut()) -> Result<Swept, Trouble> {
        let mut key = Key::root();
        for _ in 0..ATTEMPTS {
            key = self.index.remote_prefix(dir)?.ok_or(Trouble::Gone)?;
            let swept = self.sweep_prefix((dir, &key), &how, &mut on_page).await?;
            // what S3 had elsewhere by then says nothing of it
            if swept.is_gone || self.index.remote_prefix(dir)?.as_ref() == Some(&key) {
                return Ok(swept);
            }
        }
        Err(Trouble::Restless(key))
    }

    async fn sweep_prefix(
        &self,
        (dir, prefix): (Ino, &Key),
        how: &How<'_>,
        on_page: &mut impl FnMut(),
    ) -> Result<Swept, Trouble> {
        let mut request =
            ListRequest { prefix: prefix.to_string(), delimited: !how.recursive, ..ListRequest::default() };
        let mut swept = Swept::default();
        let mut sweep = Sweep::new(dir, prefix.clone(), how.recursive);
        let mut pages = 0;
        let mut fetched = self.page(how, &request).await?;
        loop {
            pages += 1;
            let Fetched { page, next, .. } = fetched;
            swept.keys += (page.objects.len() + page.prefixes.len()) as u64;
            let following = self.following(how, &mut request, next);
            let applied = async {
                let (keys, sent) = (keys_of(&page), page.sent);
                let applied = self.index.apply_page(sweep, page).await?;
                self.distrust_again(&keys, sent)?;
                // At once, not when the next page is here too.
                on_page();
                Ok::<_, Trouble>(applied)
            };
            let (applied, following) = tokio::join!(applied, following);
            let (moved, page) = applied?;
            sweep = moved;
            swept.changed += page.created + page.replaced + page.removed;
            swept.outdated.extend(page.outdated);
            match following? {
                Some(next) => fetched = next,
                None => break,
            }
        }
        // A recursive listing's pages say nothing of this one level.
        if !how.recursive {
            self.pages.insert(dir, pages);
        }
        swept.is_gone = self.index.node(dir)?.is_none();
        Ok(swept)
    }

    /// The page after the one that named `next`.
    pub(super) async fn following(
        &self,
        how: &How<'_>,
        request: &mut ListRequest,
        next: Option<String>,
    ) -> Result<Option<Fetched>, Trouble> {
        let Some(next) = next else { return Ok(None) };
        if request.continuation.as_ref() == Some(&next) {
            let what = format!("LIST {}", request.prefix);
            let message = "the listing goes in a circle".to_owned();
            return Err(store::Error::Other { what, message }.into());
        }
        request.continuation = Some(next);
        self.page(how, request).await.map(Some)
    }

    pub(super) async fn page(&self, how: &How<'_>, request: &ListRequest) -> Result<Fetched, Trouble> {
        let (list, at) = loop {
            let _turn = match how.paced {
                true => Some(self.stores.budget.turn(RequestKind::List).await),
                false => None,
            };
            let Asked { answer, at } = self.ask(how.store.list(request)).await;
            match answer {
                Ok(list) => break (list, at),
                Err(store::Error::Unavailable { .. }) if how.patient => self.outage.over().await,
                Err(error) => return Err(error.into()),
            }
        };
        let last = list.next.is_none();
        let page = Page { objects: list.objects, prefixes: list.prefixes, sent: at.sent, answered: at.answered, last };
        Ok(Fetched { page, next: list.next })
    }
}

pub(super) fn keys_of(page: &Page) -> Vec<Key> {
    page.objects.iter().map(|(key, _)| key).chain(&page.prefixes).cloned().collect()
}

/// A page that is not in the index yet.
pub(super) struct Fetched {
    pub(super) page: Page,
    pub(super) next: Option<String>,
}
