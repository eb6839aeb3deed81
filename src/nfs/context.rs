//! What every procedure has in hand, and the one way from an `Answer` to a reply.
//! Invariant: a procedure's encoder is written once; it runs into the connection's reply when the answer
//! is ready (no task, no allocation), into a body of its own when it comes later.

use std::sync::Arc;

use nfsserve::nfs::{fattr3, fileid3, nfsstat3};

use super::decode::{self, DirOp};
use super::encode;
use crate::fs::ext::{Answer, Caller, Failure, NfsExt, Refused, Wcc};
use crate::rpc::{Handled, LateReply, Outcome, Tail};

/// One call under way.
pub(super) struct Context<'a, F> {
    /// The file system.
    pub(super) fs: &'a Arc<F>,
    /// Who calls.
    pub(super) caller: Caller,
    /// The connection's output.
    pub(super) reply: &'a mut Vec<u8>,
}

impl<F: NfsExt> Context<'_, F> {
    /// Resolves `handle` and asks the file system about what it names.
    /// A bad handle (BADHANDLE, STALE) is the answer itself.
    pub(super) fn ask<T, E: From<nfsstat3>>(
        &self,
        handle: &[u8],
        question: impl FnOnce(&F, &Caller, fileid3) -> Answer<Result<T, E>>,
    ) -> Answer<Result<T, E>> {
        match self.fs.fileid_by(handle) {
            Ok(id) => question(self.fs, &self.caller, id),
            Err(status) => Answer::Now(Err(status.into())),
        }
    }

    /// Attributes of what `handle` names.
    pub(super) fn attributes(&self, handle: &[u8]) -> Answer<Result<fattr3, nfsstat3>> {
        self.ask(handle, |fs, caller, id| fs.getattr_by(caller, id))
    }

    /// Answers with `encode` of `answer`, at once or later.
    pub(super) fn finish<T: Send + 'static>(
        self,
        answer: Answer<T>,
        encode: impl FnOnce(&F, T, &mut Vec<u8>) -> Tail + Send + 'static,
    ) -> Handled {
        let future = match answer {
            Answer::Now(value) => return Handled::Done(Outcome::Success, encode(self.fs, value, self.reply)),
            Answer::Later(future) => future,
        };
        let fs = Arc::clone(self.fs);
        Handled::Later(Box::pin(async move {
            let mut body = Vec::new();
            let tail = encode(&fs, future.await, &mut body);
            LateReply { outcome: Outcome::Success, body, tail }
        }))
    }

    /// Answers a procedure whose error body is a `post_op_attr`: NFS3_OK and `encode`, or the failure.
    pub(super) fn finish_ok<T: Send + 'static>(
        self,
        answer: Answer<Result<T, Failure>>,
        encode: impl FnOnce(&F, T, &mut Vec<u8>) -> Tail + Send + 'static,
    ) -> Handled {
        self.finish(answer, |fs, result, out| match result {
            Ok(value) => {
                encode::ok(out);
                encode(fs, value, out)
            }
            Err(failure) => {
                encode::failure(out, failure);
                Tail::None
            }
        })
    }

    /// Refuses, with `status` and the attributes of what `handle` names: the answer of a procedure whose
    /// error body is a `post_op_attr`. A bad handle goes before.
    pub(super) fn refuse(self, handle: &[u8], status: nfsstat3) -> Handled {
        let answer = self.attributes(handle);
        self.finish(answer, move |_, attr, out| {
            encode::status(out, attr.err().unwrap_or(status));
            encode::post_op_attr(out, attr.as_ref().ok());
            Tail::None
        })
    }

    /// Answers a change whose error body is one `wcc_data`: NFS3_OK and `encode`, or the refusal.
    pub(super) fn finish_change<T: Send + 'static>(
        self,
        answer: Answer<Result<T, Refused>>,
        encode: impl FnOnce(&F, T, &mut Vec<u8>) + Send + 'static,
    ) -> Handled {
        self.finish(answer, |fs, result, out| {
            match result {
                Ok(value) => {
                    encode::ok(out);
                    encode(fs, value, out);
                }
                Err(refused) => encode::refused(out, &refused),
            }
            Tail::None
        })
    }

    /// Asks for a change of an entry of a directory, whose name is checked first: after the handle, before
    /// everything else.
    pub(super) fn ask_entry<T: Send + 'static>(
        &self,
        place: DirOp<'_>,
        question: impl FnOnce(&F, &Caller, fileid3) -> Answer<Result<T, Refused>>,
    ) -> Answer<Result<T, Refused>> {
        match decode::check_name(place.name) {
            Ok(()) => self.ask(place.dir, question),
            Err(status) => self.refusal(place.dir, status),
        }
    }

    /// `status` with the attributes of what `handle` names, which nothing has changed. A bad handle goes before.
    pub(super) fn refusal<T: Send + 'static>(&self, handle: &[u8], status: nfsstat3) -> Answer<Result<T, Refused>> {
        self.attributes(handle).map(move |attr| {
            let refused = |attr| Refused { status, wcc: Wcc { before: None, after: Some(attr) } };
            Err(attr.map_or_else(Refused::from, refused))
        })
    }
}
