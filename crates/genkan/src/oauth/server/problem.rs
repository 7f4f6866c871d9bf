//! Why a browser cannot go on with a request.

use super::view::Redirect;

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
