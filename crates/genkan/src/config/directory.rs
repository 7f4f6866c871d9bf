//! `[directory]`: the PLC directory, and the PLC proxy for hosts.

use std::net::SocketAddr;
use std::time::Duration;

use super::problem::{Findings, HTTPS_ONLY};
use super::section::section;
use crate::base::Origin;

section! {
    /// The PLC directory, and Genkan's proxy for it, which hosts use in its place.
    pub struct Directory = "directory" {
        /// Origin of the PLC directory, where the identities of accounts are read and written.
        url: Origin { env: "GENKAN_DIRECTORY_URL", alias: "PDS_DID_PLC_URL", default: "https://plc.directory" },
        /// Time for the directory to answer.
        timeout: Duration { env: "GENKAN_DIRECTORY_TIMEOUT", default: "5s" },
        /// Address and port of the PLC proxy for hosts. `off` disables the proxy.
        front_listen: Option<SocketAddr> { env: "GENKAN_DIRECTORY_FRONT_LISTEN", default: "127.0.0.1:2585" },
        /// Origin at which hosts reach the PLC proxy. Set `PDS_DID_PLC_URL` of each host to this
        /// value.
        front_url: Option<Origin> {
            env: "GENKAN_DIRECTORY_FRONT_URL",
            derived: "http://localhost and the port of front_listen, on loopback" => front_listen.map(|address| address.and_then(origin_of))
        },
        /// Maximum number of answers in the cache of the PLC proxy. Each counts for at least 4 KiB,
        /// and a larger one for its size.
        cache_entries: usize { env: "GENKAN_DIRECTORY_CACHE_ENTRIES", default: "20000" },
        /// Time for which the PLC proxy caches an answer.
        cache_lifetime: Duration { env: "GENKAN_DIRECTORY_CACHE_LIFETIME", default: "60s" },
    }
}

impl Directory {
    fn check(&self, found: &mut Findings) {
        if !self.url.is_https() && !self.url.is_loopback() {
            found.add("GENKAN_DIRECTORY_URL", format!("{} does not use https", self.url), HTTPS_ONLY);
        }
        if self.timeout < Duration::from_millis(100) {
            found.add("GENKAN_DIRECTORY_TIMEOUT", "is too short for an answer", "use 5s, for example");
        }
        if let Some(url) = &self.front_url
            && (url.host().starts_with('[') || url.host().parse::<std::net::Ipv4Addr>().is_ok())
        {
            found.add(
                "GENKAN_DIRECTORY_FRONT_URL",
                format!("{url} contains an IP address, and hosts accept only a name for the directory"),
                "use a name, such as http://localhost:2585 or https://plc.example.com",
            );
        }
        if let Some(address) = self.front_listen
            && self.front_url.is_none()
        {
            let wrong = if address.ip().is_unspecified() {
                format!("{address} means every interface, which is no origin that hosts could use")
            } else {
                format!("{address} has no name that hosts could use")
            };
            let mend = "set GENKAN_DIRECTORY_FRONT_URL to the origin at which hosts reach it";
            found.add("GENKAN_DIRECTORY_FRONT_LISTEN", wrong, mend);
        }
    }
}

/// Returns the origin at which hosts reach a listener on loopback.
fn origin_of(address: SocketAddr) -> Option<Origin> {
    // Hosts refuse to resolve DIDs at a bare address, so only loopback, which has a name, can be
    // derived.
    address.ip().is_loopback().then(|| format!("http://localhost:{}", address.port()).parse().ok())?
}
