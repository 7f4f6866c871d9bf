//! Strangers' names: which may be dialled, and at which addresses.
//!
//! One place for all clients that dial them. Whoever connects takes an address from here and connects to exactly that one.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;

use super::target::{Refusal, Target};
use super::{Dns, DnsError, address};
use crate::base::Origin;

/// Looks strangers' names up and checks what it finds. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    dns: Dns,
    /// Private origins that the operator allows, each exactly.
    listed: Arc<[Origin]>,
}

/// Why a name has no address to connect to.
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

    /// Whether a URL may be dialled, as far as its text tells.
    pub(crate) fn check(&self, url: &Uri) -> Result<Target, Refusal> {
        Target::check(url, &self.listed)
    }

    /// All addresses of the name; one that is not public fails the whole name.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, NameError> {
        if target.listed {
            return self.listed_addresses(target.origin.host()).await;
        }
        let addresses = self.dns.addresses(target.origin.host()).await.map_err(|error| match error {
            DnsError::NoRecord => NameError::NoSuchName,
            DnsError::Failed(why) => NameError::Failed(why),
        })?;
        for address in &addresses {
            address::check(*address).map_err(Refusal::Address)?;
        }
        Ok(addresses)
    }

    /// Addresses of an origin that the operator listed: literal, by our name servers, or by the machine.
    async fn listed_addresses(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(literal) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![literal]);
        }
        if host != "localhost"
            && let Ok(addresses) = self.dns.addresses(host).await
        {
            return Ok(addresses);
        }
        let found = tokio::net::lookup_host((host, 0))
            .await
            .map_err(|error| NameError::Failed(error.to_string().into()))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }
}
