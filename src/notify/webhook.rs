//! S3's events as others push them: MinIO, Ceph, SNS, and EventBridge's API destinations.
//! Owns: the listener, who is believed, how much is read and for how long.
//! Invariants
//! - Nothing is read of a body before the secret was shown, and never more than `MAX_MESSAGE_BYTES` of it.
//! - 204 means applied. 503 means later: the sender tries again, and what is told twice is harmless.
//! - No URL that comes in is ever opened.
//!
//! The secret comes as each of them can send it: `Authorization: Bearer SECRET` (MinIO's `auth_token`), `Authorization:
//! Basic` with it as the password (Ceph and SNS: in the URL; EventBridge), `X-Api-Key` or `Authorization` with nothing
//! but it (EventBridge's API key), or `?secret=` (Ceph over plain HTTP, where it sends no password).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::records::{MAX_MESSAGE_BYTES, Message};
use super::{Secret, Source};
use crate::store;

/// Connections at once; more wait in the backlog. With the longest bodies they hold 64 MiB.
const MAX_CONNECTIONS: usize = 64;
/// Senders add traces and signatures, but no novels.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Longest wait for a head, also for the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });
/// Longest wait for a body; EventBridge gives up on us after 5 s anyway.
const BODY_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Longest wait for hints to be applied, likewise.
const APPLY_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 4 });
/// After accept(2) fails (no more file descriptors), before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A listener for events.
pub struct Webhook {
    listener: TcpListener,
    door: Arc<Door>,
}

/// What every request passes.
struct Door {
    secret: Secret,
    source: Source,
}

impl Webhook {
    /// Binds `address`; nothing is answered before it runs.
    /// # Errors
    /// When the address is taken; the error names it.
    pub async fn bind(address: SocketAddr, secret: Secret, source: Source) -> io::Result<Webhook> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("cannot listen on {address} (give another --events webhook=): {e}"))
        };
        let listener = TcpListener::bind(address).await.map_err(named)?;
        Ok(Webhook { listener, door: Arc::new(Door { secret, source }) })
    }

    /// Where it listens.
    /// # Errors
    /// When the system does not say.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is cancelled. What is not answered by then comes again.
    pub async fn run(self, stop: CancellationToken) {
        if let Ok(address) = self.addr() {
            info!(%address, "listening for events");
        }
        let router = Router::new().fallback(take).with_state(self.door);
        stop.run_until_cancelled(accept(&self.listener, &router)).await;
    }
}

/// Serves connections for ever. Dropping it drops them.
async fn accept(listener: &TcpListener, router: &Router) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve_one(stream, router.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(e) => {
                warn!("webhook: cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    if let Err(e) = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await {
        debug!("webhook: connection ended: {e}"); // peers may send what they like
    }
}

/// Answers a request to any path.
async fn take(State(door): State<Arc<Door>>, request: Request) -> Response {
    // MinIO looks whether somebody is there, some versions of it without the secret
    if matches!(*request.method(), Method::HEAD | Method::GET) {
        return StatusCode::NO_CONTENT.into_response();
    }
    if request.method() != Method::POST && request.method() != Method::PUT {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD, POST, PUT")]).into_response();
    }
    if !is_believed(&door.secret, request.headers(), request.uri().query()) {
        return door.refuse(StatusCode::UNAUTHORIZED, "the secret of --events-secret-file is not shown");
    }
    match read_body(request.into_body()).await {
        Ok(body) => door.deliver(&body).await,
        Err((status, why)) => door.refuse(status, why),
    }
}

async fn read_body(body: Body) -> Result<String, (StatusCode, &'static str)> {
    const TOO_LONG: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 MiB, or cut short");
    if body.size_hint().lower() > MAX_MESSAGE_BYTES as u64 {
        return Err(TOO_LONG);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_MESSAGE_BYTES));
    let bytes = match read.await {
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body does not come")),
        Ok(Err(_)) => return Err(TOO_LONG),
        Ok(Ok(bytes)) => bytes,
    };
    String::from_utf8(bytes.into()).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}

impl Door {
    async fn deliver(&self, body: &str) -> Response {
        let health = &self.source.health;
        match self.source.read(body) {
            Ok(Message::Events(events)) => {
                if tokio::time::timeout(APPLY_TIMEOUT, self.source.apply(events, None)).await.is_err() {
                    let later = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
                    return (StatusCode::SERVICE_UNAVAILABLE, later, "too many events at once\n").into_response();
                }
            }
            Ok(Message::Test) => {}
            Ok(Message::Subscription { topic, url }) => match is_amazons(&url) {
                true => warn!(topic, url, "SNS asks whether its messages are wanted: open this URL if they are"),
                false => return self.refuse(StatusCode::BAD_REQUEST, "a subscription that is not Amazon's"),
            },
            Err(error) => {
                let answer = self.refuse(StatusCode::BAD_REQUEST, "this is no event of S3");
                debug!(%error, "webhook: a body is not understood");
                return answer;
            }
        }
        health.done(1);
        health.good(self.source.clock.now());
        StatusCode::NO_CONTENT.into_response()
    }

    fn refuse(&self, status: StatusCode, why: &'static str) -> Response {
        if self.source.health.nonsense() {
            warn!(status = status.as_u16(), why, "webhook: a request is refused, further ones are only counted");
        } else {
            debug!(status = status.as_u16(), why, "webhook: a request is refused");
        }
        // what is left of a body is not waited for
        (status, [(header::CONNECTION, "close")], format!("{why}\n")).into_response()
    }
}

/// Whether the request shows the secret, in any of the ways that senders know.
fn is_believed(secret: &Secret, headers: &HeaderMap, query: Option<&str>) -> bool {
    let key = headers.get(API_KEY).is_some_and(|key| secret.is(key.as_bytes()));
    let authorized = headers.get(header::AUTHORIZATION).is_some_and(|value| is_authorized(secret, value));
    let in_query = || {
        let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("secret="));
        pairs.any(|shown| store::decode(shown).is_some_and(|shown| secret.is(shown.as_bytes())))
    };
    key || authorized || in_query()
}

fn is_authorized(secret: &Secret, value: &HeaderValue) -> bool {
    let Ok(value) = value.to_str() else { return false };
    let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
    match scheme.to_ascii_lowercase().as_str() {
        "" | "bearer" => secret.is(rest.trim().as_bytes()),
        "basic" => {
            let Ok(decoded) = aws_smithy_types::base64::decode(rest.trim()) else { return false };
            let colon = decoded.iter().position(|byte| *byte == b':');
            colon.is_some_and(|colon| secret.is(&decoded[colon + 1..]))
        }
        _ => false,
    }
}

/// Whether a person who opens it speaks to SNS.
fn is_amazons(url: &str) -> bool {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    match *host.split('.').collect::<Vec<_>>() {
        // the host of a bucket that is called sns has s3 in the place of a region, or before it
        ["sns", region, "amazonaws", "com"] | ["sns", region, "amazonaws", "com", "cn"] => {
            !region.starts_with("s3") && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
