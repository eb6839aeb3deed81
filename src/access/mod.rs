//! Who may come in (`--allow`, `--secure-ports`): rules for networks, the longest prefix wins; what no rule names is
//! refused. The RPC layer asks once a connection and once a datagram.
//! Owns: the rules, and which hosts were named in the log.
//! Invariants: there is no way around a rule but a longer one; the hosts remembered are bounded.

mod network;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;
use tracing::{info, warn};

pub use network::Network;

use crate::rpc::{Gate, Grant, Squash};

/// 1,024 hosts let in, and as many refused, are named in the log: more than anybody reads, and at most 100 KiB.
const NAMED_HOSTS: usize = 1024;
/// First port that any user of a host may have.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// What the hosts of a network may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The hosts.
    pub network: Network,
    /// What they may.
    pub grant: Grant,
}

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `--allow`; no network is in it twice.
    pub rules: Vec<Rule>,
    /// `--secure-ports`: only from ports that the superuser alone can use.
    pub secure_ports: bool,
}

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No rule has its address.
    NoRule,
    /// Its port is one that any user can have.
    Port,
}

impl Rules {
    /// This machine alone, with this squashing.
    pub fn loopback(squash: Squash) -> Vec<Rule> {
        let grant = Grant { read_only: false, squash };
        [Network::LOOPBACK_V4, Network::LOOPBACK_V6].map(|network| Rule { network, grant }).to_vec()
    }

    /// The rule for a peer.
    /// # Errors
    /// It is refused.
    pub fn judge(&self, peer: SocketAddr) -> Result<&Rule, Refusal> {
        let of_peer = self.rules.iter().filter(|rule| rule.network.contains(peer.ip()));
        let rule = of_peer.max_by_key(|rule| rule.network.prefix()).ok_or(Refusal::NoRule)?;
        if self.secure_ports && peer.port() >= FIRST_UNPRIVILEGED_PORT {
            return Err(Refusal::Port);
        }
        Ok(rule)
    }
}

/// The gate before all programs.
#[derive(Debug)]
pub struct Access {
    rules: Rules,
    named: Mutex<Named>,
}

impl Access {
    /// Follows these rules.
    pub fn new(rules: Rules) -> Access {
        Access { rules, named: Mutex::default() }
    }
}

impl Gate for Access {
    fn admit(&self, peer: SocketAddr) -> Option<Grant> {
        let judged = self.rules.judge(peer);
        let host = peer.ip().to_canonical();
        match self.named.lock().note(host, judged.is_ok()) {
            Mention::Known => {}
            Mention::New => tell(host, judged),
            Mention::Last => warn!("so many hosts were named here that further ones are not"),
        }
        judged.ok().map(|rule| rule.grant)
    }
}

fn tell(host: IpAddr, judged: Result<&Rule, Refusal>) {
    match judged {
        Ok(rule) => info!(%host, rule = %rule.network, may = %May(rule.grant), "let in"),
        Err(Refusal::NoRule) => warn!(%host, "refused: --allow {host} would let it in"),
        Err(Refusal::Port) => warn!(%host, "refused: its port is not below 1024, as --secure-ports asks"),
    }
}

/// A grant as it is written in a rule.
struct May(Grant);

impl fmt::Display for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.read_only { "ro" } else { "rw" })?;
        f.write_str(match self.0.squash {
            Squash::None => "",
            Squash::Root(..) => "+squash-root",
            Squash::All(..) => "+squash-all",
        })
    }
}

/// Hosts that were named in the log.
#[derive(Debug, Default)]
struct Named {
    admitted: HashSet<IpAddr>,
    refused: HashSet<IpAddr>,
}

/// What is to be said of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mention {
    /// Nothing: it was said, or too many were.
    Known,
    New,
    /// That there are too many; said once.
    Last,
}

