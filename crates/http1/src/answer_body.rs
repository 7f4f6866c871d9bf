//! An answer's body, as it comes from the server.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::answer_framing::{AnswerFraming, Piece};
use crate::answer_head::KeepAlive;
use crate::clock::monotonic_now;
use crate::connection::UpstreamConnection;
use crate::pool::Permit;

/// An answer's body, as it comes from the server.
///
/// It holds its connection and the permit of its request. When the body has ended, the connection
/// goes back to the pool. Dropping the body before its end closes the connection.
#[derive(Debug)]
pub struct AnswerBody<B: Body<Data = Bytes> + Unpin> {
    /// How the rest of the body is framed.
    framing: AnswerFraming,
    connection: Option<Box<UpstreamConnection<B>>>,
    permit: Permit<B>,
    /// How long the connection may be kept afterwards.
    keep: KeepAlive,
    /// The longest wait from one byte to the next.
    idle: Duration,
    /// Bytes that may still come.
    left: u64,
    /// Runs while the body waits for the server. Most bodies arrive at once and never create it.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// The body was cut off, and the next poll reports it.
    is_cut: bool,
}

/// The body broke off. A client that receives the rest must not see a clean end.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct CutOff;

impl<B: Body<Data = Bytes> + Unpin> AnswerBody<B> {
    pub(crate) fn new(
        framing: AnswerFraming,
        connection: Box<UpstreamConnection<B>>,
        permit: Permit<B>,
        keep: KeepAlive,
        idle: Duration,
        most: u64,
    ) -> Self {
        Self {
            framing,
            connection: Some(connection),
            permit,
            keep,
            idle,
            left: most,
            timer: None,
            is_waiting: false,
            is_cut: false,
        }
    }

    /// Returns the whole body if it arrived along with its head, and gives the connection back to
    /// the pool.
    pub fn take_buffered(&mut self) -> Option<Bytes> {
        // A body beyond the limit is left to `poll_server`, which cuts it off.
        if self.is_cut || self.framing.rest()? > self.left {
            return None;
        }
        // A short answer usually arrives in one read. Taken here, it costs the server library no
        // further poll.
        let rest = self.connection.as_mut()?.take_buffered(&mut self.framing)?;
        self.give_back();
        Some(rest)
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        // When the body has ended, its connection is gone.
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        match connection.poll_body(&mut self.framing, cx) {
            Poll::Ready(Ok(Piece::Data(data))) => {
                // The framing may announce no length, so the limit counts the bytes that come.
                let Some(left) = self.left.checked_sub(data.len() as u64) else { return self.cut_off(cx) };
                self.left = left;
                if self.framing.is_over() {
                    self.give_back();
                }
                Poll::Ready(Some(Ok(data)))
            }
            // `poll_body` reads on after `NotYet`, so only `Over` comes here.
            Poll::Ready(Ok(Piece::Over | Piece::NotYet)) => {
                self.give_back();
                Poll::Ready(None)
            }
            // Whatever the cause, the status has already gone to the client. Only a cut can tell it
            // now.
            Poll::Ready(Err(_)) => self.cut_off(cx),
            Poll::Pending => self.poll_timer(cx),
        }
    }

    /// Waits for the server within the limit.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        // The timer of an earlier wait is reset: creating one costs an allocation and an entry in
        // the timer wheel.
        if !std::mem::replace(&mut self.is_waiting, true) {
            timer.as_mut().reset(monotonic_now() + idle);
        }
        if timer.as_mut().poll(cx).is_ready() { self.cut_off(cx) } else { Poll::Pending }
    }

    /// Closes the connection in the middle of the body.
    ///
    /// The error comes with the next poll and not with this one. A server library that gets an
    /// error drops what it has not sent yet; after `Pending` it sends that first.
    pub fn cut_off<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        // Dropping the connection closes it. The unread rest must not be taken for the next answer.
        self.connection = None;
        self.is_cut = true;
        // Nothing else would wake the task: the connection that it waited for is gone.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            Rc::clone(self.permit.pool()).give_back(connection, self.keep);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.is_cut {
            return Poll::Ready(Some(Err(CutOff)));
        }
        let polled = self.poll_server(cx);
        if polled.is_ready() {
            // The next wait starts a new limit: it is from one byte to the next.
            self.is_waiting = false;
        }
        polled.map(|frame| frame.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_cut && self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.rest().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        // A reader may drop a body whose last bytes it has, without polling for the end.
        if self.framing.is_over() && !self.is_cut {
            self.give_back();
        }
    }
}
