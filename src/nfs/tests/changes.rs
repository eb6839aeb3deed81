//! Mutating procedures: decoded in full, refused with ROFS and the body that each has.

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
