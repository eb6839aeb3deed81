//! Those who use the servers: readers who note what they are told, writers, and one who notes quiet moments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nfs3_client::nfs3_types::nfs3::nfsstat3::{NFS3ERR_JUKEBOX, NFS3ERR_NOENT, NFS3ERR_STALE};
use nfs3_client::nfs3_types::nfs3::{nfs_fh3, stable_how};
use tokio_util::sync::CancellationToken;

use super::history::{self, Answer, How, Life, Quiet, Shown};
use super::random::Random;
use super::support::{Client, soon};
use super::world::{Place, World, name};

/// A client of one server, which finds it again when it was started anew.
pub struct Visitor {
    world: Arc<World>,
    server: usize,
    client: Option<(Life, Client)>,
    handles: HashMap<usize, nfs_fh3>,
}

impl Visitor {
    pub fn new(world: &Arc<World>, server: usize) -> Visitor {
        Visitor { world: world.clone(), server, client: None, handles: HashMap::new() }
    }

    /// The client, connected to the server as it is now.
    async fn client(&mut self, place: &Place) -> &mut Client {
        if self.client.as_ref().is_none_or(|(life, _)| *life != place.life) {
            let client = Client::connect(place.server().nfs_addr().port(), "/", 0, 0).await;
            // the handles stay what they were
            self.client = Some((place.life, client));
        }
        &mut self.client.as_mut().unwrap().1
    }

    /// Asks once in this way, and notes the answer.
    pub async fn ask(&mut self, key: usize, how: How, random: &mut Random) {
        let world = self.world.clone();
        let place = world.at(self.server).await;
        let handle = self.handles.get(&key).cloned();
        let client = self.client(&place).await;
        let begun = world.now();
        let mut lost = false;
        let shown = match (how, handle) {
            (How::List, _) => {
                let root = client.root();
                let names = client.list_handle(&root).await.unwrap();
                let ended = world.now();
                let mut record = world.record.lock();
                for (listed, attr) in names {
                    let Ok(key) = listed.trim_start_matches('k').parse::<usize>() else { continue };
                    let shown = history::of_size(world.base(key), attr.size);
                    record.answers.push(Answer { life: place.life, key, how, begun, ended, shown });
                }
                return;
            }
            (How::Getattr, Some(handle)) => match client.getattr(&handle).await {
                Ok(attr) => Some(history::of_size(world.base(key), attr.size)),
                Err(NFS3ERR_STALE) => {
                    lost = true;
                    None
                }
                Err(status) => panic!("{status:?}"),
            },
            (How::Read, Some(handle)) => match read(client, &handle, world.base(key), random).await {
                Ok(shown) => Some(shown),
                Err(NFS3ERR_STALE) => {
                    lost = true;
                    None
                }
                Err(NFS3ERR_JUKEBOX) => None,
                Err(status) => panic!("{status:?}"),
            },
            (How::Lookup | How::Getattr | How::Read, _) => {
                let root = client.root();
                match client.lookup_in(&root, name(key).as_bytes()).await {
                    Ok(found) => {
                        self.handles.insert(key, found.handle);
                        Some(history::of_size(world.base(key), found.attr.size))
                    }
                    Err(NFS3ERR_NOENT) => Some(Shown::Nothing),
                    Err(NFS3ERR_JUKEBOX) => None,
                    Err(status) => panic!("{status:?}"),
                }
            }
        };
        let how = if self.handles.contains_key(&key) && shown != Some(Shown::Nothing) { how } else { How::Lookup };
        if lost {
            // Another file has the name now, or none: the handle tells nothing of that.
            self.handles.remove(&key);
        }
        if let Some(shown) = shown {
            let answer = Answer { life: place.life, key, how, begun, ended: world.now(), shown };
            world.record.lock().answers.push(answer);
        }
    }

    /// Reads all of `key`; `None`: there is no such name.
    pub async fn read_all(&mut self, key: usize) -> Option<Vec<u8>> {
        let world = self.world.clone();
        let place = world.at(self.server).await;
        let client = self.client(&place).await;
        loop {
            match client.read(&name(key)).await {
                Ok(bytes) => return Some(bytes),
                Err(NFS3ERR_NOENT) => return None,
                // it went, or came, or changed meanwhile
                Err(NFS3ERR_STALE | NFS3ERR_JUKEBOX) => {}
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    /// Writes the next version of `key` by one WRITE.
    pub async fn write(&mut self, key: usize, is_committed: bool) {
        let world = self.world.clone();
        let place = world.at(self.server).await;
        let server = self.server;
        let client = self.client(&place).await;
        let handle = client.lookup(&name(key)).await.unwrap().handle;
        // noted before it is sent, for then it may be seen
        let (number, bytes) = world.writing(key, server);
        let written = client.write_at(&handle, 0, &bytes, stable_how::UNSTABLE).await.unwrap();
        assert_eq!(written.count as usize, bytes.len(), "one WRITE, or readers see what is no version");
        world.wrote(key, number);
        if is_committed {
            client.commit(&handle).await.unwrap();
        }
    }
}

/// One READ of some part of a file.
async fn read(
    client: &mut Client,
    handle: &nfs_fh3,
    base: u64,
    random: &mut Random,
) -> Result<Shown, nfs3_client::nfs3_types::nfs3::nfsstat3> {
    let offset = random.below(base - history::READABLE as u64);
    let count = (history::READABLE as u64 + random.below(64 << 10)) as u32;
    let (bytes, is_end, attr) = client.read_at(handle, offset, count).await?;
    let shown = history::of_bytes(offset, &bytes);
    let fits = is_end == (offset + bytes.len() as u64 == attr.size);
    Ok(if fits && shown == history::of_size(base, attr.size) { shown } else { Shown::Torn })
}

/// How somebody reads.
#[derive(Clone, Copy)]
pub struct Reading {
    /// The longest pause between two requests.
    pub pause: Duration,
    /// Whether directories are listed, too.
    pub lists: bool,
}

/// Reads at one server until `stop`.
pub async fn read_on(world: Arc<World>, server: usize, mut random: Random, reading: Reading, stop: CancellationToken) {
    let mut visitor = Visitor::new(&world, server);
    while !stop.is_cancelled() {
        let key = random.below(world.setup.keys as u64) as usize;
        let how = match random.below(40) {
            0 if reading.lists => How::List,
            0..=12 => How::Lookup,
            13..=25 => How::Getattr,
            _ => How::Read,
        };
        visitor.ask(key, how, &mut random).await;
        tokio::time::sleep(random.micros(reading.pause.as_micros() as u64)).await;
    }
}

/// Notes quiet moments of a server until `stop`.
pub async fn note_quiet(world: Arc<World>, server: usize, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let place = world.at(server).await;
        let begun = world.now();
        soon(place.server().revalidator().quiet()).await;
        let quiet = Quiet { life: place.life, begun, ended: world.now() };
        drop(place);
        world.record.lock().quiets.push(quiet);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
