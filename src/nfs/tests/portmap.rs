//! Portmap v2 and rpcbind v3, v4: what is told, to whom, and who may register.

use std::net::SocketAddr;
use std::time::Duration;

use nfs3_types::portmap::{IPPROTO_TCP, IPPROTO_UDP, mapping, pmaplist};

use super::*;
use crate::nfs::portmap::{Portmap, Service};
use crate::rpc::xdr::{Reader, Write};
use crate::types::Clock;

const PORT: u16 = 2050;
const STRANGER: &str = "192.0.2.7:700";
const ROOT: &str = "127.0.0.1:700";
const LOCKD: u32 = 100_021;

/// That of a server that listens everywhere.
fn portmap() -> Portmap {
    at("[::]:2050")
}

fn at(listen: &str) -> Portmap {
    let listen = listen.parse().unwrap();
    let served = [(100_003, 3, Transport::Tcp), (100_005, 3, Transport::Tcp), (100_005, 3, Transport::Udp)];
    let services = served.map(|(program, version, transport)| Service::at(listen, transport, program, version));
    Portmap::new(services.into_iter().flatten().collect(), Clock::manual())
}

/// A call from `peer`, which reaches the loopback by it and else the address that strangers do.
fn call_from(peer: &str, portmap: &Portmap, version: u32, procedure: u32, args: &[u8]) -> (Outcome, Vec<u8>) {
    let peer: SocketAddr = peer.parse().unwrap();
    let local =
        if peer.ip().is_loopback() { SocketAddr::new(peer.ip(), 111) } else { "192.0.2.1:111".parse().unwrap() };
    let (credentials, transport) = (user(0), Transport::Udp);
    let call = Call { version, procedure, credentials: &credentials, peer, local, transport, grant: Grant::ALL, args };
    let mut reply = Vec::new();
    match portmap.call(&call, &mut reply) {
        Handled::Done(outcome, Tail::None) => (outcome, reply),
        _ => panic!("all is answered at once"),
    }
}

/// The result of a call that is answered.
#[track_caller]
fn ask(peer: &str, portmap: &Portmap, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let (outcome, reply) = call_from(peer, portmap, version, procedure, args);
    assert_eq!(outcome, Outcome::Success);
    reply
}

fn port(portmap: &Portmap, prog: u32, vers: u32, prot: u32) -> u32 {
    unpack(&ask(STRANGER, portmap, 2, 3, &pack(&mapping { prog, vers, prot, port: 0 })))
}

/// `rpcb`.
fn rpcb(program: u32, version: u32, netid: &str, addr: &str) -> Vec<u8> {
    let mut args = Vec::new();
    args.put_u32(program);
    args.put_u32(version);
    [netid, addr, "owner"].iter().for_each(|text| args.put_opaque(text.as_bytes()));
    args
}

fn addr(portmap: &Portmap, peer: &str, version: u32, rpcb: &[u8]) -> String {
    let reply = ask(peer, portmap, version, 3, rpcb);
    String::from_utf8(Reader::new(&reply).opaque(255).unwrap().to_vec()).unwrap()
}

fn set2(portmap: &Portmap, peer: &str, prog: u32, prot: u32, port: u32) -> bool {
    unpack(&ask(peer, portmap, 2, 1, &pack(&mapping { prog, vers: 4, prot, port })))
}

fn set4(portmap: &Portmap, peer: &str, program: u32, netid: &str, addr: &str) -> bool {
    unpack(&ask(peer, portmap, 4, 1, &rpcb(program, 4, netid, addr)))
}

fn unset4(portmap: &Portmap, peer: &str, program: u32, netid: &str) -> bool {
    unpack(&ask(peer, portmap, 4, 2, &rpcb(program, 4, netid, "")))
}

#[test]
fn getport_knows_what_is_served_and_nothing_else() {
    let portmap = portmap();
    assert_eq!(port(&portmap, 100_003, 3, IPPROTO_TCP), u32::from(PORT));
    assert_eq!(port(&portmap, 100_005, 3, IPPROTO_TCP), u32::from(PORT));
    assert_eq!(port(&portmap, 100_005, 3, IPPROTO_UDP), u32::from(PORT));
    for (prog, vers, prot) in [
        (100_003, 4, IPPROTO_TCP),
        (100_003, 3, IPPROTO_UDP),
        (100_005, 1, IPPROTO_TCP),
        (LOCKD, 4, IPPROTO_TCP),
        (100_227, 3, IPPROTO_TCP),
        (100_003, 3, 0),
    ] {
        assert_eq!(port(&portmap, prog, vers, prot), 0, "{prog} {vers} {prot}");
    }
    assert_eq!(port(&at("[::1]:2050"), 100_003, 3, IPPROTO_TCP), u32::from(PORT), "over whatever family");
}

#[test]
fn dump_lists_what_getport_knows_once() {
    let portmap = portmap();
    let listed = unpack::<pmaplist>(&ask(STRANGER, &portmap, 2, 4, b"")).0;
    assert_eq!(listed.len(), 3);
    for known in listed {
        assert_eq!(known.port, port(&portmap, known.prog, known.vers, known.prot));
        assert_eq!(known.port, u32::from(PORT));
    }
}

