//! Raw NFSv3 load generator: no kernel client, no libnfs, so that what it measures is the server.
//! nfsbench HOST:PORT[:MOUNTPORT] EXPORT OP [key=value ...]
//! ops: null getattr lookup access read write create remove rename open readdirplus fsstat prepare
//! keys: conns=4 depth=16 secs=3 bs=131072 file=NAME size=BYTES random=0|1 pid=SERVERPID n=COUNT dir=NAME stable=0|2
//! prepare makes n files of size bytes, with commit=1 as a client that closes them: CREATE, WRITE, COMMIT
//! count=CALLS stops after so many (create, remove and rename: of NAME0, NAME1..); commit=1 ends a write with COMMIT
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NFS: u32 = 100003;
const MNT: u32 = 100005;

struct Enc(Vec<u8>);
impl Enc {
    /// xid below 16 asks for a fresh one: a server's duplicate request cache must never see one twice
    fn call(xid: u32, prog: u32, vers: u32, proc_: u32) -> Enc {
        static FRESH: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0xF000_0000);
        let xid = if xid < 16 { FRESH.fetch_add(1, Ordering::Relaxed) } else { xid };
        let mut e = Enc(vec![0; 4]);
        for v in [xid, 0, 2, prog, vers, proc_] {
            e.u32(v);
        }
        // AUTH_SYS: stamp, machine "b", uid 0, gid 0, no gids
        e.u32(1);
        let mut c = Enc(vec![]);
        c.u32(1);
        c.opaque(b"b");
        c.u32(0);
        c.u32(0);
        c.u32(0);
        e.opaque(&c.0);
        e.u32(0);
        e.u32(0);
        e
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_be_bytes())
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_be_bytes())
    }
    fn opaque(&mut self, b: &[u8]) {
        self.u32(b.len() as u32);
        self.0.extend_from_slice(b);
        while self.0.len() % 4 != 0 {
            self.0.push(0)
        }
    }
    fn finish(mut self) -> Vec<u8> {
        let n = (self.0.len() - 4) as u32 | 0x8000_0000;
        self.0[..4].copy_from_slice(&n.to_be_bytes());
        self.0
    }
}

fn read_record(s: &mut TcpStream, buf: &mut Vec<u8>) -> std::io::Result<()> {
    buf.clear();
    loop {
        let mut h = [0u8; 4];
        s.read_exact(&mut h)?;
        let w = u32::from_be_bytes(h);
        let n = (w & 0x7fff_ffff) as usize;
        let at = buf.len();
        buf.resize(at + n, 0);
        s.read_exact(&mut buf[at..])?;
        if w & 0x8000_0000 != 0 {
            return Ok(());
        }
    }
}

struct Dec<'a>(&'a [u8]);
impl<'a> Dec<'a> {
    fn u32(&mut self) -> u32 {
        let v = u32::from_be_bytes(self.0[..4].try_into().unwrap());
        self.0 = &self.0[4..];
        v
    }
    fn u64(&mut self) -> u64 {
        let v = u64::from_be_bytes(self.0[..8].try_into().unwrap());
        self.0 = &self.0[8..];
        v
    }
    fn opaque(&mut self) -> &'a [u8] {
        let n = self.u32() as usize;
        let v = &self.0[..n];
        self.0 = &self.0[(n + 3) / 4 * 4..];
        v
    }
    fn skip(&mut self, n: usize) {
        self.0 = &self.0[n..]
    }
}
/// strips the RPC reply header; returns the body or panics with what was refused
fn body(buf: &[u8]) -> Dec<'_> {
    let mut d = Dec(buf);
    d.u32();
    assert_eq!(d.u32(), 1, "not a reply");
    let stat = d.u32();
    if stat != 0 {
        panic!("rpc denied: {:?}", d.u32())
    }
    d.u32();
    d.opaque();
    let acc = d.u32();
    if acc != 0 {
        panic!("rpc accept_stat {acc}")
    }
    d
}
fn rpc(s: &mut TcpStream, e: Enc, buf: &mut Vec<u8>) {
    s.write_all(&e.finish()).unwrap();
    read_record(s, buf).unwrap()
}

