//! Rows that contradict each other, made by hand, are told; one at a time, each in its own words.

use super::super::change::Change;
use super::super::tables;
use super::*;

pub(super) type Spoil = fn(&mut Change<'_>, &Inodes) -> Result<(), IndexError>;

/// The inodes that are there to be spoilt.
#[derive(Clone, Copy)]
pub(super) struct Inodes {
    pub(super) dir: Ino,
    pub(super) below: Ino,
    pub(super) file: Ino,
    pub(super) object: ObjectId,
    pub(super) new: Ino,
    pub(super) staged: ObjectId,
    pub(super) moved: Ino,
}

/// A directory in a directory, a file with its bytes, a new file, a renamed file.
pub(super) async fn bench() -> (Bench, Inodes) {
    let bench = Bench::new();
    let (file, object) = bench.put_with_content("d/e/file", "123").await;
    bench.put("d/beside", "1").await;
    bench.put("old", "12").await;
    let moved = bench.node("old").unwrap().ino;
    bench.rename(moved, "moved").await;
    let new = bench.create("d/new").await;
    let staged = bench.index.node(new).unwrap().unwrap().staged.unwrap();
    let (dir, below) = (bench.node("d/").unwrap().ino, bench.node("d/e/").unwrap().ino);
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());
    (bench, Inodes { dir, below, file: file.ino, object, new, staged, moved })
}

pub(super) fn edit(change: &mut Change<'_>, ino: Ino, with: impl FnOnce(&mut Inode)) -> Result<(), IndexError> {
    let before = change.row(ino)?.unwrap();
    let mut after = before.clone();
    with(&mut after.inode);
    change.replace(&before, after);
    Ok(())
}

fn garbage(change: &mut Change<'_>, id: ObjectId) -> Result<(), IndexError> {
    change.tables.garbage.insert(id.0, ())?;
    change.dirty = true;
    Ok(())
}

/// Each kind of damage, and the words for it.
pub(super) fn spoils() -> &'static [(&'static str, Spoil)] {
    &[
        ("which is not below the root", |change, all| edit(change, all.dir, |inode| inode.parent = all.below)),
        ("which is not below the root", |change, all| edit(change, all.below, |inode| inode.parent = all.file)),
        ("nobody will find out what became of", |change, _| {
            change.dirty = true;
            change.tables.sent.insert("d/beside", b"[]".as_slice())?;
            Ok(())
        }),
        ("has no name", |change, all| {
            let component = change.row(all.file)?.unwrap().inode.component;
            let child = change.child(all.below, &component)?.unwrap();
            change.dirty = true;
            change.unlink(all.below, &component, child)
        }),
        ("are listed", |change, all| {
            change.tables.listing.insert(&tables::listing_key(all.dir, 1 << 50), [0; 10].as_slice())?;
            change.dirty = true;
            Ok(())
        }),
        ("the totals are", |change, all| {
            change.dirty = true;
            change.tables.inodes.remove(all.new.0)?;
            Ok(())
        }),
        ("nobody will upload it", |change, all| change.settle_pending(all.new)),
        ("its staging file has no row", |change, all| change.remove_staged(all.staged)),
        ("has 9 bytes of", |change, all| {
            change.put_staged(all.staged, &StagedRow { ino: all.new, base_len: 0, ranges: vec![0..9] })
        }),
        ("has ranges that are none", |change, all| {
            change.put_staged(all.staged, &StagedRow { ino: all.new, base_len: 0, ranges: vec![0..3, 3..7] })
        }),
        ("is of no inode", |change, all| {
            change.put_staged(ObjectId(1 << 50), &StagedRow { ino: all.file, base_len: 0, ranges: vec![] })
        }),
        ("is garbage, and in use", |change, all| garbage(change, all.staged)),
        ("is garbage, and in use", |change, all| garbage(change, all.object)),
        ("do not agree whether all of it is here", |change, all| {
            let presence = Presence::Partial(vec![0..1]);
            change.put_object(all.object, &ObjectRow { ino: all.file, size: 3, presence })
        }),
        ("its object has 4 bytes", |change, all| {
            change.put_object(all.object, &ObjectRow { ino: all.file, size: 4, presence: Presence::Complete })
        }),
        ("its object has no row", |change, all| {
            change.dirty = true;
            change.tables.objects.remove(all.object.0)?;
            Ok(())
        }),
        ("object 1125899906842624 is of no inode", |change, all| {
            change.put_object(ObjectId(1 << 50), &ObjectRow { ino: all.file, size: 3, presence: Presence::Complete })
        }),
        ("place and origin do not agree", |change, all| change.settle_pending(all.moved)),
        ("`away` has None", |change, _| change.remove_away("old")),
        ("which is not there", |change, all| {
            let away = Away { etag: ETag::new("x"), size: 1, ino: Some(all.new) };
            change.put_away(&Key::new("elsewhere").unwrap(), &away)
        }),
        ("is to be removed", |change, _| {
            let away = Away { etag: ETag::new("x"), size: 1, ino: None };
            change.put_away(&Key::new("d/beside").unwrap(), &away)
        }),
        ("is pending, and gone", |change, _| change.mark_pending(Ino(1 << 50), |pending| pending.content = true)),
        ("cannot be read", |change, all| {
            change.tables.inodes.insert(all.file.0, [9; 3].as_slice())?;
            change.dirty = true;
            Ok(())
        }),
    ]
}

