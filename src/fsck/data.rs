//! The files of the cache against their rows.

use std::sync::Arc;

use super::{Error, Told, blocking, key_of};
use crate::content::{Content, Damaged};
use crate::index::Index;
use crate::types::ObjectId;

/// Looks at every file and at every row that speaks of one.
pub(super) async fn check(index: &Arc<Index>, content: &Arc<Content>, told: &mut Told) -> Result<(), Error> {
    let mut after = None;
    while let Some(looked) = blocking(content, move |content| Ok(content.look_at_objects(after)?)).await? {
        told.report.files += looked.files;
        after = Some(looked.last);
        for damaged in looked.damaged {
            object(index, content, damaged, told).await?;
        }
    }
    let mut after = ObjectId(0);
    while let Some(looked) = blocking(content, move |content| Ok(content.look_at_staging(after)?)).await? {
        told.report.files += looked.files;
        after = looked.last;
        for damaged in looked.damaged {
            staging(index, content, damaged, told).await?;
        }
    }
    strays(content, told).await
}

/// What S3 has, too, is not lost.
async fn object(index: &Index, content: &Content, damaged: Damaged, told: &mut Told) -> Result<(), Error> {
    let lost = format!("cached object {:016x} {}", damaged.id.0, state(&damaged));
    let key = key_of(index, damaged.ino);
    if index.node(damaged.ino)?.is_some_and(|node| node.remote.is_none()) {
        // it was removed from S3 while it was changed here
        told.tell(
            key,
            format!("DATA LOSS: {lost}, and S3 has no version of it: put the file back into `objects`"),
            false,
        );
        return Ok(());
    }
    if told.repair {
        content.discard(damaged.id).await?;
    }
    told.tell(key, format!("{lost}; it is to be fetched again"), told.repair);
    Ok(())
}

/// What only this disk had is.
async fn staging(index: &Index, content: &Content, damaged: Damaged, told: &mut Told) -> Result<(), Error> {
    let Damaged { id, ino, .. } = damaged;
    let lost = format!("DATA LOSS: staged file {:016x} {}", id.0, state(&damaged));
    let key = key_of(index, ino);
    let is_in_s3 = index.node(ino)?.is_some_and(|node| node.remote.is_some());
    let (what_now, repaired) = if damaged.length.is_none() && content.has_open(id) {
        ("the server still has it open: `fasts3 sync` now, before it stops, and it is saved", false)
    } else if !is_in_s3 {
        ("S3 has no version of it: put the file back into `staging`, or remove it over the mount", false)
    } else if !told.repair {
        ("S3's version can take its place: --repair", false)
    } else {
        ("S3's version has taken its place", give_up(index, content, damaged).await?)
    };
    told.tell(key, format!("{lost}; {what_now}"), repaired);
    Ok(())
}

/// Gives a file back to S3's version. In the turn of whoever replaces a staging file, where it is in use.
async fn give_up(index: &Index, content: &Content, damaged: Damaged) -> Result<bool, Error> {
    let Some(staged) = content.staged_if_open(damaged.ino).filter(|staged| staged.id() == damaged.id) else {
        return Ok(index.lose_staged(damaged.id).await?);
    };
    let Some(turn) = staged.sole_turn().await else { return Ok(false) };
    let given_up = index.lose_staged(damaged.id).await?;
    content.close_staged(&staged, turn);
    Ok(given_up)
}

async fn strays(content: &Arc<Content>, told: &mut Told) -> Result<(), Error> {
    for low in 0..=u8::MAX {
        let found = blocking(content, move |content| Ok(content.stray_objects(low)?)).await?;
        stray(content, found, "objects", told).await?;
    }
    let found = blocking(content, |content| Ok(content.stray_staging()?)).await?;
    stray(content, found, "staging", told).await
}

async fn stray(content: &Arc<Content>, found: Vec<ObjectId>, place: &str, told: &mut Told) -> Result<(), Error> {
    if told.repair {
        let found = found.clone();
        blocking(content, move |content| {
            found.iter().for_each(|id| content.abandon(*id));
            Ok(())
        })
        .await?;
    }
    for id in found {
        told.tell(None, format!("nothing refers to {:016x} in `{place}`", id.0), told.repair);
    }
    Ok(())
}

fn state(damaged: &Damaged) -> String {
    match damaged.length {
        None => "is missing".into(),
        Some(length) => format!("has {length} bytes, not {}", damaged.promised),
    }
}
