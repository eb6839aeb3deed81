//! The writer thread: the only one that writes redb. It takes what is queued, runs all of it in one
//! transaction, makes that durable once (`commit.rs`), publishes to memory, and only then answers.
//!
//! - A group that changes nothing (checks that found nothing new) commits nothing.
//! - A failure of the storage fails the whole group; nothing of it is kept. redb refuses a database after an
//!   I/O error, so the writer opens it again, at the latest with the next command: a disk that was
//!   full and is not any more needs no restart.
//! - The queue is bounded; who finds it full waits.
//! - Background work is in no hurry: it goes along with the next group, or after a moment makes one with others like
//!   it (`run_along`). Each commit costs the same, however much is in it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{error, warn};

use super::allocate::Sequence;
use super::cache::{self, Cache};
use super::change::{Change, Finished};
use super::commit::{Files, Ledger};
use super::graves::Graves;
use super::model::{Defaults, IndexError, Work};
use super::snapshot::Snapshot;
use super::tables::Tables;
use crate::types::Clock;

/// Commands that may wait; beyond that their senders do.
const QUEUE: usize = 1024;
/// Entries of one transaction: it should not hold up its first command for more than some 10 ms.
const GROUP_WEIGHT: usize = 4096;
/// Inodes of a removed subtree per transaction, when nothing else is to be done.
const ORPHAN_BATCH: usize = 2048;

/// 2 ms: less than a request to S3 takes, and enough to share a commit in when there are many.
const ALONG: Duration = Duration::from_millis(2);

/// What the writer and the readers share.
pub(super) struct Shared {
    pub(super) cache: Cache,
    pub(super) sequence: Sequence,
    pub(super) garbage_added: Notify,
    /// What has come to the journal since it was last taken.
    pub(super) work: Mutex<Vec<Work>>,
    pub(super) work_added: Notify,
    pub(super) defaults: Defaults,
    pub(super) clock: Clock,
}

/// The queue to the thread, and the thread.
pub(super) struct Writer {
    /// `None` only in `drop`.
    queue: Option<mpsc::Sender<Message>>,
    along: Along,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Commands that wait for a group to go along with. Each of their senders sees to it that one comes.
type Along = Arc<Mutex<Vec<Box<dyn Task>>>>;

enum Message {
    Run(Box<dyn Task>),
    /// For those that nobody came by for.
    Along,
    Close,
}

/// A command: runs in a transaction, and answers when that is committed.
trait Task: Send {
    /// About how many entries it will touch.
    fn weight(&self) -> usize;
    fn run(&mut self, change: &mut Change<'_>) -> Result<(), IndexError>;
    fn answer(self: Box<Self>, committed: Result<(), IndexError>);
}

struct Command<W, T> {
    weight: usize,
    work: Option<W>,
    done: Option<T>,
    reply: oneshot::Sender<Result<T, IndexError>>,
}

impl<W, T> Task for Command<W, T>
where
    W: FnOnce(&mut Change<'_>) -> Result<T, IndexError> + Send,
    T: Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn run(&mut self, change: &mut Change<'_>) -> Result<(), IndexError> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(change)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), IndexError>) {
        let done = self.done.ok_or(IndexError::Closed);
        // nobody waits any more: the change is made all the same
        let _ = self.reply.send(committed.and(done));
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(ledger: Ledger, files: Files, shared: Arc<Shared>, has_orphans: bool) -> Writer {
        let (queue, commands) = mpsc::channel(QUEUE);
        let along = Along::default();
        let run = Run { ledger: Some(ledger), files, shared, graves: Graves::new(), has_orphans, along: along.clone() };
        let thread = std::thread::Builder::new().name("index-writer".into()).spawn(move || run.until_closed(commands));
        let thread = thread.inspect_err(|error| error!(%error, "cannot start the index writer")).ok();
        Writer { queue: Some(queue), along, thread: Mutex::new(thread) }
    }

    /// Runs `work` in a transaction; returns after the commit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (reply, answer) = oneshot::channel();
        let command = Box::new(Command { weight, work: Some(work), done: None, reply });
        self.send(Message::Run(command)).await?;
        answer.await.unwrap_or(Err(IndexError::Closed))
    }

    /// The same for who is in no hurry.
    pub(super) async fn run_along<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (reply, mut answer) = oneshot::channel();
        self.along.lock().push(Box::new(Command { weight, work: Some(work), done: None, reply }));
        if let Ok(answer) = tokio::time::timeout(ALONG, &mut answer).await {
            return answer.unwrap_or(Err(IndexError::Closed));
        }
        self.send(Message::Along).await?;
        answer.await.unwrap_or(Err(IndexError::Closed))
    }

    async fn send(&self, message: Message) -> Result<(), IndexError> {
        let queue = self.queue.as_ref().ok_or(IndexError::Closed)?;
        queue.send(message).await.map_err(|_| IndexError::Closed)
    }

