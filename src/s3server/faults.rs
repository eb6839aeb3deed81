//! What a test can do to a running server, and what it can see of it: latency, outage, errors, broken
//! bodies, requests held at a gate, and the log of requests.
//! Invariant: everything is an event; no test has to sleep to meet a request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::data::Data;
use super::request::Kind;

/// Requests that `Requests::recent` remembers.
const LOGGED_REQUESTS: usize = 10_000;

/// Which requests a fault or a gate is for.
#[derive(Clone, Debug, Default)]
pub struct On {
    kind: Option<Kind>,
    key: Option<String>,
    only_writes: bool,
}

impl On {
    /// Every request.
    pub fn any() -> On {
        On::default()
    }

    /// Every request for `key`, or for a listing of that prefix.
    pub fn key(key: &str) -> On {
        On { key: Some(key.to_owned()), ..On::default() }
    }

    /// Every request that changes something.
    pub fn writes() -> On {
        On { only_writes: true, ..On::default() }
    }

    fn matches(&self, kind: Kind, key: &str) -> bool {
        (!self.only_writes || kind.is_write())
            && self.kind.is_none_or(|k| k == kind)
            && self.key.as_deref().is_none_or(|k| k == key)
    }
}

impl From<Kind> for On {
    fn from(kind: Kind) -> On {
        On { kind: Some(kind), ..On::default() }
    }
}

impl From<(Kind, &str)> for On {
    fn from((kind, key): (Kind, &str)) -> On {
        On { kind: Some(kind), key: Some(key.to_owned()), ..On::default() }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown.
    SlowDown,
    /// 500 InternalError.
    InternalError,
    /// 409 ConditionalRequestConflict: another conditional write is under way.
    Conflict,
    /// 403 AccessDenied.
    Denied,
    /// 301 PermanentRedirect, with the region the bucket is said to be in.
    WrongRegion(String),
    /// The connection is closed without an answer, and nothing is done.
    Close,
    /// The operation is done, then the connection is closed without an answer.
    FailAfterApply,
    /// The operation is done, and the answer is 500 InternalError.
    ErrorAfterApply,
    /// The connection is reset after so many bytes of the body.
    ResetAfter(u64),
    /// The body ends after so many bytes, though more were declared.
    ShortBody(u64),
    /// The body stops after so many bytes and neither goes on nor ends.
    StallAfter(u64),
}

/// Handle to the faults of a server; changes take effect with the next request.
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    rules: Mutex<Rules>,
    down: watch::Sender<bool>,
    data: Arc<Data>,
}

#[derive(Default)]
struct Rules {
    latency: Duration,
    faults: Vec<Rule>,
    gates: Vec<(On, Arc<GateState>)>,
}

struct Rule {
    on: On,
    times: u64,
    fault: Fault,
}

/// A gate that holds matching requests until it is released or dropped.
#[must_use = "dropping a gate releases it"]
pub struct Gate {
    state: Arc<GateState>,
}

pub(super) struct GateState {
    place: Place,
    arrived: watch::Sender<usize>,
    passes: Semaphore,
}

/// Where a gate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the operation is done.
    Request,
    /// After it is done, before the answer.
    Answer,
}

/// What is in store for one request.
pub(super) struct Plan {
    pub(super) latency: Duration,
    pub(super) fault: Option<Fault>,
    pub(super) gates: Vec<Arc<GateState>>,
}

impl Faults {
    pub(super) fn new(data: Arc<Data>) -> Faults {
        Faults(Arc::new(Shared { rules: Mutex::default(), down: watch::Sender::new(false), data }))
    }

    /// Every request waits so long before it is looked at.
    pub fn set_latency(&self, latency: Duration) {
        self.0.rules.lock().latency = latency;
    }

    /// Down: open connections are closed at once, new ones as soon as they come.
    pub fn set_down(&self, down: bool) {
        self.0.down.send_replace(down);
    }

    /// The next `times` requests that match meet `fault`.
    pub fn inject(&self, on: impl Into<On>, times: u64, fault: Fault) {
        self.0.rules.lock().faults.push(Rule { on: on.into(), times, fault });
    }

    /// Every request that matches meets `fault`, until `clear`.
    pub fn inject_always(&self, on: impl Into<On>, fault: Fault) {
        self.inject(on, u64::MAX, fault);
    }

    /// LIST answers from what is there now, whatever is written, until set to false.
    pub fn set_stale_list(&self, stale: bool) {
        self.0.data.freeze_listings(stale);
    }

    /// Conditions on requests of `kinds` are ignored, on source and target, as by servers that do not know them; those on
    /// all others are minded again.
    pub fn ignore_conditions(&self, kinds: &[Kind]) {
        self.0.data.ignore_conditions(kinds);
    }

