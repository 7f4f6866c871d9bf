//! Checking access tokens of requests to Genkan's own origin: the signature, the binding, and the
//! grant.
//!
//! As with sessions, a verified token is cached by its hash, and the changes feed reports the end
//! of a grant. While the feed is stale, the database is asked each time. The proof of every request
//! is checked.
//!
//! [`OAuth::check_access`] does all of this. Edge threads use [`OAuth::check_access_on`], which
//! leaves the lookup to the database's own runtime.

use std::sync::Arc;

use genkan_protocol::oauth::access_token::Token;
use genkan_protocol::oauth::dpop::{self, Expected, Proof};
use genkan_protocol::syntax::Did;
use tokio::runtime::Handle;

use crate::base::Timestamp;
use crate::keys::WebPurpose;
use crate::oauth::call::Call;
use crate::oauth::client_trust::ClientTrust;
use crate::oauth::grant::{Grant, GrantPlace};
use crate::oauth::ids;
use crate::oauth::scope::TokenScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::{clients, grants, scopes};
use crate::oauth::tokens::{AccessError, CallerPlace, GrantCaller, HostTokenSlot};

impl OAuth {
    /// Checks a token and the proof of the request that carries it, and uses the proof up.
    pub(crate) async fn check_access(
        &self,
        token: &str,
        call: &Call<'_>,
    ) -> Result<Arc<GrantCaller>, AccessError> {
        let proof = self.check_proof(token, call)?;
        let caller = match self.recall_caller(token) {
            Some(known) => known?,
            None => self.find_caller(token).await?,
        };
        // The last step, because it writes: a request whose token is refused uses up no proof.
        self.bind(&proof, &caller).await?;
        Ok(caller)
    }

    /// As [`Self::check_access`], for a thread that must not wait for the database. What the cache
    /// lacks is looked up on `control`.
    pub(crate) async fn check_access_on(
        &self,
        control: &Handle,
        token: &str,
        call: &Call<'_>,
    ) -> Result<Arc<GrantCaller>, AccessError> {
        // The proof comes first: a token without a valid proof costs no lookup.
        let proof = self.check_proof(token, call)?;
        let caller = self.caller_on(control, token).await?;
        self.bind(&proof, &caller).await?;
        Ok(caller)
    }

    /// As [`Self::check_bearer`], for a thread that must not wait for the database.
    pub(crate) async fn check_bearer_on(
        &self,
        control: &Handle,
        token: &str,
    ) -> Result<Arc<GrantCaller>, AccessError> {
        let caller = self.caller_on(control, token).await?;
        caller.check_bearer()?;
        Ok(caller)
    }

    async fn caller_on(&self, control: &Handle, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        if let Some(known) = self.recall_caller(token) {
            return known;
        }
        let (oauth, token) = (self.clone(), token.to_owned());
        let finding = control.spawn(async move { oauth.find_caller(&token).await });
        finding.await.map_err(|_| AccessError::Unavailable)?
    }

    /// Checks the proof of a request alone. [`Self::bind`] checks that it is new and of the token's
    /// holder.
    fn check_proof(&self, token: &str, call: &Call<'_>) -> Result<Proof, AccessError> {
        let proof = match &*call.proofs {
            [one] => *one,
            [] => return Err(AccessError::NoProof),
            _ => return Err(AccessError::TwoProofs),
        };
        let expected = Expected {
            method: call.method,
            origin: &self.settings.issuer,
            path: call.path,
            access_token: Some(token),
            now_millis: self.clock.now().as_millis(),
        };
        Ok(dpop::verify(proof, &expected, &self.nonces)?)
    }

    /// Returns the caller of a token from the cache. `None` means that it must be looked up.
    fn recall_caller(&self, token: &str) -> Option<Result<Arc<GrantCaller>, AccessError>> {
        let now = self.clock.now();
        // A stale feed may have missed the end of the grant, so the cache proves nothing.
        if !self.feed.is_fresh() {
            return None;
        }
        let caller = self.verified.get(token)?;
        Some(if caller.expires_at > now { Ok(caller) } else { Err(EXPIRED) })
    }

