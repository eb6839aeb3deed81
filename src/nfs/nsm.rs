//! NSM v1 (X/Open XNFS chapter 11): who was started anew. A client says so by SM_NOTIFY, and its locks are freed; this
//! server says so to the clients that held locks when it ended, and they reclaim them.
//!
//! Nobody else is watched. SM_MON and its like tell the programs of this machine (its NFS client, where this server is the
//! only monitor) that they may go on, and nothing comes of it: a client on the machine of its server is started anew with it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::reach::{Client, Directory, Service};
use crate::locks::{LockHost, Locks};
use crate::rpc::outgoing::Transport;
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Call, Handled, Outcome, Program, Tail};
use crate::types::{Clock, Tick};

/// Program number of NSM.
pub const PROGRAM: u32 = 100_024;
/// The one version there is.
pub const VERSION: u32 = 1;

/// Names of the procedures by their number.
pub const PROCEDURES: [&str; 7] = ["null", "stat", "mon", "unmon", "unmon_all", "simu_crash", "notify"];

const NOTIFY: u32 = 6;
/// SM_MAXSTRLEN.
const MAX_NAME: usize = 1024;
/// `sm_res`.
const STAT_SUCC: u32 = 0;
const STAT_FAIL: u32 = 1;

/// A client that cannot be told is told again after a second, then after twice as long each time,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to 15 s,
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// for 5 minutes: ten times the grace period, as it is to learn at least that its locks are lost.
const PATIENCE: Duration = Duration::from_secs(300);

/// The NSM program.
#[derive(Debug)]
pub struct Nsm1 {
    locks: Arc<Locks>,
    state: u32,
}

impl Nsm1 {
    /// Answers with `state`, the number of this start, and frees locks of clients that were started anew.
    pub fn new(locks: Arc<Locks>, state: u32) -> Nsm1 {
        Nsm1 { locks, state }
    }

    /// Encodes the result of a procedure.
    fn answer(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Result<Outcome, Malformed> {
        let mut args = Reader::new(call.args);
        let is_local = call.peer.ip().to_canonical().is_loopback();
        match call.procedure {
            0 | 5 => {}
            1 => {
                args.opaque(MAX_NAME)?;
                self.stat_result(STAT_FAIL, reply);
            }
            2 => {
                monitored(&mut args)?;
                args.fixed::<16>()?;
                self.stat_result(if is_local { STAT_SUCC } else { STAT_FAIL }, reply);
            }
            3 => {
                monitored(&mut args)?;
                reply.put_u32(self.state);
            }
            4 => {
                my_id(&mut args)?;
                reply.put_u32(self.state);
            }
            NOTIFY => self.notified(args.opaque(MAX_NAME)?, args.u32()?, call.peer.ip().to_canonical()),
            _ => return Ok(Outcome::ProcedureUnavailable),
        }
        Ok(Outcome::Success)
    }

    /// `sm_stat_res`.
    fn stat_result(&self, result: u32, reply: &mut Vec<u8>) {
        reply.put_u32(result);
        reply.put_u32(self.state);
    }

    /// A client was started anew, or is about to.
    fn notified(&self, name: &[u8], state: u32, address: IpAddr) {
        let freed = self.locks.rebooted(name, address);
        if freed > 0 {
            info!(%address, name = %String::from_utf8_lossy(name), state, "a client was started anew, its locks are freed");
        }
    }
}

/// `mon_id`.
fn monitored(args: &mut Reader<'_>) -> Result<(), Malformed> {
    args.opaque(MAX_NAME)?;
    my_id(args)
}

/// `my_id`.
fn my_id(args: &mut Reader<'_>) -> Result<(), Malformed> {
    args.opaque(MAX_NAME)?;
    args.fixed::<12>().map(drop)
}

impl Program for Nsm1 {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    /// SM_NOTIFY that comes again late would free what was locked since.
    fn is_idempotent(&self, _version: u32, procedure: u32) -> bool {
        procedure != NOTIFY
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        let outcome = self.answer(call, reply).unwrap_or(Outcome::GarbageArgs);
        Handled::Done(outcome, Tail::None)
    }
}

/// Tells the clients that held locks when the server ended that it is there again.
#[derive(Debug)]
pub struct Notifier {
    hosts: Vec<LockHost>,
    state: u32,
    /// The name of this host.
    name: String,
    directory: Arc<Directory>,
    clock: Clock,
}

impl Notifier {
    /// Tells `hosts`, where `directory` finds them, of the start that has the number `state`. To them this server is its
    /// address, as they mounted it, or the `name` of its host.
    pub fn new(hosts: Vec<LockHost>, state: u32, name: String, directory: Arc<Directory>, clock: Clock) -> Notifier {
        Notifier { hosts, state, name, directory, clock }
    }

    /// Runs until all are told, or cannot be, or `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (this, mut calls) = (Arc::new(self), JoinSet::new());
        for host in this.hosts.clone() {
            let this = this.clone();
            calls.spawn(async move { this.tell(&host).await });
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { while calls.join_next().await.is_some() {} } => {}
        }
    }

    async fn tell(&self, host: &LockHost) {
        let gives_up = after(self.clock.now(), PATIENCE);
        let mut pause = FIRST_PAUSE;
        while !self.is_told(host).await {
            if self.clock.now() >= gives_up {
                info!(address = %host.address, "a client that held locks cannot be told of the restart");
                return;
            }
            self.clock.reached(after(self.clock.now(), pause).min(gives_up)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        debug!(address = %host.address, "a client that held locks was told of the restart");
    }

    /// One attempt. A client compares the name with what it mounted, so it is told both that there are.
    async fn is_told(&self, host: &LockHost) -> bool {
        let client = Client { address: host.address, server: host.server };
        let monitor = Service { program: PROGRAM, version: VERSION, transport: Transport::Udp };
        for name in [host.server.to_string(), self.name.clone()] {
            let mut args = Vec::new();
            args.put_opaque(name.as_bytes());
            args.put_u32(self.state);
            if self.directory.call(client, monitor, NOTIFY, &args).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn after(now: Tick, time: Duration) -> Tick {
    Tick(now.0 + time.as_millis() as u64)
}
