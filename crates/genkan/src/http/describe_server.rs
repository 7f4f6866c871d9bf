//! `com.atproto.server.describeServer`

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::method::method;
use super::state::HttpState;

method!(DescribeServer, "com.atproto.server.describeServer");

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Output {
    did: String,
    available_user_domains: Vec<String>,
    invite_code_required: bool,
    phone_verification_required: bool,
    links: Links,
    contact: Contact,
    /// Not in the lexicon. The reference PDS has it too, and apps read it.
    blob_upload_limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Links {
    #[serde(skip_serializing_if = "Option::is_none")]
    privacy_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms_of_service: Option<String>,
}

#[derive(Debug, Serialize)]
struct Contact {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
}

pub(super) async fn describe_server(State(state): State<HttpState>) -> Json<Output> {
    let service = &state.config.service;
    Json(Output {
        did: service.did.to_string(),
        available_user_domains: service.handle_domains.clone(),
        invite_code_required: state.config.sign_up.invite_required,
        phone_verification_required: false,
        links: Links {
            privacy_policy: service.privacy_policy_url.clone(),
            terms_of_service: service.terms_of_service_url.clone(),
        },
        contact: Contact { email: service.contact_email.clone() },
        blob_upload_limit: state.config.limits.upload.bytes(),
    })
}
