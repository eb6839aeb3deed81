//! Bytes that no honest peer sends. Nothing here may panic, grow or hang.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream as StdStream};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::rpc::message::Message;
use crate::rpc::record::Input;

/// Takes `stream` in chunks as they come, and gives all records out.
fn records(stream: &[u8], chunks: &[usize], max_record: usize) -> Vec<Vec<u8>> {
    let mut input = Input::new(max_record);
    let (mut rest, mut found) = (stream, Vec::new());
    let mut chunks = chunks.iter().copied().cycle();
    while !rest.is_empty() {
        let room = input.room();
        let n = chunks.next().unwrap_or(1).min(room.len()).min(rest.len());
        room[..n].copy_from_slice(&rest[..n]);
        input.filled(n);
        rest = &rest[n..];
        loop {
            match input.next() {
                Ok(Some(place)) => found.push(input.bytes(&place).to_vec()),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
        input.relax();
    }
    assert!(!input.is_partial() || !found.is_empty() || !stream.is_empty());
    found
}

/// `content` in fragments of at most `size`.
fn fragments(content: &[u8], size: usize) -> Vec<u8> {
    let mut pieces = content.chunks(size).peekable();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { 1 << 31 } else { 0 };
        bytes.put_u32(piece.len() as u32 | last);
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// Mostly plausible calls: the deeper paths are behind a right header.
fn nearly_a_call() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![0_u32..20, any::<u32>()];
    let header = (any::<u32>(), 0_u32..2, 1_u32..4, prop_oneof![Just(PROGRAM), any::<u32>()], 1_u32..5, 0_u32..14);
    (header, vec(small(), 0..40), any::<bool>()).prop_map(
        |((xid, kind, rpc, program, version, procedure), rest, whole)| {
            // the test program panics on demand, which is not what is tried here
            let procedure = if matches!(procedure, PANIC | COUNT_PANIC | WAIT | COUNT_WAIT) { ECHO } else { procedure };
            let rest: Vec<u32> = rest.into_iter().map(|w| w.min(1 << 24)).collect();
            let content = [words(&[xid, kind, rpc, program, version, procedure]), words(&rest)].concat();
            if whole { record(&content) } else { content }
        },
    )
}

proptest! {
    #[test]
    fn records_are_the_same_however_they_are_cut(
        contents in vec(vec(any::<u8>(), 1..3000), 1..20),
        sizes in vec(1_usize..4000, 1..20),
        chunks in vec(1_usize..70_000, 1..10),
    ) {
        let sizes = sizes.iter().cycle();
        let stream: Vec<u8> = contents.iter().zip(sizes).flat_map(|(c, size)| fragments(c, *size)).collect();
        prop_assert_eq!(records(&stream, &chunks, 3000), contents);
    }

    #[test]
    fn large_records_are_the_same_however_they_are_cut(
        lens in vec(1_usize..300_000, 1..5),
        chunks in vec(1_usize..200_000, 1..10),
        size in 1000_usize..400_000,
    ) {
        let contents: Vec<Vec<u8>> = lens.iter().map(|len| (0..*len).map(|i| (i * 31) as u8).collect()).collect();
        let stream: Vec<u8> = contents.iter().flat_map(|c| fragments(c, size)).collect();
        prop_assert!(records(&stream, &chunks, 300_000) == contents);
    }

    #[test]
    fn any_bytes_are_taken_apart_without_harm(stream in vec(any::<u8>(), 0..5000), chunk in 1_usize..5000) {
        for found in records(&stream, &[chunk], 1000) {
            prop_assert!(found.len() <= 1000);
        }
        let _ = Message::parse(&stream);
    }
}

#[test]
fn a_claimed_length_costs_no_more_than_the_limit() {
    let mut input = Input::new(1 << 20);
    input.room()[..4].copy_from_slice(&(1_u32 << 20 | 1 << 31).to_be_bytes());
    input.filled(4);
    assert!(input.next().unwrap().is_none());
    assert!(input.room().len() < (1 << 20) + (128 << 10));
    input.relax();
    input.relax();
    assert!(input.room().len() >= 1 << 20, "the record still fits after memory was given back");
}

/// The server must take whatever comes, answer or close, and go on serving others.
#[test]
fn a_server_outlives_whatever_it_is_sent() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(async { Server::start() });
    let strategy = vec(prop_oneof![4 => nearly_a_call(), 1 => vec(any::<u8>(), 0..200)], 1..10);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    runner
        .run(&strategy, |pieces| {
            let mut stream = StdStream::connect(server.addr).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // the server may have closed already
            let _ = stream.write_all(&pieces.concat()).and_then(|()| stream.shutdown(Shutdown::Write));
            let mut replies = Vec::new();
            if let Err(e) = stream.read_to_end(&mut replies) {
                prop_assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "the server neither answers nor closes");
            }
            let mut honest = StdStream::connect(server.addr).unwrap();
            honest.write_all(&call(9, NULL, &[])).unwrap();
            let mut reply = [0; 28];
            honest.read_exact(&mut reply).unwrap();
            prop_assert_eq!(&reply[4..], &success(9, &[])[..]);
            Ok(())
        })
        .unwrap();
    assert!(!server.task.is_finished());
}
