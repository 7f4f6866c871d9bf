//! The exchange of a code for tokens: once, within a minute, and by the client that it was issued
//! to.

use genkan_protocol::oauth::dpop::Proof;
use genkan_protocol::oauth::pkce::Challenge;

use super::mint::{Tokens, token_subject};
use crate::accounts::{self, Account, Demand};
use crate::base::{Timestamp, WaitingClient};
use crate::db::audit::{self, Actor};
use crate::db::{self, Tx};
use crate::oauth::clients::{AuthenticatedClient, Client};
use crate::oauth::error::Error;
use crate::oauth::grant::{Grant, GrantPlace, LONG, SHORT, is_held_by};
use crate::oauth::ids::{CodeId, GrantId};
use crate::oauth::scope::ExpandedScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::{codes, grants};
use crate::oauth::tokens::{CHALLENGE, OneTimeUse};

/// A redemption of a code.
#[derive(Clone)]
struct Redemption<'a> {
    client: &'a Client,
    proven: &'a AuthenticatedClient,
    proof: Option<&'a Proof>,
    redirect_uri: &'a str,
    verifier: &'a str,
    account: Option<&'a Account>,
    /// `None` if there is no such code.
    scope: Option<ExpandedScope>,
}

/// What a redemption did to a code before it was refused.
#[derive(Default)]
struct Traces {
    /// It was the first to use the code up.
    has_taken: bool,
    /// The code was used before, and became a grant.
    leaked: Option<codes::StoredCode>,
}

/// What a committed redemption came to.
struct Redeemed {
    /// Tokens, or a refusal.
    outcome: Result<Tokens, Error>,
    /// A code that was used twice.
    leaked: Option<codes::StoredCode>,
}

impl OAuth {
    #[expect(clippy::too_many_arguments, reason = "the parameters of the request, once")]
    pub(super) async fn redeem(
        &self,
        (id, peeked): (&CodeId, Option<&codes::PeekedCode>),
        redirect_uri: &str,
        verifier: &str,
        client: &Client,
        proven: &AuthenticatedClient,
        proof: Option<&Proof>,
        waiting: &WaitingClient,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        // Looked up before the transaction, so that it holds no row while other servers are asked.
        let (account, scope) = match peeked {
            Some(code) => (self.accounts.find(&code.did).await?, Some(self.sets.expand(&code.scope).await?)),
            None => (None, None),
        };
        let redemption =
            Redemption { client, proven, proof, redirect_uri, verifier, account: account.as_ref(), scope };
        let Redeemed { outcome, leaked } =
            db::repeated(|| self.redeem_once(id, &redemption, waiting, now)).await?;
        if let Some(code) = leaked
            && let Err(cause) = self.sign_ins.sign_out_at(&code.device, &code.did).await
        {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a browser could not be signed out");
        }
        outcome
    }

    async fn redeem_once(
        &self,
        id: &CodeId,
        redemption: &Redemption<'_>,
        waiting: &WaitingClient,
        now: Timestamp,
    ) -> Result<Redeemed, Error> {
        let mut tx = self.db.begin().await?;
        self.use_up(&mut tx, redemption.proof, redemption.client, redemption.proven, now).await?;
        let mut traces = Traces::default();
        let outcome = self.redeem_in(&mut tx, id, redemption.clone(), &mut traces, now).await;
        match outcome {
            // The client would send the code again, which ends the grant.
            Ok(_) => tx.commit_for(waiting).await?,
            // A refusal uses the code up as well.
            Err(Error::Refused(_)) => {
                if traces.has_taken {
                    codes::disown(&mut tx, id).await?;
                }
                tx.commit().await?;
            }
            // A failure of Genkan uses up nothing.
            Err(failure) => return Err(failure),
        }
        Ok(Redeemed { outcome, leaked: traces.leaked })
    }

