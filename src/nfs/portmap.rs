//! Portmap v2 (RFC 1833 section 3): tells clients that NFS and MOUNT are on the port they are served on.
//! Nothing can be registered from outside, and no call is forwarded (CALLIT is how portmappers amplify).

use std::ops::RangeInclusive;

use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Call, Handled, Outcome, Program, Tail};

/// Program number of the portmapper.
pub const PROGRAM: u32 = 100_000;
/// The one version that is served.
pub const VERSION: u32 = 2;

/// Protocol number of TCP, the only one NFS is served over.
const TCP: u32 = 6;

/// What can be found here: program and version.
const SERVED: [(u32, u32); 2] = [(super::PROGRAM, super::VERSION), (super::mount::PROGRAM, super::mount::VERSION)];

/// The portmap program.
#[derive(Debug)]
pub struct Portmap2 {
    port: u16,
}

/// `mapping`, without the port, which nobody's question needs.
struct Mapping {
    program: u32,
    version: u32,
    protocol: u32,
}

impl Portmap2 {
    /// Tells `port`, the one that NFS and MOUNT listen on.
    pub fn new(port: u16) -> Portmap2 {
        Portmap2 { port }
    }

    /// GETPORT: 0 for what is not here.
    fn port_of(&self, wanted: &Mapping) -> u16 {
        let served = wanted.protocol == TCP && SERVED.contains(&(wanted.program, wanted.version));
        if served { self.port } else { 0 }
    }

    /// DUMP.
    fn dump(&self, reply: &mut Vec<u8>) {
        for (program, version) in SERVED {
            reply.put_bool(true);
            reply.put_u32(program);
            reply.put_u32(version);
            reply.put_u32(TCP);
            reply.put_u32(u32::from(self.port));
        }
        reply.put_bool(false);
    }

    /// Encodes the result of `procedure`.
    fn answer(&self, procedure: u32, mut args: Reader<'_>, reply: &mut Vec<u8>) -> Result<Outcome, Malformed> {
        match procedure {
            0 => {}
            // SET and UNSET
            1 | 2 => {
                mapping(&mut args)?;
                reply.put_bool(false);
            }
            3 => reply.put_u32(u32::from(self.port_of(&mapping(&mut args)?))),
            4 => self.dump(reply),
            _ => return Ok(Outcome::ProcedureUnavailable),
        }
        Ok(Outcome::Success)
    }
}

/// Decodes a `mapping`.
fn mapping(args: &mut Reader<'_>) -> Result<Mapping, Malformed> {
    let mapping = Mapping { program: args.u32()?, version: args.u32()?, protocol: args.u32()? };
    let _port = args.u32()?;
    Ok(mapping)
}

impl Program for Portmap2 {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    fn is_idempotent(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        let outcome = self.answer(call.procedure, Reader::new(call.args), reply).unwrap_or(Outcome::GarbageArgs);
        Handled::Done(outcome, Tail::None)
    }
}
