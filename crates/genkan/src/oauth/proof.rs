//! DPoP proofs at the endpoints, and what a call uses up.

use genkan_protocol::oauth::dpop::{self, Expected, Proof};
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::Form;

use super::client::{Client, Proven, Purpose};
use super::seen::{PROOF, Used};
use super::{Error, OAuth};
use crate::base::Timestamp;
use crate::db::Tx;

/// A request to one of the endpoints, as far as proofs are about it.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    /// From its `/` on.
    pub(crate) path: &'a str,
    /// Every `DPoP` header that came; a value that is not text counts as empty.
    pub(crate) proofs: Vec<&'a str>,
}

/// Every `DPoP` header; one that is not text is no proof, and is not nothing either.
pub(crate) fn proofs(headers: &http::HeaderMap) -> Vec<&str> {
    headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

impl OAuth {
    /// The proof of a call, if there is one. That it is new is for [`OAuth::use_up`] to see.
    pub(super) fn proof(&self, call: &Call<'_>, now: Timestamp) -> Result<Option<Proof>, Error> {
        let proof = match &*call.proofs {
            [] => return Ok(None),
            [one] => one,
            _ => return Err(Error::refused(Code::InvalidDpopProof, "there is more than one DPoP header")),
        };
        let expected = Expected {
            method: call.method,
            origin: &self.settings.issuer,
            path: call.path,
            access_token: None,
            now_millis: now.as_millis(),
        };
        match dpop::verify(proof, &expected, &self.nonces) {
            Ok(proof) => Ok(Some(proof)),
            Err(error @ dpop::Error::UseNonce) => Err(Error::refused(Code::UseDpopNonce, error.to_string())),
            Err(error) => Err(Error::refused(Code::InvalidDpopProof, error.to_string())),
        }
    }

    /// The proof of a call. Only clients that the operator has registered for Bearer tokens may come without one.
    pub(super) async fn due_proof(
        &self,
        call: &Call<'_>,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Option<Proof>, Error> {
        let proof = self.proof(call, now)?;
        if proof.is_none() && !self.clients.gets_bearer(client_id).await? {
            return Err(Error::refused(Code::InvalidDpopProof, "a DPoP proof is required"));
        }
        Ok(proof)
    }

    pub(super) async fn authenticate(
        &self,
        client: &Client,
        form: &Form,
        proof: Option<&Proof>,
        purpose: Purpose,
    ) -> Result<Proven, Error> {
        let key = proof.map(|proof| proof.jkt);
        self.clients.authenticate(client, form, key, purpose, &self.settings.issuer).await
    }

    /// Uses up the proof and the client's assertion, as part of the transaction that does what was asked for.
    pub(super) async fn use_up(
        &self,
        tx: &mut Tx,
        proof: Option<&Proof>,
        client: &Client,
        proven: &Proven,
        now: Timestamp,
    ) -> Result<(), Error> {
        if let Some(proof) = proof
            && !self.seen.is_first(tx, Used::Proof(proof), now.plus(PROOF), now).await?
        {
            return Err(Error::refused(Code::InvalidDpopProof, "the DPoP proof was used before"));
        }
        if let Some((jti, until)) = &proven.assertion {
            let used = Used::Assertion { client_id: client.id.as_str(), jti };
            if !self.seen.is_first(tx, used, *until, now).await? {
                return Err(Error::refused(
                    Code::InvalidClient,
                    "client_assertion: its \"jti\" was used before",
                ));
            }
        }
        Ok(())
    }
}
