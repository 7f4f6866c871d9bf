//! One connection to a host, driven by whoever uses it.
//!
//! There is no task beside it: the request's own task polls the connection while it waits for the head, and the
//! answer's body polls it while it streams. That saves two task switches for each request, pushes back on the host
//! exactly as fast as the client reads, and cuts the connection the moment a client leaves.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::dial::Wire;
use super::relay::Relay;
use super::upload::Upload;

/// One HTTP/1.1 connection to a host.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Upload>,
    /// None when it has come to its end: only when it is dropped does a request that it never took come back.
    connection: Option<Connection<TokioIo<Watched>, Upload>>,
    gauge: Rc<Gauge>,
    relay: Arc<Relay>,
    /// Until when it may be lent again.
    pub(super) keep_until: Instant,
}

/// How an exchange failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The host has seen nothing of it, surely. Here it is again.
    Unsent(Box<Request<Upload>>),
    /// It was sent, in part at least.
    Broken {
        /// A byte of an answer had come.
        answered: bool,
        cause: hyper::Error,
    },
}

impl Link {
    pub(super) async fn over(wire: Wire, keep: Duration) -> Result<Self, hyper::Error> {
        let gauge = Rc::new(Gauge { read: Cell::new(0), allowance: Cell::new(None) });
        let io = TokioIo::new(Watched { wire, gauge: Rc::clone(&gauge) });
        let (sender, connection) = Builder::new().max_buf_size(BUFFER).handshake(io).await?;
        let (connection, relay) = (Some(connection), Relay::new());
        Ok(Self { sender, connection, gauge, relay, keep_until: Instant::now() + keep })
    }

    /// Sends the request and waits for the head of its answer.
    pub(super) async fn exchange(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        self.gauge.read.set(0);
        self.gauge.allowance.set(Some(MAX_HEAD));
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, relay) = (&mut self.connection, &self.relay);
        let outcome = poll_fn(|cx| {
            relay.poll(cx, |cx| {
                drive(connection, cx);
                answer.as_mut().poll(cx)
            })
        })
        .await;
        self.gauge.allowance.set(None);
        outcome.map_err(|mut failure| match failure.take_message() {
            Some(request) => Failed::Unsent(Box::new(request)),
            None => Failed::Broken { answered: self.gauge.read.get() > 0, cause: failure.into_error() },
        })
    }

    /// The next piece of an answer's body, with the connection doing what it takes to get it.
    pub(super) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let relay = Arc::clone(&self.relay);
        relay.poll(cx, |cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => {
                drive(&mut self.connection, cx);
                Pin::new(&mut *body).poll_frame(cx)
            }
            ready @ Poll::Ready(_) => ready,
        })
    }

    /// Whether the last exchange is over on both sides, and another may begin.
    ///
    /// Only asked when the answer's body has ended. The host may still be reading the request, or have sent bytes
    /// that nobody asked for: then the connection is not ready, and is not lent again.
    pub(super) fn settles(&mut self) -> bool {
        drive(&mut self.connection, &mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Lets a connection do what it can, and drops it at its end.
fn drive(connection: &mut Option<Connection<TokioIo<Watched>, Upload>>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
        *connection = None;
    }
}

/// Counts what a host sends, and bounds what comes before the head is whole: 1xx answers without end, or a head of
/// megabytes.
#[derive(Debug)]
struct Gauge {
    read: Cell<usize>,
    allowance: Cell<Option<usize>>,
}

/// A wire with its gauge.
#[derive(Debug)]
struct Watched {
    wire: Wire,
    gauge: Rc<Gauge>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.wire).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = outcome {
            let read = self.gauge.read.get().saturating_add(buffer.filled().len() - before);
            self.gauge.read.set(read);
            // The start of a body that comes along with the head fits in the allowance: nothing more is read
            // until somebody wants the body, and the allowance is lifted by then.
            if self.gauge.allowance.get().is_some_and(|most| read > most) {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no head within its limit",
                )));
            }
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}

/// The window of a stream: what one connection may hold of a body that its client has not taken yet.
const BUFFER: usize = 64 * 1024;
/// Bytes a host may send before the head of its answer is whole.
const MAX_HEAD: usize = 2 * BUFFER;
