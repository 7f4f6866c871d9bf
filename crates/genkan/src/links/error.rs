//! What can go wrong, sorted by who has to do something about it.

use std::sync::Arc;
use std::time::Duration;

use crate::db;

/// Why there is no credential for a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UseError {
    /// The person has to sign in again.
    #[error("the session is over: {0}")]
    Gone(&'static str),
    /// The other server is away or does not understand: the session stays.
    #[error("the session cannot be refreshed for the moment")]
    Unavailable { retry_after: Duration },
    #[error("the database does not answer")]
    Storage,
    /// What is stored does not open, or another fault of our own.
    #[error("the session's secrets cannot be used")]
    Broken,
}

/// Why a sign-in at the account's own server was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// No handle, DID or address at all.
    #[error("that is no handle, DID or address of a server")]
    NotAnIdentifier,
    /// No account has the name, or the account does not confirm it.
    #[error("there is no such account")]
    NoSuchAccount,
    /// It lives behind this very server.
    #[error("the account is at home here")]
    Home,
    /// Its server does not meet what Genkan needs of one.
    #[error("its server cannot be used: {0}")]
    Unusable(Arc<str>),
    /// Its server refused our request, with this code of OAuth.
    #[error("its server refused the request: {0}")]
    Refused(Arc<str>),
    /// Somebody on the way does not answer.
    #[error("its server does not answer: {0}")]
    Away(Arc<str>),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// Why a browser came back in error, and where it goes on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct FinishError {
    /// The page that sent the browser away. `None`: unknown.
    pub(crate) back: Option<String>,
    pub(crate) why: Failure,
}

/// What went wrong after a browser came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Never begun here, over, or used already.
    #[error("the sign-in is unknown or was used")]
    Unknown,
    #[error("the sign-in was begun in another browser")]
    OtherBrowser,
    /// The person or the other server said no, with this code of OAuth.
    #[error("the other server denied the sign-in: {0}")]
    Denied(Arc<str>),
    /// The answer is not what it has to be: perhaps an attack.
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

/// Why a session ended. The words are for rows and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its grant ended: by the app, the person or the operator.
    GrantEnded,
    /// The person did not allow the app what it asked for.
    Rejected,
    /// The person came back and never decided.
    Undecided,
    /// Only who signed in was wanted.
    IdentityOnly,
    /// Its server ended it.
    GrantGone,
    /// Refreshed tokens were lost on their way, and its server does not give them again.
    AnswerLost,
    /// The account moved to another server.
    Moved,
    /// Its server answers for another account.
    OtherSubject,
    /// Our key that it was begun with is gone.
    KeyGone,
    /// Its PDS does not take tokens that were just refreshed.
    TokenRefused,
    /// The operator's word.
    Operator,
}

impl Reason {
    const ALL: [Self; 11] = [
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

    /// Whether its server still has something to be told.
    pub(super) const fn is_told_to_server(self) -> bool {
        !matches!(self, Self::GrantGone | Self::AnswerLost | Self::KeyGone)
    }
}
