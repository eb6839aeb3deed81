//! A body on its way out, in pieces, so that a line which stands still is told from one that is slow: no bound on the
//! whole of an upload can be right for both.
//! Invariant: pieces are cut, not copied; the signature was made over the whole before.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;

/// The HTTP client takes the next piece when there is room for it, so each one is a sign of life.
const PIECE_BYTES: usize = 64 << 10;

/// Gives each try of a request `body` in pieces, and tells when one was taken.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    body: Bytes,
    moved: watch::Sender<()>,
}

impl Outgoing {
    pub(super) fn new(body: Bytes) -> Outgoing {
        Outgoing { body, moved: watch::Sender::new(()) }
    }

    /// What `sending` comes to; `None` when for `longest` no piece was taken and no answer came.
    pub(super) async fn unless_still<T>(&self, sending: impl Future<Output = T>, longest: Duration) -> Option<T> {
        let mut moved = self.moved.subscribe();
        let mut sending = pin!(sending);
        loop {
            tokio::select! {
                biased;
                done = &mut sending => return Some(done),
                // The sender lives in `self`, so only time can end this without a move.
                change = tokio::time::timeout(longest, moved.changed()) => change.ok()?.ok()?,
            }
        }
    }
}

impl Intercept for Outgoing {
    fn name(&self) -> &'static str {
        "Outgoing"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.moved.send_replace(());
        if self.body.len() > PIECE_BYTES {
            let pieces = Pieces { rest: self.body.clone(), moved: self.moved.clone() };
            *context.request_mut().body_mut() = SdkBody::from_body_1_x(pieces);
        }
        Ok(())
    }
}

struct Pieces {
    rest: Bytes,
    moved: watch::Sender<()>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.moved.send_replace(());
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
