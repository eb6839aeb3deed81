//! What a refused write means: it had landed already, or somebody else was there first (D4). Then neither version is
//! lost, unless `--on-conflict` says which one may be.

use super::plan::Over;
use super::sent::{REMEMBERED, Sent};
use super::sync::count;
use super::task;
use super::trouble::Trouble;
use super::{OnConflict, Stamps, Writeback};
use crate::crash;
use crate::index::{Conflict, IndexError, Kind, Settled, Task};
use crate::store::{self, ObjectMeta};
use crate::types::name::MAX_NAME_BYTES;
use crate::types::{ETag, Ino, Key, Name, Time};

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
}

impl Writeback {
    /// Remembers a write that nobody answered.
    pub(super) fn remember(&self, ino: Ino, sent: &Sent) {
        let mut state = self.state.lock();
        let unsure = state.unsure.entry(ino).or_default();
        if !unsure.contains(sent) {
            if unsure.len() == REMEMBERED {
                unsure.remove(0);
            }
            unsure.push(sent.clone());
        }
    }

    /// Finds out why a write was refused, and sees to it.
    pub(super) async fn judge(&self, refused: Refused<'_>) -> Result<Verdict, Trouble> {
        let Refused { task, key, over, sent } = refused;
        let (meta, at) = self.look(key).await?;
        let Some(meta) = meta else { return self.gone(task, key, over, at).await };
        if sent.has_landed(&meta, &self.digests) {
            return Ok(Verdict::Landed(meta.etag, at));
        }
        if matches!(over, Over::Own(etag) | Over::Replaced(etag) if *etag == meta.etag) {
            return Ok(Verdict::Resolved);
        }
        let earlier = self.state.lock().unsure.get(&task.node.ino).cloned().unwrap_or_default();
        if let Some(landed) = earlier.iter().find(|sent| sent.key == *key && sent.has_landed(&meta, &self.digests)) {
            // an earlier state of the same file: what it became since goes over that
            self.adopt(task, key, &meta, landed.content, at).await?;
            return Ok(Verdict::Resolved);
        }
        let is_same = sent.content && sent.etag.as_ref() == Some(&meta.etag) && sent.size == meta.size;
        if is_same || task.node.kind == Kind::Dir {
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
                index.rebase(task.node.ino, None, at.sent, at.answered).await?;
                if task.node.kind != Kind::Dir {
                    let what = "changed here, removed in S3: the version of here goes up again";
                    self.note(record(key, "", self.clock.wall(), what)).await?;
                }
            }
        }
        Ok(Verdict::Resolved)
    }

    /// Takes the version at `key` for the one that the local change is made of; all that is pending stays so.
    async fn adopt(&self, task: &Task, key: &Key, meta: &ObjectMeta, content: bool, at: Stamps) -> Result<(), Trouble> {
        let settled = task::settled(task, key, meta.etag.clone(), meta.size, at);
        self.rooms.index.settle(Settled { change: 0, content, ..settled }).await?;
        Ok(())
    }

    /// Both sides changed it.
    async fn resolve(&self, task: &Task, key: &Key, theirs: ObjectMeta, at: Stamps) -> Result<Verdict, Trouble> {
        let ino = task.node.ino;
        if self.settings.on_conflict == OnConflict::LocalWins {
            let what = "changed here and in S3: the version of here replaced S3's, as --on-conflict says";
            self.note(record(key, "", self.clock.wall(), what)).await?;
            return Ok(Verdict::Overwrite(theirs.etag));
        }
        let name = self.free_name(task)?;
        let dir = key.rsplit_once('/').map_or("", |(dir, _)| dir);
        let slash = if dir.is_empty() { "" } else { "/" };
        let kept_as = format!("{dir}{slash}{}", String::from_utf8_lossy(name.as_bytes()));
        let keeps = self.settings.on_conflict == OnConflict::KeepBoth;
        let (kept_as, what) = match keeps {
            true => (kept_as, "changed here and in S3: S3's version keeps the name, the one of here is beside it"),
            false => {
                (String::new(), "changed here and in S3: S3's version replaced the one of here, as --on-conflict says")
            }
        };
        let record = record(key, &kept_as, self.clock.wall(), what);
        tracing::warn!(%key, kept_as, "conflict: {what}");
        count(&self.counters.conflicts);
        self.rooms.index.conflict(ino, name.clone(), theirs, (at.sent, at.answered), record).await?;
        crash::point("writeback.after_conflict");
        if !keeps {
            self.drop_copy(task.node.parent, name).await?;
        }
        Ok(Verdict::Resolved)
    }

    /// Removes the copy that lost. A crash before that leaves one too many, never one too few.
    async fn drop_copy(&self, dir: Ino, name: Name) -> Result<(), Trouble> {
        let dropped = self.rooms.index.edit(move |edit| {
            if let Some(found) = edit.child(dir, &name)? {
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
    fn free_name(&self, task: &Task) -> Result<Name, Trouble> {
        let stem = task.node.component.name(false);
        for number in 1.. {
            let name = conflict_name(stem.as_bytes(), &self.settings.host, self.clock.wall(), number);
            let name = Name::new(&name).map_err(|_| Trouble::TooLong)?;
            if self.rooms.index.child(task.node.parent, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Trouble::TooLong)
    }

    /// What an error of a write is: to be judged, or a failure. One that may have landed is remembered.
    pub(super) fn refusal(&self, ino: Ino, sent: &Sent, error: store::Error) -> Result<(), Trouble> {
        match error {
            store::Error::PreconditionFailed { .. } | store::Error::NotFound { .. } => Ok(()),
            error => {
                if let store::Error::Unavailable { .. } = error {
                    self.remember(ino, sent);
                }
                Err(error.into())
            }
        }
    }
}

/// A conflict to be noted.
pub(super) fn record(key: &Key, kept_as: &str, at: Time, what: &str) -> Conflict {
    Conflict { key: key.to_string(), kept_as: kept_as.to_owned(), at: at.0, what: what.to_owned() }
}

/// `name.conflict-<host>-<UTC time>`, with a number from the second on. Names are cut to fit.
fn conflict_name(name: &[u8], host: &str, at: Time, number: u32) -> Vec<u8> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' };
    let host: String = host.chars().map(plain).take(64).collect();
    let again = if number > 1 { format!("-{number}") } else { String::new() };
    let suffix = format!(".conflict-{host}-{}{again}", basic_utc(at));
    let mut kept = name.len().min(MAX_NAME_BYTES - suffix.len());
    // not in the middle of a character
    while kept > 0 && kept < name.len() && name[kept] & 0xc0 == 0x80 {
        kept -= 1;
    }
    [&name[..kept], suffix.as_bytes()].concat()
}

/// `20260102T030405Z`.
fn basic_utc(at: Time) -> String {
    let seconds = at.seconds();
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// The date of a day since 1970-01-01: years begin in March, so that the leap day is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time(1_767_323_045_000_000_000);

    fn name(of: &str, host: &str, number: u32) -> String {
        String::from_utf8(conflict_name(of.as_bytes(), host, AT, number)).expect("it was one")
    }

    #[test]
    fn names_say_where_and_when() {
        assert_eq!(name("notes.txt", "laptop", 1), "notes.txt.conflict-laptop-20260102T030405Z");
        assert_eq!(name("notes.txt", "laptop", 2), "notes.txt.conflict-laptop-20260102T030405Z-2");
        assert_eq!(name("a", "my/host name", 1), "a.conflict-my_host_name-20260102T030405Z");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for length in 60..128 {
            let long = format!("{}{}", "x".repeat(length % 2), "é".repeat(length));
            let cut = name(&long, "laptop", 1);
            assert!(cut.len() <= 255 && cut.ends_with("Z"), "{length}");
            assert!(cut.len() >= 254 || cut.starts_with(&long), "no more than must be: {length}");
        }
        assert!(name("a", &"h".repeat(1_000), 1).len() <= 255);
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |days: i64| basic_utc(Time(days * 86_400_000_000_000));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(11_016), "20000229T000000Z");
        assert_eq!(at(11_017), "20000301T000000Z");
        assert_eq!(at(20_513), "20260301T000000Z");
        assert_eq!(at(-1), "19691231T000000Z");
    }
}
