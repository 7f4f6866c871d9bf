//! `[listen]`: addresses to listen on, and limits for client connections.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::problem::Findings;
use super::section::section;
use super::{Directory, Size};

section! {
    /// Addresses to listen on, and limits for client connections.
    pub struct Listen = "listen" {
        /// Address and port for clients, hosts and the TLS proxy: HTTP/1.1 and HTTP/2 without TLS.
        address: SocketAddr { env: "GENKAN_LISTEN", alias: "PDS_PORT" by on_every_interface, default: "127.0.0.1:2583" },
        /// Address and port for operators' tools: `/metrics`, `/livez` and `/readyz`. Do not expose
        /// it to the internet.
        ops: SocketAddr { env: "GENKAN_OPS_LISTEN", default: "127.0.0.1:2584" },
        /// Number of threads that serve client connections.
        workers: usize { env: "GENKAN_WORKERS", derived: "as many as there are cores" => Some(cores()) },
        /// Proxies whose `X-Forwarded-For` header is trusted. Registered hosts are trusted as well.
        trusted_proxies: Vec<IpNet> { env: "GENKAN_TRUSTED_PROXIES" },
        /// Time between the signal to stop and the moment at which new connections are refused, so
        /// that load balancers notice.
        shutdown_lag: Duration { env: "GENKAN_SHUTDOWN_LAG", default: "5s" },
        /// Time for running requests to finish after that. Requests that take longer are cut off.
        shutdown_grace: Duration { env: "GENKAN_SHUTDOWN_GRACE", default: "60s" },
        /// Time for a client to send the head of a request.
        head_timeout: Duration { env: "GENKAN_HEAD_TIMEOUT", default: "10s" },
        /// Maximum size of a request head.
        head_limit: Size { env: "GENKAN_HEAD_LIMIT", default: "32KiB" },
        /// Maximum number of header fields in a request.
        head_fields: usize { env: "GENKAN_HEAD_FIELDS", default: "100" },
        /// Maximum length of a request target (path and query).
        target_limit: Size { env: "GENKAN_TARGET_LIMIT", default: "16KiB" },
        /// Time after which a connection without a request is closed.
        idle_timeout: Duration { env: "GENKAN_IDLE_TIMEOUT", default: "60s" },
        /// Time for which a body may be slower than `slow_body_rate`.
        slow_body_grace: Duration { env: "GENKAN_SLOW_BODY_GRACE", default: "10s" },
        /// Minimum amount of a body that a client must send or take per second on average. What a
        /// client takes is averaged over 60 seconds in which data waits for it. A client that takes
        /// less loses the connection, or on HTTP/2 the stream.
        slow_body_rate: Size { env: "GENKAN_SLOW_BODY_RATE", default: "1KiB" },
        /// Maximum number of connections from one client address (for IPv6, from one /64 network).
        /// Connections of trusted proxies and hosts are not counted.
        connections_per_address: usize { env: "GENKAN_CONNECTIONS_PER_ADDRESS", default: "256" },
        /// Maximum number of client connections. Further connections are closed at once.
        connections_total: usize { env: "GENKAN_CONNECTIONS_TOTAL", default: "20000" },
        /// Maximum number of concurrent HTTP/2 streams on one connection.
        streams_per_connection: u32 { env: "GENKAN_STREAMS_PER_CONNECTION", default: "100" },
    }
}

impl Listen {
    fn check(&self, found: &mut Findings) {
        if self.workers == 0 || self.workers > 1024 {
            found.add("GENKAN_WORKERS", format!("{} is out of range", self.workers), "use 1 to 1024");
        }
        for (env, given, least, most) in [
            ("GENKAN_HEAD_LIMIT", self.head_limit, Size(8 << 10), Size(1 << 20)),
            ("GENKAN_TARGET_LIMIT", self.target_limit, Size(1 << 10), self.head_limit),
        ] {
            if given < least || given > most {
                found.add(env, format!("{given} is out of range"), format!("use {least} to {most}"));
            }
        }
        for (env, given, least) in [
            ("GENKAN_HEAD_FIELDS", self.head_fields, 16),
            ("GENKAN_CONNECTIONS_PER_ADDRESS", self.connections_per_address, 1),
            ("GENKAN_CONNECTIONS_TOTAL", self.connections_total, 1),
            ("GENKAN_STREAMS_PER_CONNECTION", self.streams_per_connection as usize, 1),
        ] {
            if given < least {
                found.add(env, format!("{given} is too small"), format!("use {least} or more"));
            }
        }
        for (env, given) in
            [("GENKAN_HEAD_TIMEOUT", self.head_timeout), ("GENKAN_IDLE_TIMEOUT", self.idle_timeout)]
        {
            if given < Duration::from_secs(1) {
                found.add(env, "is too short for ordinary clients", "use 1s or more");
            }
        }
    }

    /// Checks that no two listeners have the same address.
    pub(super) fn check_beside(&self, directory: &Directory, found: &mut Findings) {
        // Port 0 lets the system choose a free port, so two of them do not clash.
        let same = |one: SocketAddr, other: SocketAddr| one == other && one.port() != 0;
        if same(self.address, self.ops) {
            found.add(
                "GENKAN_OPS_LISTEN",
                format!("{} is also the address of GENKAN_LISTEN", self.ops),
                "use another port",
            );
        }
        if let Some(front) = directory.front_listen {
            for (other, name) in [(self.address, "GENKAN_LISTEN"), (self.ops, "GENKAN_OPS_LISTEN")] {
                if same(front, other) {
                    found.add(
                        "GENKAN_DIRECTORY_FRONT_LISTEN",
                        format!("{front} is also the address of {name}"),
                        "use another port",
                    );
                }
            }
        }
    }
}

/// Translates the reference PDS's value, a port: it listens on every interface.
fn on_every_interface(port: &str) -> String {
    format!("0.0.0.0:{port}")
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
