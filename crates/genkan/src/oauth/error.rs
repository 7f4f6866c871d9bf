//! Why a request of a client or a browser is refused.

use std::borrow::Cow;

use super::Redirect;

/// Why a client's request is refused, or could not be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client's fault, in the words of the specifications.
    #[error("{0:?}: {1}")]
    Refused(Code, Cow<'static, str>),
    /// The account's home is not in the fleet, or has no key.
    #[error("the account's host {0} is not known")]
    NoHome(String),
    /// Ours: nothing was consumed.
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

/// The error codes of RFC 6749, 7009, 9126, 9449 and the client metadata draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    AccessDenied,
    AccountSelectionRequired,
    ConsentRequired,
    InvalidClient,
    InvalidClientId,
    InvalidClientMetadata,
    InvalidDpopProof,
    InvalidGrant,
    InvalidRedirectUri,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    LoginRequired,
    UnsupportedGrantType,
    UnsupportedResponseType,
    UseDpopNonce,
}

impl Code {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::AccountSelectionRequired => "account_selection_required",
            Self::ConsentRequired => "consent_required",
            Self::InvalidClient => "invalid_client",
            Self::InvalidClientId => "invalid_client_id",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidToken => "invalid_token",
            Self::LoginRequired => "login_required",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::UseDpopNonce => "use_dpop_nonce",
        }
    }
}

impl Error {
    pub(crate) fn refused(code: Code, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(code, why.into())
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<crate::accounts::Error> for Error {
    fn from(cause: crate::accounts::Error) -> Self {
        use crate::accounts::Error as E;
        match cause {
            E::Storage(cause) => Self::Storage(cause),
            E::NotFound | E::HandleTaken | E::EmailTaken => {
                Self::refused(Code::InvalidGrant, "there is no such account")
            }
        }
    }
}

/// Why a browser cannot go on with a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Unknown, expired or malformed, or of another client: an error page, since no way back can be trusted.
    #[error("the sign-in request is not known or has expired; go back to the app and start again")]
    Unknown,
    /// Back to the client with this.
    #[error("the request is over")]
    Leave(Redirect),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}
