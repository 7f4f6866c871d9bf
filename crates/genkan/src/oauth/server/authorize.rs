//! Pushed requests in the browser: each is opened by one device and decided once.

use std::time::Duration;

use data_encoding::HEXLOWER;
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::syntax::Did;

use super::consent::{Decision, is_wanted};
use super::problem::Problem;
use super::view::{ConsentView, OpenRequest, Outcome, Redirect};
use crate::accounts::{self, Account, Demand, Standing};
use crate::base::{Secret, Timestamp, WaitingClient, random};
use crate::db::audit::{self, Actor};
use crate::db::{self, Tx};
use crate::oauth::ids::{CodeId, GrantId, RequestUri};
use crate::oauth::scope::ApprovedScope;
use crate::oauth::service::OAuth;
use crate::oauth::sql::requests::StoredRequest;
use crate::oauth::sql::{codes, consents, requests};
use crate::signin::{self, DeviceId, SignIn};

impl OAuth {
    /// Opens a request in a browser. The first browser owns it from then on, and each visit extends
    /// it by five minutes.
    ///
    /// Every GET and POST of the pages about a request begins with this.
    pub(crate) async fn open(
        &self,
        request_uri: &str,
        client_id: &str,
        device: &DeviceId,
    ) -> Result<OpenRequest, Problem> {
        let uri = RequestUri::parse(request_uri).ok_or(Problem::Unknown)?;
        let request = db::repeated(|| self.open_once(&uri, client_id, device)).await?;
        let client = self.clients.shown(client_id).await?;
        Ok(OpenRequest {
            uri,
            client,
            prompt: request.pushed.prompt,
            login_hint: request.pushed.login_hint.clone(),
            ui_locales: request.pushed.ui_locales.clone(),
            form_action: form_action(&request.pushed.redirect_uri),
            request,
            device: device.clone(),
            browser: WaitingClient::default(),
        })
    }

    async fn open_once(
        &self,
        uri: &RequestUri,
        client_id: &str,
        device: &DeviceId,
    ) -> Result<StoredRequest, Problem> {
        let now = self.now();
        let mut tx = self.db.begin().await?;
        let request = requests::hold(&mut tx, uri, now).await?.ok_or(Problem::Unknown)?;
        // A request URI is bound to the client that pushed it (RFC 9126 §2.2). If another client
        // presents it, it has leaked and is removed.
        if request.client_id != client_id {
            requests::remove(&mut tx, uri).await?;
            tx.commit().await?;
            return Err(Problem::Unknown);
        }
        // The person went back in the browser. The app has its answer already.
        if request.decided {
            return Err(self.denied(&request, "This authorization request was already answered"));
        }
        // A second browser may be an attempt to let a person approve a request that somebody else
        // began. So the request ends for both browsers.
        if request.device.as_ref().is_some_and(|first| first != device) {
            requests::remove(&mut tx, uri).await?;
            tx.commit().await?;
            return Err(self.denied(&request, "This authorization request was opened in another browser"));
        }
        // Each visit extends the request: a person who is still typing a password should not lose
        // it.
        requests::visit(&mut tx, uri, device, now.plus(REQUEST)).await?;
        tx.commit().await?;
        Ok(request)
    }

    /// Decides the next step of an opened request. `signed_in` are the accounts of this browser,
    /// including those for this request alone.
    pub(crate) async fn outcome(
        &self,
        opened: &OpenRequest,
        signed_in: &[SignIn],
    ) -> Result<Outcome, Problem> {
        let decision = self.weigh(opened, signed_in).await?;
        self.carry_out(opened, decision).await
    }

    /// Continues with one account that was chosen, or that has just signed in, signed up or been
    /// reactivated.
    pub(crate) async fn chosen(&self, opened: &OpenRequest, signed_in: &SignIn) -> Result<Outcome, Problem> {
        let decision = self.weigh_one(opened, signed_in).await?;
        self.carry_out(opened, decision).await
    }

    /// Describes what the account is asked to allow.
    pub(crate) async fn consent_view(
        &self,
        opened: &OpenRequest,
        account: &Account,
    ) -> Result<ConsentView, Problem> {
        self.view_of_consent(opened, account).await
    }

    /// Approves `scopes`, or everything requested. Values that were not requested are ignored.
    pub(crate) async fn approve(
        &self,
        opened: &OpenRequest,
        signed_in: &SignIn,
        scopes: Option<&[String]>,
    ) -> Result<Redirect, Problem> {
        let now = self.now();
        let pushed = &opened.request.pushed;
        let allowed =
            pushed.scope.approve(|value| scopes.is_none_or(|given| given.iter().any(|one| one == value)));
        let account = &signed_in.account;
        // All of this was checked when the page was made. Minutes may have passed, and a form can
        // also be sent without the page.
        if !allowed.has_atproto()
            || account.standing() != Standing::Active
            || !is_wanted(opened, signed_in, now)
        {
            return self.reject(opened).await;
        }
        self.give_code(opened, &account.did, allowed, None, now).await
    }

    /// Decides the request: the browser gets a code for what was allowed.
    pub(in crate::oauth) async fn give_code(
        &self,
        opened: &OpenRequest,
        did: &Did,
        scope: ApprovedScope,
        link: Option<GrantId>,
        now: Timestamp,
    ) -> Result<Redirect, Problem> {
        // 32 random bytes: a code cannot be guessed within its lifetime.
        let code = Secret::new(format!("cod-{}", HEXLOWER.encode(&random::bytes::<32>())));
        let stored = codes::StoredCode {
            client_id: opened.request.client_id.clone(),
            pushed: opened.request.pushed.clone(),
            scope,
            did: did.clone(),
            device: opened.device.clone(),
            expires_at: now.plus(CODE),
            grant_id: None,
            link,
        };
        // Only the hash is stored, so a copy of the database contains no usable code.
        let id = CodeId::of(code.expose());
        if db::repeated(|| self.give_code_once(opened, &id, &stored, now)).await? {
            Ok(self.way_back(&opened.request, vec![("code", code)]))
        } else {
            self.reject(opened).await
        }
    }

