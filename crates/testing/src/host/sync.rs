//! Public reads of repositories and blobs.

use genkan_protocol::syntax::Did;
use genkan_protocol::xrpc_error::XrpcError;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::Pds;
use super::accounts::Account;
use super::admin::parameter;
use super::create_account::invalid;
use super::repo::{pattern, refuse_hidden};
use super::tokens::STANDARD_TAKENDOWN;
use crate::loopback::{self, Reply, SeenRequest, locked};

impl Pds {
    /// Returns the account that a read is for. Its owner may read it also while others may not.
    fn read_of(&self, seen: &SeenRequest) -> Result<Account, XrpcError> {
        let did = parameter(seen, "did").ok_or_else(|| invalid("Params must have the property \"did\""))?;
        let not_found = || XrpcError::new(400, "RepoNotFound", format!("Could not find repo for DID: {did}"));
        let did: Did = did.parse().map_err(|_| invalid("did must be a valid did"))?;
        let account = locked(&self.accounts).find(&did).cloned().ok_or_else(not_found)?;
        // A wrong token is an error here, and not a read by the public.
        let is_owner = !seen.header("authorization").is_empty()
            && self.access(seen, STANDARD_TAKENDOWN)?.sub == account.did;
        if !is_owner {
            refuse_hidden(&account)?;
        }
        Ok(account)
    }

    pub(super) fn blob(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let account = self.read_of(seen)?;
        let cid = parameter(seen, "cid").ok_or_else(|| invalid("Params must have the property \"cid\""))?;
        let blob = account.blobs.get(&cid);
        Ok(blob.ok_or_else(|| XrpcError::new(400, "BlobNotFound", "Blob not found"))?.reply())
    }

    pub(super) fn blobs(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let cids: Vec<_> = self.read_of(seen)?.blobs.into_keys().collect();
        Ok(loopback::json(200, &json!({ "cids": cids })))
    }

    /// Makes a file of the size that the test chose. Its length is not announced, as the published
    /// host streams it.
    pub(super) fn repo_file(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let account = self.read_of(seen)?;
        let body = pattern(account.repo_size);
        Ok(http::Response::builder().header("content-type", "application/vnd.ipld.car").body(body).unwrap())
    }

    pub(super) fn latest_commit(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        self.read_of(seen)?;
        Ok(loopback::json(200, &json!({ "cid": "bafyreib", "rev": "3zzzzzzzzzzzz" })))
    }

    pub(super) fn repo_status(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let did = parameter(seen, "did").and_then(|did| did.parse::<Did>().ok());
        // Without `refuse_hidden`: this method tells whether an account is hidden.
        let account = did.and_then(|did| locked(&self.accounts).find(&did).cloned());
        let account = account.ok_or_else(|| XrpcError::new(400, "RepoNotFound", "Could not find repo"))?;
        let status = account.status();
        Ok(loopback::json(200, &json!({ "did": account.did, "active": status.is_none(), "status": status })))
    }

    pub(super) async fn import_repo(
        &self,
        account: &Account,
        mut body: Incoming,
    ) -> Result<Reply, XrpcError> {
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| invalid("Request aborted"))?;
            size += frame.data_ref().map_or(0, bytes::Bytes::len) as u64;
        }
        locked(&self.accounts).change(&account.did, |account| account.repo_size = size);
        Ok(http::Response::new(loopback::whole("")))
    }
}
