//! Listings merged with the index.

use super::*;

#[tokio::test]
async fn a_listing_fills_the_tree_and_marks_it_listed() {
    let bench = Bench::new();
    let keys = [("a/", "m"), ("a/b/c", "v1"), ("a/d", "v1"), ("e", "v1")];
    let applied = bench.list(Ino::ROOT, true, &keys, 2).await;

    assert_eq!((applied.created, applied.removed), (5, 0));
    assert_eq!(bench.index.counts(), Counts { files: 3, dirs: 2, bytes: 6 });
    for dir in ["", "a/", "a/b/"] {
        let node = bench.node(dir).unwrap();
        assert!(node.listed, "{dir:?}");
    }
    assert!(bench.node("a/").unwrap().remote.is_some() && bench.node("a/b/").unwrap().remote.is_none());
}

#[tokio::test]
async fn what_a_listing_no_longer_has_is_removed() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a", "1"), ("b/x", "1"), ("b/y", "1"), ("c/z", "1"), ("d", "1")], 9).await;
    for size in [1, 2, 9] {
        let applied = bench.list(Ino::ROOT, true, &[("b/y", "1"), ("d", "1")], size).await;
        assert_eq!(applied.removed, if size == 1 { 3 } else { 0 });
        assert_eq!(bench.names(Ino::ROOT), ["b", "d"]);
        assert_eq!(bench.names(bench.node("b/").unwrap().ino), ["y"]);
    }
    assert_eq!(bench.list(Ino::ROOT, true, &[], 9).await.removed, 2);
    assert!(bench.names(Ino::ROOT).is_empty());
}

#[tokio::test]
async fn a_page_removes_nothing_that_it_has_not_covered() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a/x", "1"), ("a/z", "1"), ("b", "1")], 9).await;
    let page = bench.page(&[("a/y", "1")]);
    let (sweep, applied) = bench.index.apply_page(bench.sweep(Ino::ROOT, true), page).await.unwrap();
    assert_eq!((applied.created, applied.removed), (1, 1), "a/x is gone, a/z and b may follow");
    assert!(bench.node("a/z").is_some() && bench.node("b").is_some());

    let page = Page { last: true, ..bench.page(&[("b", "1")]) };
    let (_, applied) = bench.index.apply_page(sweep, page).await.unwrap();
    assert_eq!(applied.removed, 1);
    assert!(bench.node("a/z").is_none() && bench.node("a/y").is_some());
}

#[tokio::test]
async fn a_level_is_listed_without_touching_what_is_below() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/f", "1"), ("d/old/z", "1"), ("d/sub/x", "1"), ("d/sub/y", "1")], 9).await;
    let dir = bench.node("d/").unwrap().ino;
    let sub = bench.node("d/sub/").unwrap();
    let applied = bench.list(dir, false, &[("d/f", "2"), ("d/new/", ""), ("d/sub/", "")], 1).await;

    assert_eq!((applied.created, applied.replaced, applied.removed), (1, 1, 1));
    assert_eq!(bench.names(dir), ["f", "sub", "new"]);
    assert_eq!(bench.names(sub.ino), ["x", "y"]);
    assert!(bench.node("d/").unwrap().listed && !bench.node("d/new/").unwrap().listed);
}

#[tokio::test]
async fn a_listing_settles_its_directory_at_its_first_page_and_its_entries_at_theirs() {
    let bench = Bench::new();
    bench.put("d/a", "1").await;
    bench.put("d/b", "1").await;
    let dir = bench.node("d/").unwrap();
    let (first, second) = (bench.page(&[("d/a", "1")]), Page { last: true, ..bench.page(&[("d/b", "1")]) });
    let (sent, later) = (first.sent, second.sent);
    let (sweep, _) = bench.index.apply_page(bench.sweep(dir.ino, false), first).await.unwrap();
    assert_eq!(dir.freshness.checked(), Tick::NEVER);
    bench.index.apply_page(sweep, second).await.unwrap();
    assert_eq!(dir.freshness.checked(), sent);
    assert_eq!(bench.node("d/a").unwrap().freshness.checked(), sent);
    assert_eq!(bench.node("d/b").unwrap().freshness.checked(), later);
}

