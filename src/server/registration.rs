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
    /// It is for root, which we are not.
    #[error("the portmapper of this system lets nobody but root register")]
    NotRoot,
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
    /// The way to the portmapper, which is there if there are any.
    route: Option<Route>,
    entered: Vec<Service>,
}

impl Registration {
    /// Registers `services`. Others' programs are left as they are, with a warning.
    /// # Errors
    /// Nothing is registered then.
    pub(super) async fn make(portmapper: SocketAddr, services: &[Service]) -> Result<Registration, NotRegistered> {
        let (route, known) = reach(portmapper).await.map_err(NotRegistered::Nobody)?;
        let mut made = Registration { route: Some(route.clone()), entered: Vec::new() };
        for service in services {
            let entered = match known.iter().find(|other| other.is_same(service)) {
                Some(other) if other.addr.port() != service.addr.port() => pass_over(other),
                stale => made.enter(&route, stale, service).await,
            };
            if let Err(problem) = entered {
                made.withdraw().await;
                return Err(problem);
            }
        }
        Ok(made)
    }

    /// Enters `service`, in the place of what an earlier server of ours may have left behind.
    async fn enter(&mut self, route: &Route, stale: Option<&Service>, service: &Service) -> Result<(), NotRegistered> {
        if let Some(stale) = stale
            && let Ok(false) = client::unset(route, stale, DEADLINE).await
        {
            // it is of another user, and says the same
            return Ok(());
        }
        match client::set(route, service, DEADLINE).await {
            Ok(true) => self.entered.push(*service),
            _ if !route.reserved_port => return Err(NotRegistered::NotRoot),
            Ok(false) => return Err(NotRegistered::Refused(format!("it will not have program {}", service.program))),
            Err(error) => return Err(NotRegistered::Refused(error.to_string())),
        }
        Ok(())
    }

    /// Takes back what was entered, unless somebody else has it by now.
    pub(super) async fn withdraw(&mut self) {
        let Some(route) = self.route.take().filter(|_| !self.entered.is_empty()) else { return };
        let known = client::registered(&route, FAREWELL).await.unwrap_or_default();
        for service in self.entered.drain(..).filter(|service| known.contains(service)) {
            if let Err(error) = client::unset(&route, &service, FAREWELL).await {
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

/// The way to a portmapper, and what it knows. By a reserved port it knows root, if that is what we are; today's rpcbind
/// lets every user of its machine register.
async fn reach(portmapper: SocketAddr) -> Result<(Route, Vec<Service>), CallError> {
    let mut route = Route { reserved_port: true, ..Route::new(Transport::Tcp, portmapper) };
    let mut known = client::registered(&route, DEADLINE).await;
    if let Err(CallError::NoReservedPort(_)) = known {
        route.reserved_port = false;
        known = client::registered(&route, DEADLINE).await;
    }
    known.map(|known| (route, known))
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
