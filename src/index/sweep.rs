//! Listings: a merge of S3's keys with the index's entries, both in key order, page by page.
//!
//! The sweep keeps a stack of the directories that its last key is in, each with the last component seen.
//! For the next key it leaves the directories that the key is not in, enters those that it is in, and
//! removes what the index has between the last component seen and this one: S3 would have listed it.
//! A directory that is left is complete: what follows in it is gone, and it counts as listed.
//!
//! - Nothing is removed that the pages so far have not covered: a listing of one level enters no directories
//!   but chunks, which are of its level.
//! - While S3 is asked the index may change under the sweep. Directories that are gone, or whose entries S3 has elsewhere by
//!   then, are left without a word; entries observed after a page was sent are left alone (late).
//! - Directory buckets list in no order: once a key is out of order, nothing is removed any more.
//! - A file whose bytes are complete here and of which S3 has others is reported, not touched: its reader
//!   should have the old bytes until the new ones are here.
//! - It walks where S3 has the directories (`Index::remote_prefix`). What was renamed into one of them is not listed
//!   there, and stays; a key that is not of one of them goes to `reconcile.rs` alone (`divert`).
//! - What has changed is told one by one only to who asks for it (`found`), and never all of it.

mod divert;
mod found;
mod page;

use std::collections::VecDeque;

use tracing::warn;

use super::change::Change;
use super::locate::{self, Walked};
use super::model::{IndexError, Page, PageApplied, Verdict};
use super::reconcile::{self, Evidence, Place};
use super::shelter::Shelter;
use super::tables::Child;
use crate::store::ObjectMeta;
use crate::types::name::{self, ComponentKind};
use crate::types::{Component, Ino, Key, Tick};

use page::merge;
pub(super) use page::{PageWork, Progress};

/// Entries read ahead of the merge at once.
const AHEAD: usize = 256;
/// Entries that one transaction removes: a directory that lost a million must not hold up everybody else's commits.
const REMOVALS: usize = 4096;

/// A listing under way: how far the merge of S3's keys with the index has come. It walks keys in order,
/// so what the index has between two listed keys is gone. Made by `Sweep::new`, moved by `apply_page`.
#[derive(Debug)]
pub struct Sweep {
    dir: Ino,
    /// What was listed.
    prefix: Key,
    /// Its path.
    base: Vec<Component>,
    recursive: bool,
    /// From `dir` to the directory that the last key is in; empty when `dir` is gone, or has left the prefix.
    stack: Vec<Frame>,
    previous: Option<Key>,
    in_order: bool,
    /// When the first page was sent.
    started: Option<Tick>,
    /// Whether any key of the directory was listed.
    found_any: bool,
    /// Whether what has changed is told one by one.
    noting: bool,
}

impl Sweep {
    /// A listing of directory `dir`, which S3 has below `prefix`: of its own level (`LIST` with a delimiter), or of all
    /// below it. Entries changed by an observation answered after a page was sent are left alone (late).
    pub fn new(dir: Ino, prefix: Key, recursive: bool) -> Sweep {
        Sweep {
            dir,
            base: locate::prefix_path(&prefix),
            prefix,
            recursive,
            stack: Vec::new(),
            previous: None,
            in_order: true,
            started: None,
            found_any: false,
            noting: false,
        }
    }

    /// The same, and `PageApplied::found` tells what has changed.
    pub fn noting(self) -> Sweep {
        Sweep { noting: true, ..self }
    }
}

/// A directory that the sweep is in.
#[derive(Debug)]
struct Frame {
    component: Component,
    dir: Ino,
    /// Ordered form of the last component seen; empty before the first.
    last: Vec<u8>,
    marker_seen: bool,
    /// Whether the listing shows all of its entries.
    covered: bool,
    /// Whether it was listed before this sweep, so that what is not here is new. Only known of a sweep that notes.
    known: bool,
    /// As of when the sweep knows it and its marker: a marker would have come before the first of its keys. What the sweep
    /// itself saw later makes nothing late.
    observed: Tick,
    /// Entries after `last`, as far as they were read in this transaction.
    ahead: VecDeque<(Component, Child)>,
    /// Whether none follow those.
    exhausted: bool,
}

/// One transaction's work on a page.
struct Walk<'c, 't> {
    change: &'c mut Change<'t>,
    sweep: Sweep,
    evidence: Evidence,
    applied: PageApplied,
    shelter: Shelter,
    /// Whether what is below the sweep's prefix belongs to its directory, and not to one that was there before.
    owns: bool,
    removals_left: usize,
}

