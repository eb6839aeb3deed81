//! HTTP on both listeners: who is answered, what, and within which bounds.
//! One request a connection: what the commands and the scrapers need, and nothing idle to keep.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::control::{self, Control};
use super::{Backend, Error, metrics, page};
use crate::fsck;
use crate::revalidate::WaitError;

/// Connections of one listener at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 32;
/// A request has a line and a few headers; a path of 1,024 bytes has 3,072 in it.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// A peer that takes longer to say what it wants, wants nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// A page is made in milliseconds; a peer that takes longer to read it is gone.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// After accept(2) fails (no more file descriptors), before the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type SharedBackend = Arc<dyn Backend>;

/// The running HTTP side of a server.
#[derive(Debug)]
pub struct Admin {
    address: Option<SocketAddr>,
    task: JoinHandle<()>,
}

impl Admin {
    /// Where the pages are; `None` with `--admin off`.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The tasks, which end after `stop` was cancelled.
    pub fn into_tasks(self) -> Vec<JoinHandle<()>> {
        vec![self.task]
    }
}

/// Answers on the control socket and the `--admin` address until `stop` is cancelled.
/// # Errors
/// When an address is taken; the error names it.
pub async fn serve(state: super::State, stop: CancellationToken) -> io::Result<Admin> {
    let listeners = Listeners::bind(&state.config.cache, state.config.admin).await?;
    let address = listeners.address();
    Ok(Admin { address, task: tokio::spawn(listeners.run(Arc::new(state), stop)) })
}

/// The listeners, bound and not yet answering.
struct Listeners {
    pages: Option<TcpListener>,
    control: Control,
    cache: PathBuf,
}

impl Listeners {
    /// Binds the control socket of the cache directory, and the address of the pages.
    async fn bind(cache: &Path, pages: Option<SocketAddr>) -> io::Result<Listeners> {
        let named = |what: String| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
        let pages = match pages {
            Some(at) => Some(
                TcpListener::bind(at)
                    .await
                    .map_err(named(format!("cannot listen on {at} (give another --admin, or --admin off)")))?,
            ),
            None => None,
        };
        let failed = named(format!("cannot make the control socket in {}", cache.display()));
        let control = Control::bind(cache).await.map_err(failed)?;
        Ok(Listeners { pages, control, cache: cache.into() })
    }

    fn address(&self) -> Option<SocketAddr> {
        self.pages.as_ref().and_then(|pages| pages.local_addr().ok())
    }

    /// Answers until `stop` is cancelled; then lets go of connections and removes the control socket.
    async fn run(self, backend: SharedBackend, stop: CancellationToken) {
        let pages = async {
            if let Some(listener) = &self.pages {
                accept(|| tcp(listener), &pages(backend.clone()), Some(PAGE_TIMEOUT)).await;
            }
        };
        let control = async {
            match &self.control {
                #[cfg(unix)]
                Control::Unix(listener) => accept(|| unix(listener), &commands(backend.clone()), None).await,
                Control::Tcp { listener, token } => {
                    let commands = with_token(commands(backend.clone()), token);
                    accept(|| tcp(listener), &commands, None).await;
                }
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(pages, control) } => {}
            () = stop.cancelled() => {}
        }
        control::unbind(&self.cache);
    }
}

async fn tcp(listener: &TcpListener) -> io::Result<Option<tokio::net::TcpStream>> {
    Ok(Some(listener.accept().await?.0))
}

/// `None`: somebody else's process.
#[cfg(unix)]
async fn unix(listener: &tokio::net::UnixListener) -> io::Result<Option<tokio::net::UnixStream>> {
    let (stream, _) = listener.accept().await?;
    Ok(control::is_ours(&stream).then_some(stream))
}

