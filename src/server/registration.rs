//! What this server has told the portmapper of the system, and takes back at its end.
//! Invariant: only what leads to our own port is ever entered, replaced or taken back; what others registered stays.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::warn;

use crate::nfs;
use crate::nfs::portmap::{Service, client};
use crate::rpc::Transport;
use crate::rpc::outgoing::{CallError, Route};

/// A portmapper of this machine answers in a millisecond, or is started by systemd first.
const DEADLINE: Duration = Duration::from_secs(2);
/// At the end there is less time, and nobody reads of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why clients do not find this server by the system's portmapper.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRegistered {
    /// None is there.
    #[error("no portmapper answers there: {0}")]
    Nobody(#[source] CallError),
    /// It is for root.
    #[error("{0}")]
    NotRoot(#[source] CallError),
    /// It leads to another server.
    #[error(
        "the portmapper of this system leads to another NFS server, on port {port}, so that a mount without options \
             reaches that one; stop it (systemctl stop nfs-server, if it is the kernel's) or mount by the port of this one"
    )]
    Taken {
        /// That of the other.
        port: u16,
    },
    /// It would not.
    #[error("the portmapper of this system refuses to register this server: {0}")]
    Refused(String),
}

/// Entries of ours in the system's portmapper.
#[derive(Debug, Default)]
pub(super) struct Registration {
    portmapper: Option<SocketAddr>,
    entered: Vec<Service>,
}

impl Registration {
    /// Registers `services`. Others' programs are left as they are, with a warning.
    /// # Errors
    /// Nothing is registered then.
    pub(super) async fn make(portmapper: SocketAddr, services: &[Service]) -> Result<Registration, NotRegistered> {
        let known = client::registered(&Route::new(Transport::Tcp, portmapper), DEADLINE).await;
        let known = known.map_err(NotRegistered::Nobody)?;
        let mut made = Registration { portmapper: Some(portmapper), entered: Vec::new() };
        for service in services {
            let entered = match known.iter().find(|other| other.is_same(service)) {
                Some(other) if other.addr.port() != service.addr.port() => pass_over(other),
                // what an earlier server of ours left behind
                Some(stale) => made.replace(stale, service).await,
                None => made.enter(service).await,
            };
            if let Err(problem) = entered {
                made.withdraw().await;
                return Err(problem);
            }
        }
        Ok(made)
    }

    async fn replace(&mut self, stale: &Service, service: &Service) -> Result<(), NotRegistered> {
        let Some(portmapper) = self.portmapper else { return Ok(()) };
        match client::unset(&from_root(portmapper), stale, DEADLINE).await {
            // it may not be ours to replace, but it says the same
            Ok(false) => Ok(()),
            _ => self.enter(service).await,
        }
    }

    async fn enter(&mut self, service: &Service) -> Result<(), NotRegistered> {
        let Some(portmapper) = self.portmapper else { return Ok(()) };
        match client::set(&from_root(portmapper), service, DEADLINE).await {
            Ok(true) => self.entered.push(*service),
            Ok(false) => return Err(NotRegistered::Refused(format!("not program {}", service.program))),
            Err(error @ CallError::NoReservedPort(_)) => return Err(NotRegistered::NotRoot(error)),
            Err(error) => return Err(NotRegistered::Refused(error.to_string())),
        }
        Ok(())
    }

    /// Takes back what was entered, unless somebody else has it by now.
    pub(super) async fn withdraw(&mut self) {
        let Some(portmapper) = self.portmapper.take() else { return };
        if self.entered.is_empty() {
            return;
        }
        let known = client::registered(&Route::new(Transport::Tcp, portmapper), FAREWELL).await.unwrap_or_default();
        for service in self.entered.drain(..).filter(|service| known.contains(service)) {
            if let Err(error) = client::unset(&from_root(portmapper), &service, FAREWELL).await {
                warn!(%error, "the portmapper of this system still leads to this server");
                return;
            }
        }
    }

    /// Whether nothing is entered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entered.is_empty()
    }
}

/// What is another's is left to it: without NFS there is nothing to be found, the rest is worth a warning.
fn pass_over(other: &Service) -> Result<(), NotRegistered> {
    let (program, netid, port) = (other.program, other.netid.name(), other.addr.port());
    if program == nfs::PROGRAM {
        return Err(NotRegistered::Taken { port });
    }
    warn!(program, netid, port, "the portmapper of this system has another server for this, left alone");
    Ok(())
}

/// The way by which a portmapper knows root.
fn from_root(portmapper: SocketAddr) -> Route {
    Route { reserved_port: true, ..Route::new(Transport::Tcp, portmapper) }
}
