//! The ports of a server: the one for all programs over TCP, the same number over UDP for all but NFS, and
//! port 111, where clients look for a portmapper.
//! Owns: which port is taken when, what the portmapper tells, and what the user is told when a port is not to be had.
//! Invariant: the NFS port over TCP is all that must be had, unless `--portmap on` asks for more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::registration::{NotRegistered, Registration};
use crate::config::{self, PortmapMode};
use crate::nfs::portmap::{self, Portmap, Service};
use crate::nfs::{self, mount, nlm, nsm};
use crate::rpc::{self, Gate, Grant, Program, Programs, Transport};
use crate::types::Clock;

/// What a server has besides its portmapper, and over which transports: what clients find by a portmapper, ours or the
/// system's.
const SERVED: [(u32, u32, &[Transport]); 4] = [
    (nfs::PROGRAM, nfs::VERSION, &[Transport::Tcp]),
    (mount::PROGRAM, mount::VERSION, &[Transport::Tcp, Transport::Udp]),
    (nlm::PROGRAM, nlm::VERSION, &[Transport::Tcp, Transport::Udp]),
    (nsm::PROGRAM, nsm::VERSION, &[Transport::Tcp, Transport::Udp]),
];

/// The portmapper of the system, which talks of registering to its own machine only.
const SYSTEM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), portmap::PORT);

/// The ports, bound.
pub(super) struct Ports {
    nfs: TcpListener,
    addr: SocketAddr,
    datagrams: Option<UdpSocket>,
    mode: PortmapMode,
    port_111: Port111,
    /// Whether the status monitor is ours.
    monitors: bool,
}

/// How it stands with port 111.
enum Port111 {
    /// It is ours, at one address or more.
    Bound(Vec<(SocketAddr, TcpListener, UdpSocket)>),
    /// It is the NFS port itself.
    Nfs,
    /// It was not asked for.
    Left,
    /// It was, in vain.
    Refused(io::Error),
}

/// What answers where.
pub(super) struct Desks {
    /// All programs.
    pub(super) streams: Programs,
    /// Those that are served over UDP.
    pub(super) datagrams: Programs,
    /// Also what answers on port 111.
    pub(super) portmap: Arc<Portmap>,
    /// Who may come in.
    pub(super) gate: Arc<dyn Gate>,
}

/// Who may ask on port 111: who may come in, by whatever port, since mount commands use any to ask for others; and this
/// machine, whose programs register there.
struct Inquirers(Arc<dyn Gate>);

impl Gate for Inquirers {
    fn admit(&self, peer: SocketAddr) -> Option<Grant> {
        let by_root = SocketAddr::new(peer.ip(), portmap::PORT);
        if peer.ip().is_loopback() { Some(Grant::ALL) } else { self.0.admit(by_root) }
    }
}

impl Ports {
    /// Binds what can be had.
    /// # Errors
    /// The NFS port is not to be had: one line that says what to do.
    pub(super) fn bind(listen: SocketAddr, mode: PortmapMode) -> anyhow::Result<Ports> {
        let nfs = rpc::bind(listen).map_err(|error| {
            let advice = advice(listen, &error);
            anyhow::Error::new(error).context(format!("cannot listen on {listen}: {advice}"))
        })?;
        let addr = nfs.local_addr().context("a listener without an address")?;
        let datagrams = rpc::bind_datagrams(addr)
            .inspect_err(|error| warn!(%addr, %error, "cannot take datagrams: clients that mount over UDP only fail"))
            .ok();
        // other ports than NFS's own are for servers beside the machine's one, and for tests
        let claims = match mode {
            PortmapMode::Off => false,
            PortmapMode::Auto => addr.port() == config::LISTEN.port(),
            PortmapMode::On => true,
        };
        let port_111 = match claims {
            _ if addr.port() == portmap::PORT => Port111::Nfs,
            false => Port111::Left,
            true => claim(addr.ip()).map_or_else(Port111::Refused, Port111::Bound),
        };
        Ok(Ports { nfs, addr, datagrams, mode, port_111, monitors: true })
    }

