//! Decides which account a request acts for, as the published host does.

use genkan_protocol::jwt::session::{AccessClaims, Kind, RefreshClaims, Scope, Token};
use genkan_protocol::service_auth;
use genkan_protocol::xrpc_error::XrpcError;
use serde_json::json;

use super::accounts::Account;
use super::oauth::{Speaker, is_bound};
use super::{FakeHost, Pds};
use crate::loopback::{SeenRequest, locked};

/// The scope of a full session, for methods that name no other scopes.
pub(super) const FULL: &[Scope] = &[Scope::Access];
pub(super) const STANDARD: &[Scope] = &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass];
pub(super) const STANDARD_QUEUED: &[Scope] =
    &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass, Scope::SignupQueued];
pub(super) const STANDARD_TAKENDOWN: &[Scope] =
    &[Scope::Access, Scope::AppPassPrivileged, Scope::AppPass, Scope::Takendown];
pub(super) const FULL_TAKENDOWN: &[Scope] = &[Scope::Access, Scope::Takendown];

impl Pds {
    /// Checks an access token.
    pub(super) fn access(&self, seen: &SeenRequest, allowed: &[Scope]) -> Result<AccessClaims, XrpcError> {
        let token = bearer(seen)?;
        let settings = self.settings();
        let entryway = settings.entryway.ok_or_else(|| bad_token("Token could not be verified"))?;
        let token = Token::parse(token).map_err(|_| bad_token("Token could not be verified"))?;
        if token.key_hint().kind != Kind::Access {
            return Err(bad_token("Malformed token"));
        }
        let claims = token
            .verify_access(&entryway.verify_key)
            .map_err(|_| bad_token("Token could not be verified"))?;
        if claims.exp <= self.now() {
            return Err(XrpcError::new(400, "ExpiredToken", "Token has expired"));
        }
        if claims.aud != settings.service_did {
            return Err(bad_token("Token could not be verified"));
        }
        if !allowed.contains(&claims.scope) {
            return Err(bad_token("Bad token scope"));
        }
        Ok(claims)
    }

    /// Checks the token of a session or of an app.
    pub(super) fn speaker(&self, seen: &SeenRequest, allowed: &[Scope]) -> Result<Speaker, XrpcError> {
        if is_bound(seen) {
            return self.app(seen);
        }
        let claims = self.access(seen, allowed)?;
        Ok(Speaker::by_session(claims.sub, json!(claims.scope)))
    }

    /// Checks an access token, and that its account is here and not taken down. With `writes`, the
    /// account must also be active.
    pub(super) fn caller(
        &self,
        seen: &SeenRequest,
        allowed: &[Scope],
        writes: bool,
    ) -> Result<(Speaker, Account), XrpcError> {
        let speaker = self.speaker(seen, allowed)?;
        let account = locked(&self.accounts)
            .find(&speaker.did)
            .cloned()
            .ok_or_else(|| XrpcError::new(403, "AccountNotFound", "Account not found"))?;
        if account.taken_down {
            return Err(XrpcError::new(401, "AccountTakedown", "Account has been taken down"));
        }
        if writes && account.deactivated {
            return Err(XrpcError::new(401, "AccountDeactivated", "Account is deactivated"));
        }
        Ok((speaker, account))
    }

    /// Checks a refresh token.
    pub(super) fn refresh(&self, seen: &SeenRequest) -> Result<RefreshClaims, XrpcError> {
        let token = bearer(seen)?;
        let settings = self.settings();
        let entryway = settings.entryway.ok_or_else(|| bad_token("Token could not be verified"))?;
        let token = Token::parse(token).map_err(|_| bad_token("Token could not be verified"))?;
        if token.key_hint().kind != Kind::Refresh {
            return Err(bad_token("Malformed token"));
        }
        let claims = token
            .verify_refresh(&entryway.verify_key)
            .map_err(|_| bad_token("Token could not be verified"))?;
        if claims.exp <= self.now() {
            return Err(XrpcError::new(400, "ExpiredToken", "Token has expired"));
        }
        if claims.aud != entryway.did {
            return Err(bad_token("Token could not be verified"));
        }
        Ok(claims)
    }

    /// Checks the administrator's password.
    pub(super) fn admin(&self, seen: &SeenRequest) -> Result<(), XrpcError> {
        let expected = basic("admin", &self.settings().admin_password);
        if seen.header("authorization") == expected {
            return Ok(());
        }
        Err(XrpcError::new(401, "AuthMissing", "Authentication Required"))
    }

    /// Makes a token by which this host acts for an account, for one method or for any.
    pub(super) fn service_token(&self, account: &Account, aud: &str, lxm: Option<&str>) -> String {
        let now = self.now();
        service_auth::sign(
            &account.key,
            &service_auth::Claims {
                iss: account.did.clone(),
                iss_fragment: None,
                aud: aud.to_owned(),
                lxm: lxm.map(|lxm| lxm.parse().unwrap()),
                iat: Some(now),
                exp: now + 60,
                jti: Some(format!("{now:032x}")),
            },
        )
    }
}

impl FakeHost {
    /// Makes a token by which this host acts for an account at its entryway.
    ///
    /// # Panics
    ///
    /// If the account is not here, or there is no entryway.
    pub fn service_token(&self, did: &genkan_protocol::syntax::Did, lxm: Option<&str>) -> String {
        let account = self.account(did).unwrap();
        let entryway = self.pds.settings().entryway.unwrap();
        self.pds.service_token(&account, &entryway.did, lxm)
    }
}

/// Returns the value of a Basic `Authorization` header.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn bearer(seen: &SeenRequest) -> Result<&str, XrpcError> {
    let header = seen.header("authorization");
    if header.is_empty() {
        return Err(XrpcError::new(401, "AuthMissing", "Authentication Required"));
    }
    // The two messages are those of the reference PDS, since Genkan's answers are compared with
    // this host's.
    let words: Vec<_> = header.split(' ').collect();
    match words.as_slice() {
        [scheme, token] if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        [_, _] => Err(bad_token("Unexpected authorization type")),
        _ => Err(bad_token("Malformed authorization header")),
    }
}

fn bad_token(message: &'static str) -> XrpcError {
    XrpcError::new(400, "InvalidToken", message)
}
