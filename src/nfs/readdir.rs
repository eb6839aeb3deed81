//! READDIR and READDIRPLUS: RFC 1813 sections 3.3.16 and 3.3.17. One page builder serves both.
//! Invariants
//! - `count` and `maxcount` bound the encoded READDIR3resok and READDIRPLUS3resok, to the byte, all XDR
//!   overhead included. `dircount` bounds fileids, names and cookies; as a client that gives less than
//!   one long name takes must still be able to go on, it never keeps the first entry of a page out.
//! - Cookies are `.` = 1, `..` = 2, and the file system's, which stay valid for ever. So a verifier has
//!   nothing to tell: ours is zero, and any is taken (one from before an upgrade, too).

use nfsserve::nfs::{fattr3, fileid3, nfsstat3};

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::{Failure, ListArgs, Listing, NfsExt};
use crate::rpc::xdr::{Malformed, Reader, Write, padding};
use crate::rpc::{Handled, Tail};

/// Cookies of the two entries that are added here.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;

/// 256 KiB: what is answered to any larger `count`. Some thousand entries: a round trip no longer counts,
/// and no peer can make us hold more.
const MAX_PAGE_BYTES: u32 = 256 << 10;
/// Before the entries: attributes and verifier.
const HEAD_BYTES: usize = encode::POST_OP_ATTR_BYTES + 8;
/// After the entries: the end of the list, and eof.
const FOOT_BYTES: usize = 8;
/// Of each entry: fileid, length of the name, cookie.
const NAME_BYTES: usize = 8 + 4 + 8;
/// Of each entry: the word that says that it follows.
const FOLLOWS_BYTES: usize = 4;
/// A usual name, padded: how many entries to ask for is estimated with it, and a page that turns out
/// shorter or longer is right all the same.
const USUAL_NAME_BYTES: usize = 16;
/// The file attributes and the handle of each entry of READDIRPLUS, likewise.
const USUAL_PLUS_BYTES: usize = encode::POST_OP_ATTR_BYTES + 4 + 4 + 32;

/// What a page is to be.
#[derive(Clone, Copy)]
struct Request {
    /// The directory, once its handle is resolved.
    dir: fileid3,
    /// Entries after this cookie.
    after: u64,
    /// Bound of the whole, in bytes.
    max_bytes: usize,
    /// Bound of fileids, names and cookies, in bytes.
    max_name_bytes: usize,
    /// Whether attributes and handles are wanted.
    plus: bool,
}

/// READDIR.
pub(super) fn readdir<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let dir = decode::handle(&mut args)?;
    let after = args.u64()?;
    decode::verifier(&mut args)?;
    let max_bytes = args.u32()?.min(MAX_PAGE_BYTES) as usize;
    Ok(list(cx, dir, Request { dir: 0, after, max_bytes, max_name_bytes: usize::MAX, plus: false }))
}

/// READDIRPLUS.
pub(super) fn readdirplus<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let dir = decode::handle(&mut args)?;
    let after = args.u64()?;
    decode::verifier(&mut args)?;
    let max_name_bytes = args.u32()? as usize;
    let max_bytes = args.u32()?.min(MAX_PAGE_BYTES) as usize;
    Ok(list(cx, dir, Request { dir: 0, after, max_bytes, max_name_bytes, plus: true }))
}

/// Asks for the entries and answers with as many as fit.
fn list<F: NfsExt>(cx: Context<'_, F>, dir: &[u8], request: Request) -> Handled {
    let answer = cx.ask(dir, |fs, caller, dir| {
        let args = ListArgs { dir, after: request.after, max_entries: request.max_entries(), with_attrs: request.plus };
        fs.list_by(caller, args).map(move |listing| Ok((Request { dir, ..request }, listing?)))
    });
    cx.finish(answer, |fs, result: Result<(Request, Listing), Failure>, out| {
        let done = result.and_then(|(request, listing)| page(fs, out, request, &listing));
        if let Err(failure) = done {
            encode::failure(out, failure);
        }
        Tail::None
    })
}

impl Request {
    /// About how many entries a page can hold; at least one.
    fn max_entries(&self) -> usize {
        let name_bytes = NAME_BYTES + USUAL_NAME_BYTES;
        let bytes = FOLLOWS_BYTES + name_bytes + if self.plus { USUAL_PLUS_BYTES } else { 0 };
        let room = self.max_bytes.saturating_sub(HEAD_BYTES + FOOT_BYTES);
        (room / bytes).min(self.max_name_bytes / name_bytes).max(1)
    }

