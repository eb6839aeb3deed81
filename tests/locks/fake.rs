//! A client's machine, made by hand: a portmapper, a lock manager and a status monitor on one port, over TCP and UDP, that
//! note what they are called for; and processes on it that call the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fasts3::rpc::xdr::{Reader, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use crate::support::soon;

pub const NLM: u32 = 100_021;
pub const NSM: u32 = 100_024;

pub const GRANTED: u32 = 0;
pub const DENIED: u32 = 1;
pub const NOLOCKS: u32 = 2;
pub const BLOCKED: u32 = 3;
pub const GRACE: u32 = 4;
pub const DEADLOCK: u32 = 5;
pub const READ_ONLY: u32 = 6;
pub const STALE: u32 = 7;
pub const TOO_BIG: u32 = 8;
pub const FAILED: u32 = 9;

/// A call that the machine got.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    pub program: u32,
    pub procedure: u32,
    pub args: Vec<u8>,
}

/// The machine. It hears until it is dropped with its runtime.
pub struct Machine {
    pub port: u16,
    calls: mpsc::Receiver<Got>,
    service: Service,
}

#[derive(Clone)]
struct Service {
    port: u16,
    /// What it says to GRANTED.
    says: Arc<AtomicU32>,
    /// Its portmapper knows of nothing.
    deaf: Arc<AtomicBool>,
    got: mpsc::Sender<Got>,
}

impl Machine {
    pub async fn start() -> Machine {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // somebody else may have it over UDP
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, socket);
            }
        };
        let port = listener.local_addr().unwrap().port();
        let (got, calls) = mpsc::channel(100);
        let service = Service { port, says: Arc::default(), deaf: Arc::default(), got };
        tokio::spawn(service.clone().streams(listener));
        tokio::spawn(service.clone().datagrams(socket));
        Machine { port, calls, service }
    }

    /// From now on it answers GRANTED so.
    pub fn say(&self, status: u32) {
        self.service.says.store(status, Ordering::SeqCst);
    }

    pub fn be_deaf(&self, deaf: bool) {
        self.service.deaf.store(deaf, Ordering::SeqCst);
    }

    /// The next call that it gets.
    pub async fn heard(&mut self) -> Got {
        soon(self.calls.recv()).await.unwrap()
    }

    /// A call that it got already.
    pub fn has_heard(&mut self) -> Option<Got> {
        self.calls.try_recv().ok()
    }
}

