//! Whose address a request comes from.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::forward::{Neighbours, Visitor};

/// The address of the client, as far as it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// The other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    /// The address as a host is told it, made once for all requests of the connection.
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

/// The address as a host is told it.
pub(super) fn visitor(address: IpAddr) -> Visitor {
    let address = HeaderValue::try_from(address.to_string()).expect("an address is digits, dots and colons");
    Visitor { address }
}

/// Whether the word of this address on who is behind it counts.
pub(super) fn is_believed(address: IpAddr, proxies: &[IpNet], neighbours: &impl Neighbours) -> bool {
    proxies.iter().any(|net| net.contains(&address)) || neighbours.is_host(address)
}

/// The client behind a believed peer: the last address of `X-Forwarded-For` that is not itself believed.
///
/// What stands before that one may be anybody's invention.
pub(super) fn behind(headers: &HeaderMap, believed: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut first = None;
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.iter().rev() {
        for hop in line.to_str().ok()?.rsplit(',') {
            let Some(address) = parse(hop.trim()) else { return first };
            first = Some(address);
            if !believed(address) {
                return first;
            }
        }
    }
    first
}

/// An address, with or without a port or brackets.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.parse::<IpAddr>().ok();
    let bracketed = || bare(hop.strip_prefix('[')?.split_once(']')?.0);
    let with_port = || bare(hop.rsplit_once(':')?.0);
    bare(hop).or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_nobody_vouches_for_is_the_client() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let client = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            behind(&headers, |address| proxies.iter().any(|net| net.contains(&address)))
                .map(|address| address.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(client(&["203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(client(&["6.6.6.6, 203.0.113.9, 10.1.1.1"]), some("203.0.113.9"));
        assert_eq!(client(&["6.6.6.6", "203.0.113.9", "10.1.1.1,10.1.1.2"]), some("203.0.113.9"));
        assert_eq!(
            client(&["6.6.6.6, rubbish, 10.1.1.1"]),
            some("10.1.1.1"),
            "nothing beyond rubbish is read"
        );
        assert_eq!(client(&["[2001:db8::1]:443"]), some("2001:db8::1"));
        assert_eq!(client(&["2001:db8::1, fd00::2"]), some("2001:db8::1"));
        assert_eq!(client(&["203.0.113.9:1234"]), some("203.0.113.9"));
        assert_eq!(client(&["::ffff:203.0.113.9"]), some("203.0.113.9"));
        assert_eq!(client(&["unknown"]), None);
        assert_eq!(client(&[]), None);
    }
}
