//! A network: an address and how many of its bits count (CIDR).
//! Invariant: the bits that do not count are zero, and IPv4 is IPv4, also where it was written as `::ffff:a.b.c.d`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits of an IPv6 address before the IPv4 address that it maps.
const MAPPED_BITS: u32 = 96;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    /// How many bits count.
    prefix: u32,
}

impl Network {
    /// This machine, by IPv4.
    pub const LOOPBACK_V4: Network = Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 };
    /// This machine, by IPv6.
    pub const LOOPBACK_V6: Network = Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };

    /// Whether the address is one of the network's.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            (network, address) => is_zero(bits(network) ^ bits(address), width(network) - self.prefix),
        }
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Network) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// How many bits count: the more, the fewer addresses.
    pub fn prefix(self) -> u32 {
        self.prefix
    }
}

/// Whether `bits` is nothing but its last `ignored` bits.
fn is_zero(bits: u128, ignored: u32) -> bool {
    bits.checked_shr(ignored).unwrap_or(0) == 0
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == width(self.address) {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no address or network, as in 192.168.1.7, 10.0.0.0/8 or fd00::/8");
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = match prefix {
            None => width(written),
            // no sign, and so no more digits than any prefix has
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if prefix > width(written) {
            return Err(format!("{text} has more than the {} bits of its address", width(written)));
        }
        let (address, prefix) = unmapped(written, prefix);
        let ignored = width(address) - prefix;
        let host = bits(address) & !u128::MAX.checked_shl(ignored).unwrap_or(0);
        if host != 0 {
            let network = Network { address: cut(address, ignored), prefix };
            return Err(format!(
                "{text} is a network and an address in it: write {network}, or {address} for it alone"
            ));
        }
        Ok(Network { address, prefix })
    }
}

/// IPv4 as IPv4, where all that counts is of it.
fn unmapped(address: IpAddr, prefix: u32) -> (IpAddr, u32) {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) if address.is_ipv6() && prefix >= MAPPED_BITS => (v4, prefix - MAPPED_BITS),
        _ => (address, prefix),
    }
}

/// The address without its last bits.
fn cut(address: IpAddr, ignored: u32) -> IpAddr {
    let kept = bits(address) & u128::MAX.checked_shl(ignored).unwrap_or(0);
    match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(kept).expect("32 bits, some cleared")).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(kept).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    /// The address as text of ones and zeros, with its family in front: what CIDR means, said naively.
    fn digits(address: IpAddr) -> String {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets().iter().fold("4".to_owned(), |text, byte| format!("{text}{byte:08b}")),
            IpAddr::V6(v6) => v6.octets().iter().fold("6".to_owned(), |text, byte| format!("{text}{byte:08b}")),
        }
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        ]
    }

    proptest! {
        #[test]
        fn a_network_has_the_addresses_that_begin_like_it(of in address(), prefix in 0..=128_u32, flips in 0..=128_u32,
                                                           other in address()) {
            let of = of.to_canonical();
            let prefix = prefix.min(width(of));
            let network = network(&format!("{}/{prefix}", cut(of, width(of) - prefix)));
            // one that differs in one late bit or none, one that has nothing to do with it
            let flipped = bits(of) ^ 1_u128.checked_shl(width(of).wrapping_sub(flips + 1)).unwrap_or(0);
            let near = match of {
                IpAddr::V4(_) => Ipv4Addr::from_bits(flipped as u32).into(),
                IpAddr::V6(_) => Ipv6Addr::from_bits(flipped).into(),
            };
            for asked in [of, near, other] {
                let alike = digits(asked).starts_with(&digits(of)[..=prefix as usize]);
                prop_assert_eq!(network.contains(asked), alike, "{} {}", network, asked);
                if let IpAddr::V4(v4) = asked {
                    prop_assert_eq!(network.contains(v4.to_ipv6_mapped().into()), alike, "{} mapped {}", network, asked);
                }
            }
            prop_assert_eq!(network.to_string().parse(), Ok(network));
        }

        #[test]
        fn no_text_is_a_panic(text in "[0-9a-f:./]{0,40}") {
            let _ = Network::from_str(&text);
        }
    }

    #[test]
    fn mapped_ipv4_is_ipv4() {
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        assert_eq!(network("::ffff:10.1.2.3"), network("10.1.2.3"));
        assert!(network("::ffff:0:0/96").contains("10.1.2.3".parse().unwrap()));
        assert!(!network("::/0").contains("10.1.2.3".parse().unwrap()), "IPv6 is not IPv4");
        assert!(!network("0.0.0.0/0").contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(network("127.0.0.2").overlaps(Network::LOOPBACK_V4));
        assert!(Network::LOOPBACK_V4.overlaps(network("0.0.0.0/0")));
        assert!(!network("10.0.0.0/8").overlaps(Network::LOOPBACK_V4));
        assert!(!network("::/0").overlaps(Network::LOOPBACK_V4));
        assert!(network("::/0").overlaps(Network::LOOPBACK_V6));
    }

    #[test]
    fn wrong_networks_say_what_is_right() {
        for (text, hint) in [
            ("", "192.168.1.7"),
            ("10.0.0", "10.0.0.0/8"),
            ("example.org", "10.0.0.0/8"),
            ("10.0.0.0/33", "32 bits"),
            ("fd00::/129", "128 bits"),
            ("10.0.0.0/", "10.0.0.0/8"),
            ("10.0.0.0/+8", "10.0.0.0/8"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("10.0.0.0/4294967296", "10.0.0.0/8"),
            ("192.168.1.7/24", "write 192.168.1.0/24, or 192.168.1.7"),
            ("::ffff:10.1.0.0/104", "write 10.0.0.0/8, or 10.1.0.0"),
            ("fd00::1/8", "write fd00::/8, or fd00::1"),
            ("1.2.3.4/0", "write 0.0.0.0/0, or 1.2.3.4"),
        ] {
            let error = Network::from_str(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
