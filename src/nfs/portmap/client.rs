//! Asking another portmapper: for a port (v2, which all speak), for all that it knows, and to enter or forget a program
//! (v4, which names the transport, so that what others serve over another one is left alone).

use std::time::Duration;

use super::address::{Netid, parse_universal, universal};
use super::registry::Service;
use super::{Binding, PROGRAM, binding, protocol};
use crate::rpc::Transport;
use crate::rpc::outgoing::{CallError, Request, Route, call};
use crate::rpc::xdr::{Malformed, Reader, Write};

/// GETPORT: where `program` is, by the portmapper at the end of `route`.
/// # Errors
/// The call's.
pub async fn port_of(
    route: &Route,
    program: u32,
    version: u32,
    transport: Transport,
    deadline: Duration,
) -> Result<Option<u16>, CallError> {
    let mut args = Vec::new();
    [program, version, protocol(transport), 0].iter().for_each(|word| args.put_u32(*word));
    let request = Request { program: PROGRAM, version: 2, procedure: 3, credentials: None, args: &args };
    let result = call(route, &request, deadline).await?;
    let port = Reader::new(&result).u32().map_err(|_| CallError::Malformed)?;
    Ok(u16::try_from(port).ok().filter(|port| *port != 0))
}

/// DUMP: all programs that are registered over TCP and UDP.
/// # Errors
/// The call's.
pub async fn registered(route: &Route, deadline: Duration) -> Result<Vec<Service>, CallError> {
    let request = Request { program: PROGRAM, version: 4, procedure: 4, credentials: None, args: &[] };
    services(&call(route, &request, deadline).await?).map_err(|Malformed| CallError::Malformed)
}

/// Decodes an `rpcblist`, of which other transports (`local`) are left out.
fn services(result: &[u8]) -> Result<Vec<Service>, Malformed> {
    let mut r = Reader::new(result);
    let mut found = Vec::new();
    while r.bool()? {
        let Binding { program, version, netid, addr } = binding(&mut r)?;
        if let (Some(netid), Some(addr)) = (Netid::parse(netid), parse_universal(addr)) {
            found.push(Service { program, version, netid, addr });
        }
    }
    Ok(found)
}

/// SET: enters `service`. False: the portmapper has it elsewhere.
/// # Errors
/// The call's; portmappers refuse who does not come from a reserved port of the loopback.
pub async fn set(route: &Route, service: &Service, deadline: Duration) -> Result<bool, CallError> {
    change(route, 1, service, deadline).await
}

/// UNSET: forgets `service`. False: it was not there, or is not ours to forget.
/// # Errors
/// Those of `set`.
pub async fn unset(route: &Route, service: &Service, deadline: Duration) -> Result<bool, CallError> {
    change(route, 2, service, deadline).await
}

async fn change(route: &Route, procedure: u32, service: &Service, deadline: Duration) -> Result<bool, CallError> {
    let mut args = Vec::new();
    args.put_u32(service.program);
    args.put_u32(service.version);
    args.put_opaque(service.netid.name().as_bytes());
    args.put_opaque(universal(service.addr).as_bytes());
    args.put_opaque(super::OWNER.as_bytes());
    let request = Request { program: PROGRAM, version: 4, procedure, credentials: None, args: &args };
    let result = call(route, &request, deadline).await?;
    Reader::new(&result).bool().map_err(|_| CallError::Malformed)
}