    /// The same of a server that gives no locks, and leaves the status monitor of this machine to others.
    pub(super) fn without_monitor(self) -> Ports {
        Ports { monitors: false, ..self }
    }

    /// Where NFS, MOUNT and portmap answer.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The portmapper for these ports.
    pub(super) fn portmap(&self, clock: Clock) -> Portmap {
        let both = &[Transport::Tcp, Transport::Udp][..];
        let places: Vec<_> = match &self.port_111 {
            Port111::Bound(bound) => bound.iter().map(|(addr, ..)| (*addr, both)).collect(),
            _ => vec![(self.addr, self.transports())],
        };
        let mut services = self.services();
        for (addr, transports) in places {
            let each = portmap::VERSIONS.flat_map(|version| transports.iter().map(move |t| (version, *t)));
            services.extend(each.flat_map(|(v, transport)| Service::at(addr, transport, portmap::PROGRAM, v)));
        }
        Portmap::new(services, clock)
    }

    /// The transports that the NFS port has.
    fn transports(&self) -> &'static [Transport] {
        if self.datagrams.is_some() { &[Transport::Tcp, Transport::Udp] } else { &[Transport::Tcp] }
    }

    /// What clients find here.
    fn services(&self) -> Vec<Service> {
        let here = |(program, version, transports): (u32, u32, &'static [Transport])| {
            let had = transports.iter().filter(|transport| self.transports().contains(transport));
            had.flat_map(move |transport| Service::at(self.addr, *transport, program, version))
        };
        let served = SERVED.into_iter().filter(|(program, ..)| self.monitors || *program != nsm::PROGRAM);
        served.flat_map(here).collect()
    }

    /// Sees to it that clients find this server by port 111, where they shall, and tells how to mount.
    /// # Errors
    /// They do not, though `--portmap on` says so.
    pub(super) async fn announce(&self) -> anyhow::Result<Registration> {
        let refused = match &self.port_111 {
            Port111::Bound(..) | Port111::Nfs => {
                info!("mount with: {}", plain_mount(self.addr));
                return Ok(Registration::default());
            }
            Port111::Left => {
                info!("mount with: {}", full_mount(self.addr));
                return Ok(Registration::default());
            }
            Port111::Refused(error) => error,
        };
        let problem = match Registration::make(SYSTEM, &self.services()).await {
            Ok(registration) => {
                info!("registered with the portmapper of this system; mount with: {}", plain_mount(self.addr));
                return Ok(registration);
            }
            Err(problem) => problem,
        };
        let advice = portmap_advice(refused, &problem);
        match self.mode {
            PortmapMode::On => anyhow::bail!("clients cannot find this server by port 111: {advice}"),
            _ => {
                match problem {
                    // others take the calls of who mounts without options
                    NotRegistered::Taken { .. } => warn!("{problem}"),
                    _ => info!("clients cannot find this server by port 111: {advice}"),
                }
                info!("mount with: {}", full_mount(self.addr));
                Ok(Registration::default())
            }
        }
    }

    /// Answers on all ports until `stop`.
    pub(super) fn serve(
        self,
        desks: Desks,
        limits: rpc::Limits,
        stats: Arc<rpc::Stats>,
        stop: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        let alone = Programs::new([desks.portmap as Arc<dyn Program>]).behind(Arc::new(Inquirers(desks.gate)));
        let stream = |listener, programs| {
            tokio::spawn(rpc::serve(listener, programs, limits.clone(), stats.clone(), stop.clone()))
        };
        let datagrams =
            |socket, programs| tokio::spawn(rpc::serve_datagrams(socket, programs, stats.clone(), stop.clone()));
        let mut tasks = vec![stream(self.nfs, desks.streams)];
        tasks.extend(self.datagrams.map(|socket| datagrams(socket, desks.datagrams)));
        if let Port111::Bound(bound) = self.port_111 {
            for (_, tcp, udp) in bound {
                tasks.extend([stream(tcp, alone.clone()), datagrams(udp, alone.clone())]);
            }
        }
        tasks
    }
}

