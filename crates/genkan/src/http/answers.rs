//! The answers for the failures of rooms.
//!
//! Errors are matched without `_`, so that a new failure makes the compiler ask for its answer.
//! Trouble on this side is 5xx, never 401 or `InvalidToken`, because clients log people out on
//! these.

use http::StatusCode;

use crate::fleet::HostError;
use crate::identity::PolicyError;
use crate::limits::AttemptError;
use crate::wire::error::{bad_request, unauthorized};
use crate::wire::{XrpcError, messages};
use crate::{accounts, recovery, sessions, signup, standing};

impl From<crate::db::Error> for XrpcError {
    fn from(error: crate::db::Error) -> Self {
        // A busy database is 503, which clients retry. The rest is a bug.
        if error.is_passing() {
            Self::unavailable("the database is busy; try again").because(error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<AttemptError> for XrpcError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::OverLimit(over) => over.into(),
            AttemptError::Storage(cause) => cause.into(),
        }
    }
}

impl From<accounts::ClaimError> for XrpcError {
    /// The answer about an e-mail address. Handles are changed by `renames`, which has an error of
    /// its own.
    fn from(error: accounts::ClaimError) -> Self {
        use accounts::ClaimError as E;
        match error {
            E::NotFound => bad_request("AccountNotFound", messages::ACCOUNT_NOT_FOUND),
            E::Taken => email_taken(),
            E::Storage(cause) => cause.into(),
        }
    }
}

pub(super) fn handle_taken() -> XrpcError {
    bad_request("HandleNotAvailable", messages::HANDLE_TAKEN)
}

fn email_taken() -> XrpcError {
    XrpcError::invalid(messages::EMAIL_TAKEN)
}

impl From<accounts::CodeError> for XrpcError {
    fn from(error: accounts::CodeError) -> Self {
        use accounts::CodeError as E;
        match error {
            E::Invalid => bad_request("InvalidToken", messages::INVALID_CODE),
            E::Expired => bad_request("ExpiredToken", messages::EXPIRED_CODE),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<accounts::EmailsError> for XrpcError {
    fn from(error: accounts::EmailsError) -> Self {
        use accounts::EmailsError as E;
        match error {
            E::Off => Self::not_here(NO_MAIL),
            E::NoAddress => Self::invalid("account does not have an email address"),
            E::OtherAddress => bad_request("InvalidEmail", "invalid email"),
            E::CodeRequired => bad_request("TokenRequired", "confirmation token required"),
            E::Code(cause) => cause.into(),
            E::Address(cause) => cause.into(),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<recovery::Error> for XrpcError {
    fn from(error: recovery::Error) -> Self {
        use recovery::Error as E;
        match error {
            E::Off => Self::not_here(NO_MAIL),
            E::Code(cause) => cause.into(),
            E::Busy => Self::unavailable(messages::TOO_MANY_SIGN_INS),
            E::TooLong => signup::RulesError::PasswordTooLong.into(),
            E::Storage(cause) => cause.into(),
        }
    }
}

const NO_MAIL: &str = "this server sends no e-mail; ask its operator";

impl From<sessions::TokenError> for XrpcError {
    fn from(error: sessions::TokenError) -> Self {
        use sessions::TokenError as E;
        match error {
            E::WrongType => bad_request("InvalidToken", "Invalid token type"),
            E::Unverified => bad_request("InvalidToken", "Token could not be verified"),
            E::Malformed | E::BadClaims => bad_request("InvalidToken", messages::MALFORMED_TOKEN),
            E::WrongAudience => bad_request("InvalidToken", "Token is for another service"),
            E::Expired => bad_request("ExpiredToken", messages::EXPIRED_TOKEN),
            E::Revoked => bad_request("ExpiredToken", messages::REVOKED_TOKEN),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<sessions::Error> for XrpcError {
    fn from(error: sessions::Error) -> Self {
        use sessions::Error as E;
        match error {
            E::WrongPassword => unauthorized("AuthenticationRequired", messages::WRONG_PASSWORD),
            E::TakenDown => unauthorized("AccountTakedown", messages::TAKEN_DOWN),
            E::Busy => Self::unavailable(messages::TOO_MANY_SIGN_INS),
            E::Token(cause) => cause.into(),
            // An account without a host is a fault of Genkan's data, not of the request.
            E::NoHome(_) => Self::internal(error),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<signup::RulesError> for XrpcError {
    fn from(error: signup::RulesError) -> Self {
        use signup::RulesError as E;
        match error {
            E::Handle(problem) => problem.into(),
            E::BlockedEmail => Self::invalid(messages::EMAIL_UNSUPPORTED),
            E::PasswordTooShort(least) => {
                bad_request("InvalidPassword", format!("Password must have at least {least} characters"))
            }
            E::PasswordTooLong => bad_request("InvalidPassword", "Password is too long"),
        }
    }
}

impl From<PolicyError> for XrpcError {
    fn from(problem: PolicyError) -> Self {
        let text = problem.to_string();
        match problem {
            PolicyError::Invalid(_) | PolicyError::DoesNotLeadHere => bad_request("InvalidHandle", text),
            PolicyError::Reserved => bad_request("HandleNotAvailable", text),
            PolicyError::UnsupportedDomain => bad_request("UnsupportedDomain", text),
            // The handle may be valid, but its name could not be looked up now.
            PolicyError::Passing(cause) => Self::unavailable(text).because(cause),
        }
    }
}

impl From<signup::Error> for XrpcError {
    fn from(error: signup::Error) -> Self {
        use signup::Error as E;
        match error {
            E::Rules(cause) => cause.into(),
            E::HandleTaken => handle_taken(),
            E::EmailTaken => email_taken(),
            E::InvalidInvite => bad_request("InvalidInviteCode", messages::INVALID_INVITE),
            E::Busy => Self::unavailable("too many sign-ups at once; try again in a moment"),
            E::NoRoom => Self::unavailable("No host takes new accounts at the moment, try again later"),
            E::Unfinished => Self::unavailable(
                "the account is still being created; send the same request again in a moment",
            ),
            E::Refused(why) => {
                // 502: the request was valid, and a retry may reach a host that works.
                let text = "the account could not be created on its host and nothing was kept; try again";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(why)
            }
            E::Session(cause) => cause.into(),
            E::OverLimit(cause) => cause.into(),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<standing::Error> for XrpcError {
    fn from(error: standing::Error) -> Self {
        use standing::Error as E;
        match error {
            E::NotFound => bad_request("NotFound", messages::ACCOUNT_NOT_FOUND),
            E::TakenDown => unauthorized("AccountTakedown", messages::TAKEN_DOWN),
            E::Host(cause) => cause.into(),
            E::Storage(cause) => cause.into(),
            E::UnderWay => Self::unavailable(
                "the account's host is being told of an earlier takedown or restoration; try again in a moment",
            ),
            E::NoHome(_) => Self::internal(error),
        }
    }
}

/// A failed call to a host. The host's own 400 about the account is passed on.
impl From<HostError> for XrpcError {
    fn from(error: HostError) -> Self {
        match error {
            // Only 400: a host's 401 is about Genkan's own credentials, and the client would log
            // out on it.
            HostError::Refused { status: 400, name, message } => {
                Self::new(StatusCode::BAD_REQUEST, name, message)
            }
            HostError::Unreachable(_)
            | HostError::Unanswered(_)
            | HostError::Refused { .. }
            | HostError::Garbage(_) => {
                let text = "the account's host did not answer as expected; try again later";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward;

    /// Clients sign people out on 401, so trouble with the database is always 5xx. 503 means that
    /// another try may help.
    #[test]
    fn a_database_that_is_away_is_503_and_a_bug_is_500() {
        use axum::response::IntoResponse as _;
        use http::header::RETRY_AFTER;

        use crate::db::Error as E;

        for (error, status, retry_after) in [
            (E::Away(sqlx::Error::PoolTimedOut), 503, Some("5")),
            (E::BrokenOff, 503, Some("5")),
            (E::Conflict(sqlx::Error::RowNotFound), 500, None),
            (E::Newer { needed: 2, known: 1 }, 500, None),
        ] {
            let response = XrpcError::from(error).into_response();
            let header = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), header), (status, retry_after));
        }
    }

    /// Clients and hosts compare these, so a change to one is a change to the protocol.
    #[test]
    fn texts_that_clients_and_hosts_match() {
        let refused: [(XrpcError, u16, &str, &str); 25] = [
            (accounts::CodeError::Invalid.into(), 400, "InvalidToken", "Token is invalid"),
            (accounts::CodeError::Expired.into(), 400, "ExpiredToken", "Token is expired"),
            (accounts::ClaimError::NotFound.into(), 400, "AccountNotFound", "Account not found"),
            (standing::Error::NotFound.into(), 400, "NotFound", "Account not found"),
            (standing::Error::TakenDown.into(), 401, "AccountTakedown", "Account has been taken down"),
            (sessions::Error::TakenDown.into(), 401, "AccountTakedown", "Account has been taken down"),
            (
                sessions::Error::WrongPassword.into(),
                401,
                "AuthenticationRequired",
                "Invalid identifier or password",
            ),
            (sessions::TokenError::Malformed.into(), 400, "InvalidToken", "Malformed token"),
            (sessions::TokenError::WrongType.into(), 400, "InvalidToken", "Invalid token type"),
            (sessions::TokenError::Unverified.into(), 400, "InvalidToken", "Token could not be verified"),
            (sessions::TokenError::BadClaims.into(), 400, "InvalidToken", "Malformed token"),
            (sessions::TokenError::WrongAudience.into(), 400, "InvalidToken", "Token is for another service"),
            (sessions::TokenError::Expired.into(), 400, "ExpiredToken", "Token has expired"),
            (sessions::TokenError::Revoked.into(), 400, "ExpiredToken", "Token has been revoked"),
            (
                accounts::EmailsError::NoAddress.into(),
                400,
                "InvalidRequest",
                "account does not have an email address",
            ),
            (accounts::EmailsError::OtherAddress.into(), 400, "InvalidEmail", "invalid email"),
            (accounts::EmailsError::CodeRequired.into(), 400, "TokenRequired", "confirmation token required"),
            (
                accounts::ClaimError::Taken.into(),
                400,
                "InvalidRequest",
                "This email address is already in use, please use a different email.",
            ),
            (
                signup::RulesError::BlockedEmail.into(),
                400,
                "InvalidRequest",
                "This email address is not supported, please use a different email.",
            ),
            (signup::Error::HandleTaken.into(), 400, "HandleNotAvailable", "Handle already taken"),
            (
                signup::Error::InvalidInvite.into(),
                400,
                "InvalidInviteCode",
                "Provided invite code not available",
            ),
            (forward::Error::InvalidToken.into(), 400, "InvalidToken", "Token could not be verified"),
            (forward::Error::ExpiredToken.into(), 400, "ExpiredToken", "Token has expired"),
            (forward::Error::Moved.into(), 400, "ExpiredToken", "Token audience is out of date"),
            (forward::Error::NoToken.into(), 401, "AuthMissing", "Authentication Required"),
        ];
        for (error, status, name, message) in refused {
            let told = (error.status.as_u16(), error.name.as_ref(), error.message.as_ref());
            assert_eq!(told, (status, name, message));
        }
        for (said, message) in [
            (messages::AUTHENTICATION_REQUIRED, "Authentication Required"),
            (messages::UNEXPECTED_AUTHORIZATION, "Unexpected authorization type"),
            (messages::MALFORMED_AUTHORIZATION, "Malformed authorization header"),
            (messages::BAD_TOKEN_SCOPE, "Bad token scope"),
            (messages::WRONG_DID_OR_PASSWORD, "Invalid did or password"),
            (messages::HANDLE_UNRESOLVED, "Unable to resolve handle"),
        ] {
            assert_eq!(said, message);
        }
    }
}
