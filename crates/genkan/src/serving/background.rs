//! Loops that run beside the edge for as long as the server does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::base::{Origin, monotonic_now};
use crate::edge::{By, Counters};
use crate::fleet::Fleet;
use crate::forward::ExternalPdses;
use crate::telemetry::metrics::{CONNECTIONS, CONNECTIONS_REFUSED, HOST_HEALTHY, Metrics, REQUESTS};
use crate::wire::{HostNames, TrustedPeers};

/// Keeps the addresses of the hosts up to date, whose `X-Forwarded-For` is trusted.
pub(super) async fn know_hosts(fleet: Fleet, trusted_peers: TrustedPeers) {
    let mut known = HostAddresses::default();
    loop {
        let hosts = fleet.all();
        let names = hosts.iter().map(|host| (host.id.as_str(), &host.origin));
        // Together: a slow name server of one host must not hold up the addresses of the others.
        let found = join_all(names.map(async |(id, origin)| (id, resolve(origin).await))).await;
        known.update(found, monotonic_now());
        trusted_peers.set_hosts(known.by_address());
        tokio::time::sleep(KNOW_HOSTS_EVERY).await;
    }
}

/// Returns the addresses of an origin, or none if its name cannot be resolved now.
#[expect(clippy::disallowed_methods, reason = "the names of hosts come from the operator")]
async fn resolve(origin: &Origin) -> Vec<IpAddr> {
    let name = origin.host().trim_start_matches('[').trim_end_matches(']');
    let lookup = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((name, origin.port())));
    let Ok(Ok(found)) = lookup.await else { return Vec::new() };
    found.map(|found| found.ip().to_canonical()).collect()
}

/// The last known addresses of the registered hosts, by the host's name, and when each was last seen.
#[derive(Debug, Default)]
struct HostAddresses(HashMap<Arc<str>, KnownAddresses>);

#[derive(Debug)]
struct KnownAddresses {
    /// When each address was last found. The time without any answer is not counted.
    found_at: HashMap<IpAddr, Instant>,
    /// The last lookup, whatever its outcome.
    looked_up_at: Instant,
}

impl HostAddresses {
    /// Takes the outcome of a lookup of every registered host.
    ///
    /// A host without an outcome keeps its last known addresses: without them all of its users would
    /// count as one client. An outcome may lack addresses too, when the lookup of one family failed
    /// or a name server answers with a part of them. So each address is kept for a while.
    fn update<'a>(&mut self, found: impl IntoIterator<Item = (&'a str, Vec<IpAddr>)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (host, addresses) in found {
            let fresh = || KnownAddresses { found_at: HashMap::new(), looked_up_at: now };
            let mut known = before.remove(host).unwrap_or_else(fresh);
            let since = now.duration_since(std::mem::replace(&mut known.looked_up_at, now));
            if addresses.is_empty() {
                // Moved by that time only: one failed lookup now and then must not keep an address
                // for ever that the others no longer find.
                for at in known.found_at.values_mut() {
                    *at += since;
                }
            }
            known.found_at.extend(addresses.into_iter().map(|address| (address, now)));
            known.found_at.retain(|_, at| now.duration_since(*at) < KEEP_ADDRESS);
            self.0.insert(host.into(), known);
        }
    }

    /// The hosts at each address. Hosts on one machine or behind one proxy share theirs.
    fn by_address(&self) -> HashMap<IpAddr, HostNames> {
        let mut hosts: HashMap<IpAddr, Vec<&str>> = HashMap::new();
        for (host, known) in &self.0 {
            for address in known.found_at.keys() {
                hosts.entry(*address).or_default().push(host);
            }
        }
        hosts.into_iter().map(|(address, names)| (address, names.into_iter().collect())).collect()
    }
}