    /// The account of a token that was checked before, if memory knows. The token's proof is not
    /// looked at.
    pub(crate) fn recall_account(&self, token: &str) -> Option<Did> {
        self.recall_caller(token)?.ok().map(|caller| caller.did.clone())
    }

    /// Finds the caller of a token by its signature and the database.
    async fn find_caller(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        let now = self.clock.now();
        // Begun before the grant is read: if the grant ends in between, the token is not cached.
        let reading = self.verified.begin();
        let read = self.read_token(token).await?;
        if read.expires_at <= now {
            return Err(EXPIRED);
        }
        let grant = grants::find(&self.db, &read.grant).await?.filter(|grant| grant.is_alive(now));
        let grant = grant.ok_or(ENDED)?;
        // A block takes effect at once, before all grants of the client have ended.
        if clients::trust(&self.db, &grant.client_id)
            .await?
            .is_some_and(|(trust, _)| trust == ClientTrust::Blocked)
        {
            return Err(ENDED);
        }
        let caller = Arc::new(self.place(read, &grant).await?);
        self.verified.remember(token, &caller, reading);
        Ok(caller)
    }

    /// Requires that a proof is by the key that the token is bound to, and uses it up.
    async fn bind(&self, proof: &Proof, caller: &GrantCaller) -> Result<(), AccessError> {
        match caller.key {
            Some(key) if key == proof.jkt => {}
            Some(_) => return Err(AccessError::Token("Invalid DPoP key binding")),
            None => return Err(AccessError::Token("the token is not bound to a key: use the Bearer scheme")),
        }
        match self.seen.is_first_proof(proof, self.clock.now()).await {
            Some(true) => Ok(()),
            Some(false) => Err(AccessError::Replayed),
            None => Err(AccessError::Unavailable),
        }
    }

    /// Checks a token that is bound to no key.
    pub(crate) async fn check_bearer(&self, token: &str) -> Result<Arc<GrantCaller>, AccessError> {
        let caller = match self.recall_caller(token) {
            Some(known) => known?,
            None => self.find_caller(token).await?,
        };
        caller.check_bearer()?;
        Ok(caller)
    }

    /// Whether a Bearer token claims, unverified, to be a grant's and addressed to Genkan. A
    /// session's token has another type, and a host as its audience.
    pub(crate) fn is_ours_by_grant(&self, token: &str) -> bool {
        Token::parse(token).is_ok_and(|token| token.unverified_claims().aud == self.settings.service_did)
    }

    /// Finds where the account of a token that is addressed to Genkan lives.
    async fn place(&self, mut caller: GrantCaller, grant: &Grant) -> Result<GrantCaller, AccessError> {
        // A token for the service itself names no host. The account may also have moved since the
        // token was issued.
        if caller.place == CallerPlace::Link && grant.place == GrantPlace::Home {
            let account = self.accounts.find(&caller.did).await?;
            let account = account.ok_or(AccessError::Token("the account does not exist"))?;
            caller.place = CallerPlace::Host(account.host);
        }
        Ok(caller)
    }

