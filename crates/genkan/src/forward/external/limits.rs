//! Per-client limits on reads from external PDSes: concurrency, rate and bytes.
//!
//! Anyone may request these reads, and the external PDS decides how much it sends. So there are
//! bounds for each client address and for all clients together.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Rate};
use crate::limits::ClientNetwork;

/// The limits on reads from external PDSes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimits {
    /// The rate at which a client may begin reads. `None` means no limit.
    pub(crate) rate: Option<Rate>,
    /// The most reads of a client at once.
    pub(crate) streams: usize,
    /// The most reads at once, of all clients together.
    pub(crate) streams_in_all: usize,
    /// Bytes that a client may read in an hour.
    pub(crate) bytes: u64,
}

impl ReadLimits {
    pub(crate) fn of(config: &Config) -> Self {
        let external = &config.external;
        Self {
            rate: config.limits.rates_enabled.then_some(external.read_rate),
            streams: external.read_streams,
            streams_in_all: external.read_streams_total,
            bytes: external.read_bytes.0,
        }
    }
}

/// Counts external reads for all threads. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::forward) struct ReadLimiter {
    rules: ReadLimits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    streams: usize,
    clients: HashMap<ClientNetwork, Client>,
}

/// One client's reads.
#[derive(Debug)]
struct Client {
    streams: usize,
    requests: u32,
    requests_since: Instant,
    bytes: u64,
    bytes_since: Instant,
}

/// Why a read may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum ReadRefusal {
    /// The client is over a limit of its own.
    Client { rate: Rate, wait: Duration },
    /// All clients together are over the limit.
    InAll,
}

/// Permission for one read, until its answer has ended.
#[derive(Debug)]
pub(in crate::forward) struct ReadPermit {
    reads: ReadLimiter,
    client: ClientNetwork,
    /// Bytes that are not yet in the shared count.
    uncounted: Cell<u64>,
}

impl ReadLimiter {
    pub(in crate::forward) fn new(rules: ReadLimits) -> Self {
        Self { rules, counts: Arc::default() }
    }

    /// Admits a read.
    pub(in crate::forward) fn begin(&self, client: IpAddr, now: Instant) -> Result<ReadPermit, ReadRefusal> {
        let place = ClientNetwork::of(client);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.streams >= self.rules.streams_in_all {
            return Err(ReadRefusal::InAll);
        }
        if counts.clients.len() >= MOST_CLIENTS {
            counts.make_room(MOST_CLIENTS, now);
        }
        let client = counts.clients.entry(place).or_insert_with(|| Client::new(now));
        client.roll(self.rules.rate, now);
        if let Some(rate) = self.rules.rate {
            if client.requests >= rate.count {
                return Err(ReadRefusal::Client { rate, wait: left(client.requests_since, rate.per, now) });
            }
            // Counted before the other checks: a client at its stream limit must not get free
            // attempts.
            client.requests += 1;
        }
        let streams = Rate { count: u32::try_from(self.rules.streams).unwrap_or(u32::MAX), per: SECOND };
        if client.streams >= self.rules.streams {
            return Err(ReadRefusal::Client { rate: streams, wait: SECOND });
        }
        if client.bytes >= self.rules.bytes {
            // The byte limit has no place in rate-limit headers, so the answer borrows the request
            // rate's number.
            let rate = Rate { count: self.rules.rate.map_or(1, |rate| rate.count), per: HOUR };
            return Err(ReadRefusal::Client { rate, wait: left(client.bytes_since, HOUR, now) });
        }
        client.streams += 1;
        counts.streams += 1;
        Ok(ReadPermit { reads: self.clone(), client: place, uncounted: Cell::new(0) })
    }
}

impl Counts {
    /// Forgets clients, so that at most `most` are left. One with a read under way stays: at once
    /// there are few of those.
    fn make_room(&mut self, most: usize, now: Instant) {
        self.clients.retain(|_, client| !client.is_forgettable(now));
        if self.clients.len() < most {
            return;
        }
        // A flood of addresses, each with a few reads. The smaller half of the counts goes: the
        // limits are for the clients with large ones.
        let mut used: Vec<u64> = self.clients.values().map(Client::used).collect();
        let middle = used.len() / 2;
        let median = *used.select_nth_unstable(middle).1;
        // `spare` limits the removal to half, even if most counts equal the median.
        let mut spare = middle;
        self.clients.retain(|_, client| {
            if client.streams > 0 || client.used() > median || spare == 0 {
                return true;
            }
            spare -= 1;
            false
        });
    }
}

impl Client {
    /// How much the client has read: requests, or MiB if there are more of those.
    fn used(&self) -> u64 {
        u64::from(self.requests).max(self.bytes >> 20)
    }

    const fn new(now: Instant) -> Self {
        Self { streams: 0, requests: 0, requests_since: now, bytes: 0, bytes_since: now }
    }

