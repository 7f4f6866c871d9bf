//! Checks of apps' tokens, proofs and scopes, as the published host makes them.

use genkan_protocol::oauth::access_token::Token;
use genkan_protocol::oauth::dpop::{self, Expected};
use genkan_protocol::oauth::scope::{AccountAction, AccountAttribute, Identity, RepoAction, Scopes};
use genkan_protocol::syntax::Did;
use genkan_protocol::xrpc_error::XrpcError;
use serde_json::{Value, json};

use super::Pds;
use crate::loopback::{Reply, SeenRequest, locked};

/// The account that a request acts for, by a session or by a grant.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    pub(super) did: Did,
    /// The scope, as the token has it.
    pub(super) scope: Value,
    /// What the app may do. `None` for a session.
    scopes: Option<Scopes>,
}

/// Returns whether the request uses the scheme of bound tokens.
pub(super) fn is_bound(seen: &SeenRequest) -> bool {
    // RFC 9110 §11.1: schemes are compared without regard to case.
    seen.header("authorization").get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop "))
}

impl Speaker {
    pub(super) fn by_session(did: Did, scope: Value) -> Self {
        Self { did, scope, scopes: None }
    }

    fn needs(&self, scope: &str, allows: impl Fn(&Scopes) -> bool) -> Result<(), XrpcError> {
        if self.scopes.as_ref().is_none_or(allows) {
            return Ok(());
        }
        Err(XrpcError::new(403, "ScopeMissingError", format!("Missing required scope \"{scope}\"")))
    }

    pub(super) fn needs_repo(&self, action: RepoAction, input: &Value) -> Result<(), XrpcError> {
        let collection = input.get("collection").and_then(Value::as_str).unwrap_or_default();
        let scope = format!("repo:{collection}?action={}", action.as_str());
        self.needs(&scope, |scopes| scopes.allows_repo(action, collection))
    }

    pub(super) fn needs_blob(&self, mime: &str) -> Result<(), XrpcError> {
        self.needs(&format!("blob:{mime}"), |scopes| scopes.allows_blob(mime))
    }

    pub(super) fn needs_rpc(&self, seen: &SeenRequest) -> Result<(), XrpcError> {
        // Without the header the call is for the default AppView, so its audience is checked.
        let aud = match seen.header("atproto-proxy") {
            "" => "did:web:api.bsky.app#bsky_appview",
            service => service,
        };
        // `#` must be percent-encoded in a scope value.
        let scope = format!("rpc:{}?aud={}", seen.name, aud.replace('#', "%23"));
        self.needs(&scope, |scopes| scopes.allows_rpc(&seen.name, aud))
    }

    pub(super) fn needs_import(&self) -> Result<(), XrpcError> {
        self.needs("account:repo?action=manage", |scopes| {
            scopes.allows_account(AccountAttribute::Repo, AccountAction::Manage)
        })
    }

    /// Checks the scope for a method that the entryway answers.
    pub(super) fn needs_for(&self, nsid: &str) -> Result<(), XrpcError> {
        // A session has no scopes. Its rights were checked with its token.
        if self.scopes.is_none() {
            return Ok(());
        }
        let manages =
            |attribute| move |scopes: &Scopes| scopes.allows_account(attribute, AccountAction::Manage);
        match nsid.rsplit('.').next().unwrap_or_default() {
            "getSession" => Ok(()),
            "requestEmailConfirmation" | "confirmEmail" => {
                self.needs("account:email?action=manage", manages(AccountAttribute::Email))
            }
            "deactivateAccount" => {
                self.needs("account:status?action=manage", manages(AccountAttribute::Status))
            }
            "updateHandle" => {
                self.needs("identity:handle", |scopes| scopes.allows_identity(Identity::Handle))
            }
            "requestPlcOperationSignature" | "signPlcOperation" => {
                self.needs("identity:*", |scopes| scopes.allows_identity(Identity::Any))
            }
            _ => {
                let message = "OAuth credentials are not supported for this endpoint";
                Err(XrpcError::new(403, "Forbidden", message))
            }
        }
    }
}

impl Pds {
    /// Checks an app's token and its proof, and marks the proof as used.
    pub(super) fn app(&self, seen: &SeenRequest) -> Result<Speaker, XrpcError> {
        let settings = self.settings();
        let (_, token) = seen.header("authorization").split_once(' ').unwrap_or_default();
        let mut proofs = seen.headers.get_all("dpop").iter();
        // Exactly one proof is allowed (RFC 9449 §4.3).
        let (Some(proof), None) = (proofs.next(), proofs.next()) else {
            return Err(refused("invalid_dpop_proof", "DPoP proof required"));
        };
        let expected = Expected {
            method: seen.method.as_str(),
            origin: &settings.public_url,
            path: &seen.path,
            access_token: Some(token),
            now_millis: self.now() * 1000,
        };
        let proof = dpop::verify(proof.to_str().unwrap_or_default(), &expected, &settings.nonces)
            .map_err(|error| refused(error.code(), &error.to_string()))?;
        // The proof is used up even if the token is refused below.
        if !locked(&self.proofs).insert(format!("{} {}", proof.jkt, proof.jti)) {
            return Err(refused("invalid_dpop_proof", "DPoP proof replayed"));
        }
        let invalid = |why: &str| refused("invalid_token", why);
        let entryway = settings.entryway.ok_or_else(|| invalid("there is no entryway"))?;
        let token = Token::parse(token).map_err(|error| invalid(&error.to_string()))?;
        let claims = token.verify(&entryway.verify_key).map_err(|error| invalid(&error.to_string()))?;
        // The token is bound to the key of the proof by its thumbprint (RFC 9449 §6.1).
        if claims.cnf.is_none_or(|cnf| cnf.jkt != proof.jkt) {
            return Err(invalid("Invalid DPoP key binding"));
        }
        let is_ours = claims.iss == entryway.url && claims.aud == settings.service_did;
        if !is_ours || claims.exp <= self.now() || !claims.scope.split(' ').any(|scope| scope == "atproto") {
            return Err(invalid("The token is of another issuer or host, out of date, or without atproto"));
        }
        Ok(Speaker {
            did: claims.sub.clone(),
            scope: json!(claims.scope),
            scopes: Some(Scopes::parse(&claims.scope)),
        })
    }

    /// Adds the nonce, and the challenge of an error, to an answer to a bound token.
    pub(super) fn with_nonce(
        &self,
        seen: &SeenRequest,
        mut reply: Reply,
        error: Option<&XrpcError>,
    ) -> Reply {
        if !is_bound(seen) {
            return reply;
        }
        let nonce = self.settings().nonces.next(self.now() * 1000);
        reply.headers_mut().insert("dpop-nonce", nonce.as_str().parse().unwrap());
        if let Some(error) = error
            && ["invalid_token", "invalid_dpop_proof", "use_dpop_nonce"].contains(&&*error.name)
        {
            let challenge = format!("DPoP algs=\"ES256\", error=\"{}\"", error.name);
            reply.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        }
        reply
    }
}

fn refused(code: &'static str, why: &str) -> XrpcError {
    XrpcError::new(401, code, why.to_owned())
}
