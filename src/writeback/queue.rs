//! What is due when. Owns: one entry for each row of the journal that is to be looked at.
//! Knows no journal and no S3: it is told what changed and what became of a task, and says which is next.
//! Invariants
//! - A row is handed out once at a time; what changes while it is worked on makes it come again.
//! - A row waits until it was quiet for `delay`, but never longer than `longest` after its first change.
//! - A blocked row comes again when what blocks it has been worked on, whatever came of that.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Failure;
use super::backoff;
use crate::index::Work;
use crate::types::Tick;

/// 8: a chain of renames is worked off in as many steps as it has links, and few have more.
const PATIENT_BLOCKS: u32 = 8;

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    delay: Duration,
    longest: Duration,
    entries: HashMap<Work, Entry>,
    /// Those that wait for a time. The second number keeps those of one time in order.
    waiting: BTreeMap<Place, Work>,
    /// Who waits for whom.
    blocked: HashMap<Work, Vec<Work>>,
    sequence: u64,
    running: usize,
}

type Place = (Tick, u64);

#[derive(Debug)]
struct Entry {
    /// When the first change came that is not worked off.
    first: Tick,
    state: State,
    /// Somebody waits for it: no waiting for quiet.
    pressed: bool,
    /// In a row.
    failures: u32,
    failure: Option<Failure>,
    /// Whether it failed because nobody answered.
    unanswered: bool,
    /// How often in a row it was found blocked.
    blocked: u32,
}

#[derive(Debug)]
enum State {
    Waiting(Place),
    Running { changed: bool },
    Blocked,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is left to do.
    Done,
    /// It has changed meanwhile.
    Changed,
    /// It was not quiet yet: not before that.
    Later(Tick),
    /// Another must be worked on first.
    Blocked(Work),
    /// It came to nothing; `unanswered`: S3 did not say anything.
    Failed { failure: Failure, unanswered: bool },
}

impl Queue {
    pub(super) fn new(delay: Duration, longest: Duration) -> Queue {
        Queue {
            delay,
            longest,
            entries: HashMap::new(),
            waiting: BTreeMap::new(),
            blocked: HashMap::new(),
            sequence: 0,
            running: 0,
        }
    }

    /// Notes a change: it waits for quiet.
    pub(super) fn changed(&mut self, work: Work, now: Tick) {
        let quiet = after(now, self.delay);
        match self.entries.get_mut(&work).map(|entry| (&mut entry.state, entry.first, entry.pressed)) {
            None => self.enter(work, now, quiet),
            Some((State::Running { changed }, ..)) => *changed = true,
            // who blocks it is still to be worked on
            Some((State::Blocked, ..)) => {}
            Some((State::Waiting(_), first, pressed)) => {
                let due = if pressed { now } else { quiet.min(after(first, self.longest)).max(now) };
                self.wait(work, due);
            }
        }
    }

    /// A row that was there at the start: it has been quiet.
    pub(super) fn found(&mut self, work: Work, now: Tick) {
        if !self.entries.contains_key(&work) {
            self.enter(work, now, now);
        }
    }

    /// Makes a row due at once, and when it comes again too, until it is done.
    pub(super) fn press(&mut self, work: &Work, now: Tick) {
        let Some(entry) = self.entries.get_mut(work) else { return self.enter_pressed(work, now) };
        entry.pressed = true;
        if let State::Waiting((due, _)) = entry.state
            && due > now
        {
            self.wait(work.clone(), now);
        }
    }

    fn enter_pressed(&mut self, work: &Work, now: Tick) {
        self.enter(work.clone(), now, now);
        if let Some(entry) = self.entries.get_mut(work) {
            entry.pressed = true;
        }
    }

    fn enter(&mut self, work: Work, now: Tick, due: Tick) {
        let entry = Entry {
            first: now,
            state: State::Blocked,
            pressed: false,
            failures: 0,
            failure: None,
            unanswered: false,
            blocked: 0,
        };
        self.entries.insert(work.clone(), entry);
        self.wait(work, due);
    }

    /// Puts an entry that does not run among those that wait for a time.
    fn wait(&mut self, work: Work, due: Tick) {
        let Some(entry) = self.entries.get_mut(&work) else { return };
        if let State::Waiting(place) = entry.state {
            self.waiting.remove(&place);
        }
        self.sequence += 1;
        let place = (due, self.sequence);
        entry.state = State::Waiting(place);
        self.waiting.insert(place, work);
    }

