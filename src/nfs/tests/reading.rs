//! GETATTR, LOOKUP, ACCESS, READLINK, READ, FSSTAT, FSINFO, PATHCONF: results and errors, to the byte.

use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Void};

use super::double::*;
use super::*;

fn attr_of(id: u64) -> post_op_attr {
    post_op_attr::Some(wire_attr(id))
}

fn get(object: nfs_fh3) -> GETATTR3args {
    GETATTR3args { object }
}

#[test]
fn null_has_an_empty_result() {
    assert_eq!(ask_as(1000, 0, b""), b"");
}

#[test]
fn a_procedure_beyond_commit_is_unavailable() {
    for procedure in [22, 23, u32::MAX] {
        assert_eq!(call_as(0, &nfs(false), procedure, b"").0, Outcome::ProcedureUnavailable);
    }
}

#[test]
fn only_what_changes_something_goes_through_the_reply_cache() {
    let cached: Vec<_> = (0..22).filter(|procedure| !nfs(false).is_idempotent(3, *procedure)).collect();
    let names = cached.iter().map(|procedure| super::super::PROCEDURES[*procedure as usize]);
    let expected = "setattr write create mkdir symlink mknod remove rmdir rename link";
    assert_eq!(names.collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn getattr_gives_every_attribute_in_its_place() {
    for id in [ROOT, HELLO, LINK] {
        expect(1, &get(fh(id)), &GETATTR3res::Ok(GETATTR3resok { obj_attributes: wire_attr(id) }));
    }
}

#[test]
fn getattr_of_a_bad_handle_has_no_body() {
    expect(1, &get(fh(GONE)), &GETATTR3res::Err((nfsstat3::NFS3ERR_STALE, Void)));
    expect(1, &get(bad_fh()), &GETATTR3res::Err((nfsstat3::NFS3ERR_BADHANDLE, Void)));
    expect(1, &get(nfs_fh3::default()), &GETATTR3res::Err((nfsstat3::NFS3ERR_BADHANDLE, Void)));
}

fn found(id: u64, dir: u64) -> LOOKUP3res {
    LOOKUP3res::Ok(LOOKUP3resok { object: fh(id), obj_attributes: attr_of(id), dir_attributes: attr_of(dir) })
}

fn not_found(status: nfsstat3, dir_attributes: post_op_attr) -> LOOKUP3res {
    LOOKUP3res::Err((status, LOOKUP3resfail { dir_attributes }))
}

#[track_caller]
fn expect_lookup(dir: u64, name: &[u8], expected: &LOOKUP3res) {
    expect(3, &LOOKUP3args { what: dir_op(dir, name) }, expected);
}

#[test]
fn lookup_finds_names_and_the_dots() {
    expect_lookup(ROOT, b"hello", &found(HELLO, ROOT));
    expect_lookup(SUB, b"deep", &found(DEEP, SUB));
    expect_lookup(DEEP, b".", &found(DEEP, DEEP));
    expect_lookup(DEEP, b"..", &found(SUB, DEEP));
    expect_lookup(ROOT, b"..", &found(ROOT, ROOT));
}

#[test]
fn lookup_errors_carry_the_directory() {
    use nfsstat3::*;
    expect_lookup(ROOT, b"nobody", &not_found(NFS3ERR_NOENT, attr_of(ROOT)));
    expect_lookup(LOCKED, b"secret", &not_found(NFS3ERR_ACCES, attr_of(LOCKED)));
    for name in [&b"x"[..], b".", b".."] {
        expect_lookup(HELLO, name, &not_found(NFS3ERR_NOTDIR, attr_of(HELLO)));
        expect_lookup(GONE, name, &not_found(NFS3ERR_STALE, post_op_attr::None));
    }
    for name in [&b"."[..], b".."] {
        expect_lookup(LOCKED, name, &not_found(NFS3ERR_ACCES, attr_of(LOCKED)));
    }
}

#[test]
fn lookup_refuses_names_that_no_file_can_have() {
    use nfsstat3::*;
    for name in [&b""[..], b"/", b"a/b", b"..\0", b"nul\0"] {
        expect_lookup(ROOT, name, &not_found(NFS3ERR_INVAL, attr_of(ROOT)));
    }
    expect_lookup(ROOT, &[b'n'; 255], &not_found(NFS3ERR_NOENT, attr_of(ROOT)));
    for len in [256, 5000] {
        expect_lookup(ROOT, &vec![b'/'; len], &not_found(NFS3ERR_NAMETOOLONG, attr_of(ROOT)));
    }
    expect_lookup(GONE, b"", &not_found(NFS3ERR_STALE, post_op_attr::None));
}

#[test]
fn access_grants_by_caller() {
    let granted = |access| ACCESS3res::Ok(ACCESS3resok { obj_attributes: attr_of(LOCKED), access });
    let args = pack(&ACCESS3args { object: fh(LOCKED), access: 0x3f });
    assert_eq!(ask_as(1000, 4, &args), pack(&granted(0)));
    assert_eq!(ask_as(0, 4, &args), pack(&granted(0x23)));
    let stale = ACCESS3res::Err((nfsstat3::NFS3ERR_STALE, ACCESS3resfail { obj_attributes: post_op_attr::None }));
    expect(4, &ACCESS3args { object: fh(GONE), access: 1 }, &stale);
}

#[test]
fn readlink_gives_the_target_or_the_reason() {
    let ok = READLINK3resok { symlink_attributes: attr_of(LINK), data: TARGET.into() };
    expect(5, &READLINK3args { symlink: fh(LINK) }, &READLINK3res::Ok(ok));
    let body = READLINK3resfail { symlink_attributes: attr_of(HELLO) };
    expect(5, &READLINK3args { symlink: fh(HELLO) }, &READLINK3res::Err((nfsstat3::NFS3ERR_INVAL, body)));
}

#[track_caller]
fn expect_read(id: u64, offset: u64, count: u32, bytes: &[u8], eof: bool) {
    let ok = READ3resok { file_attributes: attr_of(id), count: bytes.len() as u32, eof, data: Opaque::borrowed(bytes) };
    expect(6, &READ3args { file: fh(id), offset, count }, &READ3res::Ok(ok));
}

#[test]
fn read_gives_bytes_from_memory_and_from_a_file_alike() {
    for id in [HELLO, DISK] {
        expect_read(id, 0, 5, b"hello", false);
        expect_read(id, 7, 6, b"world!", true);
        expect_read(id, 12, 100, b"!", true);
        expect_read(id, 13, 4, b"", true);
    }
}

#[test]
fn read_is_cut_to_rtmax() {
    expect_read(HELLO, 0, READ_MAX, b"hello, w", false);
    expect_read(HELLO, 0, READ_MAX + 1, b"hello, w", false);
    expect_read(HELLO, 0, u32::MAX, b"hello, w", false);
}

#[test]
fn read_errors_carry_the_file() {
    for (id, status, file_attributes) in [
        (SUB, nfsstat3::NFS3ERR_ISDIR, attr_of(SUB)),
        (SLOW, nfsstat3::NFS3ERR_JUKEBOX, attr_of(SLOW)),
        (GONE, nfsstat3::NFS3ERR_STALE, post_op_attr::None),
    ] {
        let args = READ3args { file: fh(id), offset: 0, count: 4 };
        expect(6, &args, &READ3res::Err((status, READ3resfail { file_attributes })));
    }
}

#[test]
fn fsstat_fsinfo_and_pathconf_tell_what_the_file_system_says() {
    let stat = FSSTAT3resok {
        obj_attributes: attr_of(ROOT),
        tbytes: 1 << 41,
        fbytes: 1 << 40,
        abytes: 1 << 39,
        tfiles: 1 << 38,
        ffiles: 1 << 37,
        afiles: 1 << 37,
        invarsec: 0,
    };
    expect(18, &FSSTAT3args { fsroot: fh(ROOT) }, &FSSTAT3res::Ok(stat));
    let info = FSINFO3resok {
        obj_attributes: attr_of(ROOT),
        rtmax: READ_MAX,
        rtpref: 4,
        rtmult: 4096,
        wtmax: 3,
        wtpref: 2,
        wtmult: 4096,
        dtpref: 5,
        maxfilesize: 50 << 40,
        time_delta: nfstime3 { seconds: 0, nseconds: 1 },
        properties: FSF3_SYMLINK | FSF3_HOMOGENEOUS,
    };
    expect(19, &FSINFO3args { fsroot: fh(ROOT) }, &FSINFO3res::Ok(info));
    let conf = PATHCONF3resok {
        obj_attributes: attr_of(HELLO),
        linkmax: 1,
        name_max: 255,
        no_trunc: true,
        chown_restricted: true,
        case_insensitive: false,
        case_preserving: true,
    };
    expect(20, &PATHCONF3args { object: fh(HELLO) }, &PATHCONF3res::Ok(conf));
}

#[test]
fn fsstat_fsinfo_and_pathconf_of_bad_handles_fail_without_attributes() {
    let none = || post_op_attr::None;
    for (handle, status) in [(fh(GONE), nfsstat3::NFS3ERR_STALE), (bad_fh(), nfsstat3::NFS3ERR_BADHANDLE)] {
        let args = GETATTR3args { object: handle };
        expect(18, &args, &FSSTAT3res::Err((status, FSSTAT3resfail { obj_attributes: none() })));
        expect(19, &args, &FSINFO3res::Err((status, FSINFO3resfail { obj_attributes: none() })));
        expect(20, &args, &PATHCONF3res::Err((status, PATHCONF3resfail { obj_attributes: none() })));
    }
}
