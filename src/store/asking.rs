//! What S3 has at a key right now, for whoever is about to write there and has no condition to send along. Questions
//! that come at the same time share one LIST: to a small server of one's own that is far less work than a HEAD each.
//!
//! Invariants
//! - An answer is of a request that was sent after its question came: a LIST answers those alone that waited before it.
//! - A page answers only for keys that it reaches. All others, and all of a LIST that failed, are asked alone, by HEAD.
//! - One asks at a time while the others gather; who has waited for `PATIENCE` asks alone. So a slow answer holds up
//!   the others no longer than that.
//! - Where pages reach few of the keys (thousands of others lie between them), no listing is tried for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Error, ListPage, ListRequest, Store};
use crate::types::{ETag, Key};

/// Questions that are worth a LIST: in garage 2.5 one takes 70 us and 5 us for each key on the page, a HEAD 75 us. (What S3
/// charges for it is no matter: S3 honours conditions, so nobody asks there.)
const LIST_PAYS: usize = 2;
/// Keys of a page for each question, so many may lie between two of them: then it is still the less work.
const KEYS_FOR_EACH: usize = 8;
/// Ten times what a server near by needs for an answer.
const PATIENCE: Duration = Duration::from_millis(50);
/// How many questions are asked alone after a LIST that did not pay; doubled with each in a row.
const REST: std::ops::RangeInclusive<u32> = 64..=8192;

/// Asks.
pub(super) struct Asking {
    store: Arc<dyn Store>,
    waiting: Mutex<Vec<Question>>,
    turn: tokio::sync::Mutex<()>,
    rest: Rest,
}

/// Who drops it leaves it to be asked alone.
struct Question {
    key: Key,
    answer: oneshot::Sender<Option<ETag>>,
}

impl Asking {
    pub(super) fn new(store: Arc<dyn Store>) -> Asking {
        Asking { store, waiting: Mutex::default(), turn: tokio::sync::Mutex::default(), rest: Rest::default() }
    }

    /// Which version is at `key`, if any. Cancel safe.
    pub(super) async fn etag(&self, key: &Key) -> Result<Option<ETag>, Error> {
        // a listing folds a marker into its prefix
        if key.is_prefix() || self.rest.is_still() {
            return self.alone(key).await;
        }
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().push(Question { key: key.clone(), answer });
        let _turn = tokio::select! {
            biased;
            answer = &mut answered => return match answer {
                Ok(etag) => Ok(etag),
                Err(_) => self.alone(key).await,
            },
            turn = self.turn.lock() => turn,
            () = tokio::time::sleep(PATIENCE) => return self.alone(key).await,
        };
        // those whom the same event woke come along
        tokio::task::yield_now().await;
        self.answer_all().await;
        match answered.try_recv() {
            Ok(etag) => Ok(etag),
            // still in turn: so those who come meanwhile gather
            Err(_) => self.alone(key).await,
        }
    }

    async fn alone(&self, key: &Key) -> Result<Option<ETag>, Error> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.etag)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers those who wait by a LIST of each directory, where that pays; the rest have to ask alone.
    async fn answer_all(&self) {
        let mut dirs: BTreeMap<String, Vec<Question>> = BTreeMap::new();
        for question in std::mem::take(&mut *self.waiting.lock()) {
            // who lost patience has asked
            if !question.answer.is_closed() {
                dirs.entry(dir_of(&question.key).to_owned()).or_default().push(question);
            }
        }
        dirs.retain(|_, questions| questions.len() >= LIST_PAYS);
        futures::future::join_all(dirs.into_iter().map(|(dir, questions)| self.list(dir, questions))).await;
    }

    /// One page of `dir`, from the first key asked for.
    async fn list(&self, dir: String, questions: Vec<Question>) {
        let first = questions.iter().map(|question| &question.key).min();
        let request = ListRequest {
            prefix: dir,
            delimited: true,
            start_after: first.and_then(Key::just_before),
            max_keys: u16::try_from(questions.len() * KEYS_FOR_EACH).ok(),
            ..ListRequest::default()
        };
        // each finds out by its own request what is wrong
        let page = self.store.list(&request).await.ok();
        let answered = page.map_or(0, |page| tell(&page, questions));
        self.rest.after(answered >= LIST_PAYS);
    }
}

/// Answers what `page` reaches; how many that were.
fn tell(page: &ListPage, questions: Vec<Question>) -> usize {
    let listed: HashMap<&Key, &ETag> = page.objects.iter().map(|(key, meta)| (key, &meta.etag)).collect();
    let last = page.objects.iter().map(|(key, _)| key).chain(&page.prefixes).max();
    let is_reached = |question: &Question| page.next.is_none() || last.is_some_and(|last| question.key <= *last);
    let mut told = 0;
    for question in questions.into_iter().filter(is_reached) {
        // who asked may have gone
        told += usize::from(question.answer.send(listed.get(&question.key).copied().cloned()).is_ok());
    }
    told
}

