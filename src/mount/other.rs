//! Systems whose NFS client we do not know: `fasts3 serve` works there, `fasts3 mount` says so.

use std::io;
use std::path::Path;

use super::{Entry, MountError, Plan, UnmountError};

/// Changes of the mount table.
pub use super::Looks as Changes;

/// Always an error.
pub fn may_mount(_plan: &Plan) -> Result<(), MountError> {
    Err(MountError::UnknownSystem(std::env::consts::OS))
}

/// Always an error.
pub fn mount(plan: &Plan) -> Result<(), MountError> {
    may_mount(plan)
}

/// Nothing.
pub fn table() -> io::Result<Vec<Entry>> {
    Ok(Vec::new())
}

/// Always an error.
pub fn unmount(point: &Path) -> Result<(), UnmountError> {
    Err(UnmountError::Refused { point: point.into(), why: "fasts3 does not know this system".into() })
}

/// Always an error.
pub fn detach(point: &Path) -> Result<(), UnmountError> {
    unmount(point)
}

/// Nothing to do.
pub fn flush(_point: &Path) -> io::Result<()> {
    Ok(())
}

/// Nobody.
pub fn users(_point: &Path) -> Vec<String> {
    Vec::new()
}
