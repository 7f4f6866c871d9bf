//! Every answer that the edge makes itself: one shape for all errors.

use http::header::{
    self, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CONNECTION,
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http1::RequestFault;

use crate::forward::{AnswerBody, EXPOSED, Error, NOT_CARRIED, OverLimit};
use crate::http::error::dpop_challenge;
use crate::http::rate_headers;
use crate::limits::Verdict;
use crate::routing::target::NoTarget;
use crate::routing::{Parameter, Refusal};

/// An error as a client sees it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    name: &'static str,
    message: Box<str>,
    /// What belongs to it besides.
    extra: Option<Box<(HeaderName, HeaderValue)>>,
    over_limit: Option<Box<Verdict>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into().into(), extra: None, over_limit: None }
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { extra: Some(Box::new((name, HeaderValue::from_static(value)))), ..self }
    }

    /// With what a client's library reads before it fetches another token.
    fn challenging(self, code: &'static str, by_proof: bool) -> Self {
        let challenge = if by_proof {
            dpop_challenge(code, &self.message)
        } else {
            format!("Bearer error=\"{code}\", error_description=\"{}\"", self.message).parse().ok()
        };
        Self { extra: challenge.map(|challenge| Box::new((WWW_AUTHENTICATE, challenge))), ..self }
    }

    /// The path under `/xrpc/` names no method.
    pub(super) fn crooked_path() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", "The path must be /xrpc/ and one method name")
    }

    /// A WebSocket was asked for, and none of our methods is one.
    pub(super) fn no_websocket() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "MethodNotImplemented",
            "Subscriptions are not carried; subscribe at the account's own host, or at a relay",
        )
    }

    /// Genkan's own part did not live up to it.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "Something went wrong on our side",
        )
    }

    pub(super) fn verb() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest", "This verb is not served")
            .with(ALLOW, VERBS)
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    fn body(&self) -> String {
        serde_json::json!({ "error": self.name, "message": self.message }).to_string()
    }

    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::whole(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(GATEWAY, HeaderValue::from_static("gateway"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(extra) = self.extra {
            headers.insert(extra.0, extra.1);
        }
        if let Some(verdict) = &self.over_limit {
            rate_headers::put(headers, verdict);
        }
        response
    }

    /// The same as bytes, for a connection that is not spoken HTTP on any more.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let body = self.body();
        let allow = if self.status == StatusCode::METHOD_NOT_ALLOWED { VERBS_LINE } else { "" };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{allow}\
             connection: close\r\n\r\n{body}",
            status = self.status,
            length = body.len(),
        )
        .into_bytes()
    }
}

impl From<RequestFault> for Problem {
    fn from(fault: RequestFault) -> Self {
        match fault {
            RequestFault::Ambiguous(why) => {
                Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", format!("Malformed: {why}"))
            }
            RequestFault::HeadTooLarge => Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "InvalidRequest",
                "The request's head is too large",
            ),
            RequestFault::TargetTooLong => {
                Self::new(StatusCode::URI_TOO_LONG, "InvalidRequest", "The request's target is too long")
            }
            RequestFault::Verb => Self::verb(),
        }
    }
}

