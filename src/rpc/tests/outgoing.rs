//! Calls to others: to our own server, and to peers that lie, are silent or lose datagrams.

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::rpc::outgoing::{self, CallError, Request, Route, Transport};

/// Never reached by a test that passes.
const LONG: Duration = Duration::from_secs(20);

fn request(procedure: u32, args: &[u8]) -> Request<'_> {
    Request { program: PROGRAM, version: 3, procedure, credentials: None, args }
}

fn echo_args(len: usize) -> Vec<u8> {
    let mut args = Vec::new();
    args.put_opaque(&vec![7; len]);
    args
}

/// A peer over UDP that answers the `n`-th datagram it gets by what `answers` makes of it.
async fn datagram_peer(
    mut answers: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        for n in 0.. {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answers(n, &buffer[..len]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    (addr, task)
}

/// A peer over TCP that answers the first bytes of one connection with `answer`.
async fn stream_peer(answer: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 2048];
        let len = stream.read(&mut buffer).await.unwrap();
        stream.write_all(&answer(&buffer[..len])).await.unwrap();
        stream.shutdown().await.unwrap();
        // until the caller has read it
        let _ = stream.read(&mut buffer).await;
    });
    addr
}

fn xid_of(call: &[u8]) -> u32 {
    Reader::new(call).u32().unwrap()
}

async fn call_udp(to: SocketAddr, deadline: Duration) -> Result<Vec<u8>, CallError> {
    outgoing::call(&Route::new(Transport::Udp, to), &request(ECHO, &[]), deadline).await
}

async fn call_tcp(to: SocketAddr, procedure: u32, args: &[u8]) -> Result<Vec<u8>, CallError> {
    outgoing::call(&Route::new(Transport::Tcp, to), &request(procedure, args), LONG).await
}

#[tokio::test]
async fn a_call_over_tcp_has_the_result() {
    let server = Server::start();
    let args = echo_args(60_000);
    assert_eq!(call_tcp(server.addr, ECHO, &args).await.unwrap(), args);
}

#[tokio::test]
async fn credentials_arrive_as_they_are_and_with_at_most_16_groups() {
    let server = Server::start();
    let credentials = Credentials { uid: 4, gid: 5, gids: (0..20).collect() };
    let request = Request { credentials: Some(&credentials), ..request(WHO, &[]) };
    let result = outgoing::call(&Route::new(Transport::Tcp, server.addr), &request, LONG).await;
    assert_eq!(result.unwrap(), words(&[4, 5, 16]));
}

