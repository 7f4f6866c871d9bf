//! What can go wrong, sorted by who has to act.

use std::sync::Arc;
use std::time::Duration;

use crate::db;

/// Why there is no credential for a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UseError {
    /// The person has to sign in again.
    #[error("the session has ended: {0}")]
    Gone(&'static str),
    /// The other server is away or its answer is unusable. The session stays.
    #[error("the session cannot be refreshed at the moment")]
    Unavailable { retry_after: Duration },
    #[error("the database does not answer")]
    Storage,
    /// The stored secrets do not open, or there is another fault of Genkan.
    #[error("the session's secrets cannot be used")]
    Broken,
}

/// Why a sign-in at the account's own server did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// The text is neither a handle nor a DID nor an address.
    #[error("the text is neither a handle nor a DID nor a server's address")]
    NotAnIdentifier,
    /// No account has the name, or the account does not confirm it.
    #[error("there is no such account")]
    NoSuchAccount,
    /// The account's server is this Genkan.
    #[error("the account's home is here")]
    Home,
    /// The account's server does not support what Genkan needs.
    #[error("its server cannot be used: {0}")]
    Unusable(Arc<str>),
    /// The account's server refused the request, with this OAuth error code.
    #[error("its server refused the request: {0}")]
    Refused(Arc<str>),
    /// A server on the way does not answer.
    #[error("its server does not answer: {0}")]
    Away(Arc<str>),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Why a browser's return failed, and where the person continues.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct FinishError {
    /// The page that sent the browser away, if it is known.
    pub(crate) back: Option<String>,
    pub(crate) why: Failure,
}

/// What went wrong after a browser returned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The sign-in was never begun here, has expired, or was already used.
    #[error("the sign-in is unknown or was used")]
    Unknown,
    #[error("the sign-in was begun in another browser")]
    OtherBrowser,
    /// The person or the other server denied it, with this OAuth error code.
    #[error("the other server denied the sign-in: {0}")]
    Denied(Arc<str>),
    /// The answer is not valid. It may be an attack.
    #[error("the other server's answer is not acceptable: {0}")]
    Unacceptable(&'static str),
    #[error("the other server does not answer: {0}")]
    Away(Arc<str>),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl Failure {
    pub(super) fn back_to(self, back: &str) -> FinishError {
        FinishError { back: Some(back.to_owned()), why: self }
    }
}

/// Why a session ended. The texts are for rows and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The app, the person or the operator ended its grant.
    GrantEnded,
    /// The person denied the app's request.
    Rejected,
    /// The person returned and never decided.
    Undecided,
    /// The sign-in was only to find out who the person is.
    IdentityOnly,
    /// Its server ended it.
    GrantGone,
    /// Refreshed tokens were lost on their way, and the server does not issue them again.
    AnswerLost,
    /// Another server now speaks for the account.
    Moved,
    /// The server answered for another account.
    OtherSubject,
    /// The client key with which the session began no longer exists.
    KeyGone,
    /// The PDS refused tokens that had just been refreshed.
    TokenRefused,
    /// The operator ended it.
    Operator,
}

impl Reason {
    pub(crate) const ALL: [Self; 11] = [
        Self::GrantEnded,
        Self::Rejected,
        Self::Undecided,
        Self::IdentityOnly,
        Self::GrantGone,
        Self::AnswerLost,
        Self::Moved,
        Self::OtherSubject,
        Self::KeyGone,
        Self::TokenRefused,
        Self::Operator,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::GrantEnded => "grant_ended",
            Self::Rejected => "rejected",
            Self::Undecided => "undecided",
            Self::IdentityOnly => "identity_only",
            Self::GrantGone => "grant_gone",
            Self::AnswerLost => "answer_lost",
            Self::Moved => "moved",
            Self::OtherSubject => "other_subject",
            Self::KeyGone => "key_gone",
            Self::TokenRefused => "token_refused",
            Self::Operator => "operator",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether the server still has to be told.
    pub(super) const fn is_told_to_server(self) -> bool {
        !matches!(self, Self::GrantGone | Self::AnswerLost | Self::KeyGone)
    }
}
