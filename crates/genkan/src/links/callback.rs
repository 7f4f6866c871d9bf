//! The return of a browser from its account's server.
//!
//! The row of the sign-in is removed first, so that nothing can be tried twice. Only then is
//! anything compared, and only with that row. Tokens that were issued are revoked if anything about
//! them is wrong.

use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;
use genkan_protocol::syntax::Did;
use subtle::ConstantTimeEq as _;

use super::client::{Client, ClientIdentity};
use super::discovery::{Authority, DiscoveryError};
use super::error::{Failure, FinishError};
use super::id::LinkId;
use super::login::hash;
use super::open::KeysBehind;
use super::server_client::{ServerClient, TokenRequestError, TokenResponse};
use super::service::{Inner, Links};
use super::sql::clients;
use super::sql::links::{self, Row, State};
use super::sql::logins::{self, Login};
use super::vault::{LoginSecrets, SessionAad, Tokens};
use crate::base::Secret;
use crate::base::fetch::Pool;
use crate::db;
use crate::telemetry::metrics::LINK_LOGINS;

/// What the browser brings. Genkan reads nothing else of its URL.
#[derive(Debug, Default)]
pub(crate) struct Callback {
    pub(crate) state: Option<String>,
    pub(crate) iss: Option<String>,
    pub(crate) code: Option<Secret<String>>,
    pub(crate) error: Option<String>,
    /// Whether the answer has a form that Genkan never requests (JARM).
    pub(crate) has_response: bool,
}

/// A person who signed in at their own server and has not decided here yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The id of the session, which the grant will have too.
    pub(crate) link: LinkId,
    pub(crate) did: Did,
    /// Confirmed in both directions. `None` if it is not, or could not be resolved.
    pub(crate) handle: Option<String>,
    /// The issuer of the account's server.
    pub(crate) issuer: String,
    /// The scope that the server granted. The app gets no more.
    pub(crate) scope: String,
    pub(crate) request: Option<String>,
    /// The page of Genkan on which the person continues.
    pub(crate) back: String,
}

impl Links {
    /// Completes the sign-in that `callback` answers, in the browser with this secret.
    pub(crate) async fn finish(
        &self,
        callback: Callback,
        browser: Option<&str>,
        device: Option<&str>,
    ) -> Result<Arrival, FinishError> {
        // Boxed: the future of a lookup at an external server is large.
        let finished = Box::pin(self.try_to_finish(callback, browser, device)).await;
        let outcome = match &finished {
            Ok(_) => "done",
            Err(error) => match &error.why {
                Failure::Unknown => "unknown",
                Failure::OtherBrowser | Failure::Unacceptable(_) => "unacceptable",
                Failure::Denied(_) => "denied",
                Failure::Away(_) => "away",
                Failure::Storage(_) => "failed",
            },
        };
        self.inner.metrics.counter(&LINK_LOGINS, &[outcome]).increment();
        finished
    }

    async fn try_to_finish(
        &self,
        mut callback: Callback,
        browser: Option<&str>,
        device: Option<&str>,
    ) -> Result<Arrival, FinishError> {
        let inner = &self.inner;
        let nowhere = |why| FinishError { back: None, why };
        let state = callback.state.take().ok_or_else(|| nowhere(Failure::Unknown))?;
        let login =
            inner.take_login(&hash(&state)).await.map_err(|cause| nowhere(Failure::Storage(cause)))?;
        let login = login.ok_or_else(|| nowhere(Failure::Unknown))?;
        let known = hash(browser.unwrap_or_default());
        // Against login CSRF (RFC 6749 §10.12): a callback that an attacker prepared in their own
        // browser must not sign this browser in.
        let is_ours =
            bool::from(known.as_bytes().ct_eq(login.browser.as_bytes())) && device == Some(&login.device);
        if !is_ours {
            // Another browser learns nothing about the sign-in, not even the page on which it
            // began.
            return Err(nowhere(Failure::OtherBrowser));
        }
        self.judge(&login, callback, &state).await.map_err(|why| why.back_to(&login.back))
    }

