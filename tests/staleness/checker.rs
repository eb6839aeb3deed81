//! Judges every answer by the history of the bucket. From each version that came into S3 it works out when the last
//! moment was at which a server may begin to answer with an older one:
//! - F2: one request is served stale, and behind it S3 is asked. So: when the version has been in S3 for `--recheck` and
//!   nothing asked before it came is under way, a request is answered; when all that was under way then has come to its
//!   end, no request that begins is answered with an older version.
//! - F6: in the strict mode no open that begins after that first request has ended.
//! - Hints: when one of the version was taken and all that was under way then has come to its end, no request is; and
//!   nobody is told that there is no such name from the moment it was taken.
//! - F4: that there is no such name is believed for `--recheck`.
//!
//! And whatever is shown was there, is of one version (but for a READ beside a WRITE of the same file at the same
//! server, which is not atomic), and on one server never older than what was shown before.
//! No bound here is a length of time that a machine might miss.

use std::collections::HashMap;
use std::time::Duration;

use super::history::{Answer, Hinted, History, How, Life, Quiet, Record, Shown};

/// Servers count whole milliseconds.
const GRAIN: Duration = Duration::from_millis(2);

/// What the servers promise.
#[derive(Clone, Debug)]
pub struct Promise {
    pub recheck: Duration,
    /// Of each server: whether it runs with `--stale-limit one`.
    pub is_strict: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    WasThere,
    OneVersion,
    NeverBack,
    F2,
    F4,
    F6,
    Hint,
}

/// An answer that breaks a rule, to be printed.
#[expect(dead_code, reason = "Debug reads it")]
#[derive(Clone, Debug)]
pub struct Breach {
    pub rule: Rule,
    pub answer: Answer,
    /// The version that should have been shown, or a later one.
    pub wanted: u64,
    /// From when on.
    pub since: Duration,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Findings {
    pub breaches: Vec<Breach>,
    /// Answers that a rule bound: when they began there was a version after whose bound they came.
    pub bound: HashMap<Rule, u64>,
    pub answers: u64,
    /// Answers older than what S3 had when they began, and the longest time by which.
    pub stale: u64,
    pub longest: Duration,
}

impl Findings {
    pub fn bound(&self, rule: Rule) -> u64 {
        self.bound.get(&rule).copied().unwrap_or(0)
    }

    /// How often which rule was broken.
    pub fn broken(&self) -> HashMap<Rule, usize> {
        let mut broken = HashMap::new();
        self.breaches.iter().for_each(|breach| *broken.entry(breach.rule).or_default() += 1);
        broken
    }
}

/// Judges all answers.
pub fn judge(history: &History, record: &Record, promise: &Promise) -> Findings {
    let mut findings = Findings::default();
    let mut lives: HashMap<Life, Vec<Quiet>> = HashMap::new();
    for quiet in &record.quiets {
        lives.entry(quiet.life).or_default().push(*quiet);
    }
    let mut of_server: HashMap<(usize, usize), Vec<Answer>> = HashMap::new();
    let mut of_life: HashMap<(Life, usize), Vec<Answer>> = HashMap::new();
    for answer in &record.answers {
        of_server.entry((answer.life.server, answer.key)).or_default().push(*answer);
        of_life.entry((answer.life, answer.key)).or_default().push(*answer);
    }
    for (_, answers) in of_server {
        judge_order(history, answers, &mut findings);
    }
    for ((life, key), answers) in of_life {
        let hints = record.hints.iter().filter(|hint| (hint.life, hint.key) == (life, key)).copied().collect();
        let quiets = Quiets(lives.get(&life).map(Vec::as_slice).unwrap_or_default());
        let bounds = Bounds::of(history, key, hints, quiets, &answers, promise);
        for answer in answers {
            judge_age(history, &bounds, answer, promise.is_strict[life.server], &mut findings);
        }
    }
    findings
}

/// Versions that `answer` may have been given from, by what it shows.
fn candidates(history: &History, answer: &Answer) -> impl DoubleEndedIterator<Item = u64> {
    let (server, ended, shown) = (answer.life.server, answer.ended, answer.shown);
    let fits = move |number: u64, is_removal: bool| match shown {
        Shown::Number(told) => told == number && !is_removal,
        Shown::Nothing => is_removal,
        Shown::Torn => false,
    };
    let range = match shown {
        Shown::Number(number) => number..=number,
        Shown::Nothing | Shown::Torn => 0..=u64::MAX,
    };
    history.versions(answer.key).range(range).filter_map(move |(number, version)| {
        let was_here = version.written.is_some_and(|written| written.server == server && written.begun <= ended);
        let was_there = version.in_s3.is_some_and(|at| at <= ended);
        ((was_here || was_there) && fits(*number, version.is_removal)).then_some(*number)
    })
}

/// Whether a WRITE at this server was under way while `answer` was: as with any file system, a READ beside it may have
/// a part of it.
fn is_written_to(history: &History, answer: &Answer) -> bool {
    history.versions(answer.key).values().filter_map(|version| version.written).any(|written| {
        let is_over = written.ended.is_some_and(|ended| ended < answer.begun);
        answer.how == How::Read && written.server == answer.life.server && written.begun <= answer.ended && !is_over
    })
}

/// What is shown of one key at one server was there, whole, and goes forward.
fn judge_order(history: &History, mut answers: Vec<Answer>, findings: &mut Findings) {
    let mut ends: Vec<(Duration, u64)> = Vec::new();
    let (mut floor, mut passed) = (0, 0);
    answers.sort_by_key(|answer| answer.begun);
    for answer in answers {
        // An answer that had ended by now began before, so it is among `ends`.
        ends[passed..].sort_unstable();
        while let Some((ended, number)) = ends.get(passed)
            && *ended <= answer.begun
        {
            (floor, passed) = (floor.max(*number), passed + 1);
        }
        let breach = |rule| Breach { rule, answer, wanted: floor, since: answer.begun };
        if answer.shown == Shown::Torn && is_written_to(history, &answer) {
            // it shows no version
        } else if answer.shown == Shown::Torn {
            findings.breaches.push(breach(Rule::OneVersion));
        } else if candidates(history, &answer).next().is_none() {
            findings.breaches.push(breach(Rule::WasThere));
        } else if let Some(oldest) = candidates(history, &answer).find(|number| *number >= floor) {
            ends.push((answer.ended, oldest));
        } else {
            findings.breaches.push(breach(Rule::NeverBack));
        }
    }
}

/// An answer is no older than its rules allow.
fn judge_age(history: &History, bounds: &Bounds, answer: Answer, is_strict: bool, findings: &mut Findings) {
    let Some(newest) = candidates(history, &answer).next_back() else { return };
    findings.answers += 1;
    let first_newer = history.versions(answer.key).range(newest + 1..).find_map(|(_, version)| version.in_s3);
    if let Some(since) = first_newer.filter(|since| *since <= answer.begun) {
        findings.stale += 1;
        findings.longest = findings.longest.max(answer.begun - since);
    }
    for rule in [Rule::F2, Rule::F4, Rule::F6, Rule::Hint] {
        let concerns = match rule {
            Rule::F6 => is_strict && answer.how.is_open() && answer.shown != Shown::Nothing,
            Rule::F2 => answer.shown != Shown::Nothing,
            Rule::F4 => answer.shown == Shown::Nothing,
            _ => true,
        };
        let Some((wanted, since)) = bounds.before(rule, &answer).filter(|_| concerns) else { continue };
        *findings.bound.entry(rule).or_default() += 1;
        if newest < wanted {
            findings.breaches.push(Breach { rule, answer, wanted, since });
        }
    }
}

/// The quiet moments of one life, in order.
struct Quiets<'a>(&'a [Quiet]);

