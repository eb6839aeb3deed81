//! Attributes: what GETATTR and every post-operation attribute say of a node, and ACCESS.

use nfsserve::nfs::{fattr3, ftype3, nfsstat3, nfstime3, specdata3, wcc_attr};

use super::ext::{Accessed, Answer, Caller, Failure};
use super::{Fs, after, now, permission};
use crate::content::Live;
use crate::index::{Inode, Kind, Node};
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

    /// Whether `id` may be locked. What S3 has of it is not asked: a lock is about the name, not the bytes.
    pub(super) fn lockable_of(&self, caller: &Caller, id: u64, exclusive: bool) -> Result<(), nfsstat3> {
        let node = self.node(id)?;
        if node.kind != Kind::File {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        let (inode, who) = (&**node, &caller.credentials);
        if !permission::may_read_data(inode, who) && !permission::may_write_data(inode, who) {
            return Err(nfsstat3::NFS3ERR_ACCES);
        }
        if exclusive && (self.settings.read_only || caller.read_only) { Err(nfsstat3::NFS3ERR_ROFS) } else { Ok(()) }
    }

    fn accessed(&self, node: &Node, caller: &Caller, wanted: u32) -> Accessed {
        let bits = permission::access(node, &caller.credentials, wanted);
        let granted = if self.is_read_only(caller) { permission::without_changes(bits) } else { bits };
        Accessed { granted, attr: self.attributes(node) }
    }

    /// The attributes of one snapshot of an inode (RFC 1813 section 2.6, fattr3), with those that run ahead of the
    /// index where bytes are staged.
    pub(super) fn attributes(&self, inode: &Inode) -> fattr3 {
        self.attributes_as(inode, self.live(inode))
    }

    /// The same, where what runs ahead is known to the caller.
    pub(super) fn attributes_as(&self, inode: &Inode, live: Option<Live>) -> fattr3 {
        let Live { size, mtime, ctime } = live.unwrap_or_else(|| settled(inode));
        fattr3 {
            ftype: file_type(inode.kind),
            mode: inode.mode,
            nlink: if inode.kind == Kind::Dir { 2 } else { 1 },
            uid: inode.uid,
            gid: inode.gid,
            size,
            // S3 stores every byte, holes included; what of it is cached here is not the client's concern.
            used: size,
            rdev: specdata3 { specdata1: inode.rdev.0, specdata2: inode.rdev.1 },
            fsid: self.handles.fsid(),
            fileid: inode.ino.0,
            atime: nfs_time(inode.atime),
            mtime: nfs_time(mtime),
            ctime: nfs_time(ctime),
        }
    }

    /// The attributes that run ahead of the index: a map lookup, and only where bytes are staged.
    pub(super) fn live(&self, inode: &Inode) -> Option<Live> {
        let id = inode.staged?;
        self.content.staged_if_open(inode.ino).filter(|staged| staged.id() == id).map(|staged| staged.live())
    }
}

/// What of an inode's row can run ahead of it.
pub(super) fn settled(inode: &Inode) -> Live {
    Live { size: inode.size, mtime: inode.mtime, ctime: inode.ctime }
}

/// The part of `attr` by which clients see whether they know of every change (RFC 1813 section 2.6, wcc_attr).
pub(super) fn wcc_attr_of(attr: &fattr3) -> wcc_attr {
    wcc_attr { size: attr.size, mtime: attr.mtime, ctime: attr.ctime }
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
pub(super) fn nfs_time(time: Time) -> nfstime3 {
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
