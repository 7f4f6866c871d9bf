//! Administrative calls: `Authorization: Basic admin:<password>`.
//!
//! The operator's admin password is valid for all of them. A host's admin password, which hosts
//! pass on for a few methods, is valid for these methods and for accounts on that host. Wrong
//! passwords are counted by client address, and too many close these doors to that address.

use std::marker::PhantomData;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::accounts::Account;
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::http::caller::Caller;
use crate::http::method::Method;
use crate::routing::Callers;
use crate::wire::error::{bad_request, unauthorized};
use crate::wire::{Authorization, ClientAddr, XrpcError, messages};

/// The operator, as the caller of the method `M`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator<M>(PhantomData<fn() -> M>);

impl<M: Method> FromRequestParts<App> for Operator<M> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, XrpcError> {
        const { assert!(matches!(M::ROW.callers, Callers::Operator), "the method is not the operator's") };
        require_operator(app, &parts.headers, &parts.extensions)?;
        Ok(Self(PhantomData))
    }
}

/// The admin password of a call of the method `M`: the operator's, or that of a host.
#[derive(Debug)]
pub(crate) struct AdminPassword<M> {
    given: Secret<String>,
    client: IpAddr,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> FromRequestParts<App> for AdminPassword<M> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, XrpcError> {
        const { assert!(matches!(M::ROW.callers, Callers::OperatorOrHost), "the method is not for hosts") };
        let (given, client) = admitted_password(app, &parts.headers, &parts.extensions)?;
        Ok(Self { given, client, method: PhantomData })
    }
}

impl<M> AdminPassword<M> {
    /// Returns the account, if the password is the operator's or that of the account's host.
    ///
    /// A wrong password gets the same refusal whether or not the account exists, so that only the
    /// operator learns which accounts exist.
    pub(crate) fn unlock(self, app: &App, account: Option<Account>) -> Result<(Account, By), XrpcError> {
        // Again, because many requests may have been admitted before the first of them was compared:
        // a client can hold their bodies back.
        app.limits.check_admin(self.client, app.clock.now())?;
        // The operator's password is tried first, because with it the answer may say that the
        // account does not exist.
        if is_operators(app, &self.given) {
            let account = account.ok_or_else(|| bad_request("NotFound", messages::ACCOUNT_NOT_FOUND))?;
            return Ok((account, By::Operator));
        }
        // From here on a missing account and a wrong password have one answer.
        let is_hosts = |account: &Account| {
            app.fleet.host(&account.host).is_some_and(|host| is_same(&host.admin_password, &self.given))
        };
        match account.filter(is_hosts) {
            Some(account) => Ok((account, By::Host)),
            None => Err(refused_password(app, self.client)),
        }
    }
}

/// The operator, or the account that a call of the method `M` speaks for.
#[derive(Clone, Debug)]
pub(crate) enum OperatorOrAccount<M> {
    Operator,
    Account(Box<Caller<M>>),
}

impl<M: Method> FromRequestParts<App> for OperatorOrAccount<M> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, XrpcError> {
        const { assert!(matches!(M::ROW.callers, Callers::OperatorOrAccount(_)), "the method is not for both") };
        // Only a Bearer token is for accounts here. Anything else is taken as an attempt at the
        // admin password, and is refused as such.
        if Authorization::of(&parts.headers).is_bearer() {
            return Caller::from_request_parts(parts, app)
                .await
                .map(|caller| Self::Account(Box::new(caller)));
        }
        require_operator(app, &parts.headers, &parts.extensions)?;
        Ok(Self::Operator)
    }
}

