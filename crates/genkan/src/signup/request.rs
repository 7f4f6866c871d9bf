//! What people ask for at sign-up, and the rules for it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::syntax::Handle;

use crate::accounts::Email;
use crate::base::Secret;
use crate::identity::{HandlePolicy, PolicyError};

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) handle: Handle,
    pub(crate) email: Email,
    pub(crate) password: Secret<String>,
    pub(crate) invite_code: Option<String>,
    /// The person's own PLC rotation key: goes first, above the operator's.
    pub(crate) recovery_key: Option<PublicKey>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RulesError {
    #[error(transparent)]
    Handle(#[from] PolicyError),
    #[error("the e-mail address is at a domain that is not taken here")]
    BlockedEmail,
    #[error("the password has fewer than {0} characters")]
    PasswordTooShort(usize),
    #[error("the password is too long")]
    PasswordTooLong,
}

/// What the operator allows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) handles: HandlePolicy,
    pub(crate) blocked_email_domains: Arc<HashSet<String>>,
    pub(crate) invite_required: bool,
    /// Characters, least and most.
    pub(crate) password: (usize, usize),
    /// The operator's own recovery key: between the person's and the one that Genkan signs with.
    pub(crate) recovery_key: Option<PublicKey>,
}

impl Rules {
    pub(super) fn check(&self, request: &Request) -> Result<(), RulesError> {
        self.handles.for_sign_up(request.handle.as_str())?;
        self.check_email(&request.email)?;
        self.check_password(&request.password)
    }

    /// For every place where an address is set.
    pub(crate) fn check_email(&self, email: &Email) -> Result<(), RulesError> {
        if email.is_under(&self.blocked_email_domains) { Err(RulesError::BlockedEmail) } else { Ok(()) }
    }

    /// For every place where a password is set.
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
