//! The metadata of the PDS and of its OAuth server.

use serde_json::json;

use super::{PdsState, overlaid};
use crate::loopback::{self, Reply, locked};

impl PdsState {
    pub(super) fn resource_metadata(&self) -> Reply {
        let issuer = locked(&self.server.issuer).clone();
        let metadata = json!({
            "resource": self.origin(),
            "authorization_servers": [issuer],
            "scopes_supported": [],
            "bearer_methods_supported": ["header"],
            "resource_documentation": "https://atproto.com",
        });
        loopback::json(200, &overlaid(metadata, &self.quirks().resource_metadata))
    }

    pub(super) fn server_metadata(&self) -> Reply {
        let issuer = locked(&self.server.issuer).clone();
        let metadata = json!({
            "issuer": issuer,
            "scopes_supported": ["atproto", "transition:email", "transition:generic", "transition:chat.bsky"],
            "subject_types_supported": ["public"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "jwks_uri": format!("{issuer}/oauth/jwks"),
            "authorization_endpoint": format!("{issuer}/oauth/authorize"),
            "token_endpoint": format!("{issuer}/oauth/token"),
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["ES256", "ES256K"],
            "revocation_endpoint": format!("{issuer}/oauth/revoke"),
            "pushed_authorization_request_endpoint": format!("{issuer}/oauth/par"),
            "require_pushed_authorization_requests": true,
            "dpop_signing_alg_values_supported": ["ES256", "ES256K"],
            "client_id_metadata_document_supported": true,
        });
        loopback::json(200, &overlaid(metadata, &self.quirks().server_metadata))
    }
}
