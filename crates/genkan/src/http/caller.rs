//! The caller of a method: a client with an access token, an app within its grant, or a host on a
//! client's behalf.
//!
//! Which of these may call a method is a column of the routing table. A handler takes [`Caller`]
//! with the type of its method, and only callers that the method's row admits reach it.
//!
//! A *session token* names a host as its audience and is typed `at+jwt`. An app presents its
//! grant's token with a proof (`DPoP`). *Service auth* is a token signed by the account's key,
//! which only the account's host has; it names Genkan as its audience and one method (`lxm`).

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use genkan_protocol::did_document::AccountFacts;
use genkan_protocol::jwt::session::{Scope, key_hint};
use genkan_protocol::oauth::scope::{AccountAction, AccountAttribute, Scopes};
use genkan_protocol::{jwt, service_auth};

use crate::accounts::{Account, Standing};
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::http::method::Method;
use crate::identity::Freshness;
use crate::oauth::{self, AccessError, Call, CallerPlace, GrantCaller};
use crate::routing::{AccountAccess, AppAccess, Callers, MethodKind, Row};
use crate::wire::error::{bad_request, unauthorized};
use crate::wire::{Authorization, XrpcError, challenge, messages};

/// The account that a call of the method `M` speaks for, and who vouches for it.
#[derive(Clone, Debug)]
pub(crate) struct Caller<M> {
    pub(crate) account: Account,
    by: By,
    method: PhantomData<fn() -> M>,
}

/// Who vouches for a caller.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// A client with a session token of this scope.
    Client(Scope),
    /// An app, within its grant.
    App(Arc<GrantCaller>),
    /// The account's host, which checked the client itself.
    Host,
}

impl<M: Method> FromRequestParts<App> for Caller<M> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, XrpcError> {
        // The check runs at compile time: a handler with a caller that its row does not admit does
        // not build.
        let access = const {
            match M::ROW.callers {
                Callers::Account(access) | Callers::OperatorOrAccount(access) => access,
                _ => panic!("the method's row does not admit accounts"),
            }
        };
        let (account, by) = check_access(app, &parts.headers, M::ROW, access).await?;
        Ok(Self { account, by, method: PhantomData })
    }
}

impl<M> Caller<M> {
    /// Whether the caller may see the e-mail address.
    pub(crate) fn sees_email(&self) -> bool {
        match &self.by {
            By::Client(_) | By::Host => true,
            By::App(grant) => Scopes::parse(grant.scope.as_str())
                .allows_account(AccountAttribute::Email, AccountAction::Read),
        }
    }

    /// Whether the owner's password opened the session whose token came to Genkan itself: no app
    /// password, no OAuth grant, no host that vouches for a client that Genkan did not see.
    pub(crate) const fn has_full_session(&self) -> bool {
        matches!(self.by, By::Client(Scope::Access))
    }

    pub(crate) fn actor(&self) -> Actor<'_> {
        // The audit log names the account for an app too, because the app acts within the owner's
        // grant.
        match self.by {
            By::Client(_) | By::App(_) => Actor::Account(&self.account.did),
            By::Host => Actor::Host(self.account.host.as_str()),
        }
    }
}

