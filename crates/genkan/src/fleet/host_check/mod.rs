//! The host check: proofs that a host works with Genkan. Each is one harmless call whose answer is
//! unambiguous.
//!
//! Tested with the reference PDS 0.5.35. No proof changes anything on the host or in the directory.

mod proofs;

use std::fmt;

use genkan_protocol::syntax::Did;
use serde::Serialize;

use super::HostId;
use super::host_client::{Description, HostClient};
use super::plc_proxy::Prober;
use crate::base::{Clock, Origin, Secret};
use crate::keys::Ring;

/// The subject of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proof {
    Reachable,
    Version,
    Url,
    EntrywayUrl,
    HandleDomains,
    SigningKey,
    AdminPassword,
    RotationKey,
    /// Serialised under the name of the settings, which programs read.
    #[serde(rename = "directory_front")]
    PlcProxy,
    EntrywayDid,
    Clock,
}

/// The result of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub(crate) enum Verdict {
    Good {
        detail: String,
    },
    /// The host cannot work with Genkan until this is changed.
    Bad {
        wrong: String,
        mend: String,
    },
    /// The proof could not be made.
    Open {
        why: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) proof: Proof,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// All findings about one host, with what it reports about itself.
#[derive(Clone, Debug)]
pub(crate) struct HostCheck {
    pub(crate) findings: Vec<Finding>,
    pub(crate) version: Option<String>,
    pub(crate) description: Option<Description>,
}

impl HostCheck {
    /// Whether the host answered and no proof failed.
    pub(crate) fn passed(&self) -> bool {
        self.description.is_some() && !self.findings.iter().any(|finding| finding.verdict.is_bad())
    }
}

impl Verdict {
    pub(crate) const fn is_bad(&self) -> bool {
        matches!(self, Self::Bad { .. })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reachable => "reachable",
            Self::Version => "version",
            Self::Url => "URL",
            Self::EntrywayUrl => "entryway URL",
            Self::HandleDomains => "handle domains",
            Self::SigningKey => "signing key",
            Self::AdminPassword => "admin password",
            Self::RotationKey => "rotation key",
            Self::PlcProxy => "PLC proxy",
            Self::EntrywayDid => "entryway DID",
            Self::Clock => "clock",
        })
    }
}

/// The configuration that every host needs.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) public_url: Origin,
    pub(crate) service_did: Did,
    /// Each with its leading dot.
    pub(crate) handle_domains: Vec<String>,
    /// The PLC proxy's URL. `None` if this Genkan has no PLC proxy and hosts use the directory
    /// itself.
    pub(crate) front_url: Option<Origin>,
    pub(crate) directory_url: Origin,
    /// The secret for the nonces of DPoP proofs (RFC 9449 §8). A host that has it accepts the
    /// nonces that Genkan computes.
    pub(crate) dpop_secret: Secret<[u8; 32]>,
}

/// The host to check.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: HostId,
    pub(crate) origin: Origin,
    pub(crate) admin_password: Secret<String>,
}

/// Checks hosts.
#[derive(Debug)]
pub(crate) struct HostChecker {
    client: HostClient,
    ring: Ring,
    prober: Prober,
    expected: Expected,
    clock: Clock,
}

impl HostChecker {
    pub(crate) fn new(client: HostClient, ring: Ring, expected: Expected, clock: Clock) -> Self {
        let prober = Prober::new(&ring);
        Self { client, ring, prober, expected, clock }
    }

    /// The settings that a host with this name needs, in the order in which its documentation names
    /// them.
    pub(crate) fn settings(&self, name: &HostId) -> Option<Vec<(&'static str, String)>> {
        let key = self.ring.host_key(name.as_str())?;
        let expected = &self.expected;
        let directory = expected.front_url.as_ref().unwrap_or(&expected.directory_url);
        let mut settings = vec![
            ("PDS_ENTRYWAY_URL", expected.public_url.to_string()),
            ("PDS_ENTRYWAY_DID", expected.service_did.to_string()),
            (
                "PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX",
                data_encoding::HEXLOWER.encode(&key.public.to_sec1_compressed()),
            ),
            ("PDS_ENTRYWAY_PLC_ROTATION_KEY", self.ring.rotation().public().to_did_key()),
            ("PDS_SERVICE_HANDLE_DOMAINS", expected.handle_domains.join(",")),
            ("PDS_DID_PLC_URL", directory.to_string()),
            ("PDS_DPOP_SECRET", data_encoding::HEXLOWER.encode(expected.dpop_secret.expose())),
        ];
        if !is_public(directory) {
            settings.push(("PDS_DISABLE_SSRF_PROTECTION", "true".to_owned()));
        }
        Some(settings)
    }

    /// Makes every proof that is possible. An unreachable host has one finding.
    pub(crate) async fn check(&self, subject: &Subject) -> HostCheck {
        proofs::all(self, subject).await
    }
}

/// Whether a host's own guard lets it ask this directory: https on port 443. Anything else needs
/// `PDS_DISABLE_SSRF_PROTECTION`.
fn is_public(directory: &Origin) -> bool {
    directory.is_https() && directory.port() == 443
}

/// Whether the PLC proxy's URL is an IP address, which no host accepts.
fn needs_a_name(proxy: &Origin) -> bool {
    proxy.host().starts_with('[') || proxy.host().parse::<std::net::Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests;
