//! The client of one authorization server: forms with a DPoP proof and a client assertion, and the
//! meaning of their answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, backdated};
use genkan_protocol::syntax::Did;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::ClientIdentity;
use super::discovery::Server;
use super::nonces::Nonces;
use crate::base::fetch::{Answer, GuardedClient, GuardedError, Limits};
use crate::base::{Clock, Origin, query, random};

/// Speaks to one server for one session or sign-in.
pub(super) struct ServerClient<'a> {
    pub(super) guarded: GuardedClient,
    pub(super) clock: &'a Clock,
    pub(super) nonces: &'a Nonces,
    pub(super) server: &'a Server,
    pub(super) identity: &'a ClientIdentity,
    /// The name under which the server's nonces are remembered.
    pub(super) session: &'a str,
    pub(super) key: &'a ProofKey,
}

/// The answer of a token endpoint. Tokens are opaque, so Genkan reads nothing from them.
#[derive(Debug)]
pub(super) struct TokenResponse {
    pub(super) access: Zeroizing<String>,
    pub(super) refresh: Option<Zeroizing<String>>,
    pub(super) sub: Option<Did>,
    pub(super) scope: Option<String>,
    pub(super) expires_in: Option<Duration>,
}

/// Why a token request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenRequestError {
    /// Nothing was sent, because too many calls are under way here.
    #[error("it was not asked: {0}")]
    NotTried(Arc<str>),
    /// Nothing was sent, because the DNS servers gave no answer. The server may well be healthy.
    #[error("{0}")]
    LookupFailed(Arc<str>),
    /// The server cannot be reached. Nothing was sent, so a refresh token is still unused.
    #[error("it cannot be reached: {0}")]
    NotSent(Arc<str>),
    /// The request was sent, and may have been carried out.
    #[error("its answer cannot be used: {0}")]
    Unanswered(Arc<str>),
    /// The server answered 429 or 5xx: another try later.
    #[error("it answered {status}")]
    Later { status: u16, after: Option<Duration> },
    /// The server refused, with an OAuth error code.
    #[error("it refused: {status} {code}")]
    Refused { status: u16, code: Arc<str> },
}

impl TokenRequestError {
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether nothing was sent, so that a code or a token is still unused.
    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self, Self::NotTried(_) | Self::LookupFailed(_) | Self::NotSent(_))
    }
}

