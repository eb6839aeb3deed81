//! HTTP as somebody sends it who is no library.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// Sends bytes and takes all that comes back until the connection is closed.
pub(crate) async fn raw(address: &str, bytes: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // it may be closed before it has read all
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let text = soon(exchange).await;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, text }
}

pub(crate) async fn post(address: &str, target: &str, headers: &[&str], body: &str) -> Answer {
    raw(address, &[head(address, target, headers, body.len()).as_bytes(), body.as_bytes()].concat()).await
}

/// The head of a POST that says that so many bytes follow.
pub(crate) fn head(address: &str, target: &str, headers: &[&str], length: usize) -> String {
    let mut head =
        format!("POST {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    head + "\r\n"
}