    /// Commits what is queued and ends the thread.
    pub(super) async fn close(&self) {
        if let Some(queue) = &self.queue {
            // refused when the thread has ended already
            let _ = queue.send(Message::Close).await;
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // waits on the database's last fsync: not on this runtime's threads
            let _ = tokio::task::spawn_blocking(move || join(thread)).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.get_mut().take() {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("the index writer panicked");
    }
}

/// The thread's state.
struct Run {
    /// `None` after an I/O error, until it could be opened again.
    ledger: Option<Ledger>,
    files: Files,
    shared: Arc<Shared>,
    graves: Graves,
    has_orphans: bool,
    along: Along,
}

impl Run {
    fn until_closed(mut self, mut commands: mpsc::Receiver<Message>) {
        while let Some(first) = self.next(&mut commands) {
            match first {
                Message::Run(task) => self.group(vec![task], &mut commands),
                Message::Along => self.group(Vec::new(), &mut commands),
                // what was sent before is still taken, then `next` finds the end
                Message::Close => commands.close(),
            }
        }
        self.shared.cache.close();
        if let Some(Err(error)) = self.ledger.map(Ledger::close) {
            warn!(%error, "the index was not closed in order, nothing is lost");
        }
    }

    /// The next command; removes cut-off subtrees while there is none.
    fn next(&mut self, commands: &mut mpsc::Receiver<Message>) -> Option<Message> {
        while self.has_orphans && self.ledger.is_some() {
            match commands.try_recv() {
                Ok(message) => return Some(message),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    if let Err(error) = self.transaction(|change| change.remove_orphans(ORPHAN_BATCH)) {
                        warn!(%error, "cannot remove what is left of a removed directory, will retry");
                        break;
                    }
                }
            }
        }
        commands.blocking_recv()
    }

    /// Runs `tasks`, those that go along, and what else is queued, in one transaction.
    fn group(&mut self, mut tasks: Vec<Box<dyn Task>>, commands: &mut mpsc::Receiver<Message>) {
        tasks.append(&mut self.along.lock());
        let mut weight: usize = tasks.iter().map(|task| task.weight()).sum();
        while weight < GROUP_WEIGHT {
            match commands.try_recv() {
                Ok(Message::Run(task)) => {
                    weight += task.weight();
                    tasks.push(task);
                }
                Ok(Message::Along) => tasks.append(&mut self.along.lock()),
                Ok(Message::Close) => commands.close(),
                Err(_) => break,
            }
        }
        if tasks.is_empty() {
            // another group took them along
            return;
        }
        let committed = self.transaction(|change| tasks.iter_mut().try_for_each(|task| task.run(change)));
        for task in tasks {
            task.answer(committed.clone());
        }
    }

    /// One transaction, committed and published; or nothing at all, and the database opened anew.
    fn transaction(&mut self, work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>) -> Result<(), IndexError> {
        if self.ledger.is_none() {
            self.reopen()?;
        }
        let result = self.try_transaction(work);
        if let Err(error) = &result {
            error!(%error, "an index transaction failed and was undone");
            self.ledger = None;
            // memory may know of what was undone
            self.shared.cache.reset(Err(error.clone()));
            if let Err(error) = self.reopen() {
                error!(%error, "cannot open the index again, will retry");
            }
        }
        result
    }

    fn try_transaction(
        &mut self,
        work: impl FnOnce(&mut Change<'_>) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let Run { ledger: Some(ledger), shared, graves, .. } = self else { return Err(IndexError::Closed) };
        let (txn, record) = ledger.begin()?;
        let fixed = (shared.defaults, shared.clock.wall());
        let mut change = Change::new(Tables::open(&txn, &record)?, &shared.cache, &shared.sequence, graves, fixed)?;
        work(&mut change)?;
        let Finished { dirty, changed, garbage_added, work, reservation } = change.finish()?;
        if !dirty {
            txn.abort()?;
            cache::settle(changed.settled);
            return Ok(());
        }
        ledger.commit(txn, record)?;
        let snapshot = Snapshot::take(ledger.database(), shared.defaults)?;
        self.has_orphans = snapshot.has_orphans;
        if let Some(reservation) = reservation {
            shared.sequence.reserved(reservation);
        }
        shared.cache.publish(snapshot, changed);
        if !work.is_empty() {
            shared.work.lock().extend(work);
            shared.work_added.notify_one();
        }
        if garbage_added {
            shared.garbage_added.notify_one();
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), IndexError> {
        let ledger = Ledger::open(&self.files, &self.shared.defaults, &self.shared.clock)?;
        let snapshot = Snapshot::take(ledger.database(), self.shared.defaults)?;
        self.has_orphans = snapshot.has_orphans;
        self.shared.cache.reset(Ok(snapshot));
        self.ledger = Some(ledger);
        Ok(())
    }
}
