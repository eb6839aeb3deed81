//! What systemd is told (sd_notify(3)): that we are ready. Nothing, where it does not ask.

/// Tells that the server answers, and is mounted where that was asked for.
pub(super) fn ready() {
    #[cfg(unix)]
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = tell(&socket, b"READY=1")
    {
        tracing::warn!(%error, ?socket, "systemd cannot be told that we are ready");
    }
}

#[cfg(unix)]
fn tell(socket: &std::ffi::OsStr, what: &[u8]) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(what, &address).map(drop)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn systemd_hears_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str(), b"READY=1").unwrap();
        let mut heard = [0; 64];
        let len = systemd.recv(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"READY=1");
        assert!(tell(dir.path().join("nobody").as_os_str(), b"READY=1").is_err());
    }
}
