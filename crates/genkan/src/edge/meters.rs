//! What the edge counts of things that go wrong. Each is rare, so the series are looked up as they come.

use crate::fleet::HostId;
use crate::forward::Error;
use crate::telemetry::metrics::{HOST_FAILURES, Metrics, REFUSALS};

/// Counts what goes wrong.
#[derive(Debug)]
pub(super) struct Meters {
    metrics: Metrics,
}

impl Meters {
    pub(super) const fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    /// The edge refused a request.
    pub(super) fn refused(&self, name: &str) {
        self.metrics.counter(&REFUSALS, &[name]).increment();
    }

    /// A host did not answer, or was not asked.
    pub(super) fn failed(&self, host: &HostId, error: &Error) {
        let reason = match error {
            Error::Unreachable(cause) => {
                tracing::warn!(host.id = host.as_str(), "a host could not be reached: {cause}");
                "unreachable"
            }
            Error::SlowHost(limit) => {
                tracing::warn!(host.id = host.as_str(), "a host did not answer within {limit:?}");
                "slow"
            }
            Error::Resting => "resting",
            Error::Crowded => "crowded",
            _ => return,
        };
        self.metrics.counter(&HOST_FAILURES, &[host.as_str(), reason]).increment();
    }
}