/// Refuses a request without the operator's admin password.
pub(super) fn require_operator(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<(), XrpcError> {
    let (given, client) = admitted_password(app, headers, extensions)?;
    if is_operators(app, &given) { Ok(()) } else { Err(refused_password(app, client)) }
}

/// Returns the password of a client that may still try one, and the client's address.
fn admitted_password(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<(Secret<String>, IpAddr), XrpcError> {
    let given = password(headers)?;
    // Through a host it is the host's own address: the host could name any other.
    let client = extensions.get::<ClientAddr>().copied();
    let client = client.ok_or_else(|| XrpcError::internal("a request without its client's address"))?.0;
    app.limits.check_admin(client, app.clock.now())?;
    Ok((given, client))
}

/// Counts a wrong password.
fn refused_password(app: &App, client: IpAddr) -> XrpcError {
    app.limits.count_wrong_admin_password(client, app.clock.now());
    refused()
}

fn is_operators(app: &App, given: &Secret<String>) -> bool {
    app.config.keys.admin_password.as_ref().is_some_and(|known| is_same(known, given))
}

/// The owner of the admin password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Operator,
    /// The host that keeps the account.
    Host,
}

impl By {
    pub(crate) fn actor(self, account: &Account) -> Actor<'_> {
        match self {
            Self::Operator => Actor::Operator,
            Self::Host => Actor::Host(account.host.as_str()),
        }
    }
}

fn password(headers: &HeaderMap) -> Result<Secret<String>, XrpcError> {
    let encoded = match Authorization::of(headers) {
        Authorization::Basic(encoded) => encoded,
        Authorization::Missing => {
            return Err(unauthorized("AuthMissing", messages::AUTHENTICATION_REQUIRED));
        }
        _ => return Err(refused()),
    };
    let decoded =
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refused)?;
    // A password may contain colons, a name may not (RFC 7617 §2).
    match decoded.split_once(':') {
        Some(("admin", password)) => Ok(Secret::new(password.to_owned())),
        _ => Err(refused()),
    }
}

/// Compares in constant time: the digests have one length, whatever the passwords have.
fn is_same(known: &Secret<String>, given: &Secret<String>) -> bool {
    let digest = |secret: &Secret<String>| -> [u8; 32] { Sha256::digest(secret.expose().as_bytes()).into() };
    // An empty password in the settings never matches, so that a forgotten setting admits nobody.
    !known.expose().is_empty() && bool::from(digest(known).ct_eq(&digest(given)))
}

fn refused() -> XrpcError {
    unauthorized("AuthenticationRequired", "the admin password is required")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::TestServer;

    #[tokio::test]
    async fn guesses_that_were_admitted_together_are_not_all_compared() {
        let limit = ("GENKAN_RATE_ADMIN_PASSWORD", "20/5m");
        let server = TestServer::start(&[("GENKAN_ADMIN_PASSWORD", "the operator's"), limit, RATES]).await;
        let credential = STANDARD.encode("admin:a guess");
        let headers = HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            format!("Basic {credential}").parse().unwrap(),
        )]);
        let mut extensions = Extensions::new();
        extensions.insert(ClientAddr([192, 0, 2, 66].into()));
        let admitted: Vec<_> = (0..30)
            .map(|_| {
                let (given, client) = admitted_password(&server.app, &headers, &extensions).unwrap();
                AdminPassword::<()> { given, client, method: PhantomData }
            })
            .collect();
        let refused =
            admitted.into_iter().map(|one| one.unlock(&server.app, None).unwrap_err().status.as_u16());
        let refused: Vec<u16> = refused.collect();
        assert_eq!(refused.iter().filter(|status| **status == 401).count(), 20, "{refused:?}");
        assert_eq!(refused.iter().filter(|status| **status == 429).count(), 10, "{refused:?}");
    }

    const RATES: (&str, &str) = ("GENKAN_RATE_LIMITS_ENABLED", "true");

    #[test]
    fn an_empty_password_is_nobodys() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(is_same(&secret("the operator's"), &secret("the operator's")));
        assert!(!is_same(&secret("the operator's"), &secret("")));
        assert!(!is_same(&secret(""), &secret("")), "a setting that was left empty opens no door");
    }
}