impl From<OverLimit> for Problem {
    fn from(over: OverLimit) -> Self {
        let message = "Too many requests, try again later";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded", message);
        problem.extra = Some(Box::new((RETRY_AFTER, over.retry_after.into())));
        problem.over_limit = Some(Box::new(over.verdict));
        problem
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let invalid = |message: String| Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message);
        match refusal {
            Refusal::WrongVerb { allowed } => {
                invalid(format!("Incorrect HTTP method, expected {allowed}")).with(ALLOW, allowed)
            }
            Refusal::NotHere(message) => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", message)
            }
            Refusal::NoToken { is_carried } => {
                let message = if is_carried {
                    "Authentication Required".to_owned()
                } else {
                    format!("Authentication Required. {NOT_CARRIED}")
                };
                Self::new(StatusCode::UNAUTHORIZED, "AuthMissing", message).with(WWW_AUTHENTICATE, "Bearer")
            }
            Refusal::TwoTokens => invalid("Authorization must be there only once".to_owned()),
            Refusal::BadScheme => {
                Self::new(StatusCode::BAD_REQUEST, "InvalidToken", "Unexpected authorization type")
            }
            Refusal::BadToken { by_proof } => {
                let name = if by_proof { "invalid_token" } else { "InvalidToken" };
                Self::new(StatusCode::UNAUTHORIZED, name, "Unexpected authorization type")
                    .challenging("invalid_token", by_proof)
            }
            Refusal::BadTarget(parameter, problem) => {
                let name = parameter.as_str();
                invalid(match problem {
                    NoTarget::Missing => format!("Params must have the property \"{name}\""),
                    NoTarget::Repeated => format!("{name} must be there only once"),
                    NoTarget::Invalid => match parameter {
                        Parameter::Repo => format!("{name} must be a valid DID or handle"),
                        Parameter::Did => format!("{name} must be a valid DID"),
                    },
                })
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let of = |status, name| Self::new(status, name, message.clone());
        match error {
            Error::InvalidToken => of(StatusCode::BAD_REQUEST, "InvalidToken"),
            Error::ExpiredToken | Error::Moved => of(StatusCode::BAD_REQUEST, "ExpiredToken"),
            Error::Grant { code, .. } => {
                let challenge = dpop_challenge(code, &message);
                let mut problem = Self::new(StatusCode::UNAUTHORIZED, code, message);
                problem.extra = challenge.map(|challenge| Box::new((WWW_AUTHENTICATE, challenge)));
                problem
            }
            Error::NotReady => of(StatusCode::SERVICE_UNAVAILABLE, "UpstreamNotReady").with(RETRY_AFTER, "0"),
            Error::UpstreamAuth => {
                of(StatusCode::BAD_GATEWAY, "UpstreamAuthUnavailable").with(RETRY_AFTER, "5")
            }
            Error::Unresolved => of(StatusCode::BAD_GATEWAY, "DidResolutionFailed"),
            Error::NoPds => of(StatusCode::BAD_GATEWAY, "PdsNotFound"),
            Error::NotAllowed => of(StatusCode::BAD_GATEWAY, "PdsNotAllowed"),
            Error::NoToken => Refusal::NoToken { is_carried: true }.into(),
            Error::UnknownToken { .. } => {
                of(StatusCode::UNAUTHORIZED, "InvalidToken").challenging("invalid_token", false)
            }
            Error::AuthMethod => {
                of(StatusCode::UNAUTHORIZED, "AuthenticationRequired").with(WWW_AUTHENTICATE, "DPoP, Bearer")
            }
            Error::NotCarried => of(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented"),
            Error::Scope { by_proof } => {
                of(StatusCode::FORBIDDEN, "InsufficientScope").challenging("insufficient_scope", by_proof)
            }
            Error::LinkGone { by_proof } => {
                // As every token with a proof that is not good.
                let name = if by_proof { "invalid_token" } else { "InvalidToken" };
                of(StatusCode::UNAUTHORIZED, name).challenging("invalid_token", by_proof)
            }
            Error::LinkUnavailable { retry_after } => {
                let mut problem = of(StatusCode::BAD_GATEWAY, "UpstreamAuthUnavailable");
                problem.extra = Some(Box::new((RETRY_AFTER, retry_after.as_secs().max(1).into())));
                problem
            }
            Error::Internal => Self::internal(),
            Error::OverLimit(over) => over.into(),
            Error::RepoNotFound(_) => of(StatusCode::BAD_REQUEST, "RepoNotFound"),
            Error::UnexpectedBody | Error::BrokenUpload => of(StatusCode::BAD_REQUEST, "InvalidRequest"),
            Error::TooLarge => of(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge").with(CONNECTION, "close"),
            Error::SlowClient => of(StatusCode::REQUEST_TIMEOUT, "InvalidRequest").with(CONNECTION, "close"),
            Error::Loop | Error::Unreachable(_) | Error::Resting => {
                of(StatusCode::BAD_GATEWAY, "UpstreamFailure")
            }
            Error::SlowHost(_) => of(StatusCode::GATEWAY_TIMEOUT, "UpstreamTimeout"),
            Error::Crowded | Error::Unavailable => {
                of(StatusCode::SERVICE_UNAVAILABLE, "NotEnoughResources").with(RETRY_AFTER, "1")
            }
        }
    }
}

/// The answer to a browser that asks whether it may ask.
pub(super) fn preflight(headers: &HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(VERBS));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer.insert(VARY, HeaderValue::from_static("access-control-request-headers"));
    // Names are handed back as they were asked for, so that a new one works without a new release.
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS)
        && let Some(names) = tokens(asked)
    {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

/// The valid header names of a list, if they are not too many.
fn tokens(list: &HeaderValue) -> Option<HeaderValue> {
    let names: Vec<_> = list
        .to_str()
        .ok()?
        .split(',')
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .take(MAX_ASKED)
        .collect();
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok().filter(|names| !names.is_empty())
}

const GATEWAY: HeaderName = HeaderName::from_static("x-genkan-error");
const VERBS: &str = "GET, HEAD, POST, OPTIONS";
const VERBS_LINE: &str = "allow: GET, HEAD, POST, OPTIONS\r\n";
/// As many header names as a preflight may ask for.
const MAX_ASKED: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Timestamp;
    use crate::config::Rate;

    #[test]
    fn who_asks_too_often_is_told_when_to_come_again() {
        let rate = Rate { count: 3, per: Duration::from_mins(5) };
        let reset = Timestamp::from_seconds(1_000);
        let verdict = Verdict { rate, allowed: false, remaining: 0, reset };
        let response = Problem::from(OverLimit { verdict, retry_after: 7 }).into_response();
        let said = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!((said("retry-after"), said("ratelimit-remaining")), (Some("7"), Some("0")));
    }
}
