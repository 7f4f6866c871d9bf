//! Metadata documents of servers: authorization servers (RFC 8414) and protected resources (RFC
//! 9728).

use serde::{Deserialize, Serialize};
use url::Url;

use super::jws::Algorithm;

/// The document at `/.well-known/oauth-authorization-server`. Unknown members are ignored. An
/// absent list is `None`, not the default of RFC 8414 §2, which often contradicts the profile of
/// atproto.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the members are those of RFC 8414 §2, by their names")]
pub struct AuthorizationServer {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub pushed_authorization_request_endpoint: String,
    pub require_pushed_authorization_requests: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    pub response_types_supported: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_modes_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_types_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_types_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_values_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_values_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ui_locales_supported: Option<Vec<String>>,
    pub authorization_response_iss_parameter_supported: bool,
    pub client_id_metadata_document_supported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_request_uri_registration: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_parameter_supported: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_uri_parameter_supported: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected_resources: Option<Vec<String>>,
}

/// The document at `/.well-known/oauth-protected-resource`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the members are those of RFC 9728 §2, by their names")]
pub struct ProtectedResource {
    pub resource: String,
    pub authorization_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_methods_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes_supported: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_documentation: Option<String>,
}

/// Why a client cannot use a server's document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a JSON object, or a member has the wrong type.
    #[error("the server's metadata is malformed")]
    Malformed,
    /// A member does not have a value that the profile of atproto demands.
    #[error("the server's metadata has an unsuitable \"{0}\"")]
    Unsuitable(&'static str),
}

