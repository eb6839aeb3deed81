//! READDIR and READDIRPLUS: order, cookies, byte limits.

use nfs3_types::nfs3::*;
use proptest::prelude::*;

use super::double::*;
use super::*;

/// Sizes of a page without entries, and of an entry without its name.
const EMPTY: u32 = 88 + 8 + 4 + 4;
const ENTRY: u32 = 4 + 8 + 4 + 8;

fn plain(dir: u64, cookie: u64, count: u32) -> Vec<u8> {
    pack(&READDIR3args { dir: fh(dir), cookie, cookieverf: cookieverf3([9; 8]), count })
}

fn plus(dir: u64, cookie: u64, dircount: u32, maxcount: u32) -> Vec<u8> {
    pack(&READDIRPLUS3args { dir: fh(dir), cookie, cookieverf: cookieverf3([0; 8]), dircount, maxcount })
}

fn page(args: &[u8]) -> READDIR3resok<'static> {
    unpack::<READDIR3res<'static>>(&ask_as(1000, 16, args)).unwrap()
}

fn names(page: &READDIR3resok<'_>) -> Vec<String> {
    page.reply.entries.0.iter().map(|entry| String::from_utf8_lossy(&entry.name.0).into_owned()).collect()
}

#[test]
fn readdir_gives_the_dots_first_and_all_names() {
    let page = page(&plain(SUB, 0, 4096));
    assert_eq!(pack(&page.dir_attributes), pack(&post_op_attr::Some(wire_attr(SUB))));
    assert_eq!(page.cookieverf, cookieverf3([0; 8]));
    assert!(page.reply.eof);
    assert_eq!(names(&page), [".", "..", "deep"]);
    let ids: Vec<_> = page.reply.entries.0.iter().map(|entry| (entry.fileid, entry.cookie)).collect();
    assert_eq!(ids, [(SUB, 1), (ROOT, 2), (DEEP, 3)]);
}

#[test]
fn readdir_goes_on_after_any_cookie() {
    for (cookie, rest) in [(0, 3), (1, 2), (2, 1), (3, 0), (u64::MAX, 0)] {
        let page = page(&plain(SUB, cookie, 4096));
        assert_eq!(names(&page), [".", "..", "deep"][3 - rest..]);
        assert!(page.reply.eof);
    }
}

#[test]
fn readdirplus_gives_attributes_and_handles_of_all_and_of_the_dots() {
    let ok = unpack::<READDIRPLUS3res<'static>>(&ask_as(1000, 17, &plus(SUB, 0, 4096, 4096))).unwrap();
    assert!(ok.reply.eof);
    for (entry, id) in ok.reply.entries.0.into_iter().zip([SUB, ROOT, DEEP]) {
        assert_eq!(entry.fileid, id);
        assert_eq!(pack(&entry.name_attributes), pack(&post_op_attr::Some(wire_attr(id))));
        assert_eq!(entry.name_handle, post_op_fh3::Some(fh(id)));
    }
}

#[test]
fn errors_carry_the_directory() {
    for (dir, status, dir_attributes) in [
        (HELLO, nfsstat3::NFS3ERR_NOTDIR, post_op_attr::Some(wire_attr(HELLO))),
        (LOCKED, nfsstat3::NFS3ERR_ACCES, post_op_attr::Some(wire_attr(LOCKED))),
        (GONE, nfsstat3::NFS3ERR_STALE, post_op_attr::None),
    ] {
        let expected = pack(&READDIR3res::Err((status, READDIR3resfail { dir_attributes })));
        assert_eq!(ask_as(1000, 16, &plain(dir, 0, 4096)), expected);
        assert_eq!(ask_as(1000, 17, &plus(dir, 0, 4096, 4096)), expected);
    }
}

fn too_small() -> Vec<u8> {
    let dir_attributes = post_op_attr::Some(wire_attr(SUB));
    pack(&READDIR3res::Err((nfsstat3::NFS3ERR_TOOSMALL, READDIR3resfail { dir_attributes })))
}

#[test]
fn a_page_without_room_for_one_entry_is_too_small_and_one_byte_more_is_not() {
    let dot = EMPTY + ENTRY + 4;
    for count in [0, 1, EMPTY, dot - 1] {
        assert_eq!(ask_as(1000, 16, &plain(SUB, 0, count)), too_small(), "{count}");
    }
    let first = page(&plain(SUB, 0, dot));
    assert_eq!((names(&first), first.reply.eof), (vec![".".to_owned()], false));
    let both = page(&plain(SUB, 0, dot + ENTRY + 4));
    assert_eq!((names(&both), both.reply.eof), (vec![".".to_owned(), "..".to_owned()], false));

    let dot_plus = dot + 88 + 4 + 4 + 20;
    assert_eq!(ask_as(1000, 17, &plus(SUB, 0, 4096, dot_plus - 1)), too_small());
    let ok = unpack::<READDIRPLUS3res<'static>>(&ask_as(1000, 17, &plus(SUB, 0, 4096, dot_plus))).unwrap();
    assert_eq!((ok.reply.entries.0.len(), ok.reply.eof), (1, false));
}

#[test]
fn the_end_of_a_directory_needs_room_for_an_empty_page() {
    assert_eq!(ask_as(1000, 16, &plain(SUB, 3, EMPTY - 1)), too_small());
    assert!(page(&plain(SUB, 3, EMPTY)).reply.eof);
}

