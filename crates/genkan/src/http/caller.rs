//! Whom a call speaks for: a client with an access token, or a host on a client's behalf.
//!
//! An app shows its grant's token with a proof (`DPoP`), and may do what the grant and [`permit`] allow: at our own origin
//! just what it may at the host.
//!
//! A *session token* names a host as audience and is typed `at+jwt`. *Service auth* is signed by the
//! account's key, which only its host has, names Genkan as audience and one method (`lxm`). It is
//! taken for the protected methods alone: hosts never issue such a token to a user for those.

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use genkan_protocol::jwt::session::{Scope, key_hint};
use genkan_protocol::oauth::scope::{
    self, AccountAction, AccountAttribute, Identity, Scope as OneScope, Scopes,
};
use genkan_protocol::{jwt, service_auth};

use crate::accounts::{Account, Standing};
use crate::app::App;
use crate::db::audit::Actor;
use crate::http::error::{XrpcError, bad_request, dpop_challenge, unauthorized};
use crate::identity::Freshness;
use crate::oauth::{self, AccessError, Call, GrantCaller, Place};
use crate::routing::{MethodKind, table};

/// Whom a call speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: Account,
    pub(crate) by: By,
}

/// Who vouches for it.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// A client with a session.
    Client,
    /// An app, within its grant.
    App(Arc<GrantCaller>),
    /// The account's host, which checked the client itself.
    Host,
}

impl Caller {
    /// Whether the e-mail address may be seen.
    pub(crate) fn sees_email(&self) -> bool {
        match &self.by {
            By::Client | By::Host => true,
            By::App(grant) => {
                Scopes::parse(&grant.scope).allows_account(AccountAttribute::Email, AccountAction::Read)
            }
        }
    }

    pub(crate) fn actor(&self) -> Actor<'_> {
        match self.by {
            By::Client | By::App(_) => Actor::Account(self.account.did.as_str()),
            By::Host => Actor::Host(self.account.host.as_str()),
        }
    }
}

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) method: &'static str,
    pub(crate) scopes: &'static [Scope],
    /// One of the protected methods, which hosts call with service auth.
    pub(crate) from_hosts: bool,
    /// A taken-down account is refused with 401 `AccountTakedown`.
    pub(crate) standing: bool,
}

/// The account's own password.
pub(crate) const FULL: &[Scope] = &[Scope::Access];
/// App passwords too.
pub(crate) const STANDARD: &[Scope] = &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass];
/// Those waiting for admission too.
pub(crate) const STANDARD_QUEUED: &[Scope] =
    &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass, Scope::SignupQueued];
/// The account's own password, also when it is taken down.
pub(crate) const FULL_TAKEN_DOWN: &[Scope] = &[Scope::Access, Scope::Takendown];

/// Finds out who calls, and whether they may.
pub(crate) async fn caller(app: &App, headers: &HeaderMap, needs: Needs) -> Result<Caller, XrpcError> {
    let caller = if let Some(token) = bound(headers) {
        by_grant(app, token, headers, needs).await?
    } else {
        by_bearer(app, bearer(headers)?, needs).await?
    };
    if needs.standing && caller.account.standing() == Standing::TakenDown {
        return Err(unauthorized("AccountTakedown", "Account has been taken down"));
    }
    Ok(caller)
}

async fn by_bearer(app: &App, token: &str, needs: Needs) -> Result<Caller, XrpcError> {
    if app.oauth.is_ours_by_grant(token) {
        let grant = app.oauth.check_bearer(token).await?;
        return by_caller(app, grant, needs).await;
    }
    if key_hint(token).is_some() || !needs.from_hosts {
        by_session(app, token, needs).await
    } else {
        by_service_auth(app, token, needs.method).await
    }
}