#[tokio::test]
async fn entries_newer_than_the_page_are_left_alone() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a", "1"), ("b", "1"), ("d/x", "1")], 9).await;
    let page = Page { last: true, ..bench.page(&[("a", "1"), ("b", "1"), ("gone", "1")]) };
    bench.put("a", "2").await;
    bench.put("d/y", "1").await;
    bench.put("gone", "1").await;
    bench.see("gone", Seen::Absent).await;
    let (_, applied) = bench.index.apply_page(bench.sweep(Ino::ROOT, true), page).await.unwrap();

    assert_eq!((applied.created, applied.replaced, applied.removed), (0, 0, 0));
    assert_eq!(bench.node("a").unwrap().remote.as_ref().unwrap().etag, ETag::new("2"));
    assert!(bench.node("d/y").is_some() && bench.node("gone").is_none());
    assert_eq!(bench.node("a").unwrap().freshness.checked(), Tick::NEVER, "expired: the next touch asks");
}

#[tokio::test]
async fn complete_files_of_an_older_version_are_reported_and_left() {
    let bench = Bench::new();
    let (node, object) = bench.put_with_content("f", "1").await;
    bench.put("cold", "1").await;
    let applied = bench.list(Ino::ROOT, true, &[("cold", "2"), ("f", "2")], 9).await;

    assert_eq!((applied.outdated, applied.replaced), (vec![node.ino], 1));
    let kept = bench.node("f").unwrap();
    assert_eq!(kept.inode, node.inode);
    assert_eq!(kept.local.unwrap().object, object);
}

#[tokio::test]
async fn a_marker_that_went_leaves_a_directory_with_defaults() {
    let bench = Bench::new();
    bench.see("d/", head("m", &[("file-permissions", "0700")])).await;
    bench.put("d/f", "1").await;
    let dir = bench.node("d/").unwrap();
    bench.list(dir.ino, false, &[("d/", "m"), ("d/f", "1")], 9).await;
    assert_eq!(bench.node("d/").unwrap().mode, 0o700);

    bench.list(dir.ino, false, &[("d/f", "1")], 9).await;
    let after = bench.node("d/").unwrap();
    assert_eq!((after.mode, &after.remote, after.ino), (0o755, &None, dir.ino));
    assert!(after.ctime > dir.ctime);
}

#[tokio::test]
async fn what_the_first_page_did_not_have_may_be_there_at_the_last() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/b", "1")], 9).await;
    let d = bench.node("d/").unwrap().ino;
    for recursive in [true, false] {
        let first = bench.page(&[("d/a", "1")]);
        let marker = bench.observation("d/", head("m", &[("file-permissions", "0700")]));
        let last = Page { last: true, ..bench.page(&[("d/b", "1")]) };
        let (sweep, _) = bench.index.apply_page(bench.sweep(d, recursive), first).await.unwrap();
        bench.index.apply(marker).await.unwrap();
        bench.index.apply_page(sweep, last).await.unwrap();
        assert_eq!((bench.get(d).mode, bench.get(d).remote.is_some()), (0o700, true), "the marker came since");
    }
}

#[tokio::test]
async fn a_directory_that_appears_while_it_is_listed_stays() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let d = bench.node("d/").unwrap().ino;
    let (first, marker) = (bench.page(&[]), bench.observation("d/", head("m", &[])));
    let last = Page { last: true, ..bench.page(&[]) };
    let (sweep, _) = bench.index.apply_page(bench.sweep(d, true), first).await.unwrap();
    bench.index.apply(marker).await.unwrap();
    bench.index.apply_page(sweep, last).await.unwrap();
    assert_eq!(bench.node("d/").map(|node| node.ino), Some(d));
}

#[tokio::test]
async fn a_directory_whose_listing_is_empty_is_gone() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let dir = bench.node("d/").unwrap();
    assert_eq!(bench.list(dir.ino, false, &[("d/", "m")], 9).await.removed, 1, "f; the marker keeps d");
    assert_eq!(bench.list(dir.ino, false, &[], 9).await.removed, 1);
    assert!(bench.node("d/").is_none());
}

#[tokio::test]
async fn a_bucket_without_order_loses_nothing() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("a/x", "1"), ("b", "1"), ("c", "1"), ("e", "1")], 9).await;
    let before = bench.node("b").unwrap();
    let applied =
        bench.list(Ino::ROOT, true, &[("c", "1"), ("a/y", "1"), ("d", "1"), ("a/z", "1"), ("b", "1")], 9).await;
    assert_eq!((applied.created, applied.removed), (3, 0));
    assert_eq!(bench.node("b").unwrap().ino, before.ino);
    assert_eq!(bench.names(bench.node("a/").unwrap().ino), ["x", "y", "z"]);
    assert!(bench.node("e").is_some());
}

