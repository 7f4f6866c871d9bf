//! The bodies that go back to clients.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http1::CutOff;
use hyper::body::Incoming;

use super::external::ReadPermit;
use super::shares::Place;

/// The body of any answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// Complete in memory.
    Whole(Option<Bytes>),
    /// From a method that Genkan answers itself.
    Local(axum::body::Body),
    /// From a host or an external PDS.
    Forwarded(ForwardedBody),
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

/// A forwarded body. Genkan can read its beginning before it goes on, and may count its bytes.
#[derive(Debug)]
pub(crate) struct ForwardedBody {
    /// The beginning that `peek` has read. It goes out first.
    ahead: Option<Bytes>,
    rest: http1::AnswerBody<Incoming>,
    /// The client's place at the server, which is free when the body is dropped.
    _place: Place,
    /// The permit of an external read, which counts the bytes of its client.
    read_permit: Option<Rc<ReadPermit>>,
}

impl ForwardedBody {
    pub(super) const fn new(
        rest: http1::AnswerBody<Incoming>,
        place: Place,
        read_permit: Option<Rc<ReadPermit>>,
    ) -> Self {
        Self { ahead: None, rest, _place: place, read_permit }
    }

    /// Reads the whole body if it has at most `most` bytes, and returns `None` if it has more. All
    /// bytes still come out of the body afterwards.
    pub(super) async fn peek(&mut self, most: usize) -> Result<Option<Bytes>, CutOff> {
        let mut seen = Vec::new();
        let mut whole = true;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                seen.extend_from_slice(&data);
            }
            // What is read is kept in memory, so an endless error must not be read to its end.
            if seen.len() > most {
                whole = false;
                break;
            }
        }
        let seen = Bytes::from(seen);
        self.ahead = (!seen.is_empty()).then(|| seen.clone());
        Ok(whole.then_some(seen))
    }

    /// Returns the whole body if it arrived along with its head.
    pub(super) fn take_buffered(&mut self) -> Option<Bytes> {
        // `peek` has read the beginning, so the rest alone would be taken for the whole.
        if self.ahead.is_some() {
            return None;
        }
        let whole = self.rest.take_buffered()?;
        if let Some(read_permit) = &self.read_permit {
            // These bytes have arrived, so they go out even if they exceed the limit. The client's
            // next read is refused.
            read_permit.spend(whole.len());
        }
        Some(whole)
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        if let Some(read_permit) = &self.read_permit
            && let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && !read_permit.spend(data.len())
        {
            // The status has gone out already, so the only way to refuse the rest is to cut the
            // answer.
            return self.rest.cut_off(cx);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(ahead + rest),
            None => SizeHint::default(),
        }
    }
}
