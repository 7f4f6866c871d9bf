//! A request's body on its way to a host.
//!
//! A request that carries a proof of ours may have to be sent twice, since the host may want another nonce first. So
//! what has gone is kept until the answer's head is here, as long as it is little: [`Kept`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
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
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    /// What goes before the body: it was sent once already.
    again: VecDeque<Bytes>,
    kept: Option<Rc<Kept>>,
    limit: u64,
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

/// What of a body has gone, and the rest of it, for another try.
#[derive(Debug)]
pub(super) struct Kept {
    pieces: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    /// It was more than is kept; there is no other try.
    is_over: Cell<bool>,
    rest: RefCell<Option<Incoming>>,
    limit: u64,
    budget: Rc<Budget>,
}

/// Bytes that all bodies of one thread may keep together.
#[derive(Debug)]
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(KEPT_IN_ALL)))
    }
}

impl Kept {
    fn keep(&self, piece: &Bytes) {
        if self.is_over.get() {
            return;
        }
        let fits = self.bytes.get() + piece.len() <= KEPT_AT_MOST;
        match self.budget.0.get().checked_sub(piece.len()).filter(|_| fits) {
            Some(left) => {
                self.budget.0.set(left);
                self.bytes.set(self.bytes.get() + piece.len());
                self.pieces.borrow_mut().push_back(piece.clone());
            }
            None => self.stop(),
        }
    }

    fn give_back(&self) {
        self.pieces.borrow_mut().clear();
        self.budget.0.set(self.budget.0.get() + self.bytes.replace(0));
    }

    /// There is no other try.
    pub(super) fn stop(&self) {
        self.is_over.set(true);
        self.give_back();
    }

    /// The same body from its beginning, if that is here still. The try before must be over. What goes again is kept
    /// again.
    pub(super) fn again(self: &Rc<Self>) -> Option<(Upload, Rc<Progress>)> {
        if self.is_over.get() {
            return None;
        }
        let body = self.rest.borrow_mut().take()?;
        let progress = Rc::new(Progress::begin(Instant::now()));
        let again = std::mem::take(&mut *self.pieces.borrow_mut());
        self.give_back();
        let upload = Upload {
            body: Some(body),
            again,
            kept: Some(Rc::clone(self)),
            limit: self.limit,
            progress: Rc::clone(&progress),
            left: self.limit,
        };
        Some((upload, progress))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Longer inputs than this only `uploadBlob` and `importRepo` have.
pub(super) const KEPT_AT_MOST: usize = 1 << 20;
const KEPT_IN_ALL: usize = 8 << 20;

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
        let upload = Self {
            body: Some(body),
            again: VecDeque::new(),
            kept: None,
            limit,
            progress: Rc::clone(&progress),
            left: limit,
        };
        (upload, progress)
    }

    /// Keeps what goes, for another try.
    pub(super) fn keep(&mut self, budget: &Rc<Budget>) -> Rc<Kept> {
        let kept = Rc::new(Kept {
            pieces: RefCell::default(),
            bytes: Cell::new(0),
            is_over: Cell::new(false),
            rest: RefCell::default(),
            limit: self.limit,
            budget: Rc::clone(budget),
        });
        self.kept = Some(Rc::clone(&kept));
        kept
    }

    pub(super) fn tell(&self, state: State) {
        self.progress.state.set(state);
        self.progress.moved.set(Instant::now());
    }

    /// The next piece that the client has sent.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let polled = match (self.again.pop_front(), &mut self.body) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, Some(body)) => Pin::new(body).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        };
        let Poll::Ready(frame) = polled else {
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
                if let Some(kept) = &self.kept {
                    kept.keep(&data);
                }
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

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(kept), Some(body)) = (&self.kept, self.body.take()) {
            // What had gone before, and not this time.
            for piece in &self.again {
                kept.keep(piece);
            }
            *kept.rest.borrow_mut() = Some(body);
        }
    }
}
