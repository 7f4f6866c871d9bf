//! The HTTP client for URLs that users or external servers chose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::body::{self, BodyError};
use super::target::{Refusal, Target};
use super::{Answer, Dns, NameError, Names};
use crate::base::Origin;

/// An HTTP/1.1 client that connects only to public addresses. Cheap to clone.
///
/// It checks every address of a name and connects to exactly the address that it checked, so that a
/// second DNS answer cannot lead elsewhere (DNS rebinding). Each call has a connection of its own:
/// calls are rare, and a pooled connection would outlive the check of its address.
#[derive(Clone, Debug)]
pub(crate) struct GuardedClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    tls: Arc<ClientConfig>,
    /// Limits concurrent calls. Further calls wait, within their own total time.
    room: Semaphore,
    #[cfg(test)]
    detour: std::sync::OnceLock<Detour>,
}

/// Where tests redirect connections to, with a record of the addresses that were asked for.
#[cfg(test)]
#[derive(Debug)]
struct Detour {
    dialled: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    to: SocketAddr,
}

/// Limits of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum time from the call to the last byte, including redirects and waiting.
    pub(crate) total: Duration,
    /// Maximum pause between two parts of the body.
    pub(crate) idle: Duration,
    /// Maximum size of the body.
    pub(crate) body_bytes: usize,
    /// Maximum number of redirects, for GET only. Each hop passes all checks again.
    pub(crate) redirects: usize,
}

impl Limits {
    /// Limits for a document or a record that an external server publishes.
    pub(crate) const DOCUMENT: Self = Self {
        total: Duration::from_secs(10),
        idle: Duration::from_secs(5),
        body_bytes: 512 * 1024,
        redirects: 0,
    };
}

/// Why a call of the guarded client has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum GuardedError {
    #[error("not allowed: {0}")]
    Refused(#[from] Refusal),
    #[error("the name does not exist")]
    NoSuchName,
    #[error("cannot be reached: {0}")]
    Unreachable(Arc<str>),
    #[error("did not answer in time")]
    Slow,
    #[error("ended its answer early: {0}")]
    Broken(Arc<str>),
    #[error("answered more than {0} bytes")]
    TooLarge(usize),
    #[error("redirects too often, or where no redirect is allowed")]
    Redirects,
    #[error("sent a compressed answer although none was requested")]
    Compressed,
}

impl From<NameError> for GuardedError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Refused(why) => Self::Refused(why),
            NameError::NoSuchName => Self::NoSuchName,
            NameError::Failed(why) => Self::Unreachable(why),
        }
    }
}

impl GuardedClient {
    /// Makes a client. `listed` are the private origins that it may connect to, each exactly.
    pub(crate) fn new(dns: Dns, tls: Arc<ClientConfig>, listed: Vec<Origin>) -> Self {
        let room = Semaphore::new(CALLS_AT_ONCE);
        Self {
            inner: Arc::new(Inner {
                names: Names::new(dns, listed),
                tls,
                room,
                #[cfg(test)]
                detour: std::sync::OnceLock::new(),
            }),
        }
    }

    /// Redirects all later connections to `to`, and returns the record of their addresses.
    #[cfg(test)]
    pub(crate) fn detour(&self, to: SocketAddr) -> Arc<std::sync::Mutex<Vec<SocketAddr>>> {
        let dialled = Arc::default();
        self.inner.detour.set(Detour { dialled: Arc::clone(&dialled), to }).unwrap();
        dialled
    }

    /// Sends a GET request with `Accept` as its only header of choice.
    pub(crate) async fn get(&self, url: &str, accept: &str, limits: &Limits) -> Result<Answer, GuardedError> {
        let mut request = Request::get(url).body(Bytes::new()).map_err(|_| Refusal::NotAUrl)?;
        let accept = HeaderValue::from_str(accept).map_err(|_| Refusal::NotAUrl)?;
        request.headers_mut().insert(ACCEPT, accept);
        self.send(request, limits).await
    }