#[test]
fn dump_of_rpcbind_lists_each_address_family() {
    for version in [3, 4] {
        let reply = ask(STRANGER, &portmap(), version, 4, b"");
        let mut r = Reader::new(&reply);
        let mut listed = Vec::new();
        while r.bool().unwrap() {
            let (program, version) = (r.u32().unwrap(), r.u32().unwrap());
            let [netid, addr, owner] = [(); 3].map(|()| std::str::from_utf8(r.opaque(255).unwrap()).unwrap());
            assert_eq!(owner, "superuser");
            listed.push((program, version, netid, addr));
        }
        assert_eq!(
            listed,
            [
                (100_003, 3, "tcp", "0.0.0.0.8.2"),
                (100_003, 3, "tcp6", "::.8.2"),
                (100_005, 3, "tcp", "0.0.0.0.8.2"),
                (100_005, 3, "tcp6", "::.8.2"),
                (100_005, 3, "udp", "0.0.0.0.8.2"),
                (100_005, 3, "udp6", "::.8.2"),
            ]
        );
    }
}

#[test]
fn getaddr_answers_with_the_address_that_the_client_reaches() {
    let portmap = portmap();
    let nfs = |netid, hint| rpcb(100_003, 3, netid, hint);
    // as the client says
    assert_eq!(addr(&portmap, STRANGER, 4, &nfs("tcp", "203.0.113.5.0.111")), "203.0.113.5.8.2");
    // as its call came in: it says nothing, nonsense, its own address, or one of another family
    for hint in ["", "what", "0.0.0.0.0.111", "192.0.2.7.0.111", "2001:db8::1.0.111"] {
        assert_eq!(addr(&portmap, STRANGER, 3, &nfs("tcp", hint)), "192.0.2.1.8.2", "{hint}");
    }
    assert_eq!(addr(&portmap, "[2001:db8::7]:700", 4, &nfs("tcp6", "2001:db8::1.0.111")), "2001:db8::1.8.2");
    assert_eq!(addr(&portmap, "[::1]:700", 4, &nfs("tcp6", "")), "::1.8.2");
    // no transport named: that of the call, which is UDP here
    assert_eq!(addr(&portmap, STRANGER, 4, &rpcb(100_005, 3, "", "")), "192.0.2.1.8.2");
    assert_eq!(addr(&portmap, STRANGER, 4, &nfs("", "")), "");
    // what is not here
    assert_eq!(addr(&portmap, STRANGER, 4, &nfs("udp", "")), "");
    assert_eq!(addr(&portmap, STRANGER, 4, &rpcb(100_003, 4, "tcp", "")), "");
    assert_eq!(addr(&at("127.0.0.1:2050"), STRANGER, 4, &nfs("tcp6", "")), "");
}

#[test]
fn getversaddr_is_of_v4_and_gettime_is_now() {
    let clock = Clock::manual();
    let portmap = Portmap::new(Vec::new(), clock.clone());
    let before: u32 = unpack(&ask(STRANGER, &portmap, 3, 6, b""));
    clock.advance(Duration::from_secs(5));
    assert_eq!(unpack::<u32>(&ask(STRANGER, &portmap, 4, 6, b"")), before + 5);
    let nfs = rpcb(100_003, 3, "tcp", "");
    assert_eq!(ask(STRANGER, &self::portmap(), 4, 9, &nfs), ask(STRANGER, &self::portmap(), 4, 3, &nfs));
    assert_eq!(call_from(STRANGER, &self::portmap(), 3, 9, &nfs).0, Outcome::ProcedureUnavailable);
}

#[test]
fn nothing_is_forwarded_and_garbage_is_told() {
    let portmap = portmap();
    for (version, procedure) in [(2, 5), (3, 5), (4, 5), (4, 10), (2, 6), (4, 13)] {
        let args = rpcb(100_003, 3, "tcp", "");
        assert_eq!(call_from(ROOT, &portmap, version, procedure, &args).0, Outcome::ProcedureUnavailable);
    }
    for version in 2..=4 {
        assert_eq!(call_from(STRANGER, &portmap, version, 0, b""), (Outcome::Success, Vec::new()));
        for procedure in 1..=3 {
            let args = [0, 1, 0, 3, 0, 0, 0, 9];
            assert_eq!(call_from(ROOT, &portmap, version, procedure, &args).0, Outcome::GarbageArgs);
        }
    }
}

