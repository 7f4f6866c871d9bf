//! The HTTP client for origins from the configuration: hosts of the fleet and the PLC directory.

#![expect(clippy::disallowed_types, reason = "its origins come from the configuration, and may be private")]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tower_service::Service;

use super::Answer;
use super::body::{self, BodyError};
use super::tls::{self, TlsError};

/// A pooled HTTP/1.1 client without checks of addresses, for origins from the configuration only.
///
/// Its errors say whether the other side may have acted on the request.
#[derive(Clone, Debug)]
pub(crate) struct UnguardedClient {
    client: Client<HttpsConnector<RacingConnector>, Full<Bytes>>,
}

/// Why a call of the unguarded client has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum UnguardedError {
    /// There was no connection: nothing was sent.
    #[error("cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The request was sent, at least in part: the other side may have acted on it.
    #[error("did not answer: {0}")]
    Unanswered(Arc<str>),
    /// The answer is larger than allowed: the other side may have acted on the request.
    #[error("answered more than {0} bytes")]
    TooLarge(usize),
}

impl UnguardedClient {
    pub(crate) fn new(extra_ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let tls = tls::client_config(extra_ca_file)?;
        let mut config = (*tls).clone();
        // The connector builder refuses settings that name protocols: it sets them itself.
        config.alpn_protocols.clear();
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(RacingConnector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Many servers close idle connections after a short time. A request on a closed one
            // would fail.
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(8)
            .http1_max_buf_size(64 * 1024)
            .build(https);
        Ok(Self { client })
    }

    /// Sends `request`, whose URI is absolute, and reads the whole answer, whatever its status.
    ///
    /// `total` is the maximum time for all of it, `body_bytes` the maximum size of the body.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        total: Duration,
        body_bytes: usize,
    ) -> Result<Answer, UnguardedError> {
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        // This client does not decompress, so it asks for no compression.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| classify(&error))?;
            read(response, total, body_bytes).await
        };
        let slow =
            || UnguardedError::Unanswered(format!("no answer within {} s", total.as_secs_f32()).into());
        tokio::time::timeout(total, exchange).await.map_err(|_| slow())?
    }
}

async fn read(response: Response<Incoming>, idle: Duration, limit: usize) -> Result<Answer, UnguardedError> {
    let (head, body) = response.into_parts();
    let body = body::read(body, limit, idle).await.map_err(|error| match error {
        BodyError::TooLarge => UnguardedError::TooLarge(limit),
        BodyError::Idle => UnguardedError::Unanswered("the answer stopped half-way".into()),
        BodyError::Cut(error) => UnguardedError::Unanswered(causes(&error).into()),
    })?;
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn classify(error: &hyper_util::client::legacy::Error) -> UnguardedError {
    let text = causes(error).into();
    // The only failure after which the request was certainly not sent.
    if error.is_connect() { UnguardedError::Unreachable(text) } else { UnguardedError::Unanswered(text) }
}

/// Returns the error and its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Connects to the first address of a name that answers.
///
/// hyper's own connector races only the two families. Within a family, it tries one address after
/// the other.
#[derive(Clone, Debug)]
struct RacingConnector;

impl Service<Uri> for RacingConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(async move { Ok(TokioIo::new(connect(&url).await?)) })
    }
}

#[expect(clippy::disallowed_methods, reason = "the URL comes from the configuration")]
async fn connect(url: &Uri) -> io::Result<TcpStream> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let default = if url.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, url.port_u16().unwrap_or(default))).await?.collect();
    let no_address = || Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "no address of it answered in time");
    let connecting = tokio::time::timeout(CONNECT, http1::race(&addresses, TcpStream::connect));
    let stream = connecting.await.map_err(slow)?.unwrap_or_else(no_address)?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(stream)
}

const KEEPALIVE: Duration = Duration::from_secs(30);
/// Maximum time to connect, to all addresses of a name together. The system limits the lookup.
const CONNECT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn get(url: &str) -> Result<Answer, UnguardedError> {
        let request = Request::get(url).body(Full::default()).unwrap();
        UnguardedClient::new(None).unwrap().send(request, Duration::from_secs(5), 16).await
    }

    /// A server that reads a little, sends `answer`, and closes.
    async fn once(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        url
    }

    #[tokio::test]
    async fn takes_any_status_with_its_body() {
        let url = once("HTTP/1.1 418 x\r\ncontent-length: 2\r\n\r\nhi").await;
        let answer = get(&url).await.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (418, &b"hi"[..]));
    }

    #[tokio::test]
    async fn tells_not_sent_from_perhaps_done() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        assert!(matches!(get(&closed).await, Err(UnguardedError::Unreachable(_))));
        assert!(matches!(get(&once("").await).await, Err(UnguardedError::Unanswered(_))));
        let cut = once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        assert!(matches!(get(&cut).await, Err(UnguardedError::Unanswered(_))));
        let long = once("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n").await;
        assert!(matches!(get(&long).await, Err(UnguardedError::TooLarge(16))));
    }
}
