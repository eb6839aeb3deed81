//! How rpcbind spells transports and addresses (RFC 5665): network ids, and universal addresses, which are the address
//! as text, a dot and the port as two decimal bytes.

use std::net::{IpAddr, SocketAddr};

use crate::rpc::Transport;

/// A transport of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netid {
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl Netid {
    /// All there are, IPv4 first: who does not say which family means that.
    pub const ALL: [Netid; 4] = [Netid::Tcp, Netid::Udp, Netid::Tcp6, Netid::Udp6];

    /// That of an address.
    pub fn new(transport: Transport, ip: IpAddr) -> Netid {
        match (transport, ip) {
            (Transport::Tcp, IpAddr::V4(_)) => Netid::Tcp,
            (Transport::Udp, IpAddr::V4(_)) => Netid::Udp,
            (Transport::Tcp, IpAddr::V6(_)) => Netid::Tcp6,
            (Transport::Udp, IpAddr::V6(_)) => Netid::Udp6,
        }
    }

    /// The one of this name.
    pub fn parse(name: &[u8]) -> Option<Netid> {
        Netid::ALL.into_iter().find(|netid| netid.name().as_bytes() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Netid::Tcp => "tcp",
            Netid::Udp => "udp",
            Netid::Tcp6 => "tcp6",
            Netid::Udp6 => "udp6",
        }
    }

    /// TCP or UDP.
    pub fn transport(self) -> Transport {
        match self {
            Netid::Tcp | Netid::Tcp6 => Transport::Tcp,
            Netid::Udp | Netid::Udp6 => Transport::Udp,
        }
    }

    /// Whether `ip` is of its family.
    pub fn fits(self, ip: IpAddr) -> bool {
        matches!(self, Netid::Tcp6 | Netid::Udp6) == ip.is_ipv6()
    }
}

/// The universal address.
pub fn universal(addr: SocketAddr) -> String {
    let [high, low] = addr.port().to_be_bytes();
    format!("{}.{high}.{low}", addr.ip())
}

/// The address that a universal one means.
pub fn parse_universal(text: &[u8]) -> Option<SocketAddr> {
    let (rest, low) = std::str::from_utf8(text).ok()?.rsplit_once('.')?;
    let (ip, high) = rest.rsplit_once('.')?;
    let port = u16::from_be_bytes([high.parse().ok()?, low.parse().ok()?]);
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn universal_addresses_are_as_others_write_them() {
        for (text, addr) in
            [("127.0.0.1.8.1", "127.0.0.1:2049"), ("0.0.0.0.0.111", "0.0.0.0:111"), ("::1.3.255", "[::1]:1023")]
        {
            assert_eq!(universal(addr.parse().unwrap()), text);
            assert_eq!(parse_universal(text.as_bytes()), Some(addr.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_universal_address_is_none() {
        for text in
            ["", ".", "1.2", "127.0.0.1", "127.0.0.1.8", "127.0.0.1.256.1", "127.0.0.1.8.-1", "host.8.1", "\u{ff}"]
        {
            assert_eq!(parse_universal(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_universal(&[0xff; 9]), None);
    }

    proptest! {
        #[test]
        fn every_address_comes_back(ip: IpAddr, port: u16) {
            let addr = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_universal(universal(addr).as_bytes()), Some(addr));
        }
    }
}
