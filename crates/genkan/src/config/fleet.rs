//! `[fleet]`: health checks and protection of the hosts.

use std::time::Duration;

use super::Rate;
use super::problem::Findings;
use super::section::section;

section! {
    /// Health checks and protection of the hosts.
    pub struct Fleet = "fleet" {
        /// Interval between health checks of a host.
        probe_interval: Duration { env: "GENKAN_PROBE_INTERVAL", default: "10s" },
        /// Time for a host to answer a health check.
        probe_timeout: Duration { env: "GENKAN_PROBE_TIMEOUT", default: "5s" },
        /// Number of consecutive failed health checks after which a host is considered down.
        down_after: u32 { env: "GENKAN_HOST_DOWN_AFTER", default: "3" },
        /// Number of consecutive successful health checks after which a host is considered up
        /// again.
        up_after: u32 { env: "GENKAN_HOST_UP_AFTER", default: "2" },
        /// Maximum number of connections from one worker thread to one host. No account, and no
        /// client address without one, gets more than an eighth of them.
        connections_per_host: usize { env: "GENKAN_CONNECTIONS_PER_HOST", default: "512" },
        /// Smallest number of failed requests within `breaker_window` after which requests to the
        /// host fail at once, without being sent. They must also be half of all requests within it.
        /// A request fails when the host refuses the connection or does not speak HTTP; for methods
        /// that it answers alone, also when it breaks off or stays silent. No status is a failure.
        breaker_failures: u32 { env: "GENKAN_BREAKER_FAILURES", default: "5" },
        /// Sliding window over which failures and answers are counted.
        breaker_window: Duration { env: "GENKAN_BREAKER_WINDOW", default: "10s" },
        /// Time for which requests to the host fail at once. Afterwards one request is sent as a
        /// trial.
        breaker_pause: Duration { env: "GENKAN_BREAKER_PAUSE", default: "10s" },
        /// Maximum rate of requests that one registered host may pass to Genkan on behalf of its
        /// users.
        host_ceiling: Rate { env: "GENKAN_HOST_CEILING", default: "300000/5m" },
    }
}

impl Fleet {
    fn check(&self, found: &mut Findings) {
        for (env, given) in [
            ("GENKAN_HOST_DOWN_AFTER", self.down_after as usize),
            ("GENKAN_HOST_UP_AFTER", self.up_after as usize),
            ("GENKAN_BREAKER_FAILURES", self.breaker_failures as usize),
            ("GENKAN_CONNECTIONS_PER_HOST", self.connections_per_host),
        ] {
            if given == 0 {
                found.add(env, "0 is too small", "use 1 or more");
            }
        }
        for (env, given) in [
            ("GENKAN_PROBE_INTERVAL", self.probe_interval),
            ("GENKAN_PROBE_TIMEOUT", self.probe_timeout),
            ("GENKAN_BREAKER_WINDOW", self.breaker_window),
            ("GENKAN_BREAKER_PAUSE", self.breaker_pause),
        ] {
            if given < Duration::from_millis(100) {
                found.add(env, "is too short", "use 100ms or more");
            }
        }
    }
}
