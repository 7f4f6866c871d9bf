//! What goes back to the client.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::answer_head::Keep;
use super::bounds::Ticket;
use super::framing::{Framing, Piece};
use super::link::Link;
use super::upstream::Permit;

/// The body of any answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// Known whole.
    Whole(Option<Bytes>),
    /// Of a method that Genkan answers itself.
    Local(axum::body::Body),
    /// Of a host.
    Forwarded(Forwarded),
}

impl AnswerBody {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Forwarded(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Local(body) => Pin::new(body).poll_frame(cx).map_err(|_| CutOff),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Forwarded(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
            Self::Local(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Forwarded(body) => body.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Local(body) => body.size_hint(),
        }
    }
}

/// The answer broke off on its way. The client's connection is cut as well: a clean end would be a lie.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct CutOff;

/// A host's body, as it comes.
///
/// Holds the connection that it comes over and the permit of its request. Both go back when the body has ended; a
/// body dropped before its end takes the connection down with it.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// What was read ahead of the rest.
    ahead: Option<Bytes>,
    /// How the rest of it is framed.
    framing: Framing,
    link: Option<Box<Link>>,
    permit: Permit,
    /// How long the connection may be kept afterwards.
    keep: Keep,
    idle: Duration,
    /// Bytes that may still come.
    left: u64,
    /// Leave for a read elsewhere, which counts the bytes.
    pub(super) ticket: Option<Rc<Ticket>>,
    /// Set while we wait for the host.
    patience: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// It has broken off; the next poll says so.
    is_cut: bool,
}

impl Forwarded {
    pub(super) fn new(
        framing: Framing,
        link: Box<Link>,
        permit: Permit,
        keep: Keep,
        idle: Duration,
        most: u64,
    ) -> Self {
        Self {
            ahead: None,
            framing,
            link: Some(link),
            permit,
            keep,
            idle,
            left: most,
            ticket: None,
            patience: None,
            is_waiting: false,
            is_cut: false,
        }
    }

    /// Reads ahead at most so many bytes. `Ok(None)`: there are more; they are all still to come out of the body.
    pub(super) async fn peek(&mut self, most: usize) -> Result<Option<Bytes>, CutOff> {
        let mut seen = Vec::new();
        let mut whole = true;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                seen.extend_from_slice(&data);
            }
            if seen.len() > most {
                whole = false;
                break;
            }
        }
        let seen = Bytes::from(seen);
        self.ahead = (!seen.is_empty()).then(|| seen.clone());
        Ok(whole.then_some(seen))
    }

    /// The whole body, if it came along with its head. The connection is given back then: all of it is here.
    pub(super) fn at_hand(&mut self) -> Option<Bytes> {
        if self.ahead.is_some() || self.is_cut || self.framing.rest()? > self.left {
            return None;
        }
        let rest = self.link.as_mut()?.rest_at_hand(&mut self.framing)?;
        self.give_back();
        if let Some(ticket) = &self.ticket {
            // It is here already; the next read will notice.
            ticket.spend(rest.len());
        }
        Some(rest)
    }

    fn poll_host(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        // There is none when it has ended.
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        match link.poll_body(&mut self.framing, cx) {
            Poll::Ready(Ok(Piece::Data(data))) => {
                let Some(left) = self.left.checked_sub(data.len() as u64) else { return self.cut(cx) };
                self.left = left;
                if self.ticket.as_ref().is_some_and(|ticket| !ticket.spend(data.len())) {
                    return self.cut(cx);
                }
                if self.framing.is_over() {
                    self.give_back();
                }
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Ok(Piece::Over | Piece::NotYet)) => {
                self.give_back();
                Poll::Ready(None)
            }
            Poll::Ready(Err(_)) => self.cut(cx),
            Poll::Pending => self.poll_patience(cx),
        }
    }

    /// Waits for the host, but not for longer than the limit.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        let idle = self.idle;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            patience.as_mut().reset(Instant::now() + idle);
        }
        if patience.as_mut().poll(cx).is_ready() { self.cut(cx) } else { Poll::Pending }
    }

    /// Ends both connections in the middle. Says so only when polled once more, so that what came before is sent.
    fn cut(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        self.link = None;
        self.is_cut = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            Rc::clone(self.permit.upstream()).give_back(link, self.keep);
        }
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        if self.is_cut {
            return Poll::Ready(Some(Err(CutOff)));
        }
        let polled = self.poll_host(cx);
        if polled.is_ready() {
            self.is_waiting = false;
        }
        polled.map(|frame| frame.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && !self.is_cut && self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        match self.framing.rest() {
            Some(rest) => SizeHint::with_exact(ahead + rest),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if self.framing.is_over() && !self.is_cut {
            self.give_back();
        }
    }
}