fn lookup(s: &mut TcpStream, dir: &[u8], name: &str) -> Result<Vec<u8>, u32> {
    let mut b = vec![];
    let mut e = Enc::call(9, NFS, 3, 3);
    e.opaque(dir);
    e.opaque(name.as_bytes());
    rpc(s, e, &mut b);
    let mut d = body(&b);
    let st = d.u32();
    if st != 0 {
        return Err(st);
    }
    Ok(d.opaque().to_vec())
}
fn create(s: &mut TcpStream, dir: &[u8], name: &str) -> Result<Vec<u8>, u32> {
    let mut b = vec![];
    rpc(s, create_call(9, dir, name.as_bytes()), &mut b);
    let mut d = body(&b);
    let st = d.u32();
    if st != 0 {
        return Err(st);
    }
    if d.u32() == 1 {
        Ok(d.opaque().to_vec())
    } else {
        lookup(s, dir, name)
    }
}
fn create_call(xid: u32, dir: &[u8], name: &[u8]) -> Enc {
    let mut e = Enc::call(xid, NFS, 3, 8);
    e.opaque(dir);
    e.opaque(name);
    e.u32(0); // UNCHECKED
    e.u32(1);
    e.u32(0o644); // mode
    for _ in 0..3 {
        e.u32(0)
    } // uid gid size
    e.u32(0);
    e.u32(0); // atime mtime: don't change
    e
}
/// a new file, as open, write and close make it
fn write_file(s: &mut TcpStream, dir: &[u8], name: &str, data: &[u8], commit: bool) {
    let mut b = vec![];
    let fh = create(s, dir, name).unwrap();
    let mut at = 0;
    while at < data.len() {
        let n = (data.len() - at).min(1 << 20);
        let mut e = Enc::call(9, NFS, 3, 7);
        e.opaque(&fh);
        e.u64(at as u64);
        e.u32(n as u32);
        e.u32(0);
        e.opaque(&data[at..at + n]);
        rpc(s, e, &mut b);
        assert_eq!(body(&b).u32(), 0);
        at += n
    }
    if commit {
        let mut e = Enc::call(9, NFS, 3, 21);
        e.opaque(&fh);
        e.u64(0);
        e.u32(0);
        rpc(s, e, &mut b);
        assert_eq!(body(&b).u32(), 0);
    }
}
fn mkdir(s: &mut TcpStream, dir: &[u8], name: &str) {
    let mut b = vec![];
    let mut e = Enc::call(9, NFS, 3, 9);
    e.opaque(dir);
    e.opaque(name.as_bytes());
    e.u32(1);
    e.u32(0o755);
    for _ in 0..3 {
        e.u32(0)
    }
    e.u32(0);
    e.u32(0);
    rpc(s, e, &mut b);
}

