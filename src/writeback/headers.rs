//! What an object carries beside its bytes when it is written: all that was there, with the attributes of here
//! (`index::metadata` has their names), and for a new object a content type.

use std::collections::BTreeMap;

use crate::index::{Inode, Kind, Pending, tell_attributes};
use crate::store::Headers;
use crate::types::Key;

/// What file managers of S3 give markers of directories.
const DIRECTORY: &str = "application/x-directory";

/// The headers of `inode` at `key`, over those that it had, or that the object has which it replaces.
pub(super) fn compose(before: Option<Headers>, inode: &Inode, pending: &Pending, key: &Key) -> Headers {
    let mut headers = before.unwrap_or_default();
    if headers.content_type.is_none() {
        headers.content_type = content_type(inode.kind, key);
    }
    // a change made here counts more than what S3 says and was never asked for
    tell_attributes(&mut headers.user, inode, pending.set_here(inode));
    headers
}

/// The headers of a file that takes the name of another: what was said of that one, as an editor's rename over the
/// old file means it, but for its attributes.
pub(super) fn inherited(mut before: Headers) -> Headers {
    let said = |name: &str| {
        let names = ["mode", "uid", "gid", "mtime", "atime", "ctime", "rdev"];
        names.contains(&name) || name.starts_with("file-") || name.starts_with("goog-reserved-")
    };
    before.user.retain(|name, _| !said(name));
    before
}

fn content_type(kind: Kind, key: &Key) -> Option<String> {
    match kind {
        Kind::Dir => Some(DIRECTORY.to_owned()),
        Kind::File => mime_guess::from_path(key.as_str()).first_raw().map(str::to_owned),
        // their body is no document
        Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => None,
    }
}

/// What user metadata says of the file itself. Values may come back trimmed.
pub(super) fn of_file(user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = ["file-permissions", "file-owner", "file-group", "file-mtime", "file-atime"];
    let told = names.into_iter().filter_map(|name| user.get(name).map(|value| (name, value)));
    told.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::SetHere;
    use crate::types::Time;
    use crate::writeback::tests::some_inode;

    const PENDING: Pending =
        Pending { content: true, attributes: false, set: SetHere::NONE, place: false, since: Time(0), change: 1 };

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn new_objects_get_the_content_type_of_their_name() {
        let of = |kind, name| compose(None, &Inode { kind, ..some_inode() }, &PENDING, &key(name)).content_type;
        assert_eq!(of(Kind::File, "a/page.html").as_deref(), Some("text/html"));
        assert_eq!(of(Kind::File, "a/photo.JPG").as_deref(), Some("image/jpeg"));
        assert_eq!(of(Kind::File, "README"), None);
        assert_eq!(of(Kind::Symlink, "page.html"), None);
        assert_eq!(of(Kind::Dir, "d/").as_deref(), Some("application/x-directory"));
    }

    #[test]
    fn a_rewrite_keeps_all_that_was_there() {
        let before = Headers {
            content_type: Some("text/x-own".into()),
            cache_control: Some("max-age=5".into()),
            storage_class: Some("STANDARD_IA".into()),
            user: BTreeMap::from([("colour".into(), "blue".into()), ("file-owner".into(), "99".into())]),
            tags: vec![("team".into(), "a".into())],
            ..Headers::default()
        };
        let after = compose(Some(before.clone()), &some_inode(), &PENDING, &key("page.html"));
        assert_eq!((after.user["colour"].as_str(), after.user["file-owner"].as_str()), ("blue", "0"));
        assert_eq!(Headers { user: BTreeMap::new(), ..after }, Headers { user: BTreeMap::new(), ..before });
    }

    #[test]
    fn a_file_in_the_place_of_another_keeps_its_own_attributes() {
        let user = BTreeMap::from([("colour".into(), "blue".into()), ("uid".into(), "99".into())]);
        let inode = Inode { attributes_known: false, ..some_inode() };
        let after = compose(Some(inherited(Headers { user, ..Headers::default() })), &inode, &PENDING, &key("f"));
        assert_eq!((after.user.get("uid"), after.user["file-owner"].as_str()), (None, "0"));
        assert_eq!(after.user["colour"], "blue");
    }

    #[test]
    fn bytes_written_here_have_the_time_of_here() {
        let user = BTreeMap::from([("mtime".into(), "5".into()), ("uid".into(), "99".into())]);
        let inode = Inode { attributes_known: false, mtime: Time(77), ..some_inode() };
        let after = compose(Some(Headers { user, ..Headers::default() }), &inode, &PENDING, &key("f")).user;
        assert_eq!((after["file-mtime"].as_str(), after["mtime"].as_str()), ("77ns", "0.000000077"));
        assert_eq!(after["file-owner"], "99");
    }

    #[test]
    fn our_own_object_is_known_by_its_attributes() {
        let sent = compose(None, &some_inode(), &PENDING, &key("f")).user;
        let mut told = sent.clone();
        told.insert("colour".into(), "blue".into());
        told.insert("file-mtime".into(), format!(" {}", sent["file-mtime"]));
        assert_eq!(of_file(&told), of_file(&sent));
        told.insert("file-mtime".into(), "1ns".into());
        assert_ne!(of_file(&told), of_file(&sent));
    }
}
