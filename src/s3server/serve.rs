//! Connections: accepts them, puts every request through the log, the faults and then the S3 service.
//! Invariant: stop and outage close every connection at once; no task outlives `run`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use s3s::{Body, StdError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::faults::{Fault, Faults, Place, Requests};
use super::request::classify;

/// What every connection works with.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) service: S3Service,
    pub(super) faults: Faults,
    pub(super) requests: Requests,
}

/// The end of one connection, in the hands of the request being served on it.
#[derive(Clone, Default)]
struct Hangup {
    now: CancellationToken,
    reset: Arc<AtomicBool>,
}

impl Hangup {
    /// Cuts the connection; never returns, because the connection's task drops the caller.
    async fn cut<T>(&self, reset: bool) -> T {
        self.reset.store(reset, Ordering::SeqCst);
        self.now.cancel();
        future::pending().await
    }
}

/// Serves until `stop`.
pub(super) async fn run(listener: TcpListener, front: Front, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(connection(socket, front.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "S3 server cannot accept");
                    tokio::task::yield_now().await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(socket: TcpStream, front: Front) {
    let mut down = front.faults.down();
    if *down.borrow_and_update() {
        return;
    }
    let Ok((socket, twin)) = with_twin(socket) else { return };
    let hangup = Hangup::default();
    let of_request = hangup.clone();
    let service = service_fn(move |request| serve(front.clone(), of_request.clone(), request));
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        // An outage comes before what is already in the socket: nothing is answered once it has begun.
        biased;
        _ = down.wait_for(|down| *down) => {}
        ended = http => if let Err(error) = ended {
            tracing::debug!(%error, "connection to the S3 server ended");
        },
        () = hangup.now.cancelled() => {}
    }
    if hangup.reset.load(Ordering::SeqCst) {
        // A close with no time to linger is a reset.
        let _ = socket2::SockRef::from(&twin).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// A second handle on the socket, to set its options when hyper has the first.
fn with_twin(socket: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    let twin = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, twin))
}

async fn serve(front: Front, hangup: Hangup, request: Request<Incoming>) -> Result<Response<Body>, StdError> {
    let (parts, body) = request.into_parts();
    let (kind, key) = classify(&parts);
    front.requests.record(kind, &key);
    let plan = front.faults.plan(kind, &key);
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    plan.pass(Place::Request).await;
    if let Some(refused) = plan.fault.as_ref().and_then(refusal) {
        return Ok(refused);
    }
    if plan.fault == Some(Fault::Close) {
        return hangup.cut(false).await;
    }
    let request = Request::from_parts(parts, Body::from(body));
    let response = front.service.call(request).await?;
    plan.pass(Place::Answer).await;
    Ok(match plan.fault {
        Some(Fault::FailAfterApply) => return hangup.cut(false).await,
        Some(Fault::ErrorAfterApply) => refusal(&Fault::InternalError).unwrap_or(response),
        Some(Fault::ResetAfter(bytes)) => response.map(|body| cut_body(body, bytes, After::Reset(hangup))),
        Some(Fault::ShortBody(bytes)) => response.map(|body| cut_body(body, bytes, After::End)),
        Some(Fault::StallAfter(bytes)) => response.map(|body| cut_body(body, bytes, After::Stall)),
        _ => response,
    })
}

/// The answer of S3 that a fault stands for.
fn refusal(fault: &Fault) -> Option<Response<Body>> {
    let (status, code) = match fault {
        Fault::SlowDown => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fault::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::Conflict => (StatusCode::CONFLICT, "ConditionalRequestConflict"),
        Fault::Denied => (StatusCode::FORBIDDEN, "AccessDenied"),
        Fault::WrongRegion(_) => (StatusCode::MOVED_PERMANENTLY, "PermanentRedirect"),
        _ => return None,
    };
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
    let mut response = Response::new(Body::from(xml));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    // The body of the request was not read, so the connection cannot go on.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Fault::WrongRegion(region) = fault
        && let Ok(region) = HeaderValue::from_str(region)
    {
        headers.insert("x-amz-bucket-region", region);
    }
    Some(response)
}

/// What follows the bytes that are let through.
enum After {
    Reset(Hangup),
    End,
    Stall,
}

/// The first `bytes` of `body`, then trouble. The declared length stays.
fn cut_body(body: Body, bytes: u64, after: After) -> Body {
    let whole = body.map_err(StdError::from);
    let cut = first_bytes(whole, bytes).chain(stream::once(trouble(after)).filter_map(future::ready));
    Body::http_body_unsync(StreamBody::new(cut.map_ok(Frame::data)))
}

async fn trouble(after: After) -> Option<Result<Bytes, StdError>> {
    // What was let through is flushed before the trouble overtakes it.
    tokio::task::yield_now().await;
    match after {
        After::Reset(hangup) => hangup.cut(true).await,
        After::End => None,
        After::Stall => future::pending().await,
    }
}

fn first_bytes(
    body: impl Stream<Item = Result<Bytes, StdError>> + Send,
    bytes: u64,
) -> impl Stream<Item = Result<Bytes, StdError>> + Send {
    body.scan(bytes, |left, item| {
        if *left == 0 {
            return future::ready(None);
        }
        future::ready(Some(item.map(|mut chunk| {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
            chunk
        })))
    })
}
