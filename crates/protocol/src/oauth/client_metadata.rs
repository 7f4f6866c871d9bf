//! Metadata documents of clients (RFC 7591 §2; atproto OAuth, "Client ID Metadata Document").
//!
//! ```
//! use genkan_protocol::oauth::client_id::ClientId;
//! use genkan_protocol::oauth::client_metadata::ClientMetadata;
//!
//! let id = ClientId::parse("https://app.example.com/client-metadata.json", &[]).unwrap();
//! let document = br#"{
//!     "client_id": "https://app.example.com/client-metadata.json",
//!     "redirect_uris": ["https://app.example.com/callback"],
//!     "grant_types": ["authorization_code", "refresh_token"],
//!     "scope": "atproto",
//!     "token_endpoint_auth_method": "none",
//!     "dpop_bound_access_tokens": true
//! }"#;
//! let metadata = ClientMetadata::parse(document, &id)?;
//! assert!(!metadata.is_confidential() && metadata.refreshes);
//! assert!(metadata.allows_redirect("https://app.example.com/callback"));
//! assert_eq!(
//!     ClientMetadata::parse(b"{}", &id).unwrap_err().to_string(),
//!     "client metadata \"client_id\" is missing",
//! );
//! # Ok::<(), genkan_protocol::oauth::client_metadata::Error>(())
//! ```

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::client_id::{ClientId, is_public_name};
use super::jwk::JwkSet;
use super::jws::Algorithm;
use super::redirect_uri::RedirectUri;

/// A client's metadata, checked as a whole. Unknown members are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMetadata {
    /// The redirect URIs, 1 to [`ClientMetadata::MAX_REDIRECTS`].
    pub redirect_uris: Vec<RedirectUri>,
    /// Whether it may have refresh tokens (`grant_types`).
    pub refreshes: bool,
    /// Whether its tokens are bound to its key (`dpop_bound_access_tokens`). Not checked on
    /// reading: see [`ClientMetadata::require_binding`].
    pub bound: bool,
    /// The scopes that it may request, separated by spaces; `atproto` is among them.
    pub scope: String,
    /// How it authenticates (`token_endpoint_auth_method`).
    pub authentication: Authentication,
    /// Where it runs.
    pub application_type: ApplicationType,
    /// Its name. Unverified: any client can claim any name.
    pub client_name: Option<String>,
    /// Its home page, on its own origin.
    pub client_uri: Option<String>,
    /// The URL of its logo.
    pub logo_uri: Option<String>,
    /// The URL of its terms of service.
    pub tos_uri: Option<String>,
    /// The URL of its privacy policy.
    pub policy_uri: Option<String>,
}

/// How a client authenticates at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// It does not: a public client.
    None,
    /// By a signed assertion (RFC 7523 §2.2): a confidential client.
    PrivateKeyJwt {
        /// The algorithm that it signs with.
        alg: Algorithm,
        /// Its keys.
        keys: Keys,
    },
}

/// A client's public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// In the document itself.
    Here(JwkSet),
    /// In a set at this URL.
    At(Url),
}

/// Where a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplicationType {
    /// On a server or in a browser.
    Web,
    /// On the user's machine.
    Native,
}

/// Why a document is refused, by its member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client metadata \"{field}\" {problem}")]
pub struct Error {
    /// The member at fault.
    pub field: &'static str,
    /// The rule that it breaks, as the end of a sentence.
    pub problem: Cow<'static, str>,
}

impl ClientMetadata {
    /// The most redirect URIs that a client may have.
    pub const MAX_REDIRECTS: usize = 64;
    /// The longest `scope`, in bytes.
    pub const MAX_SCOPE: usize = 16 * 1024;
    /// The longest other text, in bytes.
    pub const MAX_TEXT: usize = 2048;

    /// Reads the document that was found at `client_id`.
    pub fn parse(json: &[u8], client: &ClientId) -> Result<Self, Error> {
        // Read as a map first and then member by member, so that an error can name the member.
        let members: Map<String, Value> =
            serde_json::from_slice(json).map_err(|_| fail("client_id", "is missing: not a JSON object"))?;
        let document = Document(members);
        // The client id comes first, so that errors about other members are about this client.
        document.check(client)?;
        let application_type = document.read("application_type")?.unwrap_or(ApplicationType::Web);
        let authentication = document.authentication(application_type)?;
        Ok(Self {
            redirect_uris: document.redirects(client, application_type)?,
            refreshes: document.refreshes()?,
            bound: document.read("dpop_bound_access_tokens")? == Some(true),
            scope: document.scope()?,
            authentication,
            application_type,
            client_name: document.text("client_name")?,
            client_uri: document.client_uri(client)?,
            logo_uri: document.web_page("logo_uri")?,
            tos_uri: document.web_page("tos_uri")?,
            policy_uri: document.web_page("policy_uri")?,
        })
    }

