//! The control socket: how the commands reach the server of a cache directory.
//!
//! `DIR/control.sock` is a Unix socket for the server's own user. Where there are no such sockets, or the path is too
//! long for one, `DIR/control.json` names a loopback port and a secret token, readable by the owner only.
//! A server holds the lock of its directory, so what it finds here at start is left over from one that died.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Name of the Unix socket.
const SOCKET: &str = "control.sock";
/// Name of the token file.
const TOKEN: &str = "control.json";

/// Contents of the token file.
#[derive(Serialize, Deserialize)]
pub(super) struct Token {
    /// The port on 127.0.0.1.
    pub(super) port: u16,
    /// What a request must show as `Authorization: Bearer`.
    pub(super) token: String,
}

/// The server's end.
pub(super) enum Control {
    /// At a Unix socket.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
    /// At a loopback port, for those who can read the token.
    Tcp {
        /// The listener.
        listener: TcpListener,
        /// The token.
        token: String,
    },
}

impl Control {
    /// Listens for the commands of `dir`.
    pub(super) async fn bind(dir: &Path) -> io::Result<Control> {
        unbind(dir);
        #[cfg(unix)]
        match unix::bind(&socket_path(dir)) {
            Ok(listener) => return Ok(Control::Unix(listener)),
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => return Err(e),
            Err(_) => {} // longer than an address can be
        }
        Control::bind_tcp(dir).await
    }

    pub(super) async fn bind_tcp(dir: &Path) -> io::Result<Control> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let contents = Token { port: listener.local_addr()?.port(), token: token.clone() };
        write_private(&token_path(dir), &serde_json::to_vec(&contents)?)?;
        Ok(Control::Tcp { listener, token })
    }
}

/// Removes what the commands find a server by.
pub(super) fn unbind(dir: &Path) {
    for path in [socket_path(dir), token_path(dir)] {
        let _ = std::fs::remove_file(path); // mostly it is not there
    }
}

pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

pub(super) fn token_path(dir: &Path) -> PathBuf {
    dir.join(TOKEN)
}

/// Writes a new file that only its owner can read; on Windows, who can read the directory can read it.
fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(contents)
}

#[cfg(unix)]
mod unix {
    use std::fs::Permissions;
    use std::io;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use tokio::net::{UnixListener, UnixStream};

    pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Whether the peer runs as we do, or as root. The permissions of the file say the same, but not on every system,
    /// and not in the moment before they are set.
    pub(in super::super) fn is_ours(stream: &UnixStream) -> bool {
        let us = rustix::process::geteuid().as_raw();
        stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
    }
}

#[cfg(unix)]
pub(super) use unix::is_ours;