impl Service {
    async fn streams(self, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let service = self.clone();
            tokio::spawn(async move {
                while let Some(record) = read_record(&mut stream).await {
                    let reply = service.answer(&record).await;
                    let mark = (reply.len() as u32 | 1 << 31).to_be_bytes();
                    if stream.write_all(&[&mark[..], &reply].concat()).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    async fn datagrams(self, socket: UdpSocket) {
        let mut buffer = [0; 9000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let reply = self.answer(&buffer[..len]).await;
            _ = socket.send_to(&reply, from).await;
        }
    }

    /// The reply to a call message.
    async fn answer(&self, call: &[u8]) -> Vec<u8> {
        let mut r = Reader::new(call);
        let mut word = || r.u32().unwrap();
        let (xid, kind, rpc, program, _version, procedure) = (word(), word(), word(), word(), word(), word());
        assert_eq!((kind, rpc), (0, 2));
        for _ in ["credential", "verifier"] {
            r.u32().unwrap();
            r.opaque(400).unwrap();
        }
        let mut reply = Vec::new();
        [xid, 1, 0, 0, 0, 0].iter().for_each(|word| reply.put_u32(*word));
        let args = r.rest().to_vec();
        match (program, procedure) {
            (100_000, 3) if self.deaf.load(Ordering::SeqCst) => reply.put_u32(0),
            (100_000, 3) => reply.put_u32(u32::from(self.port)),
            (NLM, 5) => {
                reply.put_opaque(r.opaque(64).unwrap());
                reply.put_u32(self.says.load(Ordering::SeqCst));
                self.note(program, procedure, args).await;
            }
            _ => self.note(program, procedure, args).await,
        }
        reply
    }

    async fn note(&self, program: u32, procedure: u32, args: Vec<u8>) {
        _ = self.got.send(Got { program, procedure, args }).await;
    }
}

async fn read_record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mark = stream.read_u32().await.ok()?;
    let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
    stream.read_exact(&mut record).await.ok()?;
    Some(record)
}

/// What a process asks a lock for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub handle: Vec<u8>,
    pub svid: u32,
    pub offset: u64,
    pub len: u64,
    pub exclusive: bool,
}

impl Wish {
    pub fn new(handle: &[u8], svid: u32, offset: u64, len: u64) -> Wish {
        Wish { handle: handle.to_vec(), svid, offset, len, exclusive: true }
    }

    pub fn shared(self) -> Wish {
        Wish { exclusive: false, ..self }
    }
}

/// A connection of a client of this name.
pub struct Peer {
    stream: TcpStream,
    name: &'static str,
    xid: u32,
}

const COOKIE: &[u8] = b"cookie!";

impl Peer {
    pub async fn connect(port: u16, name: &'static str) -> Peer {
        Peer { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), name, xid: 1 }
    }

    /// Calls: the words of the reply behind the xid, and the result.
    pub async fn raw(&mut self, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let mut call = Vec::new();
        [self.xid, 0, 2, program, version, procedure, 0, 0, 0, 0].iter().for_each(|word| call.put_u32(*word));
        call.extend(args);
        let mark = (call.len() as u32 | 1 << 31).to_be_bytes();
        self.stream.write_all(&[&mark[..], &call].concat()).await.unwrap();
        let reply = soon(read_record(&mut self.stream)).await.unwrap();
        assert_eq!(reply[..4], self.xid.to_be_bytes());
        reply[4..].to_vec()
    }

    /// Calls, and is answered with a result.
    pub async fn call(&mut self, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        let reply = self.raw(program, version, procedure, args).await;
        let accepted: Vec<u8> = [1_u32, 0, 0, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(reply[..20], accepted);
        reply[20..].to_vec()
    }

    pub async fn nlm(&mut self, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.call(NLM, 4, procedure, args).await
    }

    fn lock_of(&self, wish: &Wish, args: &mut Vec<u8>) {
        args.put_opaque(self.name.as_bytes());
        args.put_opaque(&wish.handle);
        args.put_opaque(format!("{}@{}", wish.svid, self.name).as_bytes());
        args.put_u32(wish.svid);
        args.put_u64(wish.offset);
        args.put_u64(wish.len);
    }

    pub fn lock_args(&self, wish: &Wish, block: bool, reclaim: bool) -> Vec<u8> {
        let mut args = Vec::new();
        args.put_opaque(COOKIE);
        args.put_bool(block);
        args.put_bool(wish.exclusive);
        self.lock_of(wish, &mut args);
        args.put_bool(reclaim);
        args.put_u32(7);
        args
    }

    pub fn test_args(&self, wish: &Wish) -> Vec<u8> {
        let mut args = Vec::new();
        args.put_opaque(COOKIE);
        args.put_bool(wish.exclusive);
        self.lock_of(wish, &mut args);
        args
    }

    pub fn cancel_args(&self, wish: &Wish) -> Vec<u8> {
        let mut args = Vec::new();
        args.put_opaque(COOKIE);
        args.put_bool(true);
        args.put_bool(wish.exclusive);
        self.lock_of(wish, &mut args);
        args
    }

    pub fn unlock_args(&self, wish: &Wish) -> Vec<u8> {
        let mut args = Vec::new();
        args.put_opaque(COOKIE);
        self.lock_of(wish, &mut args);
        args
    }

    pub async fn lock(&mut self, wish: &Wish) -> u32 {
        let args = self.lock_args(wish, false, false);
        status(&self.nlm(2, &args).await)
    }

    pub async fn wait_for(&mut self, wish: &Wish) -> u32 {
        let args = self.lock_args(wish, true, false);
        status(&self.nlm(2, &args).await)
    }

    pub async fn reclaim(&mut self, wish: &Wish) -> u32 {
        let args = self.lock_args(wish, false, true);
        status(&self.nlm(2, &args).await)
    }

    pub async fn cancel(&mut self, wish: &Wish) -> u32 {
        let args = self.cancel_args(wish);
        status(&self.nlm(3, &args).await)
    }

    pub async fn unlock(&mut self, wish: &Wish) -> u32 {
        let args = self.unlock_args(wish);
        status(&self.nlm(4, &args).await)
    }

    /// TEST: the status, and of who is in the way: exclusive, svid, offset, length.
    pub async fn test(&mut self, wish: &Wish) -> (u32, Option<(bool, u32, u64, u64)>) {
        let args = self.test_args(wish);
        let result = self.nlm(1, &args).await;
        let mut r = Reader::new(&result);
        assert_eq!(r.opaque(64), Ok(COOKIE));
        let status = r.u32().unwrap();
        let holder = (status == DENIED).then(|| {
            let (exclusive, svid) = (r.bool().unwrap(), r.u32().unwrap());
            r.opaque(1024).unwrap();
            (exclusive, svid, r.u64().unwrap(), r.u64().unwrap())
        });
        assert!(r.rest().is_empty());
        (status, holder)
    }

    /// SHARE (20) or UNSHARE (21).
    pub async fn share(&mut self, procedure: u32, handle: &[u8], owner: &[u8], access: u32, deny: u32) -> u32 {
        let mut args = Vec::new();
        [COOKIE, self.name.as_bytes(), handle, owner].iter().for_each(|bytes| args.put_opaque(bytes));
        [deny, access, 0].iter().for_each(|word| args.put_u32(*word));
        let result = self.nlm(procedure, &args).await;
        status(&result[..result.len() - 4])
    }

    /// SM_NOTIFY: the client of that name was started anew.
    pub async fn reboot(&mut self, name: &str) {
        let mut args = Vec::new();
        args.put_opaque(name.as_bytes());
        args.put_u32(9);
        assert!(self.call(NSM, 1, 6, &args).await.is_empty());
    }
}

/// The status of a `nlm4_res` with our cookie.
pub fn status(result: &[u8]) -> u32 {
    let mut r = Reader::new(result);
    assert_eq!(r.opaque(64), Ok(COOKIE));
    let status = r.u32().unwrap();
    assert!(r.rest().is_empty());
    status
}

/// What GRANTED says: its cookie, and the wish.
pub fn granted(got: &Got) -> (Vec<u8>, String, Wish) {
    let mut r = Reader::new(&got.args);
    let (cookie, exclusive) = (r.opaque(64).unwrap().to_vec(), r.bool().unwrap());
    let (name, handle, owner) = (r.opaque(1024).unwrap(), r.opaque(64).unwrap().to_vec(), r.opaque(64).unwrap());
    let (svid, offset, len) = (r.u32().unwrap(), r.u64().unwrap(), r.u64().unwrap());
    assert!(r.rest().is_empty());
    let name = String::from_utf8(name.to_vec()).unwrap();
    assert_eq!(owner, format!("{svid}@{name}").as_bytes());
    (cookie, name, Wish { handle, svid, offset, len, exclusive })
}
