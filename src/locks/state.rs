//! The table itself: what is locked, by whom, who waits. Knows neither time nor tasks; `Locks` puts it behind its lock.
//!
//! A lock that falls free is not given to a waiter but *offered*: kept free for it until it takes the lock (it answered
//! that it knows, or asked again) or lets it go. Nothing of what the waiter holds besides is touched before that.
//!
//! Who gets it: the one who has waited longest of those who can have it. Who would block anyway lines up behind a
//! waiter of another host, too, so that no stream of readers starves a writer (`waits.rs` says when not). Who asks
//! without wanting to wait is told about what is locked, as POSIX has it, and never lines up.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::file::{File, Opened, Waiter};
use super::held::Run;
use super::hosts::Hosts;
use super::{Ask, Asked, Counts, Holder, HostId, Limits, Locked, NoRoom, Offer, Owner, Range, Share};

#[derive(Debug, Default)]
pub(super) struct State {
    limits: Limits,
    pub(super) files: HashMap<u64, File>,
    pub(super) hosts: Hosts,
    /// The waiters to whom nothing is offered: file and number.
    pub(super) waiting: BTreeMap<Owner, Vec<(u64, u64)>>,
    /// The file of each waiter to whom something is offered.
    offered: HashMap<u64, u64>,
    /// Offers that nobody has fetched yet.
    fresh: Vec<u64>,
    held: usize,
    waiters: usize,
    shares: usize,
    last_id: u64,
}

