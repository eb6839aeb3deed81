//! The practical limit of a userspace NFSv3 READ path: one blocking thread a connection, no checks,
//! canned replies built in place, file data moved by sendfile(2). Not a server: a yardstick.
//! nfsideal PORT DIR
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    os::unix::fs::MetadataExt,
    sync::Arc,
};
struct Fs {
    names: HashMap<Vec<u8>, u32>,
    files: Vec<File>,
}
fn p32(v: &mut Vec<u8>, x: u32) {
    v.extend_from_slice(&x.to_be_bytes())
}
fn p64(v: &mut Vec<u8>, x: u64) {
    v.extend_from_slice(&x.to_be_bytes())
}
fn g32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(b[at..at + 4].try_into().unwrap())
}
fn attr(v: &mut Vec<u8>, f: &File, id: u64) {
    let m = f.metadata().unwrap();
    p32(v, if m.is_dir() { 2 } else { 1 });
    p32(v, m.mode() & 0o7777);
    p32(v, 1);
    p32(v, 0);
    p32(v, 0);
    p64(v, m.len());
    p64(v, m.len());
    p64(v, 0);
    p64(v, 1);
    p64(v, id);
    for t in [m.atime(), m.mtime(), m.ctime()] {
        p32(v, t as u32);
        p32(v, 0)
    }
}
fn serve(mut s: TcpStream, fs: Arc<Fs>) -> std::io::Result<()> {
    s.set_nodelay(true)?;
    let mut inb = vec![0u8; 1 << 21];
    let (mut lo, mut hi) = (0usize, 0usize);
    let mut out = Vec::with_capacity(4096);
    loop {
        while hi - lo < 4 || hi - lo < 4 + (g32(&inb, lo) & 0x7fffffff) as usize {
            if lo > 0 {
                inb.copy_within(lo..hi, 0);
                hi -= lo;
                lo = 0
            }
            let n = s.read(&mut inb[hi..])?;
            if n == 0 {
                return Ok(());
            }
            hi += n;
        }
        let len = (g32(&inb, lo) & 0x7fffffff) as usize;
        let b = &inb[lo + 4..lo + 4 + len];
        let (xid, prog, pr) = (g32(b, 0), g32(b, 12), g32(b, 20));
        let cl = g32(b, 28) as usize;
        let at = 32 + (cl + 3) / 4 * 4;
        let vl = g32(b, at + 4) as usize;
        let mut a = at + 8 + (vl + 3) / 4 * 4;
        out.clear();
        p32(&mut out, 0);
        for x in [xid, 1, 0, 0, 0, 0] {
            p32(&mut out, x)
        }
        let mut tail: Option<(usize, u64, usize)> = None;
        if prog == 100005 {
            if pr == 1 {
                p32(&mut out, 0);
                p32(&mut out, 4);
                p32(&mut out, 0);
                p32(&mut out, 1);
                p32(&mut out, 1)
            }
        } else if pr != 0 {
            let id = g32(b, a + 4) as usize;
            a += 8;
            match pr {
                1 => {
                    p32(&mut out, 0);
                    attr(&mut out, &fs.files[id], id as u64)
                }
                3 => {
                    let n = g32(b, a) as usize;
                    match fs.names.get(&b[a + 4..a + 4 + n]) {
                        Some(&i) => {
                            p32(&mut out, 0);
                            p32(&mut out, 4);
                            p32(&mut out, i);
                            p32(&mut out, 1);
                            attr(&mut out, &fs.files[i as usize], i as u64);
                            p32(&mut out, 1);
                            attr(&mut out, &fs.files[0], 0)
                        }
                        None => {
                            p32(&mut out, 2);
                            p32(&mut out, 0)
                        }
                    }
                }
                4 => {
                    p32(&mut out, 0);
                    p32(&mut out, 1);
                    attr(&mut out, &fs.files[id], id as u64);
                    p32(&mut out, g32(b, a))
                }
                6 => {
                    let off = u64::from_be_bytes(b[a..a + 8].try_into().unwrap());
                    let cnt = g32(b, a + 8) as u64;
                    let l = fs.files[id].metadata()?.len();
                    let n = cnt.min(l.saturating_sub(off));
                    p32(&mut out, 0);
                    p32(&mut out, 1);
                    attr(&mut out, &fs.files[id], id as u64);
                    p32(&mut out, n as u32);
                    p32(&mut out, (off + n >= l) as u32);
                    p32(&mut out, n as u32);
                    tail = Some((id, off, n as usize))
                }
                _ => p32(&mut out, 10004),
            }
        }
        let tl = tail.map(|t| (t.2 + 3) / 4 * 4).unwrap_or(0);
        let total = (out.len() - 4 + tl) as u32 | 0x80000000;
        out[..4].copy_from_slice(&total.to_be_bytes());
        match tail {
            Some((id, off, mut n)) if n > 0 => {
                let pad = (4 - n % 4) % 4;
                unsafe { libc::send(s.as_raw_fd(), out.as_ptr() as *const _, out.len(), libc::MSG_MORE) };
                let mut o = off as i64;
                while n > 0 {
                    let r = unsafe { libc::sendfile(s.as_raw_fd(), fs.files[id].as_raw_fd(), &mut o, n) };
                    if r <= 0 {
                        return Ok(());
                    }
                    n -= r as usize
                }
                if pad > 0 {
                    s.write_all(&[0; 3][..pad])?
                }
            }
            _ => s.write_all(&out)?,
        }
        lo += 4 + len;
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut fs = Fs { names: HashMap::new(), files: vec![File::open(&a[2]).unwrap()] };
    for e in std::fs::read_dir(&a[2]).unwrap().flatten() {
        if e.path().is_file() {
            fs.names.insert(e.file_name().into_encoded_bytes(), fs.files.len() as u32);
            fs.files.push(File::open(e.path()).unwrap())
        }
    }
    let fs = Arc::new(fs);
    for s in TcpListener::bind(("127.0.0.1", a[1].parse().unwrap())).unwrap().incoming().flatten() {
        let fs = fs.clone();
        std::thread::spawn(move || serve(s, fs));
    }
}
