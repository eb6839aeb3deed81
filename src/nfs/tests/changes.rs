//! Mutating procedures: what the file system is asked for, and the bodies of success and of refusal.

use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::Opaque;

use super::double::*;
use super::*;

fn unchanged(id: u64) -> wcc_data {
    wcc_data { before: pre_op_attr::None, after: post_op_attr::Some(wire_attr(id)) }
}

fn unknown() -> wcc_data {
    wcc_data { before: pre_op_attr::None, after: post_op_attr::None }
}

/// Every field set.
pub(super) fn full_sattr() -> sattr3 {
    sattr3 {
        mode: set_mode3::Some(0o644),
        uid: set_uid3::Some(1),
        gid: set_gid3::Some(2),
        size: set_size3::Some(3),
        atime: set_atime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 4, nseconds: 5 }),
        mtime: set_mtime::SET_TO_SERVER_TIME,
    }
}

/// Every call that would change the directory `dir` by one `wcc_data`, with a legal `name`.
pub(super) fn dir_changes(dir: nfs_fh3, name: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let place = || diropargs3 { dir: dir.clone(), name: name.into() };
    let create = |how| pack(&CREATE3args { where_: place(), how });
    let mknod = |what| pack(&MKNOD3args { where_: place(), what });
    let device = || devicedata3 { dev_attributes: full_sattr(), spec: specdata3 { specdata1: 1, specdata2: 2 } };
    vec![
        (8, create(createhow3::UNCHECKED(full_sattr()))),
        (8, create(createhow3::GUARDED(full_sattr()))),
        (8, create(createhow3::EXCLUSIVE(createverf3([7; 8])))),
        (9, pack(&MKDIR3args { where_: place(), attributes: full_sattr() })),
        (
            10,
            pack(&SYMLINK3args {
                where_: place(),
                symlink: symlinkdata3 { symlink_attributes: full_sattr(), symlink_data: TARGET.into() },
            }),
        ),
        (11, mknod(mknoddata3::NF3CHR(device()))),
        (11, mknod(mknoddata3::NF3BLK(device()))),
        (11, mknod(mknoddata3::NF3SOCK(full_sattr()))),
        (11, mknod(mknoddata3::NF3FIFO(full_sattr()))),
        (12, pack(&REMOVE3args { object: place() })),
        (13, pack(&RMDIR3args { object: place() })),
    ]
}

/// Every call that would change `file` by one `wcc_data`.
pub(super) fn file_changes(file: &nfs_fh3) -> Vec<(u32, Vec<u8>)> {
    let guard = |guard| pack(&SETATTR3args { object: file.clone(), new_attributes: full_sattr(), guard });
    let write = |stable, data: &'static [u8]| {
        let count = data.len() as u32;
        pack(&WRITE3args { file: file.clone(), offset: 1, count, stable, data: Opaque::borrowed(data) })
    };
    vec![
        (2, guard(sattrguard3::None)),
        (2, guard(sattrguard3::Some(nfstime3 { seconds: 1, nseconds: 2 }))),
        (7, write(stable_how::UNSTABLE, b"")),
        (7, write(stable_how::DATA_SYNC, b"12345")),
        (7, write(stable_how::FILE_SYNC, b"1234")),
        (21, pack(&COMMIT3args { file: file.clone(), offset: 0, count: 0 })),
    ]
}

/// A status and one `wcc_data`, which is what the error bodies of most of them are.
fn refused(status: nfsstat3, dir_wcc: wcc_data) -> Vec<u8> {
    pack(&REMOVE3res::Err((status, REMOVE3resfail { dir_wcc })))
}

/// Asks for a change as uid 0: the reply, and what the file system was asked for.
fn change(procedure: u32, args: &[u8]) -> (Vec<u8>, String) {
    let [now, later] = [false, true].map(|late| {
        let fs = Arc::new(Double::new(late));
        let (outcome, reply) = call_as(0, &Nfs3::new(Arc::clone(&fs)), procedure, args);
        assert_eq!(outcome, Outcome::Success);
        let asked = fs.asked.lock().unwrap().join(", ");
        (reply, asked)
    });
    assert_eq!(now, later);
    now
}

/// How the attributes of `full_sattr` are written in `asked`.
const SATTR: &str = "sattr3 { mode: mode(420), uid: uid(1), gid: gid(2), size: size(3), \
    atime: SET_TO_CLIENT_TIME(nfstime3 { seconds: 4, nseconds: 5 }), mtime: SET_TO_SERVER_TIME }";

