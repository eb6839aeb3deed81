//! What a day may cost (`--s3-budget`): whoever asks S3 for nobody in particular waits for its turn here.
//! All requests count, those that clients wait for and uploads too; but only who calls `turn` ever waits. That is the
//! checks behind answers, the mirror, and whatever else looks for changes; not reading ahead, which spares the reader
//! smaller requests of its own, and not uploads, because what is written is to be safe in S3.
//!
//! Invariants
//! - A turn is taken before anything is claimed that somebody else may wait for (a key, a range, a place in the store):
//!   so nothing a client waits for stands behind the budget.
//! - In any 24 hours work behind the answers is let in for no more than the budget less what all others spent: the pot
//!   fills with a 25th of it an hour and holds as much, and an hour's worth and 24 hours make 25.
//! - Debt is at most an hour's worth, so that what clients and uploads spent holds the others up no longer than that.
//! - Turns are given in the order in which they were asked for. A turn sets its price aside until it ends, so that many
//!   at once do not spend the same money; what was really sent, the counters say.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cost::{Dollars, RequestKind};
use crate::types::{Clock, Tick};

/// 25 h: see above.
const FILLING_MS: i128 = 25 * 3_600_000;
/// How long nobody may have had to wait for the slow time to be over.
const CALM: Duration = Duration::from_secs(60);

/// What may be spent, and what is left of it; without a limit it lets everybody in at once.
#[derive(Debug, Default)]
pub struct Budget(Option<Limited>);

#[derive(Debug)]
struct Limited {
    clock: Clock,
    day: Dollars,
    pot: Mutex<Pot>,
    /// A turn has ended.
    ended: Notify,
    /// Held by the one whose turn is next.
    line: tokio::sync::Mutex<()>,
}

/// Money in units that a day's budget of one billionth of a dollar brings one of in a millisecond.
#[derive(Debug)]
struct Pot {
    left: i128,
    /// Up to when it is filled.
    at: Tick,
    set_aside: i128,
    waiting: usize,
    /// Since when somebody has had to wait, with pauses shorter than `CALM`.
    slow_since: Tick,
    /// When the last wait ended.
    waited: Tick,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetState {
    /// For a day, in dollars.
    pub day: f64,
    /// Left for work behind the answers; below zero, it waits.
    pub left: f64,
    /// Since when that work is slowed; `None`: it is not.
    pub slow_since: Option<Tick>,
}

/// The right to ask S3 something; its price is set aside until this is dropped.
#[derive(Debug)]
#[must_use = "a turn that is dropped is over"]
pub struct Turn {
    budget: Arc<Budget>,
    price: i128,
}

/// Somebody waits.
struct Waiting<'a>(&'a Limited);

fn units(dollars: Dollars) -> i128 {
    i128::from(dollars.0) * FILLING_MS
}

impl Budget {
    /// Of `day` a day.
    pub fn new(day: Dollars, clock: Clock) -> Arc<Budget> {
        let pot = Pot {
            left: hours_worth(day),
            at: clock.now(),
            set_aside: 0,
            waiting: 0,
            slow_since: Tick::NEVER,
            waited: Tick::NEVER,
        };
        let (pot, ended, line) = (Mutex::new(pot), Notify::new(), tokio::sync::Mutex::default());
        Arc::new(Budget(Some(Limited { clock, day, pot, ended, line })))
    }

    /// Without a limit.
    pub fn unlimited() -> Arc<Budget> {
        Arc::default()
    }

    /// Waits until a request of this kind may be sent that no client waits for. Dropping the future leaves the line.
    pub async fn turn(self: &Arc<Budget>, kind: RequestKind) -> Turn {
        if let Some(turn) = self.try_turn(kind) {
            return turn;
        }
        if let Some(limited) = &self.0 {
            let _waiting = limited.wait();
            let _first = limited.line.lock().await;
            limited.some_left().await;
            return self.set_aside(kind);
        }
        self.set_aside(kind)
    }

    /// The same at once or not at all: not while others wait.
    pub fn try_turn(self: &Arc<Budget>, kind: RequestKind) -> Option<Turn> {
        let may = self.0.as_ref().is_none_or(|limited| {
            let pot = limited.pot();
            pot.waiting == 0 && pot.available() > 0
        });
        may.then(|| self.set_aside(kind))
    }

    /// A turn out of turn, for what comes along with another's or what a client does wait for.
    pub fn set_aside(self: &Arc<Budget>, kind: RequestKind) -> Turn {
        let price = self.0.as_ref().map_or(0, |limited| {
            let price = units(kind.price());
            limited.pot().set_aside += price;
            price
        });
        Turn { budget: self.clone(), price }
    }

    /// How it stands; `None`: there is no limit.
    pub fn state(&self) -> Option<BudgetState> {
        let limited = self.0.as_ref()?;
        let pot = limited.pot();
        let is_slow = pot.waiting > 0 || pot.is_lately(limited.clock.now());
        Some(BudgetState {
            day: limited.day.to_f64(),
            left: pot.available() as f64 / FILLING_MS as f64 / 1e9,
            slow_since: is_slow.then_some(pot.slow_since),
        })
    }

    /// Whether a turn has not ended.
    #[cfg(test)]
    pub(crate) fn is_anybody_in(&self) -> bool {
        self.0.as_ref().is_some_and(|limited| limited.pot().set_aside > 0)
    }

    /// A request was sent, by whomever.
    pub(super) fn spend(&self, kind: RequestKind) {
        if let Some(limited) = &self.0 {
            let mut pot = limited.pot();
            pot.left = (pot.left - units(kind.price())).max(-hours_worth(limited.day));
        }
    }
}

