//! The index against S3: every key that S3 lists, and every version and every row of the journal that it did not list.
//!
//! A listing takes long, and things change meanwhile. So a difference is told only when S3, asked about the one key, and
//! the index still differ. What is pending here is no difference: the change wins, and its upload finds out.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Error, Remote, Told, blocking, key_of};
use crate::index::{Holder, Index, Kind, Node, Observation, Pending, Seen, Source};
use crate::store::{self, ListRequest, ObjectMeta};
use crate::types::{Ino, Key, Tick};

/// Rows read from the index in one go.
const BATCH: usize = 1_000;

/// Compares both ways.
pub(super) async fn check(index: &Arc<Index>, remote: &Remote, told: &mut Told) -> Result<(), Error> {
    let mut check = Check { index, remote, told, seen: Inodes::default() };
    check.keys().await?;
    check.versions().await?;
    check.uploads().await
}

struct Check<'c> {
    index: &'c Arc<Index>,
    remote: &'c Remote,
    told: &'c mut Told,
    /// Who is at the keys that were listed.
    seen: Inodes,
}

/// How S3 and the index differ about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    /// The index has another version of this inode.
    Stale(Ino),
    /// The index has a listing of the directory without it.
    Unknown,
    /// S3 has not what the index says of this inode.
    Missing(Ino),
    /// S3 has not what is to be removed, or moved.
    Left,
}

/// What S3 has at a key, and when it said so.
struct Answer {
    seen: Option<ObjectMeta>,
    sent: Tick,
    answered: Tick,
}

impl Check<'_> {
    /// Lists the bucket, and looks up each key; and, as both are in order, what the journal has between those keys.
    async fn keys(&mut self) -> Result<(), Error> {
        let (mut request, mut after) = (ListRequest::default(), None);
        loop {
            let page = self.remote.store.list(&request).await?;
            let is_last = page.next.is_none() || page.next == request.continuation;
            self.told.report.keys += page.objects.len() as u64;
            let until = page.objects.last().map(|(key, _)| key.clone()).filter(|_| !is_last);
            let (from, to) = (after.take(), until.clone());
            let compared = blocking(self.index, move |index| compare(index, &page.objects, from, to)).await?;
            compared.seen.into_iter().for_each(|ino| self.seen.insert(ino));
            for key in compared.differ {
                self.look(key).await?;
            }
            if is_last {
                return Ok(());
            }
            (request.continuation, after) = (page.next, until);
        }
    }

    /// Looks for the versions that were not listed.
    async fn versions(&mut self) -> Result<(), Error> {
        let mut after = Ino(0);
        loop {
            let batch = blocking(self.index, move |index| Ok(index.nodes(after, BATCH)?)).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = last.ino;
            for node in batch.iter().filter(|node| node.remote.is_some()) {
                if !self.seen.has(node.ino)
                    && !is_ours(self.index, node)?
                    && let Some(key) = self.index.remote_key(node.ino)?
                {
                    self.look(key).await?;
                }
            }
        }
    }

    /// Asks S3 about one key, tells and repairs what is wrong with it.
    async fn look(&mut self, key: Key) -> Result<(), Error> {
        if self.told.only_counts() {
            self.told.report.found += 1;
            return Ok(());
        }
        let answer = self.ask(&key).await?;
        let Some(difference) = difference(self.index, &key, answer.seen.as_ref())? else { return Ok(()) };
        let what = describe(&difference, &key);
        let shown = match difference {
            Difference::Stale(ino) | Difference::Missing(ino) => key_of(self.index, ino),
            Difference::Unknown | Difference::Left => Some(key.clone()),
        };
        let repaired = self.told.repair && self.repair(&key, difference, answer).await?;
        self.told.tell(shown, what, repaired);
        Ok(())
    }

    async fn ask(&self, key: &Key) -> Result<Answer, Error> {
        let sent = self.remote.clock.now();
        let seen = match self.remote.store.head(key).await {
            Ok(meta) => Some(meta),
            Err(store::Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Answer { seen, sent, answered: self.remote.clock.now() })
    }

    /// Has S3's word decide: true when nothing differs after that.
    async fn repair(&self, key: &Key, difference: Difference, answer: Answer) -> Result<bool, Error> {
        match difference {
            // a file that is complete here stays so: its new version is copied in first
            Difference::Stale(ino) | Difference::Missing(ino) => match self.remote.revalidator.refresh(ino).await {
                Ok(_) | Err(crate::revalidate::WaitError::Gone) => {}
                Err(error) => return Err(error.into()),
            },
            Difference::Unknown | Difference::Left => {
                let Answer { seen, sent, answered } = answer;
                let seen = seen.map_or(Seen::Absent, Seen::Object);
                let (key, source) = (key.clone(), Source::Command);
                self.index.apply(Observation { key, seen, sent, answered, source, content: None }).await?;
            }
        }
        let now = self.ask(key).await?;
        Ok(self::difference(self.index, key, now.seen.as_ref())?.is_none())
    }

    /// Aborts what `writeback` began and nothing will end.
    async fn uploads(&mut self) -> Result<(), Error> {
        let left: Vec<_> = self.left_uploads()?;
        if left.is_empty() {
            return Ok(());
        }
        let under_way = self.remote.store.uploads().await?;
        // asked again: one that has just ended is forgotten a moment later
        for (ino, row) in self.left_uploads()?.into_iter().filter(|row| left.contains(row)) {
            let Some((upload, _)) = under_way.iter().find(|(upload, _)| names(&row, &upload.id)) else { continue };
            if self.told.repair {
                self.remote.store.abort_upload(upload).await?;
                self.index.note_upload(ino, None).await?;
            }
            let what = "a multipart upload that nothing needs any more was left in S3, which bills its parts".into();
            self.told.tell(Some(upload.key.clone()), what, self.told.repair);
        }
        Ok(())
    }

    fn left_uploads(&self) -> Result<Vec<(Ino, Vec<u8>)>, Error> {
        let mut rows = self.index.uploads()?;
        let mut left = Vec::new();
        for row in rows.drain(..) {
            if self.index.pending(row.0)?.is_none() {
                left.push(row);
            }
        }
        Ok(left)
    }
}

