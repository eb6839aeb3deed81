//! An index spoilt by hand is sound after its repair, and has all the bytes that only this disk has.

use super::check::{Inodes, Spoil, bench, edit, spoils};
use super::*;

async fn repaired(spoil: Spoil) -> (Bench, Inodes, Vec<Rescued>) {
    let (bench, all) = bench().await;
    bench.index.writer.run(1, move |change| spoil(change, &all)).await.unwrap();
    assert_ne!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    let rescued = bench.index.repair().await.unwrap();
    (bench, all, rescued)
}

/// That an entry below the root names `ino`, whose bytes are to be uploaded.
fn owns(bench: &Bench, staged: ObjectId) {
    let row = bench.index.staged(staged).unwrap().expect("the bytes have an owner");
    let node = bench.index.node(row.ino).unwrap().expect("which is there");
    assert_eq!(node.staged, Some(staged));
    assert!(bench.index.pending(row.ino).unwrap().unwrap().content);
    let key = bench.index.key(row.ino).unwrap().unwrap();
    assert_eq!(bench.index.resolve(&key).unwrap().unwrap().ino, row.ino, "{key}");
}

#[tokio::test]
async fn each_contradiction_is_repaired_and_no_byte_of_here_is_lost() {
    for (words, spoil) in spoils() {
        let (bench, all, rescued) = repaired(*spoil).await;
        let left = bench.index.contradictions().unwrap();
        assert_eq!(left, Vec::<String>::new(), "{words}: {rescued:?}");
        owns(&bench, all.staged);
        let moved = bench.index.node(all.moved).unwrap().unwrap();
        assert_eq!(bench.index.key(moved.ino).unwrap(), Key::new("moved"), "{words}");
        assert_eq!(bench.index.remote_key(moved.ino).unwrap(), Key::new("old"), "{words}");
        let file = bench.index.node(all.file).unwrap();
        let dir = bench.index.node(all.below).unwrap();
        assert!(file.is_some() || dir.is_none_or(|dir| !dir.listed), "{words}: what is not here is looked for in S3");
        assert_eq!(bench.index.repair().await.unwrap(), [], "{words}: once is enough");
        // what the next process reads is what this one has in memory
        let bench = bench.reopen();
        assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new(), "{words}");
        owns(&bench, all.staged);
    }
}

#[tokio::test]
async fn directories_in_a_circle_come_to_light_in_the_root() {
    let (bench, all, rescued) = repaired(|change, all| {
        let component = change.row(all.dir)?.unwrap().inode.component;
        let child = change.child(Ino::ROOT, &component)?.unwrap();
        change.unlink(Ino::ROOT, &component, child)?;
        change.link(all.below, &component, all.dir, child.cookie)?;
        edit(change, all.dir, |inode| inode.parent = all.below)
    })
    .await;
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    assert_eq!(rescued.len(), 1);
    owns(&bench, all.staged);
    let key = bench.index.key(all.file).unwrap().unwrap();
    assert!(key.as_str().starts_with("fasts3-recovered-") && key.as_str().ends_with("e/file"), "{key}");
}

#[tokio::test]
async fn written_bytes_of_a_lost_inode_become_a_file_of_their_own() {
    let (bench, all, rescued) = repaired(|change, all| {
        change.put_staged(all.staged, &StagedRow { ino: all.new, base_len: 0, ranges: vec![0..7] })?;
        change.tables.inodes.insert(all.new.0, [9; 3].as_slice())?;
        change.dirty = true;
        Ok(())
    })
    .await;
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    let node = bench.child(Ino::ROOT, &rescued[0].name).unwrap();
    assert_eq!((node.staged, node.size, node.mode), (Some(all.staged), 7, 0o600));
    assert_eq!(rescued[0].name, format!("fasts3-recovered-{}", all.staged.0));
    owns(&bench, all.staged);
}

#[tokio::test]
async fn a_change_whose_row_is_lost_goes_beside_the_version_of_s3() {
    let (bench, all) = bench().await;
    let staged = bench.stage(all.file).await;
    bench.index.writer.run(1, move |change| change.remove_staged(staged)).await.unwrap();
    let rescued = bench.index.repair().await.unwrap();
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    let (file, beside) = (bench.get(all.file), bench.child(Ino::ROOT, &rescued[0].name).unwrap());
    assert_eq!((file.staged, file.size, bench.index.pending(all.file).unwrap()), (None, 3, None));
    assert_eq!(beside.staged, Some(staged));
    owns(&bench, staged);
}

#[tokio::test]
async fn a_new_file_whose_name_is_taken_gets_another() {
    let (bench, all, rescued) = repaired(|change, all| {
        let component = change.row(all.new)?.unwrap().inode.component;
        let child = change.child(all.dir, &component)?.unwrap();
        change.dirty = true;
        change.unlink(all.dir, &component, child)?;
        change.link(all.dir, &component, all.file, child.cookie)
    })
    .await;
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    assert_eq!(bench.index.key(all.new).unwrap(), Key::new("d/new"), "the other one has its own entry: {rescued:?}");
    owns(&bench, all.staged);
}

#[tokio::test]
async fn journal_rows_that_cannot_be_read_lose_no_change() {
    let (bench, all, _) = repaired(|change, all| {
        change.dirty = true;
        for ino in [all.new, all.moved, all.file] {
            change.tables.pending.insert(ino.0, [9; 3].as_slice())?;
        }
        change.tables.away.insert("else", [9; 3].as_slice())?;
        change.tables.moved.insert("elsewhere/", all.dir.0)?;
        Ok(())
    })
    .await;
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    owns(&bench, all.staged);
    assert!(bench.index.pending(all.moved).unwrap().unwrap().place);
    assert!(bench.index.pending(all.file).unwrap().unwrap().attributes);
}

#[tokio::test]
async fn a_sound_index_is_left_as_it_is() {
    let (bench, all) = bench().await;
    let before = (bench.get(all.new).inode.clone(), bench.index.counts(), bench.index.backlog());
    assert_eq!(bench.index.repair().await.unwrap(), []);
    assert_eq!((bench.get(all.new).inode.clone(), bench.index.counts(), bench.index.backlog()), before);
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
}
