//! What a refused write means: it had landed already, or somebody else was there first (D4). Then neither version is
//! lost, unless `--on-conflict` says which one may be.

use std::time::{Duration, UNIX_EPOCH};

use super::plan::Over;
use super::sent::Sent;
use super::sync::count;
use super::task;
use super::trouble::Trouble;
use super::{OnConflict, Stamps, Writeback};
use crate::crash;
use crate::index::{Conflict, IndexError, Inode, Kind, Settled, Task};
use crate::store::{self, ObjectMeta};
use crate::types::key::MAX_KEY_BYTES;
use crate::types::name::NameError;
use crate::types::{ETag, Key, Name, Time};

/// What is to be done about a refused write.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was done: S3 has this version of it.
    Landed(ETag, Stamps),
    /// To be written over this version.
    Overwrite(ETag),
    /// The journal says what comes next.
    Resolved,
}

/// A write that was refused, and what it expected.
pub(super) struct Refused<'a> {
    pub(super) task: &'a Task,
    pub(super) key: &'a Key,
    pub(super) over: &'a Over,
    pub(super) sent: &'a Sent,
    /// Whether it had the bytes, and not the attributes or the place alone.
    pub(super) content: bool,
}

impl Writeback {
    /// Finds out why a write was refused, and sees to it.
    pub(super) async fn judge(&self, refused: Refused<'_>) -> Result<Verdict, Trouble> {
        let Refused { task, key, over, sent, content } = refused;
        let (meta, at) = self.look(key).await?;
        let Some(meta) = meta else { return self.gone(task, key, over, at).await };
        if self.has_landed(key, &meta, sent).await? {
            return Ok(Verdict::Landed(meta.etag, at));
        }
        if matches!(over, Over::Own(etag) | Over::Replaced(etag) if *etag == meta.etag) {
            return Ok(Verdict::Resolved);
        }
        if self.is_ours(key, &meta).await? {
            // an earlier state of the file, or of one that had the name before: what there is now goes over that
            return Ok(Verdict::Overwrite(meta.etag));
        }
        if (content && sent.is_same(&meta)) || task.node.kind == Kind::Dir {
            // the same bytes are no conflict, and a directory has none: the attributes of here go over theirs
            self.adopt(task, key, &meta, true, at).await?;
            return Ok(Verdict::Resolved);
        }
        self.resolve(task, key, meta, at).await
    }

    /// S3 has nothing where a version was expected.
    async fn gone(&self, task: &Task, key: &Key, over: &Over, at: Stamps) -> Result<Verdict, Trouble> {
        let index = &self.rooms.index;
        match over {
            Over::Nothing => {}
            Over::Replaced(_) => index.removed(key.clone(), at.sent, at.answered).await?,
            Over::Own(_) => {
                // a listing may have told it before
                let is_news = index.node(task.node.ino)?.is_some_and(|node| node.remote.is_some());
                index.rebase(task.node.ino, None, at.sent, at.answered).await?;
                if is_news && task.node.kind != Kind::Dir {
                    let what = "changed here, removed in S3: the version of here goes up again";
                    self.note(record(key, "", self.clock.wall(), what)).await?;
                }
            }
        }
        Ok(Verdict::Resolved)
    }

    /// Takes the version at `key` for the one that the local change is made of; all that is pending stays so.
    pub(super) async fn adopt(
        &self,
        task: &Task,
        key: &Key,
        meta: &ObjectMeta,
        content: bool,
        at: Stamps,
    ) -> Result<(), Trouble> {
        let settled = task::settled(task, key, meta.etag.clone(), meta.size, at);
        self.rooms.index.settle(Settled { change: 0, content, ..settled }).await?;
        Ok(())
    }

    /// Both sides changed it.
    async fn resolve(&self, task: &Task, key: &Key, theirs: ObjectMeta, at: Stamps) -> Result<Verdict, Trouble> {
        if self.settings.on_conflict == OnConflict::LocalWins {
            let what = "changed here and in S3: the version of here replaced S3's, as --on-conflict says";
            self.note(record(key, "", self.clock.wall(), what)).await?;
            return Ok(Verdict::Overwrite(theirs.etag));
        }
        let what = match self.settings.on_conflict == OnConflict::KeepBoth {
            true => "changed here and in S3: S3's version keeps the name, the one of here is beside it",
            false => "changed here and in S3: S3's version replaced the one of here, as --on-conflict says",
        };
        self.give_way(task, key, theirs, at, what).await?;
        Ok(Verdict::Resolved)
    }

    /// S3's version takes the name; the one of here gets another, or is dropped where `--on-conflict` says so.
    pub(super) async fn give_way(
        &self,
        task: &Task,
        key: &Key,
        theirs: ObjectMeta,
        at: Stamps,
        what: &str,
    ) -> Result<(), Trouble> {
        let (ino, name) = (task.node.ino, self.free_name(task, key)?);
        let keeps = self.settings.on_conflict != OnConflict::RemoteWins;
        let kept_as = if keeps { String::from_utf8_lossy(name.as_bytes()) } else { "".into() };
        let record = record(key, &kept_as, self.clock.wall(), what);
        tracing::warn!(%key, %kept_as, "conflict: {what}");
        count(&self.counters.conflicts);
        self.rooms.index.conflict(ino, name.clone(), theirs, (at.sent, at.answered), record).await?;
        crash::point("writeback.after_conflict");
        if !keeps {
            self.drop_copy(&task.node, name).await?;
        }
        Ok(())
    }