#[test]
fn what_is_asked_for_reaches_the_file_system_whole() {
    let name = format!("3 {:?}", b"new");
    let asked: Vec<_> = dir_changes(fh(SUB), b"new").iter().map(|(p, args)| change(*p, args).1).collect();
    let expected = [
        format!("create {name} Unchecked({SATTR})"),
        format!("create {name} Guarded({SATTR})"),
        format!("create {name} Exclusive([7, 7, 7, 7, 7, 7, 7, 7])"),
        format!("mkdir {name} {SATTR}"),
        format!("symlink {name} {TARGET:?} {SATTR}"),
        format!("mknod {name} CharDevice(1, 2) {SATTR}"),
        format!("mknod {name} BlockDevice(1, 2) {SATTR}"),
        format!("mknod {name} Socket {SATTR}"),
        format!("mknod {name} Fifo {SATTR}"),
        format!("remove {name}"),
        format!("rmdir {name}"),
    ];
    assert_eq!(asked, expected);
    let asked: Vec<_> = file_changes(&fh(HELLO)).iter().map(|(p, args)| change(*p, args).1).collect();
    let expected = [
        format!("setattr 2 {SATTR} None"),
        format!("setattr 2 {SATTR} Some(nfstime3 {{ seconds: 1, nseconds: 2 }})"),
        "write 2 1 [] Unstable".into(),
        format!("write 2 1 {:?} DataSync", b"12345"),
        format!("write 2 1 {:?} FileSync", b"1234"),
        "commit 2 0 0".into(),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn what_was_made_is_told_with_its_handle_and_both_attributes() {
    let made = pack(&CREATE3res::Ok(CREATE3resok {
        obj: post_op_fh3::Some(fh(FILE)),
        obj_attributes: post_op_attr::Some(wire_attr(FILE)),
        dir_wcc: wire_wcc(SUB),
    }));
    for (procedure, args) in dir_changes(fh(SUB), b"new").into_iter().filter(|(p, _)| *p < 12) {
        assert_eq!(change(procedure, &args).0, made, "{procedure}");
    }
}

#[test]
fn what_was_removed_or_set_is_told_with_attributes_around_it() {
    for (procedure, args) in dir_changes(fh(SUB), b"new").into_iter().filter(|(p, _)| *p >= 12) {
        let removed = pack(&REMOVE3res::Ok(REMOVE3resok { dir_wcc: wire_wcc(SUB) }));
        assert_eq!(change(procedure, &args).0, removed, "{procedure}");
    }
    for (procedure, args) in file_changes(&fh(HELLO)).into_iter().filter(|(p, _)| *p == 2) {
        let set = pack(&SETATTR3res::Ok(SETATTR3resok { obj_wcc: wire_wcc(HELLO) }));
        assert_eq!(change(procedure, &args).0, set);
    }
}

#[test]
fn write_and_commit_tell_the_verifier() {
    let replies: Vec<_> =
        file_changes(&fh(HELLO)).iter().filter(|(p, _)| *p > 2).map(|(p, a)| change(*p, a).0).collect();
    let written = |count, committed| {
        let verf = writeverf3(VERIFIER);
        pack(&WRITE3res::Ok(WRITE3resok { file_wcc: wire_wcc(HELLO), count, committed, verf }))
    };
    let committed = COMMIT3resok { file_wcc: wire_wcc(HELLO), verf: writeverf3(VERIFIER) };
    let expected = [
        written(0, stable_how::UNSTABLE),
        written(5, stable_how::DATA_SYNC),
        written(4, stable_how::FILE_SYNC),
        pack(&COMMIT3res::Ok(committed)),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn write_whose_count_is_not_its_length_is_malformed() {
    let args = WRITE3args {
        file: fh(HELLO),
        offset: 0,
        count: 4,
        stable: stable_how::UNSTABLE,
        data: Opaque::borrowed(b"12345"),
    };
    let (outcome, _) = call_as(0, &nfs(false), 7, &pack(&args));
    assert_eq!(outcome, Outcome::GarbageArgs);
}

#[test]
fn rename_and_link_tell_both() {
    let args = RENAME3args { from: dir_op(ROOT, b"a"), to: dir_op(SUB, b"b") };
    let (reply, asked) = change(14, &pack(&args));
    let renamed = RENAME3resok { fromdir_wcc: wire_wcc(ROOT), todir_wcc: wire_wcc(SUB) };
    assert_eq!(reply, pack(&RENAME3res::Ok(renamed)));
    assert_eq!(asked, "RenameArgs { from: 1, from_name: [97], to: 3, to_name: [98] }");

    let args = LINK3args { file: fh(HELLO), link: dir_op(SUB, b"new") };
    let (reply, asked) = change(15, &pack(&args));
    let linked = LINK3resok { file_attributes: post_op_attr::Some(wire_attr(HELLO)), linkdir_wcc: wire_wcc(SUB) };
    assert_eq!(reply, pack(&LINK3res::Ok(linked)));
    assert_eq!(asked, format!("link 2 3 {:?}", b"new"));
}

#[test]
fn every_change_is_refused_as_read_only_with_wcc_data() {
    for (procedure, args) in dir_changes(fh(SUB), b"new") {
        assert_eq!(ask_as(1000, procedure, &args), refused(nfsstat3::NFS3ERR_ROFS, unchanged(SUB)), "{procedure}");
    }
    for (procedure, args) in file_changes(&fh(HELLO)) {
        assert_eq!(ask_as(1000, procedure, &args), refused(nfsstat3::NFS3ERR_ROFS, unchanged(HELLO)), "{procedure}");
    }
}

#[test]
fn a_bad_handle_goes_before_read_only() {
    for (handle, status) in [(fh(GONE), nfsstat3::NFS3ERR_STALE), (bad_fh(), nfsstat3::NFS3ERR_BADHANDLE)] {
        for (procedure, args) in dir_changes(handle.clone(), b"new").into_iter().chain(file_changes(&handle)) {
            assert_eq!(ask_as(1000, procedure, &args), refused(status, unknown()), "{procedure}");
        }
    }
}

#[test]
fn an_illegal_name_goes_before_read_only() {
    for (name, status) in [(&b"a/b"[..], nfsstat3::NFS3ERR_INVAL), (&[b'n'; 256], nfsstat3::NFS3ERR_NAMETOOLONG)] {
        for (procedure, args) in dir_changes(fh(SUB), name) {
            assert_eq!(ask_as(1000, procedure, &args), refused(status, unchanged(SUB)), "{procedure}");
        }
    }
}

#[test]
fn mknod_of_what_is_no_node_is_badtype() {
    for kind in [1_u32, 2, 5] {
        let args = [pack(&dir_op(SUB, b"new")), kind.to_be_bytes().to_vec()].concat();
        assert_eq!(ask_as(1000, 11, &args), refused(nfsstat3::NFS3ERR_BADTYPE, unchanged(SUB)));
    }
}

#[test]
fn rename_carries_both_directories() {
    use nfsstat3::*;
    let both = |status, fromdir_wcc, todir_wcc| RENAME3res::Err((status, RENAME3resfail { fromdir_wcc, todir_wcc }));
    let args = |from, to| RENAME3args { from, to };
    expect(14, &args(dir_op(ROOT, b"a"), dir_op(SUB, b"b")), &both(NFS3ERR_ROFS, unchanged(ROOT), unchanged(SUB)));
    expect(14, &args(dir_op(GONE, b"a"), dir_op(SUB, b"b")), &both(NFS3ERR_STALE, unknown(), unchanged(SUB)));
    expect(14, &args(dir_op(ROOT, b"a"), dir_op(GONE, b"b")), &both(NFS3ERR_STALE, unchanged(ROOT), unknown()));
    expect(14, &args(dir_op(ROOT, b""), dir_op(SUB, b"b")), &both(NFS3ERR_INVAL, unchanged(ROOT), unchanged(SUB)));
    expect(14, &args(dir_op(ROOT, b"a"), dir_op(SUB, b"/")), &both(NFS3ERR_INVAL, unchanged(ROOT), unchanged(SUB)));
}

#[test]
fn link_carries_the_file_and_the_directory() {
    use nfsstat3::*;
    let fails =
        |status, file_attributes, linkdir_wcc| LINK3res::Err((status, LINK3resfail { file_attributes, linkdir_wcc }));
    let hello = || post_op_attr::Some(wire_attr(HELLO));
    let args = |file, dir| LINK3args { file: fh(file), link: dir_op(dir, b"new") };
    expect(15, &args(HELLO, SUB), &fails(NFS3ERR_ROFS, hello(), unchanged(SUB)));
    expect(15, &args(GONE, SUB), &fails(NFS3ERR_STALE, post_op_attr::None, unchanged(SUB)));
    expect(15, &args(HELLO, GONE), &fails(NFS3ERR_STALE, hello(), unknown()));
}
