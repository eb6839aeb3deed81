//! Where the services of a client listen: its lock manager and its status monitor are called back, and their ports are
//! known to its portmapper alone.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::portmap::{Portmap, client};
use crate::rpc::outgoing::{self, CallError, Request, Route};
use crate::rpc::{Credentials, Transport};
use crate::types::{Clock, Tick};

/// How long one question may take: a client is a network away, and busy at worst.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// How long a port is believed: a lock manager that is started anew may get another.
const BELIEVED: Duration = Duration::from_secs(60);
/// Ports remembered; beyond that they are asked for each time.
const REMEMBERED: usize = 1024;

/// Both ends of what a client and we have with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// The client's.
    pub(super) address: IpAddr,
    /// Ours, as the client knows it: it looks at where a call comes from.
    pub(super) server: IpAddr,
}

/// A service of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Service {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) transport: Transport,
}

/// Finds services, and remembers them for a while.
#[derive(Debug)]
pub struct Directory {
    portmapper: u16,
    /// Ours, with which the programs of this machine may be registered.
    here: Arc<Portmap>,
    own_port: u16,
    clock: Clock,
    known: Mutex<HashMap<(Client, Service), (u16, Tick)>>,
}

impl Directory {
    /// Asks the clients' portmappers, at port `portmapper`, or ours, the one `here`, for who is on this machine; never
    /// finds ourselves, at `own_port`.
    pub fn new(portmapper: u16, here: Arc<Portmap>, own_port: u16, clock: Clock) -> Directory {
        Directory { portmapper, here, own_port, clock, known: Mutex::default() }
    }

    /// Calls `procedure` of a client's service; the result, XDR.
    /// # Errors
    /// See `CallError`; a service that the portmapper does not know is a refused connection.
    pub(super) async fn call(
        &self,
        client: Client,
        service: Service,
        procedure: u32,
        args: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let route = self.route(client, service).await?;
        let result = outgoing::call(&route, &request(service, procedure, args, &root()), DEADLINE).await;
        self.doubt(client, service, result)
    }

    /// Sends a message that nobody answers.
    /// # Errors
    /// As `call`.
    pub(super) async fn send(
        &self,
        client: Client,
        service: Service,
        procedure: u32,
        args: &[u8],
    ) -> Result<(), CallError> {
        let route = self.route(client, service).await?;
        let result = outgoing::send(&route, &request(service, procedure, args, &root()), DEADLINE).await;
        self.doubt(client, service, result)
    }

    /// Forgets a port that did not do.
    fn doubt<T>(&self, client: Client, service: Service, result: Result<T, CallError>) -> Result<T, CallError> {
        if result.is_err() {
            self.known.lock().remove(&(client, service));
        }
        result
    }

    /// The way to a service.
    async fn route(&self, client: Client, service: Service) -> Result<Route, CallError> {
        let now = self.clock.now();
        let known = self.known.lock().get(&(client, service)).copied();
        let port = match known.filter(|(_, asked)| now.since(*asked) < BELIEVED) {
            Some((port, _)) => port,
            None => {
                let port = self.ask(client, service).await?;
                let mut known = self.known.lock();
                known.retain(|_, (_, asked)| now.since(*asked) < BELIEVED);
                if known.len() < REMEMBERED {
                    known.insert((client, service), (port, now));
                }
                port
            }
        };
        Ok(route(client, service.transport, port))
    }

    /// GETPORT, over the transport that the service is wanted for.
    async fn ask(&self, client: Client, service: Service) -> Result<u16, CallError> {
        let Service { program, version, transport } = service;
        let is_here = client.address == client.server || client.address.is_loopback();
        if let Some(found) = self.here.registered(program, version, transport).filter(|_| is_here) {
            return Ok(found.port());
        }
        let route = route(client, transport, self.portmapper);
        let port = client::port_of(&route, program, version, transport, DEADLINE).await?;
        let port = port.filter(|port| !(is_here && *port == self.own_port));
        port.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused).into())
    }
}

fn route(client: Client, transport: Transport, port: u16) -> Route {
    let to = SocketAddr::new(client.address, port);
    // an address of another family was never on a call of this client's
    let from = Some(client.server).filter(|server| server.is_ipv4() == client.address.is_ipv4());
    Route { from, ..Route::new(transport, to) }
}

/// Services of the system are called by the system.
fn root() -> Credentials {
    Credentials { uid: 0, gid: 0, gids: Default::default() }
}

fn request<'a>(service: Service, procedure: u32, args: &'a [u8], caller: &'a Credentials) -> Request<'a> {
    Request { program: service.program, version: service.version, procedure, credentials: Some(caller), args }
}