#[tokio::test]
async fn each_contradiction_is_told_and_a_row_that_cannot_be_read_hides_no_other() {
    for (words, spoil) in spoils() {
        let (bench, all) = bench().await;
        let spoil = *spoil;
        bench.index.writer.run(1, move |change| spoil(change, &all)).await.unwrap();
        let told = bench.index.contradictions().unwrap();
        assert!(told.iter().any(|told| told.contains(words)), "{words}: {told:#?}");
    }
}

#[tokio::test]
async fn only_so_many_are_told_and_all_are_counted() {
    let (bench, all) = bench().await;
    let spoil = move |change: &mut Change<'_>| {
        (0..10).try_for_each(|n| change.mark_pending(Ino(all.new.0 + (1 << 50) + n), |pending| pending.content = true))
    };
    bench.index.writer.run(1, spoil).await.unwrap();
    let found = bench.index.check(3).unwrap();
    assert_eq!((found.told.len(), found.found), (3, 10));
    assert_eq!((found.inodes, found.entries), (7, 6));
}

/// Whose a key is agrees with what the reconcile function goes by.
#[tokio::test]
async fn a_key_is_found_at_its_holder_wherever_its_directory_went() {
    let (bench, all) = bench().await;
    bench.rename(all.dir, "D/").await;
    bench.put("d/of another/day", "1").await;
    let holder = |key: &str| bench.index.holder(&Key::new(key).unwrap()).unwrap();
    assert!(matches!(holder("d/e/file"), Holder::Inode(node) if node.ino == all.file));
    assert!(matches!(holder("old"), Holder::Away(away) if away.ino == Some(all.moved)));
    assert!(matches!(holder("D/e/file"), Holder::Elsewhere));
    assert!(matches!(holder("moved"), Holder::Elsewhere));
    assert!(matches!(holder("d/e/absent"), Holder::Nobody(dir) if dir.ino == all.below));
    assert!(matches!(holder("absent/x"), Holder::Nobody(dir) if dir.ino == Ino::ROOT));
}

#[tokio::test]
async fn lost_bytes_give_way_to_the_version_of_s3_and_are_noted() {
    let (bench, all) = bench().await;
    let staged = bench.stage(all.file).await;
    assert!(bench.index.lose_staged(staged).await.unwrap());
    let node = bench.index.node(all.file).unwrap().unwrap();
    assert_eq!((node.staged, node.size, node.local, node.attributes_known), (None, 3, None, false));
    assert_eq!(bench.index.pending(all.file).unwrap(), None);
    assert_eq!(bench.index.garbage(9).unwrap(), [all.object, staged]);
    assert_eq!(bench.index.conflicts().unwrap()[0].1.key, "d/e/file");
    assert_eq!(bench.index.contradictions().unwrap(), Vec::<String>::new());

    // what S3 never had stays as it is: only a person can say what is to become of it
    assert!(!bench.index.lose_staged(all.staged).await.unwrap());
    assert_eq!(bench.index.node(all.new).unwrap().unwrap().staged, Some(all.staged));
}
