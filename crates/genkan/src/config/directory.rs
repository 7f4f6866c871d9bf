//! `[directory]`: the PLC directory, and what hosts see of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::key::section;
use super::problem::Findings;
use crate::base::Origin;

section! {
    /// The PLC directory, and Genkan's front of it that hosts are given.
    pub struct Directory = "directory" {
        /// The directory where accounts' identities are written and read.
        url: Origin { env: "GENKAN_DIRECTORY_URL", alias: "PDS_DID_PLC_URL", default: "https://plc.directory" },
        /// How long an answer of the directory may take.
        timeout: Duration { env: "GENKAN_DIRECTORY_TIMEOUT", default: "5s" },
        /// Where hosts reach the directory through Genkan; `off` for nowhere.
        front_listen: Option<SocketAddr> { env: "GENKAN_DIRECTORY_FRONT_LISTEN", default: "127.0.0.1:2585" },
        /// The front's origin as hosts reach it: their `PDS_DID_PLC_URL`.
        front_url: Option<Origin> {
            env: "GENKAN_DIRECTORY_FRONT_URL",
            derived: "http://localhost and the port of front_listen, on loopback" => front_listen.map(|address| address.and_then(origin_of))
        },
        /// The most answers that the front remembers.
        cache_entries: usize { env: "GENKAN_DIRECTORY_CACHE_ENTRIES", default: "20000" },
        /// How long the front remembers one.
        cache_lifetime: Duration { env: "GENKAN_DIRECTORY_CACHE_LIFETIME", default: "60s" },
    }
}

impl Directory {
    fn check(&self, found: &mut Findings) {
        if !self.url.is_https() && !self.url.is_loopback() {
            found.add(
                "GENKAN_DIRECTORY_URL",
                format!("{} is not https", self.url),
                "use https://; plain http is for loopback addresses only",
            );
        }
        if self.timeout < Duration::from_millis(100) {
            found.add(
                "GENKAN_DIRECTORY_TIMEOUT",
                "is so short that no answer comes in time",
                "write 5s, for instance",
            );
        }
        if let Some(url) = &self.front_url
            && (url.host().starts_with('[') || url.host().parse::<std::net::Ipv4Addr>().is_ok())
        {
            found.add(
                "GENKAN_DIRECTORY_FRONT_URL",
                format!("{url} is an address, and hosts resolve DIDs only at names"),
                "write a name, such as http://localhost:2585 or https://plc.example.com",
            );
        }
        if let Some(address) = self.front_listen
            && self.front_url.is_none()
        {
            let wrong = if address.ip().is_unspecified() {
                "is every interface, so hosts cannot be told where to connect".to_owned()
            } else {
                format!("{address} has no name that hosts could be told")
            };
            let mend = "set GENKAN_DIRECTORY_FRONT_URL to the origin they reach it by";
            found.add("GENKAN_DIRECTORY_FRONT_LISTEN", wrong, mend);
        }
    }
}

/// An address that names one interface can be connected to as it is.
fn origin_of(address: SocketAddr) -> Option<Origin> {
    // Hosts refuse to resolve DIDs at a bare address, so only loopback, which has a name, can be derived.
    address.ip().is_loopback().then(|| format!("http://localhost:{}", address.port()).parse().ok())?
}
