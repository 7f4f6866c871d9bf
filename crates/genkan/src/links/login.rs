//! Sending a browser to another server to sign in there.
//!
//! One row holds everything by which the return is judged: issuer, endpoints, keys, the expected
//! account and the browser. A callback can change none of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use genkan_protocol::oauth::dpop::ProofKey;
use genkan_protocol::oauth::pkce::{Challenge, verifier_of};
use genkan_protocol::syntax::Did;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::client::ClientIdentity;
use super::discovery::{DiscoveryError, Identifier, Server};
use super::error::BeginError;
use super::server_client::TokenRequestError;
use super::service::{CLIENT_LIFETIME, DAY, Inner, Links};
use super::sql::clients;
use super::sql::logins::{self, Login};
use super::vault::{LoginSecrets, fresh_key};
use crate::base::fetch::Pool;
use crate::base::{Secret, query, random};
use crate::db;
use crate::telemetry::metrics::LINK_LOGINS;

/// A request to sign in with an account on an external PDS.
#[derive(Debug)]
pub(crate) struct NewLogin<'a> {
    /// As typed: a handle, a DID, or the address of a PDS or of its entryway.
    pub(crate) identifier: &'a str,
    /// The scope that the app requests, and nothing more.
    pub(crate) scope: &'a str,
    /// The authorization request that waits. `None` for the account pages.
    pub(crate) request: Option<&'a str>,
    /// The path of the page that continues afterwards. Genkan sets it, and no form can.
    pub(crate) back: &'a str,
    pub(crate) device: &'a str,
    /// The network of the browser, which has a share of what strangers may cause to be stored.
    pub(crate) network: IpAddr,
    /// The browser's secret, if it has one.
    pub(crate) browser: Option<&'a str>,
}

/// The address to which the browser is sent.
#[derive(Debug)]
pub(crate) struct LoginRedirect {
    /// The URL at the other server.
    pub(crate) url: String,
    /// The secret for a cookie, which must return with the browser.
    pub(crate) browser: Secret<String>,
}

impl Links {
    /// Finds the account's server and announces the sign-in there.
    pub(crate) async fn begin(&self, login: NewLogin<'_>) -> Result<LoginRedirect, BeginError> {
        // Boxed: the future of a lookup at an external server is large.
        let begun = Box::pin(self.try_to_begin(login)).await;
        let outcome = match &begun {
            Ok(_) => "begun",
            Err(BeginError::NotAnIdentifier | BeginError::NoSuchAccount | BeginError::Home) => "no_account",
            Err(BeginError::Unusable(_)) => "unusable",
            Err(BeginError::Refused(_)) => "refused",
            Err(BeginError::Away(_)) => "away",
            Err(BeginError::Storage(_)) => "failed",
        };
        self.inner.metrics.counter(&LINK_LOGINS, &[outcome]).increment();
        begun
    }