/// Port 111 of `ip`, and of the loopbacks as far as they can be had: by these the system's own programs register, those
/// of Linux's libtirpc by that of IPv6 alone.
fn claim(ip: IpAddr) -> io::Result<Vec<(SocketAddr, TcpListener, UdpSocket)>> {
    let mut bound = vec![bind_both(ip)?];
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        // of what is covered already, or missing, the OS says no
        bound.extend(bind_both(loopback).inspect_err(|error| debug!(%loopback, %error, "no portmapper there")));
    }
    Ok(bound)
}

/// Port 111 of both transports, or none of them.
fn bind_both(ip: IpAddr) -> io::Result<(SocketAddr, TcpListener, UdpSocket)> {
    let addr = SocketAddr::new(ip, portmap::PORT);
    Ok((addr, rpc::bind(addr)?, rpc::bind_datagrams(addr)?))
}

/// What to do when the NFS port cannot be had.
fn advice(listen: SocketAddr, error: &io::Error) -> String {
    let holder = match listen.port() {
        2049 => "probably the kernel's NFS server, nfs-ganesha or another fasts3",
        portmap::PORT => "probably a portmapper (rpcbind)",
        _ => "another program",
    };
    let elsewhere = SocketAddr::new(listen.ip(), 0);
    let other = format!(
        "--listen {elsewhere} picks a free port, which the ready line tells; mount it with -o {}",
        options("PORT", "PORT")
    );
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{holder} has this port; {other}"),
        io::ErrorKind::PermissionDenied => format!("ports below 1024 are for root; {other}"),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_owned(),
        _ => "give another --listen".to_owned(),
    }
}

/// What to do so that port 111 leads here.
fn portmap_advice(refused: &io::Error, problem: &NotRegistered) -> String {
    match (refused.kind(), problem) {
        (_, NotRegistered::Taken { .. }) => problem.to_string(),
        (io::ErrorKind::PermissionDenied, NotRegistered::Nobody(_)) => "it is for root; start as root, or let this \
            program have it (setcap cap_net_bind_service=+ep FASTS3, or sysctl net.ipv4.ip_unprivileged_port_start=111)"
            .to_owned(),
        (_, NotRegistered::NotRoot) => {
            "the portmapper that is there (rpcbind) lets nobody but root register; start as \
            root, or stop it (systemctl stop rpcbind.socket rpcbind) so that this server can be the portmapper"
                .to_owned()
        }
        _ => format!(
            "{refused}; {problem}; stop what holds the port (systemctl stop rpcbind.socket rpcbind, if it is rpcbind)"
        ),
    }
}

/// The options of a mount that asks no portmapper.
fn options(port: &str, mountport: &str) -> String {
    let linux = format!("nfsvers=3,proto=tcp,port={port},mountport={mountport},nolock,noacl,actimeo=1");
    let macos = format!("vers=3,tcp,port={port},mountport={mountport},locallocks,actimeo=1");
    if cfg!(target_os = "macos") { macos } else { linux }
}

/// The command that mounts what is found by port 111.
fn plain_mount(addr: SocketAddr) -> String {
    match std::env::consts::OS {
        "windows" => format!("mount -o anon,nolock,mtype=hard \\\\{}\\EXPORT Z:", host(addr)),
        "macos" => format!("mount_nfs -o vers=3,tcp,locallocks,actimeo=1 {}:/ DIR", host(addr)),
        _ => format!("mount -t nfs {}:/ DIR", host(addr)),
    }
}

/// The command that mounts without port 111. That of Windows has no options for ports.
fn full_mount(addr: SocketAddr) -> String {
    let port = addr.port().to_string();
    let program = if cfg!(target_os = "macos") { "mount_nfs" } else { "mount -t nfs" };
    format!("{program} -o {} {}:/ DIR", options(&port, &port), host(addr))
}

