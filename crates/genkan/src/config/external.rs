//! `[elsewhere]`: PDSes that are not of the fleet, and how we behave there.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::key::section;
use super::problem::Findings;
use super::telemetry::keywords;
use super::value::Setting;
use super::{Rate, Size};

section! {
    /// PDSes that are not of the fleet, and how we behave there.
    pub struct External = "elsewhere" {
        /// Who may read accounts through Genkan that do not live here.
        target_reads: TargetReads { env: "GENKAN_TARGET_READS", default: "public" },
        /// PDS hosts that are never called. A name stands for all below it as well.
        blocked_hosts: Vec<String> { env: "GENKAN_BLOCKED_HOSTS" },
        /// Accounts that are never read elsewhere.
        blocked_dids: Vec<Did> { env: "GENKAN_BLOCKED_DIDS" },
        /// Reads of accounts elsewhere that one client address (IPv6: one /64) may begin.
        read_rate: Rate { env: "GENKAN_READ_RATE", default: "1500/5m" },
        /// Such reads of one client address at once.
        read_streams: usize { env: "GENKAN_READ_STREAMS", default: "16" },
        /// What one client address may read so in an hour. An answer that goes beyond it is cut off.
        read_bytes: Size { env: "GENKAN_READ_BYTES", default: "20GiB" },
        /// Such reads at once in all, so that others always find room.
        read_streams_total: usize { env: "GENKAN_READ_STREAMS_TOTAL", default: "512" },
        /// Calls of this process at one PDS. The default is what the reference PDS allows one address; where a PDS says otherwise, that counts.
        calls: Rate { env: "GENKAN_UPSTREAM_CALLS", default: "3000/5m" },
        /// Calls of `getRepo`, which a PDS counts by itself.
        repos: Rate { env: "GENKAN_UPSTREAM_REPOS", default: "6000/5m" },
        /// Calls of `uploadBlob`, likewise.
        uploads: Rate { env: "GENKAN_UPSTREAM_UPLOADS", default: "1000/1d" },
        /// Calls at one PDS for one account, or for one client address where there is no account.
        account_calls: Rate { env: "GENKAN_UPSTREAM_ACCOUNT_CALLS", default: "1500/5m" },
        /// Those of them that write.
        account_writes: Rate { env: "GENKAN_UPSTREAM_ACCOUNT_WRITES", default: "500/5m" },
        /// How long a call may wait for its turn when a PDS's calls run short.
        wait: Duration { env: "GENKAN_UPSTREAM_WAIT", default: "2s" },
        /// The most connections of one worker to one PDS.
        connections: usize { env: "GENKAN_UPSTREAM_CONNECTIONS", default: "128" },
    }
}

keywords! {
    /// Who may read accounts through Genkan that do not live here.
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
                found.add(env, "0 is too few", "write 1 or more");
            }
        }
        if self.read_bytes < Size(1_000_000) {
            found.add("GENKAN_READ_BYTES", format!("{} is too little", self.read_bytes), "write 1MB or more");
        }
        if self.wait > Duration::from_secs(30) {
            found.add("GENKAN_UPSTREAM_WAIT", "is too long", "write 30s or less");
        }
    }
}
