//! The bytes of an answer that the system has taken and the client has not.
//!
//! The ioctl `SIOCOUTQ` (tcp(7)) would tell as well, but cannot be called without `unsafe`. So the
//! system is asked by a message (`sock_diag(7)`). That costs a few system calls, which is too much for
//! each write.

/// Returns how many bytes the client has not acknowledged, sent or not. `None` if the system does not
/// tell.
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged(stream: &tokio::net::TcpStream) -> Option<u32> {
    use std::io::Read as _;

    use socket2::{Domain, Protocol, Socket, Type};

    let question = linux::question(stream.local_addr().ok()?, stream.peer_addr().ok()?);
    let socket = Socket::new(
        Domain::from(linux::AF_NETLINK),
        Type::RAW.nonblocking(),
        Some(Protocol::from(linux::NETLINK_SOCK_DIAG)),
    )
    .ok()?;
    socket.send(&question).ok()?;
    // The system answers before `send` returns.
    let mut answer = [0; 1024];
    let length = (&socket).read(&mut answer).ok()?;
    linux::queued(answer.get(..length)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn unacknowledged(_: &tokio::net::TcpStream) -> Option<u32> {
    None
}

/// The messages of `sock_diag(7)` and `netlink(7)`. Numbers are in the byte order of the machine, ports
/// and addresses in that of the network.
#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, SocketAddr};

    /// Asks for the one TCP socket with these addresses.
    pub(super) fn question(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
        let mut question = Vec::with_capacity(QUESTION_BYTES as usize);
        // struct nlmsghdr: length, type, flags, sequence number, port.
        question.extend(QUESTION_BYTES.to_ne_bytes());
        question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        question.extend(NLM_F_REQUEST.to_ne_bytes());
        question.extend([0; 8]);
        // struct inet_diag_req_v2: family, protocol, extensions, padding, states.
        let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
        question.extend([family, IPPROTO_TCP, 0, 0]);
        question.extend(u32::MAX.to_ne_bytes());
        // struct inet_diag_sockid: ports, addresses, interface, cookie. All ones stand for any cookie.
        question.extend(local.port().to_be_bytes());
        question.extend(peer.port().to_be_bytes());
        for side in [local, peer] {
            match side.ip() {
                IpAddr::V4(address) => {
                    question.extend(address.octets());
                    question.extend([0; 12]);
                }
                IpAddr::V6(address) => question.extend(address.octets()),
            }
        }
        // A link-local address is of one interface.
        let interface = if let SocketAddr::V6(peer) = peer { peer.scope_id() } else { 0 };
        question.extend(interface.to_ne_bytes());
        question.extend([0xff; 8]);
        question
    }

    /// Reads the send queue from the answer.
    pub(super) fn queued(answer: &[u8]) -> Option<u32> {
        let kind = answer.get(4..6)?;
        if kind != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
            return None;
        }
        // struct inet_diag_msg, after the header of 16 bytes: four bytes, the socket with 48 bytes,
        // the timer, the receive queue, the send queue.
        Some(u32::from_ne_bytes(answer.get(76..80)?.try_into().ok()?))
    }

    pub(super) const AF_NETLINK: i32 = 16;
    pub(super) const NETLINK_SOCK_DIAG: i32 = 4;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const QUESTION_BYTES: u32 = 72;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test connects to itself on loopback")]
    async fn what_a_client_takes_leaves_the_queue() {
        for listens_at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(listens_at).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let address =
                if listens_at == "[::1]:0" { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let mut client = TcpStream::connect(address).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(unacknowledged(&stream), Some(0), "{listens_at}");
            let piece = vec![b'x'; 64 << 10];
            let mut written = 0;
            while let Ok(count) = stream.try_write(&piece) {
                written += count;
            }
            let queued = unacknowledged(&stream).unwrap();
            assert!(queued > 0, "{listens_at}: the client's own queue is full as well");
            let mut rest = vec![0; written];
            client.read_exact(&mut rest).await.unwrap();
            // The last acknowledgement may come a moment later.
            while unacknowledged(&stream) != Some(0) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            stream.write_all(b"x").await.unwrap();
        }
    }
}
