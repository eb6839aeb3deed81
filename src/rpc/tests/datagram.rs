//! RPC over UDP: replies, silence where there is nothing to reply to, bounds, calls that run once.

use tokio::net::UdpSocket;

use super::*;
use crate::rpc::outgoing::{self, Request, Route};

/// A socket that is served, and a client of it.
struct Datagrams {
    server: Server,
    client: UdpSocket,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Datagrams {
    async fn start() -> Datagrams {
        Datagrams::at("127.0.0.1:0").await
    }

    async fn at(addr: &str) -> Datagrams {
        Datagrams::behind(addr, |programs| programs).await
    }

    async fn behind(addr: &str, gate: impl FnOnce(Programs) -> Programs) -> Datagrams {
        let server = Server::start();
        let socket = bind_datagrams(addr.parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let programs = gate(Programs::new([server.program.clone() as Arc<dyn Program>]));
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve_datagrams(socket, programs, server.stats.clone(), stop.clone()));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port)).await.unwrap();
        Datagrams { server, client, stop, task }
    }

    async fn send(&self, datagram: &[u8]) {
        soon(self.client.send(datagram)).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let len = soon(self.client.recv(&mut buffer)).await.unwrap();
        buffer.truncate(len);
        buffer
    }

    async fn call(&self, xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.send(&unmarked(xid, procedure, args)).await;
        self.receive().await
    }

    /// Fails unless the next reply is to a ping that is sent now: whatever was sent before got no reply.
    async fn assert_silent(&self) {
        assert_eq!(self.call(0xa11e, NULL, &[]).await, success(0xa11e, &[]));
    }
}

fn unmarked(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    call(xid, procedure, args)[4..].to_vec()
}

fn opaque(len: usize) -> Vec<u8> {
    let mut args = Vec::new();
    args.put_opaque(&vec![7; len]);
    args
}

#[tokio::test]
async fn a_call_has_its_reply_at_once_or_later() {
    let udp = Datagrams::start().await;
    assert_eq!(udp.call(1, ECHO, &opaque(5)).await, success(1, &opaque(5)));
    assert_eq!(udp.call(2, BYTES, &words(&[4])).await, success(2, &words(&[4, 0x5a5a_5a5a])));
    udp.send(&unmarked(3, WAIT, &words(&[0]))).await;
    udp.server.program.waiting(1).await;
    assert_eq!(udp.call(4, NULL, &[]).await, success(4, &[]), "others go on");
    udp.server.program.open(0);
    assert_eq!(udp.receive().await, success(3, &words(&[0])));
}

#[tokio::test]
async fn what_cannot_be_run_is_refused() {
    let udp = Datagrams::start().await;
    assert_eq!(udp.call(1, 99, &[]).await, words(&[1, 1, 0, 0, 0, 3]));
    assert_eq!(udp.call(2, ECHO, &[]).await, words(&[2, 1, 0, 0, 0, 4]));
    assert_eq!(udp.call(3, WHO, &[]).await, words(&[3, 1, 1, 1, 5]));
    udp.send(&words(&[4, 0, 2, PROGRAM, 9, 0, 0, 0, 0, 0])).await;
    assert_eq!(udp.receive().await, words(&[4, 1, 0, 0, 0, 2, 2, 3]));
}

