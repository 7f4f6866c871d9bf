//! Metrics for refusals and failed hosts. Failures are rare, so each one looks its metric up when
//! it happens.

use crate::forward::{Destination, Error};
use crate::telemetry::metrics::{HOST_FAILURES, Metrics, REFUSALS, UPSTREAM_FAILURES};

/// Counts refusals, and hosts that fail.
#[derive(Debug)]
pub(super) struct FailureMetrics {
    metrics: Metrics,
}

impl FailureMetrics {
    pub(super) const fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    /// Records that the edge refused a request.
    pub(super) fn refused(&self, name: &str) {
        self.metrics.counter(&REFUSALS, &[name]).increment();
    }

    /// Records that a host did not answer, or was not asked because it failed before.
    pub(super) fn failed(&self, destination: &Destination, error: &Error) {
        let reason = match error {
            Error::Unreachable(_) => "unreachable",
            Error::SlowHost(_) => "slow",
            Error::Resting => "resting",
            Error::Crowded | Error::ExternalCrowded => "crowded",
            Error::NotAllowed => "not allowed",
            _ => return,
        };
        let Some(host) = destination.host() else {
            // External PDSes choose their names, so a label for each could fill the memory. The
            // operator cannot repair them either, so they are logged at `debug`.
            tracing::debug!(
                host = destination.name(),
                cause = error as &dyn std::error::Error,
                "a PDS failed"
            );
            return self.metrics.counter(&UPSTREAM_FAILURES, &[reason]).increment();
        };
        match error {
            Error::Unreachable(cause) => {
                tracing::warn!(host.id = host.as_str(), "a host could not be reached: {cause}");
            }
            Error::SlowHost(limit) => {
                tracing::warn!(host.id = host.as_str(), "a host did not answer within {limit:?}");
            }
            _ => {}
        }
        self.metrics.counter(&HOST_FAILURES, &[host.as_str(), reason]).increment();
    }
}
