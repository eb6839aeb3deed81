//! NLM and NSM: no bytes do harm.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::locks::{Limits, Locks};
use crate::nfs::nlm::{CallBack, Nlm4};
use crate::nfs::nsm::Nsm1;
use crate::nfs::portmap::Portmap;
use crate::nfs::reach::Directory;
use crate::rpc::xdr::Write;
use crate::rpc::{Grant, Transport};
use crate::types::Clock;

fn programs() -> (Nlm4<Double>, Nsm1) {
    let clock = Clock::manual();
    let locks = Arc::new(Locks::new(Vec::new(), Default::default(), Limits::default(), clock.clone()));
    let here = Arc::new(Portmap::new(Vec::new(), clock.clone()));
    let directory = Arc::new(Directory::new(1, here, 2049, clock.clone()));
    let (outbox, _) = CallBack::new(Some(locks.clone()), directory, clock);
    (Nlm4::new(Arc::new(Double::new(false)), Some(locks.clone()), outbox), Nsm1::new(locks, 5))
}

/// Calls from this machine or from another; how it ended, and the result if it is there.
fn call_from(peer: &str, program: &dyn Program, procedure: u32, args: &[u8]) -> (Outcome, Vec<u8>) {
    let (credentials, mut reply) = (user(7), Vec::new());
    let (peer, local) = (peer.parse().unwrap(), "192.0.2.1:2049".parse().unwrap());
    let (version, transport, grant) = (*program.versions().end(), Transport::Tcp, Grant::ALL);
    let call = Call { version, procedure, credentials: &credentials, peer, local, transport, grant, args };
    match program.call(&call, &mut reply) {
        Handled::Done(outcome, _) => (outcome, reply),
        Handled::Later(_) => (Outcome::Success, Vec::new()),
    }
}

/// Arguments that are likely to be read far.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let object = prop_oneof![Just(double::handle(double::HELLO)), vec(any::<u8>(), 0..20)];
    let item = prop_oneof![
        object.prop_map(|bytes| {
            let mut out = Vec::new();
            out.put_opaque(&bytes);
            out
        }),
        (0..4_u32).prop_map(|word| word.to_be_bytes().to_vec()),
        any::<u64>().prop_map(|word| word.to_be_bytes().to_vec()),
    ];
    vec(item, 0..16).prop_map(|items| items.concat())
}

proptest! {
    #[test]
    fn hostile_arguments_of_lock_calls_are_answered(
        calls in vec((0..26_u32, prop_oneof![plausible(), vec(any::<u8>(), 0..200)]), 1..20)
    ) {
        let (nlm, nsm) = programs();
        for (procedure, args) in &calls {
            call_from("192.0.2.7:700", &nlm, *procedure, args);
            call_from("192.0.2.7:700", &nsm, *procedure, args);
        }
    }
}

#[test]
fn the_monitor_answers_with_its_state() {
    let (_, nsm) = programs();
    let mut name = Vec::new();
    name.put_opaque(b"client");
    assert_eq!(call_from("192.0.2.7:700", &nsm, 1, &name), (Outcome::Success, vec![0, 0, 0, 1, 0, 0, 0, 5]));
    let mut watch = name.clone();
    watch.put_opaque(b"me");
    watch.extend([0; 12]);
    assert_eq!(call_from("192.0.2.7:700", &nsm, 3, &watch), (Outcome::Success, vec![0, 0, 0, 5]));
    watch.extend([0; 16]);
    assert_eq!(call_from("192.0.2.7:700", &nsm, 2, &watch).1, [0, 0, 0, 1, 0, 0, 0, 5], "not for other machines");
    assert_eq!(call_from("127.0.0.1:700", &nsm, 2, &watch).1, [0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(call_from("127.0.0.1:700", &nsm, 2, &watch[..40]).0, Outcome::GarbageArgs);
    assert_eq!(call_from("127.0.0.1:700", &nsm, 7, b"").0, Outcome::ProcedureUnavailable);
}
