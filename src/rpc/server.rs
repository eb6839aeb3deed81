//! Accepting: every connection is one task, owned here from its first byte to its last.
//! Invariants: no accept error ends the server; `serve` returns only when no task of it is left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::connection::{Closed, Connection};
use super::drc::ReplyCache;
use super::{Limits, Programs, Stats};

/// Connections at once of peers that are not let in: enough to tell them so, too few to keep others out.
pub(super) const STRANGERS: usize = 32;
/// Connections that the OS holds for us while we accept others: after a restart all clients come at once.
const BACKLOG: i32 = 1024;
/// Keepalive after a minute of silence, then every 10 s: a client that vanished is noticed within 2 minutes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// First and longest pause after the OS refused us a connection (no descriptors, no memory).
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What the connections of a server share.
pub(super) struct Shared {
    pub(super) programs: Programs,
    pub(super) limits: Limits,
    pub(super) stats: Arc<Stats>,
    pub(super) replies: Arc<ReplyCache>,
    /// Calls that must end though their connection may not last.
    pub(super) tasks: TaskTracker,
    /// Places for connections of peers that are not let in.
    pub(super) strangers: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

/// Listens at `addr`; an unspecified IPv6 address takes IPv4 too.
/// # Errors
/// The OS's: the address is in use, or is not ours.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.ip().is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // On Unix this lets a restart take the address at once; on Windows it would let another program share it.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers calls to `programs` on `listener` until `stop` is cancelled. Then it accepts no more, lets calls that
/// have begun end and their replies be sent, closes and joins every connection, and returns. How long that may
/// take is the caller's: dropping the future closes what is left (calls that are not idempotent still end).
pub async fn serve(
    listener: TcpListener,
    programs: Programs,
    limits: Limits,
    stats: Arc<Stats>,
    stop: CancellationToken,
) {
    let replies = Arc::new(ReplyCache::new(limits.drc.clone()));
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let shared = Arc::new(Shared { programs, limits, stats, replies, tasks: TaskTracker::new(), strangers, stop });
    let mut connections = JoinSet::new();
    let mut refused = 0_u64;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            (stream, peer) = accept(&listener) => {
                if connections.len() >= shared.limits.max_connections {
                    refused += 1;
                    if refused.is_power_of_two() {
                        warn!(%peer, refused, limit = shared.limits.max_connections, "too many connections, closed");
                    }
                } else {
                    tune(&stream);
                    if let Some(connection) = Connection::new(stream, peer, shared.clone()) {
                        connections.spawn(connection.run());
                    }
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    shared.tasks.close();
    shared.tasks.wait().await;
}

/// The next connection, however many attempts fail.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut backoff = BACKOFF_MIN;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_about_one_connection(&error) => {
                debug!(%error, "a connection was gone before it was accepted")
            }
            Err(error) => {
                warn!(%error, "cannot accept, will retry");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// accept(2) also reports errors of the one connection that was to be accepted; the next may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied | TimedOut)
}

/// Replies go out as they are ready, and dead peers are noticed. Neither is worth refusing a connection for.
fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive)) {
        debug!(%error, "cannot set socket options");
    }
}

fn report(ended: Result<(SocketAddr, Result<(), Closed>), JoinError>) {
    match ended {
        Ok((peer, Ok(()))) => debug!(%peer, "connection closed"),
        Ok((peer, Err(reason))) if reason.is_routine() => debug!(%peer, %reason, "connection closed"),
        Ok((peer, Err(reason))) => warn!(%peer, %reason, "connection closed"),
        Err(error) => error!(%error, "a call panicked, its connection is closed"),
    }
}
