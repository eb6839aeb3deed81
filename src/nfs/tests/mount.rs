//! MOUNT v3.

use nfs3_types::mount::{dirpath, exports, mountlist, mountres3, mountstat3};

use super::double::*;
use super::*;
use crate::nfs::mount::Mount3;

fn mount(late: bool) -> Mount3<Double> {
    Mount3::new(Arc::new(Double::new(late)), Some("data".into()))
}

fn path(path: &[u8]) -> Vec<u8> {
    pack(&dirpath(Opaque::borrowed(path)))
}

/// MNT as `uid`: the handle and flavours, or the status.
fn mnt_as(uid: u32, at: &[u8]) -> Result<(Vec<u8>, Vec<u32>), u32> {
    let [now, later] = [false, true].map(|late| call_as(uid, &mount(late), 1, &path(at)));
    assert_eq!(now, later);
    assert_eq!(now.0, Outcome::Success);
    match unpack::<mountres3<'static>>(&now.1) {
        mountres3::Ok(ok) => Ok((ok.fhandle.0.to_vec(), ok.auth_flavors)),
        mountres3::Err(status) => Err(status as u32),
    }
}

fn dump(mount: &Mount3<Double>) -> Vec<(String, String)> {
    let (_, reply) = call_as(0, mount, 2, b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let list = unpack::<mountlist<'static, 'static>>(&reply).0;
    list.into_iter().map(|body| (text(&body.ml_hostname.0), text(&body.ml_directory.0))).collect()
}

#[test]
fn mnt_gives_the_root_by_every_name_it_has() {
    for at in [&b"/"[..], b"", b"//", b"/data", b"data", b"/data/", b"/."] {
        assert_eq!(mnt_as(1000, at), Ok((handle(ROOT), vec![1])), "{}", String::from_utf8_lossy(at));
    }
}

#[test]
fn mnt_gives_subdirectories_of_either_name() {
    for at in [&b"/sub/deep"[..], b"/data/sub/deep", b"data//sub/deep/", b"sub/deep", b"/sub/../sub/deep"] {
        assert_eq!(mnt_as(1000, at), Ok((handle(DEEP), vec![1])), "{}", String::from_utf8_lossy(at));
    }
    assert_eq!(mnt_as(1000, b"/locked"), Ok((handle(LOCKED), vec![1])));
}

#[test]
fn mnt_says_why_not() {
    use mountstat3::*;
    for (at, status) in [
        (&b"/nobody"[..], MNT3ERR_NOENT),
        (b"/data/data", MNT3ERR_NOENT),
        (b"/hello", MNT3ERR_NOTDIR),
        (b"/link", MNT3ERR_NOTDIR),
        (b"/hello/x", MNT3ERR_NOTDIR),
        (b"/locked/secret", MNT3ERR_ACCES),
        (b"/nul\0", MNT3ERR_INVAL),
        (&[b'n'; 256], MNT3ERR_NAMETOOLONG),
    ] {
        assert_eq!(mnt_as(1000, at), Err(status as u32), "{}", String::from_utf8_lossy(at));
    }
    // root may look into `locked`, where there is but a file
    assert_eq!(mnt_as(0, b"/locked/secret"), Err(MNT3ERR_NOTDIR as u32));
}

#[test]
fn a_path_over_1024_bytes_is_garbage() {
    assert_eq!(call_as(0, &mount(false), 1, &path(&[b'/'; 1024])).0, Outcome::Success);
    assert_eq!(call_as(0, &mount(false), 1, &path(&[b'/'; 1025])).0, Outcome::GarbageArgs);
}

#[test]
fn dump_tells_what_was_mounted_and_not_unmounted() {
    let mount = mount(false);
    assert_eq!(dump(&mount), []);
    for at in [&b"/"[..], b"/sub/", b"//sub", b"/nobody", b"data"] {
        call_as(0, &mount, 1, &path(at));
    }
    let by_us = |at: &str| ("192.0.2.7".to_owned(), at.to_owned());
    assert_eq!(dump(&mount), [by_us("/"), by_us("/sub"), by_us("/data")]);

    call_as(0, &mount, 3, &path(b"/sub"));
    assert_eq!(dump(&mount), [by_us("/"), by_us("/data")]);
    call_as(0, &mount, 4, b"");
    assert_eq!(dump(&mount), []);
}

#[test]
fn the_list_of_mounts_is_bounded_and_forgets_the_oldest() {
    let mount = mount(false);
    call_as(0, &mount, 1, &path(b"/"));
    for n in 0..1100_u32 {
        // there are as many paths to the root as one likes
        let spelled: String = (0..11).map(|bit| if n >> bit & 1 == 0 { "/." } else { "/sub/.." }).collect();
        call_as(0, &mount, 1, &path(spelled.as_bytes()));
    }
    let list = dump(&mount);
    assert_eq!(list.len(), 1024);
    assert!(!list.contains(&("192.0.2.7".into(), "/".into())), "the oldest is gone");
}

#[test]
fn export_lists_the_root_and_its_name_for_everybody() {
    let listed = |mount: &Mount3<Double>| {
        let (_, reply) = call_as(0, mount, 5, b"");
        let list = unpack::<exports<'static, 'static>>(&reply).0;
        assert!(list.iter().all(|node| node.ex_groups.is_empty()));
        list.into_iter().map(|node| node.ex_dir.0.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mount(false)), [b"/".to_vec(), b"/data".to_vec()]);
    assert_eq!(listed(&Mount3::new(Arc::new(Double::new(false)), None)), [b"/".to_vec()]);
}

#[test]
fn null_answers_and_what_is_not_there_does_not() {
    assert_eq!(call_as(0, &mount(false), 0, b""), (Outcome::Success, Vec::new()));
    assert_eq!(call_as(0, &mount(false), 6, b"").0, Outcome::ProcedureUnavailable);
    assert_eq!(mount(false).versions(), 3..=3);
}