    /// When the next is due; `None` when nothing waits for a time.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.waiting.first_key_value().map(|(place, _)| place.0)
    }

    /// Hands out what is due, the longest due first.
    pub(super) fn next(&mut self, now: Tick) -> Option<Work> {
        let entry = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        let work = entry.remove();
        if let Some(entry) = self.entries.get_mut(&work) {
            entry.state = State::Running { changed: false };
        }
        self.running += 1;
        Some(work)
    }

    /// How many are handed out.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Until when at the latest a row that is handed out may wait for quiet; `None`: it must not.
    pub(super) fn patience(&self, work: &Work) -> Option<Tick> {
        let entry = self.entries.get(work)?;
        (!entry.pressed).then(|| after(entry.first, self.longest))
    }

    /// Takes a row back.
    pub(super) fn finish(&mut self, work: &Work, end: End, now: Tick) {
        self.running -= 1;
        for blocked in self.blocked.remove(work).unwrap_or_default() {
            self.wait(blocked, now);
        }
        let Some(entry) = self.entries.get_mut(work) else { return };
        let changed = matches!(entry.state, State::Running { changed: true });
        if !matches!(end, End::Failed { .. } | End::Later(_)) {
            entry.failures = 0;
            entry.failure = None;
        }
        entry.blocked = if matches!(end, End::Blocked(_)) { entry.blocked + 1 } else { 0 };
        // until it says otherwise it is nowhere: `wait` puts it where it belongs
        entry.state = State::Blocked;
        match end {
            End::Done if !changed => {
                self.entries.remove(work);
            }
            End::Done | End::Changed => {
                entry.first = now;
                // what comes after that nobody has asked for yet
                entry.pressed &= end == End::Changed;
                let due = if entry.pressed { now } else { after(now, self.delay) };
                self.wait(work.clone(), due);
            }
            End::Later(due) => self.wait(work.clone(), due.max(now)),
            End::Blocked(by) => self.block(work, by, now),
            End::Failed { failure, unanswered } => {
                entry.failures = entry.failures.saturating_add(1);
                entry.failure = Some(failure);
                entry.unanswered = unanswered;
                let pause = backoff::pause(entry.failures, self.sequence);
                self.wait(work.clone(), after(now, pause));
            }
        }
    }

    /// Lets `work` wait for `by`, which is made due. What finds itself blocked again and again only looks now and then.
    fn block(&mut self, work: &Work, by: Work, now: Tick) {
        let times = self.entries.get(work).map_or(0, |entry| entry.blocked);
        if by == *work || times > PATIENT_BLOCKS {
            return self.wait(work.clone(), after(now, backoff::pause(1, self.sequence)));
        }
        self.blocked.entry(by.clone()).or_default().push(work.clone());
        // one that has failed keeps its pause: whoever waits for it does too
        if self.entries.get(&by).is_none_or(|entry| entry.failure.is_none()) {
            self.press(&by, now);
        }
    }

    /// Makes due at once what failed because nobody answered.
    pub(super) fn answered_again(&mut self, now: Tick) {
        let unanswered = |(work, entry): (&Work, &Entry)| {
            (entry.unanswered && matches!(entry.state, State::Waiting(_))).then(|| work.clone())
        };
        let again: Vec<Work> = self.entries.iter().filter_map(unanswered).collect();
        for work in again {
            if let Some(entry) = self.entries.get_mut(&work) {
                entry.unanswered = false;
            }
            self.wait(work, now);
        }
    }

    /// Why `work` failed at its last try.
    pub(super) fn failure(&self, work: &Work) -> Option<&Failure> {
        self.entries.get(work)?.failure.as_ref()
    }

    /// What failed at its last try.
    pub(super) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.entries.values().filter_map(|entry| entry.failure.as_ref())
    }
}

