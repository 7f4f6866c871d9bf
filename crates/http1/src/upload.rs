//! A request's body on its way to a server.
//!
//! Some requests have to be sent twice, because the first answer names a nonce that the second
//! request must carry. So a small body is kept until the answer's head has come: [`KeptBody`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::monotonic_now;
use crate::error::Error;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::Instant;

/// The body of a request, counted, limited and without trailers.
#[derive(Debug)]
pub struct Upload<B> {
    /// `None` only while the upload is being dropped.
    body: Option<B>,
    /// Pieces that an earlier try already took from the body. They are sent first.
    again: VecDeque<Bytes>,
    kept: Option<Rc<KeptBody<B>>>,
    /// The most bytes that the body may have.
    limit: u64,
    progress: Rc<UploadProgress>,
    /// Bytes that may still come.
    left: u64,
}

/// The progress of an upload, for the task that waits for the answer.
#[derive(Debug)]
pub struct UploadProgress {
    /// When the state last changed or a byte last came.
    pub(crate) moved: Cell<Instant>,
    pub(crate) state: Cell<UploadState>,
    began: Instant,
    bytes: Cell<u64>,
}

/// The state of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// The server has to take the bytes that came last.
    WaitsForServer,
    /// The source has to send the next bytes.
    WaitsForSource,
    /// The whole body has been sent.
    Done,
    /// The body is longer than its limit.
    TooLarge,
    /// The body broke off, or is not as long as was announced.
    Broken,
}

/// The sent part of a small body and the rest of it, for another try.
#[derive(Debug)]
pub struct KeptBody<B> {
    pieces: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    /// The body was longer than what is kept, or is no longer needed. There is no further try.
    is_over: Cell<bool>,
    /// The source, if a try ended before it did.
    rest: RefCell<Option<B>>,
    limit: u64,
    budget: Rc<KeepBudget>,
}

/// Bytes that all kept bodies of one thread may have together.
#[derive(Debug)]
pub struct KeepBudget(Cell<usize>);

impl KeepBudget {
    /// The whole budget: 8 MiB.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(KEPT_IN_ALL)))
    }
}

impl<B> KeptBody<B> {
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
            // A body with a missing part cannot be sent again, so the kept part is released too.
            None => self.stop(),
        }
    }

    fn give_back(&self) {
        self.pieces.borrow_mut().clear();
        // `replace` leaves zero, so a second call, as in `drop`, returns nothing twice.
        self.budget.0.set(self.budget.0.get() + self.bytes.replace(0));
    }

    /// Stops keeping the body: the answer has come, and there is no further try.
    pub fn stop(&self) {
        self.is_over.set(true);
        self.give_back();
    }

    /// Returns the body from its beginning, if all of it was kept. The upload of the earlier try
    /// must have been dropped. What is sent again is kept again.
    pub fn again(self: &Rc<Self>) -> Option<(Upload<B>, Rc<UploadProgress>)> {
        if self.is_over.get() {
            return None;
        }
        // The source is back only once the upload of the earlier try has been dropped.
        let body = self.rest.borrow_mut().take()?;
        let progress = Rc::new(UploadProgress::new(monotonic_now()));
        let again = std::mem::take(&mut *self.pieces.borrow_mut());
        // Returned to the budget first. Each piece is charged again when it is sent again.
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

impl<B> Drop for KeptBody<B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The longest body that is kept for another try, in bytes.
pub const KEPT_AT_MOST: usize = 1 << 20;
const KEPT_IN_ALL: usize = 8 << 20;

/// The body cannot be sent to its end. Its progress says why.
#[derive(Debug)]
pub(crate) struct UploadError;

impl UploadProgress {
    const fn new(began: Instant) -> Self {
        Self {
            moved: Cell::new(began),
            state: Cell::new(UploadState::WaitsForServer),
            began,
            bytes: Cell::new(0),
        }
    }

    /// How far the upload is.
    pub fn state(&self) -> UploadState {
        self.state.get()
    }

    /// Whether the source has sent less than `rate` bytes per second on average, past the grace.
    pub(crate) fn is_too_slow(&self, now: Instant, grace: Duration, rate: u64) -> bool {
        let elapsed = now.duration_since(self.began);
        self.state.get() == UploadState::WaitsForSource
            // Checked only while the source is awaited: while the server reads nothing, no bytes
            // can come.
            && elapsed > grace
            && self.bytes.get() < rate.saturating_mul(elapsed.as_secs())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// A body of at most `limit` bytes.
    pub fn new(body: B, limit: u64) -> (Self, Rc<UploadProgress>) {
        let progress = Rc::new(UploadProgress::new(monotonic_now()));
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

    /// Keeps what is sent, for another try.
    pub fn keep(&mut self, budget: &Rc<KeepBudget>) -> Rc<KeptBody<B>> {
        let kept = Rc::new(KeptBody {
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

    /// Reads the whole body and returns it. It is then sent from memory. Comes before
    /// [`keep`](Self::keep), so that no piece is kept twice.
    ///
    /// # Errors
    ///
    /// [`Error::BodyTooLarge`] or [`Error::BrokenBody`].
    pub async fn read_ahead(&mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_data(cx)).await {
            let piece = piece.map_err(|UploadError| match self.progress.state() {
                UploadState::TooLarge => Error::BodyTooLarge,
                _ => Error::BrokenBody,
            })?;
            whole.extend_from_slice(&piece);
        }
        let whole = whole.freeze();
        // Counted once more when it is sent.
        self.left = self.limit;
        self.progress.bytes.set(0);
        // An empty piece would be written as the last chunk.
        if !whole.is_empty() {
            self.again.push_back(whole.clone());
        }
        Ok(whole)
    }

    pub(crate) fn report(&self, state: UploadState) {
        self.progress.state.set(state);
        self.progress.moved.set(monotonic_now());
    }

    /// The next piece of the body.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadError>>> {
        let polled = match (self.again.pop_front(), &mut self.body) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, Some(body)) => Pin::new(body).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        };
        let Poll::Ready(frame) = polled else {
            // Reported only when the state changes: for the idle limit, `moved` must stay at the
            // last byte.
            if self.progress.state.get() != UploadState::WaitsForSource {
                self.report(UploadState::WaitsForSource);
            }
            return Poll::Pending;
        };
        self.report(UploadState::WaitsForServer);
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                // The limit counts received bytes and not the announced length, which a chunked
                // body does not have.
                let Some(left) = self.left.checked_sub(data.len() as u64) else {
                    self.report(UploadState::TooLarge);
                    return Poll::Ready(Some(Err(UploadError)));
                };
                self.left = left;
                self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                if let Some(kept) = &self.kept {
                    kept.keep(&data);
                }
                Poll::Ready(Some(Ok(data)))
            }
            // Trailers are not forwarded. They end the body.
            None | Some(Ok(Err(_))) => Poll::Ready(None),
            Some(Err(_)) => {
                self.report(UploadState::Broken);
                Poll::Ready(Some(Err(UploadError)))
            }
        }
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        if let (Some(kept), Some(body)) = (&self.kept, self.body.take()) {
            // An earlier try sent these pieces and this one has not, so they are kept for the next
            // try.
            for piece in &self.again {
                kept.keep(piece);
            }
            *kept.rest.borrow_mut() = Some(body);
        }
    }
}
