//! `[network]`: outgoing connections.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::problem::{Findings, io_reason};
use super::section::section;
use crate::base::Origin;

section! {
    /// Outgoing connections. Genkan connects to names that users or external servers chose only at
    /// public addresses.
    pub struct Network = "network" {
        /// DNS servers for handles, DIDs and external servers. Default: those that the machine
        /// uses.
        dns_servers: Vec<SocketAddr> { env: "GENKAN_DNS_SERVERS" },
        /// Origins at private or loopback addresses that Genkan may connect to, such as hosts in
        /// your own network. Only exactly these origins are allowed.
        private_origins: Vec<Origin> { env: "GENKAN_PRIVATE_ORIGINS" },
        /// PEM file of certificate authorities that are trusted in addition to the public ones.
        extra_ca_file: Option<PathBuf> { env: "GENKAN_EXTRA_CA_FILE" },
    }
}

impl Network {
    fn check(&self, found: &mut Findings) {
        let Some(path) = &self.extra_ca_file else { return };
        match std::fs::read_to_string(path) {
            Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
            Ok(_) => found.add(
                "GENKAN_EXTRA_CA_FILE",
                format!("{} contains no certificate", path.display()),
                "use a PEM file",
            ),
            Err(error) => found.add(
                "GENKAN_EXTRA_CA_FILE",
                format!("cannot read {}: {}", path.display(), io_reason(&error)),
                "use a PEM file that Genkan's user can read",
            ),
        }
    }
}
