//! External names: which ones Genkan may connect to, and at which addresses.
//!
//! All clients that connect to external names take an address from here, and connect to exactly
//! that address.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;

use super::target::{Refusal, Target};
use super::{Dns, DnsError, address};
use crate::base::Origin;

/// A resolver of external names that checks every address. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    dns: Dns,
    /// The private origins that the operator allows, each exactly.
    listed: Arc<[Origin]>,
}

/// Why a name has no address that Genkan may connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("not allowed: {0}")]
    Refused(#[from] Refusal),
    #[error("the name does not exist")]
    NoSuchName,
    #[error("{0}")]
    Failed(Arc<str>),
}

impl Names {
    pub(crate) fn new(dns: Dns, listed: Vec<Origin>) -> Self {
        Self { dns, listed: listed.into() }
    }

    /// Checks a URL, as far as its text allows, before any lookup.
    pub(crate) fn check(&self, url: &Uri) -> Result<Target, Refusal> {
        Target::check(url, &self.listed)
    }

    /// Returns the TXT records of a name.
    pub(super) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        self.dns.texts(name).await
    }

    /// Returns all addresses of the name. One address that is not public is an error for all.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, NameError> {
        if target.listed {
            return self.listed_addresses(target.origin.host()).await;
        }
        let addresses = self.dns.addresses(target.origin.host()).await.map_err(|error| match error {
            DnsError::NoRecord => NameError::NoSuchName,
            DnsError::Failed(why) => NameError::Failed(why),
        })?;
        // A name with public and private addresses is most likely an attack: trying only the public
        // ones would let it probe.
        for address in &addresses {
            address::check(*address).map_err(Refusal::Address)?;
        }
        Ok(addresses)
    }

    /// Returns the addresses of an origin that the operator listed, without checks: those that it
    /// spells out, those that the DNS servers know, or those that the machine knows.
    #[expect(clippy::disallowed_methods, reason = "the operator listed exactly this origin")]
    async fn listed_addresses(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(literal) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![literal]);
        }
        // `localhost` is for the machine to resolve and is not sent to DNS servers (RFC 6761 §6.3).
        if host != "localhost"
            && let Ok(addresses) = self.dns.addresses(host).await
        {
            return Ok(addresses);
        }
        // The machine's own table comes last: names of containers and private hosts are often only
        // there.
        let found = tokio::net::lookup_host((host, 0))
            .await
            .map_err(|error| NameError::Failed(error.to_string().into()))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }
}
