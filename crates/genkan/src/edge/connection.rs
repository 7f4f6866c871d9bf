//! One client's connection, in HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ::http1::RequestFraming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::activity::{Activity, Disposition};
use super::client_stream::ClientStream;
use super::context::ConnectionContext;
use super::http2_stream::OnThisThread;
use super::service;
use super::settings::Settings;
use crate::base::monotonic_now;
use crate::forward::Rooms;

/// Serves a connection to its end.
pub(super) async fn serve<R: Rooms>(mut stream: TcpStream, context: Rc<ConnectionContext<R>>) {
    let Some(version) = detect_version(&stream, &context.activity).await else { return };
    if let HttpVersion::Http2 = version {
        return Box::pin(serve_http2(stream, context)).await;
    }
    // Between requests that are far apart a connection is only its socket. Its buffers are most of
    // its memory, and most open connections are idle.
    while let Some(rested) = Box::pin(serve_http1(stream, &context)).await {
        stream = rested;
        if !has_bytes(&stream, &context.activity).await {
            return;
        }
        context.activity.resume();
    }
}

/// Waits until bytes arrive. Returns `false` if the connection was closed first.
async fn has_bytes(stream: &TcpStream, activity: &Activity) -> bool {
    let mut readable = pin!(stream.readable());
    poll_fn(|cx| {
        activity.register(cx);
        if activity.disposition() > Disposition::Rest {
            return Poll::Ready(false);
        }
        readable.as_mut().poll(cx).map(|ready| ready.is_ok())
    })
    .await
}

enum HttpVersion {
    Http1,
    Http2,
}

/// Finds the HTTP version by the first bytes, without taking them off the socket. Returns `None` if
/// none arrived in time.
async fn detect_version(stream: &TcpStream, activity: &Activity) -> Option<HttpVersion> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let count = {
            let mut peek = pin!(stream.peek(&mut seen));
            poll_fn(|cx| {
                activity.register(cx);
                if activity.disposition() > Disposition::Rest {
                    return Poll::Ready(None);
                }
                peek.as_mut().poll(cx).map(Result::ok)
            })
            .await?
        };
        let seen = seen.get(..count).unwrap_or_default();
        if count == 0 {
            return None;
        }
        // Two bytes decide: no verb that Genkan serves begins with `PR`.
        if !PREFACE.starts_with(seen) {
            return Some(HttpVersion::Http1);
        }
        if count == PREFACE.len() {
            return Some(HttpVersion::Http2);
        }
        // Part of the preface has arrived. `peek` would return the same bytes at once, so the next
        // look waits a moment. The time limit for heads ends the wait.
        if activity.head_since.get().is_none() {
            activity.head_since.set(Some(monotonic_now()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Serves requests until the connection ends or rests. Returns the stream of a resting connection.
async fn serve_http1<R: Rooms>(stream: TcpStream, context: &Rc<ConnectionContext<R>>) -> Option<TcpStream> {
    let activity = Rc::clone(&context.activity);
    let settings = context.worker.settings();
    let framing = RequestFraming::new(settings.head());
    let mut builder = http1::Builder::new();
    // The strict reader decides about sizes. The library's limits are a little wider, so that it
    // never answers first with a text of its own.
    builder.max_buf_size(buffer(settings)).max_headers(settings.head_fields + 1).half_close(false);
    let wire = TokioIo::new(ClientStream::new(stream, Some(framing), Rc::clone(&activity)));
    let service = service_fn(|request| {
        let context = Rc::clone(context);
        async move { Ok::<_, Infallible>(service::answer(context, request).await) }
    });
    let mut connection = builder.serve_connection(wire, service);
    let mut is_leaving = false;
    let outcome = poll_fn(|cx| {
        activity.register(cx);
        match activity.disposition() {
            Disposition::Drop => return Poll::Ready(Outcome::Dropped),
            Disposition::Rest if activity.is_at_rest() => return Poll::Ready(Outcome::Rests),
            // Asked once: a second call would be an error to hyper while the first is still
            // working.
            Disposition::Drain if !is_leaving => {
                is_leaving = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ => {}
        }
        // The task was woken, so bytes may have arrived. If the connection is still idle, it rests
        // again later.
        activity.resume();
        Pin::new(&mut connection).poll(cx).map(|_| Outcome::Ended)
    })
    .await;
    if let Outcome::Dropped = outcome {
        return None;
    }
    let parts = connection.into_parts();
    let wire = parts.io.into_inner();
    // Bytes that the library has already read would be lost with its buffer.
    if let Outcome::Rests = outcome
        && parts.read_buf.is_empty()
        && wire.is_between_requests()
    {
        return Some(wire.into_stream());
    }
    part(wire.into_stream()).await;
    None
}

/// How the serving of a connection ended.
enum Outcome {
    Ended,
    Rests,
    Dropped,
}

/// Closes a connection so that the client can still read the last answer.
///
/// Closing a socket with unread bytes resets the connection, and the reset can overtake the answer.
/// So the sending side is closed first, and what still arrives is read and dropped for a moment.
async fn part(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    // Bounded in bytes and in time: a client that keeps sending must not keep the connection open.
    let drain = async {
        let mut left = MOST_DRAINED;
        while let Ok(count @ 1..) = stream.read(&mut rest).await
            && left > 0
        {
            left = left.saturating_sub(count);
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}

async fn serve_http2<R: Rooms>(stream: TcpStream, context: Rc<ConnectionContext<R>>) {
    let activity = Rc::clone(&context.activity);
    // The time limit for heads covered the preface, which has arrived.
    activity.head_since.set(None);
    let settings = context.worker.settings();
    let mut builder = http2::Builder::new(OnThisThread(Rc::clone(&activity)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_per_connection)
        .max_header_list_size(u32::try_from(settings.head_bytes).unwrap_or(u32::MAX))
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE)
        // Bounds for the "rapid reset" attack, which `Activity::cancel` counts as well.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(200)
        // Small windows: one stream can fill no more memory than this before its host takes the
        // bytes.
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_send_buf_size(WINDOW as usize)
        // A client that vanished without a word is noticed by unanswered pings.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let wire = TokioIo::new(ClientStream::new(stream, None, Rc::clone(&activity)));
    let service = service_fn(move |request| {
        let context = Rc::clone(&context);
        async move { Ok::<_, Infallible>(service::answer(context, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(wire, service));
    let mut is_leaving = false;
    poll_fn(|cx| {
        activity.register(cx);
        match activity.disposition() {
            Disposition::Keep | Disposition::Rest => {}
            Disposition::Drain => {
                if !is_leaving {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
            _ => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// The size of the read buffer: room for the largest head, or for a window of a body.
fn buffer(settings: &Settings) -> usize {
    (settings.head_bytes + 1024).max(64 * 1024)
}

/// The connection preface of an HTTP/2 client (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of one frame from a client.
const FRAME: u32 = 16 * 1024;
/// Bytes of the table of names and values that a client may refer to in later heads (RFC 7541
/// §4.2).
const HEADER_TABLE: u32 = 4096;
/// Bytes of a body that a client may send ahead on one stream (RFC 9113 §5.2).
const WINDOW: u32 = 128 * 1024;
/// The most bytes that are read and dropped from a connection that is being closed.
const MOST_DRAINED: usize = 256 * 1024;
