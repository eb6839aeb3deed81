//! What a portmapper knows: the programs of this server, given at its construction, and those that others on this
//! machine registered with it.
//! Invariants: where both have a program, ours is the one that is told; nobody can change ours; at most `MAX_FOREIGN`
//! of others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use parking_lot::Mutex;

use super::address::Netid;
use crate::rpc::Transport;

/// 128: the kernel's lock manager registers 12, rpc.statd 4.
const MAX_FOREIGN: usize = 128;

/// One version of a program over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Program number.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// Transport.
    pub netid: Netid,
    /// Where it listens; an unspecified address stands for every one of this machine.
    pub addr: SocketAddr,
}

impl Service {
    /// A program that listens at `listen`, once for each address family that comes in there.
    pub fn at(listen: SocketAddr, transport: Transport, program: u32, version: u32) -> impl Iterator<Item = Service> {
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let ip = listen.ip();
        let taken = move |any: &IpAddr| any.is_ipv6() == ip.is_ipv6() || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        everywhere.into_iter().filter(taken).map(move |any| Service {
            program,
            version,
            netid: Netid::new(transport, any),
            addr: SocketAddr::new(if any.is_ipv6() == ip.is_ipv6() { ip } else { any }, listen.port()),
        })
    }

    /// Whether this is the same version of the same program over the same transport, wherever it listens.
    pub fn is_same(&self, other: &Service) -> bool {
        (self.program, self.version, self.netid) == (other.program, other.version, other.netid)
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Registry {
    ours: Vec<Service>,
    foreign: Mutex<Vec<Service>>,
}

impl Registry {
    pub(super) fn new(ours: Vec<Service>) -> Registry {
        Registry { ours, foreign: Mutex::default() }
    }

    /// All that is told, ours first.
    pub(super) fn all(&self) -> Vec<Service> {
        let hidden = |service: &&Service| self.ours.iter().any(|own| own.is_same(service));
        let foreign = self.foreign.lock();
        self.ours.iter().chain(foreign.iter().filter(|service| !hidden(service))).copied().collect()
    }

    /// Whether `service` is of this server.
    pub(super) fn is_ours(&self, service: &Service) -> bool {
        self.ours.contains(service)
    }

    /// Where a program is.
    pub(super) fn find(&self, program: u32, version: u32, netid: Netid) -> Option<Service> {
        self.all().into_iter().find(|s| (s.program, s.version, s.netid) == (program, version, netid))
    }

    /// What others registered, though ours may hide it.
    pub(super) fn foreign(&self, program: u32, version: u32, netid: Netid) -> Option<Service> {
        let foreign = self.foreign.lock();
        foreign.iter().find(|s| (s.program, s.version, s.netid) == (program, version, netid)).copied()
    }

    /// Enters what another program serves. Whether it is entered: not when it is somewhere else already.
    pub(super) fn set(&self, service: Service) -> bool {
        let mut foreign = self.foreign.lock();
        match foreign.iter().find(|known| known.is_same(&service)) {
            Some(known) => *known == service,
            None if foreign.len() >= MAX_FOREIGN => false,
            None => {
                foreign.push(service);
                true
            }
        }
    }

    /// Forgets what others registered. Whether there was any.
    pub(super) fn unset(&self, program: u32, version: u32, netids: &[Netid]) -> bool {
        let mut foreign = self.foreign.lock();
        let before = foreign.len();
        foreign.retain(|s| (s.program, s.version) != (program, version) || !netids.contains(&s.netid));
        foreign.len() < before
    }
}
