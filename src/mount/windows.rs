//! Windows: `mount.exe` of the feature "Client for NFS", on a drive letter.
//!
//! It has no port option: it asks the portmapper on port 111 where NFS and MOUNT are. It cannot mount `/`, only an export
//! with a name. It names no user but the anonymous one of the registry (`AnonymousUid`, `AnonymousGid`), which nobody sets:
//! files then seem to belong to user -2, and `--squash all` with `--anon-uid` decides whom the server takes everybody for.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, MountError, Plan, UnmountError, argv, complaint, run};

/// Changes of the mount table.
pub use super::Looks as Changes;

/// What the client is told unless `-o` says otherwise. `anon`: as the anonymous user; `nolock`: this one client knows the
/// locks of this machine itself; `mtype=hard`: a call waits for a server that is being restarted.
const DEFAULTS: [&str; 3] = ["anon", "nolock", "mtype=hard"];

/// How to get the client.
const HOW_TO_INSTALL: &str = "Client for NFS is not installed. It comes with Windows Pro, Enterprise and Server; in a \
    PowerShell of an administrator: `Enable-WindowsOptionalFeature -Online -All -FeatureName ServicesForNFS-ClientOnly,\
    ClientForNFS-Infrastructure`, on Server `Install-WindowsFeature NFS-Client`";

/// The command that mounts `plan`.
pub fn command(plan: &Plan) -> Vec<OsString> {
    argv([&program("mount.exe"), &"-o", &plan.options.over(DEFAULTS).list(), &unc(plan), &plan.point])
}

/// `\\127.0.0.1\media`.
fn unc(plan: &Plan) -> String {
    format!(r"\\{}\{}", plan.server.ip(), plan.export.trim_start_matches('/'))
}

/// The command that unmounts `point`, whoever uses it if `force`.
pub fn unmount_command(point: &Path, force: bool) -> Vec<OsString> {
    match force {
        false => argv([&program("umount.exe"), &point]),
        true => argv([&program("umount.exe"), &"-f", &point]),
    }
}

/// The system's own: other programs of these names are common on `PATH`.
fn program(name: &str) -> PathBuf {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    PathBuf::from(root).join("System32").join(name)
}

/// Whether `point` is a drive letter, as in `X:`.
pub fn is_drive(point: &Path) -> bool {
    matches!(point.as_os_str().as_encoded_bytes(), [letter, b':'] if letter.is_ascii_alphabetic())
}

/// Reads what `mount.exe` prints: a line for each drive, `X:   \\127.0.0.1\media   UID=-2, GID=-2 ...`.
pub fn parse_table(printed: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (point, source) = (words.next()?, words.next()?);
        let is_mount = is_drive(Path::new(point)) && source.starts_with(r"\\");
        let source = source.trim_start_matches('\\').replacen('\\', ":/", 1).replace('\\', "/");
        is_mount.then(|| Entry { id: None, source, point: point.into(), port: None, is_nfs: true })
    };
    printed.lines().filter_map(entry).collect()
}

/// Whether this process may mount, and would reach the server.
pub fn may_mount(plan: &Plan) -> Result<(), MountError> {
    match program("mount.exe").exists() {
        true => Ok(()),
        false if cfg!(windows) => Err(MountError::NoClient(HOW_TO_INSTALL.into())),
        false => Err(MountError::Refused { plan: Box::new(plan.clone()), why: "this is not Windows".into() }),
    }
}

/// Mounts `plan`; returns when it is mounted.
pub fn mount(plan: &Plan) -> Result<(), MountError> {
    let refused = |why: String| MountError::Refused { plan: Box::new(plan.clone()), why };
    let output = run(&command(plan)).map_err(|error| no_program(error, refused))?;
    if output.status.success() { Ok(()) } else { Err(refused(complaint(&output))) }
}

fn no_program(error: io::Error, refused: impl Fn(String) -> MountError) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoClient(HOW_TO_INSTALL.into()),
        _ => refused(error.to_string()),
    }
}

/// What is mounted.
pub fn table() -> io::Result<Vec<Entry>> {
    let output = run(&argv([&program("mount.exe")]))?;
    Ok(parse_table(&String::from_utf8_lossy(&output.stdout)))
}

/// Unmounts `point` when nobody uses it.
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
        said if said.contains("open") || said.contains("in use") => {
            Err(UnmountError::Busy { point: point.into(), users: users(point) })
        }
        said => Err(refused(said)),
    }
}

/// Nothing to do: this client writes through.
pub fn flush(_point: &Path) -> io::Result<()> {
    Ok(())
}

/// Who uses `point`: Windows does not tell cheaply.
pub fn users(_point: &Path) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    #[test]
    fn mount_exe_is_told_a_named_export_and_no_port() {
        let command = command(&plan("X:", "fileaccess=755"));
        assert!(command[0].to_string_lossy().ends_with("mount.exe"));
        assert_eq!(command[1..], ["-o", "anon,nolock,mtype=hard,fileaccess=755", r"\\127.0.0.1\media", "X:"]);
    }

    #[test]
    fn drives_are_letters() {
        for (point, is) in [("X:", true), ("z:", true), ("X", false), (r"X:\", false), ("1:", false), ("XY:", false)] {
            assert_eq!(is_drive(Path::new(point)), is, "{point}");
        }
    }

    #[test]
    fn mount_table_is_read() {
        let printed = "\r\nLocal    Remote                                 Properties\r\n\
            -------------------------------------------------------------------------------\r\n\
            X:       \\\\127.0.0.1\\media                      UID=-2, GID=-2\r\n                    rsize=131072\r\n";
        let table = parse_table(printed);
        assert_eq!(table.len(), 1);
        assert_eq!((&*table[0].source, table[0].point.to_str()), ("127.0.0.1:/media", Some("X:")));
        assert_eq!(plan("X:", "").source(), table[0].source, "what was asked for is found again");
    }

    #[test]
    fn missing_client_is_told_with_the_command_that_installs_it() {
        let error = no_program(io::ErrorKind::NotFound.into(), |_| unreachable!("it is missing"));
        let told = error.to_string();
        assert!(
            told.contains("Client for NFS is not installed") && told.contains("ServicesForNFS-ClientOnly"),
            "{told}"
        );
    }

    #[test]
    fn unmounting_is_gentle_unless_forced() {
        assert_eq!(unmount_command(Path::new("X:"), false)[1..], ["X:"]);
        assert_eq!(unmount_command(Path::new("X:"), true)[1..], ["-f", "X:"]);
    }
}
