//! Budgets for what strangers cause to be stored.
//!
//! Anyone can make Genkan keep a row: by a page without cookies, by a request of an app that Genkan
//! does not know, by a sign-in that never ends. Sweeps remove such rows after a time. A budget bounds
//! the bytes of new ones per hour, so that time and budget together bound what is kept. Each process
//! counts by itself.
//!
//! A spent budget refuses nothing: who asks does without the row. Otherwise strangers could spend it
//! in order to keep others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::client::site_of;
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
    #[must_use = "without the bytes nothing may be stored"]
    pub(crate) fn spend(&self, client: IpAddr, bytes: usize, now: Timestamp) -> bool {
        let network = site_of(client);
        // A row takes more than its texts. The charge also bounds the number of networks in memory.
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(ROW);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back begins a new hour as well. Otherwise nothing would be stored
        // until it has caught up.
        if now.since(spent.since) >= HOUR || now < spent.since {
            *spent = Spent { since: now, in_all: 0, networks: HashMap::new() };
        }
        let of_network = spent.networks.get(&network).copied().unwrap_or(0);
        // The last quarter is for networks that stored little. Those that store much cannot spend it.
        let of_all =
            if of_network.saturating_add(bytes) <= LITTLE { self.in_all } else { self.in_all / 4 * 3 };
        if spent.in_all.saturating_add(bytes) > of_all || of_network.saturating_add(bytes) > self.per_network
        {
            return false;
        }
        spent.in_all += bytes;
        spent.networks.insert(network, of_network + bytes);
        true
    }

    /// Spends all that is left.
    #[cfg(test)]
    pub(crate) fn spend_all(&self, now: Timestamp) {
        let mut spent = self.spent.lock().unwrap();
        *spent = Spent { since: now, in_all: self.in_all, networks: HashMap::new() };
    }
}

/// What a network may store of the last quarter.
const LITTLE: u64 = 64 << 10;
const HOUR: Duration = Duration::from_hours(1);
/// What a row takes besides its texts, with its indexes.
const ROW: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_all_together_have_so_many_bytes_an_hour() {
        let now = Timestamp::from_seconds(1_700_000_000);
        let budget = StorageBudget::new(16 << 20, 4 << 20);
        let row = (1 << 10) - usize::try_from(ROW).unwrap();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let fits = |client, now| (0..8 << 10).filter(|_| budget.spend(client, row, now)).count();
        for last in 1..=3 {
            assert_eq!(fits(address(last), now), 4 << 10);
        }
        assert_eq!(fits(address(4), now), 64, "the last quarter has a little for each");
        assert_eq!(fits(address(5), now), 64);
        let later = now.plus(HOUR);
        assert!(!budget.spend(address(1), usize::MAX, later));
        assert_eq!(fits("2001:db8:1:2::1".parse().unwrap(), later), 4 << 10);
        assert_eq!(fits("2001:db8:1:ffff::1".parse().unwrap(), later), 0, "one /48");
        assert_eq!(fits("2001:db8:2::1".parse().unwrap(), later), 4 << 10);
        assert!(budget.spend(address(1), 1, now), "the clock was set back");
    }

    #[test]
    fn the_last_quarter_has_an_end_too() {
        let now = Timestamp::from_seconds(1_700_000_000);
        let budget = StorageBudget::new(1 << 20, 1 << 20);
        let networks = (0..=255_u8).map(|last| IpAddr::from([192, 0, 2, last]));
        let row = (64 << 10) - usize::try_from(ROW).unwrap();
        assert_eq!(networks.filter(|client| budget.spend(*client, row, now)).count(), 16);
    }
}
