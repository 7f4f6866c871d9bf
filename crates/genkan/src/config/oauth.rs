//! `[oauth]`: the authorization server for apps.

use std::time::Duration;

use super::key::section;
use super::problem::Findings;
use crate::base::Secret;

section! {
    /// The authorization server for apps. What an app may do lives in a grant, which its user can take back.
    pub struct OAuth = "oauth" {
        /// How long an access token is good for: that long a host may go on serving an app whose grant was taken back.
        access_lifetime: Duration { env: "GENKAN_OAUTH_ACCESS_LIFETIME", default: "5m" },
        /// How long a used refresh token still gets the same successor, by the same key, for apps that lost our answer.
        refresh_grace: Duration { env: "GENKAN_OAUTH_REFRESH_GRACE", default: "30s" },
        /// Whether apps under development (`http://localhost` client ids) may ask.
        loopback_clients: bool { env: "GENKAN_OAUTH_LOOPBACK_CLIENTS", default: "true" },
        /// Makes the nonces that DPoP proofs must carry. Made at the first start if none is given; with the same one on
        /// the hosts, nonces of one are good at the others.
        dpop_secret: Option<Secret<[u8; 32]>> { env: "GENKAN_DPOP_SECRET", alias: "PDS_DPOP_SECRET" },
    }
}

impl OAuth {
    fn check(&self, found: &mut Findings) {
        if self.access_lifetime < Duration::from_mins(2) || self.access_lifetime > Duration::from_mins(15) {
            found.add(
                "GENKAN_OAUTH_ACCESS_LIFETIME",
                "is not between 2m and 15m",
                "write 5m, for instance: hosts do not hear of grants that were taken back",
            );
        }
        if self.refresh_grace > Duration::from_mins(5) {
            found.add("GENKAN_OAUTH_REFRESH_GRACE", "is longer than 5m", "write 30s, for instance");
        }
    }
}