    async fn redeem_in(
        &self,
        tx: &mut Tx,
        id: &CodeId,
        with: Redemption<'_>,
        traces: &mut Traces,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        // The account's row first, in the same order as in a transaction that ends every grant.
        let is_active = match with.account {
            Some(account) => accounts::hold(tx, &account.did, Demand::Active).await?,
            None => false,
        };
        let Some((first, code)) = codes::take(tx, id, &GrantId::fresh(), now).await? else {
            return Err(Error::grant("the authorization code is invalid or has expired"));
        };
        if !first {
            // A code that is used twice has leaked. The grant that it became ends, and the browser
            // is signed out.
            if let Some(grant) = &code.grant_id {
                self.end_in(tx, grant, Actor::Genkan, "a code was used twice", now).await?;
                // The caller signs the browser out after this transaction, because signing out is a
                // transaction of its own and SQLite has one write connection.
                traces.leaked = Some(code);
            }
            return Err(Error::grant("the authorization code was already used"));
        }
        traces.has_taken = true;
        check(&code, &with, now)?;
        let challenge = OneTimeUse::Challenge(&code.pushed.code_challenge);
        // If a client reused its challenge, anyone who saw one exchange would know the verifier of
        // the next.
        if !self.seen.is_first(tx, challenge, now.plus(CHALLENGE), now).await? {
            return Err(Error::grant("the code_challenge was already used"));
        }
        let subject = token_subject(code.link.is_some(), &code.did, with.account)?;
        // An account on an external PDS has no row here that could be held. Its own server speaks
        // for it.
        if code.link.is_none() && !is_active {
            return Err(Error::grant("the account is not active"));
        }
        // The link may have ended since its person allowed the app. Held, so that it cannot end before
        // its grant is there to end with it.
        if let Some(link) = &code.link
            && !self.links.hold(tx, link).await?
        {
            return Err(Error::grant("the session at the account's own server has ended"));
        }
        let grant = self.grant(&code, &with, now);
        grants::insert(tx, &grant).await?;
        let detail = format!("{} {}", grant.client_id, grant.scope);
        audit::record(tx, now, Actor::Account(&grant.did), "oauth.grant", grant.id.as_str(), &detail).await?;
        let unknown = || Error::grant("the authorization code is invalid or has expired");
        self.mint(tx, &grant, &subject, with.scope.ok_or_else(unknown)?, now).await
    }

    fn grant(&self, code: &codes::StoredCode, with: &Redemption<'_>, now: Timestamp) -> Grant {
        let span = if with.client.is_believed() { LONG } else { SHORT };
        let refreshable = with.client.metadata.refreshes;
        // Without refresh tokens a grant has no use after its first access token.
        let expires_at = now.plus(if refreshable { span.total } else { self.settings.access_lifetime });
        Grant {
            id: code.grant_id.clone().unwrap_or_else(GrantId::fresh),
            place: if code.link.is_some() { GrantPlace::Link } else { GrantPlace::Home },
            did: code.did.clone(),
            client_id: code.client_id.clone(),
            scope: code.scope.clone(),
            dpop_key: code.pushed.dpop_key.clone(),
            client_auth: with.proven.auth.clone(),
            device: code.device.clone(),
            refreshable,
            generation: 0,
            rotated_at: now,
            rotated_before_at: now,
            idle_until: now.plus(span.idle).min(expires_at),
            expires_at,
            created_at: now,
            ended_at: None,
        }
    }
}

