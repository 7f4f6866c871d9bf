//! The error envelope of OAuth: `{"error", "error_description"}` (RFC 6749 §5.2).

use std::borrow::Cow;
use std::error::Error as StdError;

use axum::response::{IntoResponse, Response};
use genkan_protocol::oauth::error::{OAuthError, OAuthErrorCode};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use crate::limits::OverLimit;
use crate::oauth;
use crate::wire::error::ErrorName;
use crate::wire::{challenge, media_type, messages};

/// A refusal as a client sees it, with its cause for the log.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Cow<'static, str>,
    description: Cow<'static, str>,
    retry_after: Option<u64>,
    /// Logged where the answer is made, and never sent.
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Refusal {
    pub(super) fn of(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code: code.into(), description: description.into(), retry_after: None, cause: None }
    }

    /// 500: a bug. Only the log learns the cause.
    pub(super) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut refusal = Self::of(StatusCode::INTERNAL_SERVER_ERROR, "server_error", messages::INTERNAL);
        refusal.cause = Some(cause.into());
        refusal
    }

    /// 503: the answer did not come in time.
    pub(super) fn out_of_time() -> Self {
        let text = "this takes longer than usual; send the same request again in a moment";
        let mut refusal = Self::from(OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, text));
        refusal.retry_after = Some(5);
        refusal
    }
}

/// 429, with a code that clients do not mistake for the end of a grant.
impl From<OverLimit> for Refusal {
    fn from(over: OverLimit) -> Self {
        let mut refusal =
            Self::of(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", messages::TOO_MANY_REQUESTS);
        refusal.retry_after = Some(over.retry_after);
        refusal
    }
}

impl From<OAuthError> for Refusal {
    fn from(error: OAuthError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::of(status, error.code.as_str(), error.description)
    }
}

impl From<oauth::Error> for Refusal {
    fn from(error: oauth::Error) -> Self {
        match error {
            oauth::Error::Refused(refused) => refused.into(),
            // Not `invalid_grant`: on that code clients throw their tokens away.
            oauth::Error::Storage(cause) if cause.is_passing() => {
                let code = OAuthErrorCode::TemporarilyUnavailable;
                let mut refusal = Self::from(OAuthError::new(code, "the database is busy; try again"));
                refusal.retry_after = Some(5);
                refusal.cause = Some(cause.into());
                refusal
            }
            oauth::Error::Storage(cause) => Self::internal(cause),
            cause @ oauth::Error::Busy => {
                let code = OAuthErrorCode::TemporarilyUnavailable;
                let mut refusal = Self::from(OAuthError::new(code, cause.to_string()));
                refusal.retry_after = Some(5);
                refusal
            }
            cause @ oauth::Error::NoHome(_) => Self::internal(cause),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = (self.status.as_u16(), &self.code);
        if let Some(cause) = &self.cause {
            if status == 500 {
                tracing::error!(cause = cause.as_ref() as &dyn StdError, "answered {status} {code}");
            } else {
                tracing::warn!(cause = cause.as_ref() as &dyn StdError, "answered {status} {code}");
            }
        }
        let body = json!({ "error": self.code, "error_description": self.description });
        let mut response = Response::new(body.to_string().into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, media_type::JSON);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // Clients look for the challenge on every 401 (RFC 9110 §11.6.1).
        if self.status == StatusCode::UNAUTHORIZED
            && let Some(challenge) = challenge::dpop(&self.code, &self.description)
        {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(ErrorName(self.code));
        response
    }
}
