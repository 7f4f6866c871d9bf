//! `com.atproto.admin.*` of a host.

use genkan_protocol::did_document::DidDocument;
use genkan_protocol::syntax::{Did, Handle};
use genkan_protocol::xrpc_error::XrpcError;
use serde_json::{Value, json};

use super::Pds;
use super::create_account::invalid;
use crate::call::Client;
use crate::loopback::{self, Reply, SeenRequest, locked, whole};

impl Pds {
    pub(super) async fn update_account_handle(&self, input: &Value) -> Result<Reply, XrpcError> {
        let did = did_in(input, "did")?;
        let handle = input.get("handle").and_then(Value::as_str).unwrap_or_default();
        let handle: Handle =
            handle.parse().map_err(|_| XrpcError::new(400, "InvalidHandle", "Invalid handle"))?;
        {
            let accounts = locked(&self.accounts);
            if accounts.find(&did).is_none_or(|account| account.taken_down) {
                return Err(invalid("Account not found"));
            }
        }
        self.check_name(&handle, &did)?;
        if locked(&self.accounts).by_handle(&handle).is_some_and(|account| account.did != did) {
            let message = format!("Handle already taken: {handle}");
            return Err(XrpcError::new(400, "HandleNotAvailable", message));
        }
        // The reference PDS reads the document before it changes anything, so the directory must
        // have the new handle first.
        let claimed = self.resolve(&did).await.and_then(|document| document.handle());
        if claimed.as_ref() != Some(&handle) {
            return Err(invalid("Handle does not match DID doc"));
        }
        locked(&self.accounts).change(&did, |account| account.handle = handle);
        Ok(http::Response::new(whole("")))
    }

    /// Checks a handle. Under the service's domains it has one label; elsewhere it must lead to the
    /// account.
    fn check_name(&self, handle: &Handle, did: &Did) -> Result<(), XrpcError> {
        let refuse = |message: &'static str| Err(XrpcError::new(400, "InvalidHandle", message));
        let settings = self.settings();
        let front = settings.handle_domains.iter().find_map(|domain| handle.as_str().strip_suffix(domain));
        match front {
            Some(front) if front.contains('.') => refuse("Invalid characters in handle"),
            Some(front) if front.len() < 3 => refuse("Handle too short"),
            Some(front) if front.len() > 18 => refuse("Handle too long"),
            Some(_) => Ok(()),
            None if locked(&self.names).get(handle) == Some(did) => Ok(()),
            None => Err(invalid("External handle did not resolve to DID")),
        }
    }

    pub(super) async fn update_subject_status(&self, input: &Value) -> Result<Reply, XrpcError> {
        let subject =
            input.get("subject").ok_or_else(|| invalid("Input must have the property \"subject\""))?;
        if subject.get("$type").and_then(Value::as_str) != Some("com.atproto.admin.defs#repoRef") {
            return Err(invalid("Input/subject must be a repoRef"));
        }
        let did = did_in(subject, "did")?;
        let applied = |name: &str| input.pointer(&format!("/{name}/applied")).and_then(Value::as_bool);
        let (takedown, deactivated) = (applied("takedown"), applied("deactivated"));
        if takedown == Some(true) && deactivated == Some(false) {
            return Err(invalid("Cannot activate and takedown an account at the same time"));
        }
        if let Some(taken_down) = takedown {
            locked(&self.accounts).change(&did, |account| account.taken_down = taken_down);
        }
        match deactivated {
            Some(true) => drop(locked(&self.accounts).change(&did, |account| account.deactivated = true)),
            Some(false) => self.activate(&did).await?,
            None => {}
        }
        let mut answer = json!({ "subject": subject });
        if let (Some(members), Some(takedown)) = (answer.as_object_mut(), input.get("takedown")) {
            members.insert("takedown".to_owned(), takedown.clone());
        }
        Ok(loopback::json(200, &answer))
    }

    /// Activates an account if its document still names this host and its key.
    async fn activate(&self, did: &Did) -> Result<(), XrpcError> {
        let account = locked(&self.accounts).find(did).cloned();
        let account =
            account.filter(|account| !account.taken_down).ok_or_else(|| invalid("Account not found"))?;
        let document = self.resolve(did).await;
        // An account that has moved away must not become active here again.
        let is_ours = document.is_some_and(|document| {
            document.pds_endpoint() == Some(self.settings().public_url.as_str())
                && document.signing_key() == Some(account.key.public())
        });
        if !is_ours {
            return Err(invalid("DID document pds endpoint does not match service endpoint"));
        }
        locked(&self.accounts).change(did, |account| account.deactivated = false);
        Ok(())
    }

    pub(super) fn delete_account(&self, input: &Value) -> Result<Reply, XrpcError> {
        locked(&self.accounts).remove(&did_in(input, "did")?);
        Ok(http::Response::new(whole("")))
    }

    pub(super) fn account_info(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let did = parameter(seen, "did").ok_or_else(|| invalid("Params must have the property \"did\""))?;
        match self.info(&did) {
            Some(info) => Ok(loopback::json(200, &info)),
            None => Err(XrpcError::new(400, "NotFound", "Account not found")),
        }
    }

    pub(super) fn account_infos(&self, seen: &SeenRequest) -> Reply {
        let dids = parameters(seen, "dids");
        let infos: Vec<_> = dids.iter().filter_map(|did| self.info(did)).collect();
        loopback::json(200, &json!({ "infos": infos }))
    }

    pub(super) fn subject_status(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let did = parameter(seen, "did").and_then(|did| did.parse::<Did>().ok());
        let did = did.ok_or_else(|| invalid("No provided subject"))?;
        let accounts = locked(&self.accounts);
        let account = accounts.find(&did);
        let account = account.ok_or_else(|| XrpcError::new(400, "NotFound", "Subject not found"))?;
        Ok(loopback::json(
            200,
            &json!({
                "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": did },
                "takedown": { "applied": account.taken_down },
                "deactivated": { "applied": account.deactivated },
            }),
        ))
    }

    fn info(&self, did: &str) -> Option<Value> {
        let did: Did = did.parse().ok()?;
        let accounts = locked(&self.accounts);
        let account = accounts.find(&did)?;
        let mut info = json!({
            "did": did, "handle": account.handle, "indexedAt": "2024-01-01T00:00:00.000Z",
        });
        if account.deactivated {
            let members = info.as_object_mut()?;
            members.insert("deactivatedAt".to_owned(), json!("2024-01-01T00:00:00.000Z"));
        }
        Some(info)
    }

    /// Resolves a DID without a cache.
    pub(super) async fn resolve(&self, did: &Did) -> Option<DidDocument> {
        let client = Client::new(&self.settings().directory_url?);
        let request = client.request(http::Method::GET, &format!("/{did}")).body(String::new()).ok()?;
        let answer = client.try_send(request).await.ok().filter(|answer| answer.status == 200)?;
        serde_json::from_slice(&answer.body).ok()
    }
}

/// Returns a parameter of the query.
pub(super) fn parameter(seen: &SeenRequest, name: &str) -> Option<String> {
    parameters(seen, name).into_iter().next()
}

/// Returns all values of a parameter.
pub(super) fn parameters(seen: &SeenRequest, name: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> = serde_html_form::from_str(&seen.query).unwrap_or_default();
    pairs.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

pub(super) fn did_in(input: &Value, name: &str) -> Result<Did, XrpcError> {
    let did = input.get(name).and_then(Value::as_str).unwrap_or_default();
    did.parse().map_err(|_| invalid(format!("Input/{name} must be a valid did")))
}
