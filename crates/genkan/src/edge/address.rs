//! The peer of a connection, and the client address that hosts receive.

use std::net::IpAddr;

use http::HeaderValue;

use crate::forward::Client;

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    /// The address as a host receives it, created once for all requests of the connection.
    client: Client,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
        // A socket for IPv6 reports IPv4 clients as `::ffff:a.b.c.d`. The operator's lists have the
        // plain form.
        let address = address.to_canonical();
        Self { address, client: client(address) }
    }

    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }
}

/// The address in the form that a host receives.
pub(super) fn client(ip: IpAddr) -> Client {
    let address = HeaderValue::try_from(ip.to_string()).expect("an address is digits, dots and colons");
    Client { ip, address }
}