/// The token of an `Authorization: DPoP` header. `None`: it is another scheme, or there is more or less than one.
fn bound(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("dpop") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

async fn by_grant(app: &App, token: &str, headers: &HeaderMap, needs: Needs) -> Result<Caller, XrpcError> {
    let method = match table::row(needs.method).kind {
        MethodKind::Procedure => "POST",
        MethodKind::Query | MethodKind::Subscription | MethodKind::Any => "GET",
    };
    let path = format!("/xrpc/{}", needs.method);
    let call = Call { method, path: &path, proofs: oauth::proofs(headers) };
    let grant = app.oauth.check_access(token, &call).await?;
    by_caller(app, grant, needs).await
}

/// What an app may do with its grant.
async fn by_caller(app: &App, grant: Arc<GrantCaller>, needs: Needs) -> Result<Caller, XrpcError> {
    let invalid = |why| XrpcError::from(AccessError::Token(why));
    if grant.place == Place::Link {
        return Err(XrpcError::new(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", NOT_FORWARDED));
    }
    let account = app.accounts.find(grant.did.as_str()).await?;
    let account = account.ok_or_else(|| invalid("there is no such account"))?;
    if !grant.place.is_host(&account.host) {
        return Err(invalid("the token is for another host"));
    }
    permit(needs.method).check(&grant.scope)?;
    Ok(Caller { account, by: By::App(grant) })
}

/// For accounts that live elsewhere.
const NOT_FORWARDED: &str = "Only com.atproto.repo.*, com.atproto.sync.* and com.atproto.server.getServiceAuth are \
    forwarded for this account. Call its own PDS for this method, or the public AppView at https://public.api.bsky.app for \
    app.bsky.* reads";

/// What an app's grant must hold for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permit {
    /// Nothing in particular.
    Any,
    Account(AccountAttribute, AccountAction),
    Identity(Identity),
    /// No grant is enough; what people do instead.
    Never(&'static str),
}

/// As the reference PDS has it, method by method.
fn permit(method: &str) -> Permit {
    use AccountAction::Manage;
    match method {
        "com.atproto.server.getSession" => Permit::Any,
        "com.atproto.server.requestEmailConfirmation" | "com.atproto.server.confirmEmail" => {
            Permit::Account(AccountAttribute::Email, Manage)
        }
        "com.atproto.server.deactivateAccount" => Permit::Account(AccountAttribute::Status, Manage),
        "com.atproto.identity.updateHandle" => Permit::Identity(Identity::Handle),
        "com.atproto.identity.requestPlcOperationSignature" | "com.atproto.identity.signPlcOperation" => {
            Permit::Identity(Identity::Any)
        }
        "com.atproto.server.requestEmailUpdate" | "com.atproto.server.updateEmail" => Permit::Never(
            "Use the account manager interface to update email address associated with an account",
        ),
        "com.atproto.server.activateAccount" => Permit::Never(
            "Account reactivation is not available with OAuth credentials. Sign in to your account management page to reactivate.",
        ),
        _ => Permit::Never("OAuth credentials are not supported for this endpoint"),
    }
}

impl Permit {
    fn check(self, scope: &str) -> Result<(), XrpcError> {
        let scopes = Scopes::parse(scope);
        let missing = match self {
            Self::Any => return Ok(()),
            Self::Never(instead) => {
                return Err(XrpcError::new(StatusCode::FORBIDDEN, "Forbidden", instead));
            }
            Self::Account(attribute, action) if scopes.allows_account(attribute, action) => return Ok(()),
            Self::Account(attribute, action) => {
                OneScope::Account(scope::Account { attribute, action }).to_string()
            }
            Self::Identity(attribute) if scopes.allows_identity(attribute) => return Ok(()),
            Self::Identity(attribute) => OneScope::Identity(attribute).to_string(),
        };
        let why = format!("Missing required scope \"{missing}\"");
        Err(XrpcError::new(StatusCode::FORBIDDEN, "ScopeMissingError", why))
    }
}

impl From<AccessError> for XrpcError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Storage(cause) => cause.into(),
            AccessError::Unavailable => Self::unavailable("the token cannot be checked now, try again"),
            AccessError::Token(_)
            | AccessError::Proof(_)
            | AccessError::NoProof
            | AccessError::TwoProofs
            | AccessError::Replayed => {
                let (code, why) = (error.code().unwrap_or("invalid_token"), error.to_string());
                let challenge = dpop_challenge(code, &why);
                let refused = Self::new(StatusCode::UNAUTHORIZED, code, why);
                match challenge {
                    Some(challenge) => refused.with(WWW_AUTHENTICATE, challenge),
                    None => refused,
                }
            }
        }
    }
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, XrpcError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| unauthorized("AuthMissing", "Authentication Required"))?;
    if values.next().is_some() {
        return Err(XrpcError::invalid("There is more than one Authorization header"));
    }
    let malformed = || bad_request("InvalidToken", "Malformed authorization header");
    let text = value.to_str().map_err(|_| malformed())?;
    match text.split_once(' ') {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ') =>
        {
            Ok(token)
        }
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("dpop") => {
            Err(bad_request("InvalidToken", "Unexpected authorization type"))
        }
        _ => Err(malformed()),
    }
}

