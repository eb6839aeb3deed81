//! Which clients hold locks, so that a restart knows whom to tell, and the number that the restart goes by.
//! A row a client, not one a lock: which locks those were, the clients know.

use std::net::{IpAddr, Ipv6Addr};

use redb::ReadableTable;

use super::change::Change;
use super::model::IndexError;
use super::{Index, tables};

/// A client, as its lock calls tell it from others: by address; by the name it gives itself, since those behind one address
/// translator share the address; and by the address it has of us, since a client that mounted two of them counts its
/// processes apart. Addresses of IPv4 are never in IPv6 clothes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockHost {
    /// Where it calls from.
    pub address: IpAddr,
    /// Which address of ours it calls.
    pub server: IpAddr,
    /// `caller_name`.
    pub name: Box<[u8]>,
}

/// What a start finds of the time before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockStart {
    /// The state number of the status monitor: odd, and above all before.
    pub state: u32,
    /// Clients that held locks.
    pub hosts: Vec<LockHost>,
}

impl Index {
    /// Counts a start of the status monitor, and lists the clients that held locks before it.
    pub async fn lock_start(&self) -> Result<LockStart, IndexError> {
        self.writer.run(1, lock_start).await
    }

    /// Notes that clients hold locks now, and that others do not any more.
    pub async fn note_lock_hosts(&self, add: Vec<LockHost>, remove: Vec<LockHost>) -> Result<(), IndexError> {
        let note = move |change: &mut Change<'_>| {
            for host in &remove {
                change.dirty |= change.tables.lock_hosts.remove(row(host).as_slice())?.is_some();
            }
            for host in &add {
                change.dirty |= change.tables.lock_hosts.insert(row(host).as_slice(), ())?.is_none();
            }
            Ok(())
        };
        self.writer.run(1, note).await
    }
}

fn lock_start(change: &mut Change<'_>) -> Result<LockStart, IndexError> {
    let before = tables::meta(&*change.tables.meta, tables::META_MONITOR)?;
    // a host that is up has an odd number; after the last one of 31 bits they begin anew
    let state = u32::try_from((before + 1) | 1).ok().filter(|state| *state < 1 << 31).unwrap_or(1);
    change.tables.meta.insert(tables::META_MONITOR, u64::from(state))?;
    change.dirty = true;
    let mut hosts = Vec::new();
    for entry in change.tables.lock_hosts.iter()? {
        let host = parse(entry?.0.value());
        hosts.push(host.ok_or_else(|| tables::corrupted("lock_hosts", hosts.len()))?);
    }
    Ok(LockStart { state, hosts })
}

/// Key of `lock_hosts`: both addresses as those of IPv6, then the name.
fn row(host: &LockHost) -> Vec<u8> {
    [&octets(host.address)[..], &octets(host.server), &host.name].concat()
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn parse(row: &[u8]) -> Option<LockHost> {
    let (address, rest) = row.split_first_chunk::<16>()?;
    let (server, name) = rest.split_first_chunk::<16>()?;
    let [address, server] = [address, server].map(|octets| Ipv6Addr::from(*octets).to_canonical());
    Some(LockHost { address, server, name: name.into() })
}
