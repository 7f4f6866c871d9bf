//! How many connections there may be, at all and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::Settings;

/// Counts the connections of all threads.
#[derive(Clone, Debug)]
pub(super) struct Caps {
    counts: Arc<Mutex<Counts>>,
    total: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place. Dropped with the connection.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Mutex<Counts>>,
    /// `None`: of an address that is not limited.
    address: Option<IpAddr>,
}

impl Caps {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            counts: Arc::default(),
            total: settings.connections_total,
            per_address: settings.connections_per_address,
        }
    }

    /// Takes a place, if there is one. A believed peer brings many clients, so it is not limited by itself.
    pub(super) fn admit(&self, peer: IpAddr, is_believed: bool) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.total {
            return None;
        }
        let address = (!is_believed).then(|| neighbourhood(peer));
        if let Some(address) = address {
            let count = counts.by_address.entry(address).or_default();
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
        }
        counts.all += 1;
        Some(Place { counts: Arc::clone(&self.counts), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = counts.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

/// What counts as one address: of IPv6 the /64, which one subscriber has whole.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_address_and_in_all() {
        let caps = Caps { counts: Arc::default(), total: 4, per_address: 2 };
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = caps.admit(at("2001:db8::1"), false).unwrap();
        let _second = caps.admit(at("2001:db8::2"), false).unwrap();
        assert!(caps.admit(at("2001:db8::3"), false).is_none(), "the same /64");
        assert!(caps.admit(at("2001:db8::3"), true).is_some(), "a proxy brings many");
        let _third = caps.admit(at("2001:db8:0:1::3"), false).unwrap();
        let _fourth = caps.admit(at("192.0.2.1"), false).unwrap();
        assert!(caps.admit(at("192.0.2.2"), false).is_none(), "full");
        drop(first);
        assert!(caps.admit(at("2001:db8::3"), false).is_some(), "a place is given back");
    }
}