async fn by_session(app: &App, token: &str, needs: Needs) -> Result<Caller, XrpcError> {
    let known = app.access.check(token, app.clock.now()).await?;
    if !needs.scopes.contains(&known.scope) {
        return Err(bad_request("InvalidToken", "Bad token scope"));
    }
    let account = app.accounts.find(known.did.as_str()).await?;
    let account = account.ok_or_else(|| bad_request("ExpiredToken", "Token has been revoked"))?;
    if account.host != known.audience {
        return Err(bad_request("ExpiredToken", "Token audience is out of date"));
    }
    Ok(Caller { account, by: By::Client })
}

const BAD_SIGNATURE: service_auth::Error = service_auth::Error::Token(jwt::Error::BadSignature);

async fn by_service_auth(app: &App, token: &str, method: &str) -> Result<Caller, XrpcError> {
    let invalid = |text: &'static str| bad_request("InvalidToken", text);
    let unverified = service_auth::parse(token).map_err(|_| invalid("Token could not be verified"))?;
    // Only accounts of ours: nobody makes Genkan resolve a stranger's DID by naming it.
    let account = app.accounts.find(unverified.issuer().as_str()).await?;
    let account = account.ok_or_else(|| invalid("The issuer has no account here"))?;
    let (aud, now) = (app.config.service.did.as_str(), app.clock.now().as_seconds());
    // The host's key first: it is known, and still the host's after the DID document named another.
    let mut verdict = unverified.verify(&account.host_key, aud, Some(method), now);
    if matches!(verdict, Err(BAD_SIGNATURE)) {
        match app.identity.documents.resolve(&account.did, Freshness::Asked).await {
            Ok(document) => {
                if let Some(key) = document.signing_key() {
                    verdict = unverified.verify(&key, aud, Some(method), now);
                }
            }
            // The key may have changed, and the directory cannot be asked: that is not the token's fault.
            Err(error) if error.is_passing() => {
                return Err(XrpcError::unavailable("the account's key could not be looked up").because(error));
            }
            Err(_) => {}
        }
    }
    match verdict {
        Ok(_) => Ok(Caller { account, by: By::Host }),
        Err(service_auth::Error::Expired) => Err(bad_request("ExpiredToken", "Token has expired")),
        Err(BAD_SIGNATURE) => Err(invalid("The signature is not the account's")),
        Err(_) => Err(invalid("The token is not for this service and method")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_permits_what_the_host_would() {
        let checked = |method: &str, scope: &str| match permit(method).check(scope) {
            Ok(()) => "yes".to_owned(),
            Err(error) => format!("{} {} {}", error.status.as_u16(), error.name, error.message),
        };
        let missing = |scope: &str| format!("403 ScopeMissingError Missing required scope \"{scope}\"");
        let handle = "com.atproto.identity.updateHandle";
        assert_eq!(checked(handle, "atproto transition:generic"), missing("identity:handle"));
        assert_eq!(checked(handle, "atproto identity:handle"), "yes");
        assert_eq!(checked(handle, "atproto identity:*"), "yes");
        let plc = "com.atproto.identity.signPlcOperation";
        assert_eq!(checked(plc, "atproto identity:handle"), missing("identity:*"));
        assert_eq!(checked(plc, "atproto identity:*"), "yes");
        let confirm = "com.atproto.server.confirmEmail";
        assert_eq!(checked(confirm, "atproto transition:email"), missing("account:email?action=manage"));
        assert_eq!(checked(confirm, "atproto account:email?action=manage"), "yes");
        let rest = "com.atproto.server.deactivateAccount";
        assert_eq!(checked(rest, "atproto identity:*"), missing("account:status?action=manage"));
        for method in
            "createAppPassword listAppPasswords revokeAppPassword requestAccountDelete activateAccount \
            getAccountInviteCodes requestEmailUpdate updateEmail"
                .split_whitespace()
        {
            let all = "atproto transition:generic account:email?action=manage identity:*";
            let answer = checked(&format!("com.atproto.server.{method}"), all);
            assert!(answer.starts_with("403 Forbidden "), "{method}: {answer}");
        }
    }
}