    async fn read_token(&self, token: &str) -> Result<GrantCaller, AccessError> {
        let wrong = AccessError::Token("the token could not be verified");
        let Ok(token) = Token::parse(token) else { return Err(wrong) };
        let audience = &token.unverified_claims().aud;
        let (place, verified) = if *audience == self.settings.service_did {
            let key = token.kid().and_then(|kid| self.ring.web_key_by_id(kid));
            // The ring has keys for other purposes too. What those sign is not an access token.
            let key = key.filter(|key| key.purpose == WebPurpose::Tokens);
            (CallerPlace::Link, key.and_then(|key| token.verify(&key.public).ok()))
        } else {
            let Some(host) = self.fleet.by_did(audience) else { return Err(wrong) };
            // A token has no `kid` for a host. During a rotation two keys are valid, so both are
            // tried.
            let keys = self.ring.host_keys(host.id.as_str());
            let verified = keys.iter().find_map(|key| token.verify(&key.public).ok());
            // No host accepts an unbound token, so none was issued.
            (CallerPlace::Host(host.id.clone()), verified.filter(|claims| claims.cnf.is_some()))
        };
        let Some(claims) = verified else { return Err(wrong) };
        let grant = ids::grant_of_token_id(&claims.jti).filter(|_| claims.iss == self.settings.issuer);
        let Some(grant) = grant else { return Err(wrong) };
        let written = TokenScope::of_claim(&claims.scope);
        let scope = match written.inline() {
            Some(scope) => scope,
            None => scopes::find(&self.db, written.as_str()).await?.ok_or(wrong)?,
        };
        Ok(GrantCaller {
            did: claims.sub.clone(),
            client_id: claims.client_id.clone(),
            grant,
            place,
            scope,
            written,
            key: claims.cnf.map(|cnf| cnf.jkt),
            expires_at: Timestamp::from_seconds(claims.exp),
            minted: HostTokenSlot::default(),
        })
    }
}

/// Returns the account that a bound token names, unverified. It can distinguish one account's token
/// from another's, but must never admit a request.
pub(crate) fn claimed_account(token: &str) -> Option<Did> {
    Token::parse(token).ok().map(|token| token.unverified_claims().sub.clone())
}

const ENDED: AccessError = AccessError::Token("the grant has ended");
const EXPIRED: AccessError = AccessError::Token("the token has expired");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use genkan_protocol::oauth::access_token::{self, AccessClaims};

    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::base::ManualClock;
    use crate::db::feed::Feed;
    use crate::db::{Db, on_each_database};
    use crate::oauth::testing;
    use crate::oauth::tokens::VerifiedTokens;

    on_each_database!(what_is_known_of_a_grants_token_ends_with_it_and_with_a_stale_feed);

    async fn what_is_known_of_a_grants_token_ends_with_it_and_with_a_stale_feed(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let now = app.clock.now();
        let ends = Timestamp::from_seconds(now.as_seconds() + 600);
        let grant = Grant {
            did: ann.did.clone(),
            dpop_key: None,
            idle_until: now.plus(Duration::from_hours(2)),
            expires_at: now.plus(Duration::from_hours(2)),
            ..testing::grant()
        };
        let mut tx = app.db.begin().await.unwrap();
        grants::insert(&mut tx, &grant).await.unwrap();
        tx.commit().await.unwrap();
        let claims = AccessClaims {
            iss: app.oauth.settings.issuer.clone(),
            aud: app.oauth.settings.service_did.clone(),
            sub: ann.did.clone(),
            scope: "atproto".to_owned(),
            client_id: grant.client_id.clone(),
            cnf: None,
            jti: ids::token_id(&grant.id),
            iat: now.as_seconds(),
            exp: ends.as_seconds(),
        };
        let key = app.oauth.ring.web_key(WebPurpose::Tokens);
        let token = access_token::sign_linked(&key.private, &key.id, &claims);
        let clock = ManualClock::at(ends.minus(Duration::from_secs(2)));
        let feed = Feed::new(app.db.clone());
        let verified = VerifiedTokens::new(&feed);
        let oauth = OAuth { feed, clock: clock.clock(), verified, ..app.oauth.clone() };
        assert!(oauth.recall_caller(&token).is_none());
        oauth.check_bearer(&token).await.unwrap();
        assert!(matches!(oauth.recall_caller(&token), Some(Ok(_))));
        clock.advance(Duration::from_secs(2));
        assert!(matches!(
            oauth.recall_caller(&token),
            Some(Err(AccessError::Token("the token has expired")))
        ));
        // The feed was not read since the token was checked, so the grant may have ended.
        oauth.feed.fall_silent();
        assert!(oauth.recall_caller(&token).is_none());
    }
}
