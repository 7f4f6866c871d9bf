//! One HTTP/1.1 connection to a server, driven by the task that uses it.
//!
//! No task and no channel belongs to a connection. The task of a request sends it and reads the
//! head of its answer, and whoever polls the answer's body reads on. So a slow reader of the body
//! slows down the server, and dropping the answer closes the connection at once.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

use crate::answer_framing::{AnswerFraming, Piece};
use crate::answer_head::{self, AnswerFields, AnswerHead};
use crate::error::Cause;
use crate::outgoing::{Outgoing, SendError};
use crate::request_head::BodyLength;
use crate::stream::Stream;
use crate::upload::Upload;

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct UpstreamConnection<B> {
    stream: Stream,
    outgoing: Outgoing<B>,
    /// Bytes that were read and not taken yet.
    read: BytesMut,
    /// Whether the memory of `read` has grown beyond what a head needs.
    is_wide: bool,
    /// The time until which the connection may be used again.
    pub(crate) keep_until: Instant,
}

/// Why no head of an answer came.
#[derive(Debug)]
pub(crate) struct HeadError {
    /// Whether a byte of an answer had come.
    pub(crate) answered: bool,
    pub(crate) cause: Cause,
}

impl<B: Body<Data = Bytes> + Unpin> UpstreamConnection<B> {
    pub(crate) fn new(stream: Stream, keep_until: Instant) -> Self {
        Self { stream, outgoing: Outgoing::new(), read: BytesMut::new(), is_wide: false, keep_until }
    }

    /// Begins a request. The caller writes its head into the bytes that it gets.
    pub(crate) fn begin(&mut self, upload: Option<Upload<B>>, length: BodyLength) -> &mut Vec<u8> {
        self.outgoing.begin(upload, length)
    }

    /// Sends the request and waits for the head of its answer.
    pub(crate) async fn head<F: AnswerFields>(
        &mut self,
        to_head: bool,
        fields: &mut F,
    ) -> Result<AnswerHead, HeadError> {
        let mut progress = Progress::default();
        poll_fn(|cx| self.poll_head(to_head, fields, &mut progress, cx))
            .await
            .map_err(|cause| HeadError { answered: progress.bytes > 0, cause })
    }

    fn poll_head<F: AnswerFields>(
        &mut self,
        to_head: bool,
        fields: &mut F,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, Cause>> {
        // A server that stops reading may have answered first, for instance to refuse an upload. So
        // only a fault of the body ends the exchange here, and the read below finds the answer.
        if let Poll::Ready(Err(SendError::Body)) = self.outgoing.poll(&mut self.stream, cx) {
            return Poll::Ready(Err(Cause::Upload));
        }
        loop {
            while let Some(end) = answer_head::find_end(&self.read, progress.searched) {
                progress.searched = 0;
                // Frozen, not copied: header values share this memory.
                let head = self.read.split_to(end).freeze();
                match answer_head::read_answer_head(&head, to_head, fields) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    // An interim answer. The read that brought it may also contain the next head.
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(Cause::Framing)),
                }
            }
            progress.searched = self.read.len();
            // So many bytes without a final head: the head is endless, or the interim answers are.
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

    /// Returns the next piece of an answer's body, and sends the rest of the request meanwhile.
    pub(crate) fn poll_body(
        &mut self,
        framing: &mut AnswerFraming,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Piece, Cause>> {
        if !self.outgoing.is_done()
            // A server may answer before it has read the whole request. Without this the rest would
            // never leave, and both sides would wait.
            && let Poll::Ready(Err(SendError::Body)) = self.outgoing.poll(&mut self.stream, cx)
        {
            return Poll::Ready(Err(Cause::Upload));
        }
        loop {
            match framing.take(&mut self.read) {
                Ok(Piece::NotYet) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(_) => return Poll::Ready(Err(Cause::Framing)),
            }
            // No more than the body still needs: surplus bytes would keep the connection out of the
            // pool.
            let want =
                framing.rest().map_or(WINDOW, |rest| usize::try_from(rest).unwrap_or(WINDOW).min(WINDOW));
            match self.poll_read(want, cx) {
                // Only a body that lasts until the connection's end is complete now. Any other is
                // cut short.
                Poll::Ready(Ok(0)) if framing.close().is_err() => return Poll::Ready(Err(Cause::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Cause::Broken(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Returns the whole rest of an answer's body, if it was already read.
    pub(crate) fn take_buffered(&mut self, framing: &mut AnswerFraming) -> Option<Bytes> {
        let rest = framing.rest()?;
        if rest == 0 {
            return Some(Bytes::new());
        }
        // Either the whole rest or nothing is taken: a caller that gets `None` goes on with
        // `poll_body`.
        if (self.read.len() as u64) < rest {
            return None;
        }
        match framing.take(&mut self.read) {
            Ok(Piece::Data(data)) => Some(data),
            _ => None,
        }
    }

    fn poll_read(&mut self, want: usize, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        // Recorded here, because the buffer's own capacity changes as parts of it are split off.
        self.is_wide |= want > HEAD_READ;
        self.read.reserve(want);
        pin!(self.stream.read_buf(&mut self.read)).poll(cx)
    }

    /// Whether the last exchange is over on both sides, so that another may begin.
    ///
    /// Asked only when the answer's body has ended. A connection is not used again if the server
    /// still reads the request, has sent bytes without a request, or has closed it.
    pub(crate) fn is_reusable(&mut self) -> bool {
        // A read that would block means an open connection without surplus bytes. A surplus byte
        // would be taken for the next request's answer.
        let mut byte = [0];
        let mut surplus = ReadBuf::new(&mut byte);
        // No waker is needed: the answer to this one question is used at once.
        let mut cx = Context::from_waker(Waker::noop());
        self.outgoing.is_done()
            && self.read.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut cx, &mut surplus).is_pending()
    }

    /// Releases memory beyond what the next head needs. Thousands of connections may be idle.
    pub(crate) fn shrink(&mut self) {
        if std::mem::take(&mut self.is_wide) {
            self.read = BytesMut::new();
        }
    }
}

/// The progress of the wait for a head.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that have come in all.
    bytes: usize,
    /// Bytes at the beginning of `read` in which no head ends.
    searched: usize,
}

/// Bytes per read while the head is awaited. A small answer nearly always arrives in one read.
const HEAD_READ: usize = 8 << 10;
/// Bytes of a body that one connection may hold before its reader takes them.
const WINDOW: usize = 64 << 10;
/// Bytes that a server may send before the head of its answer is whole, interim answers included.
const MAX_HEAD: usize = 64 << 10;