impl Named {
    fn note(&mut self, host: IpAddr, admitted: bool) -> Mention {
        let named = if admitted { &mut self.admitted } else { &mut self.refused };
        // the one above the bound stands for all that were not named
        if named.len() > NAMED_HOSTS || !named.insert(host) {
            return Mention::Known;
        }
        if named.len() > NAMED_HOSTS { Mention::Last } else { Mention::New }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    const READ: Grant = Grant { read_only: true, squash: Squash::None };

    fn rules(rules: &[(&str, Grant)]) -> Rules {
        let rules = rules.iter().map(|(network, grant)| Rule { network: network.parse().unwrap(), grant: *grant });
        Rules { rules: rules.collect(), secure_ports: false }
    }

    fn judge(rules: &Rules, peer: &str) -> Result<Grant, Refusal> {
        rules.judge(peer.parse().unwrap()).map(|rule| rule.grant)
    }

    #[test]
    fn the_longest_prefix_wins_in_whatever_order() {
        let squashed = Grant { read_only: false, squash: Squash::All(1, 2) };
        let mut rules = rules(&[("10.0.0.0/8", READ), ("10.1.2.3", Grant::ALL), ("10.1.0.0/16", squashed)]);
        for _ in 0..3 {
            rules.rules.rotate_left(1);
            assert_eq!(judge(&rules, "10.9.9.9:700"), Ok(READ));
            assert_eq!(judge(&rules, "10.1.9.9:700"), Ok(squashed));
            assert_eq!(judge(&rules, "10.1.2.3:700"), Ok(Grant::ALL));
            assert_eq!(judge(&rules, "[::ffff:10.1.2.3]:700"), Ok(Grant::ALL));
            assert_eq!(judge(&rules, "11.0.0.1:700"), Err(Refusal::NoRule));
            assert_eq!(judge(&rules, "[fd00::1]:700"), Err(Refusal::NoRule));
        }
    }

    #[test]
    fn loopback_is_this_machine_and_nobody_else() {
        let rules = Rules { rules: Rules::loopback(Squash::None), secure_ports: false };
        for here in ["127.0.0.1:7", "127.9.9.9:60000", "[::1]:7", "[::ffff:127.0.0.1]:7"] {
            assert_eq!(judge(&rules, here), Ok(Grant::ALL), "{here}");
        }
        for elsewhere in ["192.168.1.7:7", "[::2]:7", "0.0.0.0:7", "[fe80::1]:7", "[::]:7"] {
            assert_eq!(judge(&rules, elsewhere), Err(Refusal::NoRule), "{elsewhere}");
        }
    }

    #[test]
    fn secure_ports_are_those_of_the_superuser() {
        let rules = Rules { secure_ports: true, ..rules(&[("10.0.0.0/8", READ)]) };
        assert_eq!(judge(&rules, "10.0.0.1:1023"), Ok(READ));
        assert_eq!(judge(&rules, "10.0.0.1:1024"), Err(Refusal::Port));
        assert_eq!(judge(&rules, "11.0.0.1:1024"), Err(Refusal::NoRule), "the rules go first");
    }

    #[test]
    fn a_host_is_named_once_for_being_let_in_and_once_for_being_refused() {
        let mut named = Named::default();
        let host = Ipv4Addr::LOCALHOST.into();
        assert_eq!([named.note(host, true), named.note(host, true)], [Mention::New, Mention::Known]);
        assert_eq!([named.note(host, false), named.note(host, false)], [Mention::New, Mention::Known]);
    }

    #[test]
    fn the_hosts_named_are_bounded() {
        let mut named = Named::default();
        let mut note = |n: u32| named.note(Ipv4Addr::from_bits(n).into(), false);
        assert!((0..1024).all(|n| note(n) == Mention::New));
        assert_eq!(note(1024), Mention::Last);
        assert!((0..9999).all(|n| note(n) == Mention::Known));
        assert_eq!(named.refused.len(), NAMED_HOSTS + 1);
    }
}