    async fn judge(&self, login: &Login, callback: Callback, state: &str) -> Result<Arrival, Failure> {
        let inner = &self.inner;
        // The sweep runs only from time to time, so an expired row can still be found.
        if login.expires_at <= inner.now() {
            return Err(Failure::Unknown);
        }
        if callback.has_response {
            return Err(Failure::Unacceptable("the response mode was not requested"));
        }
        // RFC 9207 §2.4. Checked before the error is believed too: a mixed-up server must not end a
        // sign-in in the name of another.
        match callback.iss.as_deref() {
            Some(iss) if iss == login.server.issuer => {}
            Some(_) => return Err(Failure::Unacceptable("\"iss\" is another server")),
            None => return Err(Failure::Unacceptable("\"iss\" is missing")),
        }
        if let Some(error) = callback.error {
            return Err(Failure::Denied(word(&error).into()));
        }
        let code = callback.code.ok_or(Failure::Unacceptable("\"code\" is missing"))?;

        let secrets = LoginSecrets::open(&inner.sealer, &login.state, &login.sealed)
            .map_err(|_| Failure::Unacceptable("its secrets do not open"))?;
        let key = match &login.client_key {
            Some(id) => {
                let known = self.client_key(id).await;
                let known =
                    known.map_err(|KeysBehind| Failure::Unacceptable("the client key is not known yet"))?;
                Some(known.ok_or(Failure::Unacceptable("the client key no longer exists"))?)
            }
            None => None,
        };
        // The client id and key of the push, even if a newer key exists: the server binds the code
        // to the client that asked for it.
        let identity = ClientIdentity { id: login.client_id.clone(), key };
        let proof_key = ProofKey::new(secrets.key.clone());
        // The nonces that were received at the push are remembered under the same `state`.
        let server = inner.server_client(Pool::SignIns, &login.server, &identity, state, &proof_key);
        let fields = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.expose().clone()),
            ("redirect_uri", inner.client.redirect_uri()),
            ("code_verifier", secrets.verifier.as_str().to_owned()),
        ];
        let given = match server.token(fields.clone()).await {
            // The code is still unused, and the person cannot repeat this request.
            Err(error) if error.is_unsent() => server.token(fields).await,
            given => given,
        };
        let given = given.map_err(request_failed)?;
        // Cloned before `given` is consumed. If anything below fails, the tokens must not stay
        // valid without a use.
        let revocable = given.refresh.as_ref().unwrap_or(&given.access).clone();
        let arrived = self.arrive(login, &secrets, given).await;
        if arrived.is_err() {
            give_back(&server, &revocable).await;
        }
        arrived
    }

    /// Checks what the server issued, verifies its authority again, and stores the session.
    async fn arrive(
        &self,
        login: &Login,
        secrets: &LoginSecrets,
        given: TokenResponse,
    ) -> Result<Arrival, Failure> {
        let inner = &self.inner;
        let did = given.sub.ok_or(Failure::Unacceptable("\"sub\" is not a DID"))?;
        let refresh = given.refresh.ok_or(Failure::Unacceptable("\"refresh_token\" is missing"))?;
        let scope = given.scope.unwrap_or_default();
        if !scope.split(' ').any(|value| value == "atproto") {
            return Err(Failure::Unacceptable("\"scope\" lacks atproto"));
        }
        // Without an expected account the person typed only the address of a server. Then any
        // account of that server is accepted.
        if login.did.as_ref().is_some_and(|expected| *expected != did) {
            return Err(Failure::Unacceptable("\"sub\" is another account"));
        }
        // So far the server only claims to speak for this DID. The DID's own document must lead to
        // this server, or any server could sign people in as anybody.
        let found = inner.authority_of(&did).await?;
        if found.server.issuer != login.server.issuer {
            return Err(Failure::Unacceptable("the server does not speak for the account"));
        }
        // The sign-in does not depend on the handle, so a slow or broken one is left out.
        let handle = tokio::time::timeout(PATIENCE, inner.discovery.confirmed_handle(&found.account)).await;
        let handle = handle.unwrap_or_default().map(|handle| handle.to_string());

        let (id, now) = (LinkId::fresh(), inner.now());
        let tokens = Tokens { access: given.access, refresh, key: secrets.key.clone() };
        let aad = SessionAad { link: id.as_str(), did: did.as_str(), version: 1 };
        let row = Row {
            sealed: Some(tokens.seal(&inner.sealer, aad)),
            id,
            did,
            handle,
            pds: found.pds,
            server: found.server,
            client_id: login.client_id.clone(),
            client_key: login.client_key.clone(),
            scope,
            // Not live before the person allows the app. A job ends sessions that stay undecided.
            state: State::Waiting,
            version: 1,
            issued_at: now,
            expires_at: given.expires_in.map(|lifetime| now.plus(lifetime)),
            unanswered: 0,
            request: login.request.clone(),
            device: login.device.clone(),
            created_at: now,
            used_at: now,
            reason: None,
            revoke_attempts: 0,
        };
        db::repeated(|| async {
            let mut tx = inner.db.begin().await?;
            links::insert(&mut tx, &row).await?;
            if let Some(hash) = Client::own_document(&row.client_id) {
                clients::note_use(&mut tx, hash, now).await?;
            }
            tx.commit().await
        })
        .await?;
        Ok(Arrival { back: login.back.clone(), ..arrival(row) })
    }
}

impl Inner {
    /// Removes the row in a transaction of its own, so that it is used up whatever happens next.
    async fn take_login(&self, state: &str) -> db::Result<Option<Login>> {
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            let login = logins::take(&mut tx, state).await?;
            tx.commit().await?;
            Ok(login)
        })
        .await
    }

    async fn authority_of(&self, did: &Did) -> Result<Authority, Failure> {
        self.discovery.of_did(did).await.map_err(|error| match error {
            DiscoveryError::Away(why) | DiscoveryError::NotTried(why) => Failure::Away(why),
            DiscoveryError::NoSuchAccount | DiscoveryError::Ended | DiscoveryError::Unusable(_) => {
                Failure::Unacceptable("no authorization server is verified for the account")
            }
        })
    }
}

pub(super) fn arrival(row: Row) -> Arrival {
    Arrival {
        link: row.id,
        did: row.did,
        handle: row.handle,
        issuer: row.server.issuer,
        scope: row.scope,
        request: row.request,
        back: String::new(),
    }
}

async fn give_back(server: &ServerClient<'_>, token: &str) {
    if let Err(error) = server.revoke(token, "refresh_token").await {
        tracing::warn!(answer = %error, "tokens of a sign-in that failed could not be revoked");
    }
}

fn request_failed(error: TokenRequestError) -> Failure {
    match error {
        TokenRequestError::Refused { code, .. } => Failure::Denied(code),
        TokenRequestError::NotTried(why)
        | TokenRequestError::LookupFailed(why)
        | TokenRequestError::NotSent(why)
        | TokenRequestError::Unanswered(why) => Failure::Away(why),
        TokenRequestError::Later { status, .. } => Failure::Away(format!("it answered {status}").into()),
    }
}

/// An OAuth error code is a short word. Anything else is not repeated.
fn word(code: &str) -> &str {
    let is_word =
        (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_word { code } else { "unknown" }
}

/// Short, because the handle is only shown.
const PATIENCE: Duration = Duration::from_secs(4);