/// The refresh token of a call of the method `M`, not yet checked.
#[derive(Debug)]
pub(crate) struct RefreshToken<M> {
    pub(crate) token: Secret<String>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> FromRequestParts<App> for RefreshToken<M> {
    type Rejection = XrpcError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, XrpcError> {
        // Checked at compile time, like the row of `Caller`.
        const { assert!(matches!(M::ROW.callers, Callers::RefreshToken), "the method takes no refresh token") };
        let token = Secret::new(bearer(&parts.headers)?.to_owned());
        Ok(Self { token, method: PhantomData })
    }
}

/// Finds the account that a call speaks for, and refuses callers that the row does not admit.
pub(super) async fn check_access(
    app: &App,
    headers: &HeaderMap,
    row: &'static Row,
    access: AccountAccess,
) -> Result<(Account, By), XrpcError> {
    // The scheme decides what kind of token it is: a bound token shown as `Bearer` is refused, and
    // the other way round (RFC 9449 §7.1).
    let (account, by) = if let Authorization::Dpop(token) = Authorization::of(headers) {
        by_grant(app, token, headers, row, access.apps).await?
    } else {
        by_bearer(app, bearer(headers)?, row, access).await?
    };
    // Only now, because others than the account must not learn that it is taken down.
    if !access.taken_down && account.standing() == Standing::TakenDown {
        return Err(unauthorized("AccountTakedown", messages::TAKEN_DOWN));
    }
    Ok((account, by))
}

async fn by_bearer(
    app: &App,
    token: &str,
    row: &'static Row,
    access: AccountAccess,
) -> Result<(Account, By), XrpcError> {
    // An app with a plain Bearer token: some grants are not bound to a key.
    if app.oauth.is_ours_by_grant(token) {
        let grant = app.oauth.check_bearer(token).await?;
        return by_app(app, grant, access.apps).await;
    }
    // Only session tokens have such a hint. Where hosts may not call, no token counts as service
    // auth.
    if key_hint(token).is_some() || !access.hosts {
        by_session(app, token, access.sessions).await
    } else {
        by_service_auth(app, token, row.method).await
    }
}

async fn by_grant(
    app: &App,
    token: &str,
    headers: &HeaderMap,
    row: &'static Row,
    apps: AppAccess,
) -> Result<(Account, By), XrpcError> {
    // The proof names the verb and the path (RFC 9449 §4.3). Both are taken from the method's row
    // and not from the request, so a proof for another method is refused.
    let method = match row.kind {
        MethodKind::Procedure => "POST",
        MethodKind::Query | MethodKind::Subscription | MethodKind::Any => "GET",
    };
    let path = format!("/xrpc/{}", row.method);
    let call = Call { method, path: &path, proofs: oauth::proofs(headers) };
    let grant = app.oauth.check_access(token, &call).await?;
    by_app(app, grant, apps).await
}

/// Admits an app, if its grant allows the method.
async fn by_app(app: &App, grant: Arc<GrantCaller>, apps: AppAccess) -> Result<(Account, By), XrpcError> {
    let invalid = |why| XrpcError::from(AccessError::Token(why));
    // A linked account has no host here: its own PDS answers everything that is not forwarded.
    if grant.place == CallerPlace::Link {
        return Err(XrpcError::not_here(NOT_FORWARDED));
    }
    let account = app.accounts.find(&grant.did).await?;
    let account = account.ok_or_else(|| invalid("there is no such account"))?;
    // A grant's token names the host that had the account when it was issued. After a move the app
    // must refresh it.
    if !grant.place.is_host(&account.host) {
        return Err(invalid("the token is for another host"));
    }
    check_grant(grant.scope.as_str(), apps)?;
    Ok((account, By::App(grant)))
}

/// Refuses a grant whose scope does not cover the method.
fn check_grant(scope: &str, apps: AppAccess) -> Result<(), XrpcError> {
    let scopes = Scopes::parse(scope);
    let is_enough = match apps {
        AppAccess::Any => true,
        AppAccess::Account(attribute, action) => scopes.allows_account(attribute, action),
        AppAccess::Identity(attribute) => scopes.allows_identity(attribute),
        AppAccess::Never(instead) => {
            // No grant can allow this method. The text says what the app can do instead.
            return Err(XrpcError::new(StatusCode::FORBIDDEN, "Forbidden", instead));
        }
    };
    if is_enough {
        return Ok(());
    }
    let why = format!("Missing required scope \"{}\"", apps.scope().unwrap_or_default());
    Err(XrpcError::new(StatusCode::FORBIDDEN, "ScopeMissingError", why))
}

/// 501 for an account whose PDS is external.
const NOT_FORWARDED: &str = "Only com.atproto.repo.*, com.atproto.sync.* and com.atproto.server.getServiceAuth are \
    forwarded for this account. Call its own PDS for this method, or the public AppView at https://public.api.bsky.app for \
    app.bsky.* reads";

impl From<AccessError> for XrpcError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Storage(cause) => cause.into(),
            // 503, not 401: the app must keep its token.
            AccessError::Unavailable => {
                Self::unavailable("the token cannot be checked at the moment; try again")
            }
            AccessError::Token(_)
            | AccessError::Proof(_)
            | AccessError::NoProof
            | AccessError::TwoProofs
            | AccessError::Replayed => {
                let (code, why) = (error.code().unwrap_or("invalid_token"), error.to_string());
                let challenge = challenge::dpop(code, &why);
                Self::new(StatusCode::UNAUTHORIZED, code, why).challenging(challenge)
            }
        }
    }
}

/// The token of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, XrpcError> {
    match Authorization::of(headers) {
        Authorization::Bearer(token) => Ok(token),
        Authorization::Missing => Err(unauthorized("AuthMissing", messages::AUTHENTICATION_REQUIRED)),
        Authorization::Repeated => Err(XrpcError::invalid(messages::DUPLICATE_AUTHORIZATION)),
        unusable if unusable.is_dpop() => {
            Err(bad_request("InvalidToken", messages::UNEXPECTED_AUTHORIZATION))
        }
        _ => Err(bad_request("InvalidToken", messages::MALFORMED_AUTHORIZATION)),
    }
}

async fn by_session(app: &App, token: &str, scopes: &[Scope]) -> Result<(Account, By), XrpcError> {
    let known = app.access.check(token, app.clock.now()).await?;
    // The token is valid but too weak, such as one of an app password. The reference PDS answers
    // 400 here.
    if !scopes.contains(&known.scope) {
        return Err(bad_request("InvalidToken", messages::BAD_TOKEN_SCOPE));
    }
    let account = app.accounts.find(&known.did).await?;
    // The token was valid once, so the account was deleted. Clients drop the session on this error.
    let account = account.ok_or_else(|| bad_request("ExpiredToken", messages::REVOKED_TOKEN))?;
    // The account has moved since. Clients refresh on `ExpiredToken`, and get a token for the new
    // host.
    if account.host != known.audience {
        return Err(bad_request("ExpiredToken", messages::OUTDATED_AUDIENCE));
    }
    Ok((account, By::Client(known.scope)))
}

