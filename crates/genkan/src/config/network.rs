//! `[network]`: what Genkan reaches, and how.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::key::section;
use super::problem::Findings;
use crate::base::Origin;

section! {
    /// What Genkan reaches, and how. Addresses that strangers name are only ever public ones.
    pub struct Network = "network" {
        /// Name servers for the handles and DIDs of others. None: the machine's own.
        dns_servers: Vec<SocketAddr> { env: "GENKAN_DNS_SERVERS" },
        /// Exactly the origins on private or loopback addresses that may be reached, such as hosts inside one's own network.
        private_origins: Vec<Origin> { env: "GENKAN_PRIVATE_ORIGINS" },
        /// A PEM file of certificate authorities to trust besides the public ones.
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
                format!("{} has no certificate in it", path.display()),
                "name a PEM file",
            ),
            Err(error) => found.add(
                "GENKAN_EXTRA_CA_FILE",
                format!("cannot read {} ({})", path.display(), error.kind()),
                "name a PEM file that Genkan's user may read",
            ),
        }
    }
}
