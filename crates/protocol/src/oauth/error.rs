//! Error responses of OAuth (RFC 6749 §5.2 and its extensions).

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

/// An error response: a code for programs, and a sentence for the developer of the app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{code}: {description}")]
pub struct OAuthError {
    /// `error`.
    #[serde(rename = "error")]
    pub code: OAuthErrorCode,
    /// `error_description`.
    #[serde(rename = "error_description")]
    pub description: Cow<'static, str>,
}

impl OAuthError {
    /// An error with this code and description.
    pub fn new(code: OAuthErrorCode, description: impl Into<Cow<'static, str>>) -> Self {
        Self { code, description: description.into() }
    }

    pub(super) fn invalid_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(OAuthErrorCode::InvalidRequest, description)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $status:literal)*) => {
        /// A code of RFC 6749, RFC 7591, RFC 9101, RFC 9449 or `OpenID` Connect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OAuthErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl OAuthErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it is sent.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The HTTP status of an answer with this code.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }
        }
    };
}

codes! {
    /// A parameter is missing, malformed, repeated or not allowed.
    InvalidRequest "invalid_request" 400
    /// The client's own authentication failed.
    InvalidClient "invalid_client" 400
    /// `client_id` is not an acceptable URL.
    InvalidClientId "invalid_client_id" 400
    /// The client's metadata document cannot be fetched, or is refused.
    InvalidClientMetadata "invalid_client_metadata" 400
    /// The client did not declare this redirect URI.
    InvalidRedirectUri "invalid_redirect_uri" 400
    /// The code or refresh token is not valid: the session has ended.
    InvalidGrant "invalid_grant" 400
    /// The client may not make this request.
    UnauthorizedClient "unauthorized_client" 400
    /// An unknown grant type.
    UnsupportedGrantType "unsupported_grant_type" 400
    /// A response type other than `code`.
    UnsupportedResponseType "unsupported_response_type" 400
    /// A scope that was not declared, or cannot be resolved.
    InvalidScope "invalid_scope" 400
    /// Rich authorization requests (RFC 9396) are not supported.
    InvalidAuthorizationDetails "invalid_authorization_details" 400
    /// Request objects (RFC 9101) are not supported.
    RequestNotSupported "request_not_supported" 400
    /// The proof needs this server's nonce (RFC 9449 §8). Nothing was consumed, so the client can
    /// try again.
    UseDpopNonce "use_dpop_nonce" 400
    /// The proof is missing, malformed or replayed.
    InvalidDpopProof "invalid_dpop_proof" 401
    /// The token is not valid, or bound to another key (RFC 6750 §3.1).
    InvalidToken "invalid_token" 401
    /// The user, or the server on their behalf, refused.
    AccessDenied "access_denied" 400
    /// `prompt=none`, but the user has to act.
    InteractionRequired "interaction_required" 400
    /// `prompt=none`, but the user has to sign in.
    LoginRequired "login_required" 400
    /// `prompt=none`, but the user has to choose an account.
    AccountSelectionRequired "account_selection_required" 400
    /// `prompt=none`, but the user has to consent.
    ConsentRequired "consent_required" 400
    /// A fault of the server.
    ServerError "server_error" 500
    /// A fault of the server that will pass.
    TemporarilyUnavailable "temporarily_unavailable" 503
}

impl fmt::Display for OAuthErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for OAuthErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
