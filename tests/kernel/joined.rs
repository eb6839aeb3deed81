//! One or two guests and the server in a network of their own (`scripts/vm/joined`), where calls reach from each to each.
//!
//! A test of this kind runs twice: the first run starts the second inside that network, where it is alone with ports
//! 111 and 2049, and waits for it. What is done in a guest is written in the test: `scripts/vm/agent` makes each
//! connection a process of the guest, so a test says "this process locks, that one waits" and hears what they see.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{self, Serving, VMRUN};

const JOINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/joined");
/// The machine that the server and the test are on.
pub const HOST: &str = "10.11.0.1";
/// Where `scripts/vm/agent` listens.
pub const AGENT_PORT: u16 = 7;
/// The longest that anything in a guest may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// A waiting lock must be granted sooner than this: the kernel's client asks again by itself after 30 s, and that is
/// not to be taken for a call-back.
pub const BEFORE_IT_POLLS: Duration = Duration::from_secs(25);

/// Whether this is the run inside the network. Outside, `test` (its whole name) has run inside when this returns.
pub fn enter(test: &str) -> bool {
    if std::env::var("JOINED").as_deref() == Ok("joined") {
        return true;
    }
    let checked = Command::new(JOINED).arg("--check").output().unwrap();
    if !checked.status.success() {
        rig::skip(test, String::from_utf8_lossy(&checked.stderr).trim());
        return false;
    }
    if rig::is_here(test) {
        let mut inside = Command::new(JOINED);
        inside.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
        let ended = inside.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        println!("{said}{}", String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "it failed inside its network");
        assert!(said.contains("1 passed"), "there is no test {test}");
    }
    false
}

/// A guest: 10.11.0.2 or 10.11.0.3.
pub struct Machine {
    vm: Child,
    number: u8,
}

impl Machine {
    /// Boots guests, all at once. What one remembers from boot to boot is in `disks`.
    pub fn boot<const N: usize>(numbers: [u8; N], disks: &Path) -> [Machine; N] {
        let mut machines = numbers.map(|number| Machine::start(number, &disks.join(number.to_string())));
        machines.iter_mut().for_each(Machine::wait_until_ready);
        machines
    }

    fn start(number: u8, disk: &Path) -> Machine {
        std::fs::create_dir_all(disk).unwrap();
        let vm = Command::new(VMRUN)
            .args(["-m", "512M", "-t", "900", "-n", &number.to_string(), "-o"])
            .arg(disk)
            .arg(Path::new(VMRUN).with_file_name("agent"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Machine { vm, number }
    }

    fn wait_until_ready(&mut self) {
        for line in BufReader::new(self.vm.stdout.as_mut().unwrap()).lines().map(Result::unwrap) {
            if line == "ready" {
                return;
            }
            println!("vm{}: {line}", self.number);
        }
        panic!("guest {} does not boot", self.number);
    }

    pub fn address(&self) -> String {
        format!("10.11.0.{}", self.number)
    }

    /// A new process in there.
    pub fn process(&self) -> Process {
        let stream = TcpStream::connect((self.address(), AGENT_PORT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut process = Process { stream: BufReader::new(stream), pid: String::new() };
        process.pid = process.answer().unwrap();
        process
    }

    /// A new process that has `path` open, for locks.
    pub fn opens(&self, path: &str) -> Process {
        let mut process = self.process();
        process.does(&format!("open {path}")).unwrap();
        process
    }

    /// Runs `command` in a shell: what it printed, which is an `Err` when it failed.
    pub fn sh(&self, command: &str) -> Result<String, String> {
        self.process().does(&format!("sh {command}"))
    }

    /// Mounts as people type it, with no option.
    pub fn mount(&self) -> Result<String, String> {
        self.sh(&format!("timeout 60 mount -t nfs {HOST}:/ /mnt"))
    }

    /// Ends it as a power cut does, and boots it again. Nothing is mounted then.
    pub fn lose_power(&mut self, disks: &Path) {
        self.power_off();
        let [again] = Machine::boot([self.number], disks);
        *self = again;
    }

    fn power_off(&mut self) {
        // vmrun kills the guest where it stands; killed itself it would leave it behind
        let _ = kill_process(Pid::from_child(&self.vm), Signal::TERM);
        let _ = self.vm.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A process in a guest. It ends when this is dropped.
pub struct Process {
    stream: BufReader<TcpStream>,
    pub pid: String,
}

impl Process {
    /// Has `line` (see `scripts/vm/agent`) done, and waits for it.
    pub fn does(&mut self, line: &str) -> Result<String, String> {
        self.begins(line);
        self.answer()
    }

    /// Has `line` begun.
    pub fn begins(&mut self, line: &str) {
        writeln!(self.stream.get_mut(), "{line}").unwrap();
    }

    /// The end of what was begun.
    pub fn answer(&mut self) -> Result<String, String> {
        self.answer_within(PATIENCE)
    }

    pub fn answer_within(&mut self, patience: Duration) -> Result<String, String> {
        self.stream.get_ref().set_read_timeout(Some(patience)).unwrap();
        let mut head = String::new();
        self.stream.read_line(&mut head).unwrap_or_else(|error| panic!("no answer within {patience:?}: {error}"));
        let (word, length) = head.trim().split_once(' ').unwrap_or_else(|| panic!("the guest ended: {head:?}"));
        let mut text = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        if word == "ok" { Ok(text) } else { Err(text) }
    }

    /// Begins `line`, a lock that has to wait. Returns once it does: for the server to grant it, or for another process of
    /// the same machine, of which the server hears nothing.
    pub fn waits(&mut self, machine: &Machine, line: &str) {
        self.begins(line);
        let place = format!("/proc/{}/stack", self.pid);
        machine
            .process()
            .does(&format!("until re.search('nlmclnt_block|locks_lock_inode_wait', read('{place}'))"))
            .unwrap_or_else(|_| {
                panic!("{line}: does not wait but is in {:?}", machine.sh(&format!("cat {place}")));
            });
    }
}

/// `fasts3 serve` as the network's server, on the ports that everybody expects.
pub fn serve(endpoint: &str, cache: &Path, args: &[&str]) -> Serving {
    let listen = (HOST.parse::<IpAddr>().unwrap(), 2049).into();
    Serving::start_on(listen, endpoint, cache, &[&["--portmap", "on", "--cache-size", "1GiB"], args].concat())
}
