//! Who is let in: what a stranger is told, what it costs, and whom a grant takes the callers for.

use super::*;
use crate::rpc::server::STRANGERS;

/// Lets everybody in by this grant, or nobody.
struct All(Option<Grant>);

impl Gate for All {
    fn admit(&self, _peer: SocketAddr) -> Option<Grant> {
        self.0
    }
}

fn server(grant: Option<Grant>) -> Server {
    Server::behind(Arc::new(All(grant)), tempfile::tempfile().unwrap(), Limits::default())
}

#[tokio::test]
async fn a_stranger_gets_a_refusal_and_no_program_sees_its_call() {
    let server = server(None);
    let mut client = server.connect().await;
    for procedure in [ECHO, COUNT, WHO, 99] {
        assert_eq!(client.call(7, procedure, &[]).await, words(&[7, 1, 1, 1, 5]), "procedure {procedure}");
    }
    assert_eq!(client.call(7, TURNED_AWAY_BY_RESULT, &[]).await, success(7, &words(&[13])));
    assert_eq!(server.program.runs(), 0);
}

/// Clients ask for versions and ping before they mount; only then do they show their user what they are told.
#[tokio::test]
async fn a_stranger_may_ping_and_is_told_of_versions() {
    let server = server(None);
    let mut client = server.connect().await;
    client.ping(7).await;
    client.send(&record(&words(&[8, 0, 2, PROGRAM, 9, 0, 0, 0, 0, 0]))).await;
    assert_eq!(client.receive().await, Some(words(&[8, 1, 0, 0, 0, 2, 2, 3])));
    client.send(&record(&words(&[9, 0, 2, PROGRAM + 1, 1, 0, 0, 0, 0, 0]))).await;
    assert_eq!(client.receive().await, Some(words(&[9, 1, 0, 0, 0, 1])));
}

#[tokio::test]
async fn a_connection_carries_many_refusals() {
    let server = server(None);
    let mut client = server.connect().await;
    let calls: Vec<u8> = (0..1000).flat_map(|xid| call(xid, COUNT, &[])).collect();
    client.send(&calls).await;
    for xid in 0..1000 {
        assert_eq!(client.receive().await, Some(words(&[xid, 1, 1, 1, 5])));
    }
}

#[tokio::test]
async fn strangers_have_few_places() {
    let server = server(None);
    let mut strangers = Vec::new();
    for xid in 0..STRANGERS as u32 {
        let mut client = server.connect().await;
        client.ping(xid).await;
        strangers.push(client);
    }
    server.connect().await.assert_closed().await;
    drop(strangers.pop());
    let mut next = server.connect().await;
    // the place is free when the end of the other connection was seen
    while next.receive_after(&call(7, NULL, &[])).await.is_none() {
        next = server.connect().await;
    }
}

#[tokio::test]
async fn a_grant_is_carried_in_the_call_and_squashes_its_caller() {
    let squash = Squash::All(65, 66);
    let server = server(Some(Grant { read_only: true, squash }));
    let mut client = server.connect().await;
    for stamp in 0..2 {
        client.send(&call_as(7, WHO, 1, &auth_sys(stamp, b"host", 0, 0, &[1, 2]))).await;
        assert_eq!(client.receive().await, Some(success(7, &words(&[65, 66, 0]))));
    }
    assert_eq!(*server.program.last_grant.lock().unwrap(), Some(Grant { read_only: true, squash }));
}

/// One that is let in may be silent for half an hour.
#[tokio::test(start_paused = true)]
async fn a_stranger_does_not_stay() {
    let begun = tokio::time::Instant::now();
    let server = server(None);
    let mut client = server.connect().await;
    client.ping(7).await;
    client.assert_closed().await;
    let stayed = begun.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(16)).contains(&stayed), "{stayed:?}");
}
