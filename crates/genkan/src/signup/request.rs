//! The sign-up request, and the rules for it.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::syntax::Handle;

use crate::accounts::Email;
use crate::base::{Secret, WaitingClient};
use crate::identity::{HandlePolicy, PolicyError};

/// A request for a new account.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) handle: Handle,
    pub(crate) email: Email,
    pub(crate) password: Secret<String>,
    pub(crate) invite_code: Option<String>,
    /// The user's own PLC rotation key. It comes first, so it has more authority than the
    /// operator's keys.
    pub(crate) recovery_key: Option<PublicKey>,
    pub(crate) client: IpAddr,
    /// Nothing is recorded for a client that no longer waits.
    pub(crate) waiting: WaitingClient,
}

/// The rule that a sign-up request breaks.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RulesError {
    #[error(transparent)]
    Handle(#[from] PolicyError),
    #[error("the domain of the email address is not accepted")]
    BlockedEmail,
    #[error("the password has fewer than {0} characters")]
    PasswordTooShort(usize),
    #[error("the password is too long")]
    PasswordTooLong,
}

/// The rules of the operator. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) handles: HandlePolicy,
    pub(crate) blocked_email_domains: Arc<HashSet<String>>,
    pub(crate) invite_required: bool,
    /// Minimum and maximum number of characters in a password.
    pub(crate) password: (usize, usize),
    /// The operator's recovery key. It comes between the user's key and the one that Genkan signs
    /// with.
    pub(crate) recovery_key: Option<PublicKey>,
}

impl Rules {
    pub(super) fn check(&self, request: &Request) -> Result<(), RulesError> {
        self.handles.for_sign_up(request.handle.as_str())?;
        self.check_email(&request.email)?;
        self.check_password(&request.password)
    }

    /// Checks an email address. Every place that sets one calls this.
    pub(crate) fn check_email(&self, email: &Email) -> Result<(), RulesError> {
        if email.is_under(&self.blocked_email_domains) { Err(RulesError::BlockedEmail) } else { Ok(()) }
    }

    /// Checks a password. Every place that sets one calls this.
    pub(crate) fn check_password(&self, password: &Secret<String>) -> Result<(), RulesError> {
        let (least, most) = self.password;
        let characters = password.expose().chars().count();
        if characters < least {
            return Err(RulesError::PasswordTooShort(least));
        }
        if characters > most { Err(RulesError::PasswordTooLong) } else { Ok(()) }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rules")
    }
}
