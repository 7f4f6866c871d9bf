//! Limits on open connections: in all, and from one client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::Settings;

/// Counts the open connections of all edge threads against the limits.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimits {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Permission for one open connection. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    counts: Arc<Mutex<Counts>>,
    /// The counted address. `None` for a trusted proxy, which has no limit of its own.
    address: Option<IpAddr>,
}

impl ConnectionLimits {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            counts: Arc::default(),
            total: settings.connections_total,
            per_address: settings.connections_per_address,
        }
    }

    /// Admits a connection, or returns `None` when a limit is reached.
    ///
    /// A trusted proxy brings many clients, so only the total limit applies to it.
    pub(super) fn admit(&self, peer: IpAddr, is_believed: bool) -> Option<ConnectionPermit> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // The total comes first: it protects the process, also from trusted proxies.
        if counts.all >= self.total {
            return None;
        }
        // A trusted proxy brings the connections of many clients from one address.
        let address = (!is_believed).then(|| limited_as(peer));
        if let Some(address) = address {
            let count = counts.by_address.entry(address).or_default();
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
        }
        // Counted last, so that a refused connection has changed nothing.
        counts.all += 1;
        Some(ConnectionPermit { counts: Arc::clone(&self.counts), address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = counts.by_address.get_mut(&address)
        {
            *count -= 1;
            // Otherwise every address that ever connected would stay in the map.
            if *count == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

/// The address that is counted: for IPv6 its /64, because one subscriber usually has a whole /64.
fn limited_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        // One subscriber usually has a whole /64, and could use an address of it for each
        // connection.
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_address_and_in_all() {
        let limits = ConnectionLimits { counts: Arc::default(), total: 4, per_address: 2 };
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = limits.admit(at("2001:db8::1"), false).unwrap();
        let _second = limits.admit(at("2001:db8::2"), false).unwrap();
        assert!(limits.admit(at("2001:db8::3"), false).is_none(), "the same /64");
        assert!(limits.admit(at("2001:db8::3"), true).is_some(), "a proxy brings many");
        let _third = limits.admit(at("2001:db8:0:1::3"), false).unwrap();
        let _fourth = limits.admit(at("192.0.2.1"), false).unwrap();
        assert!(limits.admit(at("192.0.2.2"), false).is_none(), "full");
        drop(first);
        assert!(limits.admit(at("2001:db8::3"), false).is_some(), "a place is given back");
    }
}
