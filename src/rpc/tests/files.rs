//! Replies that end in bytes of a file or of memory: exact, padded, and never stuck on what is not there.

use std::io::Write as _;
use std::path::Path;

use super::*;

/// Larger than the largest READ, so that ranges may begin anywhere.
const FILE_LEN: usize = (4 << 20) + 64;

/// A file whose every 4 bytes say where they are.
fn numbered_file() -> (File, Vec<u8>) {
    numbered_file_in(&std::env::temp_dir())
}

/// The same in a certain place.
pub(super) fn numbered_file_in(dir: &Path) -> (File, Vec<u8>) {
    let content: Vec<u8> = (0..FILE_LEN as u32 / 4).flat_map(u32::to_be_bytes).collect();
    let mut file = tempfile::tempfile_in(dir).unwrap();
    file.write_all(&content).unwrap();
    (file, content)
}

pub(super) fn read_args(offset: u64, len: u32) -> Vec<u8> {
    let mut args = Vec::new();
    args.put_u64(offset);
    args.put_u32(len);
    args
}

async fn assert_reads_are_exact(file: File, content: &[u8]) {
    let server = Server::of(file, Limits::default());
    let mut client = server.connect().await;
    let sizes = [0, 1, 2, 3, 4, 4096, (32 << 10) - 1, 32 << 10, (32 << 10) + 1, 128 << 10, (1 << 20) - 1, 1 << 20];
    for len in sizes {
        for offset in [0, 1, 61] {
            let mut expected = Vec::new();
            expected.put_opaque(&content[offset..offset + len]);
            let reply = client.call(7, FILE, &read_args(offset as u64, len as u32)).await;
            assert!(reply == success(7, &expected), "{len} bytes from {offset}");
        }
    }
}

#[tokio::test]
async fn file_tails_are_exact_at_every_size() {
    let (file, content) = numbered_file();
    assert_reads_are_exact(file, &content).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn file_tails_that_are_not_in_memory_are_exact_too() {
    let (file, content) = numbered_file();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_reads_are_exact(file, &content).await;
}

#[tokio::test]
async fn memory_tails_are_exact_at_every_size() {
    let server = Server::start();
    let mut client = server.connect().await;
    for len in [0, 1, 3, 4, 4096, (32 << 10) + 1, 1 << 20] {
        let mut expected = Vec::new();
        expected.put_opaque(&vec![0x5a; len]);
        let reply = client.call(7, BYTES, &words(&[len as u32])).await;
        assert!(reply == success(7, &expected), "{len} bytes");
    }
}

#[tokio::test]
async fn pipelined_tails_of_all_kinds_keep_their_places() {
    let (file, content) = numbered_file();
    let server = Server::of(file, Limits::default());
    let mut client = server.connect().await;
    let asked: Vec<(u32, u32, u32)> = (0..200)
        .map(|xid| (xid, [FILE, BYTES, FILE, NULL][xid as usize % 4], [5, 40_001, 70_003, 0][xid as usize % 4]))
        .collect();
    let (mut read, mut write) = client.stream.split();
    let calls: Vec<u8> = asked
        .iter()
        .flat_map(|(xid, procedure, len)| {
            let args = if *procedure == FILE { read_args(0, *len) } else { words(&[*len]) };
            call(*xid, *procedure, &args)
        })
        .collect();
    let sending = async { write.write_all(&calls).await.unwrap() };
    let receiving = async {
        for _ in &asked {
            let mut mark = [0; 4];
            read.read_exact(&mut mark).await.unwrap();
            let mut reply = vec![0; (u32::from_be_bytes(mark) & !(1 << 31)) as usize];
            read.read_exact(&mut reply).await.unwrap();
            // a file that the OS cannot tell to be in memory may be overtaken
            let (xid, procedure, len) = asked[u32::from_be_bytes(*reply.first_chunk().unwrap()) as usize];
            let mut expected = Vec::new();
            match procedure {
                FILE => expected.put_opaque(&content[..len as usize]),
                BYTES => expected.put_opaque(&vec![0x5a; len as usize]),
                _ => {}
            }
            assert!(reply == success(xid, &expected), "reply {xid}");
        }
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn a_file_that_is_shorter_than_promised_is_a_system_error_while_that_can_be_said() {
    let (file, _) = numbered_file();
    let server = Server::of(file, Limits::default());
    let mut client = server.connect().await;
    for len in [100, 100_000] {
        let reply = client.call(7, FILE, &read_args(FILE_LEN as u64 - 50, len)).await;
        assert_eq!(reply, words(&[7, 1, 0, 0, 0, 5]), "{len} bytes");
    }
    client.ping(8).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_shrinks_under_its_reply_ends_the_connection() {
    use crate::rpc::output::{Insert, Output};

    let (file, _) = numbered_file();
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut output = Output::default();
    output.insert(Insert::File(FileRange { file: Arc::new(file), offset: FILE_LEN as u64, len: 100 }));
    stream.writable().await.unwrap();
    assert_eq!(output.send_some(&stream).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}