const BAD_SIGNATURE: service_auth::Error = service_auth::Error::Token(jwt::Error::BadSignature);

async fn by_service_auth(app: &App, token: &str, method: &str) -> Result<(Account, By), XrpcError> {
    let invalid = |text: &'static str| bad_request("InvalidToken", text);
    let unverified = service_auth::parse(token).map_err(|_| invalid("Token could not be verified"))?;
    // Checked first, so that no token makes Genkan resolve the DID of an account that it does not
    // have.
    let account = app.accounts.find(unverified.issuer()).await?;
    let account = account.ok_or_else(|| invalid("the token's issuer has no account here"))?;
    let (aud, now) = (app.config.service.did.as_str(), app.clock.now().as_seconds());
    // The host's key first. It needs no lookup, and a host still signs with it after the account
    // has moved away and its DID document names another key.
    let mut verdict = unverified.verify(&account.host_key, aud, Some(method), now);
    let with_document = |document: &AccountFacts| match &document.signing_key {
        Some(key) => unverified.verify(key, aud, Some(method), now),
        None => Err(BAD_SIGNATURE),
    };
    // Any other error, such as a wrong audience, cannot be changed by another key.
    if matches!(verdict, Err(BAD_SIGNATURE))
        && let Some(Ok(document)) = app.identity.documents.recall(account.did.as_str())
    {
        verdict = with_document(&document);
    }
    if matches!(verdict, Err(BAD_SIGNATURE)) {
        // Anyone can send a token with a wrong signature, so such tokens cost few lookups: for an
        // account, and in all. Without one the token may be good, signed by a key that is new.
        let now = app.clock.now();
        if !app.limits.is_key_lookup_due(account.did.as_str(), now) || !app.limits.has_key_lookup_left(now) {
            return Err(XrpcError::unavailable("the account's key cannot be looked up at the moment"));
        }
        match app.identity.documents.resolve(&account.did, Freshness::Asked).await {
            Ok(document) => verdict = with_document(&document),
            // The key may have changed and the directory does not answer, so the token may be good.
            Err(error) if error.is_passing() => {
                return Err(XrpcError::unavailable("the account's key could not be looked up").because(error));
            }
            Err(_) => {}
        }
    }
    match verdict {
        Ok(_) => Ok((account, By::Host)),
        Err(service_auth::Error::Expired) => Err(bad_request("ExpiredToken", messages::EXPIRED_TOKEN)),
        Err(BAD_SIGNATURE) => Err(invalid("the token is not signed by the account's key")),
        Err(_) => Err(invalid("the token is not for this service and method")),
    }
}

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::accounts::NewAccount;
    use crate::accounts::testing::new_account;
    use crate::http::testing::TestServer;
    use crate::routing::table;

    /// A takedown ends sessions and grants. The account's host can still call.
    #[tokio::test]
    async fn a_host_calls_for_a_taken_down_account_only_what_the_row_allows() {
        let server = TestServer::start(&[]).await;
        let app = &server.app;
        let key = K256PrivateKey::from_bytes(&[0x21; 32]).unwrap();
        let ann = NewAccount { host_key: key.public(), ..new_account("ann") };
        let ann = server.add_account(ann).await;
        let now = app.clock.now().as_seconds();
        let claims = |row: &Row| service_auth::Claims {
            iss: ann.did.clone(),
            iss_fragment: None,
            aud: app.config.service.did.to_string(),
            lxm: Some(row.method.parse().unwrap()),
            iat: Some(now),
            exp: now + 60,
            jti: None,
        };
        let told = async |row: &'static Row, access: AccountAccess| {
            let token = format!("Bearer {}", service_auth::sign(&key, &claims(row)));
            let headers = HeaderMap::from_iter([(AUTHORIZATION, token.parse().unwrap())]);
            match check_access(app, &headers, row, access).await {
                Ok((_, by)) => format!("{by:?}"),
                Err(error) => format!("{} {}", error.status.as_u16(), error.name),
            }
        };
        let mut refused = 0;
        for is_taken_down in [false, true] {
            if is_taken_down {
                let mut tx = app.db.begin().await.unwrap();
                let done = app.accounts.set_taken_down(&mut tx, &ann.did, Some("x"), Actor::Operator).await;
                assert!(done.unwrap());
                tx.commit().await.unwrap();
            }
            for row in table::ROWS {
                let (Callers::Account(access) | Callers::OperatorOrAccount(access)) = row.callers else {
                    continue;
                };
                if !access.hosts {
                    continue;
                }
                let is_refused = is_taken_down && !access.taken_down;
                let expected = if is_refused { "401 AccountTakedown" } else { "Host" };
                assert_eq!(told(row, access).await, expected, "{}", row.method);
                refused += usize::from(is_refused);
            }
        }
        assert!(refused > 5, "{refused} methods are refused");
    }

    #[test]
    fn a_grant_permits_what_the_host_would() {
        let apps = |method: &str| match table::row(method).callers {
            Callers::Account(access) => access.apps,
            other => panic!("{method}: {other:?}"),
        };
        let checked = |method: &str, scope: &str| match check_grant(scope, apps(method)) {
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