#[tokio::test]
async fn a_refusal_says_which() {
    let server = Server::start();
    let refused =
        async |request: &Request<'_>| match outgoing::call(&Route::new(Transport::Tcp, server.addr), request, LONG)
            .await
        {
            Err(CallError::Refused(refusal)) => refusal,
            other => panic!("{other:?} is no refusal"),
        };
    assert_eq!(refused(&request(99, &[])).await, Refusal::ProcedureUnavailable);
    assert_eq!(refused(&request(ECHO, &[])).await, Refusal::GarbageArgs);
    assert_eq!(refused(&request(SYSTEM_ERROR, &[])).await, Refusal::SystemError);
    assert_eq!(refused(&request(WHO, &[])).await, Refusal::AuthTooWeak);
    assert_eq!(
        refused(&Request { version: 9, ..request(ECHO, &[]) }).await,
        Refusal::ProgramMismatch { low: 2, high: 3 }
    );
    assert_eq!(refused(&Request { program: 1, ..request(ECHO, &[]) }).await, Refusal::ProgramUnavailable);
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_with_the_same_xid() {
    let mut first = None;
    let (addr, _peer) = datagram_peer(move |n, call| {
        if n == 0 {
            first = Some(call.to_vec());
            return Vec::new();
        }
        assert_eq!(first.as_deref(), Some(call));
        vec![success(xid_of(call), &words(&[42]))]
    })
    .await;
    assert_eq!(call_udp(addr, LONG).await.unwrap(), words(&[42]));
}

#[tokio::test]
async fn datagrams_that_are_no_reply_to_the_call_are_passed_over() {
    let (addr, _peer) = datagram_peer(|_, call| {
        let xid = xid_of(call);
        let mut a_call = success(xid, &[]);
        a_call[7] = 0;
        vec![
            Vec::new(),
            b"xyz".to_vec(),
            success(xid.wrapping_add(1), &words(&[666])),
            a_call,
            success(xid, &[])[..20].to_vec(),
            success(xid, &words(&[42])),
        ]
    })
    .await;
    assert_eq!(call_udp(addr, LONG).await.unwrap(), words(&[42]));
}

#[tokio::test]
async fn an_answer_from_another_address_does_not_count() {
    let forger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let peer = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let xid = xid_of(&buffer[..len]);
        forger.send_to(&success(xid, &words(&[666])), from).unwrap();
        socket.send_to(&success(xid, &words(&[42])), from).await.unwrap();
    });
    assert_eq!(call_udp(addr, LONG).await.unwrap(), words(&[42]));
    soon(peer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let begun = tokio::time::Instant::now();
    let ended = call_udp(socket.local_addr().unwrap(), Duration::from_secs(3)).await;
    assert!(matches!(ended, Err(CallError::TimedOut)), "{ended:?}");
    assert_eq!(begun.elapsed().as_secs(), 3);
    let mut sent = 0;
    while socket.try_recv(&mut [0; 2048]).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 3, "at 0, 0.5 and 1.5 s");
}

#[tokio::test]
async fn nobody_there_is_known_at_once() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = call_tcp(gone, ECHO, &[]).await;
    assert!(matches!(&ended, Err(CallError::Io(_))), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_answers_something_else_ends_the_call() {
    let stray = stream_peer(|call| record(&success(xid_of(&call[4..]).wrapping_add(1), &[]))).await;
    assert!(matches!(call_tcp(stray, ECHO, &[]).await, Err(CallError::Malformed)));
    let huge = stream_peer(|_| words(&[u32::MAX])).await;
    assert!(matches!(call_tcp(huge, ECHO, &[]).await, Err(CallError::Malformed)));
    let nothing = stream_peer(|_| b"\0\0".to_vec()).await;
    assert!(matches!(call_tcp(nothing, ECHO, &[]).await, Err(CallError::Io(_))));
}

#[tokio::test]
async fn a_message_is_sent_and_nothing_is_waited_for() {
    let (seen, mut calls) = tokio::sync::mpsc::channel(1);
    let (addr, _peer) = datagram_peer(move |_, call| {
        seen.try_send(call.to_vec()).unwrap();
        Vec::new()
    })
    .await;
    outgoing::send(&Route::new(Transport::Udp, addr), &request(ECHO, b"args"), LONG).await.unwrap();
    let call = soon(calls.recv()).await.unwrap();
    assert_eq!(call[4..], [words(&[0, 2, PROGRAM, 3, ECHO, 0, 0, 0, 0]), b"args".to_vec()].concat());

    let server = Server::start();
    outgoing::send(&Route::new(Transport::Tcp, server.addr), &request(WAIT, &words(&[0])), LONG).await.unwrap();
    server.program.waiting(1).await;
}

#[tokio::test]
async fn the_receiver_sees_the_address_and_the_kind_of_port_that_were_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = "127.0.0.1".parse().unwrap();
    let to = listener.local_addr().unwrap();
    let route = Route { from: Some(from), reserved_port: true, ..Route::new(Transport::Tcp, to) };
    match outgoing::send(&route, &request(NULL, &[]), LONG).await {
        Ok(()) => {
            let peer = listener.accept().await.unwrap().1;
            assert_eq!(peer.ip(), from);
            assert!(peer.port() < 1024, "{peer}");
        }
        // who may not have such a port is told so
        Err(error) => assert!(matches!(error, CallError::NoReservedPort(_)), "{error:?}"),
    }
}
