//! Why a browser cannot continue with a request.

use super::view::Redirect;

/// Why a browser cannot continue with a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The request is unknown, expired, malformed, or of another client. The result is an error
    /// page, because no redirect can be trusted.
    #[error("the sign-in request is not known or has expired; go back to the app and start again")]
    Unknown,
    /// The browser returns to the client with this answer.
    #[error("the request is over")]
    Leave(Redirect),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}
