//! The PDS itself: the caller of a request, and its content.

use genkan_protocol::syntax::Did;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::PdsState;
use crate::loopback::{self, ReceivedCall, Reply, SeenRequest, locked};

/// The caller of a request.
struct Speaker {
    did: Did,
    scope: String,
}

impl PdsState {
    /// Answers with the request that it received and its caller. Calls without credentials are
    /// answered too, as public reads are.
    pub(super) async fn resource(&self, asked: ReceivedCall) -> Reply {
        let ReceivedCall { seen, body } = asked;
        let speaker = match self.speaker(&seen) {
            Ok(speaker) => speaker,
            Err((code, text)) => return self.refuse(code, &text),
        };
        if speaker.is_none() && !self.knows_target(seen.query.as_str()) {
            return loopback::refusal(400, "RepoNotFound", "Could not find repo");
        }
        if speaker.is_some() {
            *locked(&self.accepted).entry(seen.name.clone()).or_default() += 1;
        }
        // The body is read to its end before the answer, as a server with a database does.
        let Some(length) = length_of(body).await else {
            return loopback::refusal(400, "InvalidRequest", "Request aborted");
        };
        let headers: Map<String, Value> = seen
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
            .collect();
        let mut reply = loopback::json(
            200,
            &json!({
                "pds": self.origin(), "nsid": seen.name, "method": seen.method.as_str(), "query": seen.query,
                "did": speaker.as_ref().map(|speaker| &speaker.did),
                "scope": speaker.as_ref().map(|speaker| &speaker.scope),
                "headers": headers,
                "length": length,
            }),
        );
        if speaker.is_some() {
            self.nonces.put_on(&mut reply, &self.quirks(), self.server.now_millis());
        }
        reply
    }

    /// Whether the account that a read names by its DID is here. `true` if it names none.
    fn knows_target(&self, query: &str) -> bool {
        let named = query.split('&').find_map(|pair| {
            pair.strip_prefix("did=")
                .or_else(|| pair.strip_prefix("repo="))?
                .replace("%3A", ":")
                .parse::<Did>()
                .ok()
        });
        named.is_none_or(|did| locked(&self.accounts).contains_key(&did))
    }

    /// Returns the caller, `None` for a call without credentials, or the code and text of a
    /// refusal.
    fn speaker(&self, seen: &SeenRequest) -> Result<Option<Speaker>, (&'static str, String)> {
        let authorization = seen.header("authorization");
        if authorization.is_empty() {
            return Ok(None);
        }
        let invalid = |text: &str| ("invalid_token", text.to_owned());
        let Some(("DPoP", token)) = authorization.split_once(' ') else {
            return Err(invalid("only DPoP is taken"));
        };
        let server = &self.server;
        let jkt = server.check_proof(seen, &self.origin(), Some(token), &self.nonces, &self.quirks())?;
        let (id, end) = locked(&server.access).get(token).copied().ok_or_else(|| invalid("Invalid token"))?;
        let sessions = locked(&server.sessions);
        let session = sessions.get(&id).filter(|session| session.ended.is_none());
        let session = session.ok_or_else(|| invalid("The session is over"))?;
        if end <= server.now() {
            return Err(invalid("\"exp\" claim timestamp check failed"));
        }
        if session.jkt != jkt.as_str() {
            return Err(("invalid_dpop_proof", "Proof of another key".to_owned()));
        }
        // The account has moved away since the token was issued.
        if !locked(&self.accounts).contains_key(session.did()) {
            return Err(invalid("Account not found"));
        }
        Ok(Some(Speaker { did: session.did().clone(), scope: session.scope().to_owned() }))
    }

    fn refuse(&self, code: &str, text: &str) -> Reply {
        let mut reply = loopback::json(401, &json!({ "error": code, "message": text }));
        let challenge = format!(
            "DPoP algs=\"ES256 ES256K\", error=\"{code}\", error_description=\"{}\"",
            text.replace('"', "'")
        );
        reply.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        self.nonces.put_on(&mut reply, &self.quirks(), self.server.now_millis());
        reply
    }
}

/// Returns the length of a body, which may exceed the memory.
async fn length_of(mut body: Incoming) -> Option<u64> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            length += data.len() as u64;
        }
    }
    Some(length)
}
