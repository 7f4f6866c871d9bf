//! Opening a connection to a server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::addresses::Addresses;
use crate::error::Cause;
use crate::race::race;
use crate::stream::Stream;

/// A server: its name or address, its port, and whether it speaks TLS.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Without the brackets of an IPv6 address.
    host: Box<str>,
    port: u16,
    is_tls: bool,
    authority: HeaderValue,
}

impl Endpoint {
    /// The server of an `https` or `http` URL. The default port is that of the scheme.
    pub fn new(is_tls: bool, authority: &Authority) -> Self {
        // Brackets belong to the URL (RFC 3986 §3.2.2). Addresses and certificate names have none.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Self {
            host: host.into(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            authority: HeaderValue::from_str(authority.as_str())
                .expect("an authority is made of characters that a header may have"),
        }
    }

    /// The value of the `Host` header.
    pub const fn authority(&self) -> &HeaderValue {
        &self.authority
    }
}

/// Opens connections. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    reroute: Option<Reroute>,
}

/// Replaces the address of a connection.
type Reroute = Arc<dyn Fn(SocketAddr) -> SocketAddr + Send + Sync>;

impl Connector {
    /// Trusts the certificate authorities of `tls`.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls: TlsConnector::from(tls), reroute: None }
    }

    /// Redirects connections from the checked addresses. Only for tests: they see the address that
    /// would be dialled, and the connection stays on this machine.
    #[must_use]
    pub fn rerouted(mut self, reroute: impl Fn(SocketAddr) -> SocketAddr + Send + Sync + 'static) -> Self {
        self.reroute = Some(Arc::new(reroute));
        self
    }

    /// Connects by the server's name, which the system resolves. `known` are the name's addresses.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        known: &Addresses,
        limit: Duration,
    ) -> Result<Stream, Cause> {
        let look_up = || addresses_of(endpoint.host.clone(), endpoint.port);
        self.connect_by(endpoint, known, limit, look_up).await
    }

    async fn connect_by<F>(
        &self,
        endpoint: &Endpoint,
        known: &Addresses,
        limit: Duration,
        look_up: impl Fn() -> F,
    ) -> Result<Stream, Cause>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    {
        // One limit for name, connection and handshake together. With a limit for each, a slow
        // server could take three times as long.
        let opening = async {
            let stream = if let Ok(address) = endpoint.host.parse() {
                connect(SocketAddr::new(address, endpoint.port)).await?
            } else {
                // Half of the limit for the lookup: a slow resolver must not look like a slow
                // server.
                let addresses = known.find(limit / 2, look_up).await?;
                race(&addresses, connect).await.unwrap_or_else(|| Err(no_address()))?
            };
            self.secure(endpoint, stream).await
        };
        tokio::time::timeout(limit, opening).await.map_err(|_| Cause::SlowConnect)?
    }

    /// Connects to one of these addresses, which the caller has checked, and to no other.
    pub(crate) async fn connect_to(
        &self,
        endpoint: &Endpoint,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<Stream, Cause> {
        let opening = async {
            // The name is not resolved again: its answer may have changed since the check (DNS
            // rebinding).
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|address| SocketAddr::new(*address, endpoint.port)).collect();
            let attempt =
                |address| connect(self.reroute.as_ref().map_or(address, |reroute| reroute(address)));
            // Only the TCP connection is raced. A failed TLS handshake means that the server was
            // reached, so it is reported.
            let stream = race(&addresses, attempt).await.unwrap_or_else(|| Err(no_address()))?;
            self.secure(endpoint, stream).await
        };
        tokio::time::timeout(limit, opening).await.map_err(|_| Cause::SlowConnect)?
    }

    /// Adds TLS where the server speaks it. The certificate must be for the server's name.
    async fn secure(&self, endpoint: &Endpoint, stream: TcpStream) -> Result<Stream, Cause> {
        if !endpoint.is_tls {
            return Ok(Stream::Plain(stream));
        }
        let name = ServerName::try_from(endpoint.host.to_string())
            .map_err(|error| Cause::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(Cause::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

#[expect(clippy::disallowed_methods, reason = "only names that the caller trusts come here")]
async fn addresses_of(name: Box<str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((&*name, port)).await?.collect())
}

fn no_address() -> Cause {
    Cause::Name(io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

#[expect(clippy::disallowed_methods, reason = "the caller checked the address, or trusts the name")]
async fn connect(address: SocketAddr) -> Result<TcpStream, Cause> {
    let stream = TcpStream::connect(address).await.map_err(Cause::Connect)?;
    set_options(&stream).map_err(Cause::Connect)?;
    Ok(stream)
}

/// Sends small writes at once, and notices within a minute that the other side has vanished.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    // Nagle's algorithm would hold a small write back until the previous one is acknowledged.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    // 20 s of silence and three probes, 10 s apart, make 50 s while we wait for bytes.
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    // The system sends no probes while sent bytes wait for an acknowledgement. This limit applies
    // then.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(55)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener whose queue is full: the system drops further packets to it without an answer.
    /// The connections keep the queue full.
    async fn swallowing() -> (std::net::TcpListener, Vec<TcpStream>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), connect(address)).await {
            queue.push(stream.unwrap());
        }
        (listener, queue)
    }

    fn no_authority() -> Arc<ClientConfig> {
        let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let roots = tokio_rustls::rustls::RootCertStore::empty();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    #[tokio::test]
    async fn a_server_is_reached_though_its_first_address_swallows_packets() {
        let (swallowing, _queue) = swallowing().await;
        let answering = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gone, good) = (swallowing.local_addr().unwrap(), answering.local_addr().unwrap());
        let connector = Connector::new(no_authority())
            .rerouted(move |address| if address.ip() == IpAddr::from([192, 0, 2, 1]) { gone } else { good });
        let endpoint = Endpoint::new(false, &"pds.example.com".parse().unwrap());
        let limit = Duration::from_mins(1);
        let addresses = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let stream = connector.connect_to(&endpoint, &addresses, limit).await.unwrap();
        let Stream::Plain(stream) = stream else { panic!("no TLS was asked for") };
        assert_eq!(stream.peer_addr().unwrap(), good);
        let alone = connector.connect_to(&endpoint, &addresses[..1], Duration::from_millis(100)).await;
        assert!(matches!(alone, Err(Cause::SlowConnect)), "the first address swallows packets");
    }

    /// F3: packets that vanish end a stream within a minute, whether we wait for bytes or send
    /// them.
    #[tokio::test]
    async fn a_host_that_is_gone_without_a_word_is_noticed_within_a_minute() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        let (time, interval) =
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        let probes = socket.tcp_keepalive_retries().unwrap();
        assert!(time + interval * probes <= Duration::from_mins(1), "{time:?} + {probes} × {interval:?}");
        let unsent = socket.tcp_user_timeout().unwrap().unwrap();
        assert!(!unsent.is_zero() && unsent <= Duration::from_mins(1), "{unsent:?}");
    }

    #[tokio::test]
    async fn a_server_is_reached_while_its_name_is_not_resolved() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connector, known) = (Connector::new(no_authority()), Addresses::default());
        let endpoint = Endpoint::new(false, &"oak.example.com".parse().unwrap());
        let limit = Duration::from_mins(1);
        let connect = async |found: io::Result<Vec<SocketAddr>>| {
            let found = std::cell::Cell::new(Some(found));
            let look_up = || std::future::ready(found.take().unwrap());
            connector.connect_by(&endpoint, &known, limit, look_up).await
        };
        let failed = || Err(io::Error::other("no name server answers"));
        assert!(matches!(connect(failed()).await, Err(Cause::Name(_))), "nothing is known of it");
        assert!(connect(Ok(vec![address])).await.is_ok());
        assert!(connect(failed()).await.is_ok());
        let silent = connector.connect_by(&endpoint, &known, limit, std::future::pending).await;
        assert!(silent.is_ok());
    }
}