/// Whether a note of `writeback` is of the upload `id`.
fn names(note: &[u8], id: &str) -> bool {
    !id.is_empty() && note.windows(id.len()).any(|part| part == id.as_bytes())
}

/// What a page shows.
struct Compared {
    /// The keys about which the index says something else.
    differ: Vec<Key>,
    /// The inodes that are at its keys.
    seen: Vec<Ino>,
}

/// Compares a page, in order of keys, which tells of all keys after `from` up to `to`.
fn compare(
    index: &Index,
    objects: &[(Key, ObjectMeta)],
    from: Option<Key>,
    to: Option<Key>,
) -> Result<Compared, Error> {
    let mut compared = Compared { differ: Vec::new(), seen: Vec::new() };
    for (key, meta) in objects {
        compared.seen.extend(holder_of(index, key)?);
        if difference(index, key, Some(meta))?.is_some() {
            compared.differ.push(key.clone());
        }
    }
    let mut after = from;
    loop {
        let rows = index.away_rows(after.as_ref(), BATCH)?;
        let in_page = rows.iter().take_while(|(key, _)| to.as_ref().is_none_or(|to| key <= to));
        for (key, away) in in_page.clone() {
            if away.ino.is_none() && objects.binary_search_by(|(listed, _)| listed.cmp(key)).is_err() {
                compared.differ.push(key.clone());
            }
        }
        match rows.last() {
            Some((last, _)) if in_page.count() == rows.len() => after = Some(last.clone()),
            _ => return Ok(compared),
        }
    }
}

/// Whose version is at `key`.
fn holder_of(index: &Index, key: &Key) -> Result<Option<Ino>, Error> {
    Ok(match index.holder(key)? {
        Holder::Inode(node) => Some(node.ino),
        Holder::Away(away) => away.ino,
        Holder::Nobody(_) | Holder::Elsewhere => None,
    })
}

/// How the index differs from what S3 has at `key`.
fn difference(index: &Index, key: &Key, meta: Option<&ObjectMeta>) -> Result<Option<Difference>, Error> {
    if index.sent(key)?.is_some() {
        // an upload finds out what it has come to
        return Ok(None);
    }
    Ok(match (index.holder(key)?, meta) {
        (Holder::Inode(node), _) if is_ours(index, &node)? => None,
        (Holder::Inode(node), Some(meta)) => is_other(&node, meta).then_some(Difference::Stale(node.ino)),
        (Holder::Inode(node), None) => node.remote.is_some().then_some(Difference::Missing(node.ino)),
        (Holder::Away(away), Some(meta)) => {
            let is_same = away.etag == meta.etag && away.size == meta.size;
            let owner = away.ino.map(|ino| index.node(ino)).transpose()?.flatten();
            match owner {
                _ if is_same => None,
                Some(node) => node.staged.is_none().then_some(Difference::Stale(node.ino)),
                // an inode that waits to be written there will find it
                None => index.resolve(key)?.is_none().then_some(Difference::Unknown),
            }
        }
        (Holder::Away(away), None) => match away.ino.map(|ino| index.node(ino)).transpose()?.flatten() {
            Some(node) => (node.staged.is_none()).then_some(Difference::Missing(node.ino)),
            None => Some(Difference::Left),
        },
        (Holder::Nobody(dir), Some(_)) => dir.listed.then_some(Difference::Unknown),
        (Holder::Nobody(_), None) | (Holder::Elsewhere, _) => None,
    })
}

/// Whether what is here, and not in S3 yet, is what counts.
fn is_ours(index: &Index, node: &Node) -> Result<bool, Error> {
    let is_pending = |what: fn(&Pending) -> bool| Ok::<_, Error>(index.pending(node.ino)?.as_ref().is_some_and(what));
    Ok(node.staged.is_some() || is_pending(|pending| pending.content || pending.attributes)?)
}

/// Whether S3 has another version than `node`. A directory that was not listed may have a marker that nobody saw.
fn is_other(node: &Node, meta: &ObjectMeta) -> bool {
    match &node.remote {
        Some(remote) => remote.etag != meta.etag || remote.size != meta.size,
        None => node.kind == Kind::Dir && node.listed,
    }
}

fn describe(difference: &Difference, key: &Key) -> String {
    match difference {
        Difference::Stale(_) => format!("S3 has another version at {key}"),
        Difference::Unknown => format!("S3 has {key}, which is not known here"),
        Difference::Missing(_) => format!("S3 has nothing at {key}"),
        Difference::Left => format!("{key} is to be removed from S3, and is gone already"),
    }
}

/// A set of inodes: some bytes each where they have numbers near each other, as those of one listing do.
#[derive(Default)]
struct Inodes(HashMap<u64, u64>);

impl Inodes {
    fn insert(&mut self, ino: Ino) {
        *self.0.entry(ino.0 / 64).or_default() |= 1 << (ino.0 % 64);
    }

    fn has(&self, ino: Ino) -> bool {
        self.0.get(&(ino.0 / 64)).is_some_and(|word| word & 1 << (ino.0 % 64) != 0)
    }
}
