//! The HTTP client for URLs that users or external servers chose.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::body::{self, BodyError};
use super::places::{Place, Places, Pool, Server, TooMany};
use super::target::{Refusal, Target};
use super::{Answer, Dns, DnsError, NameError, Names};
use crate::base::Origin;

/// An HTTP/1.1 client that connects only to public addresses. Cheap to clone.
///
/// It checks every address of a name and connects to exactly the address that it checked, so that a
/// second DNS answer cannot lead elsewhere (DNS rebinding). Each call has a connection of its own:
/// calls are rare, and a pooled connection would outlive the check of its address.
///
/// Calls take a place of the pool of their purpose, so that servers that let connections hang do
/// not keep calls of other purposes, or to other servers, from beginning.
#[derive(Clone, Debug)]
pub(crate) struct GuardedClient {
    inner: Arc<Inner>,
    pool: Pool,
    /// The network of the client that causes the calls, where it is known.
    client: Option<IpAddr>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    tls: Arc<ClientConfig>,
    /// Limits concurrent calls. Further calls wait, within their own total time.
    places: Places,
    #[cfg(test)]
    detour: std::sync::OnceLock<Detour>,
}

/// Where tests redirect connections to, with a record of the addresses that were asked for.
#[cfg(test)]
#[derive(Debug)]
struct Detour {
    dialled: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    to: SocketAddr,
    /// An address that swallows packets.
    hole: Option<IpAddr>,
}

/// Limits of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum time from the call to the last byte, including redirects and waiting. A call waits for
    /// a place for half of it at most, so that it still has time when it begins.
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
    /// The DNS servers gave no answer. This says nothing about the server.
    #[error("name lookup failed: {0}")]
    LookupFailed(Arc<str>),
    /// Too many calls are under way, so this one did not begin. This says nothing about the server.
    #[error("too many calls of this kind are under way")]
    Busy,
    /// There was no connection, and nothing was sent.
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

/// Why the TXT records of a name are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextsError {
    /// Too many lookups are under way, so this one did not begin.
    #[error("too many lookups of this kind are under way")]
    Busy,
    #[error(transparent)]
    Dns(#[from] DnsError),
}

impl GuardedError {
    /// Whether nothing of the request was sent. After any other failure the server may have acted
    /// on it.
    pub(crate) const fn is_unsent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NoSuchName | Self::Unreachable(_)) || self.is_own_trouble()
    }

    /// Whether the trouble is Genkan's own. It says nothing about the server.
    pub(crate) const fn is_own_trouble(&self) -> bool {
        matches!(self, Self::LookupFailed(_) | Self::Busy)
    }

    /// Whether another try may succeed without a change at the server.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Slow | Self::Broken(_)) || self.is_own_trouble()
    }
}

impl From<TooMany> for GuardedError {
    fn from(_: TooMany) -> Self {
        Self::Busy
    }
}

impl From<NameError> for GuardedError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Refused(why) => Self::Refused(why),
            NameError::NoSuchName => Self::NoSuchName,
            NameError::Failed(why) => Self::LookupFailed(why),
        }
    }
}

impl GuardedClient {
    /// Makes a client. `listed` are the private origins that it may connect to, each exactly.
    pub(crate) fn new(dns: Dns, tls: Arc<ClientConfig>, listed: Vec<Origin>) -> Self {
        let inner = Inner {
            names: Names::new(dns, listed),
            tls,
            places: Places::new(),
            #[cfg(test)]
            detour: std::sync::OnceLock::new(),
        };
        Self { inner: Arc::new(inner), pool: Pool::Other, client: None }
    }

    /// Returns this client for calls that take their places from `pool`.
    pub(crate) fn in_pool(&self, pool: Pool) -> Self {
        Self { pool, ..self.clone() }
    }

    /// Returns this client for calls that a client of Genkan causes, which gets a share of the
    /// places. `client` is its network.
    pub(crate) fn caused_by(&self, client: IpAddr) -> Self {
        Self { client: Some(client), ..self.clone() }
    }

    /// Redirects all later connections to `to`, and returns the record of their addresses.
    #[cfg(test)]
    pub(crate) fn detour(&self, to: SocketAddr) -> Arc<std::sync::Mutex<Vec<SocketAddr>>> {
        self.set_detour(to, None)
    }

    /// Redirects connections as [`detour`](Self::detour) does, except those to `hole`, which get no
    /// answer.
    #[cfg(test)]
    pub(crate) fn detour_with_hole(
        &self,
        to: SocketAddr,
        hole: IpAddr,
    ) -> Arc<std::sync::Mutex<Vec<SocketAddr>>> {
        self.set_detour(to, Some(hole))
    }

    #[cfg(test)]
    fn set_detour(&self, to: SocketAddr, hole: Option<IpAddr>) -> Arc<std::sync::Mutex<Vec<SocketAddr>>> {
        let dialled = Arc::default();
        self.inner.detour.set(Detour { dialled: Arc::clone(&dialled), to, hole }).unwrap();
        dialled
    }