    /// The metadata of a client in development, which has no document.
    pub fn of_development(client: &ClientId) -> Result<Self, Error> {
        let said = client.development().ok_or_else(|| fail("client_id", "is not http://localhost"))?;
        let said = said.map_err(|error| fail("client_id", error.to_string()))?;
        let application_type = ApplicationType::Native;
        Ok(Self {
            redirect_uris: check_redirects(&said.redirect_uris, client, application_type)?,
            // The atproto profile fixes the following for clients on localhost: they are public and
            // native, bound by DPoP, and may have refresh tokens.
            refreshes: true,
            bound: true,
            scope: check_scope(said.scope)?,
            authentication: Authentication::None,
            application_type,
            client_name: None,
            client_uri: None,
            logo_uri: None,
            tos_uri: None,
            policy_uri: None,
        })
    }

    /// Whether the client authenticates by a signed assertion.
    pub fn is_confidential(&self) -> bool {
        self.authentication != Authentication::None
    }

    /// Refuses a client whose tokens are not bound to a key (atproto OAuth, "DPoP"). Only clients
    /// that the operator has registered for bearer tokens are exempt.
    pub fn require_binding(&self) -> Result<(), Error> {
        if self.bound { Ok(()) } else { Err(fail("dpop_bound_access_tokens", "must be true")) }
    }

    /// Whether a request may name this redirect URI; see [`RedirectUri::matches`].
    pub fn allows_redirect(&self, requested: &str) -> bool {
        self.redirect_uris.iter().any(|declared| declared.matches(requested))
    }
}

struct Document(Map<String, Value>);

impl Document {
    /// Checks the members that have only one allowed value.
    fn check(&self, client: &ClientId) -> Result<(), Error> {
        match self.read::<String>("client_id")? {
            // Compared byte by byte: a document that is also served under a second URL must not
            // speak for that URL.
            Some(own) if own == client.as_str() => {}
            Some(_) => return Err(fail("client_id", "differs from the URL of the document")),
            None => return Err(fail("client_id", "is missing")),
        }
        // An absent list means `code` alone (RFC 7591 §2).
        let responses = self.read::<Vec<String>>("response_types")?;
        if responses.is_some_and(|types| !types.iter().any(|kind| kind == "code")) {
            return Err(fail("response_types", "must include \"code\""));
        }
        if self.read::<String>("subject_type")?.is_some_and(|kind| kind != "public") {
            return Err(fail("subject_type", "must be \"public\""));
        }
        // This asks for tokens bound to a TLS certificate (RFC 8705 §3.4). Only DPoP binding is
        // supported.
        if self.0.get("tls_client_certificate_bound_access_tokens") == Some(&Value::Bool(true)) {
            return Err(fail("tls_client_certificate_bound_access_tokens", "must not be true"));
        }
        if self.0.get("authorization_details_types").is_some_and(|types| types != &Value::Array(vec![])) {
            return Err(fail("authorization_details_types", "names types that are not supported"));
        }
        match REFUSED.into_iter().find(|name| self.0.contains_key(*name)) {
            Some(name) => Err(fail(name, "must not be present")),
            None => Ok(()),
        }
    }

    fn authentication(&self, application_type: ApplicationType) -> Result<Authentication, Error> {
        const ALG: &str = "token_endpoint_auth_signing_alg";
        let keys = self.keys()?;
        match self.read::<String>("token_endpoint_auth_method")?.as_deref() {
            Some("none") if self.0.contains_key(ALG) => Err(fail(ALG, "must not be present with \"none\"")),
            Some("none") => Ok(Authentication::None),
            Some("private_key_jwt") => {
                // A key in a program that users install is not a secret.
                if application_type == ApplicationType::Native {
                    return Err(fail("token_endpoint_auth_method", "of a native client must be \"none\""));
                }
                let alg = self.read::<String>(ALG)?.ok_or_else(|| fail(ALG, "is missing"))?;
                let alg = alg.parse().map_err(|_| fail(ALG, "is not a supported algorithm"))?;
                let keys = keys.ok_or_else(|| fail("jwks", "or \"jwks_uri\" is missing"))?;
                Ok(Authentication::PrivateKeyJwt { alg, keys })
            }
            Some(_) => Err(fail("token_endpoint_auth_method", "must be \"none\" or \"private_key_jwt\"")),
            None => Err(fail("token_endpoint_auth_method", "is missing: \"none\" or \"private_key_jwt\"")),
        }
    }

    fn keys(&self) -> Result<Option<Keys>, Error> {
        match (self.0.get("jwks"), self.text("jwks_uri")?) {
            (None, None) => Ok(None),
            // RFC 7591 §2 forbids both. With two sources it would be unclear which keys count.
            (Some(_), Some(_)) => Err(fail("jwks_uri", "and \"jwks\" exclude each other")),
            (Some(set), None) => {
                let set = JwkSet::parse(set.to_string().as_bytes());
                let set =
                    set.map_err(|error| fail("jwks", format!("is not a set of public keys: {error}")))?;
                // The set drops keys for encryption, so a set with members can still be empty.
                if set.keys.is_empty() {
                    return Err(fail("jwks", "has no key for signatures"));
                }
                Ok(Some(Keys::Here(set)))
            }
            (None, Some(url)) => match Url::parse(&url) {
                Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(Some(Keys::At(url))),
                _ => Err(fail("jwks_uri", "is not a web address")),
            },
        }
    }