    /// From now on tags of objects are no digests of their bytes, as where S3 encrypts with a key of KMS. `clear` leaves it.
    pub fn set_opaque_tags(&self, opaque: bool) {
        self.0.data.set_opaque_tags(opaque);
    }

    /// Holds every request that matches before anything is done.
    pub fn hold(&self, on: impl Into<On>) -> Gate {
        self.gate(on.into(), Place::Request)
    }

    /// Holds the answer of every request that matches, when the operation has been done.
    pub fn hold_answer(&self, on: impl Into<On>) -> Gate {
        self.gate(on.into(), Place::Answer)
    }

    /// Forgets latency, outage, injected faults, the stale listing and what is ignored. Gates stay with their guards.
    pub fn clear(&self) {
        let mut rules = self.0.rules.lock();
        rules.latency = Duration::ZERO;
        rules.faults.clear();
        drop(rules);
        self.set_down(false);
        self.set_stale_list(false);
        self.ignore_conditions(&[]);
    }

    fn gate(&self, on: On, place: Place) -> Gate {
        let state = Arc::new(GateState { place, arrived: watch::Sender::new(0), passes: Semaphore::new(0) });
        let mut rules = self.0.rules.lock();
        rules.gates.retain(|(_, gate)| !gate.passes.is_closed());
        rules.gates.push((on, state.clone()));
        Gate { state }
    }

    pub(super) fn down(&self) -> watch::Receiver<bool> {
        self.0.down.subscribe()
    }

    /// Takes what is in store for this request.
    pub(super) fn plan(&self, kind: Kind, key: &str) -> Plan {
        let mut rules = self.0.rules.lock();
        let hit = rules.faults.iter_mut().find(|rule| rule.times > 0 && rule.on.matches(kind, key));
        let fault = hit.map(|rule| {
            rule.times -= u64::from(rule.times != u64::MAX);
            rule.fault.clone()
        });
        rules.faults.retain(|rule| rule.times > 0);
        let open = rules.gates.iter().filter(|(on, gate)| on.matches(kind, key) && !gate.passes.is_closed());
        Plan { latency: rules.latency, fault, gates: open.map(|(_, gate)| gate.clone()).collect() }
    }
}

impl Plan {
    /// Waits at the gates that stand at `place`.
    pub(super) async fn pass(&self, place: Place) {
        for gate in self.gates.iter().filter(|gate| gate.place == place) {
            gate.arrived.send_modify(|n| *n += 1);
            if let Ok(permit) = gate.passes.acquire().await {
                permit.forget();
            }
        }
    }
}

impl Gate {
    /// Waits until a request has come to the gate.
    pub async fn arrived(&self) {
        self.arrived_count(1).await;
    }

    /// Waits until `n` requests in all have come to the gate.
    pub async fn arrived_count(&self, n: usize) {
        let mut arrived = self.state.arrived.subscribe();
        // The sender lives in `self.state`, so the wait cannot fail.
        let _ = arrived.wait_for(|count| *count >= n).await;
    }

    /// How many requests have come so far.
    pub fn count(&self) -> usize {
        *self.state.arrived.borrow()
    }

    /// Lets `n` requests through and holds the others.
    pub fn pass(&self, n: usize) {
        self.state.passes.add_permits(n);
    }

    /// Lets everything through, now and later.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.passes.close();
    }
}

/// Log of the requests that came while the server was up.
#[derive(Clone)]
pub struct Requests(Arc<watch::Sender<Log>>);

#[derive(Default)]
struct Log {
    counts: BTreeMap<Kind, u64>,
    recent: VecDeque<(Kind, String)>,
}

impl Requests {
    pub(super) fn new() -> Requests {
        Requests(Arc::new(watch::Sender::new(Log::default())))
    }

    pub(super) fn record(&self, kind: Kind, key: &str) {
        self.0.send_modify(|log| {
            *log.counts.entry(kind).or_default() += 1;
            if log.recent.len() == LOGGED_REQUESTS {
                log.recent.pop_front();
            }
            log.recent.push_back((kind, key.to_owned()));
        });
    }

    /// Requests of `kind` since the start or the last `reset`.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.borrow().counts.get(&kind).copied().unwrap_or_default()
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.0.borrow().counts.clone()
    }

    /// Requests of every kind.
    pub fn total(&self) -> u64 {
        self.0.borrow().counts.values().sum()
    }

    /// The last requests with their keys, oldest first.
    pub fn recent(&self) -> Vec<(Kind, String)> {
        self.0.borrow().recent.iter().cloned().collect()
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        self.0.send_modify(|log| *log = Log::default());
    }

    /// Waits until `n` requests of `kind` have come since the start or the last `reset`.
    pub async fn reached(&self, kind: Kind, n: u64) {
        let mut log = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = log.wait_for(|log| log.counts.get(&kind).copied().unwrap_or_default() >= n).await;
    }
}
