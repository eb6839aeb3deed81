//! The clients that hold locks, or want some. Each has to be noted durably before it gets its first lock: after a restart
//! it must be told to reclaim what it had.
//! Invariant: a host that holds, waits for, or has opened anything is `Noted`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::HostId;
use crate::index::LockHost;
use crate::types::Tick;

/// How long a host without locks stays noted: one that locks and unlocks every second costs no write each time.
pub(super) const LINGER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) key: LockHost,
    /// Locked runs.
    pub(super) held: usize,
    pub(super) waiting: usize,
    pub(super) shares: usize,
    pub(super) noted: Noted,
    /// When it last asked for something.
    heard: Tick,
}

/// What the index knows of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing, and somebody waits until it does.
    Wanted,
    /// It is there.
    Yes,
    /// It is being removed.
    Leaving,
    /// The index could not write.
    Failed,
}

/// What the index is to be told.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) add: Vec<(HostId, LockHost)>,
    pub(super) remove: Vec<(HostId, LockHost)>,
}

#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_key: HashMap<LockHost, HostId>,
    by_id: HashMap<HostId, Host>,
    last: u64,
}

impl Host {
    fn is_idle(&self) -> bool {
        self.held == 0 && self.waiting == 0 && self.shares == 0
    }
}

impl Hosts {
    /// Those that have something.
    pub(super) fn busy(&self) -> usize {
        self.by_id.values().filter(|host| !host.is_idle()).count()
    }

    pub(super) fn id(&self, key: &LockHost) -> Option<HostId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn host(&self, id: HostId) -> Option<&Host> {
        self.by_id.get(&id)
    }

    pub(super) fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.by_id.get_mut(&id)
    }

    /// The host, if it may have locks already.
    pub(super) fn noted(&mut self, key: &LockHost, now: Tick) -> Option<HostId> {
        let id = self.id(key)?;
        let host = self.by_id.get_mut(&id).filter(|host| host.noted == Noted::Yes)?;
        host.heard = now;
        Some(id)
    }

    /// Has the host be noted; how far that is. `None`: there is no room for another.
    pub(super) fn want(&mut self, key: &LockHost, now: Tick, most: usize) -> Option<Noted> {
        if let Some(host) = self.id(key).and_then(|id| self.by_id.get_mut(&id)) {
            host.heard = now;
            let noted = host.noted;
            match noted {
                Noted::Leaving => host.noted = Noted::Wanted,
                // it has nothing, and whoever asks next has the index tried again
                Noted::Failed => self.forget(key),
                Noted::Wanted | Noted::Yes => {}
            }
            return Some(if noted == Noted::Leaving { Noted::Wanted } else { noted });
        }
        if self.by_id.len() >= most {
            return None;
        }
        self.last += 1;
        let id = HostId(self.last);
        let host = Host { key: key.clone(), held: 0, waiting: 0, shares: 0, noted: Noted::Wanted, heard: now };
        self.by_key.insert(key.clone(), id);
        self.by_id.insert(id, host);
        Some(Noted::Wanted)
    }

    /// What the index is to be told now. `is_end`: all that is idle goes.
    pub(super) fn notes(&mut self, now: Tick, is_end: bool) -> Notes {
        let mut notes = Notes::default();
        for (id, host) in &mut self.by_id {
            let is_old = host.is_idle() && (is_end || now.since(host.heard) >= LINGER);
            match host.noted {
                Noted::Wanted => notes.add.push((*id, host.key.clone())),
                Noted::Yes | Noted::Failed if is_old => {
                    host.noted = Noted::Leaving;
                    notes.remove.push((*id, host.key.clone()));
                }
                Noted::Yes | Noted::Leaving | Noted::Failed => {}
            }
        }
        notes
    }

    /// The index has been told, or could not be.
    pub(super) fn told(&mut self, notes: &Notes, is_written: bool) {
        for (id, _) in &notes.add {
            if let Some(host) = self.by_id.get_mut(id) {
                host.noted = if is_written { Noted::Yes } else { Noted::Failed };
            }
        }
        for (id, key) in &notes.remove {
            // one that was wanted again meanwhile is noted again
            if self.by_id.get(id).is_some_and(|host| host.noted == Noted::Leaving) {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: &LockHost) {
        if let Some(id) = self.by_key.remove(key) {
            self.by_id.remove(&id);
        }
    }

    /// When the next host may be forgotten.
    pub(super) fn next_end(&self) -> Option<Tick> {
        let idle = self.by_id.values().filter(|host| host.is_idle() && host.noted != Noted::Wanted);
        idle.map(|host| Tick(host.heard.0 + LINGER.as_millis() as u64)).min()
    }

    /// Which hosts have started anew, when one at `address` says so under this name.
    ///
    /// Those at the address whose own name is that one, or is until its first dot. Where none is called so, a single
    /// one at that address; where nobody is at that address (a client with several), a single one of just that name.
    pub(super) fn named(&self, name: &[u8], address: IpAddr) -> Vec<HostId> {
        let ids = |matches: &dyn Fn(&LockHost) -> bool| -> Vec<HostId> {
            self.by_key.iter().filter(|(key, _)| matches(key)).map(|(_, id)| *id).collect()
        };
        let here = ids(&|key| key.address == address);
        let alike = ids(&|key| key.address == address && is_alike(&key.name, name));
        if here.is_empty() {
            let elsewhere = ids(&|key| key.name.eq_ignore_ascii_case(name));
            return if self.is_one(&elsewhere) { elsewhere } else { Vec::new() };
        }
        if alike.is_empty() && (self.is_one(&here) || is_address(name, address)) { here } else { alike }
    }

    /// Whether these are one client, which may have mounted several of our addresses.
    fn is_one(&self, ids: &[HostId]) -> bool {
        let mut keys = ids.iter().filter_map(|id| self.host(*id)).map(|host| (&host.key.address, &host.key.name));
        let first = keys.next();
        keys.all(|key| Some(key) == first)
    }
}

/// Whether two names mean one host: with or without its domain.
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    let host = |name: &[u8]| name.split(|byte| *byte == b'.').next().unwrap_or_default().to_ascii_lowercase();
    let has_domain = |name: &[u8]| name.contains(&b'.');
    one.eq_ignore_ascii_case(other) || (has_domain(one) != has_domain(other) && host(one) == host(other))
}

