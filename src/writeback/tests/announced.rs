//! Who is told of what was written here, and when.

use super::*;
use crate::store::Announced;

/// Notes what it is told, with what S3 had at that moment.
struct Notes {
    bucket: Bucket,
    told: Mutex<Vec<(Announced, Option<String>)>>,
}

impl Announce for Notes {
    fn announce(&self, what: Announced) {
        let (Announced::Written { key, .. } | Announced::Removed { key } | Announced::Unsure { key }) = &what;
        let etag = self.bucket.get(key).map(|stored| stored.etag.to_string());
        self.told.lock().push((what, etag));
    }
}

impl Notes {
    fn of(rig: &Rig) -> Arc<Notes> {
        let notes = Arc::new(Notes { bucket: rig.bucket.clone(), told: Mutex::new(Vec::new()) });
        rig.writeback.announce_to(notes.clone());
        notes
    }

    fn take(&self) -> Vec<(Announced, Option<String>)> {
        std::mem::take(&mut self.told.lock())
    }
}

/// What of it is told, when S3 had it by then.
fn in_s3((what, has): (Announced, Option<String>)) -> String {
    match what {
        Announced::Written { key, etag, size, bytes } => {
            assert_eq!(has.as_deref(), Some(etag.as_str()), "{key} is told before S3 has it");
            format!("{key} {size} {}", bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into()))
        }
        Announced::Removed { key } => {
            assert_eq!(has, None, "{key} is told before S3 has removed it");
            format!("{key} removed")
        }
        Announced::Unsure { key } => format!("{key} unsure"),
    }
}

#[tokio::test]
async fn uploads_copies_and_removals_are_told_once_s3_has_them() {
    let rig = Rig::new().await;
    let notes = Notes::of(&rig);
    let told = || notes.take().into_iter().map(in_s3).collect::<Vec<_>>();
    rig.write("f", "one").await;
    rig.sync().await;
    assert_eq!(told(), ["f 3 one"]);
    rig.rename("f", "g").await;
    rig.sync().await;
    assert_eq!(told(), ["g 3 -", "f removed"]);
    rig.remove("g").await;
    rig.sync().await;
    assert_eq!(told(), ["g removed"]);
}

#[tokio::test]
async fn an_object_of_parts_is_told_when_it_is_complete() {
    let rig = Rig::new().await;
    let notes = Notes::of(&rig);
    rig.write("big", vec![7; 13 * MIB]).await;
    rig.sync().await;
    let told: Vec<_> = notes.take().into_iter().map(in_s3).collect();
    assert_eq!(told, [format!("big {} -", 13 * MIB)]);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_told_as_unsure() {
    let rig = Rig::new().await;
    let notes = Notes::of(&rig);
    rig.s3.faults().inject((Request::Put, "f"), 1, crate::s3server::Fault::FailAfterApply);
    rig.write("f", "one").await;
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    assert_eq!(in_s3(notes.take().remove(0)), "f unsure");
}