    /// What there is to give, in order: `.` and `..` first, unless the cookie says that they were given.
    fn items<'a>(&self, listing: &'a Listing) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let after = self.after;
        let dot = Item { id: self.dir, name: b".", cookie: DOT, attr: Some(&listing.dir_attr) };
        let dotdot = Item { id: listing.parent, name: b"..", cookie: DOTDOT, attr: listing.parent_attr.as_ref() };
        let named = listing.entries.iter().map(|entry| Item {
            id: entry.id,
            name: &entry.name,
            cookie: entry.cookie,
            attr: entry.attr.as_ref(),
        });
        [dot, dotdot].into_iter().filter(move |item| item.cookie > after).chain(named)
    }
}

/// One entry of a page.
struct Item<'a> {
    id: fileid3,
    name: &'a [u8],
    cookie: u64,
    attr: Option<&'a fattr3>,
}

/// Appends NFS3_OK and as many entries as fit.
/// # Errors
/// TOOSMALL when not even one does, with nothing appended; JUKEBOX when there is none to give although the
/// directory goes on (an empty page would make clients ask for ever).
fn page<F: NfsExt>(fs: &F, out: &mut Vec<u8>, request: Request, listing: &Listing) -> Result<(), Failure> {
    let start = out.len();
    encode::ok(out);
    let mut page = Page { end: out.len() + request.max_bytes, names_left: request.max_name_bytes, given: 0, out };
    encode::post_op_attr(page.out, Some(&listing.dir_attr));
    page.out.put_fixed(&[0; 8]);
    let all = request.items(listing).all(|item| if request.plus { page.put_plus(fs, &item) } else { page.put(&item) });
    let problem = if !page.fits(0) || (page.given == 0 && !all) {
        Some(nfsstat3::NFS3ERR_TOOSMALL)
    } else if page.given == 0 && !listing.end {
        Some(nfsstat3::NFS3ERR_JUKEBOX)
    } else {
        None
    };
    if let Some(status) = problem {
        page.out.truncate(start);
        return Err(Failure { status, attr: Some(listing.dir_attr) });
    }
    page.out.put_bool(false);
    page.out.put_bool(all && listing.end);
    Ok(())
}

/// A page being filled.
struct Page<'a> {
    out: &'a mut Vec<u8>,
    /// Length that `out` must not pass.
    end: usize,
    /// What is left of `max_name_bytes`.
    names_left: usize,
    /// Entries in it.
    given: usize,
}

impl Page<'_> {
    /// Whether `bytes` more of entries leave room for the end of the page.
    fn fits(&self, bytes: usize) -> bool {
        self.out.len() + bytes + FOOT_BYTES <= self.end
    }

    /// Appends an entry of READDIR, if it fits.
    fn put(&mut self, item: &Item<'_>) -> bool {
        self.put_name(item, 0)
    }

    /// Appends an entry of READDIRPLUS, if it fits.
    fn put_plus<F: NfsExt>(&mut self, fs: &F, item: &Item<'_>) -> bool {
        let handle = fs.handle_by(item.id);
        let attr_bytes = if item.attr.is_some() { encode::POST_OP_ATTR_BYTES } else { 4 };
        let fits = self.put_name(item, attr_bytes + 4 + 4 + padded(handle.as_bytes().len()));
        if fits {
            encode::post_op_attr(self.out, item.attr);
            encode::post_op_handle(self.out, &handle);
        }
        fits
    }

    /// Appends fileid, name and cookie, if they and `more` bytes fit.
    fn put_name(&mut self, item: &Item<'_>, more: usize) -> bool {
        let name_bytes = NAME_BYTES + padded(item.name.len());
        let bytes = FOLLOWS_BYTES + name_bytes + more;
        if !self.fits(bytes) || (self.names_left < name_bytes && self.given > 0) {
            return false;
        }
        self.out.put_bool(true);
        self.out.put_u64(item.id);
        self.out.put_opaque(item.name);
        self.out.put_u64(item.cookie);
        self.names_left = self.names_left.saturating_sub(name_bytes);
        self.given += 1;
        true
    }
}

/// Size of `len` opaque bytes with their padding.
fn padded(len: usize) -> usize {
    len + padding(len)
}
