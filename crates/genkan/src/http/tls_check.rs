//! `/tls-check?domain=`: a TLS proxy asks whether it should get a certificate for a name.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use super::json::XrpcQuery;
use super::router::HttpState;
use crate::wire::error::{XrpcError, XrpcResult};

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    domain: String,
}

/// 200 for Genkan's own name and for the handle of an account; else 404, so that strangers cannot have
/// certificates made for names of theirs.
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
