//! The address of a request's client.
//!
//! It is the socket's address, unless that belongs to a proxy that the operator listed. A proxy
//! names the client in `X-Forwarded-For`. The header is read from its end, where the last trusted
//! peer wrote. The client may have made up what stands further left.
//!
//! A registered host writes the header too, for the users whose calls it passes on. It is believed
//! only where the harm stays with its own users: for an account that lives there. Otherwise it
//! could use up the limits of any address, or pass for any. Several hosts may share an address; then
//! any of them may have written the header, and it is believed for the accounts of each.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;

use super::XrpcError;

/// The client's address, by which requests are limited and logged: that of the host, if a host
/// passed the request on. Each request that `http` answers has it as an extension.
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

/// The registered host that passed the request on for its user, or the hosts that share the address
/// that it came from. An extension of such requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViaHost {
    pub(crate) host: HostNames,
    /// The user's address, as the host says.
    pub(crate) client: IpAddr,
}

/// The names of the hosts at one address, sorted and joined by commas, which no name contains. Cheap
/// to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostNames(Arc<str>);

impl HostNames {
    /// Whether this host is one of them.
    pub(crate) fn contains(&self, host: &str) -> bool {
        self.0.split(',').any(|name| name == host)
    }
}

impl<'a> FromIterator<&'a str> for HostNames {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        // Sorted: limits are counted by this text.
        let names: Vec<&str> = names.into_iter().collect::<BTreeSet<&str>>().into_iter().collect();
        Self(names.join(",").into())
    }
}

impl Deref for HostNames {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The client of a call that names an account.
#[derive(Clone, Debug)]
pub(crate) struct AccountClient {
    own: ClientAddr,
    via: Option<ViaHost>,
}

impl<S: Sync> FromRequestParts<S> for AccountClient {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, XrpcError> {
        let own = ClientAddr::from_request_parts(parts, state).await?;
        Ok(Self { own, via: parts.extensions.get().cloned() })
    }
}

impl AccountClient {
    /// Returns the client's address as it is said: by the host, if one passed the request on. For what
    /// harms no one if a host invents addresses.
    pub(crate) fn said(&self) -> IpAddr {
        self.via.as_ref().map_or(self.own.0, |via| via.client)
    }

    /// Returns the client's address for an account that lives on the host `home`, or for none.
    pub(crate) fn address(&self, home: Option<&str>) -> IpAddr {
        match &self.via {
            Some(via) if home.is_some_and(|home| via.host.contains(home)) => via.client,
            _ => self.own.0,
        }
    }

    /// Returns the client's own address, and the host that passed the call on, if one did.
    pub(crate) fn source(&self) -> (IpAddr, Option<&ViaHost>) {
        (self.own.0, self.via.as_ref())
    }
}

/// Each address of a registered host, with the names of all hosts there.
type Hosts = HashMap<IpAddr, HostNames>;

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

    /// Replaces the addresses of the registered hosts, each with the names of the hosts there.
    pub(crate) fn set_hosts(&self, hosts: Hosts) {
        *self.hosts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
    }

    /// Whether this peer's `X-Forwarded-For` is read.
    pub(crate) fn speaks_for_others(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.is_proxy(peer) || self.host_at(peer).is_some()
    }

    /// Returns the client of a request that came from `peer`, and the host that passed it on.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> (ClientAddr, Option<ViaHost>) {
        // Both the header lines and the addresses in each line run from the newest to the oldest,
        // because every proxy appends the address of its own peer.
        let said = headers.get_all("x-forwarded-for").iter().rev();
        let mut said = said.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        // An IPv4 client of an IPv6 socket appears as `::ffff:a.b.c.d`. The canonical form makes it
        // match the networks that the operator wrote.
        let mut address = peer.to_canonical();
        let mut host: Option<(HostNames, IpAddr)> = None;
        loop {
            if !self.is_proxy(address) {
                // A host may not name another host.
                let None = host else { break };
                host = self.host_at(address).map(|name| (name, address));
                let Some(_) = host else { break };
            }
            // An unreadable entry ends the walk: nothing before it can be trusted.
            let Some(next) = said.next().and_then(|next| read(next.trim())) else { break };
            address = next.to_canonical();
        }
        match host {
            Some((host, own)) => (ClientAddr(own), Some(ViaHost { host, client: address })),
            None => (ClientAddr(address), None),
        }
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }

    fn host_at(&self, address: IpAddr) -> Option<HostNames> {
        // The lock is held only for this clone: the map is replaced as a whole, never changed.
        let hosts = Arc::clone(&self.hosts.read().unwrap_or_else(PoisonError::into_inner));
        hosts.get(&address).cloned()
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
            ("198.51.100.7".parse().unwrap(), HostNames::from_iter(["one"])),
            ("198.51.100.8".parse().unwrap(), HostNames::from_iter(["two"])),
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
            ("198.51.100.7", &["203.0.113.9"], "198.51.100.7", Some(("one", "203.0.113.9"))),
            ("198.51.100.7", &["6.6.6.6, 203.0.113.9"], "198.51.100.7", Some(("one", "203.0.113.9"))),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7", Some(("one", "203.0.113.9"))),
            ("198.51.100.7", &["6.6.6.6, 198.51.100.8"], "198.51.100.7", Some(("one", "198.51.100.8"))),
            ("198.51.100.7", &[], "198.51.100.7", Some(("one", "198.51.100.7"))),
        ] {
            let headers =
                said.iter().map(|line| ("x-forwarded-for".parse().unwrap(), line.parse().unwrap())).collect();
            let (found, through) = trusted_peers.client(peer.parse().unwrap(), &headers);
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!(found.0, ip(client), "{peer} {said:?}");
            let told = through.as_ref().map(|via| (&*via.host, via.client));
            assert_eq!(told, via.map(|(host, client)| (host, ip(client))), "{peer} {said:?}");
            let from = AccountClient { own: found, via: through };
            for (home, address) in [
                (Some("one"), via.map_or(client, |(_, claimed)| claimed)),
                (Some("two"), client),
                (None, client),
            ] {
                assert_eq!(from.address(home), ip(address), "{peer} {said:?}, an account of {home:?}");
            }
        }
    }

    /// Two hosts on one machine, or behind one proxy.
    #[test]
    fn hosts_that_share_an_address_are_each_believed_for_their_accounts() {
        let shared: IpAddr = "198.51.100.7".parse().unwrap();
        let claimed: IpAddr = "203.0.113.9".parse().unwrap();
        let trusted_peers = TrustedPeers::new(&[]);
        trusted_peers.set_hosts(HashMap::from([(shared, HostNames::from_iter(["oak", "elm", "oak"]))]));
        let headers =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), "203.0.113.9".parse().unwrap())]);
        let (own, via) = trusted_peers.client(shared, &headers);
        assert_eq!((own.0, via.as_ref().map(|via| &*via.host)), (shared, Some("elm,oak")));
        let from = AccountClient { own, via };
        for (home, address) in [
            (Some("oak"), claimed),
            (Some("elm"), claimed),
            (Some("ash"), shared),
            (Some("elm,oak"), shared),
            (None, shared),
        ] {
            assert_eq!(from.address(home), address, "{home:?}");
        }
    }
}