impl Quiets<'_> {
    /// When all that was under way at `at` had certainly ended.
    fn after(&self, at: Duration) -> Option<Duration> {
        let first = self.0.partition_point(|quiet| quiet.begun < at);
        self.0.get(first).map(|quiet| quiet.ended)
    }
}

/// From when on which version of a key, or a later one, must be shown: by rule, and for each whether a name is missed.
struct Bounds(HashMap<(Rule, bool), Vec<(Duration, u64)>>);

impl Bounds {
    fn of(
        history: &History,
        key: usize,
        hints: Vec<Hinted>,
        quiets: Quiets<'_>,
        answers: &[Answer],
        promise: &Promise,
    ) -> Bounds {
        let mut bounds = Bounds(HashMap::new());
        let touched = |at: Duration| {
            let touches = |a: &&Answer| a.begun >= at && a.how != How::List && matches!(a.shown, Shown::Number(_));
            answers.iter().filter(touches).map(|answer| answer.ended).min()
        };
        let mut was_removed = false;
        for (number, version) in history.versions(key) {
            let Some(at) = version.in_s3 else { continue };
            let aged = quiets.after(at).map(|quiet| quiet.max(at + promise.recheck + GRAIN));
            let asked = aged.and_then(touched);
            bounds.add(Rule::F4, true, *number, aged);
            bounds.add(Rule::F6, false, *number, asked);
            bounds.add(Rule::F2, false, *number, asked.and_then(|asked| quiets.after(asked)));
            let hinted = hints.iter().filter(|hint| hint.number >= *number).map(|hint| hint.ended).min();
            bounds.add(Rule::Hint, true, *number, hinted);
            // A file that came again may not be here whole: then it is only distrusted, and the next request asks.
            let asked = if was_removed { hinted.and_then(touched) } else { hinted };
            bounds.add(Rule::Hint, false, *number, asked.and_then(|asked| quiets.after(asked)));
            was_removed |= version.is_removal;
        }
        for all in bounds.0.values_mut() {
            all.sort_unstable();
            let mut highest = 0;
            for (_, number) in all {
                highest = highest.max(*number);
                *number = highest;
            }
        }
        bounds
    }

    fn add(&mut self, rule: Rule, misses: bool, number: u64, since: Option<Duration>) {
        if let Some(since) = since {
            self.0.entry((rule, misses)).or_default().push((since, number));
        }
    }

    /// The last version that `answer` must show by `rule`, and since when.
    fn before(&self, rule: Rule, answer: &Answer) -> Option<(u64, Duration)> {
        let all = self.0.get(&(rule, answer.shown == Shown::Nothing))?;
        let past = all.partition_point(|(since, _)| *since <= answer.begun);
        let (since, number) = all.get(past.checked_sub(1)?)?;
        Some((*number, *since))
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
