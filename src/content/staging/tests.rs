//! Staging files against a real index and a real directory.
#![allow(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]

mod closing;
mod durable;
mod frozen;
mod model;
mod promote;
mod room;
mod writes;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::tests::{MIB, Rig};
use super::super::{CacheLimit, Faults, Object};
use super::*;
use crate::index::{Kind, Local, NewInode, ObjectRow, Outcome, Presence, Settled};
use crate::positioned::{read_exact_at, write_all_at};
use crate::types::{ETag, Key, Name};

impl Rig {
    fn sick(limit: CacheLimit) -> (Rig, Faults) {
        let (mut rig, faults) = (Rig::new(limit), Faults::default());
        rig.content =
            Content::open_on(rig.dir.path(), rig.index.clone(), limit, rig.clock.clone(), faults.clone()).unwrap();
        (rig, faults)
    }

    /// A new, empty file.
    pub(super) async fn made(&self, name: &str) -> Arc<Staged> {
        let id = self.content.new_staging().await.unwrap();
        let ino = self.enter(name, Kind::File, id, 0).await;
        self.content.staged(&self.node(ino)).unwrap()
    }

    async fn enter(&self, name: &str, kind: Kind, id: ObjectId, size: u64) -> Ino {
        let name = Name::new(name.as_bytes()).unwrap();
        let time = Time(5);
        let new = NewInode {
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            rdev: (0, 0),
            atime: time,
            mtime: time,
            staged: Some(id),
            size,
        };
        let edit = self.index.edit(move |edit| {
            let component = edit.component(Ino::ROOT, &name, kind)?.unwrap();
            Ok(Ok::<_, Infallible>(edit.create(Ino::ROOT, component, new)?))
        });
        edit.await.unwrap().unwrap()
    }

    /// A file of `base` in S3, of which `here` are here, that is staged from now on.
    async fn staged_over(&self, base: &[u8], here: &[Range<u64>]) -> Arc<Staged> {
        let size = base.len() as u64;
        let ino = self.observe("f", "v1", size).await;
        let object = self.content.create(size).await.unwrap();
        object.bind(ino, ETag::new("v1"));
        for part in here {
            object.fill(part.start, &base[part.start as usize..part.end as usize]).unwrap();
        }
        assert!(self.content.save(&object).await.unwrap());
        self.stage(ino, size).await
    }

    async fn stage(&self, ino: Ino, size: u64) -> Arc<Staged> {
        let id = self.content.new_staging().await.unwrap();
        let edit = self.index.edit(move |edit| Ok(Ok::<_, Infallible>(edit.stage(ino, id, size, size)?)));
        edit.await.unwrap().unwrap();
        self.content.staged(&self.node(ino)).unwrap()
    }

    fn node(&self, ino: Ino) -> Arc<Node> {
        self.index.node(ino).unwrap().unwrap()
    }

    fn reopen(&mut self, staged: Arc<Staged>) -> Arc<Staged> {
        let ino = staged.ino();
        drop(staged);
        self.restart();
        self.content.staged(&self.node(ino)).unwrap()
    }

    async fn write(&self, staged: &Arc<Staged>, offset: u64, data: &[u8]) -> io::Result<(Live, Live)> {
        let turn = staged.write_turn().await.unwrap();
        let at = (self.clock.now(), Time(1000 + self.clock.now().0 as i64));
        self.content.write(staged, turn, offset, Bytes::copy_from_slice(data), at).await
    }

    async fn resize(&self, staged: &Arc<Staged>, size: u64) {
        let turn = staged.sole_turn().await.unwrap();
        staged.resize(&turn, size).unwrap();
    }

    fn base(&self, staged: &Staged) -> Option<Arc<Object>> {
        self.local(staged.ino()).and_then(|object| self.content.get(object))
    }

    /// All bytes, as an upload reads them.
    fn whole(&self, staged: &Staged) -> Vec<u8> {
        let below = self.base(staged).map(Below::Version);
        staged.read(0..u64::MAX, below.as_ref()).unwrap().0.to_vec()
    }

    /// All bytes, as a READ finds them.
    fn pieced(&self, staged: &Staged, range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |file: &File, offset: u64, len: u64| {
            let at = all.len();
            all.resize(at + len as usize, 0);
            read_exact_at(file, &mut all[at..], offset).unwrap();
        };
        for piece in staged.pieces(range) {
            match piece {
                Piece::Here(part) => add(&part.file, part.offset, u64::from(part.len)),
                Piece::Base(part) => add(self.base(staged).unwrap().file(), part.start, part.end - part.start),
                Piece::Zeros(count) => add(&zeros(count), 0, count),
            }
        }
        all
    }

    async fn promote(&self, staged: &Arc<Staged>) -> (Local, ObjectRow) {
        let _turn = staged.sole_turn().await.unwrap();
        self.content.promote(staged, Some(&self.node(staged.ino()).inode)).await.unwrap()
    }

    fn object_bytes(&self, object: ObjectId) -> Vec<u8> {
        std::fs::read(self.content.objects.path(object)).unwrap()
    }

    fn has_staging(&self, id: ObjectId) -> bool {
        self.content.volume.dir.path(id).exists()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 + 1).collect()
}

fn zeros(count: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(count).unwrap();
    file
}
