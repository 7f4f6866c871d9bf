//! Budgets for what strangers cause to be stored.
//!
//! Anyone can make Genkan keep a row: by a page without cookies, by a request of an app that Genkan
//! does not know, by a sign-in that never ends. Sweeps remove such rows after a time. A budget bounds
//! the bytes of new ones per hour, so that time and budget together bound what is kept. Each process
//! counts by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::client::ClientNetwork;
use crate::base::Timestamp;

/// The bytes of new rows of one kind, per hour: in all, and for each client network.
#[derive(Debug)]
pub(crate) struct StorageBudget {
    in_all: u64,
    per_network: u64,
    spent: Mutex<Spent>,
}

/// What was stored since the hour began.
#[derive(Debug)]
struct Spent {
    since: Timestamp,
    in_all: u64,
    networks: HashMap<IpAddr, u64>,
}

impl StorageBudget {
    pub(crate) fn new(in_all: u64, per_network: u64) -> Self {
        let nothing = Spent { since: Timestamp::from_millis(0), in_all: 0, networks: HashMap::new() };
        Self { in_all, per_network, spent: Mutex::new(nothing) }
    }

    /// Spends the bytes of a row, if there are as many left for this client and for all.
    pub(crate) fn spend(&self, client: IpAddr, bytes: usize, now: Timestamp) -> bool {
        let network = ClientNetwork::of(client).address();
        // A row takes more than its texts. The charge also bounds the number of networks in memory.
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(ROW);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back begins a new hour as well. Otherwise nothing would be stored
        // until it has caught up.
        if now.since(spent.since) >= HOUR || now < spent.since {
            *spent = Spent { since: now, in_all: 0, networks: HashMap::new() };
        }
        let of_network = spent.networks.get(&network).copied().unwrap_or(0);
        if spent.in_all.saturating_add(bytes) > self.in_all
            || of_network.saturating_add(bytes) > self.per_network
        {
            return false;
        }
        spent.in_all += bytes;
        spent.networks.insert(network, of_network + bytes);
        true
    }
}

const HOUR: Duration = Duration::from_hours(1);
/// What a row takes besides its texts, with its indexes.
const ROW: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_all_together_have_so_many_bytes_an_hour() {
        let now = Timestamp::from_seconds(1_700_000_000);
        let budget = StorageBudget::new(10 * 1024, 4 * 1024);
        let row = 1024 - usize::try_from(ROW).unwrap();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let fits = |client, now| (0..100).filter(|_| budget.spend(client, row, now)).count();
        assert_eq!(fits(address(1), now), 4);
        assert_eq!(fits(address(2), now), 4);
        assert_eq!(fits(address(3), now), 2, "in all");
        assert!(!budget.spend(address(4), 1, now));
        let later = now.plus(HOUR);
        assert_eq!(fits("2001:db8::1".parse().unwrap(), later), 4);
        assert_eq!(fits("2001:db8::2".parse().unwrap(), later), 0, "one /64");
        assert!(!budget.spend(address(1), usize::MAX, later));
        assert!(budget.spend(address(1), 1, now), "the clock was set back");
    }
}