/// Why a page is not done. Whatever is paused can be called again: the stack says how far it has come.
enum Stop {
    /// The transaction has removed enough.
    Pause,
    Failed(IndexError),
}

impl From<IndexError> for Stop {
    fn from(error: IndexError) -> Stop {
        Stop::Failed(error)
    }
}

impl Walk<'_, '_> {
    /// The page's keys after the first `done`, and the end of the listing after its last page.
    fn page(&mut self, page: &Page, done: &mut usize) -> Result<(), Stop> {
        self.begin()?;
        self.check_order(page, *done);
        for (key, object) in merge(page).skip(*done) {
            if !self.sweep.stack.is_empty() {
                self.key(key, object)?;
            }
            self.sweep.previous = Some(key.clone());
            *done += 1;
        }
        if page.last { self.finish() } else { Ok(()) }
    }

    /// Opens the sweep's directory, or leaves what is gone or elsewhere in S3 since the last page.
    fn begin(&mut self) -> Result<(), Stop> {
        let dir = self.sweep.dir;
        if self.sweep.started.is_none() {
            self.sweep.started = Some(self.evidence.sent);
            let Some(row) = self.change.row(dir)? else { return Ok(()) };
            let known = row.inode.listed;
            let frame = Frame::new(row.inode.component, dir, true, self.evidence.sent);
            self.sweep.stack.push(Frame { known, ..frame });
        }
        let mut prefix = self.sweep.prefix.to_string();
        for depth in 0..self.sweep.stack.len() {
            let frame = &self.sweep.stack[depth];
            if depth > 0 {
                prefix.push_str(frame.component.suffix());
            }
            if self.change.remote_prefix(frame.dir)?.is_none_or(|at| *at != *prefix) {
                self.sweep.stack.truncate(depth);
                break;
            }
        }
        self.owns = self.change.walk_key(&self.sweep.base)? == Walked::Found(dir);
        Ok(())
    }

    /// Looks before anything is removed: one key out of order says that no gap means anything.
    fn check_order(&mut self, page: &Page, done: usize) {
        let keys = merge(page).skip(done).map(|(key, _)| key);
        let in_order = self.sweep.previous.iter().chain(keys).is_sorted();
        if self.sweep.in_order && !in_order {
            warn!(dir = %self.sweep.dir, "this bucket lists in no order: removed keys show only when they are looked at");
            self.sweep.in_order = false;
        }
    }