    /// Removes the copy that lost. A crash before that leaves one too many, never one too few.
    pub(super) async fn drop_copy(&self, node: &Inode, name: Name) -> Result<(), Trouble> {
        let (ino, dir) = (node.ino, node.parent);
        let dropped = self.rooms.index.edit(move |edit| {
            // another may have come to have the name
            if let Some(found) = edit.child(dir, &name)?.filter(|found| found.inode.ino == ino) {
                edit.remove(dir, &found)?;
            }
            Ok::<_, IndexError>(Ok::<_, std::convert::Infallible>(()))
        });
        let Ok(()) = dropped.await?;
        Ok(())
    }

    /// Keeps a note of a conflict, for `fasts3 conflicts`.
    pub(super) async fn note(&self, record: Conflict) -> Result<(), Trouble> {
        tracing::warn!(key = record.key, "conflict: {}", record.what);
        count(&self.counters.conflicts);
        Ok(self.rooms.index.note_conflict(record).await?)
    }

    /// A name for the copy that loses its own, which nothing in the directory has.
    fn free_name(&self, task: &Task, key: &Key) -> Result<Name, Trouble> {
        let (stem, dir) = (task.node.component.name(false), key.len() - task.node.component.suffix().len());
        for number in 1.. {
            let at = self.clock.wall();
            let name = conflict_name(stem.as_bytes(), &self.settings.host, at, number, MAX_KEY_BYTES - dir);
            let name = name.map_err(|_| Trouble::TooLong)?;
            if self.rooms.index.child(task.node.parent, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Trouble::TooLong)
    }
}

/// What an error of a write is: to be judged, or a failure.
pub(super) fn refusal(error: store::Error) -> Result<(), Trouble> {
    match error {
        store::Error::PreconditionFailed { .. } | store::Error::NotFound { .. } => Ok(()),
        error => Err(error.into()),
    }
}

/// A conflict to be noted.
pub(super) fn record(key: &Key, kept_as: &str, at: Time, what: &str) -> Conflict {
    Conflict { key: key.to_string(), kept_as: kept_as.to_owned(), at: at.0, what: what.to_owned() }
}

/// `name.conflict-<host>-<UTC time>`, with a number from the second on. The name is cut to what one component, and a
/// key of `room` bytes more than its directory's, can have.
fn conflict_name(name: &[u8], host: &str, at: Time, number: u32, room: usize) -> Result<Name, NameError> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' };
    let host: String = host.chars().map(plain).take(64).collect();
    let again = if number > 1 { format!("-{number}") } else { String::new() };
    let suffix = format!(".conflict-{host}-{}{again}", basic_utc(at));
    // not in the middle of a character, nor of an escape
    let is_end = |end: usize| name.get(end).is_none_or(|byte| byte & 0xc0 != 0x80);
    let fits = |name: &Name| name.candidates().iter().any(|component| component.suffix().len() <= room);
    let cut = (1..=name.len()).rev().filter(|end| is_end(*end));
    let mut names = cut.filter_map(|end| Name::new(&[&name[..end], suffix.as_bytes()].concat()).ok());
    names.find(fits).map_or_else(|| Name::new(suffix.as_bytes()), Ok)
}

/// `20260102T030405Z`.
fn basic_utc(at: Time) -> String {
    let since = Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string().replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AT: Time = Time(1_767_323_045_000_000_000);

    fn name(of: &str, host: &str, number: u32) -> String {
        let name = conflict_name(of.as_bytes(), host, AT, number, MAX_KEY_BYTES).unwrap();
        String::from_utf8(name.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn names_say_where_and_when() {
        assert_eq!(name("notes.txt", "laptop", 1), "notes.txt.conflict-laptop-20260102T030405Z");
        assert_eq!(name("notes.txt", "laptop", 2), "notes.txt.conflict-laptop-20260102T030405Z-2");
        assert_eq!(name("a", "my/host name", 1), "a.conflict-my_host_name-20260102T030405Z");
        assert_eq!(basic_utc(Time(-1)), "19700101T000000Z");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for (length, letter) in (40..128).flat_map(|length| [(length, "é"), (length, "‛‛")]) {
            let long = format!("{}{}", "x".repeat(length % 2), letter.repeat(length));
            let long = &long[..long.floor_char_boundary(240) / letter.len() * letter.len() + length % 2];
            let cut = name(long, "laptop", 1);
            assert!(cut.ends_with("Z") && !Name::new(cut.as_bytes()).unwrap().candidates().is_empty(), "{cut}");
            assert!(cut.len() > 245 - letter.len() || cut.starts_with(long), "no more than must be: {cut}");
        }
        assert!(name("a", &"h".repeat(1_000), 1).len() <= 245);
    }

    #[test]
    fn names_are_cut_to_what_is_left_of_the_key() {
        let cut = |room| conflict_name(&[b'x'; 100], "h", AT, 1, room).unwrap().as_bytes().len();
        assert_eq!((cut(200), cut(60)), (100 + ".conflict-h-20260102T030405Z".len(), 60));
        assert_eq!(cut(5), ".conflict-h-20260102T030405Z".len(), "the index finds another");
    }
}
