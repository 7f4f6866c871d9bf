//! Why a client's request is refused.

use std::borrow::Cow;

use genkan_protocol::oauth::error::{OAuthError, OAuthErrorCode as Code};

/// Why a client's request is refused or cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client's fault, in the words of the specifications.
    #[error(transparent)]
    Refused(#[from] OAuthError),
    /// The account's home is not in the fleet or has no key.
    #[error("the account's host {0} is not known")]
    NoHome(String),
    /// Too many calls to external servers are under way. Nothing was consumed.
    #[error("too many external servers are being asked; try again")]
    Busy,
    /// A database failure. Nothing was consumed.
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl Error {
    pub(super) fn refused(code: Code, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(OAuthError::new(code, why))
    }

    pub(super) fn grant(why: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(Code::InvalidGrant, why)
    }

    /// The refusal of a code or token that is not live, where nothing more is known of its client.
    pub(super) fn nothing_live() -> Self {
        Self::grant("the code or token is invalid or has expired")
    }
}
