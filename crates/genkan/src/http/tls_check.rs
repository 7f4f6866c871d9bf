//! `/tls-check?domain=`: whether a TLS proxy should get a certificate for a name.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use super::json::XrpcQuery;
use super::state::HttpState;
use crate::wire::error::{XrpcError, XrpcResult};

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    domain: String,
}

/// Answers 200 for Genkan's own name and for handles of accounts, otherwise 404. So other people
/// cannot point their names here and use up the proxy's quota of certificates.
pub(super) async fn tls_check(
    State(state): State<HttpState>,
    XrpcQuery(Parameters { domain }): XrpcQuery<Parameters>,
) -> XrpcResult<&'static str> {
    let domain = domain.to_ascii_lowercase();
    let known = domain == state.config.service.public_url.host()
        || (domain.parse::<genkan_protocol::syntax::Handle>().is_ok()
            && state.account_hosts.find_by_handle(&domain).await?.is_some());
    if known {
        Ok("yes\n")
    } else {
        Err(XrpcError::new(StatusCode::NOT_FOUND, "NotFound", "no account here has this name"))
    }
}