fn after(tick: Tick, by: Duration) -> Tick {
    Tick(tick.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::Ino;

    const DELAY: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    fn queue() -> Queue {
        Queue::new(DELAY, LONGEST)
    }

    fn row(ino: u64) -> Work {
        Work::Inode(Ino(ino))
    }

    fn failed() -> End {
        let failure = Failure { key: "k".into(), why: "denied".into(), may_pass: false };
        End::Failed { failure, unanswered: false }
    }

    #[test]
    fn a_change_is_due_when_it_was_quiet() {
        let mut queue = queue();
        queue.changed(row(1), Tick(1));
        assert_eq!(queue.next(Tick(1_000)), None);
        queue.changed(row(1), Tick(1_000));
        assert_eq!((queue.next(Tick(1_999)), queue.next_due()), (None, Some(Tick(2_000))));
        assert_eq!(queue.next(Tick(2_000)), Some(row(1)));
        assert_eq!(queue.next(Tick(9_000)), None, "one task a row");
    }

    #[test]
    fn a_row_that_is_never_quiet_is_due_after_the_longest_delay() {
        let mut queue = queue();
        let mut handed_out = None;
        for ms in (1..40_000).step_by(500) {
            queue.changed(row(1), Tick(ms));
            handed_out = handed_out.or(queue.next(Tick(ms)).map(|_| ms));
        }
        assert_eq!(handed_out, Some(30_001));
    }

    #[test]
    fn what_changes_while_it_is_worked_on_comes_again_once() {
        let mut queue = queue();
        queue.found(row(1), Tick(1));
        assert_eq!(queue.next(Tick(1)), Some(row(1)));
        queue.changed(row(1), Tick(2));
        queue.changed(row(1), Tick(3));
        queue.finish(&row(1), End::Done, Tick(10));
        assert_eq!(queue.next_due(), Some(Tick(1_010)));
        assert_eq!(queue.next(Tick(1_010)), Some(row(1)));
        queue.finish(&row(1), End::Done, Tick(1_020));
        assert_eq!((queue.next_due(), queue.running(), queue.entries.len()), (None, 0, 0));
    }

    #[test]
    fn a_blocked_row_comes_when_its_blocker_has_been_worked_on() {
        let mut queue = queue();
        queue.found(row(1), Tick(1));
        assert_eq!(queue.next(Tick(1)), Some(row(1)));
        queue.finish(&row(1), End::Blocked(row(2)), Tick(1));
        assert_eq!(queue.next(Tick(1)), Some(row(2)), "the blocker is made due, also when nobody knew it");
        assert_eq!(queue.next(Tick(99_000)), None);
        queue.changed(row(1), Tick(2));
        assert_eq!(queue.next(Tick(99_000)), None, "a change does not unblock");
        queue.finish(&row(2), End::Done, Tick(5));
        assert_eq!(queue.next(Tick(5)), Some(row(1)));
    }

    #[test]
    fn a_failed_row_waits_alone_and_longer_each_time() {
        let mut queue = queue();
        queue.found(row(1), Tick(1));
        queue.found(row(2), Tick(1));
        assert_eq!((queue.next(Tick(1)), queue.next(Tick(1))), (Some(row(1)), Some(row(2))));
        queue.finish(&row(1), failed(), Tick(1));
        queue.finish(&row(2), End::Done, Tick(1));
        let (mut now, mut pauses) = (Tick(1), Vec::new());
        for _ in 0..12 {
            let due = queue.next_due().unwrap();
            pauses.push(due.since(now).as_secs_f64());
            now = due;
            assert_eq!(queue.next(now), Some(row(1)));
            queue.finish(&row(1), failed(), now);
        }
        assert!(pauses[0] <= 1.0 && pauses[11] >= 150.0 && pauses.iter().all(|pause| *pause <= 300.0), "{pauses:?}");
        assert_eq!(queue.failures().count(), 1);
        queue.press(&row(1), now);
        assert_eq!(queue.next(now), Some(row(1)), "who asks for it does not wait for the pause");
        queue.finish(&row(1), End::Done, now);
        assert_eq!(queue.failures().count(), 0);
    }

    #[test]
    fn an_answer_makes_due_what_nobody_had_answered() {
        let mut queue = queue();
        for ino in 1..=3 {
            queue.found(row(ino), Tick(1));
            assert_eq!(queue.next(Tick(1)), Some(row(ino)));
        }
        let failure = Failure { key: "k".into(), why: "nobody".into(), may_pass: true };
        queue.finish(&row(1), End::Failed { failure: failure.clone(), unanswered: true }, Tick(1));
        queue.finish(&row(2), failed(), Tick(1));
        queue.finish(&row(3), End::Done, Tick(1));
        queue.answered_again(Tick(2));
        assert_eq!((queue.next(Tick(2)), queue.next(Tick(2))), (Some(row(1)), None));
    }

    #[test]
    fn pressed_rows_keep_their_order() {
        let mut queue = queue();
        (1..=4).for_each(|ino| queue.changed(row(ino), Tick(ino)));
        queue.changed(row(5), Tick(5_000));
        (1..=5).rev().for_each(|ino| queue.press(&row(ino), Tick(5_000)));
        let order: Vec<Work> = std::iter::from_fn(|| queue.next(Tick(5_000))).collect();
        assert_eq!(order, [1, 2, 3, 4, 5].map(row));
    }

    #[test]
    fn pressed_rows_do_not_wait_for_quiet() {
        let mut queue = queue();
        queue.changed(row(1), Tick(1));
        queue.press(&row(1), Tick(2));
        assert_eq!(queue.next(Tick(2)), Some(row(1)));
        assert_eq!(queue.patience(&row(1)), None);
        queue.finish(&row(1), End::Changed, Tick(3));
        assert_eq!(queue.next(Tick(3)), Some(row(1)));
        queue.finish(&row(1), End::Later(Tick(50)), Tick(4));
        assert_eq!((queue.next(Tick(49)), queue.next(Tick(50))), (None, Some(row(1))));
    }
}
