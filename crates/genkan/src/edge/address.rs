//! The peer of a connection, and the address that hosts are told.

use std::net::IpAddr;

use http::HeaderValue;

use crate::forward::Visitor;

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    /// The address in the form that a host is told, made once for all requests of the connection.
    visitor: Visitor,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, visitor: visitor(address) }
    }

    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) const fn visitor(&self) -> &Visitor {
        &self.visitor
    }
}

/// The address in the form that a host is told.
pub(super) fn visitor(client: IpAddr) -> Visitor {
    let address = HeaderValue::try_from(client.to_string()).expect("an address is digits, dots and colons");
    Visitor { ip: client, address }
}
