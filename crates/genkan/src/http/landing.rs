//! The page at the root, for people with a browser and for crawlers.

use axum::extract::State;

use super::state::HttpState;

pub(super) async fn landing(State(state): State<HttpState>) -> String {
    let service = &state.config.service;
    let mut text = format!(
        "{name}\n\n\
         This is the front door to AT Protocol accounts: an entryway that runs Genkan.\n\
         People choose names below {domains} and sign in, with any app, at {url}.\n\n\
         Apps: most of the API is below /xrpc/. Begin with /xrpc/com.atproto.server.describeServer\n",
        name = service.name,
        domains = service.handle_domains.join(" or "),
        url = service.public_url,
    );
    for (what, value) in [
        ("Contact", &service.contact_email),
        ("Privacy policy", &service.privacy_policy_url),
        ("Terms of service", &service.terms_of_service_url),
    ] {
        if let Some(value) = value {
            text.push_str(what);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        }
    }
    text
}

/// Crawlers may read the public API, and nothing else.
pub(super) async fn robots() -> &'static str {
    "# Everything that is public here may be read.\nUser-agent: *\nDisallow: /account\nDisallow: /oauth/\nAllow: /\n"
}