/// The server in a mount command.
fn host(addr: SocketAddr) -> String {
    match addr.ip() {
        ip if ip.is_unspecified() => "HOST".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::access::{Access, Rule, Rules};
    use crate::nfs::portmap::client;
    use crate::rpc::Squash;
    use crate::rpc::outgoing::Route;

    /// Never reached by a test that passes.
    const LONG: Duration = Duration::from_secs(20);

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_likely_holder_and_a_way_out() {
        let held = std::net::TcpListener::bind(loopback(0)).unwrap();
        let addr = held.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(async { Ports::bind(addr, PortmapMode::Auto).err() }).unwrap();
        let told = format!("{refused:#}");
        for part in [&addr.to_string(), "another program has this port", "--listen 127.0.0.1:0", "mountport=PORT"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(advice(loopback(2049), &io::ErrorKind::AddrInUse.into()).contains("kernel's NFS server"));
        assert!(advice(loopback(111), &io::ErrorKind::PermissionDenied.into()).contains("for root"));
    }

    #[tokio::test]
    async fn a_server_on_another_port_than_nfs_leaves_port_111_alone() {
        for mode in [PortmapMode::Auto, PortmapMode::Off] {
            let ports = Ports::bind(loopback(0), mode).unwrap();
            assert!(matches!(ports.port_111, Port111::Left));
            assert_eq!(ports.datagrams.as_ref().unwrap().local_addr().unwrap(), ports.addr());
            assert!(ports.announce().await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn the_portmapper_tells_what_is_served_where() {
        let ports = Ports::bind(loopback(0), PortmapMode::Off).unwrap();
        let (addr, portmap) = (ports.addr(), Arc::new(ports.portmap(Clock::manual())));
        let alone = || Programs::new([portmap.clone() as Arc<dyn Program>]);
        let gate = Arc::new(Access::new(Rules { rules: Rules::loopback(Squash::None), secure_ports: false }));
        let desks = Desks { streams: alone(), datagrams: alone(), portmap: portmap.clone(), gate };
        let stop = CancellationToken::new();
        let tasks = ports.serve(desks, rpc::Limits::default(), Arc::default(), &stop);
        for over in [Transport::Tcp, Transport::Udp] {
            let route = Route::new(over, addr);
            for (program, version, transports) in SERVED {
                for transport in [Transport::Tcp, Transport::Udp] {
                    let told = client::port_of(&route, program, version, transport, LONG).await.unwrap();
                    assert_eq!(told, transports.contains(&transport).then_some(addr.port()), "{program} {transport:?}");
                }
            }
        }
        stop.cancel();
        for task in tasks {
            task.await.unwrap();
        }
    }

    #[test]
    fn port_111_is_for_who_may_come_in_by_whatever_port_and_for_this_machine() {
        let network = "192.0.2.0/24".parse().unwrap();
        let rules = Rules { rules: vec![Rule { network, grant: Grant::ALL }], secure_ports: true };
        let inquirers = Inquirers(Arc::new(Access::new(rules)));
        let admits = |peer: &str| inquirers.admit(peer.parse().unwrap()).is_some();
        assert!(admits("192.0.2.7:40000") && admits("127.0.0.1:40000") && admits("[::1]:700"));
        assert!(!admits("198.51.100.1:700"));
    }

    #[tokio::test]
    async fn without_a_udp_port_nothing_is_told_of_udp() {
        // the TCP port of that number may be somebody's
        let mut held = std::iter::repeat_with(|| std::net::UdpSocket::bind(loopback(0)).unwrap()).take(100);
        let bound = |udp: std::net::UdpSocket| {
            let ports = Ports::bind(udp.local_addr().unwrap(), PortmapMode::Auto).ok()?;
            Some((udp, ports))
        };
        let (_held, ports) = held.find_map(bound).unwrap();
        assert!(ports.services().iter().all(|service| service.netid.transport() == Transport::Tcp));
        assert_eq!(ports.services().len(), SERVED.len());
    }
}