    /// Takes so many places of a pool with calls that a server holds until the test ends them.
    /// `asked` is how many have come there.
    #[cfg(test)]
    pub(crate) async fn take_places(&self, pool: Pool, number: usize, url: &str, asked: impl Fn() -> usize) {
        let (limits, before) = (Limits { total: Duration::from_hours(1), ..Limits::DOCUMENT }, asked());
        for _ in 0..number {
            let (guarded, url) = (self.in_pool(pool), url.to_owned());
            tokio::spawn(async move { drop(guarded.get(&url, "*/*", &limits).await) });
        }
        let all = async || asked() == before + number;
        genkan_testing::network::eventually("the places are taken", all).await;
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
        let progress = Progress::default();
        // Boxed: the state of a TLS handshake is large, and every caller's future would contain it.
        tokio::time::timeout(limits.total, Box::pin(self.follow(request, limits, &progress)))
            .await
            .unwrap_or_else(|_| Err(progress.out_of_time()))
    }

    /// Returns the TXT records of a name, as [`Dns::texts`] does. Waits for a place for at most `wait`.
    /// The caller limits the whole time.
    pub(crate) async fn texts(&self, name: &str, wait: Duration) -> Result<Vec<String>, TextsError> {
        // The owner of a name may run its name server as well, and let each question hang.
        let place = tokio::time::timeout(wait, self.place(name, 53)).await;
        let _place = place.map_err(|_| TextsError::Busy)?.map_err(|_| TextsError::Busy)?;
        Ok(self.inner.names.texts(name).await?)
    }

    async fn place_within(&self, limit: Duration, origin: &Origin) -> Result<Place, GuardedError> {
        let place = tokio::time::timeout(limit, self.place(origin.host(), origin.port())).await;
        Ok(place.map_err(|_| GuardedError::Busy)??)
    }

    async fn place(&self, host: &str, port: u16) -> Result<Place, TooMany> {
        self.inner.places.take(self.pool, &Server::new(host, port), self.client).await
    }

    async fn follow(
        &self,
        mut request: Request<Bytes>,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<Answer, GuardedError> {
        let mut hops_left = limits.redirects;
        loop {
            let target = self.inner.names.check(request.uri())?;
            // Held until the body is read or the next hop is known. The time spent waiting counts
            // towards the caller's total.
            let _place = self.place_within(limits.total / 2, &target.origin).await?;
            progress.reach(Progress::CONNECTING);
            let response = self.exchange(&target, &request, progress).await?;
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
        progress: &Progress,
    ) -> Result<Response<Incoming>, GuardedError> {
        let stream = self.connect(target).await?;
        let outgoing = outgoing(target, request)?;
        if !target.origin.is_https() {
            return exchange_on(stream, outgoing, progress).await;
        }
        let host = target.origin.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // The certificate is checked against the name and not the address, so a wrong address gains
        // nothing.
        let name = ServerName::try_from(host).map_err(|_| Refusal::NotAName)?;
        let connector = TlsConnector::from(Arc::clone(&self.inner.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| unreachable(&error))?;
        exchange_on(stream, outgoing, progress).await
    }

    /// Connects to the first of the addresses that were checked that answers, and to no other.
    async fn connect(&self, target: &Target) -> Result<TcpStream, GuardedError> {
        let port = target.origin.port();
        let addresses = self.inner.names.addresses(target).await?;
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let connected =
            tokio::time::timeout(CONNECT, ::http1::race(&addresses, |address| self.dial(address)));
        match connected.await {
            Ok(Some(Ok(stream))) => {
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Some(Err(error))) => Err(unreachable(&error)),
            Ok(None) => Err(unreachable(&"it has no address")),
            Err(_) => Err(unreachable(&"no address of it answered in time")),
        }
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
        if detour.hole == Some(address.ip()) {
            return std::future::pending().await;
        }
        TcpStream::connect(detour.to).await
    }
}

/// How far a call has come, for the error of a call that ran out of time.
#[derive(Debug, Default)]
struct Progress(AtomicU8);

impl Progress {
    const CONNECTING: u8 = 1;
    const SENT: u8 = 2;

    /// Never goes back: a later hop of a redirect waits for a place again.
    fn reach(&self, step: u8) {
        self.0.fetch_max(step, Ordering::Relaxed);
    }

    fn out_of_time(&self) -> GuardedError {
        match self.0.load(Ordering::Relaxed) {
            Self::SENT => GuardedError::Slow,
            Self::CONNECTING => unreachable(&"there was no connection in time"),
            _ => GuardedError::Busy,
        }
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

async fn exchange_on<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    progress: &Progress,
) -> Result<Response<Incoming>, GuardedError>
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
    progress.reach(Progress::SENT);
    sender.try_send_request(request).await.map_err(|mut failed| {
        // The request comes back only if nothing of it was written.
        let unsent = failed.take_message().is_some();
        let error = failed.into_error();
        if unsent { unreachable(&error) } else { GuardedError::Broken(error.to_string().into()) }
    })
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

/// Maximum time to connect, to all addresses of a name together.
const CONNECT: Duration = Duration::from_secs(3);
/// Maximum size of a response head. Servers send a few KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
