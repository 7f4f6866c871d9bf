//! The token endpoint: exchanges a code or a refresh token for tokens.

use genkan_protocol::oauth::request::{Form, TokenRequest};

use super::mint::Tokens;
use crate::oauth::call::Call;
use crate::oauth::clients::Purpose;
use crate::oauth::error::Error;
use crate::oauth::service::OAuth;

impl OAuth {
    /// Answers the token endpoint. The order is proof, client, grant. One transaction uses
    /// everything up.
    pub(crate) async fn token(&self, call: &Call<'_>, form: &Form) -> Result<Tokens, Error> {
        let now = self.clock.now();
        let proof = self.due_proof(call, form.get("client_id").unwrap_or_default(), now).await?;
        let proof = proof.as_ref();
        let asked = TokenRequest::parse(form)?;
        let client = self.clients.look_up(form.required("client_id")?, Purpose::GoOn).await?;
        match asked {
            TokenRequest::Code { code, redirect_uri, verifier } => {
                let proven = self.authenticate(&client, form, proof, Purpose::GoOn).await?;
                self.redeem(&code, &redirect_uri, &verifier, &client, &proven, proof, now).await
            }
            TokenRequest::Refresh { refresh_token } => {
                self.refresh(&refresh_token, form, &client, proof, now).await
            }
        }
    }
}
