//! What went over a joined network, as Wireshark's dissectors read it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::joined::{AGENT_PORT, HOST};
use crate::rig;

const DISCARD_PORT: u16 = 9;

/// Each dissector's field that says the procedure of a call or a reply.
const PROCEDURES: [(&str, &str); 6] = [
    ("nfs", "nfs.procedure_v3"),
    ("mount", "mount.procedure_v3"),
    ("portmap", "portmap.procedure_v2"),
    ("rpcbind", "portmap.procedure_v4"),
    ("nlm", "nlm.procedure_v4"),
    ("stat", "stat.procedure_v1"),
];

/// A running capture.
pub struct Capture {
    dumpcap: Child,
    said: BufReader<ChildStderr>,
    file: PathBuf,
}

/// Whether there is what captures and dissects; where it must be there (CI), its absence fails the test.
pub fn is_here(test: &str) -> bool {
    let here = Command::new("tshark").arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !here {
        rig::skip(test, "no tshark (apt-get install tshark)");
    }
    here
}

impl Capture {
    /// Returns when it captures, into `directory`, or where FASTS3_KERNEL_PCAP says, to keep it.
    pub fn start(name: &str, directory: &Path) -> Capture {
        let kept = std::env::var_os("FASTS3_KERNEL_PCAP").map(PathBuf::from);
        let file = kept.as_deref().unwrap_or(directory).join(format!("{name}.pcapng"));
        let mut dumpcap = Command::new("dumpcap")
            .args(["-q", "-i", "br0", "-B", "128", "-w"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(dumpcap.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("File: ") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "dumpcap does not start");
        }
        Capture { dumpcap, said, file }
    }

    /// Ends it, when all that was sent so far is written.
    pub fn stop(mut self) -> Session {
        self.wait_for_a_last_packet();
        kill_process(Pid::from_child(&self.dumpcap), Signal::INT).unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        self.dumpcap.wait().unwrap();
        // packets lost by the capture would look like a server's mistakes
        assert!(said.contains("(pcap:0/dumpcap:0/"), "the capture is not whole: {said}");
        Session { file: self.file.clone() }
    }

    /// A capture that ends drops what it has not looked at yet.
    fn wait_for_a_last_packet(&self) {
        const LAST: &[u8] = b"the last packet of this capture";
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(LAST, ("10.11.0.255", DISCARD_PORT)).unwrap();
        let started = Instant::now();
        while !std::fs::read(&self.file).unwrap().windows(LAST.len()).any(|bytes| bytes == LAST) {
            assert!(started.elapsed() < Duration::from_secs(60), "the capture does not go on");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.dumpcap.kill();
        let _ = self.dumpcap.wait();
    }
}

/// A whole session.
pub struct Session {
    file: PathBuf,
}

impl Session {
    /// Panics with the packets that a dissector could not read to their end.
    pub fn is_well_formed(&self) {
        let bad = "_ws.malformed || _ws.unreassembled || _ws.short || _ws.expert.group == \"Malformed\"";
        let bad = self.packets(
            &format!("({bad} || rpc.state_accept == 4) && !(tcp.port == {AGENT_PORT})"),
            &["_ws.col.Source", "_ws.col.Protocol", "_ws.col.Info", "_ws.expert.message"],
        );
        assert!(bad.is_empty(), "{} packets are malformed:\n{}", bad.len(), bad[..bad.len().min(20)].join("\n"));
    }

    /// How often each procedure was called, as "nlm 4".
    pub fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        let fields: Vec<&str> = PROCEDURES.iter().map(|(_, field)| *field).collect();
        for packet in self.packets("rpc.msgtyp == 0", &fields) {
            for ((program, _), numbers) in PROCEDURES.iter().zip(packet.split('\t')) {
                for number in numbers.split(',').filter(|number| !number.is_empty()) {
                    *calls.entry(format!("{program} {number}")).or_default() += 1;
                }
            }
        }
        calls
    }

    /// How many packets `filter` (Wireshark's language) shows.
    pub fn count(&self, filter: &str) -> usize {
        self.packets(filter, &["frame.number"]).len()
    }

    fn packets(&self, filter: &str, fields: &[&str]) -> Vec<String> {
        let mut tshark = Command::new("tshark");
        // the client's ports are any, and some are those of other protocols
        tshark.args(["-n", "-2", "-o", "tcp.try_heuristic_first:TRUE", "-o", "udp.try_heuristic_first:TRUE"]);
        tshark.args(["-d", "tcp.port==2049,rpc", "-r"]).arg(&self.file).args(["-Y", filter, "-T", "fields"]);
        tshark.args(fields.iter().flat_map(|field| ["-e", field]));
        let ran = tshark.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect()
    }
}