    /// Sends `request`, whose URI is absolute. Sets `Host` and the connection headers itself.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        limits: &Limits,
    ) -> Result<Answer, GuardedError> {
        // Boxed: the state of a TLS handshake is large, and every caller's future would contain it.
        tokio::time::timeout(limits.total, Box::pin(self.follow(request, limits)))
            .await
            .map_err(|_| GuardedError::Slow)?
    }

    async fn follow(&self, mut request: Request<Bytes>, limits: &Limits) -> Result<Answer, GuardedError> {
        // Held until the body is read. The time spent waiting counts towards the caller's total.
        let _permit = self.inner.room.acquire().await.map_err(|_| GuardedError::Slow)?;
        let mut hops_left = limits.redirects;
        loop {
            let target = self.inner.names.check(request.uri())?;
            let response = self.exchange(&target, &request).await?;
            if !response.status().is_redirection() || !response.headers().contains_key(LOCATION) {
                return read(response, limits).await;
            }
            // A redirected POST would send its body to a server that the caller did not choose.
            if hops_left == 0 || *request.method() != Method::GET {
                return Err(GuardedError::Redirects);
            }
            // The next target comes from the answer, so the loop checks it as it checked the first.
            hops_left -= 1;
            *request.uri_mut() = next_hop(&target, &response)?;
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        request: &Request<Bytes>,
    ) -> Result<Response<Incoming>, GuardedError> {
        let stream = self.connect(target).await?;
        let outgoing = outgoing(target, request)?;
        if !target.origin.is_https() {
            return exchange_on(stream, outgoing).await;
        }
        let host = target.origin.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // The certificate is checked against the name and not the address, so a wrong address gains
        // nothing.
        let name = ServerName::try_from(host).map_err(|_| Refusal::NotAName)?;
        let connector = TlsConnector::from(Arc::clone(&self.inner.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| unreachable(&error))?;
        exchange_on(stream, outgoing).await
    }

    /// Connects to one of the addresses that were checked, in their order, and to no other.
    async fn connect(&self, target: &Target) -> Result<TcpStream, GuardedError> {
        let port = target.origin.port();
        let mut last = unreachable(&"it has no address");
        for address in self.inner.names.addresses(target).await? {
            match tokio::time::timeout(CONNECT, self.dial(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = unreachable(&error),
                // Each address has a limit of its own: one that drops packets must not use up the
                // time of the next.
                Err(_) => last = GuardedError::Slow,
            }
        }
        Err(last)
    }

    #[cfg(not(test))]
    #[expect(clippy::disallowed_methods, reason = "the address was checked")]
    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "the address was checked, or tests redirect it")]
    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let Some(detour) = self.inner.detour.get() else { return TcpStream::connect(address).await };
        detour.dialled.lock().unwrap().push(address);
        TcpStream::connect(detour.to).await
    }
}

/// Returns the request as it is sent: origin form, `Host` of the target, no compression, one use
/// of the connection.
fn outgoing(target: &Target, request: &Request<Bytes>) -> Result<Request<Full<Bytes>>, GuardedError> {
    let uri: Uri = target.path_and_query.parse().map_err(|_| Refusal::NotAUrl)?;
    let mut outgoing = Request::new(Full::new(request.body().clone()));
    *outgoing.method_mut() = request.method().clone();
    // The request line has path and query only. The name goes into `Host` (RFC 9112 §3.2.1).
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = request.headers().clone();
    let host = HeaderValue::from_str(target.origin.authority().as_str()).map_err(|_| Refusal::NotAName)?;
    let headers = outgoing.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    Ok(outgoing)
}

async fn exchange_on<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, GuardedError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    // The task drives the connection. It ends when the body of the answer is dropped or complete.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(|error| GuardedError::Broken(error.to_string().into()))
}

async fn read(response: Response<Incoming>, limits: &Limits) -> Result<Answer, GuardedError> {
    let (head, body) = response.into_parts();
    let encoding = head.headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(GuardedError::Compressed);
    }
    let body = body::read(body, limits.body_bytes, limits.idle).await.map_err(|error| match error {
        BodyError::TooLarge => GuardedError::TooLarge(limits.body_bytes),
        BodyError::Idle => GuardedError::Slow,
        BodyError::Cut(error) => GuardedError::Broken(error.to_string().into()),
    })?;
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Returns the target of a redirect: an absolute URL, or a path on the same origin.
fn next_hop(target: &Target, response: &Response<Incoming>) -> Result<Uri, GuardedError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let location = location.split('#').next().unwrap_or_default();
    // `//host/path` is not a path: it names another host.
    let absolute = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}{location}", target.origin)
    } else {
        location.to_owned()
    };
    Ok(absolute.parse().map_err(|_| Refusal::NotAUrl)?)
}

fn unreachable(cause: &dyn std::fmt::Display) -> GuardedError {
    GuardedError::Unreachable(cause.to_string().into())
}

/// Maximum number of concurrent calls.
const CALLS_AT_ONCE: usize = 128;
/// Maximum time to connect to one address.
const CONNECT: Duration = Duration::from_secs(3);
/// Maximum size of a response head. Servers send a few KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
