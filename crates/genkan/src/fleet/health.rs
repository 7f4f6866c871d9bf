//! Health probes of hosts. Several failures in a row make a host down, several successes make it
//! up. The result is recorded, so that a process that starts begins with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::host::HostState;
use super::sql::{self, ProbeRow};
use super::{Fleet, Host, HostClient, HostId};
use crate::base::{monotonic_now, random};

/// How often a host is probed, and after how many results its health changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeSettings {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Failures in a row until a host counts as down.
    pub(crate) down_after: u32,
    /// Successes in a row until it counts as up again.
    pub(crate) up_after: u32,
}

/// The latest run of equal results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streak {
    good: bool,
    length: u32,
}

impl Streak {
    fn extend(&mut self, good: bool) {
        self.length = if self.good == good { self.length.saturating_add(1) } else { 1 };
        self.good = good;
    }

    /// Whether the host counts as up after this streak, given that it counted as `up` before.
    const fn verdict(self, up: bool, settings: &ProbeSettings) -> bool {
        match (up, self.good) {
            (true, false) => self.length < settings.down_after,
            (false, true) => self.length >= settings.up_after,
            // A result that agrees with the state changes nothing. It has ended the opposite
            // streak.
            (up, _) => up,
        }
    }
}

/// Probes every host until the process ends, each at a random moment within the interval.
pub(crate) async fn watch(fleet: Fleet, client: HostClient, settings: ProbeSettings) {
    let mut streaks: HashMap<HostId, Streak> = HashMap::new();
    loop {
        let hosts = fleet.all();
        let watched: Vec<Arc<Host>> =
            hosts.iter().filter(|host| host.state != HostState::Retired).cloned().collect();
        // A host that returns after its removal starts without an old streak.
        streaks.retain(|id, _| watched.iter().any(|host| host.id == *id));
        let probes = watched.iter().map(|host| async {
            // Replicas start together after a roll-out. Without this they would also probe
            // together.
            tokio::time::sleep(jitter(settings.interval / 4)).await;
            probe(&client, host, settings.timeout).await
        });
        let round = futures_util::future::join_all(probes);
        // A round takes at least one interval, and longer only when a host is slow to answer.
        let (outcomes, ()) = futures_util::future::join(round, tokio::time::sleep(settings.interval)).await;
        for (host, outcome) in watched.iter().zip(outcomes) {
            let streak = streaks.entry(host.id.clone()).or_default();
            streak.extend(outcome.reason.is_none());
            settle(&fleet, host, *streak, outcome, &settings).await;
        }
    }
}

struct Outcome {
    latency: Duration,
    /// Why the probe failed. `None` if it succeeded.
    reason: Option<String>,
}

async fn probe(client: &HostClient, host: &Host, timeout: Duration) -> Outcome {
    let begun = monotonic_now();
    let reason = client.health(&host.origin, timeout).await.err().map(|error| error.to_string());
    Outcome { latency: begun.elapsed(), reason }
}

async fn settle(fleet: &Fleet, host: &Host, streak: Streak, outcome: Outcome, settings: &ProbeSettings) {
    let was_up = host.health.is_up();
    let is_up = streak.verdict(was_up, settings);
    let now = fleet.inner().clock.now();
    host.health.set(is_up, now);
    match (was_up, is_up) {
        (true, false) => tracing::warn!(
            host.id = %host.id,
            reason = outcome.reason.as_deref().unwrap_or_default(),
            "host {} is down", host.id
        ),
        (false, true) => tracing::info!(host.id = %host.id, "host {} is up again", host.id),
        _ => {}
    }
    let row = ProbeRow {
        host_id: host.id.clone(),
        up: is_up,
        since: host.health.since(),
        checked_at: now,
        latency_ms: outcome
            .reason
            .is_none()
            .then(|| i64::try_from(outcome.latency.as_millis()).unwrap_or(i64::MAX)),
        reason: outcome.reason,
    };
    if let Err(cause) = sql::record_probe(&fleet.inner().db, &row).await {
        tracing::warn!(
            cause = &cause as &dyn std::error::Error,
            "the probe of {} could not be recorded",
            host.id
        );
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(random::fraction())
}

/// The last recorded probe of a host, by any process.
#[derive(Clone, Debug)]
pub(crate) struct LastProbe {
    pub(crate) up: bool,
    pub(crate) since: crate::base::Timestamp,
    pub(crate) checked_at: crate::base::Timestamp,
    pub(crate) latency_ms: Option<i64>,
    pub(crate) reason: Option<String>,
}

impl Fleet {
    pub(crate) async fn last_probes(&self) -> Result<HashMap<HostId, LastProbe>, super::Error> {
        let rows = sql::probes(&self.inner().db).await?;
        let read = |row: ProbeRow| {
            let ProbeRow { host_id, up, since, checked_at, latency_ms, reason } = row;
            (host_id, LastProbe { up, since, checked_at, latency_ms, reason })
        };
        Ok(rows.into_iter().map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ProbeSettings = ProbeSettings {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        down_after: 3,
        up_after: 2,
    };

    #[test]
    fn a_host_changes_its_standing_only_after_a_streak() {
        let (mut streak, mut up) = (Streak::default(), true);
        let mut seen = Vec::new();
        for good in [true, false, false, true, false, false, false, true, false, true, true, false] {
            streak.extend(good);
            up = streak.verdict(up, &SETTINGS);
            seen.push(up);
        }
        let expected = [true, true, true, true, true, true, false, false, false, false, true, true];
        assert_eq!(seen, expected);
    }
}
