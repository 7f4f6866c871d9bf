//! The address of a request's client.
//!
//! It is the socket's address, unless that belongs to a proxy that the operator listed or to a
//! registered host. These name the client in `X-Forwarded-For`. The header is read from its end,
//! where the last trusted peer wrote. The client may have made up what stands further left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;

use super::XrpcError;

/// The client's address, by which requests are limited and logged. Each request that `http` answers
/// has it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddr(pub(crate) IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientAddr {
    type Rejection = XrpcError;

    /// Put there by the edge, or by the layers; a request without one is a bug.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, XrpcError> {
        parts
            .extensions
            .get()
            .copied()
            .ok_or_else(|| XrpcError::internal("a request came without its client's address"))
    }
}

/// The registered host that passed the request on for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViaHost(pub(crate) Arc<str>);

/// Each address of a registered host, with the host's name.
type Hosts = HashMap<IpAddr, Arc<str>>;

/// The peers whose `X-Forwarded-For` is trusted. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedPeers {
    proxies: Arc<[IpNet]>,
    hosts: Arc<RwLock<Arc<Hosts>>>,
}

impl TrustedPeers {
    pub(crate) fn new(proxies: &[IpNet]) -> Self {
        Self { proxies: proxies.into(), hosts: Arc::default() }
    }

    /// Replaces the addresses of the registered hosts, each with the host's name.
    pub(crate) fn set_hosts(&self, hosts: Hosts) {
        *self.hosts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
    }

    /// Whether this peer's `X-Forwarded-For` is trusted.
    pub(crate) fn speaks_for_others(&self, peer: IpAddr) -> bool {
        self.believes(peer.to_canonical(), &mut None)
    }

    /// Returns the client of a request that came from `peer`, and the host that passed it on.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> (ClientAddr, Option<ViaHost>) {
        // An IPv4 client of an IPv6 socket appears as `::ffff:a.b.c.d`. The canonical form makes it
        // match the networks that the operator wrote.
        let mut client = peer.to_canonical();
        let mut via = None;
        if !self.believes(client, &mut via) {
            return (ClientAddr(client), None);
        }
        // Both the header lines and the addresses in each line run from the newest to the oldest,
        // because every proxy appends the address of its own peer.
        let said = headers.get_all("x-forwarded-for").iter().rev();
        let said = said.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        for address in said {
            // An unreadable entry ends the walk: nothing before it can be trusted.
            let Some(address) = read(address.trim()) else { break };
            client = address.to_canonical();
            if !self.believes(client, &mut via) {
                break;
            }
        }
        (ClientAddr(client), via)
    }

    /// Whether this address may name another client. Notes the first host on the way.
    fn believes(&self, address: IpAddr, via: &mut Option<ViaHost>) -> bool {
        if self.proxies.iter().any(|network| network.contains(&address)) {
            return true;
        }
        // A host may not name another host.
        if via.is_some() {
            return false;
        }
        // The lock is held only for this clone: the map is replaced as a whole, never changed.
        let hosts = Arc::clone(&self.hosts.read().unwrap_or_else(PoisonError::into_inner));
        *via = hosts.get(&address).map(|name| ViaHost(Arc::clone(name)));
        via.is_some()
    }
}

/// Reads an address. Some proxies append its port.
fn read(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_ones_are_believed_and_only_as_far_as_they_reach() {
        let trusted_peers = TrustedPeers::new(&["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        trusted_peers.set_hosts(HashMap::from([
            ("198.51.100.7".parse().unwrap(), Arc::from("one")),
            ("198.51.100.8".parse().unwrap(), Arc::from("two")),
        ]));
        for (peer, said, client, via) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1", None),
            ("10.0.0.1", &[], "10.0.0.1", None),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9", None),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9"], "203.0.113.9", None),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.9"], "203.0.113.9", None),
            ("10.0.0.1", &["203.0.113.9, 10.2.3.4"], "203.0.113.9", None),
            ("10.0.0.1", &["6.6.6.6, garbage"], "10.0.0.1", None),
            ("10.0.0.1", &["6.6.6.6, garbage, 203.0.113.9"], "203.0.113.9", None),
            ("10.0.0.1", &["203.0.113.9:4444"], "203.0.113.9", None),
            ("::1", &["2001:db8::9"], "2001:db8::9", None),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9", None),
            ("198.51.100.7", &["203.0.113.9"], "203.0.113.9", Some("one")),
            ("198.51.100.7", &["6.6.6.6, 203.0.113.9"], "203.0.113.9", Some("one")),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "203.0.113.9", Some("one")),
            ("198.51.100.7", &["6.6.6.6, 198.51.100.8"], "198.51.100.8", Some("one")),
            ("198.51.100.7", &[], "198.51.100.7", Some("one")),
        ] {
            let headers =
                said.iter().map(|line| ("x-forwarded-for".parse().unwrap(), line.parse().unwrap())).collect();
            let (found, through) = trusted_peers.client(peer.parse().unwrap(), &headers);
            assert_eq!(found.0, client.parse::<IpAddr>().unwrap(), "{peer} {said:?}");
            assert_eq!(through.as_ref().map(|host| &*host.0), via, "{peer} {said:?}");
        }
    }
}
