//! The answers that the edge makes itself: the XRPC error of each failure.

use http::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http1::RequestFault;

use crate::forward::{AnswerBody, Error, NOT_CARRIED};
use crate::routing::target::NoTarget;
use crate::routing::{Parameter, Refusal};
use crate::wire::error::bad_request;
use crate::wire::{XrpcError, challenge, cors, messages};

/// The answer that reports an error to a client.
pub(super) fn respond(error: XrpcError) -> Response<AnswerBody> {
    let mut response = error.answer().map(AnswerBody::whole);
    cors::allow(response.headers_mut());
    response
}

/// An error as bytes, for a connection that carries no further HTTP.
pub(super) fn last_answer(error: &XrpcError) -> Vec<u8> {
    let body = error.body();
    let mut head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n",
        status = error.status,
        length = body.len(),
    );
    if let Some(allowed) = error.header(&ALLOW).and_then(|value| value.to_str().ok()) {
        head = format!("{head}allow: {allowed}\r\n");
    }
    [head.as_bytes(), b"connection: close\r\n\r\n", &body].concat()
}

/// The path under `/xrpc/` names no method.
pub(super) fn bad_path() -> XrpcError {
    XrpcError::invalid(messages::BAD_PATH)
}

/// The request asks for a WebSocket, but Genkan serves no method by one.
pub(super) fn no_websocket() -> XrpcError {
    XrpcError::not_here("subscriptions are not forwarded; subscribe at the account's own host or at a relay")
}

/// The verb is served on no path.
pub(super) fn method_not_allowed() -> XrpcError {
    XrpcError::method_not_allowed(cors::VERBS)
}

impl From<RequestFault> for XrpcError {
    fn from(fault: RequestFault) -> Self {
        match fault {
            RequestFault::Ambiguous(why) => Self::invalid(why),
            RequestFault::HeadTooLarge => Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "InvalidRequest",
                "the request head is too large",
            ),
            RequestFault::TargetTooLong => {
                Self::new(StatusCode::URI_TOO_LONG, "InvalidRequest", "the request target is too long")
            }
            RequestFault::Verb => method_not_allowed(),
        }
    }
}

impl From<Refusal> for XrpcError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::WrongVerb { allowed } => Self::wrong_verb(allowed),
            Refusal::NotHere(message) => Self::not_here(message),
            Refusal::NoToken { is_carried } => {
                // The longer text tells where to call the method, which would be wrong for methods
                // that Genkan forwards.
                let message = if is_carried {
                    messages::AUTHENTICATION_REQUIRED.to_owned()
                } else {
                    format!("{}. {NOT_CARRIED}", messages::AUTHENTICATION_REQUIRED)
                };
                Self::new(StatusCode::UNAUTHORIZED, "AuthMissing", message)
                    .challenging(Some(challenge::BEARER))
            }
            Refusal::TwoTokens => Self::invalid(messages::DUPLICATE_AUTHORIZATION),
            Refusal::BadScheme => bad_request("InvalidToken", messages::UNEXPECTED_AUTHORIZATION),
            Refusal::BadToken { by_proof } => {
                bad_token(messages::UNEXPECTED_AUTHORIZATION.to_owned(), by_proof)
            }
            Refusal::BadTarget(parameter, problem) => {
                let name = parameter.as_str();
                Self::invalid(match problem {
                    NoTarget::Missing => format!("Params must have the property \"{name}\""),
                    NoTarget::Repeated => format!("parameter `{name}` must not be repeated"),
                    NoTarget::Invalid => match parameter {
                        Parameter::Repo => format!("parameter `{name}` must be a valid DID or handle"),
                        Parameter::Did => format!("parameter `{name}` must be a valid DID"),
                    },
                })
            }
        }
    }
}

/// 401 for an invalid token, with the challenge that makes a client's library fetch a new one.
fn bad_token(message: String, by_proof: bool) -> XrpcError {
    // Clients with proofs get the OAuth code as the name, as for every fault of a bound token.
    let name = if by_proof { "invalid_token" } else { "InvalidToken" };
    let challenge = challenge_for("invalid_token", &message, by_proof);
    XrpcError::new(StatusCode::UNAUTHORIZED, name, message).challenging(challenge)
}

