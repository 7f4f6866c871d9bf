//! A request's body on its way to a host.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;

/// The body of a request: counted, limited, and without trailers.
#[derive(Debug)]
pub(super) struct Upload {
    body: Incoming,
    progress: Rc<Progress>,
    /// Bytes that may still come.
    left: u64,
}

/// How far an upload is, seen from beside it.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the state last changed or a byte last came.
    pub(super) moved: Cell<Instant>,
    pub(super) state: Cell<State>,
    began: Instant,
    bytes: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The next bytes are the host's to take.
    WaitsForHost,
    /// The next bytes are the client's to send.
    WaitsForClient,
    /// All of it has gone to the host.
    Done,
    TooLarge,
    /// The client left or sent nonsense.
    Broken,
}

/// Ends the exchange; what it was is in the progress.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
pub(super) struct BrokenOff;

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
    pub(super) fn of(body: Incoming, limit: u64) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress::begin(Instant::now()));
        (Self { body, progress: Rc::clone(&progress), left: limit }, progress)
    }

    pub(super) fn tell(&self, state: State) {
        self.progress.state.set(state);
        self.progress.moved.set(Instant::now());
    }

    /// The next piece that the client has sent.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if self.progress.state.get() != State::WaitsForClient {
                self.tell(State::WaitsForClient);
            }
            return Poll::Pending;
        };
        self.tell(State::WaitsForHost);
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let Some(left) = self.left.checked_sub(data.len() as u64) else {
                    self.tell(State::TooLarge);
                    return Poll::Ready(Some(Err(BrokenOff)));
                };
                self.left = left;
                self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                Poll::Ready(Some(Ok(data)))
            }
            // Trailers do not cross; they end the body.
            None | Some(Ok(Err(_))) => Poll::Ready(None),
            Some(Err(_)) => {
                self.tell(State::Broken);
                Poll::Ready(Some(Err(BrokenOff)))
            }
        }
    }
}