#[test]
fn dircount_bounds_names_but_never_the_first() {
    let name_bytes = ENTRY - 4 + 4;
    for (dircount, entries) in [(0, 1), (name_bytes, 1), (2 * name_bytes - 1, 1), (2 * name_bytes, 2), (4096, 3)] {
        let ok = unpack::<READDIRPLUS3res<'static>>(&ask_as(1000, 17, &plus(SUB, 0, dircount, 4096))).unwrap();
        assert_eq!(ok.reply.entries.0.len(), entries, "{dircount}");
    }
}

#[test]
fn a_listing_that_stalls_is_jukebox_and_not_an_empty_page() {
    let nfs = Nfs3::new(Arc::new(Double::listing(&[b"x".to_vec()], 0, true)));
    let dir_attributes = post_op_attr::Some(wire_attr(ROOT));
    let jukebox = pack(&READDIR3res::Err((nfsstat3::NFS3ERR_JUKEBOX, READDIR3resfail { dir_attributes })));
    assert_eq!(call_as(0, &nfs, 16, &plain(ROOT, 2, 4096)).1, jukebox);
    assert_eq!(call_as(0, &nfs, 17, &plus(ROOT, 2, 4096, 4096)).1, jukebox);
    let (_, dots) = call_as(0, &nfs, 16, &plain(ROOT, 0, 4096));
    assert!(!unpack::<READDIR3res<'static>>(&dots).unwrap().reply.eof);
}

#[test]
fn a_huge_count_makes_no_huge_reply() {
    let names: Vec<_> = (0..20_000).map(|n| format!("{n:0>200}").into_bytes()).collect();
    let nfs = Nfs3::new(Arc::new(Double::listing(&names, usize::MAX, true)));
    for (procedure, args) in [(16, plain(ROOT, 0, u32::MAX)), (17, plus(ROOT, 0, u32::MAX, u32::MAX))] {
        let (_, reply) = call_as(0, &nfs, procedure, &args);
        assert!((200_000..=262_148).contains(&reply.len()), "{}", reply.len());
    }
}

/// One page: cookies and names, and whether it is the last.
type Page = (Vec<(u64, Vec<u8>)>, bool);

/// A whole directory read page by page: the names in order, and every page's size and entries.
fn read_all(mut next: impl FnMut(u64) -> (usize, Page)) -> (Vec<Vec<u8>>, Vec<(usize, usize)>) {
    let (mut names, mut pages, mut cookie) = (Vec::new(), Vec::new(), 0);
    loop {
        let (bytes, (entries, eof)) = next(cookie);
        pages.push((bytes, entries.len()));
        assert!(eof || !entries.is_empty(), "an empty page that is not the last would never end");
        for (at, name) in entries {
            assert!(at > cookie, "cookies grow");
            cookie = at;
            names.push(name);
        }
        if eof {
            return (names, pages);
        }
    }
}

fn with_dots(names: &[Vec<u8>]) -> Vec<Vec<u8>> {
    [b".".to_vec(), b"..".to_vec()].into_iter().chain(names.iter().cloned()).collect()
}

fn some_names() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(1..=255_u8, 1..=255), 0..60)
}

proptest! {
    #[test]
    fn readdir_pages_keep_count_and_give_every_entry_once_in_order(
        names in some_names(), batch in 1..80_usize, count in (EMPTY + ENTRY + 256)..6000,
    ) {
        let nfs = Nfs3::new(Arc::new(Double::listing(&names, batch, true)));
        let (all, pages) = read_all(|cookie| {
            let (_, reply) = call_as(0, &nfs, 16, &plain(ROOT, cookie, count));
            let ok = unpack::<READDIR3res<'static>>(&reply).unwrap();
            let entries = ok.reply.entries.0.into_iter().map(|entry| (entry.cookie, entry.name.0.into_owned()));
            (reply.len() - 4, (entries.collect(), ok.reply.eof))
        });
        prop_assert_eq!(all, with_dots(&names));
        for (bytes, _) in pages {
            prop_assert!(bytes <= count as usize);
        }
    }

    #[test]
    fn readdirplus_pages_keep_both_counts_and_give_every_entry_once_in_order(
        names in some_names(), batch in 1..80_usize, attrs: bool,
        dircount in 0..3000_u32, maxcount in (EMPTY + ENTRY + 256 + 88 + 28)..9000,
    ) {
        let nfs = Nfs3::new(Arc::new(Double::listing(&names, batch, attrs)));
        let (all, pages) = read_all(|cookie| {
            let (_, reply) = call_as(0, &nfs, 17, &plus(ROOT, cookie, dircount, maxcount));
            let ok = unpack::<READDIRPLUS3res<'static>>(&reply).unwrap();
            assert!(reply.len() - 4 <= maxcount as usize);
            let entries: Vec<_> =
                ok.reply.entries.0.into_iter().map(|entry| (entry.cookie, entry.name.0.into_owned())).collect();
            let name_bytes = entries.iter().map(|(_, name)| 20 + name.len().next_multiple_of(4)).sum();
            (name_bytes, (entries, ok.reply.eof))
        });
        prop_assert_eq!(all, with_dots(&names));
        for (name_bytes, entries) in pages {
            prop_assert!(name_bytes <= dircount as usize || entries == 1);
        }
    }
}