/// What the pot holds at most.
fn hours_worth(day: Dollars) -> i128 {
    units(day) / 25
}

impl Limited {
    /// The pot, filled up to now.
    fn pot(&self) -> parking_lot::MutexGuard<'_, Pot> {
        let mut pot = self.pot.lock();
        let now = self.clock.now();
        let earned = i128::from(now.0.saturating_sub(pot.at.0)) * i128::from(self.day.0);
        pot.left = (pot.left + earned).min(hours_worth(self.day));
        pot.at = pot.at.max(now);
        pot
    }

    /// Waits until there is something left.
    async fn some_left(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let due = {
                let pot = self.pot();
                let missing = 1 - pot.available();
                if missing <= 0 {
                    return;
                }
                let ms = missing.div_euclid(i128::from(self.day.0).max(1)) + 1;
                Tick(pot.at.0.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX)))
            };
            tokio::select! {
                () = self.clock.reached(due) => {}
                () = ended => {}
            }
        }
    }

    fn wait(&self) -> Waiting<'_> {
        let mut pot = self.pot();
        pot.waiting += 1;
        if pot.waiting == 1 && !pot.is_lately(self.clock.now()) {
            pot.slow_since = pot.at;
            tracing::warn!(budget = %self.day, "what S3 may cost in a day is used up for now: checks behind answers and the mirror go slowly");
        }
        Waiting(self)
    }
}

impl Pot {
    fn available(&self) -> i128 {
        self.left - self.set_aside
    }

    /// Whether somebody waited a moment ago.
    fn is_lately(&self, now: Tick) -> bool {
        self.waited != Tick::NEVER && now.since(self.waited) < CALM
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut pot = self.0.pot();
        pot.waiting -= 1;
        pot.waited = pot.at;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(limited) = &self.budget.0 {
            limited.pot().set_aside -= self.price;
            limited.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::RequestKind::{Get, Head, List};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A budget that pays for `heads` HEADs in an hour.
    fn budget(heads: u64) -> (Arc<Budget>, Clock) {
        let clock = Clock::manual();
        (Budget::new(Head.price() * heads * 25, clock.clone()), clock)
    }

    /// Takes turns and asks as long as it is let.
    fn ask_all(budget: &Arc<Budget>, kind: RequestKind) -> u64 {
        let mut asked = 0;
        while let Some(turn) = budget.turn(kind).now_or_never() {
            budget.spend(kind);
            drop(turn);
            asked += 1;
        }
        asked
    }

    #[test]
    fn day_of_work_costs_no_more_than_the_budget() {
        let (budget, clock) = budget(100);
        let mut asked = 0;
        for _ in 0..24 * 60 {
            asked += ask_all(&budget, Head);
            clock.advance(Duration::from_secs(60));
        }
        assert_eq!(asked, 100 + 24 * 100 - 1, "the last minute is not over");
        for _ in 0..24 {
            clock.advance(HOUR * 10);
            assert_eq!(ask_all(&budget, Head), 100, "no more than an hour's worth is saved up");
        }
        assert_eq!(ask_all(&budget, List), 0);
    }

    #[test]
    fn what_others_spend_is_paid_back_within_an_hour_at_most() {
        let (budget, clock) = budget(100);
        (0..10_000).for_each(|_| budget.spend(Get));
        assert!(budget.try_turn(Head).is_none());
        clock.advance(HOUR - Duration::from_millis(1));
        assert_eq!(ask_all(&budget, Head), 0);
        clock.advance(Duration::from_millis(2));
        assert_eq!(ask_all(&budget, Head), 1);
    }

    #[test]
    fn turns_at_once_do_not_spend_the_same_money() {
        let (budget, _) = budget(3);
        let turns: Vec<_> = (0..3).map(|_| budget.try_turn(Head).unwrap()).collect();
        assert!(budget.try_turn(Head).is_none());
        let mut waiting = budget.turn(Head).boxed();
        assert!((&mut waiting).now_or_never().is_none());
        drop(turns);
        assert!(waiting.now_or_never().is_some(), "nothing was asked for them, so it is there again");
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_asking_and_who_leaves_holds_up_nobody() {
        let (budget, clock) = budget(3_600);
        ask_all(&budget, Head);
        let mut line: Vec<_> = (0..3).map(|_| budget.turn(Head).boxed()).collect();
        for waiting in &mut line {
            assert!(waiting.now_or_never().is_none());
        }
        clock.advance(Duration::from_secs(1));
        assert!(budget.try_turn(Head).is_none(), "others were first");
        let mut third = line.pop().unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(line);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_the_money_is_there() {
        let (budget, clock) = budget(3_600);
        ask_all(&budget, Head);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { drop(budget.turn(List).await) }
        });
        while budget.state().unwrap().slow_since.is_none() {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_secs(1));
        tokio::time::timeout(HOUR, waiting).await.unwrap().unwrap();
    }

    #[test]
    fn state_tells_since_when_work_is_slow() {
        let (budget, clock) = budget(60);
        assert_eq!(budget.state().unwrap().slow_since, None);
        assert!((budget.state().unwrap().left - 60.0 * 0.000_000_4).abs() < 1e-12);
        ask_all(&budget, Head);
        let since = clock.now();
        for _ in 0..10 {
            clock.advance(Duration::from_secs(50));
            ask_all(&budget, Head);
            assert_eq!(budget.state().unwrap().slow_since, Some(since));
        }
        clock.advance(CALM);
        assert_eq!(budget.state().unwrap().slow_since, None);
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let budget = Budget::unlimited();
        for _ in 0..1_000 {
            budget.spend(List);
            assert!(budget.turn(List).now_or_never().is_some());
        }
        assert_eq!(budget.state(), None);
    }
}
