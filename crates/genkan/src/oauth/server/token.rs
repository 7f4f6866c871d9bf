//! The token endpoint: exchanges a code or a refresh token for tokens.

use genkan_protocol::oauth::dpop::Proof;
use genkan_protocol::oauth::request::{Form, TokenRequest};

use super::mint::Tokens;
use crate::base::{Timestamp, WaitingClient};
use crate::db;
use crate::db::audit::Actor;
use crate::oauth::call::Call;
use crate::oauth::clients::Purpose;
use crate::oauth::error::Error;
use crate::oauth::grant::Grant;
use crate::oauth::ids::{CodeId, GrantId};
use crate::oauth::service::OAuth;
use crate::oauth::sql::{codes, grants};
use crate::oauth::tokens::RefreshTokenId;

impl OAuth {
    /// Answers the token endpoint. The order is proof, client, grant. One transaction uses
    /// everything up.
    ///
    /// The client's documents are fetched only for a live code or token of this client. Without one
    /// the caller may be anyone, and what is stored of the client decides how it is refused.
    ///
    /// A code stays good if `waiting` does not wait for its tokens. Those of a refresh token can be
    /// asked for again.
    pub(crate) async fn token(
        &self,
        call: &Call<'_>,
        form: &Form,
        waiting: &WaitingClient,
    ) -> Result<Tokens, Error> {
        let now = self.now();
        let client_id = form.get("client_id").unwrap_or_default();
        let proof = self.due_proof(call, client_id, now).await?;
        let proof = proof.as_ref();
        let asked = TokenRequest::parse(form)?;
        let client_id = form.required("client_id")?;
        let presented = self.find_presented(&asked).await?;
        let purpose = presented.purpose(client_id, now);
        let Some(client) = self.clients.find(client_id, purpose).await? else {
            return Err(db::repeated(|| self.refuse_unknown(&asked, proof, now)).await?);
        };
        match (asked, presented) {
            (TokenRequest::Code { redirect_uri, verifier, .. }, Presented::Code(id, code)) => {
                let proven = self.authenticate(&client, form, proof, purpose).await?;
                let found = (&id, code.as_ref());
                self.redeem(found, &redirect_uri, &verifier, &client, &proven, proof, waiting, now).await
            }
            (_, Presented::Code(..)) => unreachable!("a refresh token is no code"),
            (_, Presented::Refresh(found)) => self.refresh(found, form, &client, proof, purpose, now).await,
        }
    }

    /// Reads what is stored for a code or a refresh token, without using it up.
    async fn find_presented(&self, asked: &TokenRequest) -> Result<Presented, Error> {
        match asked {
            TokenRequest::Code { code, .. } => {
                let id = CodeId::of(code);
                let code = codes::peek(&self.db, &id).await?;
                Ok(Presented::Code(id, code))
            }
            TokenRequest::Refresh { refresh_token } => {
                let Some(id) = self.refresh_tokens.read(refresh_token) else {
                    return Ok(Presented::Refresh(None));
                };
                let grant = grants::find(&self.db, &id.grant).await?;
                Ok(Presented::Refresh(grant.map(|grant| (id, grant))))
            }
        }
    }

    /// Refuses a client of which nothing is known, and which holds nothing live of its own.
    ///
    /// What it holds has left its rightful client. A code is used up, as by every refusal. A grant
    /// ends if the caller proved its key.
    async fn refuse_unknown(
        &self,
        asked: &TokenRequest,
        proof: Option<&Proof>,
        now: Timestamp,
    ) -> Result<Error, Error> {
        let mut tx = self.db.begin().await?;
        self.use_up_proof(&mut tx, proof, now).await?;
        match asked {
            TokenRequest::Code { code, .. } => {
                let id = CodeId::of(code);
                if let Some((true, _)) = codes::take(&mut tx, &id, &GrantId::fresh(), now).await? {
                    codes::disown(&mut tx, &id).await?;
                }
            }
            TokenRequest::Refresh { refresh_token } => {
                if let Some(id) = self.refresh_tokens.read(refresh_token) {
                    self.links.hold(&mut tx, &id.grant).await?;
                    let grant = grants::hold(&mut tx, &id.grant).await?;
                    if grant.is_some_and(|grant| proof.is_some() && grant.is_held_by(proof)) {
                        self.end_in(&mut tx, &id.grant, Actor::Genkan, OF_ANOTHER, now).await?;
                    }
                }
            }
        }
        tx.commit().await?;
        Ok(Error::nothing_live())
    }
}

/// What a client presents for tokens.
enum Presented {
    Code(CodeId, Option<codes::PeekedCode>),
    /// `None` if the token cannot be read or its grant is not stored.
    Refresh(Option<(RefreshTokenId, Grant)>),
}

impl Presented {
    fn purpose(&self, client_id: &str, now: Timestamp) -> Purpose {
        match self {
            Self::Code(_, code) => {
                let is_live = code.as_ref().is_some_and(|code| {
                    code.client_id == client_id && !code.is_used && now < code.expires_at
                });
                if is_live { Purpose::GoOn } else { Purpose::Recall }
            }
            Self::Refresh(found) => purpose_of_grant(found.as_ref().map(|(_, grant)| grant), client_id, now),
        }
    }
}

/// The purpose of a client's lookup, for a caller with a token of this grant.
pub(super) fn purpose_of_grant(grant: Option<&Grant>, client_id: &str, now: Timestamp) -> Purpose {
    // The age of the token does not matter: an old one of a live grant may have leaked, and its
    // client must be able to end the grant.
    let is_live = grant.is_some_and(|grant| grant.client_id == client_id && grant.is_alive(now));
    if is_live { Purpose::GoOn } else { Purpose::Recall }
}

/// Why a grant ends whose token another client presented, with the grant's own key.
pub(super) const OF_ANOTHER: &str = "the refresh token was issued to another client";
