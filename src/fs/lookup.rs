//! LOOKUP (RFC 1813 section 3.3.3): a name that is here is answered at once and checked behind the
//! answer (F1, F2); one that is not is looked for in S3 while the caller waits, unless it is known to be
//! absent (F4).

use std::sync::Arc;

use nfsserve::nfs::nfsstat3;

use super::ext::{Answer, Caller, Failure, Looked};
use super::{Fs, after, error, now, permission};
use crate::index::Node;
use crate::types::{Ino, Name};

impl Fs {
    /// LOOKUP of `name` in `dir`.
    pub(super) fn lookup_of(&self, caller: &Caller, dir: u64, name: &[u8]) -> Answer<Result<Looked, Failure>> {
        let dir = now!(self.searchable(caller, dir));
        let name = now!(Name::new(name).map_err(|e| self.failure(error::of_name(e), &dir)));
        match self.index.child(dir.ino, &name) {
            Ok(Some(node)) => self.found(dir, node),
            Ok(None) if self.revalidator.is_absent(&dir, &name) => Answer::Now(Err(self.no_entry(&dir))),
            Ok(None) => self.look_in_s3(dir, name),
            Err(e) => Answer::Now(Err(self.failure(error::of_index(e), &dir))),
        }
    }

    /// LOOKUP of `..`.
    pub(super) fn parent_of(&self, caller: &Caller, dir: u64) -> Answer<Result<Looked, Failure>> {
        let dir = now!(self.searchable(caller, dir));
        let parent = now!(self.node(dir.parent.0).map_err(|status| self.failure(status, &dir)));
        Answer::Now(Ok(self.looked(&dir, &parent)))
    }

    /// A directory in which `caller` may look names up.
    fn searchable(&self, caller: &Caller, dir: u64) -> Result<Arc<Node>, Failure> {
        let dir = self.directory(dir)?;
        if !permission::allows(&dir, &caller.credentials, permission::EXECUTE) {
            return Err(self.failure(nfsstat3::NFS3ERR_ACCES, &dir));
        }
        Ok(dir)
    }

    fn found(&self, dir: Arc<Node>, node: Arc<Node>) -> Answer<Result<Looked, Failure>> {
        let wait = self.touch_for_open(&node);
        if wait.is_none() {
            return Answer::Now(Ok(self.looked(&dir, &node)));
        }
        let fs = self.clone();
        after(wait, move || match fs.index.node(node.ino) {
            Ok(Some(node)) => Ok(fs.looked(&dir, &node)),
            Ok(None) => Err(fs.no_entry(&dir)),
            Err(e) => Err(fs.failure(error::of_index(e), &dir)),
        })
    }

    fn look_in_s3(&self, dir: Arc<Node>, name: Name) -> Answer<Result<Looked, Failure>> {
        let fs = self.clone();
        Answer::Later(Box::pin(async move {
            let found = fs.revalidator.look_up(dir.ino, &name).await;
            // The directory may have changed while S3 was asked: its attributes are read again.
            let dir = fs.node(dir.ino.0)?;
            match found {
                Ok(Some(node)) => Ok(fs.looked(&dir, &node)),
                Ok(None) => Err(fs.no_entry(&dir)),
                Err(e) => Err(fs.failure(error::of_wait(e), &dir)),
            }
        }))
    }

    fn looked(&self, dir: &Node, node: &Node) -> Looked {
        let Ino(id) = node.ino;
        Looked { id, attr: self.attributes(node), dir_attr: Some(self.attributes(dir)) }
    }

    fn no_entry(&self, dir: &Node) -> Failure {
        self.failure(nfsstat3::NFS3ERR_NOENT, dir)
    }
}