#[tokio::test]
async fn what_is_no_call_gets_no_answer() {
    let udp = Datagrams::start().await;
    for garbage in [&b""[..], b"x", &words(&[1, 0]), &words(&[1, 1, 0, 0, 0, 0]), &[0xff; 400]] {
        udp.send(garbage).await;
    }
    udp.send(&vec![0; 20_000]).await;
    udp.send(&unmarked(7, ECHO, &opaque(9000))).await;
    udp.assert_silent().await;
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_an_error_and_not_cut() {
    let udp = Datagrams::start().await;
    let fits = 8800 - 24 - 4;
    assert_eq!(udp.call(1, BYTES, &words(&[fits])).await.len(), 8800);
    assert_eq!(udp.call(2, BYTES, &words(&[fits + 1])).await, words(&[2, 1, 0, 0, 0, 5]));
}

#[tokio::test]
async fn a_call_that_panics_leaves_the_others() {
    let udp = Datagrams::start().await;
    udp.send(&unmarked(1, PANIC, &[])).await;
    udp.assert_silent().await;
    // and may be made again, though it must not run twice
    udp.send(&unmarked(2, COUNT_PANIC, &[])).await;
    udp.assert_silent().await;
    assert_eq!(udp.call(2, COUNT_PANIC, &[]).await, success(2, &words(&[2])));
}

#[tokio::test]
async fn what_must_not_run_twice_is_answered_twice() {
    let udp = Datagrams::start().await;
    let first = udp.call(1, COUNT, &[]).await;
    assert_eq!(udp.call(1, COUNT, &[]).await, first);
    assert_eq!(udp.server.program.runs(), 1);
    // a duplicate of one that waits adds no reply
    for _ in 0..2 {
        udp.send(&unmarked(2, COUNT_WAIT, &words(&[0]))).await;
    }
    udp.assert_silent().await;
    udp.server.program.open(0);
    assert_eq!(udp.receive().await, success(2, &words(&[2])));
    udp.assert_silent().await;
}

#[tokio::test]
async fn only_so_many_calls_wait() {
    let udp = Datagrams::start().await;
    for xid in 0..64 {
        udp.send(&unmarked(xid, WAIT, &words(&[0]))).await;
        udp.server.program.waiting(1).await;
    }
    udp.send(&unmarked(64, WAIT, &words(&[0]))).await;
    udp.send(&unmarked(65, NULL, &[])).await;
    // both are in the socket; this thread serves it whenever we yield, and looks for what has come every 61st time
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
    udp.server.program.gates[0].add_permits(64);
    for _ in 0..64 {
        assert_eq!(udp.receive().await.len(), 28);
    }
    udp.assert_silent().await;
}

#[tokio::test]
async fn calls_that_have_begun_end_before_the_task() {
    let udp = Datagrams::start().await;
    udp.send(&unmarked(1, WAIT, &words(&[0]))).await;
    udp.server.program.waiting(1).await;
    udp.stop.cancel();
    udp.server.program.open(0);
    assert_eq!(udp.receive().await, success(1, &words(&[0])));
    soon(udp.task).await.unwrap();
}

#[tokio::test]
async fn a_call_says_how_and_by_which_address_it_came() {
    for bound in ["127.0.0.1:0", "0.0.0.0:0"] {
        let udp = Datagrams::at(bound).await;
        let to = udp.client.peer_addr().unwrap();
        let request = Request { program: PROGRAM, version: 3, procedure: LOCAL, credentials: None, args: &[] };
        let route = Route::new(Transport::Udp, to);
        let local = outgoing::call(&route, &request, Duration::from_secs(20)).await.unwrap();
        assert_eq!(Reader::new(&local).opaque(99).unwrap(), format!("Udp {to}").as_bytes(), "bound to {bound}");
    }
    let server = Server::start();
    let mut said = Vec::new();
    said.put_opaque(format!("Tcp {}", server.addr).as_bytes());
    assert_eq!(server.connect().await.call(1, LOCAL, &[]).await, success(1, &said));
}

#[tokio::test]
async fn datagrams_are_counted_and_are_no_connection() {
    let udp = Datagrams::start().await;
    udp.call(1, ECHO, &opaque(5)).await;
    let counts = udp.server.stats.snapshot();
    assert_eq!((counts.connections, counts.clients), (0, 0));
    assert_eq!(counts.calls, [(PROGRAM, ECHO, 1)]);
}

#[tokio::test]
async fn who_may_not_come_in_is_told_so_and_nothing_else() {
    struct Closed;
    impl Gate for Closed {
        fn admit(&self, _peer: SocketAddr) -> Option<Grant> {
            None
        }
    }
    let udp = Datagrams::behind("127.0.0.1:0", |programs| programs.behind(Arc::new(Closed))).await;
    assert_eq!(udp.call(1, COUNT, &[]).await, words(&[1, 1, 1, 1, 5]));
    assert_eq!(udp.call(2, TURNED_AWAY_BY_RESULT, &[]).await, success(2, &words(&[13])));
    assert_eq!(udp.server.program.runs(), 0);
    udp.assert_silent().await;
}
