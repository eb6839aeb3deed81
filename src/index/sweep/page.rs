//! A page on its way through the writer.

use super::{REMOVALS, Stop, Sweep, Walk};
use crate::index::change::Change;
use crate::index::model::{IndexError, Page, PageApplied};
use crate::index::reconcile::Evidence;
use crate::index::shelter::Shelter;
use crate::store::ObjectMeta;
use crate::types::Key;

/// A page on its way through the writer: merged in one transaction, or, where much is to be removed, in several.
pub(in crate::index) struct PageWork {
    sweep: Sweep,
    page: Page,
    /// How many of its keys are done.
    done: usize,
    applied: PageApplied,
}

/// What one transaction made of a page.
pub(in crate::index) enum Progress {
    /// The page is merged.
    Done(Sweep, PageApplied),
    /// More is to be removed than one transaction should.
    Paused(PageWork),
}

impl PageWork {
    pub(in crate::index) fn new(sweep: Sweep, page: Page) -> PageWork {
        PageWork { sweep, page, done: 0, applied: PageApplied::default() }
    }

    /// Entries that the next transaction will about touch.
    pub(in crate::index) fn weight(&self) -> usize {
        1 + self.page.objects.len() + self.page.prefixes.len() - self.done
    }

    /// Goes on with the page. See [`crate::index::Index::apply_page`].
    pub(in crate::index) fn run(self, change: &mut Change<'_>) -> Result<Progress, IndexError> {
        let PageWork { sweep, page, mut done, applied } = self;
        let evidence = Evidence { sent: page.sent, answered: page.answered, content: None };
        let shelter = Shelter::default();
        let mut walk = Walk { change, sweep, evidence, applied, shelter, owns: true, removals_left: REMOVALS };
        let stopped = walk.page(&page, &mut done);
        let Walk { mut sweep, applied, .. } = walk;
        for frame in &mut sweep.stack {
            frame.ahead.clear();
            frame.exhausted = false;
        }
        match stopped {
            Ok(()) => Ok(Progress::Done(sweep, applied)),
            Err(Stop::Pause) => Ok(Progress::Paused(PageWork { sweep, page, done, applied })),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

/// Objects and common prefixes in one order.
pub(super) fn merge(page: &Page) -> impl Iterator<Item = (&Key, Option<&ObjectMeta>)> {
    let mut objects = page.objects.iter().map(|(key, meta)| (key, Some(meta))).peekable();
    let mut prefixes = page.prefixes.iter().map(|key| (key, None)).peekable();
    std::iter::from_fn(move || match (objects.peek(), prefixes.peek()) {
        (Some((object, _)), Some((prefix, _))) if prefix < object => prefixes.next(),
        (Some(_), _) => objects.next(),
        (None, _) => prefixes.next(),
    })
}
