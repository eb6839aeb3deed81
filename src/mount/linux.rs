//! Linux: mount(2) itself, as root; no `nfs-common` is needed. Other users through an fstab line with `user`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::options::{Options, name};
use super::{Entry, Plan, argv};

#[cfg(target_os = "linux")]
pub use system::{Changes, detach, flush, may_mount, mount, table, unmount, users};

/// What the client is told unless `-o` says otherwise.
///
/// | | |
/// |---|---|
/// | `nolock` | all programs that use this mount share this one client, which knows their locks itself |
/// | `noacl` | S3 has no POSIX ACLs; not asking for them saves calls |
/// | `actimeo=1` | what is known of a file is trusted for a second; the kernel's own default is 3 s to a minute |
/// | `hard` | a call waits for a server that is being restarted, and never fails because of it |
/// | `noresvport` | the port of a connection may be any, so that one can be made anew at once |
/// | `rsize`, `wsize` | a MiB a call, the most that the kernel does |
/// | `nosuid`, `nodev` | who can write to the bucket does not become root here |
const DEFAULTS: [&str; 9] =
    ["nosuid", "nodev", "hard", "nolock", "noacl", "noresvport", "actimeo=1", "rsize=1048576", "wsize=1048576"];

/// Options that are for the kernel's VFS, and what each says: a flag, and whether it is set or cleared.
const FLAGS: [(&str, Flag, bool); 18] = [
    ("ro", Flag::ReadOnly, true),
    ("rw", Flag::ReadOnly, false),
    ("nosuid", Flag::NoSuid, true),
    ("suid", Flag::NoSuid, false),
    ("nodev", Flag::NoDev, true),
    ("dev", Flag::NoDev, false),
    ("noexec", Flag::NoExec, true),
    ("exec", Flag::NoExec, false),
    ("sync", Flag::Sync, true),
    ("async", Flag::Sync, false),
    ("dirsync", Flag::DirSync, true),
    ("noatime", Flag::NoAtime, true),
    ("atime", Flag::NoAtime, false),
    ("nodiratime", Flag::NoDirAtime, true),
    ("diratime", Flag::NoDirAtime, false),
    ("relatime", Flag::RelAtime, true),
    ("norelatime", Flag::RelAtime, false),
    ("strictatime", Flag::StrictAtime, true),
];

/// Whether `word` is for the kernel's VFS.
pub fn is_flag(word: &str) -> bool {
    FLAGS.iter().any(|(name, ..)| *name == word)
}

/// A flag of mount(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// MS_RDONLY.
    ReadOnly,
    /// MS_NOSUID.
    NoSuid,
    /// MS_NODEV.
    NoDev,
    /// MS_NOEXEC.
    NoExec,
    /// MS_SYNCHRONOUS.
    Sync,
    /// MS_DIRSYNC.
    DirSync,
    /// MS_NOATIME.
    NoAtime,
    /// MS_NODIRATIME.
    NoDirAtime,
    /// MS_RELATIME.
    RelAtime,
    /// MS_STRICTATIME.
    StrictAtime,
}

/// What mount(2) is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Its first argument.
    pub source: String,
    /// The flags that are set.
    pub flags: Vec<Flag>,
    /// What goes to the NFS client: `addr=127.0.0.1,port=4321,...`.
    pub data: String,
}

/// The call that mounts `plan`.
pub fn arguments(plan: &Plan) -> Arguments {
    let (mut flags, mut data) = (Vec::new(), address(plan));
    for word in plan.options.over(DEFAULTS).words() {
        match FLAGS.iter().find(|(name, ..)| *name == word) {
            Some((_, flag, set)) => {
                flags.retain(|known| known != flag);
                flags.extend(set.then_some(*flag));
            }
            None if matches!(word, "defaults" | "_netdev" | "nofail" | "auto" | "noauto") => {}
            None => data.push(word.to_owned()),
        }
    }
    Arguments { source: plan.source(), flags, data: data.join(",") }
}

/// Where the server is: by number, and all of it, or the kernel asks port 111.
fn address(plan: &Plan) -> Vec<String> {
    let (ip, port) = (plan.server.ip(), plan.server.port());
    let tcp = if ip.is_ipv6() { "tcp6" } else { "tcp" };
    vec![
        format!("addr={ip},port={port},nfsvers=3,proto={tcp}"),
        format!("mountaddr={ip},mountport={port},mountvers=3,mountproto={tcp}"),
    ]
}

/// The command that does the same with `mount.nfs`, for a person to type.
pub fn command(plan: &Plan) -> String {
    let (port, options) = (plan.server.port(), plan.options.over(DEFAULTS).list());
    let tcp = if plan.server.is_ipv6() { "tcp6" } else { "tcp" };
    let options = format!("nfsvers=3,proto={tcp},port={port},mountport={port},{options}");
    format!("sudo mount -t nfs -o {options} {} {}", plan.source(), plan.point.display())
}