fn check(code: &codes::StoredCode, with: &Redemption<'_>, now: Timestamp) -> Result<(), Error> {
    let pushed = &code.pushed;
    let met =
        pushed.code_challenge.parse::<Challenge>().is_ok_and(|challenge| challenge.is_met_by(with.verifier));
    // RFC 6749 §4.1.3 for the client and the redirect URI, RFC 9449 §10 for the key, RFC 7636 §4.6
    // for the verifier. The first check that fails gives the message.
    let checks = [
        (now < code.expires_at, "the authorization code is invalid or has expired"),
        (code.client_id == with.client.id.as_str(), "the authorization code was issued to another client"),
        (
            pushed.client_auth.may_go_on_as(&with.proven.auth),
            "the client authenticated with another key before",
        ),
        (
            is_held_by(pushed.dpop_key.as_deref(), with.proof),
            "the authorization code is bound to another DPoP key",
        ),
        (pushed.redirect_uri == with.redirect_uri, "redirect_uri does not match the authorization request"),
        (met, "code_verifier does not match the code_challenge"),
    ];
    match checks.into_iter().find(|(good, _)| !good) {
        Some((_, why)) => Err(Error::grant(why)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use genkan_protocol::oauth::client_id::ClientId;
    use genkan_protocol::oauth::client_metadata::ClientMetadata;
    use genkan_protocol::oauth::pkce::verifier_of;
    use genkan_protocol::oauth::request::Form;

    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::testing::Fresh;
    use crate::db::{Db, on_each_database};
    use crate::oauth::clients::Purpose;
    use crate::oauth::parameters::{ClientAuth, RequestParameters};
    use crate::oauth::scope::ApprovedScope;
    use crate::oauth::testing;

    on_each_database!(an_account_that_is_taken_down_after_it_was_read_gets_no_tokens);

    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_transaction_that_gives_way_is_repeated() {
        let fresh = Fresh::postgres().await;
        let db = &fresh.db;
        let (app, ann) = app_with_ann(db.clone()).await;
        let (oauth, now) = (&app.oauth, app.clock.now());
        let (client, proven) = development_client();
        let verifier = verifier_of(&[7; 32]);
        let code = code_of(&client, &ann, &verifier, now);
        let mut tx = db.begin().await.unwrap();
        codes::insert(&mut tx, &CodeId::of("code"), &code).await.unwrap();
        tx.commit().await.unwrap();
        let (uri, waiting) = (&code.pushed.redirect_uri, WaitingClient::patient());
        let id = CodeId::of("code");
        let peeked = codes::peek(db, &id).await.unwrap();
        let found = (&id, peeked.as_ref());
        let redeeming = oauth.redeem(found, uri, &verifier, &client, &proven, None, &waiting, now);
        let token = db.giving_way("oauth_grants", redeeming).await.unwrap().refresh.unwrap();
        let form = Form::parse(b"").unwrap();
        let id = oauth.refresh_tokens.read(token.expose()).unwrap();
        let grant = grants::find(db, &id.grant).await.unwrap().unwrap();
        let refreshing = oauth.refresh(Some((id, grant)), &form, &client, None, Purpose::GoOn, now);
        db.giving_way("oauth_grants", refreshing).await.unwrap();
    }

    fn development_client() -> (Client, AuthenticatedClient) {
        let id = ClientId::parse("http://localhost", &[]).unwrap();
        let metadata = Arc::new(ClientMetadata::of_development(&id).unwrap());
        let client = Client { id, metadata, trusted: false, bearer: false };
        (client, AuthenticatedClient { auth: ClientAuth::None, assertion: None })
    }

    fn code_of(client: &Client, account: &Account, verifier: &str, now: Timestamp) -> codes::StoredCode {
        let pushed = RequestParameters {
            code_challenge: Challenge::of(verifier).to_string(),
            dpop_key: None,
            ..testing::pushed()
        };
        codes::StoredCode {
            client_id: client.id.as_str().to_owned(),
            scope: ApprovedScope::stored("atproto".to_owned()),
            did: account.did.clone(),
            device: "dev-1".to_owned().into(),
            expires_at: now.plus(Duration::from_mins(1)),
            grant_id: None,
            link: None,
            pushed,
        }
    }

    async fn an_account_that_is_taken_down_after_it_was_read_gets_no_tokens(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let (oauth, now) = (&app.oauth, app.clock.now());
        let (client, proven) = development_client();
        for is_taken_down in [false, true] {
            let verifier = verifier_of(&[u8::from(is_taken_down); 32]);
            let code = code_of(&client, &ann, &verifier, now);
            let mut tx = app.db.begin().await.unwrap();
            codes::insert(&mut tx, &CodeId::of(&verifier), &code).await.unwrap();
            if is_taken_down {
                app.accounts.set_taken_down(&mut tx, &ann.did, Some("T-1"), Actor::Operator).await.unwrap();
            }
            tx.commit().await.unwrap();
            // The account as it was read before the transaction.
            let redemption = Redemption {
                client: &client,
                proven: &proven,
                proof: None,
                redirect_uri: &code.pushed.redirect_uri,
                verifier: &verifier,
                account: Some(&ann),
                scope: Some(ExpandedScope::for_tests("atproto")),
            };
            let (id, waiting) = (CodeId::of(&verifier), WaitingClient::patient());
            let done = oauth.redeem_once(&id, &redemption, &waiting, now).await.unwrap().outcome;
            assert_eq!(matches!(done, Err(Error::Refused(_))), is_taken_down, "{done:?}");
            assert_eq!(done.is_ok(), !is_taken_down);
            // The code of a grant is kept with it. A code that became none is swept.
            assert_eq!(codes::grant_of(&app.db, &id).await.unwrap().is_some(), !is_taken_down);
            assert!(codes::peek(&app.db, &id).await.unwrap().unwrap().is_used);
        }
    }
}
