//! Changes by the independent NFS client.

use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;

use super::{Client, Found, soon};

/// Nothing set.
pub fn no_attributes() -> sattr3 {
    sattr3 {
        mode: set_mode3::None,
        uid: set_uid3::None,
        gid: set_gid3::None,
        size: set_size3::None,
        atime: set_atime::DONT_CHANGE,
        mtime: set_mtime::DONT_CHANGE,
    }
}

fn place<'a>(dir: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name)) }
}

fn status<T, E>(result: Nfs3Result<T, E>) -> Result<T, nfsstat3> {
    match result {
        Nfs3Result::Ok(ok) => Ok(ok),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

impl Client {
    pub async fn create_in(&mut self, dir: &nfs_fh3, name: &[u8], how: createhow3) -> Result<Found, nfsstat3> {
        let args = CREATE3args { where_: place(dir, name), how };
        let ok = status(soon(self.raw().create(&args)).await.unwrap())?;
        Ok(Found { handle: ok.obj.unwrap(), attr: ok.obj_attributes.unwrap() })
    }

    pub async fn mkdir_in(&mut self, dir: &nfs_fh3, name: &[u8]) -> Result<Found, nfsstat3> {
        let args = MKDIR3args { where_: place(dir, name), attributes: no_attributes() };
        let ok = status(soon(self.raw().mkdir(&args)).await.unwrap())?;
        Ok(Found { handle: ok.obj.unwrap(), attr: ok.obj_attributes.unwrap() })
    }

    pub async fn symlink_in(&mut self, dir: &nfs_fh3, name: &[u8], target: &[u8]) -> Result<Found, nfsstat3> {
        let symlink =
            symlinkdata3 { symlink_attributes: no_attributes(), symlink_data: nfspath3(Opaque::borrowed(target)) };
        let args = SYMLINK3args { where_: place(dir, name), symlink };
        let ok = status(soon(self.raw().symlink(&args)).await.unwrap())?;
        Ok(Found { handle: ok.obj.unwrap(), attr: ok.obj_attributes.unwrap() })
    }

    pub async fn readlink(&mut self, link: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
        let ok = status(soon(self.raw().readlink(&READLINK3args { symlink: link.clone() })).await.unwrap())?;
        Ok(ok.data.0.to_vec())
    }

    pub async fn remove_in(&mut self, dir: &nfs_fh3, name: &[u8]) -> Result<(), nfsstat3> {
        let args = REMOVE3args { object: place(dir, name) };
        status(soon(self.raw().remove(&args)).await.unwrap()).map(drop)
    }

    pub async fn rmdir_in(&mut self, dir: &nfs_fh3, name: &[u8]) -> Result<(), nfsstat3> {
        let args = RMDIR3args { object: place(dir, name) };
        status(soon(self.raw().rmdir(&args)).await.unwrap()).map(drop)
    }

    pub async fn rename_in(&mut self, from: (&nfs_fh3, &[u8]), to: (&nfs_fh3, &[u8])) -> Result<(), nfsstat3> {
        let args = RENAME3args { from: place(from.0, from.1), to: place(to.0, to.1) };
        status(soon(self.raw().rename(&args)).await.unwrap()).map(drop)
    }

    pub async fn setattr(&mut self, object: &nfs_fh3, new_attributes: sattr3) -> Result<(), nfsstat3> {
        let args = SETATTR3args { object: object.clone(), new_attributes, guard: sattrguard3::None };
        status(soon(self.raw().setattr(&args)).await.unwrap()).map(drop)
    }

    /// One WRITE: how many bytes were taken, how durable they are, and the verifier.
    pub async fn write_at(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        data: &[u8],
        stable: stable_how,
    ) -> Result<WRITE3resok, nfsstat3> {
        let count = data.len() as u32;
        let args = WRITE3args { file: file.clone(), offset, count, stable, data: Opaque::borrowed(data) };
        status(soon(self.raw().write(&args)).await.unwrap())
    }

    pub async fn commit(&mut self, file: &nfs_fh3) -> Result<COMMIT3resok, nfsstat3> {
        let args = COMMIT3args { file: file.clone(), offset: 0, count: 0 };
        status(soon(self.raw().commit(&args)).await.unwrap())
    }

    /// Creates or truncates a file and writes all of it, committed: as `cp` does.
    pub async fn save_in(&mut self, dir: &nfs_fh3, name: &[u8], data: &[u8]) -> Result<Found, nfsstat3> {
        let truncated = sattr3 { size: set_size3::Some(0), ..no_attributes() };
        let found = self.create_in(dir, name, createhow3::UNCHECKED(truncated)).await?;
        for (i, piece) in data.chunks(256 << 10).enumerate() {
            self.write_at(&found.handle, (i * (256 << 10)) as u64, piece, stable_how::UNSTABLE).await?;
        }
        self.commit(&found.handle).await?;
        Ok(found)
    }

    /// As `save_in`, by a path whose directory exists.
    pub async fn save(&mut self, path: &str, data: &[u8]) -> Result<Found, nfsstat3> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.lookup(dir).await?.handle;
        self.save_in(&dir, name.as_bytes(), data).await
    }
}
