//! What hosts are checked by: what they must be configured with, and how they are asked.

use genkan_protocol::syntax::Did;

use crate::base::{Clock, Origin, Secret};
use crate::fleet::HostId;
use crate::fleet::host_client::HostClient;
use crate::fleet::plc_proxy::Prober;
use crate::keys::Ring;

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
    pub(super) client: HostClient,
    pub(super) ring: Ring,
    pub(super) prober: Prober,
    pub(super) expected: Expected,
    pub(super) clock: Clock,
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
}

/// Whether a host's own guard lets it ask this directory: https on port 443. Anything else needs
/// `PDS_DISABLE_SSRF_PROTECTION`.
pub(super) fn is_public(directory: &Origin) -> bool {
    directory.is_https() && directory.port() == 443
}

/// Whether the PLC proxy's URL is an IP address, which no host accepts.
pub(super) fn needs_a_name(proxy: &Origin) -> bool {
    proxy.host().starts_with('[') || proxy.host().parse::<std::net::Ipv4Addr>().is_ok()
}
