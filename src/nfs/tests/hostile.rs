//! What a stranger may send: arguments cut short, random bytes, lengths that lie.

use nfs3_types::nfs3::*;
use proptest::prelude::*;

use super::changes::{dir_changes, file_changes};
use super::double::*;
use super::*;
use crate::nfs::mount::Mount3;
use crate::nfs::portmap::Portmap;
use crate::types::Clock;

/// A legal call of every procedure that has arguments.
fn legal_calls() -> Vec<(u32, Vec<u8>)> {
    let handle = pack(&fh(ROOT));
    let with = |more: &[u8]| [&handle[..], more].concat();
    let mut calls = vec![
        (1, handle.clone()),
        (3, pack(&dir_op(ROOT, b"hello"))),
        (4, with(&[0; 4])),
        (5, handle.clone()),
        (6, with(&[0; 12])),
        (14, pack(&RENAME3args { from: dir_op(ROOT, b"hello"), to: dir_op(SUB, b"x") })),
        (15, pack(&LINK3args { file: fh(HELLO), link: dir_op(SUB, b"x") })),
        (16, with(&[0; 20])),
        (17, with(&[0; 24])),
        (18, handle.clone()),
        (19, handle.clone()),
        (20, handle.clone()),
    ];
    calls.extend(dir_changes(fh(SUB), b"new"));
    calls.extend(file_changes(&fh(HELLO)));
    calls
}

#[test]
fn every_procedure_is_among_the_legal_calls() {
    let mut procedures: Vec<_> = legal_calls().iter().map(|(procedure, _)| *procedure).collect();
    procedures.sort_unstable();
    procedures.dedup();
    assert_eq!(procedures, (1..22).collect::<Vec<_>>());
}

#[test]
fn arguments_cut_anywhere_are_garbage() {
    let nfs = nfs(false);
    for (procedure, args) in legal_calls() {
        assert_eq!(call_as(0, &nfs, procedure, &args).0, Outcome::Success, "{procedure}");
        for len in 0..args.len() {
            let cut = call_as(0, &nfs, procedure, &args[..len]);
            assert_eq!(cut, (Outcome::GarbageArgs, Vec::new()), "{procedure} cut at {len}");
        }
    }
}

#[test]
fn bytes_after_the_arguments_are_ignored() {
    for (procedure, args) in legal_calls() {
        let longer = [&args[..], &[0xff; 8]].concat();
        assert_eq!(ask_as(0, procedure, &args), ask_as(0, procedure, &longer), "{procedure}");
    }
}

#[test]
fn a_handle_of_64_bytes_is_bad_and_one_of_65_is_garbage() {
    let of = |len| pack(&nfs_fh3 { data: Opaque::owned(vec![b'h'; len]) });
    let (bad, garbage) = (call_as(0, &nfs(false), 1, &of(64)), call_as(0, &nfs(false), 1, &of(65)));
    assert_eq!(bad, (Outcome::Success, pack(&nfsstat3::NFS3ERR_BADHANDLE)));
    assert_eq!(garbage, (Outcome::GarbageArgs, Vec::new()));
}

#[test]
fn a_length_of_four_gigabytes_is_garbage() {
    for (program, procedure) in [(1, 1), (1, 3), (2, 1)] {
        let mount = Mount3::new(Arc::new(Double::new(false)), None);
        let nfs = nfs(false);
        let program: &dyn Program = if program == 1 { &nfs } else { &mount };
        assert_eq!(call_as(0, program, procedure, &[0xff; 4]), (Outcome::GarbageArgs, Vec::new()));
    }
}

#[test]
fn enumerations_and_booleans_out_of_range_are_garbage() {
    let handle = pack(&fh(HELLO));
    let place = pack(&dir_op(SUB, b"new"));
    let word = |v: u32| v.to_be_bytes();
    let write = |count, stable| [&handle[..], &[0; 8], &word(count), &word(stable), &word(4), b"data"].concat();
    let nfs = nfs(false);
    let cases = [
        ("boolean of sattr3", 2, [&handle[..], &word(2), &[0; 60]].concat()),
        ("time_how", 2, [&handle[..], &[0; 16], &word(3), &[0; 60]].concat()),
        ("createmode3", 8, [&place[..], &word(3), &[0; 60]].concat()),
        ("ftype3 8", 11, [&place[..], &word(8), &[0; 60]].concat()),
        ("ftype3 0", 11, [&place[..], &word(0), &[0; 60]].concat()),
        ("stable_how", 7, write(4, 3)),
        ("count below data", 7, write(3, 0)),
        ("count above data", 7, write(5, 0)),
    ];
    for (what, procedure, args) in cases {
        assert_eq!(call_as(0, &nfs, procedure, &args), (Outcome::GarbageArgs, Vec::new()), "{what}");
    }
    assert_eq!(call_as(0, &nfs, 7, &write(4, 2)).0, Outcome::Success);
}

proptest! {
    #[test]
    fn random_arguments_never_panic_and_garbage_has_no_result(
        procedure in 0..24_u32, args in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let fs = Arc::new(Double::new(false));
        let programs: [&dyn Program; 3] = [
            &Nfs3::new(Arc::clone(&fs)), &Mount3::new(fs, Some("data".into())), &Portmap::new(Vec::new(), Clock::manual()),
        ];
        for program in programs {
            call_as(0, program, procedure, &args);
        }
    }

    /// Legal calls with a few bytes changed get further in than random ones.
    #[test]
    fn damaged_calls_never_panic(
        nth in 0..64_usize, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut calls = legal_calls();
        let nth = nth % calls.len();
        let (procedure, args) = &mut calls[nth];
        for (place, byte) in damage {
            let place = place.index(args.len());
            args[place] = byte;
        }
        call_as(0, &nfs(false), *procedure, args);
    }
}