fn cpu_ticks(pid: &str) -> f64 {
    if pid.is_empty() {
        return 0.0;
    }
    let Ok(s) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let f: Vec<&str> = s[s.rfind(')').unwrap() + 2..].split(' ').collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn rss_kb(pid: &str) -> u64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    s.lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .map(|v| v.trim().trim_end_matches(" kB").parse().unwrap_or(0))
        .unwrap_or(0)
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a.len() < 4 {
        eprintln!("usage: nfsbench HOST:PORT[:MOUNTPORT] EXPORT OP [k=v..]");
        std::process::exit(2)
    }
    let parts: Vec<&str> = a[1].split(':').collect();
    let addr = format!("{}:{}", parts[0], parts[1]);
    let maddr = format!("{}:{}", parts[0], parts.get(2).unwrap_or(&parts[1]));
    let op = a[3].clone();
    let kv: HashMap<String, String> =
        a[4..].iter().filter_map(|x| x.split_once('=').map(|(k, v)| (k.into(), v.into()))).collect();
    let num = |k: &str, d: u64| kv.get(k).map(|v| v.parse().unwrap()).unwrap_or(d);
    let conns = num("conns", 4) as usize;
    let depth = num("depth", 16) as usize;
    let secs = num("secs", 3);
    let bs = num("bs", 131072);
    let random = num("random", 0) == 1;
    let stable = num("stable", 0) as u32;
    let size = num("size", 256 << 20);
    let nfiles = num("n", 1000);
    let pid = kv.get("pid").cloned().unwrap_or_default();
    let file = kv.get("file").cloned().unwrap_or("bench.dat".into());

    // MOUNT
    let mut m = TcpStream::connect(&maddr).unwrap();
    let mut b = vec![];
    let mut e = Enc::call(1, MNT, 3, 1);
    e.opaque(a[2].as_bytes());
    rpc(&mut m, e, &mut b);
    let mut d = body(&b);
    let st = d.u32();
    assert_eq!(st, 0, "mount refused {st}");
    let root = d.opaque().to_vec();

    let mut s = TcpStream::connect(&addr).unwrap();
    s.set_nodelay(true).unwrap();
    let mut dir = root.clone();
    if let Some(p) = kv.get("dir") {
        for part in p.split('/') {
            dir = match lookup(&mut s, &dir, part) {
                Ok(f) => f,
                Err(_) => {
                    mkdir(&mut s, &dir, part);
                    lookup(&mut s, &dir, part).unwrap()
                }
            }
        }
    }
    // targets
    let mut fhs: Vec<Vec<u8>> = vec![];
    match op.as_str() {
        "getattr" | "access" | "fsstat" => fhs.push(lookup(&mut s, &dir, &file).unwrap_or(dir.clone())),
        "read" => fhs.push(lookup(&mut s, &dir, &file).expect("file to read")),
        "write" => {
            for i in 0..conns {
                fhs.push(create(&mut s, &dir, &format!("{file}.w{i}")).unwrap())
            }
        }
        "prepare" => {
            // n files of size bytes named fNNNNNN, over conns connections one call at a time
            let next = AtomicU64::new(0);
            let t = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..conns {
                    scope.spawn(|| {
                        let mut s = TcpStream::connect(&addr).unwrap();
                        s.set_nodelay(true).unwrap();
                        let data = vec![7u8; size as usize];
                        loop {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            if i >= nfiles {
                                break;
                            }
                            write_file(&mut s, &dir, &format!("f{i:06}"), &data, num("commit", 0) == 1);
                        }
                    });
                }
            });
            println!("prepared {nfiles} files of {size} secs={:.3}", t.elapsed().as_secs_f64());
            return;
        }
        "readdirplus" => {
            let t = Instant::now();
            let mut n = 0u64;
            let mut calls = 0u64;
            for _ in 0..num("rounds", 1) {
                let (mut cookie, mut verf) = (0u64, 0u64);
                loop {
                    let mut e = Enc::call(9, NFS, 3, 17);
                    e.opaque(&dir);
                    e.u64(cookie);
                    e.u64(verf);
                    e.u32(num("dircount", 32768) as u32);
                    e.u32(num("maxcount", 131072) as u32);
                    rpc(&mut s, e, &mut b);
                    calls += 1;
                    let mut d = body(&b);
                    let st = d.u32();
                    assert_eq!(st, 0, "readdirplus {st}");
                    if d.u32() == 1 {
                        d.skip(84)
                    }
                    verf = d.u64();
                    while d.u32() == 1 {
                        d.u64();
                        d.opaque();
                        cookie = d.u64();
                        n += 1;
                        if d.u32() == 1 {
                            d.skip(84)
                        }
                        if d.u32() == 1 {
                            d.opaque();
                        }
                    }
                    if d.u32() == 1 {
                        break;
                    }
                }
            }
            let el = t.elapsed().as_secs_f64();
            println!("readdirplus entries={n} calls={calls} secs={el:.3} entries/s={:.0}", n as f64 / el);
            return;
        }
        _ => {}
    }

    let stop = Arc::new(AtomicBool::new(false));
    let (ops, bytes, errs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let next = Arc::new(AtomicU64::new(0));
    let left = Arc::new(AtomicU64::new(num("count", u64::MAX)));
    let commit = num("commit", 0) == 1;
    let cpu0 = cpu_ticks(&pid);
    let t0 = Instant::now();
    let hs: Vec<_> = (0..conns)
        .map(|c| {
            let (addr, op, dir, fhs, file) = (addr.clone(), op.clone(), dir.clone(), fhs.clone(), file.clone());
            let (stop, ops, bytes, errs, next) = (stop.clone(), ops.clone(), bytes.clone(), errs.clone(), next.clone());
            let left = left.clone();
            std::thread::spawn(move || {
                let mut s = TcpStream::connect(&addr).unwrap();
                s.set_nodelay(true).unwrap();
                let mut lat: Vec<u32> = Vec::with_capacity(1 << 20);
                let mut sent: HashMap<u32, Instant> = HashMap::new();
                let mut xid = (c as u32 + 1) << 24;
                let payload = vec![0xa5u8; bs as usize];
                let mut rng = 0x9E3779B97F4A7C15u64 ^ c as u64;
                let mut wpos = 0u64;
                let mut buf = vec![];
                let mut small = vec![0u8; 0];
                let mut done_sending = false;
                let make = |xid: u32, rng: &mut u64, wpos: &mut u64| -> Vec<u8> {
                    *rng ^= *rng << 13;
                    *rng ^= *rng >> 7;
                    *rng ^= *rng << 17;
                    match op.as_str() {
                        "null" => Enc::call(xid, NFS, 3, 0).finish(),
                        "getattr" => {
                            let mut e = Enc::call(xid, NFS, 3, 1);
                            e.opaque(&fhs[0]);
                            e.finish()
                        }
                        "fsstat" => {
                            let mut e = Enc::call(xid, NFS, 3, 18);
                            e.opaque(&fhs[0]);
                            e.finish()
                        }
                        "access" => {
                            let mut e = Enc::call(xid, NFS, 3, 4);
                            e.opaque(&fhs[0]);
                            e.u32(0x3f);
                            e.finish()
                        }
                        "lookup" => {
                            let mut e = Enc::call(xid, NFS, 3, 3);
                            e.opaque(&dir);
                            let n = format!("f{:06}", *rng % nfiles);
                            e.opaque(n.as_bytes());
                            e.finish()
                        }
                        "read" => {
                            let blocks = (size / bs).max(1);
                            let blk =
                                if random { *rng % blocks } else { next.fetch_add(1, Ordering::Relaxed) % blocks };
                            let mut e = Enc::call(xid, NFS, 3, 6);
                            e.opaque(&fhs[0]);
                            e.u64(blk * bs);
                            e.u32(bs as u32);
                            e.finish()
                        }
                        "write" => {
                            let mut e = Enc::call(xid, NFS, 3, 7);
                            e.opaque(&fhs[c]);
                            e.u64(*wpos % size);
                            e.u32(bs as u32);
                            e.u32(stable);
                            e.opaque(&payload);
                            *wpos += bs;
                            e.finish()
                        }
                        "remove" => {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            let mut e = Enc::call(xid, NFS, 3, 12);
                            e.opaque(&dir);
                            e.opaque(format!("{file}{i}").as_bytes());
                            e.finish()
                        }
                        "rename" => {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            let mut e = Enc::call(xid, NFS, 3, 14);
                            e.opaque(&dir);
                            e.opaque(format!("{file}{i}").as_bytes());
                            e.opaque(&dir);
                            e.opaque(format!("{file}-renamed{i}").as_bytes());
                            e.finish()
                        }
                        "create" => {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            create_call(xid, &dir, format!("{file}{i}").as_bytes()).finish()
                        }
                        o => panic!("unknown op {o}"),
                    }
                };
                if op == "open" {
                    // what a client does for open+read+close of a small file: LOOKUP, ACCESS, READ, one after another
                    while !stop.load(Ordering::Relaxed) {
                        rng ^= rng << 13;
                        rng ^= rng >> 7;
                        rng ^= rng << 17;
                        let t = Instant::now();
                        let fh = match lookup(&mut s, &dir, &format!("f{:06}", rng % nfiles)) {
                            Ok(f) => f,
                            Err(_) => {
                                errs.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                        };
                        let mut e = Enc::call(1, NFS, 3, 4);
                        e.opaque(&fh);
                        e.u32(0x3f);
                        rpc(&mut s, e, &mut small);
                        let mut e = Enc::call(2, NFS, 3, 6);
                        e.opaque(&fh);
                        e.u64(0);
                        e.u32(bs as u32);
                        rpc(&mut s, e, &mut buf);
                        let mut d = body(&buf);
                        if d.u32() != 0 {
                            errs.fetch_add(1, Ordering::Relaxed);
                        }
                        bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
                        ops.fetch_add(1, Ordering::Relaxed);
                        lat.push(t.elapsed().as_micros() as u32);
                    }
                    return lat;
                }
                loop {
                    while !done_sending && sent.len() < depth {
                        if stop.load(Ordering::Relaxed)
                            || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
                        {
                            done_sending = true;
                            break;
                        }
                        xid += 1;
                        let m = make(xid, &mut rng, &mut wpos);
                        sent.insert(xid, Instant::now());
                        s.write_all(&m).unwrap();
                    }
                    if sent.is_empty() {
                        break;
                    }
                    if read_record(&mut s, &mut buf).is_err() {
                        errs.fetch_add(1 + sent.len() as u64, Ordering::Relaxed);
                        break;
                    }
                    let x = u32::from_be_bytes(buf[..4].try_into().unwrap());
                    if let Some(t) = sent.remove(&x) {
                        lat.push(t.elapsed().as_micros() as u32)
                    }
                    let mut d = body(&buf);
                    if op != "null" && d.u32() != 0 {
                        errs.fetch_add(1, Ordering::Relaxed);
                    }
                    ops.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(if op == "write" { bs } else { buf.len() as u64 }, Ordering::Relaxed);
                }
                if commit {
                    let mut e = Enc::call(3, NFS, 3, 21);
                    e.opaque(&fhs[c]);
                    e.u64(0);
                    e.u32(0);
                    rpc(&mut s, e, &mut buf);
                    if body(&buf).u32() != 0 {
                        errs.fetch_add(1, Ordering::Relaxed);
                    }
                }
                lat
            })
        })
        .collect();
    let deadline = t0 + Duration::from_secs(secs);
    while Instant::now() < deadline && hs.iter().any(|h| !h.is_finished()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.store(true, Ordering::Relaxed);
    let mut lat: Vec<u32> = vec![];
    for h in hs {
        lat.extend(h.join().unwrap())
    }
    let el = t0.elapsed().as_secs_f64();
    let cpu = cpu_ticks(&pid) - cpu0;
    lat.sort_unstable();
    let p = |q: f64| lat.get(((lat.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(0);
    let o = ops.load(Ordering::Relaxed) as f64;
    println!("{op} conns={conns} depth={depth} bs={bs} ops/s={:.0} MB/s={:.1} p50us={} p99us={} p999us={} errs={} srv_cpu_us/op={:.2} srv_peak_rss_kb={}",
        o / el, bytes.load(Ordering::Relaxed) as f64 / el / 1e6, p(0.5), p(0.99), p(0.999), errs.load(Ordering::Relaxed),
        if pid.is_empty() { 0.0 } else { cpu * 1e6 / o }, rss_kb(&pid));
}
