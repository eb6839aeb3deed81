//! Portmap v2 and rpcbind v3, v4 (RFC 1833): tells clients where the programs of this server are, and those that others
//! on this machine registered: with no portmapper of the system's own, this is it.
//! Registering is for root of this machine alone: from the loopback, by a reserved port. No call is ever forwarded
//! (CALLIT, BCAST, INDIRECT: how portmappers amplify).

pub mod address;
pub mod client;
mod registry;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Call, Handled, Outcome, Program, Tail, Transport};
use crate::types::Clock;
use address::{Netid, parse_universal, universal};
use registry::Registry;
pub use registry::Service;

/// Program number of the portmapper.
pub const PROGRAM: u32 = 100_000;
/// Portmap, and rpcbind as it was first and is now.
pub const VERSIONS: RangeInclusive<u32> = 2..=4;
/// Where a portmapper is looked for.
pub const PORT: u16 = 111;

/// Protocol numbers of portmap v2.
const TCP: u32 = 6;
const UDP: u32 = 17;
/// Longest network id, universal address or owner that is looked at.
const MAX_STRING: usize = 255;
/// Ports below are root's.
const FIRST_FREE_PORT: u16 = 1024;
/// Who registered what: all that is here is root's.
const OWNER: &str = "superuser";

/// The portmap program.
#[derive(Debug)]
pub struct Portmap {
    registry: Registry,
    clock: Clock,
}

/// `mapping` of v2.
struct Mapping {
    program: u32,
    version: u32,
    protocol: u32,
    port: u32,
}

/// `rpcb` of v3 and v4, without the owner, which nobody has to believe.
struct Binding<'a> {
    program: u32,
    version: u32,
    netid: &'a [u8],
    addr: &'a [u8],
}

impl Portmap {
    /// Tells where `services`, those of this server, are.
    pub fn new(services: Vec<Service>, clock: Clock) -> Portmap {
        Portmap { registry: Registry::new(services), clock }
    }

    /// Where another program of this machine listens that registered itself, even if this server has the same: how the
    /// lock manager of this machine's own NFS client is found.
    pub fn registered(&self, program: u32, version: u32, transport: Transport) -> Option<SocketAddr> {
        let found = Netid::ALL
            .into_iter()
            .filter(|netid| netid.transport() == transport)
            .find_map(|netid| self.registry.foreign(program, version, netid))?;
        let ip = match found.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Some(SocketAddr::new(ip, found.addr.port()))
    }

