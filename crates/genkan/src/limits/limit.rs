//! The limits, by name.

/// The limits that are counted in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Sign-ins, by identifier and client address.
    CreateSession,
    /// Sign-ins, by client address.
    SignInAddress,
    /// Sign-ins, by the /56 of an IPv6 client.
    SignInSite,
    /// Sign-ins, by the /48 of an IPv6 client.
    SignInCustomer,
    /// Sign-ins, by account, or by account and browser.
    SignInAccount,
    /// Sign-ups, by client address.
    CreateAccount,
    /// Handle changes, by DID.
    UpdateHandle,
    /// Emails with a code, by kind of code and by DID or email address.
    RequestMail,
    /// Password reset requests, by client address.
    PasswordReset,
    /// Password reset requests that a host passes on, all together.
    PasswordResetAtHost,
    /// Uses of a code without a session, by client address.
    UseCode,
    /// Uses of a code without a session that a host passes on, all together.
    UseCodeAtHost,
}

impl Limit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CreateSession => "createSession",
            Self::SignInAddress => "signInAddress",
            Self::SignInSite => "signInSite",
            Self::SignInCustomer => "signInCustomer",
            Self::SignInAccount => "signInAccount",
            Self::CreateAccount => "createAccount",
            Self::UpdateHandle => "updateHandle",
            Self::RequestMail => "requestMail",
            Self::PasswordReset => "passwordReset",
            Self::PasswordResetAtHost => "passwordResetAtHost",
            Self::UseCode => "useCode",
            Self::UseCodeAtHost => "useCodeAtHost",
        }
    }
}

/// The OAuth endpoints whose calls are counted by client address, in the memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OAuthEndpoint {
    Push,
    Token,
    Revoke,
}

impl OAuthEndpoint {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Push => "oauthPar",
            Self::Token => "oauthToken",
            Self::Revoke => "oauthRevoke",
        }
    }
}
