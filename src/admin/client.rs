//! The commands' end of the control socket.

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::control::{self, Token};

/// No answer of ours is near it; something else may answer at a port.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Talks to the server of one cache directory.
pub struct Client {
    cache: PathBuf,
}

impl Client {
    /// For the server of `cache`; nothing is asked yet.
    pub fn new(cache: &Path) -> Client {
        Client { cache: cache.into() }
    }

    /// GET of `endpoint`.
    /// # Errors
    /// One line that says what and what to do, as from all calls here.
    pub async fn get(&self, endpoint: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, endpoint).await
    }

    /// GET of `endpoint` for `path`.
    pub async fn get_path(&self, endpoint: &str, path: &OsStr) -> anyhow::Result<Value> {
        self.send(Method::GET, &with_path(endpoint, path)).await
    }

    /// POST to `endpoint` for `path`.
    pub async fn post_path(&self, endpoint: &str, path: &OsStr) -> anyhow::Result<Value> {
        self.send(Method::POST, &with_path(endpoint, path)).await
    }

    /// POST to `endpoint`, which has its query already.
    pub async fn post(&self, endpoint: &str) -> anyhow::Result<Value> {
        self.send(Method::POST, endpoint).await
    }

    async fn send(&self, method: Method, uri: &str) -> anyhow::Result<Value> {
        let request = Request::builder().method(method).uri(uri).header(header::HOST, "localhost");
        #[cfg(unix)]
        match tokio::net::UnixStream::connect(control::socket_path(&self.cache)).await {
            Ok(stream) => return exchange(stream, request.body(Body::empty())?).await,
            Err(e) if is_nobody(&e) => {}
            Err(e) => return Err(e).context(format!("cannot talk to the server of {}", self.cache.display())),
        }
        let Some(Token { port, token }) = self.token()? else { bail!(self.nobody()) };
        let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { bail!(self.nobody()) };
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        exchange(stream, request.body(Body::empty())?).await
    }

    /// What the token file says; `None` when there is none.
    fn token(&self) -> anyhow::Result<Option<Token>> {
        let path = control::token_path(&self.cache);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if is_nobody(&e) => return Ok(None),
            Err(e) => return Err(e).context(format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    fn nobody(&self) -> String {
        let cache = self.cache.display();
        format!("no server is running on {cache}: start one with `fasts3 serve s3://BUCKET --cache {cache}`")
    }
}

/// Whether an error means that no server is there; a path too long for a socket means that it has a token file.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | ConnectionRefused | InvalidInput)
}

fn with_path(endpoint: &str, path: &OsStr) -> String {
    let mark = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{mark}path={}", percent_encode(path.as_encoded_bytes(), NON_ALPHANUMERIC))
}

async fn exchange<S>(stream: S, request: Request<Body>) -> anyhow::Result<Value>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = "the server broke off";
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context(broken)?;
    let answer = async {
        let response = sender.send_request(request).await.context(broken)?;
        read(response).await
    };
    // one task: the connection moves while the answer is waited for, and neither outlives this call
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> anyhow::Result<Value> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|e| anyhow::anyhow!("the server's answer broke off: {e}"))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match value.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}"),
        None if !status.is_success() => bail!("the server answered {status}"),
        None => Ok(value),
    }
}