#[test]
fn root_of_this_machine_registers_and_all_are_told() {
    let portmap = portmap();
    assert!(set2(&portmap, ROOT, LOCKD, IPPROTO_UDP, 4000));
    assert!(set4(&portmap, "[::1]:700", LOCKD, "tcp6", "::.15.161"));
    assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_UDP), 4000);
    assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_TCP), 4001);
    assert_eq!(addr(&portmap, STRANGER, 4, &rpcb(LOCKD, 4, "udp", "")), "192.0.2.1.15.160");
    assert!(set4(&portmap, ROOT, LOCKD, "udp6", "::.15.163"));
    let dumped = unpack::<pmaplist>(&ask(STRANGER, &portmap, 2, 4, b"")).0;
    let ports: Vec<u32> = dumped.iter().filter(|known| known.prog == LOCKD).map(|known| known.port).collect();
    assert_eq!(ports, [4000, 4001], "of v2, which knows no address families");
    assert!(set2(&portmap, ROOT, LOCKD, IPPROTO_UDP, 4000), "again");
    assert!(!set2(&portmap, ROOT, LOCKD, IPPROTO_UDP, 4444), "it is elsewhere");
    assert!(unset4(&portmap, ROOT, LOCKD, ""));
    assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_UDP), 0);
    assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_TCP), 0);
    assert!(!unset4(&portmap, ROOT, LOCKD, ""), "nothing is left");
}

#[test]
fn unset_is_for_the_transports_that_are_meant() {
    let portmap = portmap();
    for netid in ["tcp", "udp"] {
        assert!(set4(&portmap, ROOT, LOCKD, netid, "127.0.0.1.15.160"));
    }
    assert!(set4(&portmap, ROOT, LOCKD, "udp6", "::1.15.160"));
    assert!(unset4(&portmap, ROOT, LOCKD, "tcp"));
    assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_TCP), 0);
    let v2 = pack(&mapping { prog: LOCKD, vers: 4, prot: IPPROTO_TCP, port: 0 });
    assert!(unpack::<bool>(&ask(ROOT, &portmap, 2, 2, &v2)));
    assert_eq!(addr(&portmap, STRANGER, 4, &rpcb(LOCKD, 4, "udp", "")), "");
    assert_eq!(addr(&portmap, STRANGER, 4, &rpcb(LOCKD, 4, "udp6", "")), "::1.15.160", "v2 knows IPv4 alone");
    assert!(!unset4(&portmap, ROOT, LOCKD, "local"));
}

#[test]
fn nobody_else_registers() {
    for peer in [STRANGER, "127.0.0.1:1024", "[2001:db8::7]:700"] {
        let portmap = portmap();
        assert!(!set2(&portmap, peer, LOCKD, IPPROTO_UDP, 4000), "{peer}");
        assert!(!set4(&portmap, peer, LOCKD, "udp", "0.0.0.0.15.160"), "{peer}");
        assert!(set2(&portmap, ROOT, LOCKD, IPPROTO_UDP, 4000));
        assert!(!unset4(&portmap, peer, LOCKD, ""), "{peer}");
        assert_eq!(port(&portmap, LOCKD, 4, IPPROTO_UDP), 4000);
    }
}

#[test]
fn ours_cannot_be_changed_but_others_of_the_same_are_remembered() {
    let portmap = portmap();
    assert!(set2(&portmap, ROOT, 100_005, 6, 1), "of v4");
    let mount3 = pack(&mapping { prog: 100_005, vers: 3, prot: IPPROTO_TCP, port: 635 });
    assert!(unpack::<bool>(&ask(ROOT, &portmap, 2, 1, &mount3)));
    assert_eq!(port(&portmap, 100_005, 3, IPPROTO_TCP), u32::from(PORT));
    let found = portmap.registered(100_005, 3, Transport::Tcp);
    assert_eq!(found, Some("127.0.0.1:635".parse().unwrap()), "as this machine reaches it");
    assert_eq!(portmap.registered(100_005, 3, Transport::Udp), None);
    assert_eq!(portmap.registered(100_003, 3, Transport::Tcp), None, "that is ours");
    ask(ROOT, &portmap, 2, 2, &mount3);
    assert_eq!(portmap.registered(100_005, 3, Transport::Tcp), None);
    assert_eq!(port(&portmap, 100_005, 3, IPPROTO_TCP), u32::from(PORT));
    let dumped = unpack::<pmaplist>(&ask(STRANGER, &portmap, 2, 4, b"")).0;
    assert_eq!(dumped.len(), 4);
}

#[test]
fn what_means_nothing_is_not_registered() {
    let portmap = portmap();
    assert!(!set2(&portmap, ROOT, LOCKD, 1, 4000), "no such protocol");
    assert!(!set2(&portmap, ROOT, LOCKD, IPPROTO_TCP, 0));
    assert!(!set2(&portmap, ROOT, LOCKD, IPPROTO_TCP, 65_536 + 4000));
    assert!(!set2(&portmap, ROOT, 100_000, IPPROTO_TCP, 4000), "the portmapper is here");
    assert!(!set4(&portmap, ROOT, LOCKD, "local", "/run/lockd.sock"));
    assert!(!set4(&portmap, ROOT, LOCKD, "tcp", "::.15.160"), "another family");
    assert!(!set4(&portmap, ROOT, LOCKD, "tcp", "4000"));
}

#[test]
fn the_table_is_bounded() {
    let portmap = portmap();
    let taken = (0..1000).filter(|n| set2(&portmap, ROOT, 200_000 + n, IPPROTO_TCP, 4000)).count();
    assert_eq!(taken, 128);
    assert!(unset4(&portmap, ROOT, 200_000, ""));
    assert!(set2(&portmap, ROOT, LOCKD, IPPROTO_TCP, 4000));
}
