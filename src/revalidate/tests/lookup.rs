//! Names that are not here: F4.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_is_remembered_for_recheck_and_no_longer() {
    // F4: "A name that is not here is looked for in S3 while the caller waits [...]; the absence is then
    // remembered for `--recheck`"
    let rig = Rig::new().await;
    assert!(rig.find("a.txt").await.unwrap().is_none());
    let asked = rig.s3.requests().total();
    assert_eq!((rig.count(Request::Get), rig.count(Request::List)), (1, 1), "that key, and whether it is a prefix");
    rig.bucket.put("a.txt", "one", &[]);
    assert!(rig.find("a.txt").await.unwrap().is_none());
    assert_eq!(rig.s3.requests().total(), asked);
    rig.clock.advance(config::RECHECK);
    assert!(rig.find("a.txt").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_object_of_a_listed_directory_is_found_by_its_first_lookup() {
    let rig = Rig::new().await;
    rig.bucket.put("d/a", "one", &[]);
    assert_eq!(rig.list("d").await, ["a"]);
    rig.s3.requests().reset();
    assert!(rig.find("d/b").await.unwrap().is_none());
    assert_eq!(rig.s3.requests().total(), 0, "its listing is fresh");
    rig.bucket.put("d/b", "two", &[]);
    rig.pass_recheck();
    assert!(rig.find("d/b").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_of_a_path_does_not_wait_for_listings() {
    // F4: "A LOOKUP never waits for a whole listing"
    let rig = Rig::new().await;
    for n in 0..30 {
        rig.bucket.put(&format!("a/b/{n:02}"), "x", &[]);
    }
    assert_eq!(rig.read("a/b/07").await, "x");
    assert!(!rig.known("a/b/").unwrap().listed);
    assert!(rig.index.counts().files < 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_one_name_share_one_question() {
    let rig = Rig::new().await;
    rig.bucket.put("a.txt", "one", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    let lookups: Vec<_> = (0..8)
        .map(|_| {
            let revalidator = rig.revalidator.clone();
            tokio::spawn(async move { revalidator.look_up(Ino::ROOT, &name("a.txt")).await })
        })
        .collect();
    within(gate.arrived()).await;
    // Who stops waiting does not stop the question.
    lookups[0].abort();
    gate.release();
    for lookup in lookups.into_iter().skip(1) {
        assert!(within(lookup).await.unwrap().unwrap().is_some());
    }
    assert_eq!(rig.count(Request::Get), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_past_its_deadline_is_busy_and_its_answer_is_not_lost() {
    let mut setup = Setup::default();
    setup.settings.deadline = Duration::from_millis(20);
    let rig = Rig::with(setup).await;
    rig.bucket.put("a.txt", "one", &[]);
    let gate = rig.s3.faults().hold(Request::Get);
    assert!(matches!(rig.find("a.txt").await, Err(WaitError::Busy)));
    let mut flight =
        rig.revalidator.lookups.join(&(Ino::ROOT, name("a.txt")), 9, None, |_| panic!("none is under way")).unwrap();
    gate.release();
    within(flight.wait_for(Option::is_some)).await.unwrap();
    assert!(rig.known("a.txt").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_hides_a_file_of_the_same_name_and_both_are_there() {
    let rig = Rig::new().await;
    rig.bucket.put("a", "file", &[]);
    rig.bucket.put("a/b", "inner", &[]);
    assert_eq!(rig.node("a").await.kind, Kind::Dir);
    assert_eq!(rig.read("a/b").await, "inner");
    assert_eq!(rig.read("a‛f").await, "file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn component_too_long_for_a_name_is_found_piece_by_piece() {
    let rig = Rig::new().await;
    let long = "x".repeat(600);
    rig.bucket.put(&format!("d/{long}"), "deep", &[]);
    rig.bucket.put("d/other", "flat", &[]);
    let path: Vec<String> = crate::types::name::split(&Key::new(&format!("d/{long}")).unwrap())
        .iter()
        .map(|component| String::from_utf8(component.name(false).as_bytes().to_vec()).unwrap())
        .collect();
    assert_eq!(path.len(), 4, "{path:?}");
    assert_eq!(rig.read(&path.join("/")).await, "deep");
    // A piece that no key begins with is not there.
    let mut wrong = path.clone();
    wrong[1] = wrong[1].replace('x', "y");
    assert!(rig.find(&wrong.join("/")).await.unwrap().is_none());
    // The listing of a piece shows what is in it.
    assert_eq!(rig.list(&path[..2].join("/")).await, [path[2].as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_becomes_a_directory_and_back_again() {
    let rig = Rig::new().await;
    rig.warm("x", "file").await;
    rig.bucket.delete("x");
    rig.bucket.put("x/y", "inner", &[]);
    rig.pass_recheck();
    rig.read_warm("x");
    rig.settled("x").await;
    assert_eq!(rig.node("x").await.kind, Kind::Dir);
    assert_eq!(rig.list("x").await, ["y"]);

    rig.bucket.delete("x/y");
    rig.bucket.put("x", "file again", &[]);
    rig.pass_recheck();
    rig.list("x").await;
    rig.settled("x/").await;
    assert!(rig.known("x/").is_none(), "the listing behind found nothing below it");
    assert_eq!(rig.read("x").await, "file again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_object_comes_with_its_lookup() {
    let rig = Rig::new().await;
    rig.bucket.put("a.txt", "one", &[("file-permissions", "0100600")]);
    let node = rig.find("a.txt").await.unwrap().unwrap();
    assert_eq!((node.size, node.mode), (3, 0o600));
    assert_eq!(rig.read("a.txt").await, "one");
    assert_eq!((rig.count(Request::Get), rig.count(Request::Head)), (1, 0));
    within(rig.revalidator.quiet()).await;
    assert_eq!(rig.read_warm("a.txt"), "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_behind_a_lookup_joins_the_body_that_is_under_way() {
    let rig = Rig::new().await;
    let text = "x".repeat(100_000);
    rig.bucket.put("a.txt", text.clone(), &[]);
    rig.s3.faults().inject(Request::Get, 1, Fault::ResetAfter(50_000));
    assert!(rig.find("a.txt").await.unwrap().is_some(), "its name is known before its bytes are");
    assert_eq!(rig.read("a.txt").await, text);
    assert_eq!(rig.count(Request::Get), 2, "what the first did not bring, and no more readers than that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_object_that_is_only_looked_up_stays_in_s3() {
    let rig = Rig::new().await;
    rig.bucket.put_generated("film", 1 << 30, 7);
    assert_eq!(rig.find("film").await.unwrap().unwrap().size, 1 << 30);
    within(rig.revalidator.quiet()).await;
    assert!(rig.known("film").unwrap().local.is_none());
    assert_eq!(rig.content.usage().bytes, 0);
    assert_eq!((rig.count(Request::Get), rig.count(Request::Head)), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_that_gives_no_bytes_is_found_all_the_same() {
    let rig = Rig::new().await;
    rig.bucket.put("empty", "", &[]);
    assert_eq!(rig.find("empty").await.unwrap().unwrap().size, 0);
    rig.bucket.put("archived", "cold", &[]);
    rig.s3.faults().inject((Request::Get, "archived"), 1, Fault::Denied);
    assert_eq!(rig.find("archived").await.unwrap().unwrap().size, 4);
    assert_eq!(rig.count(Request::Head), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_brings_no_bytes_where_no_object_is_small() {
    let mut setup = Setup::default();
    setup.settings.small_object = 0;
    let rig = Rig::with(setup).await;
    rig.bucket.put("a.txt", "one", &[]);
    assert!(rig.find("a.txt").await.unwrap().is_some());
    assert_eq!((rig.count(Request::Get), rig.count(Request::Head)), (0, 1));
    assert_eq!(rig.read("a.txt").await, "one");
}
