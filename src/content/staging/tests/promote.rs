//! After an upload: one object of the staging file and its base.

use super::*;

#[tokio::test]
async fn whole_write_becomes_the_object_by_a_second_name() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&staged, 0, &[9; 100]).await.unwrap();
    rig.resize(&staged, 130).await;
    let (local, row) = rig.promote(&staged).await;
    assert!(local.complete);
    assert_eq!((row.ino, row.size, row.presence), (staged.ino(), 130, Presence::Complete));
    assert_eq!(rig.object_bytes(local.object), [vec![9; 100], vec![0; 30]].concat());
    #[cfg(unix)]
    assert_eq!(links(&rig.content.volume.dir.path(staged.id())), 2);
}

#[cfg(unix)]
fn links(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(path).unwrap())
}

#[tokio::test]
async fn small_write_goes_into_a_complete_base() {
    let mut rig = Rig::roomy();
    let base = pattern(MIB as usize);
    let staged = rig.staged_over(&base, &[0..MIB]).await;
    let reader = rig.base(&staged).unwrap();
    rig.write(&staged, 1000, b"hello").await.unwrap();
    rig.write(&staged, MIB + 10, b"end").await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    let mut wanted = base.clone();
    wanted[1000..1005].copy_from_slice(b"hello");
    wanted.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0end");
    assert_eq!((local.complete, row.size), (true, MIB + 13));
    assert!(rig.object_bytes(local.object) == wanted);
    #[cfg(unix)]
    assert_eq!(links(&rig.content.objects.path(reader.id())), 2, "nothing was copied but what was written");
    // all but what is staged reads as before, for whoever has it open; and until it is settled, the base is not torn
    let mut byte = [0; 2];
    read_exact_at(reader.file(), &mut byte, 1005).unwrap();
    assert_eq!(byte, base[1005..1007]);
    drop(reader);
    let staged = rig.reopen(staged);
    assert!(rig.base(&staged).is_some());
    assert!(rig.whole(&staged) == wanted);
}

#[tokio::test]
async fn shortened_base_with_a_small_write_is_not_copied_either() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(1000), &[0..1000]).await;
    rig.resize(&staged, 500).await;
    rig.write(&staged, 600, b"x").await.unwrap();
    let (local, _) = rig.promote(&staged).await;
    assert_eq!(rig.object_bytes(local.object), [&pattern(1000)[..500], &[0; 100], b"x"].concat());
}

#[tokio::test]
async fn evicted_base_is_read_through_whoever_has_it_open() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(1000), &[0..1000]).await;
    rig.write(&staged, 0, b"x").await.unwrap();
    rig.content.objects.unlink(rig.local(staged.ino()).unwrap()).unwrap();
    let (local, _) = rig.promote(&staged).await;
    assert_eq!(rig.object_bytes(local.object), [b"x", &pattern(1000)[1..]].concat());
}

#[tokio::test]
async fn partial_base_makes_a_partial_object_that_can_be_filled_up() {
    let rig = Rig::roomy();
    let base = pattern(1000);
    let staged = rig.staged_over(&base, &[0..300, 600..700]).await;
    rig.write(&staged, 100, &[255; 100]).await.unwrap();
    rig.write(&staged, 650, &[255; 100]).await.unwrap();
    rig.resize(&staged, 900).await;
    rig.write(&staged, 1000, &[255; 10]).await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.size), (false, 1010));
    assert_eq!(row.presence, Presence::Partial(vec![0..300, 600..750, 900..1010]));
    let bytes = rig.object_bytes(local.object);
    assert!(bytes[..100] == base[..100] && bytes[100..200] == [255; 100] && bytes[200..300] == base[200..300]);
    assert!(bytes[600..650] == base[600..650] && bytes[650..750] == [255; 100]);
    assert!(bytes[900..1000] == [0; 100] && bytes[1000..] == [255; 10]);
}

#[tokio::test]
async fn base_that_is_not_here_leaves_what_was_written() {
    let rig = Rig::roomy();
    let ino = rig.observe("f", "v1", 100).await;
    let staged = rig.stage(ino, 100).await;
    rig.write(&staged, 10, b"abc").await.unwrap();
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.presence), (false, Presence::Partial(vec![10..13; 1])));
}

#[tokio::test]
async fn empty_file_becomes_an_empty_object() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let (local, row) = rig.promote(&staged).await;
    assert_eq!((local.complete, row.size, rig.object_bytes(local.object)), (true, 0, Vec::new()));
}

#[tokio::test]
async fn promoted_object_is_swept_unless_it_is_settled_and_nothing_is_lost() {
    let mut rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&staged, 5, b"abc").await.unwrap();
    let (local, _) = rig.promote(&staged).await;
    let staged = rig.reopen(staged);
    rig.settle().await;
    let start = async {
        rig.content.load_rows().await.unwrap();
        rig.content.sweep_orphans().await.unwrap();
    };
    start.await;
    assert!(!rig.exists(local.object) && rig.has_staging(staged.id()));
    assert_eq!(rig.whole(&staged), [&pattern(5)[..], b"abc", &pattern(100)[8..]].concat());
}

#[tokio::test]
async fn settled_object_takes_the_place_of_staging_file_and_base() {
    for here in [0..1000, 0..400] {
        let rig = Rig::roomy();
        let staged = rig.staged_over(&pattern(1000), std::slice::from_ref(&here)).await;
        let base = rig.local(staged.ino()).unwrap();
        rig.write(&staged, 100, b"hello").await.unwrap();
        rig.content.sync(&staged).await.unwrap();
        let change = rig.index.pending(staged.ino()).unwrap().unwrap().change;

        let turn = staged.sole_turn().await.unwrap();
        let local = rig.content.promote(&staged, Some(&rig.node(staged.ino()).inode)).await.unwrap();
        let settled = Settled {
            ino: staged.ino(),
            change,
            key: Key::new("f").unwrap(),
            etag: ETag::new("v2"),
            size: 1000,
            sent: rig.clock.now(),
            answered: rig.clock.now(),
            content: true,
            local: Some(local),
        };
        assert_eq!(rig.index.settle(settled).await.unwrap(), Outcome::Done);
        rig.content.close_staged(&staged, turn);
        rig.settle().await;

        assert!(!rig.exists(base) && !rig.has_staging(staged.id()));
        let object = rig.content.get(rig.local(staged.ino()).unwrap()).unwrap();
        assert_eq!((object.has(0..here.end), object.is_complete()), (true, here.end == 1000));
        let mut bytes = vec![0; here.end as usize];
        read_exact_at(object.file(), &mut bytes, 0).unwrap();
        assert!(bytes[..] == [&pattern(100)[..], b"hello", &pattern(1000)[105..here.end as usize]].concat());
        assert_eq!((rig.content.usage().bytes, rig.content.staging_usage()), (here.end, (0, 0)));
    }
}