fn is_address(name: &[u8], address: IpAddr) -> bool {
    std::str::from_utf8(name).ok().and_then(|name| name.parse::<IpAddr>().ok()) == Some(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(address: &str, name: &str) -> LockHost {
        LockHost { address: address.parse().unwrap(), server: [10, 0, 0, 100].into(), name: name.as_bytes().into() }
    }

    fn hosts(keys: &[(&str, &str)]) -> Hosts {
        let mut hosts = Hosts::default();
        for (address, name) in keys {
            hosts.want(&key(address, name), Tick(1), 100).unwrap();
        }
        hosts
    }

    fn named(hosts: &Hosts, name: &str, address: &str) -> Vec<String> {
        let ids = hosts.named(name.as_bytes(), address.parse().unwrap());
        let mut names: Vec<_> =
            ids.iter().map(|id| String::from_utf8(hosts.host(*id).unwrap().key.name.to_vec()).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_rebooted_host_is_known_by_address_and_name() {
        let all = hosts(&[("10.0.0.1", "web"), ("10.0.0.2", "db.example.org"), ("10.0.0.9", "a"), ("10.0.0.9", "b")]);
        assert_eq!(named(&all, "web", "10.0.0.1"), ["web"]);
        assert_eq!(named(&all, "WEB.example.org", "10.0.0.1"), ["web"]);
        assert_eq!(named(&all, "db", "10.0.0.2"), ["db.example.org"]);
        assert_eq!(named(&all, "10.0.0.2", "10.0.0.2"), ["db.example.org"]);
        assert_eq!(named(&all, "b", "10.0.0.9"), ["b"], "others share its address");
        assert_eq!(named(&all, "c", "10.0.0.9"), [""; 0]);
        assert_eq!(named(&all, "10.0.0.9", "10.0.0.9"), ["a", "b"]);
        assert_eq!(named(&all, "db.example.org", "fe80::1"), ["db.example.org"], "it has another address, too");
        assert_eq!(named(&all, "stranger", "10.9.9.9"), [""; 0]);
    }

    #[test]
    fn a_name_that_two_hosts_have_frees_neither_from_elsewhere() {
        let all = hosts(&[("10.0.0.1", "localhost"), ("10.0.0.2", "localhost")]);
        assert_eq!(named(&all, "localhost", "10.0.0.3"), [""; 0]);
        assert_eq!(named(&all, "localhost", "10.0.0.2"), ["localhost"]);
    }

    #[test]
    fn a_host_without_locks_is_forgotten_after_a_while_unless_it_comes_back() {
        let mut hosts = hosts(&[("10.0.0.1", "web")]);
        let web = key("10.0.0.1", "web");
        assert_eq!(hosts.noted(&web, Tick(1)), None, "not yet durable");
        let notes = hosts.notes(Tick(1), false);
        hosts.told(&notes, true);
        assert!(hosts.noted(&web, Tick(1)).is_some());
        assert_eq!(hosts.next_end(), Some(Tick(60_001)));
        assert!(hosts.notes(Tick(60_000), false).remove.is_empty());
        let leaving = hosts.notes(Tick(60_001), false);
        assert_eq!(leaving.remove.len(), 1);
        assert_eq!(hosts.noted(&web, Tick(60_001)), None, "it may be gone from the index already");
        assert_eq!(hosts.want(&web, Tick(60_001), 100), Some(Noted::Wanted));
        hosts.told(&leaving, true);
        assert_eq!(hosts.notes(Tick(60_001), false).add.len(), 1);
        hosts.told(&hosts_notes(&web), true);
        let leaving = hosts.notes(Tick(200_000), false);
        hosts.told(&leaving, true);
        assert_eq!(hosts.id(&web), None);
    }

    fn hosts_notes(key: &LockHost) -> Notes {
        Notes { add: vec![(HostId(1), key.clone())], remove: Vec::new() }
    }
}
