//! One HTTP/1.1 connection to a host, driven by whoever uses it.
//!
//! There is no task beside it, and no channel: the request's own task sends the request and reads the head, and the
//! answer's body reads on. So it pushes back on the host exactly as fast as the client reads, and is cut the moment
//! a client leaves.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

use super::answer_head::{self, AnswerHead, Asked};
use super::dial::Wire;
use super::error::Cause;
use super::framing::{Framing, Piece};
use super::pump::{Outgoing, SendError};
use super::request_head::Length;
use super::upload::Upload;

/// One connection to a host.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    outgoing: Outgoing,
    /// What was read and not taken yet.
    read: BytesMut,
    /// The room for it has grown beyond what a head needs.
    is_wide: bool,
    /// Until when it may be lent again.
    pub(super) keep_until: Instant,
}

/// How an exchange failed.
#[derive(Debug)]
pub(super) struct Broken {
    /// A byte of an answer had come.
    pub(super) answered: bool,
    pub(super) cause: Cause,
}

impl Link {
    pub(super) fn over(wire: Wire, keep_until: Instant) -> Self {
        Self { wire, outgoing: Outgoing::new(), read: BytesMut::new(), is_wide: false, keep_until }
    }

    /// Begins a request. Its head is to be written into the bytes that come back.
    pub(super) fn begin(&mut self, upload: Option<Upload>, length: Length) -> &mut Vec<u8> {
        self.outgoing.begin(upload, length)
    }

    /// Sends the request and waits for the head of its answer.
    pub(super) async fn head(&mut self, asked: Asked) -> Result<AnswerHead, Broken> {
        let mut progress = Progress::default();
        poll_fn(|cx| self.poll_head(asked, &mut progress, cx))
            .await
            .map_err(|cause| Broken { answered: progress.bytes > 0, cause })
    }

    fn poll_head(
        &mut self,
        asked: Asked,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, Cause>> {
        // Where the host takes no more, it may have answered before it hung up. Its end is to be read as well.
        if let Poll::Ready(Err(SendError::Client)) = self.outgoing.poll(&mut self.wire, cx) {
            return Poll::Ready(Err(Cause::Upload));
        }
        loop {
            while let Some(end) = answer_head::end(&self.read, progress.looked_at) {
                progress.looked_at = 0;
                let head = self.read.split_to(end).freeze();
                match answer_head::read(&head, asked) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(Cause::Framing)),
                }
            }
            progress.looked_at = self.read.len();
            // No head has ended in all that: it is endless, or interim answers are.
            if progress.bytes > MAX_HEAD {
                return Poll::Ready(Err(Cause::Framing));
            }
            match self.poll_read(HEAD_READ, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Cause::Closed)),
                Poll::Ready(Ok(count)) => progress.bytes += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Cause::Broken(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next piece of an answer's body. What is left of the request is sent meanwhile.
    pub(super) fn poll_body(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Piece, Cause>> {
        if !self.outgoing.is_done()
            && let Poll::Ready(Err(SendError::Client)) = self.outgoing.poll(&mut self.wire, cx)
        {
            return Poll::Ready(Err(Cause::Upload));
        }
        loop {
            match framing.take(&mut self.read) {
                Ok(Piece::NotYet) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(_) => return Poll::Ready(Err(Cause::Framing)),
            }
            let want =
                framing.rest().map_or(WINDOW, |rest| usize::try_from(rest).unwrap_or(WINDOW).min(WINDOW));
            match self.poll_read(want, cx) {
                Poll::Ready(Ok(0)) if framing.close().is_err() => return Poll::Ready(Err(Cause::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Cause::Broken(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// All that is left of an answer's body, if it was read already.
    pub(super) fn rest_at_hand(&mut self, framing: &mut Framing) -> Option<bytes::Bytes> {
        let rest = framing.rest()?;
        if rest == 0 {
            return Some(bytes::Bytes::new());
        }
        if (self.read.len() as u64) < rest {
            return None;
        }
        match framing.take(&mut self.read) {
            Ok(Piece::Data(data)) => Some(data),
            _ => None,
        }
    }

    fn poll_read(&mut self, want: usize, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.is_wide |= want > HEAD_READ;
        self.read.reserve(want);
        pin!(self.wire.read_buf(&mut self.read)).poll(cx)
    }

    /// Whether the last exchange is over on both sides, and another may begin.
    ///
    /// Only asked when the answer's body has ended. The host may still be reading the request, or have sent bytes
    /// that nobody asked for, or have closed: then the connection is not lent again.
    pub(super) fn settles(&mut self) -> bool {
        let mut byte = [0];
        let mut surplus = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        self.outgoing.is_done()
            && self.read.is_empty()
            && Pin::new(&mut self.wire).poll_read(&mut cx, &mut surplus).is_pending()
    }

    /// Keeps no more memory than the next head needs.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.is_wide) {
            self.read = BytesMut::new();
        }
    }
}

/// How far the wait for a head is.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that came in all.
    bytes: usize,
    /// Bytes of those at hand in which no head ends.
    looked_at: usize,
}

/// What is read at once while a head is waited for: nearly always all of a small answer.
const HEAD_READ: usize = 8 << 10;
/// The window of a stream: what one connection may hold of a body that its client has not taken yet.
const WINDOW: usize = 64 << 10;
/// Bytes a host may send before the head of its answer is whole, interim answers included.
const MAX_HEAD: usize = 64 << 10;
