//! Reads and writes of one file.

use super::*;

#[tokio::test]
async fn write_of_nothing_changes_nothing_and_one_beyond_all_files_is_refused() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    let version = staged.version();
    let (before, after) = rig.write(&staged, 100, b"").await.unwrap();
    assert_eq!((before, staged.version()), (after, version));
    for offset in [u64::MAX, i64::MAX as u64] {
        assert_eq!(rig.write(&staged, offset, b"x").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
    assert!(!rig.has_staging(staged.id()));
}

#[tokio::test]
async fn read_tells_the_version_and_misses_what_the_base_lacks() {
    let rig = Rig::roomy();
    let staged = rig.staged_over(&pattern(100), &[0..40]).await;
    rig.write(&staged, 30, b"abc").await.unwrap();
    let base = rig.base(&staged).unwrap();
    let below = Below::Version(base.clone());
    let (bytes, version) = staged.read(29..34, Some(&below)).unwrap();
    assert_eq!((&bytes[..], version), (&[30, b'a', b'b', b'c', 34][..], staged.version()));
    let lacking = staged.read(29..41, Some(&below)).unwrap_err();
    assert_eq!(lacking.kind(), io::ErrorKind::UnexpectedEof);
    let (left, _) = staged.read(38..42, Some(&Below::Remains(Some(base)))).unwrap();
    assert_eq!(left[..], [39, 40, 0, 0], "what S3 has no more and is not here is zeros");
    let (left, _) = staged.read(32..34, Some(&Below::Remains(None))).unwrap();
    assert_eq!(left[..], [b'c', 0]);
    assert_eq!(staged.read(29..34, None).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "that it is held is what the test is about")]
async fn read_waits_for_a_write_that_has_begun() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 0, &[1; 8]).await.unwrap();
    let writing = staged.gate.read();
    let (begun, has_begun) = oneshot::channel();
    let reading = tokio::task::spawn_blocking({
        let staged = staged.clone();
        move || {
            begun.send(()).unwrap();
            staged.read(0..8, None).unwrap()
        }
    });
    has_begun.await.unwrap();
    write_all_at(&staged.file().unwrap(), &[2; 8], 0).unwrap();
    staged.state.lock().wrote(0..8, (Tick(1), Time(1)), u64::MAX);
    drop(writing);
    let (bytes, version) = reading.await.unwrap();
    assert!(version == u64::MAX && bytes == [2; 8][..] || version < u64::MAX && bytes == [1; 8][..]);
}

#[tokio::test]
async fn only_what_is_small_whole_and_left_alone_is_read_at_once() {
    let rig = Rig::roomy();
    let staged = rig.made("f").await;
    rig.write(&staged, 10, b"hello").await.unwrap();
    let (bytes, version) = staged.read_at_once().unwrap();
    assert_eq!((&bytes[..], version), (&b"\0\0\0\0\0\0\0\0\0\0hello"[..], staged.version()));
    let writing = staged.gate.read();
    assert!(staged.read_at_once().is_none(), "somebody writes");
    drop(writing);
    rig.write(&staged, file::AT_ONCE_BYTES - 1, b"!").await.unwrap();
    assert_eq!(staged.read_at_once().unwrap().0.len() as u64, file::AT_ONCE_BYTES);
    rig.write(&staged, file::AT_ONCE_BYTES, b"!").await.unwrap();
    assert!(staged.read_at_once().is_none(), "it is long");
    let rig = Rig::roomy();
    let over = rig.staged_over(&pattern(100), &[0..100]).await;
    rig.write(&over, 30, b"abc").await.unwrap();
    assert!(over.read_at_once().is_none(), "the rest is below");
}