    /// Answers one call.
    fn answer(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Result<Outcome, Malformed> {
        let mut args = Reader::new(call.args);
        match (call.version, call.procedure) {
            (_, 0) => {}
            (2, 1) => {
                let wanted = mapping(&mut args)?;
                reply.put_bool(may_register(call) && self.set_mapping(&wanted));
            }
            (2, 2) => {
                let Mapping { program, version, .. } = mapping(&mut args)?;
                let known = [Netid::Tcp, Netid::Udp];
                reply.put_bool(may_register(call) && self.registry.unset(program, version, &known));
            }
            (2, 3) => reply.put_u32(self.port_of(&mapping(&mut args)?)),
            (2, 4) => self.dump_mappings(reply),
            (3 | 4, 1) => {
                let wanted = binding(&mut args)?;
                reply.put_bool(may_register(call) && self.set_binding(&wanted));
            }
            (3 | 4, 2) => {
                let wanted = binding(&mut args)?;
                reply.put_bool(may_register(call) && self.unset_binding(&wanted));
            }
            // GETADDR; v4 adds GETVERSADDR, which is the same for who never answers with another version
            (3 | 4, 3) | (4, 9) => reply.put_opaque(self.addr_of(&binding(&mut args)?, call).as_bytes()),
            (3 | 4, 4) => self.dump_bindings(reply),
            // GETTIME
            (3 | 4, 6) => {
                // seconds of 32 bits, as it is
                reply.put_u32(self.clock.wall().seconds() as u32);
            }
            _ => return Ok(Outcome::ProcedureUnavailable),
        }
        Ok(Outcome::Success)
    }

    /// SET of v2.
    fn set_mapping(&self, wanted: &Mapping) -> bool {
        let netid = match wanted.protocol {
            TCP => Netid::Tcp,
            UDP => Netid::Udp,
            _ => return false,
        };
        let Ok(port) = u16::try_from(wanted.port) else { return false };
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        self.set(Service { program: wanted.program, version: wanted.version, netid, addr })
    }

    /// SET of v3 and v4.
    fn set_binding(&self, wanted: &Binding<'_>) -> bool {
        let (Some(netid), Some(addr)) = (Netid::parse(wanted.netid), parse_universal(wanted.addr)) else {
            return false;
        };
        netid.fits(addr.ip()) && self.set(Service { program: wanted.program, version: wanted.version, netid, addr })
    }

    fn set(&self, service: Service) -> bool {
        service.program != PROGRAM && service.addr.port() != 0 && self.registry.set(service)
    }

    /// UNSET of v3 and v4; no network id means all.
    fn unset_binding(&self, wanted: &Binding<'_>) -> bool {
        let named = Netid::parse(wanted.netid).map(|netid| vec![netid]);
        let netids = if wanted.netid.is_empty() { Netid::ALL.to_vec() } else { named.unwrap_or_default() };
        self.registry.unset(wanted.program, wanted.version, &netids)
    }

    /// GETPORT: 0 for what is not here.
    fn port_of(&self, wanted: &Mapping) -> u32 {
        let found = Netid::ALL
            .into_iter()
            .filter(|netid| protocol(netid.transport()) == wanted.protocol)
            .find_map(|netid| self.registry.find(wanted.program, wanted.version, netid));
        found.map_or(0, |service| u32::from(service.addr.port()))
    }

    /// GETADDR: empty for what is not here. Who names no transport means the one it calls by.
    fn addr_of(&self, wanted: &Binding<'_>, call: &Call<'_>) -> String {
        let netid = Netid::parse(wanted.netid).unwrap_or_else(|| Netid::new(call.transport, call.local.ip()));
        let Some(found) = self.registry.find(wanted.program, wanted.version, netid) else { return String::new() };
        let ip = match found.addr.ip() {
            // ours may be reached by another address than we know of, through a NAT
            ip if ip.is_unspecified() || self.registry.is_ours(&found) => reached_by(wanted, call, netid).unwrap_or(ip),
            ip => ip,
        };
        universal(SocketAddr::new(ip, found.addr.port()))
    }

    /// DUMP of v2, which knows IPv4 alone: what is there too over IPv6 is told once.
    fn dump_mappings(&self, reply: &mut Vec<u8>) {
        for Service { program, version, netid, addr } in self.registry.all() {
            let v4 = Netid::new(netid.transport(), Ipv4Addr::UNSPECIFIED.into());
            if netid == v4 || self.registry.find(program, version, v4).is_none() {
                reply.put_bool(true);
                let mapping = [program, version, protocol(netid.transport()), u32::from(addr.port())];
                mapping.iter().for_each(|word| reply.put_u32(*word));
            }
        }
        reply.put_bool(false);
    }

    /// DUMP of v3 and v4.
    fn dump_bindings(&self, reply: &mut Vec<u8>) {
        for service in self.registry.all() {
            reply.put_bool(true);
            reply.put_u32(service.program);
            reply.put_u32(service.version);
            for text in [service.netid.name(), &universal(service.addr), OWNER] {
                reply.put_opaque(text.as_bytes());
            }
        }
        reply.put_bool(false);
    }
}

/// The address by which the caller has reached us: as it says itself, unless that is its own address (some clients
/// name that) or no address, or else the one that its call came in by.
fn reached_by(wanted: &Binding<'_>, call: &Call<'_>, netid: Netid) -> Option<IpAddr> {
    let said = parse_universal(wanted.addr).map(|addr| addr.ip());
    let is_ours = |ip: &IpAddr| !ip.is_unspecified() && (*ip != call.peer.ip() || *ip == call.local.ip());
    let candidates = [said.filter(is_ours), Some(call.local.ip())];
    candidates.into_iter().flatten().find(|ip| netid.fits(*ip) && !ip.is_unspecified())
}

/// Whether root of this machine calls: nobody else can use such a port, nor reach the loopback.
fn may_register(call: &Call<'_>) -> bool {
    call.peer.ip().is_loopback() && call.local.ip().is_loopback() && call.peer.port() < FIRST_FREE_PORT
}

/// The number that v2 has for a transport.
fn protocol(transport: Transport) -> u32 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

/// Decodes a `mapping`.
fn mapping(args: &mut Reader<'_>) -> Result<Mapping, Malformed> {
    Ok(Mapping { program: args.u32()?, version: args.u32()?, protocol: args.u32()?, port: args.u32()? })
}

/// Decodes an `rpcb`.
fn binding<'a>(args: &mut Reader<'a>) -> Result<Binding<'a>, Malformed> {
    let (program, version) = (args.u32()?, args.u32()?);
    let (netid, addr) = (args.opaque(MAX_STRING)?, args.opaque(MAX_STRING)?);
    args.opaque(MAX_STRING)?;
    Ok(Binding { program, version, netid, addr })
}

impl Program for Portmap {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSIONS
    }

    /// Those that change the table are not: a repeated UNSET would say that nothing was there.
    fn is_idempotent(&self, _version: u32, procedure: u32) -> bool {
        !matches!(procedure, 1 | 2)
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        Handled::Done(self.answer(call, reply).unwrap_or(Outcome::GarbageArgs), Tail::None)
    }
}
