//! Opening a connection to a host.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::Cause;
use crate::base::Origin;

/// Opens connections: to hosts of the fleet, whose origins are the operator's own, by their names; to what a stranger
/// chose only at addresses that were checked.
#[derive(Clone)]
pub(crate) struct Dialler {
    tls: TlsConnector,
    #[cfg(test)]
    pub(super) detour: Option<Detour>,
}

/// Tests see where a call would go without leaving the machine.
#[cfg(test)]
#[derive(Clone)]
pub(super) struct Detour {
    pub(super) dialled: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    pub(super) to: SocketAddr,
}

impl Dialler {
    /// With the trusted certificate authorities of `tls`.
    pub(crate) fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls: TlsConnector::from(tls),
            #[cfg(test)]
            detour: None,
        }
    }

    pub(crate) async fn dial(&self, origin: &Origin, limit: Duration) -> Result<Wire, Cause> {
        tokio::time::timeout(limit, self.open(origin)).await.map_err(|_| Cause::SlowConnect)?
    }

    /// Connects to one of these addresses, which were checked, and to no other.
    pub(crate) async fn dial_checked(
        &self,
        origin: &Origin,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<Wire, Cause> {
        let opening = async {
            let mut last = no_address();
            for address in addresses {
                match self.connect(SocketAddr::new(*address, origin.port())).await {
                    Ok(stream) => return self.dress(origin, stream).await,
                    Err(cause) => last = cause,
                }
            }
            Err(last)
        };
        tokio::time::timeout(limit, opening).await.map_err(|_| Cause::SlowConnect)?
    }

    #[cfg(not(test))]
    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Cause> {
        connect(address).await
    }

    #[cfg(test)]
    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Cause> {
        let Some(detour) = &self.detour else { return connect(address).await };
        detour.dialled.lock().unwrap().push(address);
        connect(detour.to).await
    }

    async fn open(&self, origin: &Origin) -> Result<Wire, Cause> {
        let host = origin.host().trim_start_matches('[').trim_end_matches(']');
        let stream = match host.parse() {
            Ok(address) => connect(SocketAddr::new(address, origin.port())).await?,
            Err(_) => connect_by_name(host, origin.port()).await?,
        };
        self.dress(origin, stream).await
    }

    /// With TLS around it where the origin has that.
    async fn dress(&self, origin: &Origin, stream: TcpStream) -> Result<Wire, Cause> {
        if !origin.is_https() {
            return Ok(Wire::Plain(stream));
        }
        let host = origin.host().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Cause::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(Cause::Tls)?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialler")
    }
}

/// Tries each address of a name in turn.
async fn connect_by_name(name: &str, port: u16) -> Result<TcpStream, Cause> {
    let mut last = no_address();
    for address in tokio::net::lookup_host((name, port)).await.map_err(Cause::Name)? {
        match connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

fn no_address() -> Cause {
    Cause::Name(io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Cause> {
    let stream = TcpStream::connect(address).await.map_err(Cause::Connect)?;
    watch(&stream).map_err(Cause::Connect)?;
    Ok(stream)
}

/// Sends at once, and notices within a minute when the other side is gone without a word.
fn watch(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(55)))?;
    Ok(())
}

/// A connection's bytes, in the clear or not.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => write_parts(Pin::new(stream), cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// Writes several parts to a socket. Few bytes go as one part: copying them costs less than the longer system call.
pub(crate) fn write_parts(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    parts: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [part] = parts {
        return stream.poll_write(cx, part);
    }
    let mut whole = [0; FEW];
    let mut free = &mut whole[..];
    for part in parts {
        if io::Write::write_all(&mut free, part).is_err() {
            return stream.poll_write_vectored(cx, parts);
        }
    }
    let filled = FEW - free.len();
    stream.poll_write(cx, whole.get(..filled).unwrap_or_default())
}

const FEW: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// F3: packets that vanish end a stream within a minute, whether we wait for bytes or send them.
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
}
