//! Portmap v2.

use nfs3_types::portmap::{IPPROTO_TCP, IPPROTO_UDP, mapping, pmaplist};

use super::*;
use crate::nfs::portmap::Portmap2;

const PORT: u16 = 2050;

fn call(procedure: u32, args: &[u8]) -> (Outcome, Vec<u8>) {
    call_as(0, &Portmap2::new(PORT), procedure, args)
}

fn ask_port(prog: u32, vers: u32, prot: u32) -> u32 {
    let (outcome, reply) = call(3, &pack(&mapping { prog, vers, prot, port: 0 }));
    assert_eq!(outcome, Outcome::Success);
    unpack(&reply)
}

#[test]
fn getport_knows_nfs_and_mount_over_tcp_and_nothing_else() {
    assert_eq!(ask_port(100_003, 3, IPPROTO_TCP), u32::from(PORT));
    assert_eq!(ask_port(100_005, 3, IPPROTO_TCP), u32::from(PORT));
    for (prog, vers, prot) in [
        (100_003, 4, IPPROTO_TCP),
        (100_003, 3, IPPROTO_UDP),
        (100_005, 1, IPPROTO_TCP),
        (100_021, 4, IPPROTO_TCP),
        (100_227, 3, IPPROTO_TCP),
        (100_003, 3, 0),
    ] {
        assert_eq!(ask_port(prog, vers, prot), 0, "{prog} {vers} {prot}");
    }
}

#[test]
fn dump_lists_what_getport_knows() {
    let listed = unpack::<pmaplist>(&call(4, b"").1).0;
    assert_eq!(listed.len(), 2);
    for known in listed {
        assert_eq!(known.port, ask_port(known.prog, known.vers, known.prot));
        assert_eq!(known.port, u32::from(PORT));
    }
}

#[test]
fn nobody_can_register_or_forward() {
    let nfs = pack(&mapping { prog: 100_003, vers: 3, prot: IPPROTO_TCP, port: 1 });
    for procedure in [1, 2] {
        assert_eq!(call(procedure, &nfs), (Outcome::Success, vec![0; 4]));
        assert_eq!(call(procedure, &nfs[..15]), (Outcome::GarbageArgs, Vec::new()));
    }
    assert_eq!(call(5, &nfs).0, Outcome::ProcedureUnavailable);
    assert_eq!(call(0, b""), (Outcome::Success, Vec::new()));
}
