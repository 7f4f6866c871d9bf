//! Whom a call speaks for: a client with an access token, or a host on a client's behalf.
//!
//! A *session token* names a host as audience and is typed `at+jwt`. *Service auth* is signed by the
//! account's key, which only its host has, names Genkan as audience and one method (`lxm`). It is
//! taken for the protected methods alone: hosts never issue such a token to a user for those.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use genkan_protocol::jwt::session::{Scope, peek_audience};
use genkan_protocol::{jwt, service_auth};

use crate::accounts::{Account, Standing};
use crate::app::App;
use crate::db::audit::Actor;
use crate::http::error::{XrpcError, bad_request, unauthorized};
use crate::identity::Freshness;

/// Whom a call speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: Account,
    pub(crate) by: By,
}

/// Who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A client, with a session of this scope.
    Client(Scope),
    /// The account's host, which checked the client itself.
    Host,
}

impl Caller {
    pub(crate) fn actor(&self) -> Actor<'_> {
        match self.by {
            By::Client(_) => Actor::Account(self.account.did.as_str()),
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
    let token = bearer(headers)?;
    let caller = if peek_audience(token).is_some() || !needs.from_hosts {
        by_session(app, token, needs).await?
    } else {
        by_service_auth(app, token, needs.method).await?
    };
    if needs.standing && caller.account.standing() == Standing::TakenDown {
        return Err(unauthorized("AccountTakedown", "Account has been taken down"));
    }
    Ok(caller)
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
            Err(XrpcError::invalid("DPoP is not supported here yet; use a session token"))
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
    Ok(Caller { account, by: By::Client(known.scope) })
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
    if matches!(verdict, Err(BAD_SIGNATURE))
        && let Ok(document) = app.identity.documents.resolve(&account.did, Freshness::Asked).await
        && let Some(key) = document.signing_key()
    {
        verdict = unverified.verify(&key, aud, Some(method), now);
    }
    match verdict {
        Ok(_) => Ok(Caller { account, by: By::Host }),
        Err(service_auth::Error::Expired) => Err(bad_request("ExpiredToken", "Token has expired")),
        Err(BAD_SIGNATURE) => Err(invalid("The signature is not the account's")),
        Err(_) => Err(invalid("The token is not for this service and method")),
    }
}