    /// One listed object, or (`None`) one common prefix.
    fn key(&mut self, key: &Key, object: Option<&ObjectMeta>) -> Result<(), Stop> {
        if self.sweep.previous.as_ref() == Some(key) {
            return Ok(());
        }
        let full = name::split(key);
        // the listing of a chunk's prefix has the file of that very text, too
        let Some(path) = full.strip_prefix(self.sweep.base.as_slice()) else { return Ok(()) };
        self.sweep.found_any = true;
        let diverted = self.divert(key, &full, object)?;
        let Some((last, parents)) = path.split_last() else {
            return if diverted { Ok(()) } else { self.marker_of_top(object) };
        };
        self.leave_to(parents.iter().zip(&self.sweep.stack[1..]).take_while(|(c, f)| **c == f.component).count())?;
        for component in &parents[self.sweep.stack.len() - 1..] {
            if !self.enter(component, diverted)? {
                return Ok(());
            }
        }
        match (object, last.kind()) {
            (Some(_), ComponentKind::Dir | ComponentKind::Chunk) => match self.enter(last, diverted)? {
                true if !diverted => self.marker_of_top(object),
                _ => Ok(()),
            },
            _ if diverted => self.advance(last).map(drop),
            (Some(meta), _) => self.file(key, last, meta),
            (None, _) => self.prefix(key, last),
        }
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Created => self.applied.created += 1,
            Verdict::Replaced => self.applied.replaced += 1,
            Verdict::Removed => self.applied.removed += 1,
            Verdict::Unchanged | Verdict::Late => {}
        }
    }

    /// Leaves all directories but the first and `depth` below it.
    fn leave_to(&mut self, depth: usize) -> Result<(), Stop> {
        while self.sweep.stack.len() > depth + 1 {
            if let Some(frame) = self.sweep.stack.pop() {
                self.complete(frame)?;
            }
        }
        Ok(())
    }

    /// Enters a directory of the innermost one; false when an older word must not bring it back, when it is another one
    /// that is elsewhere in S3, or when the key is `diverted` and makes none.
    fn enter(&mut self, component: &Component, diverted: bool) -> Result<bool, Stop> {
        let again = self.top().last == component.as_bytes();
        let child = self.advance(component)?;
        let is_other = child.map(|child| self.change.is_elsewhere(child.ino)).transpose()?;
        if is_other.unwrap_or(diverted) {
            return Ok(false);
        }
        let place = Place { dir: self.top().dir, component, child };
        let (verdict, ino) = match child {
            Some(child) => (Verdict::Unchanged, Some(child.ino)),
            None => reconcile::directory(self.change, &place, None, &self.evidence)?,
        };
        let Some(ino) = ino else { return Ok(false) };
        let of_this_listing = self.sweep.recursive || component.kind() == ComponentKind::Chunk;
        // entered a second time, because it went and came back between two pages: its first part is not known
        let covered = self.top().covered && of_this_listing && !again;
        let known = self.was_known(child)?;
        let mut frame = Frame { known, ..Frame::new(component.clone(), ino, covered, self.evidence.sent) };
        if verdict == Verdict::Created {
            self.applied.created += 1;
            frame.exhausted = true;
            frame.observed = self.evidence.answered;
        }
        self.sweep.stack.push(frame);
        Ok(true)
    }

    /// The marker of the innermost directory.
    fn marker_of_top(&mut self, object: Option<&ObjectMeta>) -> Result<(), Stop> {
        let Some(meta) = object else { return Ok(()) };
        let (dir, sent) = (self.top().dir, self.evidence.sent.max(self.top().observed));
        let evidence = self.evidence_as_of(sent);
        reconcile::mark(self.change, dir, meta, &evidence)?;
        let top = self.top();
        (top.marker_seen, top.observed) = (true, evidence.answered);
        Ok(())
    }

    /// The evidence of a directory, which may be older or newer than that of the page's keys.
    fn evidence_as_of(&self, sent: Tick) -> Evidence {
        Evidence { sent, answered: self.evidence.answered, content: None }
    }

    fn prefix(&mut self, key: &Key, component: &Component) -> Result<(), Stop> {
        let child = self.advance(component)?;
        let sent = self.evidence.sent;
        if child.is_none() && (self.change.is_prefix_buried(key, sent) || self.change.is_leaving(key)?) {
            return Ok(());
        }
        let place = Place { dir: self.top().dir, component, child };
        let (verdict, _) = reconcile::directory(self.change, &place, None, &self.evidence)?;
        self.count(verdict);
        Ok(())
    }

    fn file(&mut self, key: &Key, component: &Component, meta: &ObjectMeta) -> Result<(), Stop> {
        let child = self.advance(component)?;
        let place = Place { dir: self.top().dir, component, child };
        let outdated = self.applied.outdated.len();
        if let Some(child) = child
            && (self.change.is_elsewhere(child.ino)? || self.stays_warm(Some(child.ino), Some(meta))?)
        {
            if self.applied.outdated.len() > outdated {
                self.note_written(key, meta, Some(child));
            }
            return Ok(());
        }
        let (verdict, _) = reconcile::file(self.change, &place, meta, &mut self.evidence)?;
        self.count(verdict);
        match verdict {
            Verdict::Created if self.top().known => self.note_written(key, meta, None),
            Verdict::Replaced => self.note_written(key, meta, child),
            _ => {}
        }
        Ok(())
    }

    /// Moves the innermost directory on to `component`: removes what lies between, and returns its entry.
    fn advance(&mut self, component: &Component) -> Result<Option<Child>, Stop> {
        let in_order = self.sweep.in_order;
        let position = component.as_bytes();
        let top = self.top();
        if !in_order || !top.covered || top.last == position {
            let dir = top.dir;
            return Ok(self.change.child(dir, component)?);
        }
        let mut found = None;
        while let Some((existing, child)) = self.next_ahead(position)? {
            if existing.as_bytes() == position {
                found = Some(child);
                break;
            }
            self.remove(&existing, child)?;
        }
        self.top().last = position.to_vec();
        Ok(found)
    }

    /// Takes the innermost directory's next entry that is not above `limit`.
    fn next_ahead(&mut self, limit: &[u8]) -> Result<Option<(Component, Child)>, Stop> {
        let Walk { change, sweep, .. } = self;
        let Some(top) = sweep.stack.last_mut() else { return Ok(None) };
        if top.ahead.is_empty() && !top.exhausted {
            top.ahead = change.children(top.dir, &top.last, AHEAD)?.into();
            top.exhausted = top.ahead.len() < AHEAD;
        }
        let Some((component, _)) = top.ahead.front().filter(|(c, _)| c.as_bytes() <= limit) else { return Ok(None) };
        top.last = component.as_bytes().to_vec();
        Ok(top.ahead.pop_front())
    }

    /// Removes an entry of the innermost directory that S3 has not listed.
    fn remove(&mut self, component: &Component, child: Child) -> Result<(), Stop> {
        if self.change.is_elsewhere(child.ino)? {
            return Ok(());
        }
        let place = Place { dir: self.top().dir, component, child: Some(child) };
        let departure = self.departure(child)?;
        let (verdict, _) = reconcile::absent(self.change, &place, &self.evidence, &mut self.shelter)?;
        self.count(verdict);
        self.note_gone(verdict, departure);
        self.removals_left = self.removals_left.saturating_sub(1);
        if self.removals_left == 0 { Err(Stop::Pause) } else { Ok(()) }
    }

    /// Ends a directory that no later key is in.
    fn complete(&mut self, frame: Frame) -> Result<(), Stop> {
        if !frame.covered || !self.sweep.in_order {
            return Ok(());
        }
        let (dir, marker_seen, evidence) = (frame.dir, frame.marker_seen, self.evidence_as_of(frame.observed));
        self.sweep.stack.push(frame);
        while let Some((existing, child)) = self.next_ahead(&[0xFF; 2])? {
            self.remove(&existing, child)?;
        }
        self.sweep.stack.pop();
        if !marker_seen {
            reconcile::unmark(self.change, dir, &evidence)?;
        }
        self.listed(dir)
    }

    fn listed(&mut self, dir: Ino) -> Result<(), Stop> {
        let Some(before) = self.change.row(dir)? else { return Ok(()) };
        let mut after = before.clone();
        after.inode.listed = true;
        self.change.replace(&before, after);
        if let Some(freshness) = self.change.freshness(dir) {
            let sent = self.sweep.started.unwrap_or(self.evidence.sent);
            self.change.settle(freshness, sent, self.evidence.answered);
        }
        Ok(())
    }

    /// After the last page.
    fn finish(&mut self) -> Result<(), Stop> {
        self.leave_to(0)?;
        let Some(frame) = self.sweep.stack.pop() else { return Ok(()) };
        let dir = frame.dir;
        // the directory itself was asked for: it must be in memory to know that it was
        self.change.load_freshness(dir)?;
        let is_gone = !self.sweep.found_any && dir != Ino::ROOT;
        let evidence = self.evidence_as_of(frame.observed);
        if is_gone && !reconcile::is_late(self.change, dir, &evidence) && !self.shelter.keeps(self.change, dir)? {
            return self.gone(dir, &evidence);
        }
        self.complete(frame)?;
        self.listed(dir)
    }

    /// Nothing begins with the prefix of the sweep's directory: neither a marker nor a key.
    fn gone(&mut self, dir: Ino, evidence: &Evidence) -> Result<(), Stop> {
        let Some(inode) = self.change.row(dir)?.map(|row| row.inode) else { return Ok(()) };
        let Some(child) = self.change.child(inode.parent, &inode.component)? else { return Ok(()) };
        let place = Place { dir: inode.parent, component: &inode.component, child: Some(child) };
        let departure = self.departure(child)?;
        let (verdict, _) = reconcile::absent(self.change, &place, evidence, &mut self.shelter)?;
        self.count(verdict);
        self.note_gone(verdict, departure);
        Ok(())
    }

    /// The directory that the last key is in.
    fn top(&mut self) -> &mut Frame {
        self.sweep.stack.last_mut().expect("the sweep's own directory is left only at its end")
    }
}

impl Frame {
    fn new(component: Component, dir: Ino, covered: bool, sent: Tick) -> Frame {
        Frame {
            component,
            dir,
            last: Vec::new(),
            marker_seen: false,
            covered,
            known: false,
            observed: sent,
            ahead: VecDeque::new(),
            exhausted: false,
        }
    }
}
