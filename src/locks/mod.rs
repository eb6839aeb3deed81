//! Locks between clients: the byte ranges and shares that they hold, who waits for one, which clients are to be told
//! after a restart. All of it is in memory but the list of clients, as network lock managers have it: after a restart
//! the clients reclaim what they had, in a grace period in which nobody gets anything new. Advisory: nothing here is
//! asked by a READ or WRITE.
//!
//! Owns: the table `lock_hosts` of the index and the monitor's state number there, written by `keep` alone. Knows no wire
//! types; `nfs/nlm` and `nfs/nsm` are its protocol.
//!
//! Invariants
//! - One short lock, never held across an await. No call waits for anything but the note of a client's first lock.
//! - What a client can have us hold is bounded by `Limits`: locks, waiters and shares by file, client and in all; clients.
//! - A client is durably noted before it is told that it has its first lock, and until it has had none for a while.
//! - Every wait ends: by an offer, a cancel, or the client's end; an offer that is not taken goes to the next.

mod file;
mod held;
mod hosts;
mod keep;
mod range;
mod state;
#[cfg(test)]
mod tests;
mod waits;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use range::Range;

pub use crate::index::LockHost;
use crate::types::{Clock, Tick};
use hosts::Noted;
use state::State;

/// What clients can have us hold. `Default` has the reasons.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Locks, waiters and shares of one file.
    pub per_file: usize,
    /// Of one client.
    pub per_host: usize,
    /// In all.
    pub total: usize,
    /// Waiters of one file.
    pub waiting_per_file: usize,
    /// Waiters in all.
    pub waiting: usize,
    /// Clients.
    pub hosts: usize,
}

/// 4,096 runs: more than any database takes of a file, and few enough that looking through them takes microseconds.
const PER_FILE: usize = 4096;
/// 16,384: a fourth of all there are.
const PER_HOST: usize = 16_384;
/// 65,536 of about 50 bytes each.
const TOTAL: usize = 65_536;
/// 512: what falls free is looked at for each of them.
const WAITING_PER_FILE: usize = 512;
/// 4,096: each may keep two handles of some hundred bytes.
const WAITING: usize = 4096;
/// 1,024: as many as have their replies kept.
const HOSTS: usize = 1024;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            per_file: PER_FILE,
            per_host: PER_HOST,
            total: TOTAL,
            waiting_per_file: WAITING_PER_FILE,
            waiting: WAITING,
            hosts: HOSTS,
        }
    }
}

/// A client's number, while it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct HostId(u64);

/// Who holds a lock: a process, or whatever a client counts as one, of a client. Its `oh` is not looked at: some
/// clients send another one with each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Owner {
    host: HostId,
    svid: u32,
}

impl Owner {
    /// All owners of a host.
    fn all_of(host: HostId) -> RangeInclusive<Owner> {
        Owner { host, svid: 0 }..=Owner { host, svid: u32::MAX }
    }
}

/// A lock that is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Number of the file.
    pub file: u64,
    /// Who of the client asks.
    pub svid: u32,
    /// What of the file.
    pub range: Range,
    /// For writing, rather than reading.
    pub exclusive: bool,
    /// What to tell when it is to be had, by who waits for that; `None` from who does not wait.
    pub block: Option<Asked>,
}

/// What the one who waits is told word for word when its turn has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The file's handle.
    pub handle: Box<[u8]>,
    /// `oh`: the owner in the client's words.
    pub owner: Box<[u8]>,
    /// Offset as it was asked for.
    pub offset: u64,
    /// Length as it was asked for.
    pub len: u64,
    /// It asked by a message, and is to be told by one.
    pub by_message: bool,
}

/// How a LOCK ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// The caller has it.
    Granted,
    /// Somebody else has it.
    Denied,
    /// The caller waits for it, and will be told.
    Blocked,
    /// The caller would wait for itself.
    Deadlock,
    /// Too many locks.
    NoRoom,
    /// Only what was held before the restart can be had now; or that was asked for, and it is too late.
    Grace,
    /// The client is to be `note`d first.
    Unnoted,
}

/// What a TEST finds in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who of its client holds it.
    pub svid: u32,
    /// Where.
    pub range: Range,
    /// For writing, rather than reading.
    pub exclusive: bool,
}

