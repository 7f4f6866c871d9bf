//! `reserveSigningKey` and `createAccount`, with the published host's checks in its order.

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc::Operation;
use genkan_protocol::service_auth;
use genkan_protocol::syntax::{Did, Handle};
use genkan_protocol::xrpc_error::XrpcError;
use serde_json::{Value, json};

use super::Pds;
use super::accounts::Account;
use crate::call::Client;
use crate::loopback::{self, Reply, SeenRequest, locked};

impl Pds {
    pub(super) fn reserve_signing_key(&self, input: &Value) -> Result<Reply, XrpcError> {
        let did = match input.get("did").and_then(Value::as_str) {
            Some(did) => Some(did.parse::<Did>().map_err(|_| invalid("Input/did must be a valid did"))?),
            None => None,
        };
        let key = locked(&self.accounts).reserve(did.as_ref());
        Ok(loopback::json(200, &json!({ "signingKey": key.public().to_did_key() })))
    }

    /// Checks the service token of a person who moves an account here. It must be signed by the key
    /// that the directory names for the account.
    async fn check_issuer(&self, authorization: &str) -> Result<(), XrpcError> {
        let untrusted = || XrpcError::new(401, "AuthenticationRequired", "Untrusted issuer");
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let token = service_auth::parse(token).map_err(|_| untrusted())?;
        let document = self.resolve(token.issuer()).await.ok_or_else(untrusted)?;
        let key = document.signing_key().ok_or_else(untrusted)?;
        let settings = self.settings();
        let entryway = settings.entryway.as_ref().map(|entryway| entryway.did.as_str());
        let good = [Some(settings.service_did.as_str()), entryway].into_iter().flatten().any(|audience| {
            token.verify(&key, audience, Some("com.atproto.server.createAccount"), self.now()).is_ok()
        });
        if good { Ok(()) } else { Err(XrpcError::new(401, "BadJwtAudience", "jwt audience does not match")) }
    }

    pub(super) async fn create_account(&self, seen: &SeenRequest, input: &Value) -> Result<Reply, XrpcError> {
        let authorization = seen.header("authorization");
        if !authorization.is_empty() {
            self.check_issuer(authorization).await?;
        }
        let handle = input.get("handle").and_then(Value::as_str).unwrap_or_default();
        let handle: Handle =
            handle.parse().map_err(|_| XrpcError::new(400, "InvalidHandle", "Invalid handle"))?;
        let (Some(did), Some(op)) = (input.get("did").and_then(Value::as_str), input.get("plcOp")) else {
            return Err(invalid("non-entryway pds requires bringing a DID and plcOp"));
        };
        let did: Did = did.parse().map_err(|_| invalid("Input/did must be a valid did"))?;
        let settings = self.settings();
        let entryway = settings.entryway.ok_or_else(|| invalid("Unsupported input: \"plcOp\""))?;
        let Ok(operation) = serde_json::from_value::<Operation>(op.clone()) else {
            return Err(incompatible("invalid plc operation"));
        };
        let data = operation.data().ok_or_else(|| incompatible("invalid plc operation"))?;
        if !data.rotation_keys.contains(&entryway.rotation_key) {
            return Err(incompatible("PLC DID does not include service rotation key"));
        }
        let rotation_key = PublicKey::from_did_key(&entryway.rotation_key)
            .map_err(|_| incompatible("invalid plc operation"))?;
        if data.check().is_err() || operation.verify_signature(&[rotation_key]).is_err() {
            return Err(incompatible("invalid plc operation"));
        }
        // The rest compares the operation with what this host would have written into it.
        let named_key = data.signing_key().ok_or_else(|| incompatible("invalid plc operation"))?;
        let key = locked(&self.accounts)
            .reserved(&did, named_key)
            .ok_or_else(|| invalid("reserved signing key does not exist"))?;
        if data.handle().as_ref() != Some(&handle) {
            return Err(incompatible("provided handle does not match DID document handle"));
        }
        if data.pds_endpoint() != Some(settings.public_url.as_str()) {
            return Err(incompatible("DID document pds endpoint does not match service endpoint"));
        }
        if named_key != key.public().to_did_key() {
            return Err(incompatible("DID document signing key does not match service signing key"));
        }
        if locked(&self.accounts).find(&did).is_some() {
            return Err(XrpcError::new(400, "AlreadyExists", "Repo already exists"));
        }

        // Published before the account exists, as in the reference PDS: a failure after this leaves
        // a DID without an account.
        self.publish(settings.directory_url.as_deref(), &did, op).await?;
        let mut accounts = locked(&self.accounts);
        if self.trips() || accounts.by_handle(&handle).is_some() || accounts.find(&did).is_some() {
            // The published host trips over its unique index here.
            return Err(XrpcError::new(500, "InternalServerError", "Internal Server Error"));
        }
        accounts.clear_reserved(&did, &key);
        accounts.add(Account::new(did.clone(), handle.clone(), key));
        let document = DidDocument::of_plc_data(&did, &data);
        Ok(loopback::json(
            200,
            &json!({
                "did": did, "handle": handle, "didDoc": document,
                // Genkan must not pass these on: they are not JWTs, so a test would fail on them.
                "accessJwt": "thrown.away.token", "refreshJwt": "thrown.away.token",
            }),
        ))
    }

    /// Sends the operation to the directory. Every failure there is an internal error here.
    async fn publish(&self, directory: Option<&str>, did: &Did, op: &Value) -> Result<(), XrpcError> {
        let failed = || XrpcError::new(500, "InternalServerError", "Internal Server Error");
        let client = Client::new(directory.ok_or_else(failed)?);
        let request = client
            .request(http::Method::POST, &format!("/{did}"))
            .header("content-type", "application/json")
            .body(op.to_string())
            .unwrap();
        match client.try_send(request).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            _ => Err(failed()),
        }
    }
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> XrpcError {
    XrpcError::new(400, "InvalidRequest", message)
}

fn incompatible(message: &'static str) -> XrpcError {
    XrpcError::new(400, "IncompatibleDidDoc", message)
}
