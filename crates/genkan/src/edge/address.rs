//! The peer of a connection, and the address that hosts are told.

use std::net::IpAddr;

use http::HeaderValue;

use crate::forward::Client;

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    /// The address in the form that a host is told, made once for all requests of the connection.
    client: Client,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
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

/// The address in the form that a host is told.
pub(super) fn client(ip: IpAddr) -> Client {
    let address = HeaderValue::try_from(ip.to_string()).expect("an address is digits, dots and colons");
    Client { ip, address }
}