    /// Stores a code. Returns `false` if the account may not decide: a password reset has signed this
    /// browser out meanwhile, or the link has ended.
    async fn give_code_once(
        &self,
        opened: &OpenRequest,
        id: &CodeId,
        code: &codes::StoredCode,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let did = &code.did;
        let mut tx = self.db.begin().await?;
        let may_decide = match &code.link {
            // With the code or not at all: a form that was in vain can be sent again.
            Some(link) => self.links.keep(&mut tx, link, now).await?,
            None => {
                accounts::hold(&mut tx, did, Demand::Active).await?
                    && signin::is_signed_in(&mut tx, &opened.device, did).await?
            }
        };
        if !may_decide {
            return Ok(false);
        }
        // Only one of several decisions at once gets past this point.
        self.hold_to_decide(&mut tx, opened, now).await?;
        codes::insert(&mut tx, id, code).await?;
        // Any program can claim to be a development client, so no consent is remembered for one.
        if !opened.client.development {
            consents::add(&mut tx, did, &code.client_id, &code.scope, now).await?;
        }
        let detail = format!("{} {}", code.client_id, code.scope);
        audit::record(&mut tx, now, Actor::Account(did), "oauth.approve", did.as_str(), &detail).await?;
        tx.commit_for(&opened.browser).await?;
        Ok(true)
    }

    /// Denies the request.
    pub(crate) async fn reject(&self, opened: &OpenRequest) -> Result<Redirect, Problem> {
        self.refuse(opened, Code::AccessDenied, "Access was denied").await
    }

    /// Ends the request with an error for the client.
    pub(in crate::oauth) async fn refuse(
        &self,
        opened: &OpenRequest,
        code: Code,
        why: &'static str,
    ) -> Result<Redirect, Problem> {
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            self.hold_to_decide(&mut tx, opened, self.now()).await?;
            Ok::<_, Problem>(tx.commit().await?)
        })
        .await?;
        Ok(self.way_back_with(&opened.request, code, why))
    }

    async fn carry_out(&self, opened: &OpenRequest, decision: Decision<'_>) -> Result<Outcome, Problem> {
        Ok(match decision {
            Decision::Show(page) => Outcome::Show(page),
            Decision::Approve(signed_in) => Outcome::Redirect(self.approve(opened, signed_in, None).await?),
            Decision::Refuse(code, why) => Outcome::Redirect(self.refuse(opened, code, why).await?),
        })
    }

    /// Claims the decision. Of several attempts at once, one succeeds.
    async fn hold_to_decide(&self, tx: &mut Tx, opened: &OpenRequest, now: Timestamp) -> Result<(), Problem> {
        let request = requests::hold(tx, &opened.uri, now).await?.ok_or(Problem::Unknown)?;
        if request.device.as_ref() != Some(&opened.device) {
            return Err(Problem::Unknown);
        }
        if request.decided || !requests::decide(tx, &opened.uri, now).await? {
            return Err(self.denied(&request, "This authorization request was already answered"));
        }
        Ok(())
    }

    fn denied(&self, request: &StoredRequest, why: &'static str) -> Problem {
        Problem::Leave(self.way_back_with(request, Code::AccessDenied, why))
    }

    fn way_back_with(&self, request: &StoredRequest, code: Code, why: &'static str) -> Redirect {
        let said = vec![
            ("error", Secret::new(code.as_str().to_owned())),
            ("error_description", Secret::new(why.to_owned())),
        ];
        self.way_back(request, said)
    }

    fn way_back(&self, request: &StoredRequest, said: Vec<(&'static str, Secret<String>)>) -> Redirect {
        let pushed = &request.pushed;
        // RFC 9207: `iss` lets a client of several servers notice a mix-up.
        let mut parameters = vec![
            ("iss", Secret::new(self.settings.issuer.clone())),
            ("state", Secret::new(pushed.state.clone())),
        ];
        parameters.extend(said);
        Redirect { uri: pushed.redirect_uri.clone(), mode: pushed.response_mode, parameters }
    }
}

/// The `form-action` source for a form that redirects to the client.
fn form_action(redirect_uri: &str) -> String {
    match redirect_uri.split_once("://") {
        Some((scheme, rest)) => {
            // A source of `form-action` is an origin. A path in it would not match after a
            // redirect.
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            format!("{scheme}://{authority}")
            // A private-use scheme has no authority, so the scheme itself is the source.
        }
        None => format!("{}:", redirect_uri.split(':').next().unwrap_or_default()),
    }
}

/// Counted from the push, and again from each visit.
pub(in crate::oauth) const REQUEST: Duration = Duration::from_mins(5);
const CODE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_to_an_origin_or_a_scheme() {
        for (uri, action) in [
            ("https://app.example.com/back?a=b", "https://app.example.com"),
            ("https://app.example.com", "https://app.example.com"),
            ("http://127.0.0.1:8080/back", "http://127.0.0.1:8080"),
            ("http://[::1]/", "http://[::1]"),
            ("com.example.app:/back", "com.example.app:"),
        ] {
            assert_eq!(form_action(uri), action);
        }
    }
}
