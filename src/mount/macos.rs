//! macOS: `mount_nfs`, which a plain user may run for a directory of their own.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::{Entry, MountError, Plan, UnmountError, argv, complaint, run};

/// Changes of the mount table.
pub use super::Looks as Changes;

/// What the client is told unless `-o` says otherwise. `locallocks`: all programs that use this mount share this one
/// client, which knows their locks itself; `nolocks` would make them fail. `actimeo=1` as on Linux.
const DEFAULTS: [&str; 4] = ["hard", "nosuid", "locallocks", "actimeo=1"];

/// The command that mounts `plan`.
pub fn command(plan: &Plan) -> Vec<OsString> {
    let port = plan.server.port();
    let tcp = if plan.server.is_ipv6() { "tcp6" } else { "tcp" };
    let options = format!("vers=3,{tcp},port={port},mountport={port},{}", plan.options.over(DEFAULTS).list());
    argv([&"/sbin/mount_nfs", &"-o", &options, &plan.source(), &plan.point])
}

/// The command that unmounts `point`, whoever uses it if `force`.
pub fn unmount_command(point: &Path, force: bool) -> Vec<OsString> {
    match force {
        false => argv([&"/sbin/umount", &point]),
        true => argv([&"/sbin/umount", &"-f", &point]),
    }
}

/// Reads what `mount` prints: `127.0.0.1:/media on /Users/me/media (nfs, nodev, nosuid, mounted by me)`.
pub fn parse_table(printed: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (mount, options) = line.rsplit_once(" (")?;
        let (source, point) = mount.split_once(" on ")?;
        let is_nfs = options.split([',', ')']).next() == Some("nfs");
        Some(Entry { id: None, source: source.into(), point: point.into(), port: None, is_nfs })
    };
    printed.lines().filter_map(entry).collect()
}

/// Whether this process may mount: `mount_nfs` itself says best why not.
pub fn may_mount(_plan: &Plan) -> Result<(), MountError> {
    Ok(())
}

/// Mounts `plan`; returns when it is mounted.
pub fn mount(plan: &Plan) -> Result<(), MountError> {
    let refused = |why: String| MountError::Refused { plan: Box::new(plan.clone()), why };
    let output = run(&command(plan)).map_err(|e| refused(e.to_string()))?;
    match complaint(&output) {
        _ if output.status.success() => Ok(()),
        said if said.contains("not permitted") || said.contains("denied") => {
            Err(MountError::NotPermitted(denied(plan, &said)))
        }
        said => Err(refused(said)),
    }
}

/// Why `plan` cannot be mounted by this user, and what to do.
pub fn denied(plan: &Plan, said: &str) -> String {
    let point = plan.point.display();
    format!(
        "cannot mount on {point}: {said}. macOS lets you mount on a directory that is yours: `mkdir ~/bucket` and mount \
         there, or run the same command with sudo"
    )
}

/// What is mounted.
pub fn table() -> io::Result<Vec<Entry>> {
    let output = run(&argv([&"/sbin/mount"]))?;
    Ok(parse_table(&String::from_utf8_lossy(&output.stdout)))
}

/// Unmounts `point` when nobody uses it. Returns when the client has written what it held back.
pub fn unmount(point: &Path) -> Result<(), UnmountError> {
    unmount_with(point, false)
}

/// Unmounts `point` whoever uses it; what they do then fails.
pub fn detach(point: &Path) -> Result<(), UnmountError> {
    unmount_with(point, true)
}

fn unmount_with(point: &Path, force: bool) -> Result<(), UnmountError> {
    let refused = |why: String| UnmountError::Refused { point: point.into(), why };
    let output = run(&unmount_command(point, force)).map_err(|e| refused(e.to_string()))?;
    match complaint(&output) {
        _ if output.status.success() => Ok(()),
        said if said.contains("busy") => Err(UnmountError::Busy { point: point.into(), users: users(point) }),
        said => Err(refused(said)),
    }
}

/// Has the client write what it holds back.
pub fn flush(_point: &Path) -> io::Result<()> {
    run(&argv([&"/bin/sync"])).map(drop)
}

/// Who uses `point`: `lsof` could tell, but takes its time.
pub fn users(_point: &Path) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    #[test]
    fn mount_nfs_is_told_ports_version_and_local_locks() {
        let options = "vers=3,tcp,port=4321,mountport=4321,hard,nosuid,locallocks,actimeo=1,nobrowse";
        let words = ["/sbin/mount_nfs", "-o", options, "127.0.0.1:/media", "/Users/me/my media"];
        assert_eq!(command(&plan("/Users/me/my media", "nobrowse")), words);
    }

    #[test]
    fn unmounting_is_gentle_unless_forced() {
        assert_eq!(unmount_command(Path::new("/tmp/b"), false), ["/sbin/umount", "/tmp/b"]);
        assert_eq!(unmount_command(Path::new("/tmp/b"), true), ["/sbin/umount", "-f", "/tmp/b"]);
    }

    #[test]
    fn mount_table_is_read() {
        let printed = "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n\
            127.0.0.1:/media on /Users/me/my media (on disk) (nfs, nodev, nosuid, mounted by me)\n";
        let table = parse_table(printed);
        assert!(!table[0].is_nfs && table[1].is_nfs);
        assert_eq!(table[1].point, Path::new("/Users/me/my media (on disk)"));
        assert_eq!(table[1].source, "127.0.0.1:/media");
    }

    #[test]
    fn who_may_not_mount_is_told_what_to_do() {
        let told = denied(&plan("/Volumes/x", ""), "mount_nfs: Operation not permitted");
        assert!(told.contains("mkdir ~/bucket") && told.contains("sudo"), "{told}");
    }
}
