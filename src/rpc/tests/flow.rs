//! Who waits for whom, and who does not: late replies, back-pressure, timeouts, limits, the end.

use socket2::SockRef;

use super::*;

#[tokio::test]
async fn later_calls_overlap_and_end_in_any_order() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&[call(10, WAIT, &words(&[0])), call(11, WAIT, &words(&[1])), call(12, NULL, &[])].concat()).await;
    assert_eq!(client.receive().await, Some(success(12, &[])));
    server.program.open(1);
    assert_eq!(client.receive().await, Some(success(11, &words(&[1]))));
    server.program.open(0);
    assert_eq!(client.receive().await, Some(success(10, &words(&[0]))));
}

#[tokio::test]
async fn calls_beyond_the_limit_in_flight_are_not_begun() {
    let server = Server::with(Limits { calls_in_flight: 2, ..Limits::default() });
    let mut client = server.connect().await;
    let calls: Vec<u8> = (0..3).flat_map(|gate| call(gate, WAIT, &words(&[gate]))).collect();
    client.send(&calls).await;
    server.program.waiting(2).await;
    for xid in 0..10 {
        server.connect().await.ping(xid).await;
    }
    assert_eq!(server.program.waiting.available_permits(), 0, "the third is not begun");
    server.program.open(0);
    assert_eq!(client.receive().await, Some(success(0, &words(&[0]))));
    server.program.waiting(1).await;
    server.program.open(2);
    assert_eq!(client.receive().await, Some(success(2, &words(&[2]))));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_while_others_are() {
    const CALLS: u32 = 2000;
    let server = Server::with(Limits { queued_bytes: 128 << 10, ..Limits::default() });
    let deaf = server.connect().await;
    SockRef::from(&deaf.stream).set_recv_buffer_size(64 << 10).unwrap();
    let (read, mut write) = deaf.stream.into_split();
    let calls: Vec<u8> = (0..CALLS).flat_map(|xid| call(xid, BYTES, &words(&[64 << 10]))).collect();
    let sending = tokio::spawn(async move {
        write.write_all(&calls).await.unwrap();
        write
    });
    let mut other = server.connect().await;
    for xid in 0..1000 {
        other.ping(xid).await;
    }
    let runs = server.program.runs();
    assert!(runs < CALLS as usize / 2, "{runs} calls of a client that reads nothing were run");

    // and it is served on when it reads
    let mut read = tokio::io::BufReader::new(read);
    for xid in 0..CALLS {
        let mut reply = vec![0; 4 + 24 + 4 + (64 << 10)];
        soon(read.read_exact(&mut reply)).await.unwrap();
        assert_eq!(reply[4..8], xid.to_be_bytes());
    }
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn calls_that_wait_with_much_in_them_hold_up_the_next() {
    let server = Server::with(Limits { queued_bytes: 10_000, ..Limits::default() });
    let mut client = server.connect().await;
    let large = |xid, gate| call(xid, WAIT, &[words(&[gate]), vec![0; 6_000]].concat());
    client.send(&[large(1, 0), large(2, 1), call(3, NULL, &[])].concat()).await;
    server.program.waiting(2).await;
    server.program.open(0);
    let [first, second] = [client.receive().await.unwrap(), client.receive().await.unwrap()];
    assert_eq!((&first[..4], &second[..4]), (&words(&[1])[..], &words(&[3])[..]), "3 is read when 1 is answered");
    server.program.open(1);
    assert!(client.receive().await.is_some());
}

#[tokio::test]
async fn a_record_that_never_completes_closes() {
    let server = Server::with(Limits { partial_timeout: Duration::from_millis(20), ..Limits::default() });
    for part in [&[0x80][..], &words(&[100 | 1 << 31, 1, 2]), &words(&[4, 1]), &words(&[0])] {
        let mut client = server.connect().await;
        client.send(part).await;
        client.assert_closed().await;
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn an_idle_connection_closes_but_one_that_waits_for_us_does_not() {
    let server = Server::with(Limits { idle_timeout: Duration::from_millis(20), ..Limits::default() });
    let mut waits = server.connect().await;
    waits.send(&call(1, WAIT, &words(&[0]))).await;
    server.program.waiting(1).await;
    for _ in 0..3 {
        server.connect().await.assert_closed().await;
    }
    server.program.open(0);
    assert_eq!(waits.receive().await, Some(success(1, &words(&[0]))));
}

#[tokio::test]
async fn a_panic_costs_its_connection_only() {
    let server = Server::start();
    let (mut bystander, mut client) = (server.connect().await, server.connect().await);
    bystander.ping(1).await;
    client.send(&call(2, PANIC, &[])).await;
    client.assert_closed().await;
    bystander.ping(3).await;
    server.assert_alive().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_until_another_is() {
    let server = Server::with(Limits { max_connections: 1, ..Limits::default() });
    let mut first = server.connect().await;
    first.ping(1).await;
    let mut second = server.connect().await;
    second.assert_closed().await;
    first.ping(2).await;
    drop(first);
    soon(async {
        loop {
            let mut next = server.connect().await;
            if next.stream.write_all(&call(3, NULL, &[])).await.is_ok() && next.receive().await.is_some() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn clients_that_reset_at_once_do_not_stop_the_listener() {
    let server = Server::start();
    for _ in 0..50 {
        let client = server.connect().await;
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_what_it_asked_for() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&[call(1, WAIT, &words(&[0])), call(2, NULL, &[])].concat()).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.receive().await, Some(success(2, &[])));
    server.program.open(0);
    assert_eq!(client.receive().await, Some(success(1, &words(&[0]))));
    client.assert_closed().await;
}

#[tokio::test]
async fn stop_lets_calls_end_then_closes_and_returns() {
    let server = Server::start();
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    idle.ping(1).await;
    busy.send(&call(2, WAIT, &words(&[0]))).await;
    server.program.waiting(1).await;
    server.stop.cancel();
    idle.assert_closed().await;
    assert!(!server.task.is_finished(), "a call is under way");
    server.program.open(0);
    assert_eq!(busy.receive().await, Some(success(2, &words(&[0]))));
    busy.assert_closed().await;
    soon(server.task).await.unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err(), "nobody listens");
    assert_eq!(server.stats.snapshot().connections, 0);
}

#[tokio::test]
async fn dropping_the_server_closes_what_it_holds() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&call(1, WAIT, &words(&[0]))).await;
    server.program.waiting(1).await;
    server.task.abort();
    client.assert_closed().await;
}

#[tokio::test]
async fn calls_are_counted_by_procedure_and_kept_when_a_connection_ends() {
    let server = Server::start();
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    one.ping(1).await;
    two.ping(2).await;
    one.call(3, ECHO, &words(&[0])).await;
    one.call(4, u32::MAX, &[]).await;
    let counts = server.stats.snapshot();
    assert_eq!((counts.connections, counts.clients), (2, 1));
    assert_eq!(counts.calls, [(PROGRAM, NULL, 2), (PROGRAM, ECHO, 1)]);
    server.stop.cancel();
    soon(server.task).await.unwrap();
    let after = server.stats.snapshot();
    assert_eq!((after.connections, after.clients, after.calls), (0, 0, counts.calls));
}

#[tokio::test]
async fn an_unspecified_ipv6_listener_takes_ipv4_clients_as_such() {
    let Ok(listener) = bind("[::]:0".parse().unwrap()) else { return };
    let port = listener.local_addr().unwrap().port();
    let (stream, accepted) =
        soon(async { tokio::join!(TcpStream::connect(("127.0.0.1", port)), listener.accept()) }).await;
    stream.unwrap();
    assert_eq!(accepted.unwrap().1.ip().to_canonical(), std::net::Ipv4Addr::LOCALHOST);
}
