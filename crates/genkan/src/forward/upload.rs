//! A request's body on its way to a host.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

/// The body of an upstream request: counted, limited, and without trailers.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Option<Incoming>,
    progress: Option<Rc<Progress>>,
    /// Bytes that may still come.
    left: u64,
}

/// How far an upload is, seen from beside it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When the state last changed or a byte last came.
    pub(crate) moved: Cell<Instant>,
    pub(crate) state: Cell<State>,
    began: Instant,
    bytes: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The next bytes are the host's to take.
    WaitsForHost,
    /// The next bytes are the client's to send.
    WaitsForClient,
    Done,
    TooLarge,
    /// The client left or sent nonsense.
    Broken,
}

/// Ends the upstream request; what it was is in the progress.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
pub(crate) struct BrokenOff;

impl Progress {
    const fn begin(began: Instant) -> Self {
        Self { moved: Cell::new(began), state: Cell::new(State::WaitsForHost), began, bytes: Cell::new(0) }
    }

    /// Whether the client sends less than `rate` bytes in a second, on average, and has done so past the grace.
    pub(super) fn trickles(&self, now: Instant, grace: Duration, rate: u64) -> bool {
        let elapsed = now.duration_since(self.began);
        self.state.get() == State::WaitsForClient
            && elapsed > grace
            && self.bytes.get() < rate.saturating_mul(elapsed.as_secs())
    }
}

impl Upload {
    pub(crate) const fn none() -> Self {
        Self { body: None, progress: None, left: 0 }
    }

    pub(crate) fn of(body: Incoming, limit: u64) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress::begin(Instant::now()));
        (Self { body: Some(body), progress: Some(Rc::clone(&progress)), left: limit }, progress)
    }

    fn tell(&self, state: State) {
        if let Some(progress) = &self.progress {
            progress.state.set(state);
            progress.moved.set(Instant::now());
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            if self.progress.as_ref().is_some_and(|at| at.state.get() != State::WaitsForClient) {
                self.tell(State::WaitsForClient);
            }
            return Poll::Pending;
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let Some(left) = self.left.checked_sub(data.len() as u64) else {
                    self.tell(State::TooLarge);
                    return Poll::Ready(Some(Err(BrokenOff)));
                };
                self.left = left;
                if let Some(progress) = &self.progress {
                    progress.bytes.set(progress.bytes.get() + data.len() as u64);
                }
                self.tell(if self.is_end_stream() { State::Done } else { State::WaitsForHost });
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // Trailers do not cross; they end the body.
            None | Some(Ok(Err(_))) => {
                self.tell(State::Done);
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.tell(State::Broken);
                Poll::Ready(Some(Err(BrokenOff)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
