//! Attributes: what GETATTR and every post-operation attribute say of a node, and ACCESS.

use nfsserve::nfs::{fattr3, ftype3, nfsstat3, nfstime3, specdata3};

use super::ext::{Accessed, Answer, Caller, Failure};
use super::{Fs, after, now, permission};
use crate::index::{Kind, Node};
use crate::types::Time;

impl Fs {
    /// GETATTR.
    pub(super) fn getattr_of(&self, id: u64) -> Answer<Result<fattr3, nfsstat3>> {
        let node = now!(self.node(id));
        match self.touch_for_open(&node) {
            None => Answer::Now(Ok(self.attributes(&node))),
            wait => {
                let fs = self.clone();
                after(wait, move || fs.node(id).map(|node| fs.attributes(&node)))
            }
        }
    }

    /// ACCESS.
    pub(super) fn access_of(&self, caller: &Caller, id: u64, wanted: u32) -> Answer<Result<Accessed, Failure>> {
        let node = now!(self.node(id));
        let wait = self.touch_for_open(&node);
        if wait.is_none() {
            return Answer::Now(Ok(self.accessed(&node, caller, wanted)));
        }
        let (fs, caller) = (self.clone(), caller.clone());
        after(wait, move || Ok(fs.accessed(&*fs.node(id)?, &caller, wanted)))
    }

    fn accessed(&self, node: &Node, caller: &Caller, wanted: u32) -> Accessed {
        Accessed { granted: permission::access(node, &caller.credentials, wanted), attr: self.attributes(node) }
    }

    /// The attributes of one snapshot of an inode (RFC 1813 section 2.6, fattr3).
    pub(super) fn attributes(&self, node: &Node) -> fattr3 {
        fattr3 {
            ftype: file_type(node.kind),
            mode: node.mode,
            nlink: if node.kind == Kind::Dir { 2 } else { 1 },
            uid: node.uid,
            gid: node.gid,
            size: node.size,
            // S3 stores every byte, holes included; what of it is cached here is not the client's concern.
            used: node.size,
            rdev: specdata3 { specdata1: node.rdev.0, specdata2: node.rdev.1 },
            fsid: self.handles.fsid(),
            fileid: node.ino.0,
            atime: nfs_time(node.atime),
            mtime: nfs_time(node.mtime),
            ctime: nfs_time(node.ctime),
        }
    }
}

fn file_type(kind: Kind) -> ftype3 {
    match kind {
        Kind::File => ftype3::NF3REG,
        Kind::Dir => ftype3::NF3DIR,
        Kind::Symlink => ftype3::NF3LNK,
        Kind::Fifo => ftype3::NF3FIFO,
        Kind::Socket => ftype3::NF3SOCK,
        Kind::CharDevice => ftype3::NF3CHR,
        Kind::BlockDevice => ftype3::NF3BLK,
    }
}

/// NFSv3 has unsigned 32-bit seconds: times before 1970 and after 2106 are cut to the nearest it can say.
fn nfs_time(time: Time) -> nfstime3 {
    match u32::try_from(time.seconds()) {
        Ok(seconds) => nfstime3 { seconds, nseconds: time.subsec_nanos() },
        Err(_) if time.seconds() < 0 => nfstime3 { seconds: 0, nseconds: 0 },
        Err(_) => nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_nfs_cannot_say_are_cut_to_the_nearest_it_can() {
        let parts = |seconds, nanos| {
            let t = nfs_time(Time::from_parts(seconds, nanos));
            (t.seconds, t.nseconds)
        };
        assert_eq!(parts(1_700_000_000, 5), (1_700_000_000, 5));
        assert_eq!(parts(-1, 999_999_999), (0, 0));
        assert_eq!(parts(1 << 32, 0), (u32::MAX, 999_999_999));
    }
}
