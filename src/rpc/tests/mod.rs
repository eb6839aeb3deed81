//! The RPC layer over real loopback sockets, with a program of its own.
//! Owns: that program, the server under test and a raw client; the tests by theme are below.

#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod cold;
mod datagram;
mod files;
mod flow;
mod gate;
mod hostile;
mod once;
mod outgoing;
mod wire;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::xdr::{Reader, Write};
use super::*;

const PROGRAM: u32 = 0x2000_0001;
const NULL: u32 = 0;
/// opaque -> the same opaque
const ECHO: u32 = 1;
/// offset u64, len u32 -> len, that much of the file
const FILE: u32 = 2;
/// len u32 -> len, so many bytes 0x5a from memory
const BYTES: u32 = 3;
/// gate u32 -> gate, once the gate was opened
const WAIT: u32 = 4;
/// not idempotent: -> how often this was run
const COUNT: u32 = 5;
/// not idempotent: gate u32 -> how often this was run, once the gate was opened
const COUNT_WAIT: u32 = 6;
const PANIC: u32 = 7;
const SYSTEM_ERROR: u32 = 8;
/// AUTH_SYS only: -> uid, gid, number of gids
const WHO: u32 = 9;
/// not idempotent: panics at its first run, then like COUNT
const COUNT_PANIC: u32 = 10;
const TOO_WEAK: u32 = 11;
/// Who may not come in gets a result that says so: -> 13
const TURNED_AWAY_BY_RESULT: u32 = 12;
/// -> the transport, and which address of ours the call came by
const LOCAL: u32 = 13;

/// What the server under test answers.
struct TestProgram {
    runs: AtomicUsize,
    /// One permit for each call that began to wait.
    waiting: Semaphore,
    gates: [Arc<Semaphore>; 4],
    file: Arc<File>,
    last_grant: std::sync::Mutex<Option<Grant>>,
}

impl TestProgram {
    fn new(file: File) -> TestProgram {
        let gates = std::array::from_fn(|_| Arc::new(Semaphore::new(0)));
        TestProgram {
            runs: AtomicUsize::new(0),
            waiting: Semaphore::new(0),
            gates,
            file: Arc::new(file),
            last_grant: Default::default(),
        }
    }

    fn run(&self) -> u32 {
        u32::try_from(self.runs.fetch_add(1, Ordering::SeqCst)).unwrap() + 1
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn open(&self, gate: usize) {
        self.gates[gate].add_permits(1);
    }

    /// Waits until `n` more calls wait.
    async fn waiting(&self, n: u32) {
        soon(self.waiting.acquire_many(n)).await.unwrap().forget();
    }

    fn wait(&self, gate: u32, answer: u32) -> Handled {
        self.waiting.add_permits(1);
        let gate = self.gates[gate as usize].clone();
        Handled::Later(Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            LateReply { outcome: Outcome::Success, body: answer.to_be_bytes().to_vec(), tail: Tail::None }
        }))
    }

    fn answer(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Result<Handled, xdr::Malformed> {
        let mut args = Reader::new(call.args);
        let mut tail = Tail::None;
        match call.procedure {
            ECHO => reply.put_opaque(args.opaque(1 << 20)?),
            FILE => {
                let (offset, len) = (args.u64()?, args.u32()?);
                reply.put_u32(len);
                tail = Tail::File(FileRange { file: self.file.clone(), offset, len });
            }
            BYTES => {
                self.run();
                let len = args.u32()?;
                reply.put_u32(len);
                tail = Tail::Bytes(Bytes::from(vec![0x5a; len as usize]));
            }
            WAIT => {
                let gate = args.u32()?;
                return Ok(self.wait(gate, gate));
            }
            COUNT => reply.put_u32(self.run()),
            COUNT_WAIT => return Ok(self.wait(args.u32()?, self.run())),
            PANIC => panic!("as the test asked"),
            COUNT_PANIC => {
                let run = self.run();
                assert_ne!(run, 1, "as the test asked");
                reply.put_u32(run);
            }
            SYSTEM_ERROR => {
                reply.put_u32(0xdead_beef);
                return Ok(Handled::Done(Outcome::SystemError, Tail::None));
            }
            LOCAL => reply.put_opaque(format!("{:?} {}", call.transport, call.local).as_bytes()),
            TOO_WEAK => return Ok(Handled::Done(Outcome::AuthTooWeak, Tail::None)),
            WHO => {
                *self.last_grant.lock().unwrap() = Some(call.grant);
                let who = call.credentials;
                [who.uid, who.gid, who.gids.len() as u32].iter().for_each(|w| reply.put_u32(*w));
            }
            _ => return Ok(Handled::Done(Outcome::ProcedureUnavailable, Tail::None)),
        }
        Ok(Handled::Done(Outcome::Success, tail))
    }
}

