//! `[fleet]`: how the hosts are watched and guarded.

use std::time::Duration;

use super::Rate;
use super::key::section;
use super::problem::Findings;

section! {
    /// How the hosts are watched and guarded.
    pub struct Fleet = "fleet" {
        /// How often each host is asked whether it is well.
        probe_interval: Duration { env: "GENKAN_PROBE_INTERVAL", default: "10s" },
        /// How long a host may take to say so.
        probe_timeout: Duration { env: "GENKAN_PROBE_TIMEOUT", default: "5s" },
        /// Failed probes in a row after which a host counts as down.
        down_after: u32 { env: "GENKAN_HOST_DOWN_AFTER", default: "3" },
        /// Good probes in a row after which it counts as up again.
        up_after: u32 { env: "GENKAN_HOST_UP_AFTER", default: "2" },
        /// The most connections of one worker to one host.
        connections_per_host: usize { env: "GENKAN_CONNECTIONS_PER_HOST", default: "512" },
        /// Failed requests after which requests to a host fail at once, without being tried.
        breaker_failures: u32 { env: "GENKAN_BREAKER_FAILURES", default: "5" },
        /// The time in which so many must fail.
        breaker_window: Duration { env: "GENKAN_BREAKER_WINDOW", default: "10s" },
        /// How long it stays so before one request is tried again.
        breaker_pause: Duration { env: "GENKAN_BREAKER_PAUSE", default: "10s" },
        /// The most requests that one registered host may pass on to Genkan for its users.
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
                found.add(env, "0 is too few", "write 1 or more");
            }
        }
        for (env, given) in [
            ("GENKAN_PROBE_INTERVAL", self.probe_interval),
            ("GENKAN_PROBE_TIMEOUT", self.probe_timeout),
            ("GENKAN_BREAKER_WINDOW", self.breaker_window),
            ("GENKAN_BREAKER_PAUSE", self.breaker_pause),
        ] {
            if given < Duration::from_millis(100) {
                found.add(env, "is too short", "write 100ms or more");
            }
        }
    }
}
