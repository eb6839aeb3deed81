//! READDIR and READDIRPLUS (RFC 1813 sections 3.3.16 and 3.3.17). A directory that has been listed once
//! is served at once and re-listed behind; one that has not is listed while the caller waits, and
//! answered page by page as S3's pages arrive (F4).

use std::sync::Arc;

use nfsserve::nfs::nfsstat3;

use super::ext::{Answer, Caller, Entry, Failure, ListArgs, Listing};
use super::{Fs, error, now, permission};
use crate::index::{DirEntry, Node};
use crate::types::Ino;

impl Fs {
    /// The entries of a directory after a cookie.
    pub(super) fn list_of(&self, caller: &Caller, args: ListArgs) -> Answer<Result<Listing, Failure>> {
        let dir = now!(self.directory(args.dir));
        if !permission::allows(&dir, &caller.credentials, permission::READ) {
            return Answer::Now(Err(self.failure(nfsstat3::NFS3ERR_ACCES, &dir)));
        }
        self.revalidator.touch(&dir);
        if dir.listed {
            return Answer::Now(self.page(&dir, args, true));
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.page_of_first_listing(dir, args).await }))
    }

    async fn page_of_first_listing(self, dir: Arc<Node>, args: ListArgs) -> Result<Listing, Failure> {
        let mut progress = self.revalidator.list(dir.ino);
        let mut ended = false;
        loop {
            let dir = self.node(dir.ino.0)?;
            let page = self.page(&dir, args, ended)?;
            if ended || !page.entries.is_empty() {
                return Ok(page);
            }
            ended = progress.advanced().await.map_err(|e| self.failure(error::of_wait(e), &dir))?;
        }
    }

    /// What the index has after the cookie. `all`: nothing more is to come from S3.
    fn page(&self, dir: &Arc<Node>, args: ListArgs, all: bool) -> Result<Listing, Failure> {
        let fail = |e| self.failure(error::of_index(e), dir);
        // One more than asked for tells whether the end is reached.
        let wanted = args.max_entries.max(1);
        let mut entries = self.index.entries(dir.ino, args.after, wanted + 1).map_err(fail)?;
        let more = entries.len() > wanted;
        entries.truncate(wanted);
        let parent = self.index.node(dir.parent).map_err(fail)?.unwrap_or_else(|| dir.clone());
        let Ino(parent_id) = parent.ino;
        Ok(Listing {
            dir_attr: self.attributes(dir),
            parent: parent_id,
            parent_attr: args.with_attrs.then(|| self.attributes(&parent)),
            entries: entries.into_iter().map(|entry| self.entry(entry, args.with_attrs)).collect(),
            end: all && !more,
        })
    }

    fn entry(&self, entry: DirEntry, with_attrs: bool) -> Entry {
        let Ino(id) = entry.node.ino;
        Entry {
            id,
            name: entry.name.into_bytes(),
            cookie: entry.cookie,
            attr: with_attrs.then(|| self.attributes(&entry.node)),
        }
    }
}
