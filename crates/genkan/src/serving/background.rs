//! Loops that run beside the edge for as long as the server does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::edge::{By, Counters};
use crate::fleet::Fleet;
use crate::forward::ExternalPdses;
use crate::telemetry::metrics::{CONNECTIONS, CONNECTIONS_REFUSED, HOST_HEALTHY, Metrics, REQUESTS};
use crate::wire::TrustedPeers;

/// Keeps the addresses of the hosts up to date, whose `X-Forwarded-For` is trusted.
#[expect(clippy::disallowed_methods, reason = "the names of hosts come from the operator")]
pub(super) async fn know_hosts(fleet: Fleet, trusted_peers: TrustedPeers) {
    loop {
        let mut addresses = HashMap::new();
        for host in fleet.all().iter() {
            let name = host.origin.host().trim_start_matches('[').trim_end_matches(']');
            let Ok(found) = tokio::net::lookup_host((name, host.origin.port())).await else { continue };
            addresses.extend(found.map(|found| (found.ip().to_canonical(), Arc::from(host.id.as_str()))));
        }
        trusted_peers.set_hosts(addresses);
        tokio::time::sleep(KNOW_HOSTS_EVERY).await;
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
/// Interval at which the counters are copied.
const EXPORT_COUNTERS_EVERY: Duration = Duration::from_secs(2);