    async fn try_to_begin(&self, login: NewLogin<'_>) -> Result<LoginRedirect, BeginError> {
        let inner = &self.inner;
        let identifier = Identifier::parse(login.identifier).ok_or(BeginError::NotAnIdentifier)?;
        let (server, did) = inner.server_of(&identifier).await?;
        // Genkan is not a client of itself: such an account signs in here directly.
        if server.issuer == inner.client.origin().as_str() {
            return Err(BeginError::Home);
        }
        let now = inner.now();
        let mut name = inner.client.name_for(login.scope);
        if let Some(hash) = &name.own_document {
            let is_new = clients::find(&inner.db, hash).await?.is_none();
            // Anyone can begin a sign-in for a scope of their own, and have a row stored. Without
            // the row the client id carries the scope.
            if is_new && !inner.new_clients.spend(login.network, login.scope.len(), now) {
                name = inner.client.name_with(login.scope).ok_or_else(|| {
                    // Its server would refuse the id, and the person could do nothing about it.
                    BeginError::Away("too many long scopes of strangers are stored".into())
                })?;
            } else {
                // Stored first, because the server fetches the document during the push. Only for a
                // day: a sign-in that ends well stores it for as long as its session may live.
                db::repeated(|| async {
                    let mut tx = inner.db.begin().await?;
                    clients::put(&mut tx, hash, login.scope, now.minus(CLIENT_LIFETIME).plus(DAY)).await?;
                    tx.commit().await
                })
                .await?;
            }
        }
        let identity = ClientIdentity { id: name.id, key: inner.client.newest_key(now) };
        let secrets =
            LoginSecrets { key: fresh_key(), verifier: Zeroizing::new(verifier_of(&random::bytes::<32>())) };
        // The state names this sign-in when the browser returns. 192 random bits cannot be guessed.
        let state = BASE64URL_NOPAD.encode(&random::bytes::<24>());
        let mut fields = vec![
            ("response_type", "code".to_owned()),
            ("redirect_uri", inner.client.redirect_uri()),
            ("scope", login.scope.to_owned()),
            ("state", state.clone()),
            ("code_challenge", Challenge::of(&secrets.verifier).to_string()),
            ("code_challenge_method", "S256".to_owned()),
            ("response_mode", "query".to_owned()),
        ];
        match &identifier {
            Identifier::Handle(handle) => fields.push(("login_hint", handle.to_string())),
            Identifier::Did(did) => fields.push(("login_hint", did.to_string())),
            // With only the address of a PDS, the person chooses the account there.
            Identifier::Address(_) => {}
        }
        let key = ProofKey::new(secrets.key.clone());
        let client = inner.server_client(Pool::SignIns, &server, &identity, &state, &key);
        // RFC 9126: the parameters go straight to the server. The browser carries only a reference
        // and cannot change them.
        let request_uri = client.push(fields).await.map_err(push_failed)?;
        let url = departure(&server, &identity.id, &request_uri);

        // A browser with several sign-ins under way keeps one secret, so that Genkan recognises it
        // when any of them returns.
        let browser = match login.browser.filter(|secret| is_secret(secret)) {
            Some(known) => known.to_owned(),
            None => BASE64URL_NOPAD.encode(&random::bytes::<24>()),
        };
        // Only the hash is stored: a copy of the database cannot complete a sign-in that is under
        // way.
        let state = hash(&state);
        let row = Login {
            sealed: secrets.seal(&inner.sealer, &state),
            state,
            server,
            did,
            client_id: identity.id,
            client_key: identity.key.map(|key| key.id),
            request: login.request.map(str::to_owned),
            back: login.back.to_owned(),
            device: login.device.to_owned(),
            browser: hash(&browser),
            expires_at: now.plus(LIFETIME),
        };
        // Written after the push succeeded, so that a refused sign-in leaves no row behind.
        db::repeated(|| async {
            let mut tx = inner.db.begin().await?;
            logins::insert(&mut tx, &row).await?;
            tx.commit().await
        })
        .await?;
        Ok(LoginRedirect { url, browser: Secret::new(browser) })
    }
}

impl Inner {
    async fn server_of(&self, identifier: &Identifier) -> Result<(Server, Option<Did>), BeginError> {
        let found = match identifier {
            Identifier::Handle(handle) => self.discovery.of_handle(handle).await,
            Identifier::Did(did) => self.discovery.of_did(did).await,
            Identifier::Address(origin) => {
                return Ok((self.discovery.of_pds(origin).await.map_err(discovery_failed)?, None));
            }
        };
        let found = found.map_err(discovery_failed)?;
        Ok((found.server, Some(found.account.id.clone())))
    }
}

fn discovery_failed(error: DiscoveryError) -> BeginError {
    match error {
        DiscoveryError::NoSuchAccount | DiscoveryError::Ended => BeginError::NoSuchAccount,
        DiscoveryError::Unusable(why) => BeginError::Unusable(why),
        DiscoveryError::Away(why) | DiscoveryError::NotTried(why) => BeginError::Away(why),
    }
}

fn push_failed(error: TokenRequestError) -> BeginError {
    match error {
        TokenRequestError::Refused { code, .. } => BeginError::Refused(code),
        TokenRequestError::NotTried(why)
        | TokenRequestError::LookupFailed(why)
        | TokenRequestError::NotSent(why)
        | TokenRequestError::Unanswered(why) => BeginError::Away(why),
        TokenRequestError::Later { status, .. } => {
            BeginError::Away(Arc::from(format!("it answered {status}")))
        }
    }
}

fn departure(server: &Server, client_id: &str, request_uri: &str) -> String {
    // An authorization endpoint may have a query of its own, which is kept (RFC 6749 §3.1).
    let joint = if server.authorize.contains('?') { '&' } else { '?' };
    let query = query::of_pairs(&[("client_id", client_id), ("request_uri", request_uri)]);
    format!("{}{joint}{query}", server.authorize)
}

/// The stored form of a secret that returns.
pub(super) fn hash(secret: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(secret))
}

// A cookie is a text of the browser's choice. Only the form that Genkan itself makes is taken up
// again.
fn is_secret(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

const LIFETIME: Duration = Duration::from_mins(10);
