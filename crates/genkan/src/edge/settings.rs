//! The edge's limits, from the configuration.

use std::time::Duration;

use http1::{BreakerRules, HeadLimits};

use super::intake::IntakeLimit;
use crate::config;
use crate::forward;

/// The edge's limits.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Number of threads.
    pub(crate) workers: usize,
    /// The time from the first byte of a head to its end.
    pub(crate) head_timeout: Duration,
    /// The time from the end of a request to the first byte of the next.
    pub(crate) idle_timeout: Duration,
    /// How long bytes may wait for a client that accepts none of them.
    pub(crate) stalled_reader: Duration,
    /// The least that a client has to take of what waits for it.
    pub(crate) intake: IntakeLimit,
    pub(crate) head_bytes: usize,
    pub(crate) head_fields: usize,
    pub(crate) target_bytes: usize,
    pub(crate) connections_per_address: usize,
    pub(crate) connections_total: usize,
    pub(crate) streams_per_connection: u32,
    /// Whether each request gets a line in the log.
    pub(crate) request_log: bool,
    pub(crate) forward: forward::Limits,
    pub(crate) breaker: BreakerRules,
}

impl Settings {
    pub(crate) fn of(config: &config::Config) -> Self {
        let (listen, limits) = (&config.listen, &config.limits);
        Self {
            workers: listen.workers,
            head_timeout: listen.head_timeout,
            idle_timeout: listen.idle_timeout,
            stalled_reader: limits.idle_timeout,
            intake: IntakeLimit { period: INTAKE_PERIOD, rate: listen.slow_body_rate.0 },
            head_bytes: listen.head_limit.in_memory(),
            head_fields: listen.head_fields,
            target_bytes: listen.target_limit.in_memory(),
            connections_per_address: listen.connections_per_address,
            connections_total: listen.connections_total,
            streams_per_connection: listen.streams_per_connection,
            request_log: config.telemetry.request_log,
            forward: forward::Limits::of(config),
            breaker: forward::breaker_rules(config),
        }
    }

    pub(super) const fn head(&self) -> HeadLimits {
        HeadLimits { bytes: self.head_bytes, fields: self.head_fields, target: self.target_bytes }
    }

    /// The pause between two checks of all time limits: an eighth of the shortest limit, so that
    /// none is exceeded by much.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self
            .head_timeout
            .min(self.idle_timeout)
            .min(self.stalled_reader)
            .min(self.intake.period)
            .min(self.forward.answer_head);
        (shortest / 8).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }
}

/// The time over which the bytes that a client takes are averaged.
const INTAKE_PERIOD: Duration = Duration::from_mins(1);