/// The prefix that `key` is right below.
fn dir_of(key: &Key) -> &str {
    key.rfind('/').map_or("", |slash| &key[..=slash])
}

/// How long no listing is tried.
#[derive(Default)]
struct Rest {
    left: AtomicU32,
    /// How long it was the last time; zero when a listing has paid since.
    last: AtomicU32,
}

impl Rest {
    /// Whether one more question is to be asked alone.
    fn is_still(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn after(&self, paid: bool) {
        let next = match paid {
            true => 0,
            false => (self.last.load(Ordering::Relaxed) * 2).clamp(*REST.start(), *REST.end()),
        };
        self.last.store(next, Ordering::Relaxed);
        self.left.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ops::Range;

    use async_trait::async_trait;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tokio::sync::Semaphore;

    use super::super::{GetIf, Got, ObjectMeta};
    use super::*;
    use crate::types::Time;

    /// A bucket that answers when it is let to, with what it has then, and notes what it was asked.
    struct Bucket {
        objects: Mutex<BTreeMap<Key, ETag>>,
        answers: Semaphore,
        asked: Mutex<Vec<String>>,
        is_broken: bool,
    }

    fn bucket(keys: &[&str]) -> Arc<Bucket> {
        let objects = keys.iter().map(|text| (key(text), ETag::new(text))).collect();
        let (answers, asked) = (Semaphore::new(0), Mutex::default());
        Arc::new(Bucket { objects: Mutex::new(objects), answers, asked, is_broken: false })
    }

    impl Bucket {
        async fn ask(&self, what: String) {
            self.asked.lock().push(what);
            self.answers.acquire().await.unwrap().forget();
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut *self.asked.lock())
        }
    }

    fn meta(etag: &ETag) -> ObjectMeta {
        ObjectMeta { etag: etag.clone(), size: 1, last_modified: Time(0), user: None, content_type: None }
    }

    #[async_trait]
    impl Store for Bucket {
        async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
            let now = self.objects.lock().get(key).map(meta);
            self.ask(format!("HEAD {key}")).await;
            now.ok_or_else(|| Error::NotFound { key: key.clone() })
        }

        async fn get(&self, _: &Key, _: Option<Range<u64>>, _: GetIf) -> Result<Got, Error> {
            unreachable!("nobody reads")
        }

        async fn list(&self, request: &ListRequest) -> Result<ListPage, Error> {
            let ListRequest { prefix, start_after, max_keys, .. } = request;
            let is_asked = |key: &Key| key.starts_with(prefix) && start_after.as_ref().is_none_or(|after| key > after);
            let all: Vec<_> = self.objects.lock().iter().map(|(key, etag)| (key.clone(), meta(etag))).collect();
            let mut objects: Vec<_> = all.into_iter().filter(|(key, _)| is_asked(key)).collect();
            self.ask(format!("LIST {prefix}")).await;
            if self.is_broken {
                return Err(Error::Denied { what: "LIST".into(), message: String::new() });
            }
            let most = usize::from(max_keys.unwrap());
            let next = (objects.len() > most).then(String::new);
            objects.truncate(most);
            Ok(ListPage { objects, next, ..ListPage::default() })
        }
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    type Asked<'a> = BoxFuture<'a, Result<Option<ETag>, Error>>;

    /// Asks for `keys` one after the other, as far as they come without an answer.
    fn ask<'a>(asking: &'a Asking, keys: &[String]) -> Vec<Asked<'a>> {
        let ask = |text: &String| {
            let key = key(text);
            async move { asking.etag(&key).await }.boxed()
        };
        let mut asked: Vec<_> = keys.iter().map(ask).collect();
        poll(&mut asked);
        poll(&mut asked);
        asked
    }

    fn poll(asked: &mut [Asked<'_>]) {
        asked.iter_mut().for_each(|asked| assert!(asked.now_or_never().is_none(), "answered out of nothing"));
    }

    fn names(numbers: Range<u32>) -> Vec<String> {
        numbers.map(|number| format!("d/{number:03}")).collect()
    }

    async fn told(asked: Vec<Asked<'_>>) -> Vec<Option<String>> {
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().map(|answer| answer.unwrap().map(|etag| etag.as_str().to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_at_once_or_while_one_asks_share_a_listing() {
        let bucket = bucket(&["d/003", "d/sub/x", "e/1"]);
        let asking = Asking::new(bucket.clone());
        let mut asked = ask(&asking, &names(0..1));
        assert_eq!(bucket.asked(), ["HEAD d/000"]);
        asked.extend(ask(&asking, &names(1..10)));
        assert!(bucket.asked().is_empty());
        bucket.answers.add_permits(2);
        let wanted: Vec<_> = (0..10).map(|number| (number == 3).then(|| "d/003".to_owned())).collect();
        assert_eq!(told(asked).await, wanted);
        assert_eq!(bucket.asked(), ["LIST d/"]);
        let asked = ask(&asking, &names(0..10));
        bucket.answers.add_permits(1);
        assert_eq!(told(asked).await, wanted);
        assert_eq!(bucket.asked(), ["LIST d/"]);
    }

    #[tokio::test(start_paused = true)]
    async fn listing_that_was_sent_before_the_question_does_not_answer_it() {
        let bucket = bucket(&[]);
        let asking = Asking::new(bucket.clone());
        let early = ask(&asking, &names(0..6));
        assert_eq!(bucket.asked(), ["LIST d/"]);
        // the listing is under way and does not have it: it must not speak for who asks now
        bucket.objects.lock().insert(key("d/010"), ETag::new("theirs"));
        let late = ask(&asking, &names(10..11));
        bucket.answers.add_permits(2);
        assert_eq!(told(early).await, vec![None; 6]);
        assert_eq!(told(late).await, [Some("theirs".to_owned())]);
        assert_eq!(bucket.asked(), ["HEAD d/010"]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_other_directories_and_markers_are_asked_alone() {
        let bucket = bucket(&["e/1"]);
        let asking = Asking::new(bucket.clone());
        let keys = ["d/000", "e/1", "f/1", "d/"].map(str::to_owned);
        let asked = ask(&asking, &keys);
        bucket.answers.add_permits(keys.len());
        assert_eq!(told(asked).await, [None, Some("e/1".to_owned()), None, None]);
        let mut asked = bucket.asked();
        asked.sort();
        assert_eq!(asked, ["HEAD d/", "HEAD d/000", "HEAD e/1", "HEAD f/1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_a_page_does_not_reach_are_asked_alone_and_listing_rests() {
        let between: Vec<String> = (0..100).map(|number| format!("d/000-{number}")).collect();
        let bucket = bucket(&between.iter().map(String::as_str).chain(["d/005"]).collect::<Vec<_>>());
        let asking = Asking::new(bucket.clone());
        let asked = ask(&asking, &names(0..6));
        bucket.answers.add_permits(6);
        assert_eq!(told(asked).await[5], Some("d/005".to_owned()));
        let asked = bucket.asked();
        assert_eq!((asked.len(), &*asked[0]), (1 + 5, "LIST d/"), "all but the first of them alone: {asked:?}");
        let again = ask(&asking, &names(0..6));
        assert_eq!(bucket.asked().len(), 6, "nobody waits for anybody");
        bucket.answers.add_permits(6);
        told(again).await;
        assert_eq!(asking.rest.left.load(Ordering::Relaxed), REST.start() - 6);
    }

    #[tokio::test(start_paused = true)]
    async fn listing_that_fails_answers_nobody() {
        let mut bucket = bucket(&["d/002"]);
        Arc::get_mut(&mut bucket).unwrap().is_broken = true;
        let asking = Asking::new(bucket.clone());
        let asked = ask(&asking, &names(0..6));
        bucket.answers.add_permits(7);
        assert_eq!(told(asked).await[2], Some("d/002".to_owned()));
        assert_eq!(bucket.asked()[0], "LIST d/");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_somebody_elses_answer() {
        let bucket = bucket(&[]);
        let asking = Asking::new(bucket.clone());
        let mut asked = ask(&asking, &names(0..1));
        asked.extend(ask(&asking, &names(1..6)));
        assert_eq!(bucket.asked(), ["HEAD d/000"]);
        tokio::time::advance(PATIENCE).await;
        poll(&mut asked);
        assert_eq!(bucket.asked().len(), 5, "the first has no answer, the others ask alone");
        // and who gave up altogether leaves nobody behind
        drop(asked);
        let asked = ask(&asking, &names(6..7));
        assert_eq!(bucket.asked(), ["HEAD d/006"]);
        bucket.answers.add_permits(1);
        assert_eq!(told(asked).await, [None]);
    }

    #[test]
    fn rest_grows_until_a_listing_pays() {
        let rest = Rest::default();
        assert!(!rest.is_still());
        rest.after(false);
        assert_eq!((0..1000).filter(|_| rest.is_still()).count(), 64);
        rest.after(false);
        assert_eq!((0..1000).filter(|_| rest.is_still()).count(), 128);
        (0..20).for_each(|_| rest.after(false));
        assert_eq!(rest.left.load(Ordering::Relaxed), 8192);
        rest.after(true);
        assert!(!rest.is_still());
        rest.after(false);
        assert_eq!(rest.left.load(Ordering::Relaxed), 64);
    }
}