/// Why `plan` cannot be mounted by this user, and what to do.
pub fn denied(plan: &Plan, uid: u32) -> String {
    // a server of its own has a fixed port
    let mut standing = plan.clone();
    if standing.server.port() == 0 {
        standing.server = crate::config::LISTEN;
    }
    let (bucket, point, listen) = (&plan.bucket, plan.point.display(), standing.server);
    let who = match uid {
        0 => "root without CAP_SYS_ADMIN, as in a container".to_owned(),
        uid => format!("user {uid}"),
    };
    format!(
        "cannot mount on {point}: Linux lets only root (CAP_SYS_ADMIN) mount NFS, and this is {who}. Any of these works:\n  \
         run the same command with sudo\n  \
         put `{bucket} {point} fasts3 _netdev 0 0` into /etc/fstab (needs mount.fasts3, see the README), and run `sudo mount {point}`\n  \
         run `fasts3 serve {bucket} --cache DIR --listen {listen}` as you are, and once\n    {}\n  \
         for a container: a Docker volume, which needs no privilege inside (see the README)",
        command(&standing)
    )
}

/// The line of fstab that lets a plain user mount on `point`: its options.
pub fn user_line<'a>(fstab: &'a str, point: &Path) -> Option<Options> {
    let fields = |line: &'a str| line.split_whitespace().collect::<Vec<_>>();
    let lines = fstab.lines().filter(|line| !line.trim_start().starts_with('#')).map(fields);
    let nfs = lines.filter(|fields| matches!(fields[..], [_, _, "nfs", _, ..]));
    let mut ours = nfs.filter(|fields| unescaped(fields[1]) == point);
    ours.find_map(|fields| {
        let options = Options::parse([fields[3]]);
        let user = options.words().any(|word| matches!(word, "user" | "users" | "owner" | "group"));
        user.then_some(options)
    })
}

/// What `mount` is asked when there is such a line.
pub fn user_command(plan: &Plan) -> Vec<OsString> {
    argv([&"mount", &plan.point])
}

/// Reads `/proc/self/mountinfo`; see proc(5).
pub fn parse_table(mountinfo: &str) -> Vec<Entry> {
    mountinfo.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let (id, point) = (mount.next()?.parse().ok()?, unescaped(mount.nth(3)?));
    let mut system = system.split(' ');
    let (kind, source, options) = (system.next()?, system.next()?, system.next()?);
    let port = Options::parse([options]).words().find(|word| name(word) == "port").and_then(value);
    let source = unescaped(source).to_string_lossy().into_owned();
    Some(Entry { id: Some(id), source, point, port, is_nfs: kind == "nfs" })
}

fn value(word: &str) -> Option<u16> {
    word.split_once('=')?.1.parse().ok()
}

/// Undoes `\040` and its like.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(escaped) => (bytes.push(escaped), rest = &after[3..]).1,
            None => (bytes.push(byte), rest = after).1,
        }
    }
    path(bytes)
}

#[cfg(unix)]
fn path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Whether the process with this `/proc/PID/status` may mount.
pub fn is_capable(status: &str) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok())
        .is_some_and(|caps| caps >> CAP_SYS_ADMIN & 1 == 1)
}

/// The calls themselves.
#[cfg(target_os = "linux")]
mod system {
    use std::ffi::CString;
    use std::fs;
    use std::io;
    use std::path::Path;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    use rustix::mount::{MountFlags, UnmountFlags};
    use tokio::sync::mpsc::Receiver;

    use super::super::{MountError, UnmountError, complaint, run};
    use super::*;

