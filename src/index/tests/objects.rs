//! Objects: whose bytes they are, which are here, and when their files can go.

use super::*;

#[tokio::test]
async fn content_of_a_new_version_takes_the_place_of_the_old_in_one_step() {
    let bench = Bench::new();
    let (_, old) = bench.put_with_content("f", "v1").await;
    let (node, new) = bench.put_with_content("f", "v2!").await;

    assert_eq!(node.local, Some(Local { object: new, complete: true }));
    let row = bench.index.presence(new).unwrap().unwrap();
    assert_eq!((row.ino, row.size, row.presence), (node.ino, 3, Presence::Complete));
    assert!(bench.index.presence(old).unwrap().is_none());
    assert_eq!(bench.index.garbage(9).unwrap(), [old]);
}

#[tokio::test]
async fn a_new_version_without_content_makes_the_file_cold() {
    let bench = Bench::new();
    let (_, old) = bench.put_with_content("f", "v1").await;
    assert_eq!(bench.put("f", "v2").await.local, None);
    assert_eq!(bench.index.garbage(9).unwrap(), [old]);
}

#[tokio::test]
async fn what_was_given_up_while_it_was_fetched_is_not_taken_again() {
    let bench = Bench::new();
    let ino = bench.put("f", "v1").await.ino;
    let (fetched, taken) = (bench.index.allocate().await.unwrap(), bench.index.allocate().await.unwrap());
    let (fetched, taken) = (ObjectId(fetched), ObjectId(taken));
    let attach = |object, presence| bench.index.attach(ino, ETag::new("v1"), object, presence);
    assert!(attach(fetched, Presence::Partial(vec![0..1])).await.unwrap());
    assert!(attach(taken, Presence::Complete).await.unwrap());
    assert!(!attach(fetched, Presence::Complete).await.unwrap());
    assert_eq!(bench.get(ino).local, Some(Local { object: taken, complete: true }));
    assert_eq!(bench.index.garbage(9).unwrap(), [fetched]);
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn content_that_nobody_takes_is_garbage() {
    let bench = Bench::new();
    let late = bench.observation("f", head("v1", &[]));
    let (node, kept) = bench.put_with_content("f", "v2").await;
    // late, then the same version a second time
    let first = ObjectId(bench.index.allocate().await.unwrap());
    bench.index.apply(Observation { content: Some(first), ..late }).await.unwrap();
    let (again, second) = bench.put_with_content("f", "v2").await;

    assert_eq!((again.ino, again.local.unwrap().object), (node.ino, kept));
    assert_eq!(bench.index.garbage(9).unwrap(), [first, second]);
}

#[tokio::test]
async fn bytes_attach_to_the_version_they_are_of_and_to_no_other() {
    let bench = Bench::new();
    let node = bench.put("f", "v1").await;
    let object = ObjectId(bench.index.allocate().await.unwrap());
    let part = Presence::Partial(vec![0..1]);
    assert!(bench.index.attach(node.ino, ETag::new("v1"), object, part.clone()).await.unwrap());
    assert_eq!(bench.index.node(node.ino).unwrap().unwrap().local, Some(Local { object, complete: false }));
    assert_eq!(bench.index.presence(object).unwrap().unwrap().presence, part);

    assert!(bench.index.attach(node.ino, ETag::new("v1"), object, Presence::Complete).await.unwrap());
    assert!(bench.index.node(node.ino).unwrap().unwrap().local.unwrap().complete);
    assert!(bench.index.garbage(9).unwrap().is_empty());

    let other = ObjectId(bench.index.allocate().await.unwrap());
    assert!(!bench.index.attach(node.ino, ETag::new("v2"), other, Presence::Complete).await.unwrap());
    assert!(!bench.index.attach(Ino(999_999), ETag::new("v1"), ObjectId(5), Presence::Complete).await.unwrap());
    assert_eq!(bench.index.garbage(9).unwrap(), [ObjectId(5), other]);
    assert_eq!(bench.index.node(node.ino).unwrap().unwrap().local.unwrap().object, object);
}

#[tokio::test]
async fn more_of_a_version_that_s3_has_lost_belongs_to_the_change_made_of_it() {
    let bench = Bench::new();
    let node = bench.put("f", "1").await;
    let object = ObjectId(bench.index.allocate().await.unwrap());
    let attach = |object, presence| bench.index.attach(node.ino, ETag::new("1"), object, presence);
    assert!(attach(object, Presence::Partial(vec![])).await.unwrap());
    bench.stage(node.ino).await;
    bench.see("f", Seen::Absent).await;

    assert!(attach(object, Presence::Complete).await.unwrap());
    assert_eq!(bench.index.presence(object).unwrap().unwrap().presence, Presence::Complete);
    let other = ObjectId(bench.index.allocate().await.unwrap());
    assert!(!attach(other, Presence::Complete).await.unwrap());
    assert_eq!(bench.index.garbage(9).unwrap(), [other]);
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn detached_bytes_leave_a_cold_file() {
    let bench = Bench::new();
    let (node, object) = bench.put_with_content("f", "v1").await;
    bench.index.detach(object).await.unwrap();
    assert_eq!(bench.index.node(node.ino).unwrap().unwrap().local, None);
    assert!(bench.index.presence(object).unwrap().is_none());
    assert_eq!(bench.index.garbage(9).unwrap(), [object]);

    // an object that lost its inode to a newer one takes nothing from that
    let (_, newer) = bench.put_with_content("f", "v1").await;
    bench.index.detach(object).await.unwrap();
    assert_eq!(bench.index.node(node.ino).unwrap().unwrap().local.unwrap().object, newer);
}

#[tokio::test]
async fn garbage_is_announced_and_forgotten_when_collected() {
    let bench = Bench::new();
    let (_, first) = bench.put_with_content("f", "v1").await;
    bench.put("f", "v2").await;
    bench.index.garbage_added().await;
    let bench = bench.reopen();
    bench.index.garbage_added().await;
    assert_eq!(bench.index.garbage(9).unwrap(), [first]);
    bench.index.collected(vec![first]).await.unwrap();
    assert!(bench.index.garbage(9).unwrap().is_empty());
}

#[tokio::test]
async fn objects_and_files_are_walked_in_order() {
    let bench = Bench::new();
    let (a, one) = bench.put_with_content("d/a", "v1").await;
    let (b, two) = bench.put_with_content("b", "v1").await;
    let ids = |rows: Vec<(ObjectId, ObjectRow)>| rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(bench.index.objects(None, 9).unwrap()), [one, two]);
    assert_eq!(ids(bench.index.objects(Some(one), 9).unwrap()), [two]);
    let inos = |nodes: Vec<Arc<Node>>| nodes.iter().map(|node| node.ino).collect::<Vec<_>>();
    assert_eq!(inos(bench.index.files(Ino(0), 9).unwrap()), [a.ino, b.ino]);
    assert_eq!(inos(bench.index.files(a.ino, 9).unwrap()), [b.ino]);
    assert_eq!(inos(bench.index.files(Ino(0), 1).unwrap()), [a.ino]);
}
