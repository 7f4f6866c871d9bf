//! `[external]`: PDSes that the operator does not run.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::problem::Findings;
use super::section::section;
use super::telemetry::keywords;
use super::value::Setting;
use super::{Rate, Size};

section! {
    /// External PDSes, which the operator does not run: who may read them through Genkan, and how
    /// often Genkan calls them.
    pub struct External = "external" {
        /// Who may read accounts on external PDSes through Genkan: everyone, only authenticated
        /// callers, or no one.
        target_reads: TargetReads { env: "GENKAN_TARGET_READS", default: "public" },
        /// External PDSes that Genkan never calls. A name also blocks its subdomains.
        blocked_hosts: Vec<String> { env: "GENKAN_BLOCKED_HOSTS" },
        /// Accounts on external PDSes that Genkan never reads.
        blocked_dids: Vec<Did> { env: "GENKAN_BLOCKED_DIDS" },
        /// Maximum rate of reads from external PDSes per client address (for IPv6, per /64
        /// network).
        read_rate: Rate { env: "GENKAN_READ_RATE", default: "1500/5m" },
        /// Maximum number of concurrent reads from external PDSes per client address.
        read_streams: usize { env: "GENKAN_READ_STREAMS", default: "16" },
        /// Maximum amount of data that one client address may read from external PDSes per hour. An
        /// answer that exceeds it is cut off.
        read_bytes: Size { env: "GENKAN_READ_BYTES", default: "20GiB" },
        /// Maximum number of concurrent reads from external PDSes in total, so that other requests
        /// always find capacity.
        read_streams_total: usize { env: "GENKAN_READ_STREAMS_TOTAL", default: "512" },
        /// Maximum rate of calls from all replicas to one external PDS, which they share in equal
        /// parts. A quarter is reserved for linked accounts. The default is what the reference PDS
        /// allows per address. Where a PDS announces other limits, those apply.
        calls: Rate { env: "GENKAN_UPSTREAM_CALLS", default: "3000/5m" },
        /// Maximum rate of `getRepo` calls to one external PDS, which PDSes count separately.
        repos: Rate { env: "GENKAN_UPSTREAM_REPOS", default: "6000/5m" },
        /// Maximum rate of `uploadBlob` calls to one external PDS, which PDSes count separately.
        uploads: Rate { env: "GENKAN_UPSTREAM_UPLOADS", default: "1000/1d" },
        /// Maximum rate of calls to one external PDS per account, or per client address for calls
        /// without an account.
        account_calls: Rate { env: "GENKAN_UPSTREAM_ACCOUNT_CALLS", default: "1500/5m" },
        /// Maximum rate of writes among these calls.
        account_writes: Rate { env: "GENKAN_UPSTREAM_ACCOUNT_WRITES", default: "500/5m" },
        /// Time for which a call may wait in the queue when a PDS allows no further calls at the
        /// moment.
        wait: Duration { env: "GENKAN_UPSTREAM_WAIT", default: "2s" },
        /// Maximum number of connections from one worker thread to one external PDS. No account, and
        /// no client address without one, gets more than an eighth of them.
        connections: usize { env: "GENKAN_UPSTREAM_CONNECTIONS", default: "128" },
    }
}

keywords! {
    /// Who may read accounts on external PDSes through Genkan.
    pub enum TargetReads as "public, authenticated or off" {
        Public = "public", Authenticated = "authenticated", Off = "off",
    }
}

impl External {
    fn check(&self, found: &mut Findings) {
        for (env, given) in [
            ("GENKAN_READ_STREAMS", self.read_streams),
            ("GENKAN_READ_STREAMS_TOTAL", self.read_streams_total),
            ("GENKAN_UPSTREAM_CONNECTIONS", self.connections),
        ] {
            if given == 0 {
                found.add(env, "0 is too small", "use 1 or more");
            }
        }
        if self.read_bytes < Size(1_000_000) {
            found.add("GENKAN_READ_BYTES", format!("{} is too small", self.read_bytes), "use 1MB or more");
        }
        if self.wait > Duration::from_secs(30) {
            found.add("GENKAN_UPSTREAM_WAIT", "is too long", "use 30s or less");
        }
    }
}
