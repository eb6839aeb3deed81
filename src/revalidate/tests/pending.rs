//! Freshness beside what is changed here and not in S3 yet.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_name_is_gone_at_once_and_nobody_asks_s3() {
    let rig = Rig::new().await;
    rig.bucket.put("d/a.txt", "one", &[]);
    rig.bucket.put("r/x", "two", &[]);
    let (file, below) = (rig.node("d/a.txt").await, rig.node("r/x").await);
    changes::remove(&rig.index, file.ino).await;
    changes::remove(&rig.index, below.ino).await;
    changes::remove(&rig.index, below.parent).await;
    within(rig.revalidator.quiet()).await;
    rig.pass_recheck();
    take_down(&rig.s3);
    rig.s3.requests().reset();
    assert!(rig.find("d/a.txt").await.unwrap().is_none());
    assert!(rig.find("r").await.unwrap().is_none());
    assert_eq!(rig.s3.requests().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_directory_is_looked_up_and_listed_where_s3_has_it() {
    let rig = Rig::new().await;
    for key in ["d/a", "d/b", "d/s/x"] {
        rig.bucket.put(key, format!("text of {key}"), &[]);
    }
    let dir = rig.node("d").await.ino;
    changes::rename(&rig.index, dir, Ino::ROOT, "e/").await;
    assert!(rig.find("d").await.unwrap().is_none(), "its old name is gone");
    assert_eq!(rig.read("e/a").await, "text of d/a");
    assert_eq!(rig.read("e/s/x").await, "text of d/s/x");
    assert_eq!(rig.list("e").await, ["a", "s", "b"]);
    assert_eq!(rig.list("").await, ["e"]);

    rig.bucket.delete("d/b");
    rig.bucket.put("d/c", "new", &[]);
    rig.pass_recheck();
    rig.list("e").await;
    rig.settled("e/").await;
    assert_eq!(rig.list("e").await, ["a", "s", "c"]);
}

/// Its entries come to be where its name says while S3 tells what is left where they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_that_leaves_what_is_being_listed_is_listed_again() {
    let rig = Rig::new().await;
    rig.bucket.put("d/f", "text", &[]);
    rig.list("d").await;
    let dir = rig.node("d").await.ino;
    changes::rename(&rig.index, dir, Ino::ROOT, "e/").await;
    within(rig.revalidator.quiet()).await;
    rig.bucket.put("e/g", "theirs", &[]);
    rig.s3.requests().reset();
    let gate = rig.s3.faults().hold_answer(Request::List);
    let refreshed = tokio::spawn({
        let revalidator = rig.revalidator.clone();
        async move { revalidator.refresh(dir).await }
    });
    within(gate.arrived()).await;
    assert!(rig.index.expand(dir, 9).await.unwrap().done);
    gate.release();
    within(refreshed).await.unwrap().unwrap();
    assert_eq!((rig.names(dir), rig.count(Request::List)), (vec!["f".into(), "g".into()], 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_file_is_read_at_its_old_key_and_not_checked() {
    let rig = Rig::new().await;
    rig.bucket.put("p", "text", &[]);
    let file = rig.node("p").await.ino;
    within(rig.revalidator.quiet()).await;
    changes::rename(&rig.index, file, Ino::ROOT, "q").await;
    assert_eq!(rig.read("q").await, "text");
    within(rig.revalidator.quiet()).await;
    rig.s3.requests().reset();
    rig.pass_recheck();
    rig.revalidator.touch(&rig.known("q").unwrap());
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.s3.requests().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_directory_and_file_are_never_asked_about() {
    let rig = Rig::new().await;
    let dir = changes::create(&rig.index, Ino::ROOT, "d/").await;
    let file = changes::create(&rig.index, dir, "f").await;
    rig.s3.requests().reset();
    rig.pass_recheck();
    for ino in [dir, file] {
        rig.revalidator.touch(&rig.index.node(ino).unwrap().unwrap());
    }
    assert!(rig.find("d/other").await.unwrap().is_none(), "CREATE looks the name up first");
    assert_eq!(rig.list("d").await, ["f"]);
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.s3.requests().total(), 0);

    // and what is asked for all the same takes nothing away
    let warmed = within(rig.revalidator.warm(Ino::ROOT)).await.unwrap();
    assert_eq!((warmed.files, warmed.already), (0, 1));
    within(rig.revalidator.refresh(file)).await.unwrap();
    within(rig.revalidator.clone().mirror(CancellationToken::new())).await;
    assert_eq!(rig.list("d").await, ["f"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_below_a_change_are_fetched_and_the_change_is_not_checked() {
    let rig = Rig::new().await;
    rig.bucket.put("f", "the version below", &[]);
    let node = rig.node("f").await;
    within(rig.revalidator.quiet()).await;
    changes::stage(&rig.index, node.ino, 5_000).await;
    rig.s3.requests().reset();
    let size = node.remote.as_ref().unwrap().size;
    let (node, object) = within(rig.revalidator.fetch(node.ino, 0..size)).await.unwrap();
    assert_eq!((text(&object, size).as_str(), node.size, object.size()), ("the version below", 5_000, size));
    within(rig.revalidator.quiet()).await;
    assert!(rig.known("f").unwrap().local.is_some_and(|local| local.complete));

    rig.bucket.put("f", "theirs", &[]);
    rig.s3.requests().reset();
    rig.pass_recheck();
    rig.revalidator.touch(&rig.known("f").unwrap());
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.s3.requests().total(), 0);
    within(rig.revalidator.refresh(Ino::ROOT)).await.unwrap();
    let after = rig.known("f").unwrap();
    assert_eq!((after.size, &after.remote), (5_000, &node.remote), "the change wins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_renamed_directory_are_asked_by_one_listing_of_its_old_prefix() {
    let rig = Rig::new().await;
    for n in 0..40 {
        rig.bucket.put(&format!("d/{n:02}"), "x", &[]);
    }
    for n in 0..40 {
        rig.read(&format!("d/{n:02}")).await;
    }
    let dir = rig.node("d").await.ino;
    within(rig.revalidator.quiet()).await;
    changes::rename(&rig.index, dir, Ino::ROOT, "e/").await;
    rig.bucket.put("d/07", "longer", &[]);
    rig.s3.requests().reset();
    rig.pass_recheck();
    for n in 0..40 {
        rig.revalidator.touch(&rig.known(&format!("e/{n:02}")).unwrap());
    }
    within(rig.revalidator.quiet()).await;
    // those that are touched while the first are asked about may go alone
    assert!(rig.count(Request::List) >= 1 && rig.s3.requests().total() < 20, "{}", rig.s3.requests().total());
    assert_eq!(rig.read("e/07").await, "longer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_modified_that_was_not_told_is_asked_for_once() {
    let rig = Rig::new().await;
    rig.warm("f", "text").await;
    changes::untell(&rig.index, rig.known("f").unwrap().ino).await;
    for _ in 0..2 {
        rig.pass_recheck();
        rig.read_warm("f");
        within(rig.revalidator.quiet()).await;
    }
    assert_eq!((rig.count(Request::Head), rig.count(Request::Get)), (1, 1), "then it is one conditional GET again");
    assert!(rig.known("f").unwrap().remote.as_ref().unwrap().last_modified > Time(0));
}