impl AuthorizationServer {
    /// The document of a Genkan at this origin. Only static scopes are listed; granular ones need
    /// no listing (atproto OAuth, "Authorization Servers").
    pub fn of_genkan(issuer: &str) -> Self {
        let list = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
        let algorithms: Vec<_> = Algorithm::ALL.iter().map(|alg| alg.as_str().to_owned()).collect();
        Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: format!("{issuer}/oauth/authorize"),
            token_endpoint: format!("{issuer}/oauth/token"),
            pushed_authorization_request_endpoint: format!("{issuer}/oauth/par"),
            require_pushed_authorization_requests: true,
            revocation_endpoint: Some(format!("{issuer}/oauth/revoke")),
            jwks_uri: Some(format!("{issuer}/oauth/jwks")),
            response_types_supported: vec!["code".to_owned()],
            response_modes_supported: list(&["query", "fragment", "form_post"]),
            grant_types_supported: list(&["authorization_code", "refresh_token"]),
            code_challenge_methods_supported: list(&["S256"]),
            token_endpoint_auth_methods_supported: list(&["none", "private_key_jwt"]),
            token_endpoint_auth_signing_alg_values_supported: Some(algorithms.clone()),
            dpop_signing_alg_values_supported: Some(algorithms),
            scopes_supported: list(&[
                "atproto",
                "transition:email",
                "transition:generic",
                "transition:chat.bsky",
            ]),
            subject_types_supported: list(&["public"]),
            prompt_values_supported: list(&["none", "login", "consent", "select_account", "create"]),
            display_values_supported: list(&["page", "popup", "touch"]),
            ui_locales_supported: None,
            authorization_response_iss_parameter_supported: true,
            client_id_metadata_document_supported: true,
            require_request_uri_registration: Some(true),
            request_parameter_supported: Some(false),
            request_uri_parameter_supported: Some(true),
            protected_resources: None,
        }
    }

    /// Reads the document that was found at `issuer` with the checks of a client (atproto OAuth,
    /// "Authorization Servers"). `resource` is the origin of the account's PDS, `None` when it is
    /// not known. A list that the profile demands must be present: the defaults of RFC 8414 §2 do
    /// not count.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], or [`Error::Unsuitable`] with the first member that does not fit.
    pub fn parse(json: &[u8], issuer: &str, resource: Option<&str>) -> Result<Self, Error> {
        // Absent members have their default, which then fails the check of that member by name.
        let server: Self = serde_json::from_slice(json).map_err(|_| Error::Malformed)?;
        let has = |list: &Option<Vec<String>>, value: &str| {
            list.as_ref().is_some_and(|list| list.iter().any(|listed| listed == value))
        };
        let authentication = &server.token_endpoint_auth_signing_alg_values_supported;
        let checks = [
            // A server must not speak for another issuer (RFC 8414 §3.3).
            ("issuer", server.issuer == issuer && is_origin(issuer)),
            ("authorization_endpoint", is_web(&server.authorization_endpoint)),
            ("token_endpoint", is_web(&server.token_endpoint)),
            ("pushed_authorization_request_endpoint", is_web(&server.pushed_authorization_request_endpoint)),
            ("revocation_endpoint", server.revocation_endpoint.as_deref().is_none_or(is_web)),
            ("response_types_supported", server.response_types_supported.iter().any(|kind| kind == "code")),
            (
                "grant_types_supported",
                has(&server.grant_types_supported, "authorization_code")
                    && has(&server.grant_types_supported, "refresh_token"),
            ),
            ("code_challenge_methods_supported", has(&server.code_challenge_methods_supported, "S256")),
            (
                "token_endpoint_auth_methods_supported",
                has(&server.token_endpoint_auth_methods_supported, "private_key_jwt"),
            ),
            (
                "token_endpoint_auth_signing_alg_values_supported",
                // A server that accepts unsigned assertions accepts anyone as this client.
                !has(authentication, "none") && has(authentication, "ES256"),
            ),
            ("dpop_signing_alg_values_supported", has(&server.dpop_signing_alg_values_supported, "ES256")),
            ("scopes_supported", has(&server.scopes_supported, "atproto")),
            ("require_pushed_authorization_requests", server.require_pushed_authorization_requests),
            (
                "authorization_response_iss_parameter_supported",
                server.authorization_response_iss_parameter_supported,
            ),
            ("client_id_metadata_document_supported", server.client_id_metadata_document_supported),
            (
                "protected_resources",
                resource.is_none_or(|host| {
                    // The member is optional. A server that lists its PDSes must list this one.
                    server.protected_resources.is_none() || has(&server.protected_resources, host)
                }),
            ),
        ];
        match checks.into_iter().find(|(_, good)| !good) {
            Some((name, _)) => Err(Error::Unsuitable(name)),
            None => Ok(server),
        }
    }
}

impl ProtectedResource {
    /// The document of a Genkan at this origin.
    pub fn of_genkan(origin: &str) -> Self {
        Self {
            resource: origin.to_owned(),
            authorization_servers: vec![origin.to_owned()],
            bearer_methods_supported: Some(vec!["header".to_owned()]),
            scopes_supported: Some(vec![]),
            resource_documentation: Some("https://atproto.com".to_owned()),
        }
    }

    /// Reads the document that was found at `origin` with the checks of a client (RFC 9728 §3.3),
    /// and returns the one issuer that it names.
    pub fn parse_issuer(json: &[u8], origin: &str) -> Result<String, Error> {
        let resource: Self = serde_json::from_slice(json).map_err(|_| Error::Malformed)?;
        if resource.resource != origin {
            return Err(Error::Unsuitable("resource"));
        }
        match resource.authorization_servers.as_slice() {
            // atproto allows one authorization server. With several, the app could not know which
            // one counts.
            [issuer] if is_origin(issuer) => Ok(issuer.clone()),
            _ => Err(Error::Unsuitable("authorization_servers")),
        }
    }
}

/// Whether a text is an origin in canonical form, with nothing after it.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| is_web(text) && url.origin().ascii_serialization() == text)
}

/// Whether a text is an `https:` URL, or an `http:` URL of this machine.
fn is_web(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| match url.scheme() {
        "https" => true,
        // Plain HTTP is for development on one machine.
        "http" => matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
        _ => false,
    })
}
