//! `[listen]`: where Genkan listens, and what a connection may cost.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::key::section;
use super::problem::Findings;
use super::{Directory, Size};

section! {
    /// Where Genkan listens, and what a connection may cost.
    pub struct Listen = "listen" {
        /// Where clients, hosts and the operator's TLS proxy connect. HTTP/1.1 and HTTP/2 without TLS.
        address: SocketAddr { env: "GENKAN_LISTEN", alias: "PDS_PORT" by on_every_interface, default: "127.0.0.1:2583" },
        /// Where the operator's tools connect: `/metrics`, `/livez` and `/readyz`. Never open it to the world.
        ops: SocketAddr { env: "GENKAN_OPS_LISTEN", default: "127.0.0.1:2584" },
        /// Threads that carry requests.
        workers: usize { env: "GENKAN_WORKERS", derived: "as many as there are cores" => Some(cores()) },
        /// Proxies whose `X-Forwarded-For` is believed. Registered hosts are believed besides.
        trusted_proxies: Vec<IpNet> { env: "GENKAN_TRUSTED_PROXIES" },
        /// From the signal to stop until new connections are refused, so that load balancers notice.
        shutdown_lag: Duration { env: "GENKAN_SHUTDOWN_LAG", default: "5s" },
        /// How long running requests may take to end after that.
        shutdown_grace: Duration { env: "GENKAN_SHUTDOWN_GRACE", default: "60s" },
        /// How long a client may take to send a request's head.
        head_timeout: Duration { env: "GENKAN_HEAD_TIMEOUT", default: "10s" },
        /// The largest head of a request.
        head_limit: Size { env: "GENKAN_HEAD_LIMIT", default: "32KiB" },
        /// The most header fields of a request.
        head_fields: usize { env: "GENKAN_HEAD_FIELDS", default: "100" },
        /// The longest request target (path and query).
        target_limit: Size { env: "GENKAN_TARGET_LIMIT", default: "16KiB" },
        /// How long a connection without a request is kept.
        idle_timeout: Duration { env: "GENKAN_IDLE_TIMEOUT", default: "60s" },
        /// How long a body may be slower than `slow_body_rate`.
        slow_body_grace: Duration { env: "GENKAN_SLOW_BODY_GRACE", default: "10s" },
        /// The least that a client must send or take of a body in a second, on average.
        slow_body_rate: Size { env: "GENKAN_SLOW_BODY_RATE", default: "1KiB" },
        /// The most connections of one client address (IPv6: of one /64). Trusted proxies and hosts are not counted.
        connections_per_address: usize { env: "GENKAN_CONNECTIONS_PER_ADDRESS", default: "256" },
        /// The most connections at all; past it a new one is closed at once.
        connections_total: usize { env: "GENKAN_CONNECTIONS_TOTAL", default: "20000" },
        /// The most HTTP/2 streams of one connection at a time.
        streams_per_connection: u32 { env: "GENKAN_STREAMS_PER_CONNECTION", default: "100" },
    }
}

impl Listen {
    fn check(&self, found: &mut Findings) {
        if self.workers == 0 || self.workers > 1024 {
            found.add("GENKAN_WORKERS", format!("{} threads cannot be", self.workers), "write 1 to 1024");
        }
        for (env, given, least, most) in [
            ("GENKAN_HEAD_LIMIT", self.head_limit, Size(8 << 10), Size(1 << 20)),
            ("GENKAN_TARGET_LIMIT", self.target_limit, Size(1 << 10), self.head_limit),
        ] {
            if given < least || given > most {
                found.add(env, format!("{given} is out of range"), format!("write {least} to {most}"));
            }
        }
        for (env, given, least) in [
            ("GENKAN_HEAD_FIELDS", self.head_fields, 16),
            ("GENKAN_CONNECTIONS_PER_ADDRESS", self.connections_per_address, 1),
            ("GENKAN_CONNECTIONS_TOTAL", self.connections_total, 1),
            ("GENKAN_STREAMS_PER_CONNECTION", self.streams_per_connection as usize, 1),
        ] {
            if given < least {
                found.add(env, format!("{given} is too few"), format!("write {least} or more"));
            }
        }
        for (env, given) in
            [("GENKAN_HEAD_TIMEOUT", self.head_timeout), ("GENKAN_IDLE_TIMEOUT", self.idle_timeout)]
        {
            if given < Duration::from_secs(1) {
                found.add(env, "is so short that honest clients fail", "write 1s or more");
            }
        }
    }

    /// Two listeners cannot have one address.
    pub(super) fn check_beside(&self, directory: &Directory, found: &mut Findings) {
        let same = |one: SocketAddr, other: SocketAddr| one == other && one.port() != 0;
        if same(self.address, self.ops) {
            found.add(
                "GENKAN_OPS_LISTEN",
                format!("{} is GENKAN_LISTEN's address", self.ops),
                "choose another port",
            );
        }
        if let Some(front) = directory.front_listen {
            for (other, name) in [(self.address, "GENKAN_LISTEN"), (self.ops, "GENKAN_OPS_LISTEN")] {
                if same(front, other) {
                    found.add(
                        "GENKAN_DIRECTORY_FRONT_LISTEN",
                        format!("{front} is {name}'s address"),
                        "choose another port",
                    );
                }
            }
        }
    }
}

/// The reference PDS has a port here and listens on every interface.
fn on_every_interface(port: &str) -> String {
    format!("0.0.0.0:{port}")
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
