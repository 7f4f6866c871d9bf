//! Parameters of the endpoints: pushed authorization requests (RFC 9126 §2.1), token requests (RFC
//! 6749 §4.1.3 and §6), revocation (RFC 7009 §2.1). Empty parameters count as absent, unknown ones
//! are ignored, repeated ones are refused (RFC 6749 §3.1).
//!
//! ```
//! use genkan_protocol::oauth::error::OAuthErrorCode;
//! use genkan_protocol::oauth::request::{Form, TokenRequest};
//!
//! let form = Form::parse(b"grant_type=refresh_token&refresh_token=ref-1")?;
//! assert!(matches!(TokenRequest::parse(&form)?, TokenRequest::Refresh { refresh_token } if refresh_token == "ref-1"));
//! let repeated = Form::parse(b"state=1&state=2").unwrap_err();
//! assert_eq!(repeated.code, OAuthErrorCode::InvalidRequest);
//! # Ok::<(), genkan_protocol::oauth::error::OAuthError>(())
//! ```

use std::collections::BTreeMap;

use super::error::{OAuthError, OAuthErrorCode};
use super::jwk::Thumbprint;
use super::pkce::Challenge;
use crate::syntax::AtIdentifier;

/// The parameters of a form: at most 64, none repeated.
#[derive(Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Takes decoded pairs.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, OAuthError>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut form = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            // Counted before insertion, so that a long body costs no more than 64 entries.
            if form.len() == MAX_PARAMETERS {
                return Err(OAuthError::invalid_request("there are too many parameters"));
            }
            if form.contains_key(&name) {
                // The name comes from the client and goes into an error message.
                let shown: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
                return Err(OAuthError::invalid_request(format!("parameter \"{shown}\" is repeated")));
            }
            form.insert(name, value);
        }
        Ok(Self(form))
    }

    /// Decodes a body of `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        Self::from_pairs(url::form_urlencoded::parse(body))
    }

    /// The value of a parameter that is present and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a parameter that must be present and not empty. Otherwise `invalid_request`.
    pub fn required(&self, name: &'static str) -> Result<&str, OAuthError> {
        self.get(name).ok_or_else(|| OAuthError::invalid_request(format!("parameter \"{name}\" is missing")))
    }

    /// The client's assertion. `None`: a public client, or one that does not authenticate (RFC 7523
    /// §2.2).
    pub fn client_assertion(&self) -> Result<Option<&str>, OAuthError> {
        match (self.get("client_assertion_type"), self.get("client_assertion")) {
            (None, None) => Ok(None),
            (Some(super::client_assertion::TYPE), Some(assertion)) => Ok(Some(assertion)),
            (Some(_), Some(_)) => {
                Err(OAuthError::new(OAuthErrorCode::InvalidClient, "unsupported client_assertion_type"))
            }
            _ => Err(OAuthError::invalid_request(
                "\"client_assertion_type\" and \"client_assertion\" go together",
            )),
        }
    }
}

impl std::fmt::Debug for Form {
    /// Names only: the values are codes and tokens.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

const MAX_PARAMETERS: usize = 64;

/// An authorization request, before it is compared with the client's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// The redirect URI. `None`: the only one that the client declared.
    pub redirect_uri: Option<String>,
    /// The scopes as they were sent.
    pub scope: String,
    /// An opaque value that is returned unchanged, 4096 bytes at most.
    pub state: String,
    /// The challenge of the verifier that will redeem the code.
    pub challenge: Challenge,
    /// The key that the session must be bound to (RFC 9449 §10).
    pub dpop_jkt: Option<Thumbprint>,
    /// The account that is expected to sign in.
    pub login_hint: Option<AtIdentifier>,
    /// The page to show first.
    pub prompt: Option<Prompt>,
    /// The form of the response.
    pub response_mode: ResponseMode,
    /// The preferred languages (BCP 47), best first, 16 at most.
    pub ui_locales: Vec<String>,
}

impl AuthorizationRequest {
    /// Reads the parameters of a pushed request. The error's code tells the cases apart.
    pub fn parse(form: &Form) -> Result<Self, OAuthError> {
        if let Some(name) = ["request", "request_uri"].into_iter().find(|name| form.get(name).is_some()) {
            let text = format!("parameter \"{name}\" is not supported in pushed requests");
            return Err(OAuthError::new(OAuthErrorCode::RequestNotSupported, text));
        }
        // Ignored in silence, these would leave a client in the belief that a check is made.
        if let Some(name) = REFUSED.into_iter().find(|name| form.get(name).is_some()) {
            return Err(OAuthError::invalid_request(format!("parameter \"{name}\" is not supported")));
        }
        if form.get("authorization_details").is_some() {
            let text = "authorization_details are not supported";
            return Err(OAuthError::new(OAuthErrorCode::InvalidAuthorizationDetails, text));
        }
        // The implicit and hybrid flows put tokens into URLs (RFC 9700 §2.1.2).
        if form.required("response_type")? != "code" {
            let text = "response_type must be \"code\"";
            return Err(OAuthError::new(OAuthErrorCode::UnsupportedResponseType, text));
        }
        Ok(Self {
            redirect_uri: form.get("redirect_uri").map(str::to_owned),
            scope: read_scope(form)?,
            state: read_state(form)?,
            challenge: read_challenge(form)?,
            dpop_jkt: parse_with(form, "dpop_jkt", |text| text.parse().ok())?,
            login_hint: parse_with(form, "login_hint", read_hint)?,
            prompt: parse_with(form, "prompt", Prompt::read)?,
            response_mode: parse_with(form, "response_mode", ResponseMode::read)?.unwrap_or_default(),
            ui_locales: form.get("ui_locales").map(read_locales).unwrap_or_default(),
        })
    }
}