    /// Begins new windows where the old ones have ended.
    fn roll(&mut self, rate: Option<Rate>, now: Instant) {
        if rate.is_some_and(|rate| now.duration_since(self.requests_since) >= rate.per) {
            (self.requests, self.requests_since) = (0, now);
        }
        if now.duration_since(self.bytes_since) >= HOUR {
            (self.bytes, self.bytes_since) = (0, now);
        }
    }

    /// Whether the client has no read under way and its count no longer matters.
    fn is_forgettable(&self, now: Instant) -> bool {
        self.streams == 0 && now.duration_since(self.requests_since) >= FORGET_AFTER
    }
}

impl ReadPermit {
    /// Counts bytes of the answer. Returns whether the read may go on.
    pub(in crate::forward) fn spend(&self, bytes: usize) -> bool {
        let uncounted = self.uncounted.get() + bytes as u64;
        self.uncounted.set(uncounted);
        // The shared lock is taken once per 256 KiB and not once per piece.
        uncounted < COUNT_EVERY || self.count()
    }

    fn count(&self) -> bool {
        let mut counts = self.reads.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // A missing entry was forgotten while idle. The read itself keeps going.
        let Some(client) = counts.clients.get_mut(&self.client) else { return true };
        client.bytes = client.bytes.saturating_add(self.uncounted.take());
        client.bytes <= self.reads.rules.bytes
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        // The rest of the bytes counts as well, or many small reads would be free.
        self.count();
        let mut counts = self.reads.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.streams -= 1;
        if let Some(client) = counts.clients.get_mut(&self.client) {
            client.streams -= 1;
        }
    }
}

/// The time until a window ends.
fn left(since: Instant, per: Duration, now: Instant) -> Duration {
    per.saturating_sub(now.duration_since(since))
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const FORGET_AFTER: Duration = Duration::from_mins(5);
/// The most clients that are remembered.
const MOST_CLIENTS: usize = 100_000;
/// The most bytes by which a stream may be ahead of the count.
const COUNT_EVERY: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monotonic_now;

    fn reads(streams: usize, streams_in_all: usize, count: u32) -> ReadLimiter {
        let rate = Some(Rate { count, per: Duration::from_mins(5) });
        ReadLimiter::new(ReadLimits { rate, streams, streams_in_all, bytes: 1 << 20 })
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_so_many_streams_and_all_together_have_so_many() {
        let (reads, now) = (reads(2, 3, 100), monotonic_now());
        let first = reads.begin(at("2001:db8::1"), now).unwrap();
        let _second = reads.begin(at("2001:db8::2"), now).unwrap();
        assert!(
            matches!(reads.begin(at("2001:db8::3"), now), Err(ReadRefusal::Client { .. })),
            "the same /64"
        );
        let _third = reads.begin(at("192.0.2.1"), now).unwrap();
        assert_eq!(reads.begin(at("192.0.2.2"), now).unwrap_err(), ReadRefusal::InAll);
        drop(first);
        assert!(reads.begin(at("192.0.2.2"), now).is_ok(), "a place is given back");
    }

    #[test]
    fn a_client_may_begin_so_many_in_a_while() {
        let (reads, now) = (reads(9, 9, 2), monotonic_now());
        let client = at("192.0.2.1");
        assert!(reads.begin(client, now).is_ok() && reads.begin(client, now).is_ok());
        let later = now + Duration::from_mins(2);
        let refused = reads.begin(client, later).unwrap_err();
        assert!(
            matches!(refused, ReadRefusal::Client { wait, .. } if wait == Duration::from_mins(3)),
            "{refused:?}"
        );
        assert!(reads.begin(at("192.0.2.2"), later).is_ok());
        assert!(reads.begin(client, now + Duration::from_mins(5)).is_ok());
    }

    #[test]
    fn a_client_has_so_many_bytes_in_an_hour() {
        let (reads, now) = (reads(9, 9, 100), monotonic_now());
        let client = at("192.0.2.1");
        let read_permit = reads.begin(client, now).unwrap();
        assert!(read_permit.spend(600_000));
        drop(read_permit);
        let read_permit = reads.begin(client, now).unwrap();
        assert!(!read_permit.spend(600_000), "both count together");
        drop(read_permit);
        assert!(matches!(reads.begin(client, now), Err(ReadRefusal::Client { .. })));
        assert!(reads.begin(client, now + HOUR).is_ok());
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_without_bound_nor_frees_the_loudest() {
        let (reads, now) = (reads(2, 100, 3), monotonic_now());
        let loud = at("192.0.2.1");
        for _ in 0..3 {
            drop(reads.begin(loud, now).unwrap());
        }
        let _running = reads.begin(at("192.0.2.2"), now).unwrap();
        for number in 0..(MOST_CLIENTS as u128 + 10) {
            let client = std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) | (number << 64));
            drop(reads.begin(client.into(), now).unwrap());
        }
        let counts = reads.counts.lock().unwrap();
        assert!(counts.clients.len() <= MOST_CLIENTS, "{}", counts.clients.len());
        assert!(counts.clients[&ClientNetwork::of(at("192.0.2.2"))].streams == 1);
        drop(counts);
        assert!(matches!(reads.begin(loud, now), Err(ReadRefusal::Client { .. })));
    }
}
