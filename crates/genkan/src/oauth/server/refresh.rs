//! The exchange of a refresh token for new tokens.
//!
//! One token has one successor on any number of replicas, because the grant's row is held while
//! that is decided. A caller that cannot prove the grant's key learns nothing and ends nothing: a
//! stolen token alone must not sign its owner out.

use genkan_protocol::oauth::dpop::Proof;
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::Form;

use super::mint::{Tokens, token_subject};
use super::token::OF_ANOTHER;
use crate::accounts::Account;
use crate::base::Timestamp;
use crate::db::audit::Actor;
use crate::db::{self, Tx};
use crate::oauth::clients::{AuthenticatedClient, Client, Purpose};
use crate::oauth::error::Error;
use crate::oauth::grant::{Grant, GrantPlace, LONG, Rotation, SHORT};
use crate::oauth::parameters::ClientAuth;
use crate::oauth::scope::ExpandedScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::grants;
use crate::oauth::tokens::RefreshTokenId;

/// A refresh of a grant.
#[derive(Clone)]
struct RefreshRequest<'a> {
    client: &'a Client,
    proven: &'a AuthenticatedClient,
    proof: Option<&'a Proof>,
    generation: i64,
    account: Option<&'a Account>,
    scope: ExpandedScope,
    /// Whether the client's key set no longer has the key of the grant.
    key_is_gone: bool,
}

impl RefreshRequest<'_> {
    /// Returns the grant after its rotation to a generation.
    fn rotated(&self, grant: &Grant, generation: i64, now: Timestamp) -> Grant {
        // Decided again at each rotation: meanwhile the operator may have trusted the client, or
        // the client may have become confidential.
        let span = if self.client.is_believed() { LONG } else { SHORT };
        grant.clone().rotated(generation, self.proven.auth.clone(), now, span)
    }
}

impl OAuth {
    /// Issues the next tokens of a grant. `presented` is the refresh token and its grant, as far as
    /// they are known.
    pub(in crate::oauth) async fn refresh(
        &self,
        presented: Option<(RefreshTokenId, Grant)>,
        form: &Form,
        client: &Client,
        proof: Option<&Proof>,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        // An unknown token leads on, so that the client is authenticated before it learns anything.
        // Found out before the transaction, because the client's key set may have to be fetched.
        let key_is_gone = match &presented {
            Some((_, grant)) => self.clients.lacks_key_of(client, &grant.client_auth, purpose).await?,
            None => false,
        };
        let proven = match self.authenticate(client, form, proof, purpose).await {
            Err(Error::Refused(refusal)) if key_is_gone && refusal.code == Code::InvalidClient => {
                // The assertion was signed with the removed key. The DPoP proof still shows that
                // the caller holds the grant's other key.
                AuthenticatedClient { auth: ClientAuth::None, assertion: None }
            }
            done => done?,
        };
        let Some((id, grant)) = presented else {
            return Err(Error::grant("the refresh token is invalid"));
        };
        let account = self.accounts.find(&grant.did).await?;
        let scope = self.sets.expand(&grant.scope).await?;
        let with = RefreshRequest {
            client,
            proven: &proven,
            proof,
            generation: id.generation,
            account: account.as_ref(),
            scope,
            key_is_gone,
        };
        db::repeated(|| self.refresh_once(&grant, &with, now)).await
    }

    async fn refresh_once(
        &self,
        grant: &Grant,
        with: &RefreshRequest<'_>,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let mut tx = self.db.begin().await?;
        self.use_up(&mut tx, with.proof, with.client, with.proven, now).await?;
        let done = self.refresh_in(&mut tx, grant, with.clone(), now).await;
        // A refusal is committed too: it may have ended the grant, and its proof stays used up.
        if matches!(done, Ok(_) | Err(Error::Refused(_))) {
            tx.commit().await?;
        }
        done
    }

    async fn refresh_in(
        &self,
        tx: &mut Tx,
        found: &Grant,
        with: RefreshRequest<'_>,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let is_founded = found.place == GrantPlace::Home || self.links.hold(tx, &found.id).await?;
        // Nearly always the grant is as it was found, and one statement both decides that and
        // rotates it.
        if is_founded
            && let Some(rotated) = self.rotation_of(found, &with, now)
            && grants::rotate(tx, found, &rotated).await?
        {
            return self.tokens_of(tx, &rotated, with, now).await;
        }
        let grant = grants::hold(tx, &found.id).await?.filter(|grant| is_founded && grant.is_alive(now));
        let grant = grant.ok_or_else(|| Error::grant("the grant has ended"))?;
        if !grant.is_held_by(with.proof) {
            return Err(Error::grant("the refresh token is bound to another DPoP key"));
        }
        // The caller has proved the grant's key, so a refusal may end the grant from here on.
        let why = if grant.client_id != with.client.id.as_str() {
            OF_ANOTHER
        } else if with.key_is_gone {
            "the key that the client authenticated with is no longer in its key set"
        } else {
            match grant.rotation(with.generation, now, self.settings.refresh_grace) {
                // This refusal does not end the grant: a client that used the wrong one of its keys
                // can try again with the right one.
                Rotation::To(_) | Rotation::Again(_)
                    if !grant.client_auth.may_go_on_as(&with.proven.auth) =>
                {
                    return Err(Error::grant("the client authenticated with another key before"));
                }
                Rotation::To(generation) => {
                    let rotated = with.rotated(&grant, generation, now);
                    grants::rotate(tx, &grant, &rotated).await?;
                    return self.tokens_of(tx, &rotated, with, now).await;
                }
                Rotation::Again(_) => return self.tokens_of(tx, &grant, with, now).await,
                Rotation::Refused => return Err(Error::grant("the refresh token was already used")),
                Rotation::Replayed => "the refresh token was already used: replay detected",
            }
        };
        self.end_in(tx, &grant.id, Actor::Genkan, why, now).await?;
        Err(Error::grant(why))
    }

    /// Returns the grant after its rotation, if this request rotates it and no rule refuses that.
    fn rotation_of(&self, grant: &Grant, with: &RefreshRequest<'_>, now: Timestamp) -> Option<Grant> {
        let is_allowed = grant.is_alive(now)
            && grant.is_held_by(with.proof)
            && grant.client_id == with.client.id.as_str()
            && !with.key_is_gone
            && grant.client_auth.may_go_on_as(&with.proven.auth);
        match grant.rotation(with.generation, now, self.settings.refresh_grace) {
            Rotation::To(generation) if is_allowed => Some(with.rotated(grant, generation, now)),
            _ => None,
        }
    }

    async fn tokens_of(
        &self,
        tx: &mut Tx,
        grant: &Grant,
        with: RefreshRequest<'_>,
        now: Timestamp,
    ) -> Result<Tokens, Error> {
        let subject = token_subject(grant.place == GrantPlace::Link, &grant.did, with.account)?;
        self.mint(tx, grant, &subject, with.scope, now).await
    }
}
