//! Attributes set here of what was never described: they change, and the others stay what S3 says.

use super::*;

const THEIRS: [(&str, &str); 5] = [
    ("file-permissions", "0100640"),
    ("file-owner", "77"),
    ("file-group", "78"),
    ("file-mtime", "5000000000ns"),
    ("file-atime", "6000000000ns"),
];

const NONE: NewAttributes = NewAttributes { mode: None, uid: None, gid: None, atime: None, mtime: None };

/// What S3 has of `key`: mode, owner, group, mtime, atime.
fn told(rig: &Rig, key: &str) -> [String; 5] {
    let user = rig.bucket.get(key).unwrap().user;
    THEIRS.map(|(name, _)| user[name].clone())
}

/// What is here of `path`.
fn here(rig: &Rig, path: &str) -> (u32, u32, u32, i64) {
    let node = rig.node(path);
    (node.mode, node.uid, node.gid, node.mtime.seconds())
}

/// A file that was listed, and not described.
async fn listed(key: &str) -> Rig {
    let rig = Rig::new().await;
    rig.bucket.put_as(key, "bytes", None, &THEIRS);
    rig.refresh().await;
    assert!(!rig.node(key.trim_end_matches('/')).attributes_known);
    rig
}

#[tokio::test]
async fn what_is_set_of_a_file_never_described_is_all_that_changes() {
    let cases = [
        (NewAttributes { mode: Some(0o600), ..NONE }, ["0100600", "77", "78", "5000000000ns", "6000000000ns"]),
        (NewAttributes { uid: Some(9), ..NONE }, ["0100640", "9", "78", "5000000000ns", "6000000000ns"]),
        (NewAttributes { gid: Some(9), ..NONE }, ["0100640", "77", "9", "5000000000ns", "6000000000ns"]),
        (NewAttributes { mtime: Some(Time(9)), ..NONE }, ["0100640", "77", "78", "9ns", "6000000000ns"]),
        (NewAttributes { atime: Some(Time(9)), ..NONE }, ["0100640", "77", "78", "5000000000ns", "9ns"]),
    ];
    for (new, wanted) in cases {
        let rig = listed("f").await;
        rig.set("f", new).await;
        rig.sync().await;
        assert_eq!(told(&rig, "f"), wanted, "{new:?}");
    }
}

#[tokio::test]
async fn what_is_set_stays_when_s3_tells_the_rest_before_the_upload() {
    let rig = listed("f").await;
    rig.chmod("f", 0o600).await;
    within(rig.revalidator.describe(rig.node("f").ino)).await;
    assert_eq!(here(&rig, "f"), (0o600, 77, 78, 5));
    rig.sync().await;
    assert_eq!(told(&rig, "f"), ["0100600", "77", "78", "5000000000ns", "6000000000ns"]);
}

#[tokio::test]
async fn what_is_set_stays_through_a_restart() {
    let rig = listed("f").await;
    rig.set("f", NewAttributes { uid: Some(9), ..NONE }).await;
    let rig = rig.crash().await;
    rig.sync().await;
    assert_eq!(told(&rig, "f"), ["0100640", "9", "78", "5000000000ns", "6000000000ns"]);
    within(rig.revalidator.describe(rig.node("f").ino)).await;
    assert_eq!(here(&rig, "f"), (0o640, 9, 78, 5));
}

#[tokio::test]
async fn bytes_written_to_a_file_never_described_leave_its_mode_and_owner() {
    let rig = listed("f").await;
    rig.write("f", "other bytes").await;
    let mtime = rig.node("f").mtime;
    rig.sync().await;
    assert_eq!(told(&rig, "f"), ["0100640", "77", "78", &format!("{}ns", mtime.0), "6000000000ns"]);

    let rig = listed("f").await;
    rig.write("f", "other bytes").await;
    rig.set("f", NewAttributes { gid: Some(9), mtime: Some(Time(9)), ..NONE }).await;
    rig.sync().await;
    assert_eq!(told(&rig, "f"), ["0100640", "77", "9", "9ns", "6000000000ns"]);
    assert_eq!(rig.stored("f").as_deref(), Some("other bytes"));
}

#[tokio::test]
async fn what_is_set_of_a_directory_never_described_is_all_that_changes() {
    for (mode, wanted) in [(0o711, "0040711"), (0o755, "0040755")] {
        let rig = listed("d/").await;
        rig.bucket.put("d/f", "x", &[]);
        rig.list(rig.node("d").ino).await;
        rig.chmod("d", mode).await;
        rig.sync().await;
        assert_eq!(told(&rig, "d/")[..3], [wanted, "77", "78"], "also where it is the default of directories");
        assert_eq!((rig.conflicts().len(), rig.bucket.len()), (0, 2));
    }
}

#[tokio::test]
async fn a_renamed_directory_never_described_takes_its_attributes_along() {
    let rig = listed("d/").await;
    rig.bucket.put("d/f", "x", &[]);
    rig.list(rig.node("d").ino).await;
    rig.rename("d", "e").await;
    rig.set("e", NewAttributes { gid: Some(9), ..NONE }).await;
    rig.sync().await;
    assert_eq!(told(&rig, "e/")[..3], ["0040640", "77", "9"]);
    assert_eq!(rig.bucket.keys(), ["e/", "e/f"]);
}
