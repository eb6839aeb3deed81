//! `refresh` and `warm`.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_of_a_file_asks_even_when_it_was_just_checked() {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    let ino = rig.known("a").unwrap().ino;
    assert_eq!(within(rig.revalidator.refresh(ino)).await.unwrap(), Refreshed { checked: 1, changed: 0 });
    rig.bucket.put("a", "two", &[]);
    assert_eq!(within(rig.revalidator.refresh(ino)).await.unwrap(), Refreshed { checked: 1, changed: 1 });
    assert_eq!(rig.read_warm("a"), "two");
    rig.bucket.delete("a");
    assert_eq!(within(rig.revalidator.refresh(ino)).await.unwrap().changed, 1);
    assert!(matches!(within(rig.revalidator.refresh(ino)).await, Err(WaitError::Gone)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_of_a_directory_brings_all_below_up_to_date() {
    let rig = Rig::new().await;
    rig.warm("d/a", "one").await;
    rig.warm("d/e/b", "one").await;
    rig.warm("d/e/c", "one").await;
    rig.bucket.put("d/a", "two", &[]);
    rig.bucket.delete("d/e/b");
    rig.bucket.put("d/f/new", "new", &[]);
    let ino = rig.known("d/").unwrap().ino;
    let refreshed = within(rig.revalidator.refresh(ino)).await.unwrap();
    assert_eq!(refreshed.checked, 3);
    assert_eq!(refreshed.changed, 4, "a changed, b gone, f and new made");
    assert_eq!(rig.read_warm("d/a"), "two");
    assert!(rig.known("d/e/b").is_none());
    assert!(rig.known("d/f/new").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_tells_when_s3_is_gone() {
    let rig = Rig::new().await;
    rig.warm("a", "one").await;
    take_down(&rig.s3);
    let ino = rig.known("a").unwrap().ino;
    assert!(matches!(within(rig.revalidator.refresh(ino)).await, Err(WaitError::Busy)));
    assert!(matches!(within(rig.revalidator.refresh(Ino::ROOT)).await, Err(WaitError::Busy)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_brings_a_tree_here() {
    let rig = Rig::new().await;
    rig.warm("d/a", "one").await;
    rig.bucket.put("d/e/b", "four", &[]);
    rig.bucket.put("d/e/c", "sixsix", &[]);
    rig.bucket.put("other", "not asked for", &[]);
    let ino = rig.known("d/").unwrap().ino;
    let warmed = within(rig.revalidator.warm(ino)).await.unwrap();
    assert_eq!(warmed, Warmed { files: 2, bytes: 10, already: 1 });
    assert_eq!(rig.read_warm("d/e/c"), "sixsix");
    assert!(rig.known("other").is_none());
    let file = rig.known("d/a").unwrap().ino;
    assert_eq!(within(rig.revalidator.warm(file)).await.unwrap(), Warmed { already: 1, ..Warmed::default() });
}
