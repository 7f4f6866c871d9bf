//! Pushed authorization requests (RFC 9126). Everything about a request is checked here, before a
//! browser comes.

use std::net::IpAddr;

use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::{AuthorizationRequest, Form, Prompt};
use genkan_protocol::oauth::scope::undeclared;

use super::authorize::REQUEST;
use crate::db;
use crate::oauth::call::Call;
use crate::oauth::clients::{Client, Purpose};
use crate::oauth::error::Error;
use crate::oauth::ids::RequestUri;
use crate::oauth::parameters::RequestParameters;
use crate::oauth::scope::RequestedScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::requests;

/// The values with which the client sends its browser.
#[derive(Debug)]
pub(crate) struct PushedRequest {
    pub(crate) request_uri: RequestUri,
    /// Lifetime in seconds.
    pub(crate) expires_in: u64,
}

impl OAuth {
    /// Accepts a request, and uses up its proof, if it has one, and the client's assertion.
    ///
    /// `network` is that of the caller. Anyone may push and name any client and permission set, so
    /// one network may let only a few servers be asked at a time.
    pub(crate) async fn push(
        &self,
        call: &Call<'_>,
        form: &Form,
        network: IpAddr,
    ) -> Result<PushedRequest, Error> {
        let now = self.now();
        let proof = self.proof(call, now)?;
        let client = self.clients.look_up(form.required("client_id")?, network).await?;
        let proof_key = proof.as_ref().map(|proof| proof.jkt);
        let issuer = &self.settings.issuer;
        let proven =
            self.clients.authenticate(&client, form, proof_key, Purpose::Begin { network }, issuer).await?;

        let asked = AuthorizationRequest::parse(form)?;
        // RFC 9449 §10.1: both the proof and `dpop_jkt` bind the code to a key, so they must agree.
        let dpop_key = match (proof_key, asked.dpop_jkt) {
            (Some(proof), Some(named)) if proof != named => {
                let why = "\"dpop_jkt\" differs from the key of the DPoP proof";
                return Err(Error::refused(Code::InvalidToken, why));
            }
            (Some(key), _) | (None, Some(key)) => Some(key),
            (None, None) if client.bearer => None,
            (None, None) => {
                let why = "a DPoP proof or \"dpop_jkt\" is required";
                return Err(Error::refused(Code::InvalidDpopProof, why));
            }
        };
        let prompt = prompt_for(&client, asked.prompt)?;
        let redirect_uri = redirect_for(&client, asked.redirect_uri)?;
        let scope = scope_for(&client, &asked.scope)?;
        // Permission sets are fetched now, so that an app with a broken set is refused before a
        // person sees a page.
        self.sets.require(&scope, network).await?;

        let pushed = RequestParameters {
            redirect_uri,
            scope,
            state: asked.state,
            code_challenge: asked.challenge.to_string(),
            response_mode: asked.response_mode,
            prompt,
            login_hint: asked.login_hint.map(|hint| hint.as_str().to_owned()),
            ui_locales: asked.ui_locales,
            dpop_key: dpop_key.map(|key| key.to_string()),
            client_auth: proven.auth.clone(),
            at: now.as_millis(),
        };
        let uri = RequestUri::fresh();
        // The last step, in the transaction that stores the request: a push that was refused above
        // has used up neither its proof nor its assertion.
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            self.use_up(&mut tx, proof.as_ref(), &client, &proven, now).await?;
            requests::insert(&mut tx, &uri, client.id.as_str(), &pushed, now.plus(REQUEST)).await?;
            Ok::<_, Error>(tx.commit().await?)
        })
        .await?;
        Ok(PushedRequest { request_uri: uri, expires_in: REQUEST.as_secs() })
    }
}

/// The prompt that applies. Anyone can pretend to be a public client, so its user is always asked.
fn prompt_for(client: &Client, asked: Option<Prompt>) -> Result<Option<Prompt>, Error> {
    match asked {
        _ if client.is_believed() => Ok(asked),
        Some(Prompt::None) => {
            let why = "prompt \"none\" is not allowed for public clients";
            Err(Error::refused(Code::InvalidRequest, why))
        }
        // Each of these leads to consent in the end.
        Some(Prompt::Create | Prompt::Login | Prompt::SelectAccount) => Ok(asked),
        None | Some(Prompt::Consent) => Ok(Some(Prompt::Consent)),
    }
}

fn redirect_for(client: &Client, asked: Option<String>) -> Result<String, Error> {
    let refused = |why: &'static str| Err(Error::refused(Code::InvalidRedirectUri, why));
    match (asked, &*client.metadata.redirect_uris) {
        (Some(asked), _) if client.metadata.allows_redirect(&asked) => Ok(asked),
        (Some(_), _) => {
            refused("redirect_uri must exactly match one of the redirect_uris in the client metadata")
        }
        // With a single registered URI the parameter may be absent (RFC 6749 §3.1.2.3).
        (None, [only]) => Ok(only.as_str().to_owned()),
        (None, _) => {
            refused("parameter \"redirect_uri\" is required: the client metadata lists more than one")
        }
    }
}

/// The requested scope, without unknown and repeated values.
fn scope_for(client: &Client, asked: &str) -> Result<RequestedScope, Error> {
    if let Some(value) = undeclared(asked, &client.metadata.scope) {
        // The client chooses the value's length, and the error must stay short.
        let shown: String = value.chars().take(200).collect();
        let why = format!("the scope value {shown:?} is not declared in the client metadata");
        return Err(Error::refused(Code::InvalidScope, why));
    }
    Ok(RequestedScope::of_request(asked))
}
