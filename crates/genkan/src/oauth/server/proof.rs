//! DPoP proofs at the endpoints, and what a call uses up.

use genkan_protocol::oauth::dpop::{self, Expected, Proof};
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::Form;

use crate::base::Timestamp;
use crate::db::Tx;
use crate::oauth::call::Call;
use crate::oauth::clients::{AuthenticatedClient, Client, Purpose};
use crate::oauth::error::Error;
use crate::oauth::service::OAuth;
use crate::oauth::tokens::{OneTimeUse, PROOF};

impl OAuth {
    /// Checks the proof of a call, if there is one. [`OAuth::use_up`] checks that it is new.
    pub(in crate::oauth) fn proof(&self, call: &Call<'_>, now: Timestamp) -> Result<Option<Proof>, Error> {
        let proof = match &*call.proofs {
            [] => return Ok(None),
            [one] => one,
            _ => return Err(Error::refused(Code::InvalidDpopProof, "exactly one DPoP header is allowed")),
        };
        let expected = Expected {
            method: call.method,
            origin: &self.settings.issuer,
            path: call.path,
            // RFC 9449 §4.3: `ath` is required only with an access token, and calls to these
            // endpoints carry none.
            access_token: None,
            now_millis: now.as_millis(),
        };
        match dpop::verify(proof, &expected, &self.nonces) {
            Ok(proof) => Ok(Some(proof)),
            // This error has a code of its own: clients repeat the request with the nonce (RFC 9449
            // §8).
            Err(error @ dpop::Error::UseNonce) => Err(Error::refused(Code::UseDpopNonce, error.to_string())),
            Err(error) => Err(Error::refused(Code::InvalidDpopProof, error.to_string())),
        }
    }

    /// Checks the proof of a call. Only clients that the operator registered for Bearer tokens may
    /// omit it.
    pub(in crate::oauth) async fn due_proof(
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

    pub(in crate::oauth) async fn authenticate(
        &self,
        client: &Client,
        form: &Form,
        proof: Option<&Proof>,
        purpose: Purpose,
    ) -> Result<AuthenticatedClient, Error> {
        let key = proof.map(|proof| proof.jkt);
        self.clients.authenticate(client, form, key, purpose, &self.settings.issuer).await
    }

    /// Uses up the proof and the client's assertion within the transaction of the action.
    pub(in crate::oauth) async fn use_up(
        &self,
        tx: &mut Tx,
        proof: Option<&Proof>,
        client: &Client,
        proven: &AuthenticatedClient,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.use_up_proof(tx, proof, now).await?;
        if let Some((jti, until)) = &proven.assertion {
            let used = OneTimeUse::Assertion { client_id: client.id.as_str(), jti };
            if !self.seen.is_first(tx, used, *until, now).await? {
                return Err(Error::refused(
                    Code::InvalidClient,
                    "client_assertion: \"jti\" was already used",
                ));
            }
        }
        Ok(())
    }

    /// Uses up the proof within the transaction of the action.
    pub(in crate::oauth) async fn use_up_proof(
        &self,
        tx: &mut Tx,
        proof: Option<&Proof>,
        now: Timestamp,
    ) -> Result<(), Error> {
        // In the transaction of the action itself: after a failure of Genkan, the client can repeat
        // the same request, and a replay of a successful one finds the proof used.
        if let Some(proof) = proof
            && !self.seen.is_first(tx, OneTimeUse::Proof(proof), now.plus(PROOF), now).await?
        {
            return Err(Error::refused(Code::InvalidDpopProof, "the DPoP proof was already used"));
        }
        Ok(())
    }
}
