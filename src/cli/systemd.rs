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
    std::os::unix::net::UnixDatagram::unbound()?.send_to_addr(what, &address(socket)?).map(drop)
}

/// A path, or on Linux `@NAME` for an address without one.
#[cfg(unix)]
fn address(socket: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::SocketAddr> {
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = socket.as_encoded_bytes() {
        return <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    std::os::unix::net::SocketAddr::from_pathname(socket)
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
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("fasts3-test-{}", std::process::id());
            let systemd =
                UnixDatagram::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
            tell(format!("@{name}").as_ref(), b"READY=1").unwrap();
            assert_eq!(systemd.recv(&mut heard).unwrap(), 7);
        }
        assert!(tell(dir.path().join("nobody").as_os_str(), b"READY=1").is_err());
    }
}
