//! What each room's errors look like to a client.
//!
//! Matched without `_`: a new failure makes the compiler ask for its answer. Trouble on our side is
//! 5xx, never 401 or `InvalidToken`: clients log people out on those.

use http::StatusCode;

use crate::fleet::HostError;
use crate::identity::PolicyError;
use crate::wire::error::{bad_request, unauthorized};
use crate::wire::{XrpcError, messages};
use crate::{accounts, oauth, recovery, sessions, signin, signup, standing};

impl From<sqlx::Error> for XrpcError {
    fn from(cause: sqlx::Error) -> Self {
        crate::db::Error::from(cause).into()
    }
}

impl From<crate::db::Error> for XrpcError {
    fn from(error: crate::db::Error) -> Self {
        if error.is_passing() {
            Self::unavailable("the database is busy, try again").because(error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<accounts::Error> for XrpcError {
    fn from(error: accounts::Error) -> Self {
        use accounts::Error as E;
        match error {
            E::NotFound => bad_request("AccountNotFound", "Account not found"),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<accounts::ClaimError> for XrpcError {
    /// Of an e-mail address: handles are changed by `renames`.
    fn from(error: accounts::ClaimError) -> Self {
        use accounts::ClaimError as E;
        match error {
            E::NotFound => accounts::Error::NotFound.into(),
            E::Taken => email_taken(),
            E::Storage(cause) => cause.into(),
        }
    }
}

pub(super) fn handle_taken() -> XrpcError {
    bad_request("HandleNotAvailable", "Handle already taken")
}

fn email_taken() -> XrpcError {
    XrpcError::invalid("This email address is already in use, please use a different email.")
}

impl From<accounts::CodeError> for XrpcError {
    fn from(error: accounts::CodeError) -> Self {
        use accounts::CodeError as E;
        match error {
            E::Invalid => bad_request("InvalidToken", "Token is invalid"),
            E::Expired => bad_request("ExpiredToken", "Token is expired"),
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
            E::Busy => Self::unavailable("Too many sign-ins at once, try again in a moment"),
            E::TooLong => signup::RulesError::PasswordTooLong.into(),
            E::Storage(cause) => cause.into(),
        }
    }
}

const NO_MAIL: &str = "This server sends no mail; ask its operator";

impl From<sessions::TokenError> for XrpcError {
    fn from(error: sessions::TokenError) -> Self {
        use sessions::TokenError as E;
        match error {
            E::Malformed => bad_request("InvalidToken", "Malformed token"),
            E::Invalid(text) => bad_request("InvalidToken", text),
            E::Expired => bad_request("ExpiredToken", "Token has expired"),
            E::Revoked => bad_request("ExpiredToken", "Token has been revoked"),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<sessions::Error> for XrpcError {
    fn from(error: sessions::Error) -> Self {
        use sessions::Error as E;
        match error {
            E::WrongPassword => unauthorized("AuthenticationRequired", "Invalid identifier or password"),
            E::TakenDown => unauthorized("AccountTakedown", messages::TAKEN_DOWN),
            E::Busy => Self::unavailable("Too many sign-ins at once, try again in a moment"),
            E::Token(cause) => cause.into(),
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
            E::BlockedEmail => {
                Self::invalid("This email address is not supported, please use a different email.")
            }
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
            E::InvalidInvite => bad_request("InvalidInviteCode", "Provided invite code not available"),
            E::Busy => Self::unavailable("Too many sign-ups at once, try again in a moment"),
            E::NoRoom => Self::unavailable("No host takes new accounts at the moment, try again later"),
            E::Unfinished => {
                Self::unavailable("Your account is still being made; send the same request again in a moment")
            }
            E::Refused(why) => {
                let text = "The account could not be made on its host; nothing was kept, try again";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(why)
            }
            E::Session(cause) => cause.into(),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<standing::Error> for XrpcError {
    fn from(error: standing::Error) -> Self {
        use standing::Error as E;
        match error {
            E::NotFound => bad_request("NotFound", "Account not found"),
            E::TakenDown => unauthorized("AccountTakedown", messages::TAKEN_DOWN),
            E::Host(cause) => cause.into(),
            E::Session(cause) => cause.into(),
            E::Storage(cause)
            | E::Grant(oauth::Error::Storage(cause))
            | E::SignIn(signin::Error::Storage(cause)) => cause.into(),
            // Ending what there is asks nobody for leave.
            E::NoHome(_) | E::Grant(_) | E::SignIn(_) => Self::internal(error),
        }
    }
}

/// A call of ours to a host that did not come off. What the host found wrong with the account is passed on.
impl From<HostError> for XrpcError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Refused { status: 400, name, message } => {
                Self::new(StatusCode::BAD_REQUEST, name, message)
            }
            HostError::Unreachable(_)
            | HostError::Unanswered(_)
            | HostError::Refused { .. }
            | HostError::Garbage(_) => {
                let text = "The account's host does not answer as it should, try again later";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(error)
            }
        }
    }
}