impl ServerClient<'_> {
    /// Pushes an authorization request and returns its `request_uri`.
    pub(super) async fn push(
        &self,
        fields: Vec<(&'static str, String)>,
    ) -> Result<String, TokenRequestError> {
        #[derive(Deserialize)]
        struct PushAnswer {
            request_uri: String,
        }
        let answer = self.post(&self.server.push, fields).await?;
        let pushed: PushAnswer = read(&answer)?;
        Ok(pushed.request_uri)
    }

    /// Requests tokens. Tokens that cannot be used are revoked.
    pub(super) async fn token(
        &self,
        fields: Vec<(&'static str, String)>,
    ) -> Result<TokenResponse, TokenRequestError> {
        let answer = self.post(&self.server.token, fields).await?;
        let given = parse_token_response(&answer);
        if given.is_err()
            && let Some((token, hint)) = readable(&answer)
            && let Err(error) = self.revoke(&token, hint).await
        {
            tracing::warn!(answer = %error, "tokens that were not taken could not be revoked");
        }
        given
    }

    /// Revokes a token (RFC 7009). Does nothing if the server has no such endpoint.
    pub(super) async fn revoke(&self, token: &str, hint: &str) -> Result<(), TokenRequestError> {
        let Some(url) = &self.server.revoke else { return Ok(()) };
        let fields = vec![("token", token.to_owned()), ("token_type_hint", hint.to_owned())];
        self.post(url, fields).await?;
        Ok(())
    }

    /// Sends a form, and sends it once more if its proof lacked the nonce that the server demands
    /// (RFC 9449 §8). The first attempt used nothing up: a server checks the proof before it does
    /// anything.
    ///
    /// Forwarded calls have loops of their own in `forward::home` and `forward::linked`. A form is in
    /// memory and is sent again as it is. A forwarded body streams: it can be sent again only as far
    /// as it was kept, an answer that refuses it has a connection to give back, and a PDS may demand a
    /// fresher token as well. The proof (`ProofKey`) and the memory of nonces (`Nonces`) are shared.
    async fn post(
        &self,
        url: &str,
        fields: Vec<(&'static str, String)>,
    ) -> Result<Answer, TokenRequestError> {
        let origin =
            origin_of(url).ok_or_else(|| TokenRequestError::NotSent("its address is not a URL".into()))?;
        // `once` signs a new proof and a new client assertion each time, because each is valid for
        // one request. The second attempt carries the nonce from the first answer.
        for _ in 0..2 {
            let answer = self.once(url, &origin, &fields).await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let error = refused(&answer);
            if error.code() != Some("use_dpop_nonce") || !answer.headers.contains_key(NONCE) {
                return Err(error);
            }
        }
        Err(TokenRequestError::Refused { status: 400, code: "use_dpop_nonce".into() })
    }

    async fn once(
        &self,
        url: &str,
        origin: &Origin,
        fields: &[(&'static str, String)],
    ) -> Result<Answer, TokenRequestError> {
        let now = self.clock.now();
        let mut fields = fields.to_vec();
        self.identity.sign_form(&self.server.issuer, now, &mut fields);
        let nonce = self.nonces.get(self.session, origin);
        let proof = self.key.sign(&ProofClaims {
            jti: &random::id(),
            htm: "POST",
            // RFC 9449 §4.2: without query and fragment.
            htu: url.split(['?', '#']).next().unwrap_or_default(),
            iat: backdated(now.as_seconds()),
            nonce: nonce.as_ref().map(|heard| &*heard.nonce),
            ath: None,
        });
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header("dpop", proof)
            .body(Bytes::from(query::of_pairs(&pairs)))
            .map_err(|_| TokenRequestError::NotSent("its address is not a URL".into()))?;
        let answer = self.guarded.send(request, &LIMITS).await.map_err(|error| send_failed(&error))?;
        // RFC 9449 §8.2: a server may send the next nonce with any answer, including a success.
        if let Some(nonce) = answer.headers.get(NONCE).and_then(|nonce| nonce.to_str().ok()) {
            self.nonces.hear(self.session, origin, nonce, now);
        }
        Ok(answer)
    }
}

fn origin_of(url: &str) -> Option<Origin> {
    let uri: http::Uri = url.parse().ok()?;
    format!("{}://{}", uri.scheme_str()?, uri.authority()?).parse().ok()
}

fn send_failed(error: &GuardedError) -> TokenRequestError {
    // Only failures before anything was written count as not sent. After any other failure the
    // server may have carried the request out.
    let text: Arc<str> = error.to_string().into();
    match error {
        GuardedError::Busy => TokenRequestError::NotTried(text),
        GuardedError::LookupFailed(_) => TokenRequestError::LookupFailed(text),
        error if error.is_unsent() => TokenRequestError::NotSent(text),
        _ => TokenRequestError::Unanswered(text),
    }
}

/// Reads an answer that is not a success.
fn refused(answer: &Answer) -> TokenRequestError {
    #[derive(Deserialize)]
    struct ErrorAnswer {
        error: String,
    }
    let status = answer.status;
    // The status alone decides: a proxy in front of the server answers with a page and not with an
    // OAuth error.
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return TokenRequestError::Later { status: status.as_u16(), after: retry_after(&answer.headers) };
    }
    let code = serde_json::from_slice::<ErrorAnswer>(&answer.body).map(|said| said.error).unwrap_or_default();
    // An OAuth error code is a short word. Anything else is not repeated.
    let is_word =
        (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    TokenRequestError::Refused {
        status: status.as_u16(),
        code: if is_word { code.into() } else { "unknown".into() },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok()?;
    // The bound keeps a mistaken header from stopping the refreshes of a server for days.
    Some(Duration::from_secs(seconds.min(3600)))
}

fn read<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, TokenRequestError> {
    serde_json::from_slice(&answer.body).map_err(|_| unusable("its answer is malformed"))
}

fn unusable(why: &str) -> TokenRequestError {
    TokenRequestError::Unanswered(why.into())
}

fn parse_token_response(answer: &Answer) -> Result<TokenResponse, TokenRequestError> {
    #[derive(Deserialize)]
    struct Wire {
        access_token: String,
        token_type: String,
        refresh_token: Option<String>,
        sub: Option<String>,
        scope: Option<String>,
        // A float, because JSON does not distinguish 3600 from 3600.0.
        expires_in: Option<f64>,
    }
    let wire: Wire = read(answer)?;
    let (access, refresh) = (Zeroizing::new(wire.access_token), wire.refresh_token.map(Zeroizing::new));
    // The type is case-insensitive (RFC 6749 §5.1). Anyone who reads a Bearer token can use it, so
    // it is refused.
    if !wire.token_type.eq_ignore_ascii_case("dpop") {
        return Err(unusable("its token is not bound to Genkan's key"));
    }
    // The access token goes into a header as it is, so it must not contain spaces or line breaks.
    if !is_token(&access) || refresh.as_ref().is_some_and(|token| !is_token(token)) {
        return Err(unusable("its token cannot be sent"));
    }
    Ok(TokenResponse {
        access,
        refresh,
        // A subject that is not a DID counts as absent. The callback refuses tokens without a
        // subject, a refresh accepts them.
        sub: wire.sub.and_then(|sub| sub.parse().ok()),
        scope: wire.scope,
        // Negative and absurd lifetimes are ignored, because `from_secs_f64` panics on some of
        // them. The token is then used until it is refused.
        expires_in: wire
            .expires_in
            .filter(|seconds| (0.0..1e9).contains(seconds))
            .map(Duration::from_secs_f64),
    })
}

/// The token to revoke from an unusable answer, and its type. The refresh token comes first,
/// because its revocation ends both.
fn readable(answer: &Answer) -> Option<(Zeroizing<String>, &'static str)> {
    #[derive(Deserialize)]
    struct Wire {
        access_token: Option<Value>,
        refresh_token: Option<Value>,
    }
    let wire: Wire = serde_json::from_slice(&answer.body).ok()?;
    let both = [(wire.refresh_token, "refresh_token"), (wire.access_token, "access_token")];
    both.into_iter().find_map(|(token, hint)| match token {
        Some(Value::String(token)) if !token.is_empty() => Some((Zeroizing::new(token), hint)),
        _ => None,
    })
}

/// Whether a text can stand in a header after its scheme.
fn is_token(text: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b','))
}

const LONGEST_TOKEN: usize = 16 * 1024;
const NONCE: &str = "dpop-nonce";
const LIMITS: Limits = Limits {
    total: Duration::from_secs(12),
    idle: Duration::from_secs(10),
    body_bytes: 64 * 1024,
    redirects: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    #[test]
    fn refusals_are_sorted_and_their_words_not_repeated() {
        let code = |body: &str| refused(&answer(400, body)).code().map(str::to_owned);
        assert_eq!(code(r#"{"error":"invalid_grant"}"#).as_deref(), Some("invalid_grant"));
        assert_eq!(code(r#"{"error":"<b>x</b>"}"#).as_deref(), Some("unknown"));
        assert_eq!(code("<html>").as_deref(), Some("unknown"));
        assert_eq!(refused(&answer(503, "")), TokenRequestError::Later { status: 503, after: None });
        assert_eq!(refused(&answer(429, "")).code(), None);
    }

    #[test]
    fn tokens_are_taken_as_they_are_if_they_can_be_sent() {
        let give = |body: &str| parse_token_response(&answer(200, body));
        let good = r#"{"access_token":"o/p+a=q~ue","token_type":"DPoP","sub":"did:plc:x","scope":"atproto"}"#;
        assert_eq!(&**give(good).unwrap().access, "o/p+a=q~ue");
        assert!(give(&good.replace("DPoP", "Bearer")).is_err());
        assert!(give(&good.replace("o/p", "o\\r\\np")).is_err());
        assert!(give(&good.replace("o/p", "")).is_ok());
        assert!(give(&good.replace("o/p+a=q~ue", "")).is_err());
        assert!(matches!(give("surely not"), Err(TokenRequestError::Unanswered(_))));
        let negative = good.replace("\"sub\"", "\"expires_in\":-5,\"sub\"");
        assert_eq!(give(&negative).unwrap().expires_in, None);
    }
}
