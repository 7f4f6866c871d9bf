//! Revocation of grants: by their client (RFC 7009), their account or the operator, or together
//! with all other credentials of an account.

use std::collections::HashSet;
use std::time::Duration;

use genkan_protocol::oauth::access_token::Token;
use genkan_protocol::oauth::dpop::Proof;
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::Form;
use genkan_protocol::syntax::Did;

use super::token::purpose_of_grant;
use crate::accounts::{self, Demand};
use crate::base::Timestamp;
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::db::{self, Tx};
use crate::oauth::call::Call;
use crate::oauth::client_trust::ClientTrust;
use crate::oauth::clients::{AuthenticatedClient, Client, ClientView};
use crate::oauth::error::Error;
use crate::oauth::grant::Grant;
use crate::oauth::ids::{self, CodeId, GrantId};
use crate::oauth::service::OAuth;
use crate::oauth::sql::grants::GrantsOf;
use crate::oauth::sql::{clients, codes, consents, grants};

/// A grant as its account sees it.
#[derive(Clone, Debug)]
pub(crate) struct GrantView {
    pub(crate) grant: Grant,
    pub(crate) client: ClientView,
}

impl OAuth {
    /// Ends the whole grant of a token that its client revokes. A proof is not required, but a
    /// wrong one is refused. A token of another client is ignored without an error.
    pub(crate) async fn revoke(&self, call: &Call<'_>, form: &Form) -> Result<(), Error> {
        let now = self.now();
        // Plain OAuth libraries send no proof here. Somebody who revokes a token that they found
        // does no harm.
        let proof = self.proof(call, now)?;
        let proof = proof.as_ref();
        let token = form.required("token")?;
        let client_id = form.required("client_id")?;
        let named = self.grant_named(token).await?;
        let grant = match &named {
            Some(grant) => grants::find(&self.db, grant).await?,
            None => None,
        };
        let purpose = purpose_of_grant(grant.as_ref(), client_id, now);
        // An unknown token is not an error: the client could do nothing about it (RFC 7009 §2.2).
        // Nothing is fetched for it, so nothing may be known of its client.
        let Some(client) = self.clients.find(client_id, purpose).await? else { return Ok(()) };
        let proven = match self.authenticate(&client, form, proof, purpose).await {
            Err(Error::Refused(refusal)) if refusal.code == Code::InvalidGrant => return Ok(()),
            proven => proven?,
        };
        db::repeated(|| self.revoke_once(named.as_ref(), &client, &proven, proof, now)).await
    }

