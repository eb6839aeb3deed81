//! What others say has changed: S3's events and other servers. Sources hand hints in, one place takes them.
//! Owns: the sources' tasks, the order of hints of one key, which source is healthy.
//! Invariants
//! - A hint carries no truth: it makes an entry be distrusted, and where it pays be asked about at once. What S3 answers
//!   goes where every answer goes. So a lost, doubled, late, reordered or forged hint costs a request at most.
//! - What was told is applied when `Intake::tell` returns: no answer given later trusts what was there before. It is
//!   in memory alone, and that is enough: after a start everything is distrusted once.
//! - Memory is bounded, whatever comes in; a source that brings more than is taken waits.
//!
//! `intake` takes what is told, `types::Hint`s, in `order` and, where it comes in a `wave`, at its leisure; `health` says
//! whether the sources can be relied on; those are `sqs` and `webhook`, which `sources` starts, and `peers`.

pub mod check;
pub mod health;
pub mod intake;
mod order;
pub mod peers;
pub mod queue_url;
pub mod records;
pub mod scope;
pub mod secret;
pub mod setup;
pub mod source;
pub mod sources;
pub mod sqs;
mod wave;
pub mod webhook;

pub use health::{Beat, Health, Standing};
pub use intake::{Counts, Intake};
pub use peers::Peers;
pub use queue_url::QueueUrl;
pub use scope::Scope;
pub use secret::Secret;
pub use source::{Heartbeat, Source, SourceHealth, SourceState};
pub use sources::Sources;

pub use crate::types::{Hint, Origin, Said, Sequencer};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What became of the hints of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// Something here is distrusted for them now.
    pub applied: usize,
    /// What is here is what they tell: our own writes come back like this.
    pub echoes: usize,
    /// A later one of the same key was there before.
    pub outdated: usize,
    /// Of nothing that is here.
    pub elsewhere: usize,
}

/// Where the sources bring their hints.
#[async_trait]
pub trait Tell: Send + Sync + 'static {
    /// Takes hints; they are applied when it returns. Waits while there are too many.
    async fn tell(&self, hints: Vec<Hint>) -> Told;

    /// Something may have been said before this source listened: from now on nothing that is here is trusted, as after a
    /// start. S3 is asked about it behind the next answers.
    async fn distrust_all(&self);
}
