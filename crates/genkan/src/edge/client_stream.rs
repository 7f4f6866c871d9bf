//! A client's connection as hyper sees it: bytes pass the strict reader, and waits are recorded as
//! activity.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::StatusCode;
use http1::{RequestFraming, write_parts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::{Activity, Disposition};
use super::answer::last_answer;
use crate::base::monotonic_now;
use crate::wire::XrpcError;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    stream: TcpStream,
    /// `None` on HTTP/2, whose frames leave no doubt about where a request ends.
    framing: Option<RequestFraming>,
    activity: Rc<Activity>,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, framing: Option<RequestFraming>, activity: Rc<Activity>) -> Self {
        activity.unsent.tighten(&stream);
        Self { stream, framing, activity }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Whether the next byte that is read begins a request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.framing.as_ref().is_some_and(RequestFraming::is_between_requests)
    }

    /// Reports an error to the client, if no answer is under way, and stops reading.
    fn refuse(&self, error: &XrpcError) -> Poll<io::Result<()>> {
        // Within an answer, or before the answer to an earlier request, the client would take these
        // bytes for part of that answer.
        if self.activity.is_quiet() {
            // A client that has left cannot be told, and nothing depends on it.
            let _ = self.stream.try_write(&last_answer(error));
        }
        self.activity.escalate(Disposition::Refused);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused")))
    }

    fn note_written(&self, outcome: &Poll<io::Result<usize>>) {
        // Noted once per wait: the limit counts from the first write that had to wait.
        let Activity { intake, unsent, blocked_since, .. } = &*self.activity;
        match outcome {
            Poll::Pending => {
                let has_taken = unsent.waits(&self.stream, intake);
                if has_taken || blocked_since.get().is_none() {
                    blocked_since.set(Some(monotonic_now()));
                }
            }
            Poll::Ready(Ok(count)) => {
                intake.take(*count);
                unsent.written(&self.stream, intake);
                blocked_since.set(None);
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.activity.disposition() {
            Disposition::Refused => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused")));
            }
            Disposition::TimedOut => {
                let slow = XrpcError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "InvalidRequest",
                    "the request head did not arrive in time",
                );
                return self.refuse(&slow);
            }
            _ => {}
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // Only bytes that have just arrived are followed. hyper may pass a buffer that is partly
        // filled.
        if let Poll::Ready(Ok(())) = outcome
            && let Some(framing) = &mut self.framing
        {
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            match framing.follow(fresh) {
                // The time limit is for the whole head: bytes that trickle in do not restart it.
                Ok(()) if framing.is_within_head() => {
                    if self.activity.head_since.get().is_none() {
                        self.activity.head_since.set(Some(monotonic_now()));
                    }
                }
                Ok(()) => self.activity.head_since.set(None),
                Err(fault) => {
                    // The library must not see what the strict reader refused.
                    buffer.set_filled(before);
                    return self.refuse(&fault.into());
                }
            }
        }
        outcome
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_written(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = write_parts(Pin::new(&mut self.stream), cx, parts);
        self.note_written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
