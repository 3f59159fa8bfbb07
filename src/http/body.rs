//! Bodies: of requests, bounded in length and time; of answers, which end a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connection::Busy;

/// Bytes that a client must send in a millisecond for longer bodies to get longer times.
const SLOWEST_PER_MS: u64 = 8;

/// What became of a request's body.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    pub fn too_large(&self) -> bool {
        self.0.load(Relaxed) == 1
    }

    pub fn too_slow(&self) -> bool {
        self.0.load(Relaxed) == 2
    }

    fn end(&self, fate: u8) -> BoxError {
        self.0.store(fate, Relaxed);
        match fate {
            1 => "the body is too long".into(),
            _ => "the body did not come in time".into(),
        }
    }
}

/// The body of a request.
pub(super) struct Bounded {
    inner: Incoming,
    left: u64,
    received: u64,
    began: Option<Instant>,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    fate: Fate,
}

impl Bounded {
    pub fn new(inner: Incoming, bytes_max: u64, stall: Duration, fate: Fate) -> Bounded {
        Bounded { inner, left: bytes_max, received: 0, began: None, stall, timer: None, fate }
    }

    /// Until when the next piece has to come.
    fn deadline(&mut self) -> Instant {
        let began = *self.began.get_or_insert_with(Instant::now);
        began + self.stall + Duration::from_millis(self.received / SLOWEST_PER_MS)
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.timer = None;
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame.map(|f| f.map_err(Into::into))) };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.received += length;
            return Poll::Ready(Some(match self.left.checked_sub(length) {
                Some(left) => {
                    self.left = left;
                    Ok(frame)
                }
                None => Err(self.fate.end(1)),
            }));
        }
        let deadline = self.deadline();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err(self.fate.end(2)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer.
pub(super) struct Answer {
    inner: Body,
    busy: Busy,
    /// Counts the request as one in flight.
    _counted: Box<dyn Send + Sync>,
}

impl Answer {
    pub fn new(inner: Body, mut busy: Busy, counted: Box<dyn Send + Sync>) -> Answer {
        busy.waits_for_us(false);
        Answer { inner, busy, _counted: counted }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.busy.waits_for_us(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