/// A lock that is kept free for who waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its number.
    pub id: u64,
    /// The client.
    pub host: LockHost,
    /// Who of it.
    pub svid: u32,
    /// For writing, rather than reading.
    pub exclusive: bool,
    /// What it is to be told.
    pub asked: Asked,
}

/// How a file was opened, by who wants others kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// To read (1), to write (2).
    pub access: u8,
    /// Nobody else may read (1), write (2).
    pub deny: u8,
}

impl Share {
    fn conflicts(self, other: Share) -> bool {
        self.access & other.deny != 0 || self.deny & other.access != 0
    }
}

/// There are too many locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many locks")]
pub struct NoRoom;

/// Why something is not done during, or after, the grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("in the grace period after a restart")]
pub struct Grace;

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locked runs of bytes.
    pub locks: usize,
    /// Shares.
    pub shares: usize,
    /// Clients that have any, or wait.
    pub hosts: usize,
    /// Locks that somebody waits for, or is being told of.
    pub waiting: usize,
}

/// Numbers of offers begin anywhere, so that a late answer from before a restart is to none of ours.
fn first_id() -> u64 {
    let random = uuid::Uuid::new_v4().as_u128();
    u64::from(random as u32) << 31
}

/// The room. Share it behind an `Arc`; `keep` must run.
#[derive(Debug)]
pub struct Locks {
    state: Mutex<State>,
    limits: Limits,
    clock: Clock,
    /// Before it, only reclaims are granted.
    grace_ends: Tick,
    /// Clients that had locks when the server ended, not one of which may have come back yet.
    before: Mutex<Vec<LockHost>>,
    /// There is something for `keep` to write.
    to_note: Notify,
    /// Something was written, or could not be.
    noted: Notify,
    /// There are offers.
    offered: Notify,
}