impl Program for TestProgram {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        2..=3
    }

    fn is_idempotent(&self, _version: u32, procedure: u32) -> bool {
        !matches!(procedure, COUNT | COUNT_WAIT | COUNT_PANIC)
    }

    fn allows_auth_none(&self, _version: u32, procedure: u32) -> bool {
        procedure != WHO
    }

    fn turn_away(&self, _version: u32, procedure: u32, reply: &mut Vec<u8>) -> Outcome {
        reply.put_u32(13);
        if procedure == TURNED_AWAY_BY_RESULT { Outcome::Success } else { Outcome::AuthTooWeak }
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        self.answer(call, reply).unwrap_or(Handled::Done(Outcome::GarbageArgs, Tail::None))
    }
}

/// The server under test.
struct Server {
    addr: SocketAddr,
    program: Arc<TestProgram>,
    stats: Arc<Stats>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    fn start() -> Server {
        Server::with(Limits::default())
    }

    fn with(limits: Limits) -> Server {
        Server::of(tempfile::tempfile().unwrap(), limits)
    }

    fn of(file: File, limits: Limits) -> Server {
        Server::behind(Arc::new(super::gate::Open), file, limits)
    }

    fn behind(gate: Arc<dyn Gate>, file: File, limits: Limits) -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let program = Arc::new(TestProgram::new(file));
        let programs = Programs::new([program.clone() as Arc<dyn Program>]).behind(gate);
        let (stats, stop) = (Arc::new(Stats::default()), CancellationToken::new());
        let task = tokio::spawn(serve(listener, programs, limits, stats.clone(), stop.clone()));
        Server { addr, program, stats, stop, task }
    }

    async fn connect(&self) -> Client {
        Client { stream: soon(TcpStream::connect(self.addr)).await.unwrap() }
    }

    /// Fails unless a fresh connection is served.
    async fn assert_alive(&self) {
        self.connect().await.ping(0xa11e).await;
    }
}

/// A raw client.
struct Client {
    stream: TcpStream,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next reply without its record mark; `None` when the connection ended.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut mark = [0; 4];
        soon(self.stream.read_exact(&mut mark)).await.ok()?;
        let mark = u32::from_be_bytes(mark);
        assert_ne!(mark & 1 << 31, 0, "a reply is one fragment");
        let mut reply = vec![0; (mark & !(1 << 31)) as usize];
        soon(self.stream.read_exact(&mut reply)).await.ok()?;
        Some(reply)
    }

    async fn call(&mut self, xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.send(&call(xid, procedure, args)).await;
        self.receive().await.expect("an answer")
    }

    /// The reply to a record; `None` also when the connection ended before.
    async fn receive_after(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        soon(self.stream.write_all(record)).await.ok()?;
        self.receive().await
    }

    async fn ping(&mut self, xid: u32) {
        assert_eq!(self.call(xid, NULL, &[]).await, success(xid, &[]));
    }

    async fn assert_closed(&mut self) {
        assert_eq!(self.receive().await, None, "the connection ends");
    }
}

/// Fails a test that would hang; never waited for in one that passes.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("the event comes")
}

/// XDR words.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// `content` as a record of one fragment.
fn record(content: &[u8]) -> Vec<u8> {
    let mut record = words(&[content.len() as u32 | 1 << 31]);
    record.extend_from_slice(content);
    record
}

/// A call with AUTH_NONE, as a record.
fn call(xid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut content = words(&[xid, 0, 2, PROGRAM, 3, procedure, 0, 0, 0, 0]);
    content.extend_from_slice(args);
    record(&content)
}

/// A call with this credential, as a record.
fn call_as(xid: u32, procedure: u32, flavor: u32, credential: &[u8]) -> Vec<u8> {
    let mut content = words(&[xid, 0, 2, PROGRAM, 3, procedure, flavor]);
    content.put_opaque(credential);
    content.extend(words(&[0, 0]));
    record(&content)
}

/// An AUTH_SYS body.
fn auth_sys(stamp: u32, machine: &[u8], uid: u32, gid: u32, gids: &[u32]) -> Vec<u8> {
    let mut body = words(&[stamp]);
    body.put_opaque(machine);
    body.extend(words(&[uid, gid, gids.len() as u32]));
    body.extend(words(gids));
    body
}

/// A successful reply without its record mark.
fn success(xid: u32, result: &[u8]) -> Vec<u8> {
    let mut reply = words(&[xid, 1, 0, 0, 0, 0]);
    reply.extend_from_slice(result);
    reply
}