    /// Whether `plan` can be mounted by this process, before anything is started.
    pub fn may_mount(plan: &Plan) -> Result<(), MountError> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if is_capable(&status) {
            return Ok(());
        }
        let Some(options) = fstab_line(&plan.point) else {
            return Err(MountError::NotPermitted(denied(plan, uid())));
        };
        let port = options.words().find(|word| name(word) == "port").and_then(value);
        match port {
            Some(port) if port == plan.server.port() => Ok(()),
            _ => {
                let port = port.unwrap_or(2049);
                let point = plan.point.display();
                let why =
                    format!("the line of /etc/fstab for {point} is for port {port}: give --listen 127.0.0.1:{port}");
                Err(MountError::Refused { plan: Box::new(plan.clone()), why })
            }
        }
    }

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn fstab_line(point: &Path) -> Option<Options> {
        user_line(&fs::read_to_string("/etc/fstab").ok()?, point)
    }

    /// Mounts `plan`; returns when it is mounted.
    pub fn mount(plan: &Plan) -> Result<(), MountError> {
        let refused = |why: String| MountError::Refused { plan: Box::new(plan.clone()), why };
        let call = arguments(plan);
        let flags = call.flags.iter().fold(MountFlags::empty(), |all, flag| all | bits(*flag));
        let data = CString::new(call.data).map_err(|_| refused("an option holds a NUL byte".into()))?;
        match rustix::mount::mount(&*call.source, &plan.point, c"nfs", flags, &*data) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) if fstab_line(&plan.point).is_some() => mount_as_user(plan),
            Err(Errno::PERM) => Err(MountError::NotPermitted(denied(plan, uid()))),
            Err(Errno::NODEV | Errno::PROTONOSUPPORT) => Err(MountError::NoClient(
                "load its module with `sudo modprobe nfsv3`, or use a kernel with CONFIG_NFS_V3".into(),
            )),
            Err(Errno::ACCESS) => {
                let ip = plan.server.ip();
                Err(refused(format!("the server does not let {ip} in: add it to --allow")))
            }
            Err(Errno::INVAL) => {
                Err(refused(format!("the kernel does not know one of the options {:?}", plan.options.list())))
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    fn mount_as_user(plan: &Plan) -> Result<(), MountError> {
        let refused = |why: String| MountError::Refused { plan: Box::new(plan.clone()), why };
        let output = run(&user_command(plan)).map_err(|e| refused(e.to_string()))?;
        if output.status.success() { Ok(()) } else { Err(refused(complaint(&output))) }
    }

    fn bits(flag: Flag) -> MountFlags {
        match flag {
            Flag::ReadOnly => MountFlags::RDONLY,
            Flag::NoSuid => MountFlags::NOSUID,
            Flag::NoDev => MountFlags::NODEV,
            Flag::NoExec => MountFlags::NOEXEC,
            Flag::Sync => MountFlags::SYNCHRONOUS,
            Flag::DirSync => MountFlags::DIRSYNC,
            Flag::NoAtime => MountFlags::NOATIME,
            Flag::NoDirAtime => MountFlags::NODIRATIME,
            Flag::RelAtime => MountFlags::RELATIME,
            Flag::StrictAtime => MountFlags::STRICTATIME,
        }
    }

    /// What is mounted.
    pub fn table() -> io::Result<Vec<Entry>> {
        Ok(parse_table(&String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?)))
    }

    /// Unmounts `point` when nobody uses it. Returns when the client has written what it held back.
    pub fn unmount(point: &Path) -> Result<(), UnmountError> {
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => Err(UnmountError::Busy { point: point.into(), users: users(point) }),
            Err(Errno::PERM) => unmount_as_user(point),
            Err(error) => Err(UnmountError::Refused { point: point.into(), why: error.to_string() }),
        }
    }

    fn unmount_as_user(point: &Path) -> Result<(), UnmountError> {
        let refused = |why: String| UnmountError::Refused { point: point.into(), why };
        let output = run(&argv([&"umount", &point])).map_err(|e| refused(e.to_string()))?;
        match complaint(&output) {
            _ if output.status.success() => Ok(()),
            said if said.contains("busy") => Err(UnmountError::Busy { point: point.into(), users: users(point) }),
            said => Err(refused(said)),
        }
    }

    /// Takes the mount out of sight at once: calls that wait for the server fail, and who is in it stays in it.
    pub fn detach(point: &Path) -> Result<(), UnmountError> {
        let flags = UnmountFlags::DETACH | UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
        let refused = |error: Errno| UnmountError::Refused { point: point.into(), why: error.to_string() };
        rustix::mount::unmount(point, flags).map_err(refused)
    }

    /// Has the client write what it holds back. Not for a mount whose server is dead.
    pub fn flush(point: &Path) -> io::Result<()> {
        let root = rustix::fs::open(point, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::syncfs(root)?)
    }

    /// The processes that are in `point` or have a file of it open, as far as we may know. Asks the kernel for names
    /// alone, never the file system.
    pub fn users(point: &Path) -> Vec<String> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let processes = processes.flatten().filter(|dir| dir.file_name().to_string_lossy().parse::<u32>().is_ok());
        processes.filter(|dir| uses(&dir.path(), point)).map(|dir| told(&dir.path())).collect()
    }

    fn uses(process: &Path, point: &Path) -> bool {
        let is_in = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(point));
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        is_in(&process.join("cwd")) || is_in(&process.join("root")) || open.into_iter().any(|fd| is_in(&fd.path()))
    }

    fn told(process: &Path) -> String {
        let pid = process.file_name().unwrap_or_default().to_string_lossy();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        format!("process {pid} ({})", name.trim())
    }

    /// Changes of the mount table. The kernel tells them: /proc/self/mountinfo is then ready for PRI.
    pub struct Changes(Receiver<()>);

    impl Changes {
        /// Starts to listen: changes from now on are told. A thread waits for them until the first one after the drop.
        pub fn new() -> io::Result<Changes> {
            let table = fs::File::open("/proc/self/mountinfo")?;
            // one untold change is enough: who hears of it reads the whole table
            let (tell, changes) = tokio::sync::mpsc::channel(1);
            let listen = move || {
                while !tell.is_closed() {
                    match poll(&mut [PollFd::new(&table, PollFlags::PRI)], None) {
                        Ok(_) => drop(tell.try_send(())),
                        Err(Errno::INTR) => {}
                        Err(_) => return,
                    }
                }
            };
            std::thread::Builder::new().name("mount-table".into()).spawn(listen)?;
            Ok(Changes(changes))
        }

        /// Waits for the next one.
        pub async fn next(&mut self) -> io::Result<()> {
            self.0.recv().await.ok_or_else(|| io::Error::other("/proc/self/mountinfo cannot be polled"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    #[test]
    fn kernel_is_told_the_address_by_number_and_how_to_be_fresh() {
        let call = arguments(&plan("/mnt/media", ""));
        assert_eq!(call.source, "127.0.0.1:/media");
        assert_eq!(call.flags, [Flag::NoSuid, Flag::NoDev]);
        assert_eq!(
            call.data,
            "addr=127.0.0.1,port=4321,nfsvers=3,proto=tcp,mountaddr=127.0.0.1,mountport=4321,mountvers=3,mountproto=tcp,\
             hard,nolock,noacl,noresvport,actimeo=1,rsize=1048576,wsize=1048576"
        );
    }

    #[test]
    fn kernel_is_told_of_ipv6() {
        let mut plan = plan("/mnt", "");
        plan.server = "[::1]:2049".parse().unwrap();
        let call = arguments(&plan);
        assert!(
            call.data.starts_with("addr=::1,port=2049,nfsvers=3,proto=tcp6,mountaddr=::1,mountport=2049"),
            "{call:?}"
        );
    }

    #[test]
    fn options_of_the_user_win_and_flags_go_to_the_vfs() {
        let call = arguments(&plan("/mnt", "ro,suid,noexec,actimeo=30,_netdev,rw,ro"));
        assert_eq!(call.flags, [Flag::NoDev, Flag::NoExec, Flag::ReadOnly]);
        assert!(call.data.ends_with(",wsize=1048576,actimeo=30"), "{}", call.data);
    }

    #[test]
    fn who_may_not_mount_is_told_why_and_what_to_do() {
        let mut plan = plan("/mnt/media", "");
        plan.server.set_port(0);
        let told = denied(&plan, 1000);
        for part in [
            "CAP_SYS_ADMIN",
            "user 1000",
            "sudo",
            "s3://media/films /mnt/media fasts3 _netdev 0 0",
            "fasts3 serve s3://media/films --cache DIR --listen 127.0.0.1:2049",
            "sudo mount -t nfs -o nfsvers=3,proto=tcp,port=2049,mountport=2049,nosuid,nodev,hard,nolock,",
            " 127.0.0.1:/media /mnt/media\n",
            "Docker",
        ] {
            assert!(told.contains(part), "{part:?} not in {told}");
        }
        assert!(denied(&plan, 0).contains("container"));
    }

    #[test]
    fn fstab_line_with_user_is_found() {
        let fstab = "# comment\n127.0.0.1:/ /mnt/a nfs defaults 0 0\n\n\
                     127.0.0.1:/ /mnt/b\\040c nfs nfsvers=3,port=7,user,noauto 0 0\ns3://x /mnt/d fasts3 user 0 0\n";
        assert_eq!(user_line(fstab, Path::new("/mnt/a")), None);
        assert_eq!(user_line(fstab, Path::new("/mnt/d")), None);
        let options = user_line(fstab, Path::new("/mnt/b c")).unwrap();
        assert!(options.words().any(|word| word == "port=7"));
    }

    #[test]
    fn mount_table_is_read() {
        let table = "21 1 0:19 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            36 21 0:30 / /mnt/my\\040bucket rw,nosuid shared:7 master:2 - nfs 127.0.0.1:/media rw,vers=3,port=4321,mountport=4321\n\
            37 21 0:31 / /mnt/four rw - nfs4 host:/ rw,vers=4.2\nnonsense\n";
        let table = parse_table(table);
        assert_eq!(table.len(), 3);
        let entry = &table[1];
        assert_eq!((entry.id, entry.port, entry.is_nfs), (Some(36), Some(4321), true));
        assert_eq!((&*entry.source, entry.point.to_str()), ("127.0.0.1:/media", Some("/mnt/my bucket")));
        assert!(!table[2].is_nfs && table[0].port.is_none());
    }

    #[test]
    fn capability_is_read_from_the_effective_set() {
        assert!(is_capable("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!is_capable("CapPrm:\t000001ffffffffff\nCapEff:\t00000000a80425fb\n"), "a container's");
        assert!(!is_capable(""));
    }
}
