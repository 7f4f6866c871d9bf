//! Pushed requests, and the browser that opens them.

use genkan_protocol::oauth::pkce::Challenge;
use genkan_protocol::oauth::request::Form;
use genkan_protocol::syntax::Did;
use serde_json::json;

use super::clients::{Client, Refusal};
use super::tokens::Code;
use super::{PdsState, Server};
use crate::loopback::{self, Reply, SeenRequest, locked};

/// A pushed request.
#[derive(Clone, Debug)]
pub(super) struct PushedRequest {
    pub(super) client: Client,
    pub(super) redirect_uri: String,
    pub(super) scope: String,
    state: String,
    pub(super) challenge: Challenge,
    login_hint: Option<String>,
    pub(super) jkt: String,
}

impl Server {
    pub(super) fn push(&self, form: &Form, client: Client, jkt: String) -> Result<Reply, Refusal> {
        let invalid = |text: &str| (400, "invalid_request", text.to_owned());
        let required = |name| form.get(name).ok_or_else(|| invalid(&format!("{name} is missing")));
        if required("response_type")? != "code" || required("code_challenge_method")? != "S256" {
            return Err(invalid("response_type must be code, code_challenge_method S256"));
        }
        let scope = required("scope")?;
        // Compared as strings, as the published server does.
        let declared: Vec<&str> = client.scope.split(' ').collect();
        if let Some(other) = scope.split(' ').find(|value| !declared.contains(value)) {
            return Err((
                400,
                "invalid_scope",
                format!("Scope \"{other}\" is not declared in the client metadata"),
            ));
        }
        if !scope.split(' ').any(|value| value == "atproto") {
            return Err((400, "invalid_scope", "The atproto scope is missing".to_owned()));
        }
        let pushed = PushedRequest {
            redirect_uri: required("redirect_uri")?.to_owned(),
            scope: scope.to_owned(),
            state: required("state")?.to_owned(),
            challenge: required("code_challenge")?.parse().map_err(|_| invalid("code_challenge is wrong"))?,
            login_hint: form.get("login_hint").map(str::to_owned),
            client,
            jkt,
        };
        let uri = self.fresh("urn:ietf:params:oauth:request_uri:req");
        locked(&self.pushed).insert(uri.clone(), pushed);
        Ok(loopback::json(201, &json!({ "request_uri": uri, "expires_in": 300 })))
    }
}

impl PdsState {
    /// Answers the browser at once, without asking the person anything.
    pub(super) fn authorize(&self, seen: &SeenRequest) -> Reply {
        let form = Form::parse(seen.query.as_bytes()).unwrap_or_default();
        let server = &self.server;
        // A request URI can be used once.
        let pushed = form.get("request_uri").and_then(|uri| locked(&server.pushed).remove(uri));
        let Some(pushed) = pushed.filter(|pushed| form.get("client_id") == Some(&pushed.client.id)) else {
            return loopback::refusal(400, "invalid_request", "Unknown request_uri");
        };
        let quirks = self.quirks();
        // Without a page: the fake approves at once, as the person whom the quirks name.
        let issuer = quirks.callback_iss.clone().unwrap_or_else(|| locked(&server.issuer).clone());
        let mut back = vec![("state", pushed.state.clone())];
        if !issuer.is_empty() {
            back.push(("iss", issuer));
        }
        if let Some(error) = quirks.denial {
            back.push(("error", error.to_owned()));
            back.push(("error_description", "as the test asked".to_owned()));
        } else {
            let did = quirks.signs_in.or_else(|| self.hinted(pushed.login_hint.as_deref()));
            let Some(did) = did else { return loopback::refusal(400, "invalid_request", "no account") };
            let code = server.fresh("cod");
            back.push(("code", code.clone()));
            locked(&server.codes).insert(code, Code { did, pushed: pushed.clone() });
        }
        let location = format!("{}?{}", pushed.redirect_uri, serde_html_form::to_string(&back).unwrap());
        http::Response::builder().status(303).header("location", location).body(loopback::whole("")).unwrap()
    }

    fn hinted(&self, hint: Option<&str>) -> Option<Did> {
        let accounts = locked(&self.accounts);
        let hinted = accounts
            .iter()
            .find(|(did, handle)| hint == Some(did.as_str()) || hint == Some(handle.as_str()))
            .map(|(did, _)| did.clone());
        // Without a hint the first account is chosen, so that a test with one account need not name
        // it.
        hinted.or_else(|| accounts.keys().next().cloned())
    }
}