    async fn revoke_once(
        &self,
        named: Option<&GrantId>,
        client: &Client,
        proven: &AuthenticatedClient,
        proof: Option<&Proof>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        self.use_up(&mut tx, proof, client, proven, now).await?;
        if let Some(grant) = named {
            self.links.hold(&mut tx, grant).await?;
            let own = grants::hold(&mut tx, grant).await?.filter(|grant| {
                grant.client_id == client.id.as_str()
                    && (proof.is_none() || grant.is_held_by(proof))
                    && grant.client_auth.may_go_on_as(&proven.auth)
            });
            if let Some(grant) = own {
                let by = Actor::Account(&grant.did);
                self.end_in(&mut tx, &grant.id, by, "revoked by the client", now).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Returns an account's grants, the newest first.
    pub(crate) async fn list_of(&self, did: &Did) -> Result<Vec<GrantView>, Error> {
        let mut views = Vec::new();
        for grant in grants::list(&self.db, GrantsOf::Account(did), self.now(), MOST).await? {
            let client = self.clients.shown(&grant.client_id).await?;
            views.push(GrantView { grant, client });
        }
        Ok(views)
    }

    /// Revokes one grant of the account. Its client must then ask for consent again. Returns
    /// `false` if the account has no such grant.
    pub(crate) async fn end(&self, did: &Did, grant: &GrantId) -> Result<bool, Error> {
        db::repeated(|| self.end_once(did, grant)).await
    }

    async fn end_once(&self, did: &Did, grant: &GrantId) -> Result<bool, Error> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        self.links.hold(&mut tx, grant).await?;
        let Some(held) = grants::hold(&mut tx, grant).await?.filter(|held| held.did == *did) else {
            return Ok(false);
        };
        let by = Actor::Account(did);
        let was_alive = self.end_in(&mut tx, grant, by, "taken back by the account", now).await?;
        // Otherwise a confidential client could get the next grant without asking the person.
        consents::remove(&mut tx, did, &held.client_id).await?;
        tx.commit().await?;
        Ok(was_alive)
    }

    /// Ends everything that an account has allowed, as part of `tx`: grants, unused codes and
    /// remembered consents. Pending requests need no ending: without a sign-in they cannot be
    /// approved.
    pub(crate) async fn end_all_of(&self, tx: &mut Tx, did: &Did) -> db::Result<()> {
        let now = self.now();
        // A transaction that creates a code or a grant holds this row too. So its code or grant
        // ends here, or it sees the account's new standing.
        accounts::hold(tx, did, Demand::Nothing).await?;
        codes::remove_unused_of(tx, did).await?;
        self.end_all_in(tx, did, now).await?;
        consents::remove_all(tx, did).await
    }

    /// Returns grants for the operator, the newest first.
    pub(crate) async fn list(&self, whose: GrantsOf<'_>, limit: i64) -> Result<Vec<Grant>, Error> {
        Ok(grants::list(&self.db, whose, self.now(), limit).await?)
    }

    /// Returns the known clients by name.
    pub(crate) async fn clients(
        &self,
        trust: Option<ClientTrust>,
    ) -> Result<Vec<clients::StoredClient>, Error> {
        let mut all: Vec<clients::StoredClient> = Vec::new();
        loop {
            let after = all.last().map_or("", |client| client.client_id.as_str());
            let page = clients::list(&self.db, trust, after).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    pub(crate) async fn client(&self, client_id: &str) -> Result<Option<clients::StoredClient>, Error> {
        Ok(clients::find(&self.db, client_id).await?)
    }

    /// Ends a grant whose link has ended. Returns `false` if the grant had ended, too.
    pub(crate) async fn end_dead(&self, grant: &GrantId) -> Result<bool, Error> {
        self.end_by(Actor::Genkan, grant, LINK_IS_OVER).await
    }

    /// Returns which of these grants have ended or never existed.
    pub(crate) async fn over_among(&self, ids: &[GrantId]) -> Result<Vec<GrantId>, Error> {
        let alive = grants::alive_among(&self.db, ids, self.now()).await?;
        Ok(ids.iter().filter(|id| !alive.contains(*id)).cloned().collect())
    }

    /// Returns which of these grants have not ended.
    pub(crate) async fn alive_among(&self, ids: &[GrantId]) -> Result<HashSet<GrantId>, Error> {
        Ok(grants::alive_among(&self.db, ids, self.now()).await?)
    }

    /// Job: ends linked accounts' grants that ran out, with their links, and the links of codes that
    /// no app redeemed. Returns how many ended.
    pub(crate) async fn end_run_out(&self) -> Result<u64, Error> {
        let now = self.now();
        let mut ended = 0;
        // Goes on after the last one, whatever became of it: one that cannot be read stays.
        let mut after = None;
        loop {
            let found = grants::linked_and_idle(&self.db, after.as_ref(), now).await?;
            let Some(last) = found.last() else { break };
            after = Some(last.clone());
            for idle in &found {
                ended += u64::from(unless_it_fails_alone(
                    db::repeated(|| self.end_if_run_out(&idle.id, now)).await,
                )?);
            }
        }
        loop {
            let before = ended;
            for (code, link) in &codes::unredeemed(&self.db, now).await? {
                ended += u64::from(unless_it_fails_alone(
                    db::repeated(|| self.end_unredeemed(code, link, now)).await,
                )?);
            }
            // None is left, but for those that cannot end.
            if ended == before {
                return Ok(ended);
            }
        }
    }

    async fn end_if_run_out(&self, grant: &GrantId, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        self.links.hold(&mut tx, grant).await?;
        // Read again under the lock: it may have been refreshed, or ended, since it was found.
        let held = grants::hold(&mut tx, grant).await?;
        if held.is_none_or(|held| held.is_alive(now) || held.ended_at.is_some()) {
            return Ok(false);
        }
        let ended = self.end_in(&mut tx, grant, Actor::Genkan, "it was not used for too long", now).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn end_unredeemed(&self, code: &CodeId, link: &GrantId, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        self.links.end(&mut tx, link, now).await?;
        let separated = codes::drop_link(&mut tx, code).await?;
        if separated {
            tx.commit().await?;
        }
        Ok(separated)
    }

    /// Ends a grant for the operator. Returns `false` if it had ended or never existed.
    pub(crate) async fn end_by_operator(&self, grant: &GrantId) -> Result<bool, Error> {
        self.end_by(Actor::Operator, grant, "ended by the operator").await
    }

    async fn end_by(&self, by: Actor<'_>, grant: &GrantId, why: &str) -> Result<bool, Error> {
        let now = self.now();
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            let was_alive = self.end_in(&mut tx, grant, by, why, now).await?;
            tx.commit().await?;
            Ok(was_alive)
        })
        .await
    }

    /// Sets the operator's trust in a client. A blocked client loses every grant. Returns how many
    /// it lost.
    pub(crate) async fn set_trust(&self, client_id: &str, trust: ClientTrust) -> Result<usize, Error> {
        // Blocked first, in a transaction of its own: from then on no call of this client passes,
        // however long it takes to end its grants.
        self.clients.set_trust(client_id, trust).await?;
        if trust != ClientTrust::Blocked {
            return Ok(0);
        }
        self.end_all_of_blocked(client_id).await
    }

    /// Job: ends the grants of blocked clients that a stopped process left. Returns how many.
    pub(crate) async fn end_of_blocked_clients(&self) -> Result<u64, Error> {
        let mut ended = 0;
        for client_id in clients::blocked(&self.db).await? {
            match self.end_all_of_blocked(&client_id).await {
                Err(Error::Storage(cause)) if !cause.is_passing() => {
                    let cause = &cause as &dyn std::error::Error;
                    tracing::error!(cause, client_id, "the grants of a blocked client do not end");
                }
                outcome => ended += outcome? as u64,
            }
        }
        Ok(ended)
    }

    /// Ends all grants of a blocked client, a batch in each transaction. Stops when the client is no
    /// longer blocked.
    async fn end_all_of_blocked(&self, client_id: &str) -> Result<usize, Error> {
        let mut all = 0;
        loop {
            let Some(ended) = db::repeated(|| self.end_some_of_blocked(client_id)).await? else {
                return Ok(all);
            };
            all += ended;
            // Every process reads the notes of the last half minute each second. At this pace a
            // million grants take twenty minutes, and the notes stay few.
            tokio::time::sleep(Duration::from_millis(self.db.rows_at_once())).await;
        }
    }

    /// Ends a batch of a blocked client's grants. Returns `None` if none is left, or the client is no
    /// longer blocked.
    async fn end_some_of_blocked(&self, client_id: &str) -> db::Result<Option<usize>> {
        let mut tx = self.db.begin().await?;
        if !clients::hold_blocked(&mut tx, client_id).await? {
            return Ok(None);
        }
        let batch = grants::some_of_client(&mut tx, client_id, self.db.rows_at_once()).await?;
        if batch.is_empty() {
            return Ok(None);
        }
        let ended = self.end_each(&mut tx, &batch, self.now()).await?;
        tx.commit().await?;
        Ok(Some(ended))
    }

    /// Sets whether a client gets plain Bearer tokens. Existing tokens stay as they are.
    pub(crate) async fn set_bearer(&self, client_id: &str, bearer: bool) -> Result<(), Error> {
        self.clients.set_bearer(client_id, bearer).await
    }

    /// Ends an account's grants with their links.
    async fn end_all_in(&self, tx: &mut Tx, did: &Did, now: Timestamp) -> db::Result<()> {
        // One note per grant: each is a key of the caches that must drop it.
        for grant in &grants::end_all_at_home(tx, did, now).await? {
            feed::note(tx, Change::Grant, grant.as_str()).await?;
        }
        let linked = grants::linked(tx, did).await?;
        self.end_each(tx, &linked, now).await?;
        Ok(())
    }

    /// Ends these grants with their links; returns how many had not ended. `grants` is in the order
    /// of ids, as in every transaction that ends several: two of them would otherwise wait for each
    /// other.
    async fn end_each(&self, tx: &mut Tx, grants: &[GrantId], now: Timestamp) -> db::Result<usize> {
        let mut ended = 0;
        for grant in grants {
            self.links.end(tx, grant, now).await?;
            if grants::end(tx, grant, now).await? {
                feed::note(tx, Change::Grant, grant.as_str()).await?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Ends a grant and its link. `false`: the grant was over, or never was.
    pub(in crate::oauth) async fn end_in(
        &self,
        tx: &mut Tx,
        grant: &GrantId,
        by: Actor<'_>,
        why: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        self.links.end(tx, grant, now).await?;
        Ok(end_row(tx, grant, by, why, now).await?)
    }

    /// Returns the grant that a token of any kind and age belongs to.
    async fn grant_named(&self, token: &str) -> Result<Option<GrantId>, Error> {
        // The form's `token_type_hint` is not needed, because each kind of token has its own form.
        if let Some(id) = self.refresh_tokens.read(token) {
            return Ok(Some(id.grant));
        }
        if let Some(grant) = ids::grant_of_token_id(token) {
            return Ok(Some(grant));
        }
        // RFC 7009 names access and refresh tokens only. A code is accepted too, since it leads to
        // a grant.
        if token.starts_with("cod-") {
            return Ok(codes::grant_of(&self.db, &CodeId::of(token)).await?);
        }
        Ok(self.token_id_of(token).as_deref().and_then(ids::grant_of_token_id))
    }

    /// Returns the id of an access token that Genkan signed, even an expired one.
    fn token_id_of(&self, token: &str) -> Option<String> {
        let token = Token::parse(token).ok()?;
        // The unverified audience only selects the keys to try. The signature decides.
        if token.unverified_claims().aud == self.settings.service_did {
            let key = self.ring.web_key_by_id(token.kid()?)?;
            return token.verify(&key.public).ok().map(|claims| claims.jti.clone());
        }
        let host = self.fleet.by_did(&token.unverified_claims().aud)?;
        let keys = self.ring.host_keys(host.id.as_str());
        keys.iter().find_map(|key| token.verify(&key.public).ok()).map(|claims| claims.jti.clone())
    }
}

/// Ends the grant of a link that ends in `tx`. A link that waits for its person has none, which is no
/// error.
pub(crate) async fn end_with_link(tx: &mut Tx, grant: &GrantId, now: Timestamp) -> db::Result<()> {
    end_row(tx, grant, Actor::Genkan, LINK_IS_OVER, now).await?;
    Ok(())
}

/// `false`: it was over, or never was.
async fn end_row(tx: &mut Tx, grant: &GrantId, by: Actor<'_>, why: &str, now: Timestamp) -> db::Result<bool> {
    if !grants::end(tx, grant, now).await? {
        return Ok(false);
    }
    audit::record(tx, now, by, "oauth.end", grant.as_str(), why).await?;
    feed::note(tx, Change::Grant, grant.as_str()).await?;
    Ok(true)
}

const LINK_IS_OVER: &str = "its linked session is over";

const MOST: i64 = 1_000;

/// Logs a failure that is about one row and not about the database. It must not stop the work on the
/// others.
fn unless_it_fails_alone(outcome: Result<bool, Error>) -> Result<bool, Error> {
    match outcome {
        Err(Error::Storage(cause)) if !cause.is_passing() => {
            tracing::error!(cause = &cause as &dyn std::error::Error, "a grant that ran out does not end");
            Ok(false)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use sqlx::Row as _;

    use super::*;
    use crate::app::testing::app_with_ann;
    use crate::db::{Db, on_each_database};
    use crate::oauth::clients::Purpose;
    use crate::oauth::grant::GrantPlace;
    use crate::oauth::testing::grant;

    on_each_database!(
        a_grant_that_cannot_be_read_stops_no_others,
        the_grants_of_a_blocked_client_end_in_batches
    );

    async fn a_grant_that_cannot_be_read_stops_no_others(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let mut tx = app.db.begin().await.unwrap();
        for id in ["broken", "whole"] {
            let grant = Grant { id: id.into(), did: ann.did.clone(), place: GrantPlace::Link, ..grant() };
            grants::insert(&mut tx, &grant).await.unwrap();
        }
        let damage = "UPDATE oauth_grants SET client_auth = 'not JSON', idle_until = 1 WHERE id = 'broken'";
        sqlx::query(damage).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(app.oauth.end_run_out().await.unwrap(), 1);
        let whole = [GrantId::from("whole")];
        assert_eq!(app.oauth.over_among(&whole).await.unwrap(), whole);
        assert_eq!(app.oauth.end_run_out().await.unwrap(), 0);
    }

    const GRANTS: usize = 450;

    async fn the_grants_of_a_blocked_client_end_in_batches(db: Db) {
        let app = app_with_ann(db).await.0;
        let client = grant().client_id;
        let mut tx = app.db.begin().await.unwrap();
        for number in 0..GRANTS {
            let grant = Grant { id: format!("{number:024}").into(), ..grant() };
            grants::insert(&mut tx, &grant).await.unwrap();
        }
        clients::put_document(&mut tx, &client, "{}", app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        app.feed.subscribe(Change::Grant, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });

        let mut blocking = Box::pin(app.oauth.set_trust(&client, ClientTrust::Blocked));
        // Up to the pause after the first batch. The first note is about the client.
        poll_fn(|context| match blocking.as_mut().poll(context) {
            Poll::Ready(ended) => panic!("it ended them without a pause: {ended:?}"),
            Poll::Pending if told.load(Ordering::SeqCst) > 1 => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
        let at_once = usize::try_from(app.db.rows_at_once()).unwrap();
        assert_eq!(told.load(Ordering::SeqCst), 1 + at_once);
        for purpose in [Purpose::Begin { network: [192, 0, 2, 1].into() }, Purpose::GoOn, Purpose::Recall] {
            let found = app.oauth.clients.find(&client, purpose).await;
            let Err(Error::Refused(refusal)) = found else { panic!("{purpose:?}: {found:?}") };
            assert_eq!(refusal.code, Code::InvalidClient, "{purpose:?}");
        }
        assert_eq!(blocking.await.unwrap(), GRANTS);
        // Each transaction has a time of its own.
        let text = "SELECT COUNT(*) AS number FROM oauth_grants GROUP BY ended_at ORDER BY ended_at";
        let rows = sqlx::query(text).fetch_all(app.db.reader()).await.unwrap();
        let batches: Vec<i64> = rows.iter().map(|row| row.get("number")).collect();
        let mut expected = vec![i64::try_from(at_once).unwrap(); GRANTS / at_once];
        expected.extend(i64::try_from(GRANTS % at_once).ok().filter(|rest| *rest > 0));
        assert_eq!(batches, expected);
    }
}
