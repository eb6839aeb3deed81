//! Calls to other servers (RFC 5531): a portmapper, a client's lock manager. One socket a call, over UDP with
//! retransmission or over TCP, each within a deadline of the caller's.
//! Invariants: at most `MAX_REPLY` bytes are taken; what is not a reply to this very call, by its random xid and its
//! sender's address, is not looked at further (UDP) or ends the call (TCP).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use uuid::Uuid;

use super::Credentials;
use super::message::{self, NoReply, Refusal};
use super::record::Input;

/// 64 KiB: what a datagram can hold, and far more than any reply we ask for.
const MAX_REPLY: usize = 64 << 10;
/// A call over UDP is sent again after half a second without an answer, then after twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Up to 4 s: who restarts is found soon, and a server that is slow is not made slower.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// The reserved ports that a call may come from: those of Linux's own RPC client, below which daemons live.
const RESERVED_PORTS: std::ops::Range<u16> = 665..1024;

/// What carries a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// One connection a call.
    Tcp,
}

/// Where a call goes, and what its receiver is to see of where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// How.
    pub transport: Transport,
    /// To whom.
    pub to: SocketAddr,
    /// From which of our addresses; `None` leaves it to the OS. A lock manager knows its server by it.
    pub from: Option<IpAddr>,
    /// From a port that only root can have, which some take for a proof of that.
    pub reserved_port: bool,
}

impl Route {
    /// Over `transport` to `to`, from wherever.
    pub fn new(transport: Transport, to: SocketAddr) -> Route {
        Route { transport, to, from: None, reserved_port: false }
    }
}

/// A call to make.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Program number.
    pub program: u32,
    /// Version of it.
    pub version: u32,
    /// Procedure.
    pub procedure: u32,
    /// Who we say we are: AUTH_SYS, or AUTH_NONE.
    pub credentials: Option<&'a Credentials>,
    /// The arguments, XDR.
    pub args: &'a [u8],
}

/// Why a call has no result. It may have been carried out all the same, but for `Refused`.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answered before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// No reserved port is to be had: all are taken, or this process may not have any.
    #[error("cannot call from a port below 1024: {0}")]
    NoReservedPort(#[source] io::Error),
    /// The network's error: nobody listens there, no way to there.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was answered, by a refusal.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Over TCP: the answer is none, or is too long.
    #[error("the answer is not one to this call")]
    Malformed,
}

/// Makes a call, and returns its result, XDR.
/// # Errors
/// See `CallError`; `TimedOut` comes after `deadline` at the latest.
pub async fn call(route: &Route, request: &Request<'_>, deadline: Duration) -> Result<Vec<u8>, CallError> {
    let xid = fresh_xid();
    let message = message::call(xid, request);
    let answer = async {
        match route.transport {
            Transport::Udp => call_by_datagram(route, xid, &message).await,
            Transport::Tcp => call_by_stream(route, xid, &message).await,
        }
    };
    timeout(deadline, answer).await.unwrap_or(Err(CallError::TimedOut))
}

/// Sends a call that nobody answers, as NLM's asynchronous procedures are. Over UDP it may be lost.
/// # Errors
/// See `CallError`: it could not be sent within `deadline`.
pub async fn send(route: &Route, request: &Request<'_>, deadline: Duration) -> Result<(), CallError> {
    let message = message::call(fresh_xid(), request);
    let sent = async {
        match route.transport {
            Transport::Udp => _ = datagrams(route)?.send(behind_mark(&message)).await?,
            Transport::Tcp => {
                let mut stream = connect(route).await?;
                stream.write_all(&message).await?;
                stream.shutdown().await?;
            }
        }
        Ok(())
    };
    timeout(deadline, sent).await.unwrap_or(Err(CallError::TimedOut))
}

/// Not to be guessed: over UDP it is what tells an answer from a forged one.
fn fresh_xid() -> u32 {
    let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// A datagram has no record mark.
fn behind_mark(message: &[u8]) -> &[u8] {
    &message[4..]
}

async fn call_by_datagram(route: &Route, xid: u32, message: &[u8]) -> Result<Vec<u8>, CallError> {
    let socket = datagrams(route)?;
    let mut buffer = vec![0; MAX_REPLY];
    let mut wait = FIRST_WAIT;
    loop {
        socket.send(behind_mark(message)).await?;
        if let Ok(answer) = timeout(wait, datagram_for(&socket, xid, &mut buffer)).await {
            return answer;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// The answer to `xid`, whatever else arrives.
async fn datagram_for(socket: &UdpSocket, xid: u32, buffer: &mut [u8]) -> Result<Vec<u8>, CallError> {
    loop {
        let len = socket.recv(buffer).await?;
        match message::result(&buffer[..len], xid) {
            Ok(result) => return Ok(result.to_vec()),
            Err(NoReply::Refused(refusal)) => return Err(CallError::Refused(refusal)),
            Err(NoReply::Stray) => {}
        }
    }
}

async fn call_by_stream(route: &Route, xid: u32, message: &[u8]) -> Result<Vec<u8>, CallError> {
    let mut stream = connect(route).await?;
    stream.write_all(message).await?;
    let mut input = Input::new(MAX_REPLY);
    let place = loop {
        if let Some(place) = input.next().map_err(|_| CallError::Malformed)? {
            break place;
        }
        match stream.read(input.room()).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => input.filled(n),
        }
    };
    match message::result(input.bytes(&place), xid) {
        Ok(result) => Ok(result.to_vec()),
        Err(NoReply::Refused(refusal)) => Err(CallError::Refused(refusal)),
        Err(NoReply::Stray) => Err(CallError::Malformed),
    }
}

/// A socket to which the OS lets nothing but what `route.to` sends.
fn datagrams(route: &Route) -> Result<UdpSocket, CallError> {
    let socket = bound(route)?;
    socket.connect(&route.to.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

async fn connect(route: &Route) -> Result<TcpStream, CallError> {
    let socket = TcpSocket::from_std_stream(bound(route)?.into());
    let stream = socket.connect(route.to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket at our end of `route`.
fn bound(route: &Route) -> Result<Socket, CallError> {
    if !route.reserved_port {
        return Ok(bound_to(route, 0)?);
    }
    // where to begin differs from call to call, so that a port in TIME_WAIT is rarely met
    let begin = fresh_xid() as usize % RESERVED_PORTS.len();
    let mut error = io::Error::from(io::ErrorKind::AddrInUse);
    for port in RESERVED_PORTS.cycle().skip(begin).take(RESERVED_PORTS.len()) {
        match bound_to(route, port) {
            Ok(socket) => return Ok(socket),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => error = e,
            Err(e) => return Err(CallError::NoReservedPort(e)),
        }
    }
    Err(CallError::NoReservedPort(error))
}

fn bound_to(route: &Route, port: u16) -> io::Result<Socket> {
    let any = match route.to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (kind, protocol) = match route.transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(route.to), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(route.from.unwrap_or(any), port).into())?;
    Ok(socket)
}