fn challenge_for(code: &str, message: &str, by_proof: bool) -> Option<HeaderValue> {
    if by_proof { challenge::dpop(code, message) } else { challenge::bearer(code, message) }
}

impl From<Error> for XrpcError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let of = |status, name| Self::new(status, name, message.clone());
        let retry_after = |error: Self, seconds: u64| error.with(RETRY_AFTER, seconds.into());
        let closing = |error: Self| error.with(CONNECTION, HeaderValue::from_static("close"));
        match error {
            Error::InvalidToken => of(StatusCode::BAD_REQUEST, "InvalidToken"),
            // One name for both: clients refresh on it, and a refreshed token is for the account's
            // present host.
            Error::ExpiredToken | Error::Moved => of(StatusCode::BAD_REQUEST, "ExpiredToken"),
            Error::Grant { code, .. } => {
                let challenge = challenge::dpop(code, &message);
                Self::new(StatusCode::UNAUTHORIZED, code, message).challenging(challenge)
            }
            Error::NotReady => retry_after(of(StatusCode::SERVICE_UNAVAILABLE, "UpstreamNotReady"), 0),
            Error::UpstreamAuth => retry_after(of(StatusCode::BAD_GATEWAY, "UpstreamAuthUnavailable"), 5),
            Error::Unresolved => of(StatusCode::BAD_GATEWAY, "DidResolutionFailed"),
            Error::NoPds => of(StatusCode::BAD_GATEWAY, "PdsNotFound"),
            Error::NotAllowed => of(StatusCode::BAD_GATEWAY, "PdsNotAllowed"),
            Error::NoToken => Refusal::NoToken { is_carried: true }.into(),
            Error::UnknownToken { .. } => bad_token(message, false),
            Error::AuthMethod => {
                of(StatusCode::UNAUTHORIZED, "AuthenticationRequired").challenging(Some(challenge::EITHER))
            }
            Error::NotCarried => of(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented"),
            Error::Scope { by_proof } => {
                let challenge = challenge_for("insufficient_scope", &message, by_proof);
                of(StatusCode::FORBIDDEN, "InsufficientScope").challenging(challenge)
            }
            Error::LinkGone { by_proof } => bad_token(message, by_proof),
            Error::LinkUnavailable { retry_after: wait } => {
                let seconds = wait.as_secs().max(1);
                retry_after(of(StatusCode::BAD_GATEWAY, "UpstreamAuthUnavailable"), seconds)
            }
            Error::Internal => of(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
            Error::OverLimit(over) => over.into(),
            Error::RepoNotFound(_) => of(StatusCode::BAD_REQUEST, "RepoNotFound"),
            Error::BadService(_) | Error::UnexpectedBody | Error::BrokenUpload => {
                of(StatusCode::BAD_REQUEST, "InvalidRequest")
            }
            // The rest of the body is not read, so the connection cannot carry another request.
            Error::TooLarge => closing(of(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge")),
            Error::SlowClient => closing(of(StatusCode::REQUEST_TIMEOUT, "InvalidRequest")),
            Error::Loop | Error::Unreachable(_) | Error::Resting => {
                of(StatusCode::BAD_GATEWAY, "UpstreamFailure")
            }
            Error::SlowHost(_) => of(StatusCode::GATEWAY_TIMEOUT, "UpstreamTimeout"),
            Error::ShareUsed => retry_after(of(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded"), 1),
            Error::Crowded | Error::ExternalCrowded | Error::ServiceUnknown | Error::Unavailable => {
                retry_after(of(StatusCode::SERVICE_UNAVAILABLE, "NotEnoughResources"), 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Timestamp;
    use crate::config::Rate;
    use crate::limits::{OverLimit, Verdict};

    #[test]
    fn a_client_over_the_limit_learns_when_to_retry() {
        let rate = Rate { count: 3, per: Duration::from_mins(5) };
        let reset = Timestamp::from_seconds(1_000);
        let verdict = Verdict { rate, allowed: false, remaining: 0, reset };
        let response = respond(OverLimit { verdict, retry_after: 7 }.into());
        let said = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!((said("retry-after"), said("ratelimit-remaining")), (Some("7"), Some("0")));
    }
}
