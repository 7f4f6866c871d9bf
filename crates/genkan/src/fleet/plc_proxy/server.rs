//! The PLC proxy's own listener: HTTP/1.1, small bodies, limits on time and connections.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Page, PlcProxy};

impl PlcProxy {
    /// Serves until `stop`. Running requests then have a moment to end.
    pub(crate) async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Beyond the limit a connection is closed at once: a host that waits learns
                    // nothing, and one that is refused tries again.
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let served = self.clone().converse(stream, peer, stopped.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                Err(cause) => {
                    tracing::warn!(cause = %cause, "the PLC proxy could not accept a connection");
                    // Accepting fails at once when the process has no more file descriptors.
                    // Without a pause this loop would use a whole core.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let _ = stopping.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, all).await;
    }

    async fn converse(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        mut stopped: tokio::sync::watch::Receiver<bool>,
    ) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let proxy = self.clone();
            async move { Ok::<_, Infallible>(proxy.respond(request, peer).await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(64);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            // The request that is being answered is finished, and no other begins on this
            // connection.
            _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn respond(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let read = tokio::time::timeout(BODY, Limited::new(body, MAX_BODY_BYTES).collect());
        let page = match read.await {
            Ok(Ok(body)) => self.answer(head.method.clone(), head.uri.path(), body.to_bytes()).await,
            Ok(Err(_)) => Page::message(StatusCode::PAYLOAD_TOO_LARGE, "an operation is smaller than that"),
            Err(_) => Page::message(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        };
        tracing::debug!(
            client.address = %peer.ip(),
            status = page.status.as_u16(),
            "PLC proxy: {} {} answered {}", head.method, head.uri.path(), page.status.as_u16()
        );
        // An answer to `HEAD` has no body (RFC 9110 §9.3.2).
        let body = if head.method == Method::HEAD { Bytes::new() } else { page.body };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = page.status;
        if let Some(media_type) = page.media_type {
            response.headers_mut().insert(CONTENT_TYPE, media_type);
        }
        response
    }
}

const CONNECTIONS: usize = 1024;
/// The longest wait between two requests on one connection, and within a head.
const IDLE: Duration = Duration::from_mins(1);
const BODY: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The directory itself takes operations of 7.5 kB at most.
const MAX_BODY_BYTES: usize = 64 * 1024;
