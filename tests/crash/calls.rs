//! A client's changes, and a look at all that is there, over NFS.

use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;

use super::support::changes::no_attributes;
use super::support::{Client, soon};
use super::tree::{Entry, Op, State};

/// The program died before it answered.
pub(super) struct Died;

pub(super) type Answer = Result<Result<(), nfsstat3>, Died>;

/// The directory of client `n`.
pub(super) fn top(n: usize) -> String {
    format!("client{n}")
}

/// One call, and the lookups before it.
pub(super) async fn perform(client: &mut Client, n: usize, op: &Op) -> Answer {
    let split = |path: &str| {
        let path = format!("{}/{path}", top(n));
        let path = path.trim_end_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (dir.to_owned(), name.to_owned())
    };
    let path = match op {
        Op::Create(path, _) | Op::Mkdir(path) | Op::Remove(path) | Op::Rmdir(path) | Op::Rename(path, _) => path,
        Op::Write(path, ..) | Op::Commit(path) | Op::Chmod(path, _) | Op::Resize(path, _) => path,
    };
    let (dir, name) = split(path);
    let dir = match walk(client, &dir).await? {
        Ok(dir) => dir,
        Err(status) => return Ok(Err(status)),
    };
    let place =
        |dir: &nfs_fh3, name: &str| diropargs3 { dir: dir.clone(), name: filename3(Opaque::owned(name.into())) };
    match op {
        Op::Create(_, mode) => {
            let how = createhow3::GUARDED(sattr3 { mode: set_mode3::Some(*mode), ..no_attributes() });
            answer(soon(client.raw().create(&CREATE3args { where_: place(&dir, &name), how })).await)
        }
        Op::Mkdir(_) => {
            let args = MKDIR3args { where_: place(&dir, &name), attributes: no_attributes() };
            answer(soon(client.raw().mkdir(&args)).await)
        }
        Op::Remove(_) => answer(soon(client.raw().remove(&REMOVE3args { object: place(&dir, &name) })).await),
        Op::Rmdir(_) => answer(soon(client.raw().rmdir(&RMDIR3args { object: place(&dir, &name) })).await),
        Op::Rename(_, to) => {
            let (to_dir, to_name) = split(to);
            let to_dir = match walk(client, &to_dir).await? {
                Ok(dir) => dir,
                Err(status) => return Ok(Err(status)),
            };
            let args = RENAME3args { from: place(&dir, &name), to: place(&to_dir, &to_name) };
            answer(soon(client.raw().rename(&args)).await)
        }
        Op::Write(..) | Op::Commit(_) | Op::Chmod(..) | Op::Resize(..) => {
            let file = match step(client, &dir, &name).await? {
                Ok(file) => file,
                Err(status) => return Ok(Err(status)),
            };
            change(client, file, op).await
        }
    }
}

async fn change(client: &mut Client, file: nfs_fh3, op: &Op) -> Answer {
    let set = |new_attributes| SETATTR3args { object: file.clone(), new_attributes, guard: sattrguard3::None };
    match op {
        Op::Write(_, offset, data, stable) => {
            let (count, data) = (data.len() as u32, Opaque::borrowed(data));
            let args = WRITE3args { file: file.clone(), offset: *offset, count, stable: *stable, data };
            answer(soon(client.raw().write(&args)).await)
        }
        Op::Commit(_) => {
            answer(soon(client.raw().commit(&COMMIT3args { file: file.clone(), offset: 0, count: 0 })).await)
        }
        Op::Chmod(_, mode) => {
            let args = set(sattr3 { mode: set_mode3::Some(*mode), ..no_attributes() });
            answer(soon(client.raw().setattr(&args)).await)
        }
        Op::Resize(_, size) => {
            let args = set(sattr3 { size: set_size3::Some(*size), ..no_attributes() });
            answer(soon(client.raw().setattr(&args)).await)
        }
        other => unreachable!("{other:?} is of a name"),
    }
}

pub(super) fn answer<T, E, D>(result: Result<Nfs3Result<T, E>, D>) -> Answer {
    match result {
        Ok(Nfs3Result::Ok(_)) => Ok(Ok(())),
        Ok(Nfs3Result::Err((status, _))) => Ok(Err(status)),
        Err(_) => Err(Died),
    }
}

pub(super) async fn walk(client: &mut Client, path: &str) -> Result<Result<nfs_fh3, nfsstat3>, Died> {
    let mut at = client.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match step(client, &at, name).await? {
            Ok(next) => at = next,
            Err(status) => return Ok(Err(status)),
        }
    }
    Ok(Ok(at))
}

async fn step(client: &mut Client, dir: &nfs_fh3, name: &str) -> Result<Result<nfs_fh3, nfsstat3>, Died> {
    let what = diropargs3 { dir: dir.clone(), name: filename3(Opaque::owned(name.into())) };
    match soon(client.raw().lookup(&LOOKUP3args { what })).await {
        Ok(Nfs3Result::Ok(ok)) => Ok(Ok(ok.object)),
        Ok(Nfs3Result::Err((status, _))) => Ok(Err(status)),
        Err(_) => Err(Died),
    }
}

/// All that is below `top`.
pub(super) async fn found(client: &mut Client, top: &str) -> State {
    let mut state = State::default();
    let Ok(dir) = client.lookup(top).await else { return state };
    state.0.insert(String::new(), Entry::Dir);
    let mut dirs = vec![(String::new(), dir.handle)];
    while let Some((path, dir)) = dirs.pop() {
        let names = client.list_handle(&dir).await.unwrap_or_else(|status| panic!("list {top}/{path}: {status:?}"));
        for (name, attributes) in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let handle = client.lookup_in(&dir, name.as_bytes()).await.unwrap().handle;
            let entry = if attributes.type_ == ftype3::NF3DIR {
                dirs.push((path.clone(), handle));
                Entry::Dir
            } else {
                let bytes = soon(read(client, &handle)).await;
                let bytes = bytes.unwrap_or_else(|status| panic!("read {top}/{path}: {status:?}"));
                assert_eq!(bytes.len() as u64, attributes.size, "{path}: listed with another size");
                Entry::File { mode: attributes.mode, versions: vec![bytes] }
            };
            state.0.insert(path, entry);
        }
    }
    state
}

/// All bytes of a file, asking again when the server says that it takes longer.
async fn read(client: &mut Client, file: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
    loop {
        match client.read_handle(file).await {
            Err(nfsstat3::NFS3ERR_JUKEBOX) => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}