impl State {
    /// An empty table, whose waiters get numbers after `last_id`.
    pub(super) fn new(limits: Limits, last_id: u64) -> State {
        State { limits, last_id, ..State::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { locks: self.held, shares: self.shares, hosts: self.hosts.busy(), waiting: self.waiters }
    }

    /// A lock that is in the way of one; `owner` is `None` for a host that has nothing.
    pub(super) fn test(&self, file: u64, owner: Option<Owner>, range: Range, exclusive: bool) -> Option<Holder> {
        let run = self.files.get(&file)?.conflict(owner, range, exclusive)?;
        Some(Holder { svid: run.owner.svid, range: run.range, exclusive: run.exclusive })
    }

    /// LOCK.
    pub(super) fn lock(&mut self, host: HostId, ask: Ask) -> Locked {
        let owner = Owner { host, svid: ask.svid };
        let run = Run { range: ask.range, owner, exclusive: ask.exclusive };
        let file = ask.file;
        if let Some(answer) = self.ask_again(file, &run, &ask.block) {
            return answer;
        }
        let entry = self.files.entry(file).or_default();
        if entry.held.covers(owner, run.range, run.exclusive) {
            return Locked::Granted;
        }
        let is_locked = entry.conflict(Some(owner), run.range, run.exclusive).is_some();
        let place = entry.waiters.len();
        let answer = match ask.block {
            None if is_locked => Locked::Denied,
            Some(_) if is_locked && self.is_deadlock(file, &run) => Locked::Deadlock,
            Some(asked) if is_locked || self.is_held_back(file, place, &run) => self.enqueue(file, run, asked),
            _ => self.take(file, run),
        };
        self.tidy(file);
        answer
    }

    /// The answer to who waits for just this already; `None` when nobody does.
    fn ask_again(&mut self, file: u64, run: &Run, block: &Option<Asked>) -> Option<Locked> {
        let place = self.files.get(&file)?.place_of(run)?;
        // what held it back may have gone without a word
        self.offer_what_is_free(file);
        let entry = self.files.get_mut(&file)?;
        let waiter = entry.waiters.get_mut(place)?;
        let id = waiter.id;
        if waiter.offered {
            self.accept(id);
            return Some(Locked::Granted);
        }
        if let Some(asked) = block {
            waiter.asked = asked.clone();
            return Some(Locked::Blocked);
        }
        if entry.conflict(Some(run.owner), run.range, run.exclusive).is_some() {
            return Some(Locked::Denied);
        }
        self.remove_waiter(file, place);
        Some(self.take(file, *run))
    }

    /// Gives a lock that nothing is in the way of.
    fn take(&mut self, file: u64, run: Run) -> Locked {
        match self.change(file, run.owner, run.range, Some(run.exclusive), true) {
            Ok(()) => {
                // it may have been an exclusive one before
                self.offer_what_is_free(file);
                Locked::Granted
            }
            Err(NoRoom) => Locked::NoRoom,
        }
    }

    /// UNLOCK of what `owner` has in `range`, which may be nothing.
    pub(super) fn unlock(&mut self, file: u64, owner: Owner, range: Range) -> Result<(), NoRoom> {
        let Some(entry) = self.files.get(&file) else { return Ok(()) };
        // it knows of what was offered, though its answer is not here yet
        let known = entry.waiters.iter().filter(|w| w.offered && w.run.owner == owner && w.run.range.overlaps(range));
        for id in known.map(|waiter| waiter.id).collect::<Vec<_>>() {
            self.accept(id);
        }
        let changed = self.change(file, owner, range, None, true);
        self.offer_what_is_free(file);
        self.tidy(file);
        changed
    }

    /// CANCEL: who waited, or does not want what is offered, waits no more.
    pub(super) fn cancel(&mut self, file: u64, owner: Owner, range: Range, exclusive: bool) {
        let run = Run { range, owner, exclusive };
        if let Some(place) = self.files.get(&file).and_then(|entry| entry.place_of(&run)) {
            self.remove_waiter(file, place);
            self.offer_what_is_free(file);
            self.tidy(file);
        }
    }

    /// Who was offered lock `id` has taken it. Nothing, when that is settled.
    pub(super) fn accept(&mut self, id: u64) {
        let Some(file) = self.offered.get(&id).copied() else { return };
        let place = self.files.get(&file).and_then(|entry| entry.waiters.iter().position(|waiter| waiter.id == id));
        let Some(run) = place.and_then(|place| self.remove_waiter(file, place)) else { return };
        // it had room as a waiter; the two that a split may add are not worth a refusal after the fact
        let unbounded = self.change(file, run.owner, run.range, Some(run.exclusive), false);
        debug_assert!(unbounded.is_ok());
        self.offer_what_is_free(file);
    }

    /// Who was offered lock `id` does not want it, or is not there. Nothing, when that is settled.
    pub(super) fn refuse(&mut self, id: u64) {
        let Some(file) = self.offered.get(&id).copied() else { return };
        let place = self.files.get(&file).and_then(|entry| entry.waiters.iter().position(|waiter| waiter.id == id));
        if let Some(place) = place {
            self.remove_waiter(file, place);
            self.offer_what_is_free(file);
            self.tidy(file);
        }
    }

    /// Whether who was offered lock `id` is still to be told.
    pub(super) fn is_offered(&self, id: u64) -> bool {
        self.offered.contains_key(&id)
    }

    /// What was offered since the last call.
    pub(super) fn take_offers(&mut self) -> Vec<Offer> {
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().filter_map(|id| self.offer(id)).collect()
    }

    /// What a waiter is offered.
    pub(super) fn offer(&self, id: u64) -> Option<Offer> {
        let waiter = self.files.get(self.offered.get(&id)?)?.waiters.iter().find(|waiter| waiter.id == id)?;
        let host = self.hosts.host(waiter.run.owner.host)?.key.clone();
        let Waiter { run, asked, .. } = waiter;
        Some(Offer { id, host, svid: run.owner.svid, exclusive: run.exclusive, asked: asked.clone() })
    }

    pub(super) fn has_offers(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// SHARE: false when somebody else's is in the way.
    pub(super) fn share(&mut self, host: HostId, file: u64, owner: &[u8], share: Share) -> Result<bool, NoRoom> {
        let has_room = self.has_room(host);
        let entry = self.files.entry(file).or_default();
        let is_ours = |opened: &Opened| opened.host == host && *opened.owner == *owner;
        let answer = if entry.shares.iter().any(|opened| !is_ours(opened) && opened.share.conflicts(share)) {
            Ok(false)
        } else if let Some(opened) = entry.shares.iter_mut().find(|opened| is_ours(opened)) {
            opened.share = share;
            Ok(true)
        } else if has_room && entry.len() < self.limits.per_file {
            entry.shares.push(Opened { host, owner: owner.into(), share });
            self.shares += 1;
            self.hosts.host_mut(host).into_iter().for_each(|host| host.shares += 1);
            Ok(true)
        } else {
            Err(NoRoom)
        };
        self.tidy(file);
        answer
    }

    /// UNSHARE of what may not be there.
    pub(super) fn unshare(&mut self, host: HostId, file: u64, owner: &[u8]) {
        let Some(entry) = self.files.get_mut(&file) else { return };
        let before = entry.shares.len();
        entry.shares.retain(|opened| opened.host != host || *opened.owner != *owner);
        let gone = before - entry.shares.len();
        self.shares -= gone;
        self.hosts.host_mut(host).into_iter().for_each(|host| host.shares -= gone);
        self.tidy(file);
    }

    /// Frees all that the host of this name has that was started anew; how many hosts that were.
    pub(super) fn rebooted(&mut self, name: &[u8], address: IpAddr) -> usize {
        let hosts = self.hosts.named(name, address);
        hosts.iter().for_each(|host| self.free(*host));
        hosts.len()
    }

    /// Frees all that `host` has, and wants.
    pub(super) fn free(&mut self, host: HostId) {
        let files: Vec<u64> = self.files.keys().copied().collect();
        for file in files {
            let Some(entry) = self.files.get_mut(&file) else { continue };
            self.held -= entry.held.retain(|owner| owner.host != host);
            let shares = entry.shares.len();
            entry.shares.retain(|opened| opened.host != host);
            self.shares -= shares - entry.shares.len();
            let theirs = |waiter: &Waiter| waiter.run.owner.host == host;
            while let Some(place) = self.files.get(&file).and_then(|entry| entry.waiters.iter().position(theirs)) {
                self.remove_waiter(file, place);
            }
            self.offer_what_is_free(file);
            self.tidy(file);
        }
        if let Some(host) = self.hosts.host_mut(host) {
            (host.held, host.waiting, host.shares) = (0, 0, 0);
        }
    }

    /// Changes what `owner` holds.
    fn change(
        &mut self,
        file: u64,
        owner: Owner,
        range: Range,
        exclusive: Option<bool>,
        is_bounded: bool,
    ) -> Result<(), NoRoom> {
        let (has_room, per_file) = (self.has_room(owner.host), self.limits.per_file);
        let entry = self.files.entry(file).or_default();
        let changed = entry.held.changed(owner, range, exclusive);
        let (before, after) = (entry.held.len(), changed.len());
        if is_bounded && after > before && !(has_room && entry.len() < per_file) {
            return Err(NoRoom);
        }
        entry.held = changed;
        self.held = self.held + after - before;
        self.hosts.host_mut(owner.host).into_iter().for_each(|host| host.held = host.held + after - before);
        Ok(())
    }

    /// Whether a host may have another lock, wait for another, or open another file.
    fn has_room(&self, host: HostId) -> bool {
        let of_host = self.hosts.host(host).map_or(0, |host| host.held + host.waiting + host.shares);
        of_host < self.limits.per_host && self.held + self.waiters + self.shares < self.limits.total
    }

    fn enqueue(&mut self, file: u64, run: Run, asked: Asked) -> Locked {
        let has_room = self.has_room(run.owner.host) && self.waiters < self.limits.waiting;
        let Limits { per_file, waiting_per_file, .. } = self.limits;
        let fits = |entry: &&mut File| entry.len() < per_file && entry.waiters.len() < waiting_per_file;
        let Some(entry) = self.files.get_mut(&file).filter(|entry| has_room && fits(entry)) else {
            return Locked::NoRoom;
        };
        self.last_id += 1;
        let id = self.last_id;
        entry.waiters.push(Waiter { id, run, offered: false, asked });
        self.waiting.entry(run.owner).or_default().push((file, id));
        self.waiters += 1;
        self.hosts.host_mut(run.owner.host).into_iter().for_each(|host| host.waiting += 1);
        Locked::Blocked
    }

    /// Takes a waiter out of the line, whatever it waits for.
    fn remove_waiter(&mut self, file: u64, place: usize) -> Option<Run> {
        let entry = self.files.get_mut(&file)?;
        let waiter = entry.waiters.remove(place);
        let owner = waiter.run.owner;
        self.offered.remove(&waiter.id);
        self.forget_wait(owner, waiter.id);
        self.waiters -= 1;
        self.hosts.host_mut(owner.host).into_iter().for_each(|host| host.waiting -= 1);
        Some(waiter.run)
    }

    fn forget_wait(&mut self, owner: Owner, id: u64) {
        if let Some(waits) = self.waiting.get_mut(&owner) {
            waits.retain(|(_, waiting)| *waiting != id);
            if waits.is_empty() {
                self.waiting.remove(&owner);
            }
        }
    }

    /// Offers each waiter of a file, in order, what it can have now.
    fn offer_what_is_free(&mut self, file: u64) {
        let waiters = self.files.get(&file).map_or(0, |entry| entry.waiters.len());
        for place in 0..waiters {
            let Some(entry) = self.files.get(&file) else { return };
            let Waiter { id, run, offered, .. } = entry.waiters[place];
            let is_locked = || entry.conflict(Some(run.owner), run.range, run.exclusive).is_some();
            if offered || is_locked() || self.is_held_back(file, place, &run) {
                continue;
            }
            if let Some(entry) = self.files.get_mut(&file) {
                entry.waiters[place].offered = true;
            }
            self.forget_wait(run.owner, id);
            self.offered.insert(id, file);
            self.fresh.push(id);
        }
    }

    fn tidy(&mut self, file: u64) {
        if self.files.get(&file).is_some_and(File::is_empty) {
            self.files.remove(&file);
        }
    }
}
