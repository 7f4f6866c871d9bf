//! The endpoints of the OAuth server, and its sessions. A refresh token is valid once: if one comes
//! again, its session ends.

use std::collections::BTreeSet;

use genkan_protocol::oauth::request::Form;
use genkan_protocol::syntax::Did;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::authorize::PushedRequest;
use super::clients::{Client, Refusal};
use super::{PdsState, Server, SessionView, overlaid};
use crate::loopback::{self, ReceivedCall, Reply, locked};

/// An unused code.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) did: Did,
    pub(super) pushed: PushedRequest,
}

/// The session of a sign-in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    did: Did,
    client: Client,
    scope: String,
    pub(super) jkt: String,
    refresh: String,
    used: BTreeSet<String>,
    refreshes: usize,
    pub(super) ended: Option<&'static str>,
}

impl Session {
    pub(super) fn view(&self) -> SessionView {
        SessionView {
            did: self.did.clone(),
            client_id: self.client.id.clone(),
            scope: self.scope.clone(),
            refreshes: self.refreshes,
            ended: self.ended,
        }
    }

    pub(super) fn did(&self) -> &Did {
        &self.did
    }

    pub(super) fn scope(&self) -> &str {
        &self.scope
    }
}

impl PdsState {
    /// The three endpoints that take forms with proofs. Every answer carries the nonce for the next
    /// proof.
    pub(super) async fn endpoint(&self, asked: ReceivedCall) -> Reply {
        let quirks = self.quirks();
        let done = self.form(asked).await;
        let mut reply = done.unwrap_or_else(|(status, error, text)| {
            loopback::json(status, &json!({ "error": error, "error_description": text }))
        });
        self.server.nonces.put_on(&mut reply, &quirks, self.server.now_millis());
        reply.headers_mut().insert("cache-control", "no-store".parse().unwrap());
        reply
    }

    async fn form(&self, asked: ReceivedCall) -> Result<Reply, Refusal> {
        let ReceivedCall { seen, body } = asked;
        let (server, quirks) = (&self.server, self.quirks());
        let invalid = |text: &str| (400, "invalid_request", text.to_owned());
        if seen.method != http::Method::POST
            || !seen.header("content-type").starts_with("application/x-www-form-urlencoded")
        {
            return Err(invalid("a form has to be posted"));
        }
        let body = body.collect().await.map_err(|_| invalid("the form broke off"))?.to_bytes();
        let form = Form::parse(&body).map_err(|_| invalid("the form is malformed"))?;
        let jkt = server
            .check_proof(&seen, &self.origin(), None, &server.nonces, &quirks)
            .map_err(|(code, text)| (400, code, text))?
            .to_string();
        let client = server.authenticate(&form)?;
        match seen.path.as_str() {
            "/oauth/par" => server.push(&form, client, jkt),
            "/oauth/revoke" => {
                server.revoke(&form, &client);
                Ok(loopback::json(200, &json!({})))
            }
            _ => {
                let answer = server.token(&form, client, jkt, quirks.expires_in)?;
                Ok(loopback::json(200, &overlaid(answer, &quirks.token_answer)))
            }
        }
    }
}

impl Server {
    fn token(
        &self,
        form: &Form,
        client: Client,
        jkt: String,
        expires_in: Option<i64>,
    ) -> Result<Value, Refusal> {
        match form.get("grant_type") {
            Some("authorization_code") => self.redeem(form, client, jkt, expires_in),
            Some("refresh_token") => self.refresh(form, &client, &jkt, expires_in),
            _ => Err((400, "unsupported_grant_type", "that is not done here".to_owned())),
        }
    }

    fn redeem(
        &self,
        form: &Form,
        client: Client,
        jkt: String,
        expires_in: Option<i64>,
    ) -> Result<Value, Refusal> {
        // Removed before the checks: a code is used up by a failed exchange too.
        let code = form.get("code").and_then(|code| locked(&self.codes).remove(code));
        let Some(Code { did, pushed }) = code else { return Err(invalid_grant("Invalid code")) };
        let fits = pushed.client.id == client.id
            && pushed.client.key == client.key
            && pushed.jkt == jkt
            && form.get("redirect_uri") == Some(&pushed.redirect_uri)
            && form.get("code_verifier").is_some_and(|verifier| pushed.challenge.is_met_by(verifier));
        if !fits {
            return Err(invalid_grant("The code was given for another client, key, address or verifier"));
        }
        let refresh = self.fresh("ref");
        let session = Session {
            did,
            client,
            scope: pushed.scope,
            jkt,
            refresh,
            used: BTreeSet::new(),
            refreshes: 0,
            ended: None,
        };
        let mut sessions = locked(&self.sessions);
        let id = sessions.len() as u64;
        let answer = self.answer(id, &session, expires_in);
        sessions.insert(id, session);
        Ok(answer)
    }

    fn refresh(
        &self,
        form: &Form,
        client: &Client,
        jkt: &str,
        expires_in: Option<i64>,
    ) -> Result<Value, Refusal> {
        let token = form.get("refresh_token").unwrap_or_default();
        let mut sessions = locked(&self.sessions);
        let found =
            sessions.iter_mut().find(|(_, session)| session.refresh == token || session.used.contains(token));
        let Some((id, session)) = found else { return Err(invalid_grant("Invalid refresh token")) };
        if session.ended.is_some() {
            return Err(invalid_grant("The session is over"));
        }
        // A used token means that it leaked. The published server ends the session, and so does
        // this one.
        if session.used.contains(token) {
            session.ended = Some("replayed");
            return Err(invalid_grant("Refresh token replayed"));
        }
        if session.client.id != client.id || session.client.key != client.key || session.jkt != jkt {
            return Err(invalid_grant("Token was not issued to this client"));
        }
        // Each refresh gives a new token. There is no grace period for a lost answer.
        session.used.insert(std::mem::replace(&mut session.refresh, self.fresh("ref")));
        session.refreshes += 1;
        Ok(self.answer(*id, session, expires_in))
    }

    fn answer(&self, id: u64, session: &Session, expires_in: Option<i64>) -> Value {
        let token = self.fresh("opaque");
        // Without `expires_in` the token still ends, but the client does not know when.
        let end = self.now() + expires_in.unwrap_or(3600);
        locked(&self.access).insert(token.clone(), (id, end));
        let mut answer = json!({
            "access_token": token,
            "token_type": "DPoP",
            "refresh_token": session.refresh,
            "scope": session.scope,
            "sub": session.did,
        });
        if let (Some(seconds), Some(members)) = (expires_in, answer.as_object_mut()) {
            members.insert("expires_in".to_owned(), json!(seconds));
        }
        answer
    }

    fn revoke(&self, form: &Form, client: &Client) {
        let token = form.get("token").unwrap_or_default();
        let by_access = locked(&self.access).get(token).map(|(id, _)| *id);
        let mut sessions = locked(&self.sessions);
        let found = sessions.iter_mut().find(|(id, session)| {
            Some(**id) == by_access || session.refresh == token || session.used.contains(token)
        });
        if let Some((_, session)) = found
            && session.client.id == client.id
        {
            session.ended.get_or_insert("revoked");
        }
    }

    pub(super) fn end_all(&self, why: &'static str) {
        for session in locked(&self.sessions).values_mut() {
            session.ended.get_or_insert(why);
        }
    }
}

fn invalid_grant(text: &str) -> Refusal {
    (400, "invalid_grant", text.to_owned())
}
