//! The calls of a host to its entryway: signed with the account's key, or with the client's own
//! header.

use bytes::Bytes;
use genkan_protocol::xrpc_error::XrpcError;
use http::Method;
use http_body_util::Full;
use serde_json::Value;

use super::Pds;
use super::accounts::Account;
use crate::call::{Answer, Client};
use crate::loopback::{Reply, SeenRequest, whole};

impl Pds {
    /// Calls the same method of the entryway with a token signed by the account's key.
    pub(super) async fn ask_signed(
        &self,
        seen: &SeenRequest,
        account: &Account,
        input: Option<Value>,
    ) -> Result<Reply, XrpcError> {
        let entryway = self.settings().entryway.ok_or_else(no_entryway)?;
        let token = self.service_token(account, &entryway.did, Some(&seen.name));
        self.ask(seen, &entryway.url, Some(format!("Bearer {token}")), input).await
    }

    /// Calls the same method of the entryway with the client's `Authorization` header.
    pub(super) async fn ask_passing(
        &self,
        seen: &SeenRequest,
        input: Option<Value>,
    ) -> Result<Reply, XrpcError> {
        let entryway = self.settings().entryway.ok_or_else(no_entryway)?;
        let header = seen.header("authorization");
        // A proof is valid for this host's URL only, so the entryway could not check it.
        if header.starts_with("DPoP ") || seen.headers.contains_key("dpop") {
            return Err(XrpcError::new(400, "InvalidRequest", "DPoP requests cannot be proxied"));
        }
        let header = (!header.is_empty()).then(|| header.to_owned());
        self.ask(seen, &entryway.url, header, input).await
    }

    async fn ask(
        &self,
        seen: &SeenRequest,
        url: &str,
        authorization: Option<String>,
        input: Option<Value>,
    ) -> Result<Reply, XrpcError> {
        let client = Client::new(url);
        let joint = if seen.query.is_empty() { "" } else { "?" };
        let path = format!("/xrpc/{}{joint}{}", seen.name, seen.query);
        let mut request = client
            .request(if seen.method == Method::GET { Method::GET } else { Method::POST }, &path)
            // A fixed address from the documentation range, so that tests can tell it from a real
            // one.
            .header("x-forwarded-for", "203.0.113.9");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let body = match input {
            Some(input) => {
                request = request.header("content-type", "application/json");
                Bytes::from(input.to_string())
            }
            None => Bytes::new(),
        };
        match client.try_send(request.body(Full::new(body)).unwrap()).await {
            Ok(answer) => passed_on(&answer),
            Err(_) => Err(XrpcError::new(502, "InternalServerError", "Failed to perform upstream request")),
        }
    }
}

fn passed_on(answer: &Answer) -> Result<Reply, XrpcError> {
    if answer.status != 200 {
        // The failure is the entryway's and not this host's.
        let status = if answer.status == 500 { 502 } else { answer.status };
        return Err(XrpcError::from_body(status, &answer.body)
            .unwrap_or_else(|| XrpcError::new(502, "InvalidResponse", "Upstream answered no XRPC error")));
    }
    if answer.body.is_empty() {
        return Ok(http::Response::new(whole("")));
    }
    if answer.json().is_null() {
        return Err(XrpcError::new(502, "InvalidResponse", "Upstream answered no JSON"));
    }
    Ok(crate::loopback::json(200, &answer.json()))
}

fn no_entryway() -> XrpcError {
    XrpcError::new(400, "InvalidRequest", "this host has no entryway")
}