/// The page that an app asks for (`OpenID` Connect Core §3.1.2.1; `create` from its prompt
/// extension).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// None: respond at once or refuse.
    None,
    /// Signing in, even if an account is signed in.
    Login,
    /// Consent, even if it was given before.
    Consent,
    /// The accounts to choose from.
    SelectAccount,
    /// Creating an account.
    Create,
}

impl Prompt {
    /// The prompt as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Login => "login",
            Self::Consent => "consent",
            Self::SelectAccount => "select_account",
            Self::Create => "create",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn read(text: &str) -> Option<Self> {
        let all = [Self::None, Self::Login, Self::Consent, Self::SelectAccount, Self::Create];
        all.into_iter().find(|prompt| prompt.as_str() == text)
    }
}

/// The form of the response to the app (OAuth 2.0 Multiple Response Types §2.1, OAuth 2.0 Form Post
/// Response Mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResponseMode {
    /// In the query of the redirect.
    #[default]
    Query,
    /// In its fragment.
    Fragment,
    /// In a form that submits itself.
    FormPost,
}

impl ResponseMode {
    /// The mode as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Fragment => "fragment",
            Self::FormPost => "form_post",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Query, Self::Fragment, Self::FormPost].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A request to the token endpoint.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// Exchanging a code for a session (RFC 6749 §4.1.3).
    Code {
        /// The code.
        code: String,
        /// The redirect URI of the authorization request, byte by byte.
        redirect_uri: String,
        /// The verifier. Its shape is unchecked.
        verifier: String,
    },
    /// Exchanging a refresh token for a new pair (RFC 6749 §6).
    Refresh {
        /// The refresh token.
        refresh_token: String,
    },
}

impl TokenRequest {
    /// Reads the parameters of a token request. The error's code tells the cases apart.
    pub fn parse(form: &Form) -> Result<Self, OAuthError> {
        match form.required("grant_type")? {
            "authorization_code" => {
                // A verifier of a wrong shape is not refused here. It reaches the exchange, where
                // it uses the code up as any wrong verifier does.
                let verifier = form.required("code_verifier")?;
                Ok(Self::Code {
                    code: form.required("code")?.to_owned(),
                    redirect_uri: form.required("redirect_uri")?.to_owned(),
                    verifier: verifier.to_owned(),
                })
            }
            "refresh_token" => {
                Ok(Self::Refresh { refresh_token: form.required("refresh_token")?.to_owned() })
            }
            _ => Err(OAuthError::new(
                OAuthErrorCode::UnsupportedGrantType,
                "grant_type must be \"authorization_code\" or \"refresh_token\"",
            )),
        }
    }
}

impl std::fmt::Debug for TokenRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[sealed]")
    }
}

/// Parameters of `OpenID` Connect, which atproto does not support.
const REFUSED: [&str; 3] = ["nonce", "claims", "id_token_hint"];

const MAX_STATE: usize = 4096;
const MAX_SCOPE: usize = 16 * 1024;

fn parse_with<T>(
    form: &Form,
    name: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, OAuthError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    read(text)
        .map(Some)
        .ok_or_else(|| OAuthError::invalid_request(format!("parameter \"{name}\" is malformed")))
}

fn read_scope(form: &Form) -> Result<String, OAuthError> {
    let fail = |text: &'static str| OAuthError::new(OAuthErrorCode::InvalidScope, text);
    let scope = form.get("scope").unwrap_or_default();
    if scope.len() > MAX_SCOPE {
        return Err(fail("scope is too long"));
    }
    // Named in the error, since OpenID libraries add this scope by default.
    if scope.split(' ').any(|value| value == "openid") {
        return Err(fail("OpenID Connect is not supported: do not ask for \"openid\""));
    }
    if !scope.split(' ').any(|value| value == "atproto") {
        return Err(fail("scope must include \"atproto\""));
    }
    Ok(scope.to_owned())
}

fn read_state(form: &Form) -> Result<String, OAuthError> {
    let state = form.required("state")?;
    if state.len() > MAX_STATE {
        return Err(OAuthError::invalid_request("parameter \"state\" is too long"));
    }
    Ok(state.to_owned())
}

fn read_challenge(form: &Form) -> Result<Challenge, OAuthError> {
    let challenge = form.required("code_challenge")?;
    if form.required("code_challenge_method")? != "S256" {
        return Err(OAuthError::invalid_request("code_challenge_method must be \"S256\""));
    }
    challenge.parse().map_err(|error| OAuthError::invalid_request(format!("{error}")))
}

fn read_hint(text: &str) -> Option<AtIdentifier> {
    // A DID is case-sensitive, but those of the two methods are lower-case anyway.
    let hint: AtIdentifier = text.to_ascii_lowercase().parse().ok()?;
    match &hint {
        AtIdentifier::Did(did) if !did.is_plc() && !did.is_web() => None,
        _ => Some(hint),
    }
}

/// Reads language tags. A text that does not look like a tag is left out: the parameter is only a
/// wish.
fn read_locales(text: &str) -> Vec<String> {
    let is_tag = |tag: &&str| {
        !tag.is_empty()
            && tag.len() <= 35
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.split(' ').filter(is_tag).take(16).map(str::to_owned).collect()
}
