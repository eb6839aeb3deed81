//! REMOVE, RMDIR, RENAME, LINK: RFC 1813 sections 3.3.12 to 3.3.15.

use nfsserve::nfs::{fattr3, fileid3, nfsstat3};

use super::context::Context;
use super::decode::{self, DirOp};
use super::encode;
use crate::fs::ext::{Answer, NfsExt, Refused, RenameArgs, RenameRefused, Wcc};
use crate::rpc::xdr::{Malformed, Reader};
use crate::rpc::{Handled, Tail};

/// REMOVE.
pub(super) fn remove<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::dir_op(&mut args)?;
    let answer = cx.ask_entry(object, |fs, caller, dir| fs.remove_by(caller, dir, object.name));
    Ok(cx.finish_change(answer, |_, wcc, out| encode::wcc(out, &wcc)))
}

/// RMDIR.
pub(super) fn rmdir<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::dir_op(&mut args)?;
    let answer = cx.ask_entry(object, |fs, caller, dir| fs.rmdir_by(caller, dir, object.name));
    Ok(cx.finish_change(answer, |_, wcc, out| encode::wcc(out, &wcc)))
}

/// RENAME. Its bodies are the `wcc_data` of both directories.
pub(super) fn rename<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let from = decode::dir_op(&mut args)?;
    let to = decode::dir_op(&mut args)?;
    let answer = match (dirs(&cx, from, to), name_error(&[from, to])) {
        (Some(ids), None) => {
            let args = RenameArgs { from: ids.0, from_name: from.name, to: ids.1, to_name: to.name };
            cx.fs.rename_by(&cx.caller, args)
        }
        (_, status) => rename_refusal(&cx, from, to, status.unwrap_or(nfsstat3::NFS3ERR_STALE)),
    };
    Ok(cx.finish(answer, |_, result, out| {
        let (status, from, to) = match result {
            Ok((from, to)) => (nfsstat3::NFS3_OK, from, to),
            Err(RenameRefused { status, from, to }) => (status, from, to),
        };
        encode::status(out, status);
        encode::wcc(out, &from);
        encode::wcc(out, &to);
        Tail::None
    }))
}

/// Both directories, if both handles are good.
fn dirs<F: NfsExt>(cx: &Context<'_, F>, from: DirOp<'_>, to: DirOp<'_>) -> Option<(fileid3, fileid3)> {
    Some((cx.fs.fileid_by(from.dir).ok()?, cx.fs.fileid_by(to.dir).ok()?))
}

fn name_error(places: &[DirOp<'_>]) -> Option<nfsstat3> {
    places.iter().find_map(|place| decode::check_name(place.name).err())
}

/// What is wrong with the handles, else `status`; and the attributes of the directories.
fn rename_refusal<F: NfsExt>(
    cx: &Context<'_, F>,
    from: DirOp<'_>,
    to: DirOp<'_>,
    status: nfsstat3,
) -> Answer<Result<(Wcc, Wcc), RenameRefused>> {
    cx.attributes(from.dir).zip(cx.attributes(to.dir)).map(move |(from, to)| {
        let wcc = |attr: Result<fattr3, nfsstat3>| Wcc { before: None, after: attr.ok() };
        let status = from.err().or(to.err()).unwrap_or(status);
        Err(RenameRefused { status, from: wcc(from), to: wcc(to) })
    })
}

/// LINK. Its bodies are the file's attributes and the `wcc_data` of the directory.
pub(super) fn link<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let place = decode::dir_op(&mut args)?;
    let good = cx.fs.fileid_by(file).ok().zip(cx.fs.fileid_by(place.dir).ok());
    let answer = match (good, name_error(&[place])) {
        (Some((file, dir)), None) => cx.fs.link_by(&cx.caller, file, dir, place.name),
        (_, status) => {
            let status = status.unwrap_or(nfsstat3::NFS3ERR_STALE);
            cx.attributes(file).zip(cx.attributes(place.dir)).map(move |(file, dir)| {
                let status = file.err().or(dir.err()).unwrap_or(status);
                Err((file.ok(), Refused { status, wcc: Wcc { before: None, after: dir.ok() } }))
            })
        }
    };
    Ok(cx.finish(answer, |_, result, out| {
        let (status, file, dir) = match result {
            Ok((file, dir)) => (nfsstat3::NFS3_OK, file, dir),
            Err((file, Refused { status, wcc })) => (status, file, wcc),
        };
        encode::status(out, status);
        encode::post_op_attr(out, file.as_ref());
        encode::wcc(out, &dir);
        Tail::None
    }))
}
