//! Who is connected and how often each procedure was called.
//! Invariant: counting is a plain add to memory that one connection alone writes; readers add up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Programs;

/// Procedures that are counted by number; no program that is served has more.
const PROCEDURES: usize = 32;

/// Counts of a server, shared by all its listeners.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Registry>);

/// A moment's counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Open connections.
    pub connections: usize,
    /// Addresses they come from.
    pub clients: usize,
    /// Calls by program and procedure since the start, in order; those never called are left out.
    pub calls: Vec<(u32, u32, u64)>,
}

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    live: HashMap<u64, Arc<Counters>>,
    /// Counts of closed connections.
    retired: BTreeMap<(u32, u32), u64>,
}

/// Counts of one connection, or of all datagrams of a socket.
struct Counters {
    /// `None` for a socket, which has many.
    peer: Option<IpAddr>,
    programs: Programs,
    calls: Box<[[AtomicU64; PROCEDURES]]>,
}

impl Stats {
    /// Adds up.
    pub fn snapshot(&self) -> CallCounts {
        let registry = self.0.lock();
        let mut calls = registry.retired.clone();
        registry.live.values().for_each(|c| c.add_to(&mut calls));
        let peers: Vec<IpAddr> = registry.live.values().filter_map(|c| c.peer).collect();
        CallCounts {
            connections: peers.len(),
            clients: peers.iter().collect::<HashSet<_>>().len(),
            calls: calls.into_iter().map(|((program, procedure), n)| (program, procedure, n)).collect(),
        }
    }

    /// Registers a connection for as long as the tally lives.
    pub(super) fn connect(self: &Arc<Self>, peer: IpAddr, programs: &Programs) -> Tally {
        self.register(Some(peer), programs)
    }

    /// Registers a socket for datagrams for as long as the tally lives.
    pub(super) fn datagrams(self: &Arc<Self>, programs: &Programs) -> Tally {
        self.register(None, programs)
    }

    fn register(self: &Arc<Self>, peer: Option<IpAddr>, programs: &Programs) -> Tally {
        let calls = programs.entries.iter().map(|_| [const { AtomicU64::new(0) }; PROCEDURES]).collect();
        let counters = Arc::new(Counters { peer, programs: programs.clone(), calls });
        let mut registry = self.0.lock();
        registry.next += 1;
        let id = registry.next;
        registry.live.insert(id, counters.clone());
        Tally { stats: self.clone(), id, counters }
    }
}

impl Counters {
    fn add_to(&self, totals: &mut BTreeMap<(u32, u32), u64>) {
        for (entry, calls) in self.programs.entries.iter().zip(&self.calls) {
            for (procedure, n) in (0..).zip(calls) {
                let n = n.load(Ordering::Relaxed);
                if n > 0 {
                    *totals.entry((entry.number, procedure)).or_default() += n;
                }
            }
        }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counters({:?})", self.peer)
    }
}

/// A connection's own counters.
#[derive(Debug)]
pub(super) struct Tally {
    stats: Arc<Stats>,
    id: u64,
    counters: Arc<Counters>,
}

impl Tally {
    /// A number that no other connection of these counts has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Counts a call to the program at `place` of the list. Only this connection writes, so no atomic add is needed.
    pub(super) fn count(&self, place: usize, procedure: u32) {
        let cell = self.counters.calls.get(place).and_then(|calls| calls.get(procedure as usize));
        if let Some(cell) = cell {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut registry = self.stats.0.lock();
        registry.live.remove(&self.id);
        self.counters.add_to(&mut registry.retired);
    }
}