/// Copies the counters of the edge's threads to the metrics.
///
/// A thread counts in memory of its own, without a lock, so someone has to collect the sums.
pub(super) async fn export_counters(
    counters: Vec<Arc<Counters>>,
    fleet: Fleet,
    external: ExternalPdses,
    metrics: Metrics,
) {
    loop {
        tokio::time::sleep(EXPORT_COUNTERS_EVERY).await;
        let sum = |count: &dyn Fn(&Counters) -> u64| counters.iter().map(|thread| count(thread)).sum::<u64>();
        for (door, by) in [("forwarded", By::Host), ("edge", By::Edge)] {
            for class in 1..=5_usize {
                let status = ["", "1xx", "2xx", "3xx", "4xx", "5xx"].get(class).copied().unwrap_or_default();
                metrics.counter(&REQUESTS, &[door, status]).set(sum(&|thread| thread.answers(by, class)));
            }
        }
        external.show(&metrics);
        for host in fleet.all().iter() {
            metrics.gauge(&HOST_HEALTHY, &[host.id.as_str()]).set(i64::from(host.health.is_up()));
        }
        metrics.gauge(&CONNECTIONS, &[]).set(i64::try_from(sum(&Counters::open)).unwrap_or(i64::MAX));
        metrics.counter(&CONNECTIONS_REFUSED, &["no place"]).set(sum(&Counters::turned_away));
    }
}

/// Interval at which the names of the hosts are resolved.
const KNOW_HOSTS_EVERY: Duration = Duration::from_secs(10);
/// Maximum time to resolve the name of one host.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// How long an address of a host is kept after the last lookup that found it.
const KEEP_ADDRESS: Duration = Duration::from_hours(1);
/// Interval at which the counters are copied.
const EXPORT_COUNTERS_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_lookup_keeps_the_last_known_addresses_of_a_host() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut known = HostAddresses::default();
        let of = |known: &HostAddresses, last| {
            known.by_address().get(&address(last)).map(|names| names.to_string())
        };
        let mut now = monotonic_now();
        known.update([("oak", vec![address(1), address(2)]), ("elm", vec![address(3)])], now);
        // Longer than an address is kept while others of its host are found.
        for _ in 0..3 {
            now += KEEP_ADDRESS / 2;
            known.update([("oak", Vec::new()), ("elm", vec![address(3)])], now);
        }
        assert_eq!(of(&known, 1).as_deref(), Some("oak"));
        assert_eq!(of(&known, 2).as_deref(), Some("oak"));
        assert_eq!(of(&known, 3).as_deref(), Some("elm"));
        known.update([("elm", Vec::new())], now);
        assert_eq!((of(&known, 1), of(&known, 3).as_deref()), (None, Some("elm")), "oak was removed");
    }

    #[test]
    fn an_address_is_kept_for_an_hour_after_it_was_last_found() {
        let (v4, v6): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap());
        let mut known = HostAddresses::default();
        let mut now = monotonic_now();
        known.update([("oak", vec![v4, v6])], now);
        // The lookup of one family fails.
        now += KEEP_ADDRESS.saturating_sub(Duration::from_secs(1));
        known.update([("oak", vec![v4])], now);
        assert_eq!(known.by_address().len(), 2);
        now += Duration::from_secs(1);
        known.update([("oak", vec![v4])], now);
        assert_eq!(known.by_address().into_keys().collect::<Vec<_>>(), [v4], "the host has moved");
    }

    #[test]
    fn failed_lookups_now_and_then_do_not_keep_an_address() {
        let (v4, v6): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap());
        let mut known = HostAddresses::default();
        let mut now = monotonic_now();
        known.update([("oak", vec![v4, v6])], now);
        // The host has given one address up. Of three lookups in half an hour one fails.
        for round in 0..6 {
            for outcome in [vec![v4], vec![v4], Vec::new()] {
                now += Duration::from_mins(10);
                known.update([("oak", outcome)], now);
            }
            let is_known = known.by_address().contains_key(&v6);
            assert_eq!(is_known, round < 2, "{round}: an hour in which lookups had an answer");
        }
        assert!(known.by_address().contains_key(&v4));
    }

    #[test]
    fn hosts_at_one_address_are_all_known_there() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut known = HostAddresses::default();
        // A map's order differs from one map to the next, so one update alone could pass by chance.
        for _ in 0..20 {
            known.update([("oak", vec![address]), ("elm", vec![address])], monotonic_now());
            assert_eq!(known.by_address().get(&address).map(|names| &**names), Some("elm,oak"));
        }
    }
}
