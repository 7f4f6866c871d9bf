//! Error pages: what the person can do, and for the app's developer what was wrong.

use std::error::Error as StdError;

use http::StatusCode;

use super::messages::Messages;
use crate::limits::{AttemptError, OverLimit};
use crate::oauth::Problem;
use crate::{db, oauth, signin, signup, standing};

/// Why a request gets an error page.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The authorization request is unknown or malformed, so the browser is not redirected. The
    /// text is for developers.
    Request(&'static str),
    /// The form was not sent from one of Genkan's pages.
    Form(&'static str),
    TooLarge,
    NoCookies,
    NotSignedIn,
    NotFound,
    /// The browser returns to the client.
    Leave(Box<oauth::Redirect>),
    OverLimit(OverLimit),
    /// A problem on Genkan's side that will pass.
    Busy(Option<Box<dyn StdError + Send + Sync>>),
    Bug(Box<dyn StdError + Send + Sync>),
}

/// The error page.
#[derive(Debug)]
pub(super) struct ErrorPage {
    pub(super) status: StatusCode,
    /// The name in the log and the metrics.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) text: &'static str,
    pub(super) technical: Vec<(&'static str, &'static str)>,
}

impl Trouble {
    /// Returns the page that shows this problem.
    pub(super) fn error_page(&self, messages: &Messages) -> ErrorPage {
        let plain =
            |status, name, title, text| ErrorPage { status, name, title, text, technical: Vec::new() };
        match self {
            Self::Request(why) => ErrorPage {
                status: StatusCode::BAD_REQUEST,
                name: "invalid_request",
                title: messages.error_unknown_title,
                text: messages.error_unknown,
                technical: vec![
                    ("error", "invalid_request"),
                    ("error_description", why),
                    ("see", "https://atproto.com/specs/oauth, RFC 9126 §4"),
                ],
            },
            Self::Form(why) => ErrorPage {
                status: StatusCode::BAD_REQUEST,
                name: "invalid_form",
                title: messages.error_form_title,
                text: messages.error_form,
                technical: vec![("error", "invalid_form"), ("error_description", why)],
            },
            Self::TooLarge => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                messages.error_large_title,
                messages.error_large,
            ),
            Self::NoCookies => plain(
                StatusCode::BAD_REQUEST,
                "no_cookies",
                messages.error_cookies_title,
                messages.error_cookies,
            ),
            Self::NotSignedIn => plain(
                StatusCode::UNAUTHORIZED,
                "not_signed_in",
                messages.error_not_signed_in_title,
                messages.error_not_signed_in,
            ),
            Self::NotFound => plain(
                StatusCode::NOT_FOUND,
                "not_found",
                messages.error_not_found_title,
                messages.error_not_found,
            ),
            Self::OverLimit(_) => plain(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                messages.error_limit_title,
                messages.error_limit,
            ),
            Self::Busy(_) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "busy", messages.error_busy_title, messages.error_busy)
            }
            Self::Leave(_) | Self::Bug(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                messages.error_bug_title,
                messages.error_bug,
            ),
        }
    }
}

impl From<AttemptError> for Trouble {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::OverLimit(over) => Self::OverLimit(over),
            AttemptError::Storage(cause) => cause.into(),
        }
    }
}

impl From<db::Error> for Trouble {
    fn from(cause: db::Error) -> Self {
        // A busy database is worth a retry, and the page says so. Everything else is a bug.
        if cause.is_passing() { Self::Busy(Some(Box::new(cause))) } else { Self::Bug(Box::new(cause)) }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Unknown => Self::Request(
                "request_uri is unknown, has expired, or was pushed by another client_id; it is good for five minutes after the last visit",
            ),
            Problem::Leave(redirect) => Self::Leave(Box::new(redirect)),
            Problem::Storage(cause) => cause.into(),
        }
    }
}

impl From<oauth::Error> for Trouble {
    fn from(cause: oauth::Error) -> Self {
        match cause {
            oauth::Error::Storage(cause) => cause.into(),
            oauth::Error::Busy => Self::Busy(None),
            other => Self::Bug(Box::new(other)),
        }
    }
}

/// The problems that a form does not show itself.
impl From<signin::Error> for Trouble {
    fn from(cause: signin::Error) -> Self {
        match cause {
            signin::Error::Storage(cause) => cause.into(),
            signin::Error::Busy => Self::Busy(None),
            other => Self::Bug(Box::new(other)),
        }
    }
}

impl From<signup::Error> for Trouble {
    fn from(cause: signup::Error) -> Self {
        match cause {
            signup::Error::Storage(cause) => cause.into(),
            other => Self::Bug(Box::new(other)),
        }
    }
}

impl From<standing::Error> for Trouble {
    fn from(cause: standing::Error) -> Self {
        match cause {
            standing::Error::Storage(cause) => cause.into(),
            other => Self::Bug(Box::new(other)),
        }
    }
}
