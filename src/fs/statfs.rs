//! FSSTAT, FSINFO and PATHCONF (RFC 1813 sections 3.3.18 to 3.3.20).

use nfsserve::nfs::{FSF_CANSETTIME, FSF_HOMOGENEOUS, FSF_SYMLINK, nfsstat3};

use super::ext::{Answer, Failure, FsInfo, FsStat, PathConf};
use super::read::READ_MAX;
use super::write::WRITE_MAX;
use super::{Fs, now};
use crate::types::name::MAX_NAME_BYTES;

/// Largest object S3 takes: 50 TB.
pub(super) const MAX_FILE_BYTES: u64 = 50_000_000_000_000;
/// 128 KiB a READDIR: some 600 entries with attributes, what Linux asks for at most.
const READDIR_PREFERRED: u32 = 128 << 10;
/// S3 has no limit of objects; `df -i` wants a number it can subtract from.
const FREE_FILES: u64 = 1 << 40;

impl Fs {
    /// FSSTAT. The size of the file system is what the cache may take of its disk; what can be evicted
    /// counts as free, because a write evicts it.
    pub(super) fn fsstat_of(&self, id: u64) -> Answer<Result<FsStat, Failure>> {
        let node = now!(self.node(id));
        let disk = now!(self.content.disk().map_err(|e| {
            tracing::error!(error = %e, "cannot ask the cache disk for its size");
            self.failure(nfsstat3::NFS3ERR_IO, &node)
        }));
        let usage = self.content.usage();
        let counts = self.index.counts();
        let total = usage.limit.min(disk.total);
        let free = total.min(disk.available.saturating_add(usage.bytes));
        Answer::Now(Ok(FsStat {
            attr: Some(self.attributes(&node)),
            total_bytes: total,
            free_bytes: free,
            available_bytes: free,
            total_files: FREE_FILES + counts.files + counts.dirs,
            free_files: FREE_FILES,
        }))
    }

    /// FSINFO.
    pub(super) fn fsinfo_of(&self, id: u64) -> Answer<Result<FsInfo, Failure>> {
        let node = now!(self.node(id));
        Answer::Now(Ok(FsInfo {
            attr: Some(self.attributes(&node)),
            read_max: READ_MAX,
            read_preferred: READ_MAX,
            write_max: WRITE_MAX,
            write_preferred: WRITE_MAX,
            readdir_preferred: READDIR_PREFERRED,
            max_file_bytes: MAX_FILE_BYTES,
            properties: FSF_SYMLINK | FSF_HOMOGENEOUS | FSF_CANSETTIME,
        }))
    }

    /// PATHCONF. An object has one key, so one link. Names over 245 bytes can only be read, where the bucket has them as
    /// pieces of longer ones, and not be made (NAMETOOLONG). They are told all the same: Linux does not even
    /// look up what is longer than the limit told.
    pub(super) fn pathconf_of(&self, id: u64) -> Answer<Result<PathConf, Failure>> {
        let node = now!(self.node(id));
        Answer::Now(Ok(PathConf {
            attr: Some(self.attributes(&node)),
            link_max: 1,
            name_max: u32::try_from(MAX_NAME_BYTES).expect("255"),
        }))
    }
}
