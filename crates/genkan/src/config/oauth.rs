//! `[oauth]`: the authorization server for apps.

use std::time::Duration;

use super::problem::Findings;
use super::section::section;
use crate::base::Secret;

section! {
    /// The OAuth authorization server for apps. An app acts under a grant, which the user can
    /// revoke.
    pub struct OAuth = "oauth" {
        /// Lifetime of an OAuth access token. After a user revokes a grant, a host may accept its
        /// token for up to this long.
        access_lifetime: Duration { env: "GENKAN_OAUTH_ACCESS_LIFETIME", default: "5m" },
        /// Time for which a used refresh token, presented with the same key, still returns the same
        /// successor, for apps that lost the answer.
        refresh_grace: Duration { env: "GENKAN_OAUTH_REFRESH_GRACE", default: "30s" },
        /// Whether apps in development (client ids at `http://localhost`) may request
        /// authorization.
        loopback_clients: bool { env: "GENKAN_OAUTH_LOOPBACK_CLIENTS", default: "true" },
        /// Secret from which DPoP nonces are computed. Without it, Genkan generates one at the
        /// first start. If hosts have the same secret, a nonce from one server is valid at the
        /// others.
        dpop_secret: Option<Secret<[u8; 32]>> { env: "GENKAN_DPOP_SECRET", alias: "PDS_DPOP_SECRET" },
    }
}

impl OAuth {
    fn check(&self, found: &mut Findings) {
        if self.access_lifetime < Duration::from_mins(2) || self.access_lifetime > Duration::from_mins(15) {
            found.add(
                "GENKAN_OAUTH_ACCESS_LIFETIME",
                "is not between 2m and 15m",
                "use 5m, for example: hosts do not learn of revoked grants before a token expires",
            );
        }
        if self.refresh_grace > Duration::from_mins(5) {
            found.add("GENKAN_OAUTH_REFRESH_GRACE", "is longer than 5m", "use 30s, for example");
        }
    }
}
