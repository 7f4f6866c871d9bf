//! The client for URLs that strangers chose.

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

/// Dials strangers' origins: every address checked, connected to exactly as checked, one connection per call.
///
/// No pool: these calls are rare, and a connection that lives on would outlive the check of its address.
#[derive(Clone, Debug)]
pub(crate) struct GuardedClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    tls: Arc<ClientConfig>,
    /// How many calls run at once; the others wait, within their own time.
    room: Semaphore,
    #[cfg(test)]
    detour: std::sync::OnceLock<Detour>,
}

/// Tests see where a call would go without leaving the machine.
#[cfg(test)]
#[derive(Debug)]
struct Detour {
    dialled: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    to: SocketAddr,
}

/// What one call may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the call to the last byte, redirects and waiting included.
    pub(crate) total: Duration,
    /// Between two bytes of the body.
    pub(crate) idle: Duration,
    pub(crate) body_bytes: usize,
    /// How many redirects are followed; each hop passes all checks again. Only for GET.
    pub(crate) redirects: usize,
}

impl Limits {
    /// For a document or a record that a stranger publishes.
    pub(crate) const DOCUMENT: Self = Self {
        total: Duration::from_secs(10),
        idle: Duration::from_secs(5),
        body_bytes: 512 * 1024,
        redirects: 0,
    };
}

/// Why there is no answer.
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
    #[error("broke off its answer: {0}")]
    Broken(Arc<str>),
    #[error("answered more than {0} bytes")]
    TooLarge(usize),
    #[error("redirects where none is allowed, or too often")]
    Redirects,
    #[error("sent a compressed answer, which was not asked for")]
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
    /// `listed`: the exact private origins that may be dialled although they are not public.
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

    /// From now on only remembers where calls would go, and goes `to` there instead.
    #[cfg(test)]
    pub(crate) fn detour(&self, to: SocketAddr) -> Arc<std::sync::Mutex<Vec<SocketAddr>>> {
        let dialled = Arc::default();
        self.inner.detour.set(Detour { dialled: Arc::clone(&dialled), to }).unwrap();
        dialled
    }

    /// A GET, with `accept` as the only thing said besides the URL.
    pub(crate) async fn get(&self, url: &str, accept: &str, limits: &Limits) -> Result<Answer, GuardedError> {
        let mut request = Request::get(url).body(Bytes::new()).map_err(|_| Refusal::NotAUrl)?;
        let accept = HeaderValue::from_str(accept).map_err(|_| Refusal::NotAUrl)?;
        request.headers_mut().insert(ACCEPT, accept);
        self.send(request, limits).await
    }

    /// Sends `request`, whose URI is absolute. `Host` and the like are set here.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        limits: &Limits,
    ) -> Result<Answer, GuardedError> {
        // Boxed: a TLS handshake's state is large, and every caller would carry it.
        tokio::time::timeout(limits.total, Box::pin(self.follow(request, limits)))
            .await
            .map_err(|_| GuardedError::Slow)?
    }

    async fn follow(&self, mut request: Request<Bytes>, limits: &Limits) -> Result<Answer, GuardedError> {
        let _permit = self.inner.room.acquire().await.map_err(|_| GuardedError::Slow)?;
        let mut hops_left = limits.redirects;
        loop {
            let target = self.inner.names.check(request.uri())?;
            let response = self.exchange(&target, &request).await?;
            if !response.status().is_redirection() || !response.headers().contains_key(LOCATION) {
                return read(response, limits).await;
            }
            if hops_left == 0 || *request.method() != Method::GET {
                return Err(GuardedError::Redirects);
            }
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
        let aimed = aim(target, request)?;
        if !target.origin.is_https() {
            return talk(stream, aimed).await;
        }
        let host = target.origin.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| Refusal::NotAName)?;
        let connector = TlsConnector::from(Arc::clone(&self.inner.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| unreached(&error))?;
        talk(stream, aimed).await
    }

    /// A connection to one of the addresses that were checked, and to no other.
    async fn connect(&self, target: &Target) -> Result<TcpStream, GuardedError> {
        let port = target.origin.port();
        let mut last = unreached(&"it has no address");
        for address in self.inner.names.addresses(target).await? {
            match tokio::time::timeout(CONNECT, self.dial(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = unreached(&error),
                Err(_) => last = GuardedError::Slow,
            }
        }
        Err(last)
    }

    #[cfg(not(test))]
    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    #[cfg(test)]
    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let Some(detour) = self.inner.detour.get() else { return TcpStream::connect(address).await };
        detour.dialled.lock().unwrap().push(address);
        TcpStream::connect(detour.to).await
    }
}

/// The request as it goes out: origin form, our own `Host`, nothing compressed, one use of the connection.
fn aim(target: &Target, request: &Request<Bytes>) -> Result<Request<Full<Bytes>>, GuardedError> {
    let uri: Uri = target.path_and_query.parse().map_err(|_| Refusal::NotAUrl)?;
    let mut aimed = Request::new(Full::new(request.body().clone()));
    *aimed.method_mut() = request.method().clone();
    *aimed.uri_mut() = uri;
    *aimed.headers_mut() = request.headers().clone();
    let host = HeaderValue::from_str(target.origin.authority().as_str()).map_err(|_| Refusal::NotAName)?;
    let headers = aimed.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    Ok(aimed)
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, GuardedError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreached(&error))?;
    // Ends when the answer's body is dropped or done.
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

/// Where a redirect leads: an absolute URL, or a path on the same origin.
fn next_hop(target: &Target, response: &Response<Incoming>) -> Result<Uri, GuardedError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let location = location.split('#').next().unwrap_or_default();
    let absolute = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}{location}", target.origin)
    } else {
        location.to_owned()
    };
    Ok(absolute.parse().map_err(|_| Refusal::NotAUrl)?)
}

fn unreached(cause: &dyn std::fmt::Display) -> GuardedError {
    GuardedError::Unreachable(cause.to_string().into())
}

const CALLS_AT_ONCE: usize = 128;
const CONNECT: Duration = Duration::from_secs(3);
/// More head than this is an attack, not an answer.
const MAX_HEAD_BYTES: usize = 32 * 1024;

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
