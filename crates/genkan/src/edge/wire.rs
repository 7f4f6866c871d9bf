//! A client's connection, with the strict reader and the notes on its activity between it and the library.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::StatusCode;
use http1::{RequestFraming, write_parts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::{Activity, Verdict};
use super::answer::Problem;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientWire {
    stream: TcpStream,
    /// `None` on HTTP/2, whose frames leave no doubt.
    framing: Option<RequestFraming>,
    activity: Rc<Activity>,
}

impl ClientWire {
    pub(super) fn new(stream: TcpStream, framing: Option<RequestFraming>, activity: Rc<Activity>) -> Self {
        Self { stream, framing, activity }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Whether the next byte that is read begins a request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.framing.as_ref().is_some_and(RequestFraming::is_between_requests)
    }

    /// Says why, if an answer fits here at all, and reads no more.
    fn refuse(&self, problem: &Problem) -> Poll<io::Result<()>> {
        if self.activity.is_quiet() {
            // The client may have left; there is nobody else to tell.
            let _ = self.stream.try_write(&problem.last_words());
        }
        self.activity.judge(Verdict::Refused);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused")))
    }

    fn note_written(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Pending if self.activity.blocked_since.get().is_none() => {
                self.activity.blocked_since.set(Some(Instant::now()));
            }
            Poll::Ready(Ok(_)) if self.activity.blocked_since.get().is_some() => {
                self.activity.blocked_since.set(None);
            }
            _ => {}
        }
    }
}

impl AsyncRead for ClientWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.activity.verdict() {
            Verdict::Refused => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused")));
            }
            Verdict::TooSlow => {
                let slow = Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "InvalidRequest",
                    "The request's head did not arrive in time",
                );
                return self.refuse(&slow);
            }
            _ => {}
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = outcome
            && let Some(framing) = &mut self.framing
        {
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            match framing.follow(fresh) {
                Ok(()) if framing.is_within_head() => {
                    if self.activity.head_since.get().is_none() {
                        self.activity.head_since.set(Some(Instant::now()));
                    }
                }
                Ok(()) => self.activity.head_since.set(None),
                Err(fault) => {
                    buffer.set_filled(before);
                    return self.refuse(&fault.into());
                }
            }
        }
        outcome
    }
}

impl AsyncWrite for ClientWire {
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
