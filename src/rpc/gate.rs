//! Who is let in, and as whom: asked once a connection (and once a datagram), because a peer's address does not
//! change, and carried in every `Call` from there.
//! Owns: what a grant is, and squashing. Who gets which grant is `access`'s to know.
//! Invariant: no program sees a call of a peer without a grant but through `Program::turn_away`, nor an identity
//! before squashing.

use std::net::SocketAddr;

use smallvec::SmallVec;

use super::Credentials;

/// What a peer that is let in may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// It may change nothing.
    pub read_only: bool,
    /// Whom of its users not to believe.
    pub squash: Squash,
}

impl Grant {
    /// Everything, as anybody.
    pub const ALL: Grant = Grant { read_only: false, squash: Squash::None };
}

/// Whose identity is not taken as AUTH_SYS tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// Nobody's.
    None,
    /// The superuser becomes this user and group.
    Root(u32, u32),
    /// Everybody becomes this user and group.
    All(u32, u32),
}

impl Squash {
    /// Who the caller is taken for.
    pub(super) fn apply(self, caller: Credentials) -> Credentials {
        match self {
            Squash::None => caller,
            Squash::All(uid, gid) => Credentials { uid, gid, gids: SmallVec::new() },
            Squash::Root(anon_uid, anon_gid) => {
                let not_root = |id: u32, anon: u32| if id == 0 { anon } else { id };
                Credentials {
                    uid: not_root(caller.uid, anon_uid),
                    gid: not_root(caller.gid, anon_gid),
                    gids: caller.gids.into_iter().map(|gid| not_root(gid, anon_gid)).collect(),
                }
            }
        }
    }
}

/// Decides who is let in.
pub trait Gate: Send + Sync + 'static {
    /// What the peer at this address may do; `None`: nothing, it is turned away. IPv4 comes as IPv4, whichever kind
    /// of socket it came in by.
    fn admit(&self, peer: SocketAddr) -> Option<Grant>;
}

/// A gate that is always open, for whoever guards the programs in another way.
pub(super) struct Open;

impl Gate for Open {
    fn admit(&self, _peer: SocketAddr) -> Option<Grant> {
        Some(Grant::ALL)
    }
}

/// The address of a peer as the gate and the programs see it: an IPv4 client of a dual-stack socket is that IPv4
/// client.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32, gid: u32, gids: &[u32]) -> Credentials {
        Credentials { uid, gid, gids: gids.iter().copied().collect() }
    }

    #[test]
    fn squashing_leaves_nothing_of_the_superuser() {
        let root = who(0, 0, &[0, 5]);
        assert_eq!(Squash::None.apply(root.clone()), root);
        assert_eq!(Squash::Root(65534, 65533).apply(root.clone()), who(65534, 65533, &[65533, 5]));
        assert_eq!(Squash::Root(65534, 65533).apply(who(7, 8, &[9])), who(7, 8, &[9]));
        assert_eq!(Squash::All(65534, 65533).apply(who(7, 8, &[9])), who(65534, 65533, &[]));
    }

    #[test]
    fn ipv4_is_ipv4_on_a_dual_stack_socket() {
        let peer = "[::ffff:192.0.2.7]:700".parse().expect("an address");
        assert_eq!(canonical(peer), "192.0.2.7:700".parse().expect("an address"));
    }
}