#[tokio::test]
async fn a_directory_removed_between_two_pages_comes_back_with_what_follows() {
    let bench = Bench::new();
    let (first, second) = (bench.page(&[("d/a", "1"), ("d/b", "1")]), [("d/c", "1"), ("e", "1")]);
    let (sweep, _) = bench.index.apply_page(bench.sweep(Ino::ROOT, true), first).await.unwrap();
    bench.see("d/", Seen::Absent).await;
    bench.put("d/a", "2").await;
    let second = Page { last: true, ..bench.page(&second) };
    bench.index.apply_page(sweep, second).await.unwrap();

    let dir = bench.node("d/").unwrap();
    assert_eq!(bench.names(dir.ino), ["a", "c"], "what came before this page is not known to be gone");
    assert!(!dir.listed && bench.node("").unwrap().listed);
}

#[tokio::test]
async fn a_sweep_of_a_directory_that_went_does_nothing() {
    let bench = Bench::new();
    bench.put("d/f", "1").await;
    let sweep = bench.sweep(bench.node("d/").unwrap().ino, true);
    bench.see("d/", Seen::Absent).await;
    let applied = bench.take_pages(sweep, &[("d/f", "1"), ("d/g", "1")], 1).await;
    assert_eq!((applied.created, applied.removed), (0, 0));
    assert!(bench.node("d/").is_none());
}

#[tokio::test]
async fn components_too_long_for_a_name_are_of_the_level_that_lists_them() {
    let bench = Bench::new();
    let (stem, tail) = ("x".repeat(246), "y".repeat(100));
    let (file, deep, exact) = (format!("d/{stem}{tail}"), format!("d/{stem}/z"), format!("d/{stem}"));
    let stale = format!("d/{stem}zzz");
    bench.put(&stale, "1").await;
    let dir = bench.node("d/").unwrap().ino;
    let below = format!("{exact}/");
    bench.list(dir, false, &[(&exact, "1"), (&below, ""), (&file, "1")], 1).await;

    assert!(bench.node(&file).is_some() && bench.node(&exact).is_some() && bench.node(&stale).is_none());
    assert_eq!(bench.list(dir, true, &[(&exact, "1"), (&deep, "1"), (&file, "1")], 2).await.removed, 0);
    assert!(bench.node(&deep).is_some());
    // the chunk itself can be listed: by the prefix that it is, which the exact file has, too
    let chunk = bench.node(&file).unwrap().parent;
    assert_eq!(bench.index.key(chunk).unwrap().unwrap().as_str(), exact);
    let applied = bench.list(chunk, false, &[(&exact, "1"), (&below, ""), (&file, "2")], 9).await;
    assert_eq!((applied.created, applied.replaced, applied.removed), (0, 1, 0));
}

#[tokio::test]
async fn a_page_that_removes_very_much_takes_several_transactions() {
    let bench = Bench::new();
    let keys: Vec<String> = ["a", "d"].iter().flat_map(|d| (0..5000).map(move |n| format!("{d}/{n:05}"))).collect();
    let mut keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "1")).collect();
    keys.push(("z", "1"));
    bench.list(Ino::ROOT, true, &keys, 1000).await;
    // 4,999 before the page's last key of each directory, and one after it
    let kept = [("a/04998", "1"), ("a/new", "1"), ("d/04998", "1"), ("z", "2")];
    let applied = bench.list(Ino::ROOT, true, &kept, 9).await;

    assert_eq!((applied.created, applied.replaced, applied.removed), (1, 1, 9998));
    assert_eq!(bench.names(bench.node("a/").unwrap().ino), ["04998", "new"]);
    assert_eq!(bench.names(bench.node("d/").unwrap().ino), ["04998"]);
    assert!(bench.node("a/").unwrap().listed && bench.node("d/").unwrap().listed);
}

#[tokio::test]
async fn a_key_from_below_the_listed_level_removes_nothing_beside_it() {
    let bench = Bench::new();
    bench.list(Ino::ROOT, true, &[("d/a", "1"), ("d/c", "1")], 9).await;
    // given a store that does not fold what follows the delimiter
    let applied = bench.list(Ino::ROOT, false, &[("d/b", "1"), ("e", "1")], 9).await;
    assert_eq!((applied.created, applied.removed), (2, 0));
    assert_eq!(bench.names(bench.node("d/").unwrap().ino), ["a", "c", "b"]);
}
