//! The duplicate request cache: what must not run twice does not, and is answered all the same.

use super::*;

#[tokio::test]
async fn a_retransmission_on_a_new_connection_gets_the_first_reply() {
    let server = Server::start();
    let first = server.connect().await.call(7, COUNT, &[]).await;
    let again = server.connect().await.call(7, COUNT, &[]).await;
    assert_eq!(first, success(7, &words(&[1])));
    assert_eq!(again, first);
    assert_eq!(server.program.runs(), 1);
}

#[tokio::test]
async fn another_xid_or_other_arguments_are_another_call() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.call(7, COUNT, &[]).await;
    assert_eq!(client.call(8, COUNT, &[]).await, success(8, &words(&[2])));
    assert_eq!(client.call(7, COUNT, &words(&[1])).await, success(7, &words(&[3])));
}

#[tokio::test]
async fn a_duplicate_of_a_call_under_way_waits_for_its_reply() {
    let server = Server::start();
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    let bytes = call(7, COUNT_WAIT, &words(&[0]));
    one.send(&bytes).await;
    server.program.waiting(1).await;
    two.send(&[bytes, call(8, NULL, &[])].concat()).await;
    assert_eq!(two.receive().await, Some(success(8, &[])), "the duplicate has arrived");
    server.program.open(0);
    assert_eq!(two.receive().await, Some(success(7, &words(&[1]))));
    assert_eq!(one.receive().await, Some(success(7, &words(&[1]))));
    assert_eq!(server.program.runs(), 1);
}

#[tokio::test]
async fn a_duplicate_on_the_same_connection_is_answered_once() {
    let server = Server::start();
    let mut client = server.connect().await;
    let bytes = call(7, COUNT_WAIT, &words(&[0]));
    client.send(&[bytes.clone(), bytes, call(8, NULL, &[])].concat()).await;
    assert_eq!(client.receive().await, Some(success(8, &[])));
    server.program.open(0);
    assert_eq!(client.receive().await, Some(success(7, &words(&[1]))));
    client.ping(9).await;
    assert_eq!(server.program.runs(), 1);
}

#[tokio::test]
async fn a_call_ends_although_its_connection_did_not_last() {
    let server = Server::start();
    let bytes = call(7, COUNT_WAIT, &words(&[0]));
    let mut one = server.connect().await;
    one.send(&bytes).await;
    server.program.waiting(1).await;
    socket2::SockRef::from(&one.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(one);
    let mut two = server.connect().await;
    two.send(&[bytes, call(8, NULL, &[])].concat()).await;
    assert_eq!(two.receive().await, Some(success(8, &[])));
    server.program.open(0);
    assert_eq!(two.receive().await, Some(success(7, &words(&[1]))));
    assert_eq!(server.program.runs(), 1);
}

#[tokio::test]
async fn the_oldest_reply_goes_when_there_are_too_many() {
    let limits = Limits { drc: DrcLimits { entries: 2, ..Limits::default().drc }, ..Limits::default() };
    let server = Server::with(limits);
    let mut client = server.connect().await;
    for xid in [1, 2, 3] {
        client.call(xid, COUNT, &[]).await;
    }
    assert_eq!(client.call(3, COUNT, &[]).await, success(3, &words(&[3])));
    assert_eq!(client.call(2, COUNT, &[]).await, success(2, &words(&[2])));
    assert_eq!(client.call(1, COUNT, &[]).await, success(1, &words(&[4])), "forgotten, so run again");
}

#[tokio::test]
async fn replies_beyond_the_byte_limit_are_not_kept() {
    let limits = Limits { drc: DrcLimits { bytes: 40, ..Limits::default().drc }, ..Limits::default() };
    let server = Server::with(limits);
    let mut client = server.connect().await;
    client.call(1, COUNT, &[]).await;
    client.call(2, COUNT, &[]).await;
    assert_eq!(client.call(2, COUNT, &[]).await, success(2, &words(&[2])));
    assert_eq!(client.call(1, COUNT, &[]).await, success(1, &words(&[3])));
}

#[tokio::test]
async fn a_call_that_panicked_may_run_again() {
    let server = Server::start();
    let mut one = server.connect().await;
    one.send(&call(7, COUNT_PANIC, &[])).await;
    one.assert_closed().await;
    assert_eq!(server.connect().await.call(7, COUNT_PANIC, &[]).await, success(7, &words(&[2])));
}

#[tokio::test]
async fn stop_waits_for_a_call_whose_connection_is_gone() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&call(7, COUNT_WAIT, &words(&[0]))).await;
    server.program.waiting(1).await;
    drop(client);
    server.stop.cancel();
    server.program.open(0);
    soon(server.task).await.unwrap();
}
