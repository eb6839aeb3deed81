//! Room on the disk: who gets it, and what is given back.

use super::*;

#[tokio::test]
async fn full_disk_refuses_after_clean_bytes_are_gone_and_keeps_what_it_took() {
    let (rig, faults) = Rig::sick(CacheLimit::Bytes(1 << 40));
    faults.shrink_disk(Some(10 * MIB));
    let (clean_ino, clean) = rig.cached("clean", 6 * MIB, 0..6 * MIB).await;
    let staged = rig.made("f").await;
    let data = vec![3; MIB as usize];
    for n in 0..9 {
        rig.write(&staged, n * MIB, &data).await.unwrap();
        rig.clock.advance(Duration::from_millis(10));
    }
    assert_eq!((rig.local(clean_ino), rig.exists(clean)), (None, false));
    let full = rig.write(&staged, 9 * MIB, &data).await.unwrap_err();
    assert_eq!((full.kind(), staged.live().size), (io::ErrorKind::StorageFull, 9 * MIB));
    rig.content.sync(&staged).await.unwrap();
    assert_eq!(rig.node(staged.ino()).size, 9 * MIB);

    rig.resize(&staged, MIB).await;
    rig.content.sync(&staged).await.unwrap();
    rig.write(&staged, MIB, &data).await.unwrap();
    assert_eq!(rig.content.usage().bytes, 2 * MIB);
}

#[tokio::test]
async fn dirty_bytes_crowd_out_clean_ones_and_never_the_reverse() {
    let rig = Rig::new(CacheLimit::Bytes(4 * MIB));
    let (_, clean) = rig.cached("clean", 2 * MIB, 0..2 * MIB).await;
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &vec![1; 3 * MIB as usize]).await.unwrap();
    assert!(rig.exists(clean));
    rig.content.make_room(0).await.unwrap();
    assert!(!rig.exists(clean));
    rig.write(&staged, 3 * MIB, &vec![1; 3 * MIB as usize]).await.unwrap();
    assert_eq!(rig.content.make_room(0).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(rig.whole(&staged).len() as u64, 6 * MIB);
}

#[tokio::test]
async fn what_a_truncation_cut_off_is_given_back_once_the_row_says_so() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &pattern(1000)).await.unwrap();
    rig.content.sync(&staged).await.unwrap();
    rig.resize(&staged, 100).await;
    let length = || std::fs::metadata(rig.content.volume.dir.path(staged.id())).unwrap().len();
    rig.content.cut_files().await;
    assert_eq!(length(), 1000, "a crash now would need it");
    rig.content.sync(&staged).await.unwrap();
    let turn = staged.write_turn().await.unwrap();
    rig.content.cut_files().await;
    assert_eq!(length(), 1000, "somebody writes");
    drop(turn);
    rig.content.cut_files().await;
    assert_eq!(length(), 100);
    rig.resize(&staged, 200).await;
    assert_eq!(rig.whole(&staged), [&pattern(1000)[..100], &[0; 100]].concat());
}