impl Locks {
    /// Starts with the clients `before` that had locks when the server ended: where there were some, with a grace period.
    pub fn new(before: Vec<LockHost>, grace: Duration, limits: Limits, clock: Clock) -> Locks {
        let grace_ends = match before.is_empty() {
            true => Tick::NEVER,
            false => Tick(clock.now().0.saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))),
        };
        Locks {
            state: Mutex::new(State::new(limits, first_id())),
            limits,
            clock,
            grace_ends,
            before: Mutex::new(before),
            to_note: Notify::new(),
            noted: Notify::new(),
            offered: Notify::new(),
        }
    }

    /// Whether only reclaims are granted now.
    pub fn is_in_grace(&self) -> bool {
        self.clock.now() < self.grace_ends
    }

    fn outside_grace(&self) -> Result<(), Grace> {
        if self.is_in_grace() { Err(Grace) } else { Ok(()) }
    }

    /// TEST: what is in the way of a lock.
    pub fn test(
        &self,
        host: &LockHost,
        file: u64,
        svid: u32,
        range: Range,
        exclusive: bool,
    ) -> Result<Option<Holder>, Grace> {
        self.outside_grace()?;
        let state = self.state.lock();
        let owner = state.hosts.id(host).map(|host| Owner { host, svid });
        Ok(state.test(file, owner, range, exclusive))
    }

    /// LOCK, which may be a `reclaim` of what was held before the restart.
    pub fn lock(&self, host: &LockHost, ask: &Ask, reclaim: bool) -> Locked {
        if self.is_in_grace() != reclaim {
            return Locked::Grace;
        }
        let mut state = self.state.lock();
        match state.hosts.noted(host, self.clock.now()) {
            Some(id) => {
                let locked = state.lock(id, ask.clone());
                self.tell_of_offers(&state);
                locked
            }
            None => Locked::Unnoted,
        }
    }

    fn tell_of_offers(&self, state: &State) {
        if state.has_offers() {
            self.offered.notify_one();
        }
    }

    /// Waits until a client is durably noted, so that it can have locks.
    /// # Errors
    /// There are too many clients, or the index cannot write.
    pub async fn note(&self, host: &LockHost) -> Result<(), NoRoom> {
        loop {
            let noted = self.noted.notified();
            tokio::pin!(noted);
            noted.as_mut().enable();
            let wanted = self.state.lock().hosts.want(host, self.clock.now(), self.limits.hosts);
            match wanted {
                Some(Noted::Yes) => return Ok(()),
                Some(Noted::Failed) | None => return Err(NoRoom),
                Some(Noted::Wanted | Noted::Leaving) => self.to_note.notify_one(),
            }
            noted.await;
        }
    }

    /// UNLOCK of what the owner has in `range`, which may be nothing.
    /// # Errors
    /// `Grace`, as the owner may not have reclaimed yet what it lets go of; `NoRoom` for a split.
    pub fn unlock(&self, host: &LockHost, file: u64, svid: u32, range: Range) -> Result<Result<(), NoRoom>, Grace> {
        self.outside_grace()?;
        let mut state = self.state.lock();
        let Some(host) = state.hosts.id(host) else { return Ok(Ok(())) };
        let unlocked = state.unlock(file, Owner { host, svid }, range);
        self.tell_of_offers(&state);
        Ok(unlocked)
    }

    /// CANCEL of a wait, which may not be.
    pub fn cancel(&self, host: &LockHost, file: u64, svid: u32, range: Range, exclusive: bool) -> Result<(), Grace> {
        self.outside_grace()?;
        let mut state = self.state.lock();
        if let Some(host) = state.hosts.id(host) {
            state.cancel(file, Owner { host, svid }, range, exclusive);
            self.tell_of_offers(&state);
        }
        Ok(())
    }

    /// SHARE, of `owner` in the client's words.
    pub fn share(&self, host: &LockHost, file: u64, owner: &[u8], share: Share, reclaim: bool) -> Locked {
        if self.is_in_grace() != reclaim {
            return Locked::Grace;
        }
        let mut state = self.state.lock();
        let Some(host) = state.hosts.noted(host, self.clock.now()) else { return Locked::Unnoted };
        match state.share(host, file, owner, share) {
            Ok(true) => Locked::Granted,
            Ok(false) => Locked::Denied,
            Err(NoRoom) => Locked::NoRoom,
        }
    }

    /// UNSHARE of what may not be there.
    pub fn unshare(&self, host: &LockHost, file: u64, owner: &[u8]) -> Result<(), Grace> {
        self.outside_grace()?;
        let mut state = self.state.lock();
        if let Some(host) = state.hosts.id(host) {
            state.unshare(host, file, owner);
        }
        Ok(())
    }

    /// Frees all that the client at `address` has that was started anew under this name; how many clients that were.
    pub fn rebooted(&self, name: &[u8], address: IpAddr) -> usize {
        let mut state = self.state.lock();
        let freed = state.rebooted(name, address);
        self.tell_of_offers(&state);
        freed
    }

    /// Waits until there may be offers, and takes them. For one at a time.
    pub async fn offers(&self) -> Vec<Offer> {
        loop {
            let offers = self.state.lock().take_offers();
            if !offers.is_empty() {
                return offers;
            }
            self.offered.notified().await;
        }
    }

    /// Whether an offer is neither taken nor refused.
    pub fn is_offered(&self, id: u64) -> bool {
        self.state.lock().is_offered(id)
    }

    /// The client at `address` says whether it takes what it was offered.
    pub fn answered(&self, id: u64, address: IpAddr, takes_it: bool) {
        let mut state = self.state.lock();
        if state.offer(id).is_some_and(|offer| offer.host.address == address) {
            if takes_it {
                state.accept(id)
            } else {
                state.refuse(id)
            }
            self.tell_of_offers(&state);
        }
    }

    /// The client knows that it has what it was offered.
    pub fn accept(&self, id: u64) {
        let mut state = self.state.lock();
        state.accept(id);
        self.tell_of_offers(&state);
    }

    /// The client does not want what it was offered, or does not answer.
    pub fn refuse(&self, id: u64) {
        let mut state = self.state.lock();
        state.refuse(id);
        self.tell_of_offers(&state);
    }

    /// The clients that had locks when the server ended, and are to be told of its start.
    pub fn to_notify(&self) -> Vec<LockHost> {
        self.before.lock().clone()
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts()
    }
}
