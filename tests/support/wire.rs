//! Raw RPC calls, for what a well-behaved client library cannot do: choose the address and the xid, repeat a call to
//! the byte, see the reply to the byte.

use std::net::{IpAddr, SocketAddr};

use nfs3_client::net::Connector;
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::{Opaque, Pack, Unpack};
use nfs3_client::tokio::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::soon;

/// Program and version.
pub const NFS: (u32, u32) = (100_003, 3);
pub const MOUNT: (u32, u32) = (100_005, 3);
pub const PORTMAP: (u32, u32) = (100_000, 2);

/// MSG_DENIED, AUTH_ERROR, AUTH_TOOWEAK.
pub const TOO_WEAK: [u32; 3] = [1, 1, 5];

/// Connects from one of this machine's addresses.
pub struct Bound(pub IpAddr);

impl Bound {
    /// A connection to `to` from `port`; 0 takes any.
    pub async fn stream(&self, to: SocketAddr, port: u16) -> std::io::Result<TcpStream> {
        let socket = if self.0.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(self.0, port))?;
        socket.connect(to).await
    }
}

impl Connector for Bound {
    type Connection = TokioIo<TcpStream>;

    async fn connect(&self, to: SocketAddr) -> std::io::Result<TokioIo<TcpStream>> {
        self.stream(to, 0).await.map(TokioIo::new)
    }

    async fn connect_with_port(&self, to: SocketAddr, port: u16) -> std::io::Result<TokioIo<TcpStream>> {
        self.stream(to, port).await.map(TokioIo::new)
    }
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    credential: Vec<u8>,
}

impl Wire {
    pub async fn new(to: SocketAddr) -> Wire {
        Wire::over(soon(TcpStream::connect(to)).await.unwrap())
    }

    /// From another address of this machine.
    pub async fn from(ip: &str, to: SocketAddr) -> Wire {
        Wire::over(soon(Bound(ip.parse().unwrap()).stream(to, 0)).await.unwrap())
    }

    pub fn over(stream: TcpStream) -> Wire {
        Wire { stream, credential: Vec::new() }.by(0, 0)
    }

    /// The same, whose calls say so of their user.
    pub fn by(self, uid: u32, gid: u32) -> Wire {
        let auth = auth_unix { stamp: 1, machinename: Opaque::borrowed(b"test"), uid, gid, gids: vec![] };
        Wire { credential: pack(&opaque_auth::auth_unix(&auth)), ..self }
    }

    /// Sends a call, and takes the reply without its record mark.
    pub async fn call(&mut self, xid: u32, program: (u32, u32), procedure: u32, args: &impl Pack) -> Vec<u8> {
        self.send(xid, program, procedure, args).await;
        self.receive().await.expect("an answer")
    }

    pub async fn send(&mut self, xid: u32, (program, version): (u32, u32), procedure: u32, args: &impl Pack) {
        let mut call: Vec<u8> =
            [xid, 0, 2, program, version, procedure].iter().flat_map(|word| word.to_be_bytes()).collect();
        call.extend(&self.credential);
        // an AUTH_NONE verifier
        call.extend([0; 8]);
        call.extend(pack(args));
        let mark = (call.len() as u32 | 1 << 31).to_be_bytes();
        soon(self.stream.write_all(&[&mark[..], &call].concat())).await.unwrap();
    }

    /// The next reply; `None` when the connection ended.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let mark = soon(self.stream.read_u32()).await.ok()?;
        let mut reply = vec![0; (mark & !(1 << 31)) as usize];
        soon(self.stream.read_exact(&mut reply)).await.unwrap();
        Some(reply)
    }
}

pub fn pack(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes).unwrap();
    bytes
}

/// What a refusal says behind its xid.
pub fn refusal(reply: &[u8]) -> Vec<u32> {
    reply[8..].chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect()
}

/// The result of a call that was answered.
pub fn result<T: Unpack>(reply: &[u8]) -> T {
    const ACCEPTED: [u8; 20] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(reply[4..24], ACCEPTED, "an accepted reply");
    let (value, len) = T::unpack(&mut &reply[24..]).unwrap();
    assert_eq!(len, reply.len() - 24, "nothing follows the result");
    value
}