    fn redirects(&self, client: &ClientId, kind: ApplicationType) -> Result<Vec<RedirectUri>, Error> {
        let listed = self.read::<Vec<String>>("redirect_uris")?;
        check_redirects(&listed.ok_or_else(|| fail("redirect_uris", "is missing"))?, client, kind)
    }

    fn refreshes(&self) -> Result<bool, Error> {
        const FIELD: &str = "grant_types";
        // An absent list means `authorization_code` alone (RFC 7591 §2).
        let Some(types) = self.read::<Vec<String>>(FIELD)? else { return Ok(false) };
        let count = |name: &str| types.iter().filter(|kind| *kind == name).count();
        let (codes, refreshes) = (count("authorization_code"), count("refresh_token"));
        if codes == 0 {
            return Err(fail(FIELD, "must include \"authorization_code\""));
        }
        // An app that lists other grant types expects a flow that Genkan does not have.
        if codes + refreshes != types.len() {
            return Err(fail(FIELD, "may have only \"authorization_code\" and \"refresh_token\""));
        }
        if codes > 1 || refreshes > 1 {
            return Err(fail(FIELD, "has a type twice"));
        }
        Ok(refreshes == 1)
    }

    fn scope(&self) -> Result<String, Error> {
        check_scope(self.read("scope")?.ok_or_else(|| fail("scope", "is missing"))?)
    }

    fn client_uri(&self, client: &ClientId) -> Result<Option<String>, Error> {
        const FIELD: &str = "client_uri";
        let Some(text) = self.web_page(FIELD)? else { return Ok(None) };
        let url = Url::parse(&text).map_err(|_| fail(FIELD, "is not a web address"))?;
        if url.origin() != client.url().origin() {
            return Err(fail(FIELD, "must have the origin of client_id"));
        }
        // `/app` is a parent of `/app/client.json`, but not of `/app-of-another/client.json`.
        let below = client.url().path().strip_prefix(url.path());
        if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || url.path().ends_with('/')) {
            return Err(fail(FIELD, "must be a parent of client_id"));
        }
        Ok(Some(text))
    }

    /// Reads a URL that pages show as a link or picture.
    fn web_page(&self, field: &'static str) -> Result<Option<String>, Error> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let url = Url::parse(&text).map_err(|_| fail(field, "is not a web address"))?;
        let is_public = match url.host() {
            Some(url::Host::Domain(host)) => is_public_name(host),
            _ => true,
        };
        match url.scheme() {
            "https" if is_public => Ok(Some(text)),
            // A client on an internal origin that the operator listed has its pages there too.
            "http" | "https" => match self.0.get("client_id").and_then(Value::as_str).map(Url::parse) {
                Some(Ok(own)) if own.origin() == url.origin() => Ok(Some(text)),
                _ if url.scheme() == "http" => Err(fail(field, "must be an https: URL")),
                _ => Err(fail(field, "must have a public host name")),
            },
            _ => Err(fail(field, "must be an https: URL")),
        }
    }

    fn text(&self, field: &'static str) -> Result<Option<String>, Error> {
        let text = self.read::<String>(field)?;
        if text.as_ref().is_some_and(|text| text.len() > ClientMetadata::MAX_TEXT) {
            return Err(fail(field, "is too long"));
        }
        Ok(text)
    }

    fn read<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.0.get(field) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|_| fail(field, "has the wrong type or value"))
    }
}

/// Members that request features of `OpenID` Connect, which atproto does not have.
const REFUSED: [&str; 5] = [
    "default_max_age",
    "userinfo_signed_response_alg",
    "id_token_signed_response_alg",
    "userinfo_encrypted_response_alg",
    "authorization_encrypted_response_enc",
];

fn check_redirects(
    listed: &[String],
    client: &ClientId,
    kind: ApplicationType,
) -> Result<Vec<RedirectUri>, Error> {
    const FIELD: &str = "redirect_uris";
    if listed.is_empty() {
        return Err(fail(FIELD, "must have at least one"));
    }
    if listed.len() > ClientMetadata::MAX_REDIRECTS {
        return Err(fail(FIELD, "has too many"));
    }
    let check = |text: &String| {
        RedirectUri::parse(text, client, kind).map_err(|error| {
            // The text goes into an error message; a client must not choose its length.
            let shown: String = text.chars().take(200).collect();
            fail(FIELD, format!("has {shown:?}, which {error}"))
        })
    };
    listed.iter().map(check).collect()
}

fn check_scope(scope: String) -> Result<String, Error> {
    const FIELD: &str = "scope";
    if scope.len() > ClientMetadata::MAX_SCOPE {
        return Err(fail(FIELD, "is too long"));
    }
    let mut values: Vec<_> = scope.split(' ').collect();
    if !values.contains(&"atproto") {
        return Err(fail(FIELD, "must include \"atproto\""));
    }
    // Sorting brings repeated values together. Comparing every pair would take quadratic time on a
    // scope of 16 KiB.
    values.sort_unstable();
    if values.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(fail(FIELD, "has a value twice"));
    }
    Ok(scope)
}

fn fail(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Error {
    Error { field, problem: problem.into() }
}