/// Serves connections for ever. Dropping it drops them.
async fn accept<S, F>(next: impl Fn() -> F, router: &Router, timeout: Option<Duration>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<Option<S>>>,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
        while connections.try_join_next().is_some() {}
        match next().await {
            Ok(None) => {}
            Ok(Some(stream)) => {
                let connection = serve_one(stream, router.clone(), timeout);
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(e) => {
                warn!("admin: cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one<S>(stream: S, router: Router, timeout: Option<Duration>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let result = match timeout {
        None => connection.await,
        Some(limit) => match tokio::time::timeout(limit, connection).await {
            Ok(result) => result,
            Err(_) => return,
        },
    };
    if let Err(e) = result {
        debug!("admin: connection ended: {e}"); // peers may send what they like
    }
}

/// What everybody who reaches the `--admin` address may read.
fn pages(backend: SharedBackend) -> Router {
    Router::new()
        .route("/", get(show_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/status", get(show_status))
        .route("/metrics", get(show_metrics))
        .fallback(no_such_page)
        .with_state(backend)
        .layer(middleware::from_fn(only_named_by_address))
        .layer(middleware::map_response(hardened))
}

/// What the commands ask for.
fn commands(backend: SharedBackend) -> Router {
    Router::new()
        .route("/status", get(show_status))
        .route("/why", get(why))
        .route("/refresh", post(refresh))
        .route("/invalidate", post(invalidate))
        .route("/warm", post(warm))
        .route("/sync", post(sync))
        .route("/conflicts", get(conflicts))
        .route("/conflicts/forget", post(forget_conflict))
        .route("/fsck", post(fsck))
        .fallback(no_such_page)
        .with_state(backend)
}

/// `router`, for those who show the token.
fn with_token(router: Router, token: &str) -> Router {
    let expected = format!("Bearer {token}");
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let shown = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let is_right = is_same(shown, expected.as_bytes());
        async move {
            match is_right {
                true => next.run(request).await,
                false => refusal(StatusCode::UNAUTHORIZED, "the token of the cache directory is asked for"),
            }
        }
    }))
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn show_page(State(backend): State<SharedBackend>) -> Html<String> {
    Html(page::render(&backend.status()))
}

async fn show_status(State(backend): State<SharedBackend>) -> Response {
    Json(backend.status()).into_response()
}

async fn show_metrics(State(backend): State<SharedBackend>) -> Response {
    let text = metrics::render(&backend.status(), &backend.stale_histogram());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn why(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(Json(backend.why(&path(query)?)?).into_response())
}

async fn refresh(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(Json(backend.refresh(&path(query)?).await?).into_response())
}

async fn invalidate(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let peers = parameter(query.as_deref(), "peers=") == Some("true");
    Ok(Json(backend.invalidate(&path(query)?, peers).await?).into_response())
}

async fn warm(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(Json(backend.warm(&path(query)?).await?).into_response())
}

async fn sync(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(Json(backend.sync(&path(query)?).await?).into_response())
}

async fn conflicts(State(backend): State<SharedBackend>) -> Result<Response, Refusal> {
    Ok(Json(backend.conflicts()?).into_response())
}

async fn forget_conflict(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let number = parameter(query.as_deref(), "number=").and_then(|value| value.parse().ok());
    let number = number.ok_or(Refusal::Missing("number"))?;
    match backend.forget_conflict(number).await? {
        true => Ok(Json(serde_json::json!({ "forgotten": number })).into_response()),
        false => Ok(refusal(StatusCode::NOT_FOUND, &format!("there is no conflict {number}: see `fasts3 conflicts`"))),
    }
}

async fn fsck(State(backend): State<SharedBackend>, RawQuery(query): RawQuery) -> Response {
    let is_set = |name| parameter(query.as_deref(), name) == Some("true");
    let options = fsck::Options { remote: is_set("remote="), repair: is_set("repair=") };
    Json(backend.fsck(options).await).into_response()
}

async fn no_such_page() -> Response {
    refusal(StatusCode::NOT_FOUND, "no such page")
}

/// The path of `?path=`, percent-decoded to bytes: names need not be UTF-8.
fn path(query: Option<String>) -> Result<Vec<u8>, Refusal> {
    let value = parameter(query.as_deref(), "path=").ok_or(Refusal::Missing("path"))?;
    Ok(percent_encoding::percent_decode_str(value).collect())
}

/// What follows `name` in a query, still encoded.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name))
}

/// A request that could not be done.
enum Refusal {
    /// A parameter that must be there, and be what it should.
    Missing(&'static str),
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Missing(name) => refusal(StatusCode::BAD_REQUEST, &format!("?{name}= is missing, or no {name}")),
            Refusal::Failed(error) => refusal(status_of(&error), &error.to_string()),
        }
    }
}

/// The one table from our errors to HTTP's.
fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::BadPath(_) | Error::BadKey(_) | Error::NoPeers => StatusCode::BAD_REQUEST,
        Error::PeersAway(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Index(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Wait { source, .. } => match source {
            WaitError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            WaitError::Gone => StatusCode::NOT_FOUND,
            WaitError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            WaitError::Denied => StatusCode::FORBIDDEN,
            WaitError::Failed => StatusCode::BAD_GATEWAY,
        },
    }
}

fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// A page in somebody's browser can make the browser ask us under a name of its own (DNS rebinding); it
/// cannot make it ask under an address.
async fn only_named_by_address(headers: HeaderMap, request: Request, next: Next) -> Response {
    match headers.get(header::HOST).is_some_and(is_address) {
        true => next.run(request).await,
        false => refusal(StatusCode::FORBIDDEN, "ask by IP address or as localhost"),
    }
}

fn is_address(host: &HeaderValue) -> bool {
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

async fn hardened(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
