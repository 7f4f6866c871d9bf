//! Decides for each request which method answers it, and for whom.

use genkan_protocol::did_document::DidDocument;
use genkan_protocol::jwt::session::Scope;
use genkan_protocol::oauth::scope::RepoAction;
use genkan_protocol::xrpc_error::XrpcError;
use http::Method;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::Pds;
use super::create_account::invalid;
use super::tokens::{FULL, FULL_TAKENDOWN, STANDARD, STANDARD_QUEUED, STANDARD_TAKENDOWN};
use crate::loopback::{self, ReceivedCall, Reply, SeenRequest, locked};

/// Returns the NSID, or the path if the request is for no method.
pub(super) fn name_of(request: &Parts) -> String {
    let path = request.uri.path();
    path.strip_prefix("/xrpc/").unwrap_or(path).to_owned()
}

impl Pds {
    pub(super) async fn answer(&self, asked: ReceivedCall) -> Reply {
        let seen = asked.seen.clone();
        match self.route(asked).await {
            Ok(reply) => self.with_nonce(&seen, reply, None),
            Err(error) => {
                let reply = loopback::refusal(error.status, &error.name, &error.message);
                self.with_nonce(&seen, reply, Some(&error))
            }
        }
    }

    async fn route(&self, asked: ReceivedCall) -> Result<Reply, XrpcError> {
        let ReceivedCall { seen, body } = asked;
        if !seen.path.starts_with("/xrpc/") {
            return Ok(self.outside(&seen));
        }
        // The password is checked for the whole family, before the method is known.
        if let Some(family) = seen.name.strip_prefix("com.atproto.admin.") {
            return self.administer(family, &seen, body).await;
        }
        match seen.name.as_str() {
            "_health" => Ok(loopback::json(200, &json!({ "version": "0.5.35" }))),
            "com.atproto.server.describeServer" => Ok(self.describe_server()),
            "com.atproto.server.reserveSigningKey" => self.reserve_signing_key(&input(body).await?),
            "com.atproto.server.createAccount" => self.create_account(&seen, &input(body).await?).await,
            "com.atproto.server.createSession"
            | "com.atproto.server.requestPasswordReset"
            | "com.atproto.server.resetPassword"
            | "com.atproto.server.deleteAccount" => self.ask_passing(&seen, Some(input(body).await?)).await,
            "com.atproto.server.refreshSession" => self.refresh_session(&seen).await,
            "com.atproto.server.deleteSession" => self.ask_passing(&seen, None).await,
            "com.atproto.server.activateAccount" => {
                self.access(&seen, FULL)?;
                self.ask_passing(&seen, None).await
            }
            "com.atproto.server.getServiceAuth" => self.service_auth(&seen),
            "com.atproto.temp.checkSignupQueue" => {
                self.access(&seen, STANDARD_QUEUED)?;
                self.ask_passing(&seen, None).await
            }
            "com.atproto.sync.getBlob" => self.blob(&seen),
            "com.atproto.sync.listBlobs" => self.blobs(&seen),
            "com.atproto.sync.getRepo" => self.repo_file(&seen),
            "com.atproto.sync.getLatestCommit" => self.latest_commit(&seen),
            "com.atproto.sync.getRepoStatus" => self.repo_status(&seen),
            "com.atproto.repo.getRecord" => self.record(&seen),
            "com.atproto.repo.listRecords" => self.records(&seen),
            "com.atproto.repo.describeRepo" => self.describe_repo(&seen).await,
            "com.atproto.repo.uploadBlob" => {
                let caller = self.caller(&seen, STANDARD, true);
                let caller = caller.and_then(|(speaker, account)| {
                    speaker.needs_blob(seen.header("content-type")).map(|()| account)
                });
                let account = match caller {
                    Ok(account) => account,
                    Err(error) => {
                        // Node reads the rest of the body instead of resetting the connection.
                        let _ = body.collect().await;
                        return Err(error);
                    }
                };
                self.upload_blob(&seen, &account, body).await
            }
            "com.atproto.repo.importRepo" => {
                let (speaker, account) = self.caller(&seen, FULL, false)?;
                speaker.needs_import()?;
                self.import_repo(&account, body).await
            }
            _ => self.for_caller(&seen, body).await,
        }
    }

    /// Answers a method for a session: at the entryway, in the account's repository, or at a
    /// service that the host calls.
    async fn for_caller(&self, seen: &SeenRequest, body: Incoming) -> Result<Reply, XrpcError> {
        if let Some((scopes, checks)) = signed_method(&seen.name) {
            let (speaker, account) = if checks {
                self.caller(seen, scopes, false)?
            } else {
                let speaker = self.speaker(seen, scopes)?;
                let account = locked(&self.accounts).find(&speaker.did).cloned();
                let gone = || XrpcError::new(403, "AccountNotFound", "Account not found");
                (speaker, account.ok_or_else(gone)?)
            };
            speaker.needs_for(&seen.name)?;
            let mut sent = match seen.method {
                Method::GET => None,
                _ => optional_input(body).await?,
            };
            if seen.name == "com.atproto.identity.updateHandle"
                && let Some(Value::Object(members)) = &mut sent
            {
                // The entryway cannot tell the account from the client's input, so the host adds
                // it.
                members.insert("did".to_owned(), json!(account.did));
            }
            return self.ask_signed(seen, &account, sent).await;
        }
        match seen.name.as_str() {
            "com.atproto.repo.createRecord" => {
                let (speaker, account) = self.caller(seen, STANDARD, true)?;
                let input = input(body).await?;
                speaker.needs_repo(RepoAction::Create, &input)?;
                self.put_record(&account, &input, true)
            }
            "com.atproto.repo.putRecord" => {
                let (speaker, account) = self.caller(seen, STANDARD, true)?;
                let input = input(body).await?;
                speaker.needs_repo(RepoAction::Update, &input)?;
                self.put_record(&account, &input, false)
            }
            "com.atproto.repo.deleteRecord" => {
                let (speaker, account) = self.caller(seen, STANDARD, true)?;
                let input = input(body).await?;
                speaker.needs_repo(RepoAction::Delete, &input)?;
                self.delete_record(&account, &input)
            }
            "com.atproto.repo.applyWrites" => {
                let (_, account) = self.caller(seen, STANDARD, true)?;
                self.apply_writes(&account, &input(body).await?)
            }
            "com.atproto.server.checkAccountStatus" => {
                let (_, account) = self.caller(seen, STANDARD, false)?;
                Ok(loopback::json(200, &json!({ "activated": !account.deactivated, "validDid": true })))
            }
            "com.atproto.identity.getRecommendedDidCredentials" => self.recommended(seen),
            _ => self.unmatched(seen, body).await,
        }
    }

    async fn administer(&self, method: &str, seen: &SeenRequest, body: Incoming) -> Result<Reply, XrpcError> {
        // The reference PDS refuses this one before it checks the password.
        if matches!(method, "getInviteCodes") {
            return Err(invalid("Account invites are managed by the entryway service"));
        }
        self.admin(seen)?;
        match method {
            "updateAccountHandle" => self.update_account_handle(&input(body).await?).await,
            "updateSubjectStatus" => self.update_subject_status(&input(body).await?).await,
            "deleteAccount" => self.delete_account(&input(body).await?),
            "getAccountInfo" => self.account_info(seen),
            "getAccountInfos" => Ok(self.account_infos(seen)),
            "getSubjectStatus" => self.subject_status(seen),
            "updateAccountEmail" | "updateAccountPassword" => {
                self.ask_passing(seen, Some(input(body).await?)).await
            }
            "disableAccountInvites" | "enableAccountInvites" | "disableInviteCodes" => {
                Err(invalid("Account invites are managed by the entryway service"))
            }
            _ => Err(XrpcError::new(501, "MethodNotImplemented", "Method Not Implemented")),
        }
    }

    async fn refresh_session(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let claims = self.refresh(seen)?;
        let account = locked(&self.accounts)
            .find(&claims.sub)
            .cloned()
            .ok_or_else(|| invalid(format!("Could not find user info for account: {}", claims.sub)))?;
        if account.taken_down {
            return Err(XrpcError::new(401, "AccountTakedown", "Account has been taken down"));
        }
        self.ask_passing(seen, None).await
    }

    /// Makes a token for another service, except for methods that only the host itself may call.
    fn service_auth(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let claims = self.access(seen, STANDARD_TAKENDOWN)?;
        let account = locked(&self.accounts).find(&claims.sub).cloned();
        let account = account.ok_or_else(|| XrpcError::new(403, "AccountNotFound", "Account not found"))?;
        let aud = super::admin::parameter(seen, "aud")
            .ok_or_else(|| invalid("Params must have the property \"aud\""))?;
        let lxm = super::admin::parameter(seen, "lxm");
        let lxm = lxm.as_deref();
        // A session of an account that is taken down may only move it away. This host takes no part
        // in moves.
        if claims.scope == Scope::Takendown {
            return Err(invalid("insufficient access to request a service auth token for this method"));
        }
        if let Some(lxm) = lxm
            // Such a token would let the client call the entryway as the host does.
            && (signed_method(lxm).is_some() || lxm == "com.atproto.server.activateAccount")
        {
            return Err(invalid(format!(
                "cannot request a service auth token for the following protected method: {lxm}"
            )));
        }
        Ok(loopback::json(200, &json!({ "token": self.service_token(&account, &aud, lxm) })))
    }

    fn recommended(&self, seen: &SeenRequest) -> Result<Reply, XrpcError> {
        let (_, account) = self.caller(seen, STANDARD, false)?;
        let settings = self.settings();
        let rotation_keys: Vec<_> =
            settings.entryway.into_iter().map(|entryway| entryway.rotation_key).collect();
        Ok(loopback::json(
            200,
            &json!({
                "rotationKeys": rotation_keys,
                "verificationMethods": { "atproto": account.key.public().to_did_key() },
                "services": { "atproto_pds": {
                    "type": "AtprotoPersonalDataServer", "endpoint": settings.public_url,
                } },
                "alsoKnownAs": [format!("at://{}", account.handle)],
            }),
        ))
    }

    /// Stands for the service that the host would have called. The answer repeats the request and
    /// its caller.
    async fn unmatched(&self, seen: &SeenRequest, body: Incoming) -> Result<Reply, XrpcError> {
        let (speaker, _) = self.caller(seen, STANDARD, false)?;
        speaker.needs_rpc(seen)?;
        let bytes = body.collect().await.map_err(|_| invalid("Request aborted"))?.to_bytes();
        let headers: Map<String, Value> = seen
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
            .collect();
        Ok(loopback::json(
            200,
            &json!({
                "host": self.settings().service_did,
                "nsid": seen.name, "method": seen.method.as_str(), "query": seen.query,
                "did": speaker.did, "scope": speaker.scope,
                "headers": headers,
                "body": String::from_utf8_lossy(&bytes),
            }),
        ))
    }

    fn describe_server(&self) -> Reply {
        let settings = self.settings();
        loopback::json(
            200,
            &json!({
                "did": settings.service_did,
                "availableUserDomains": settings.handle_domains,
                "inviteCodeRequired": true,
                // The default of the reference PDS.
                "blobUploadLimit": 5 * 1024 * 1024,
                "links": {}, "contact": {},
            }),
        )
    }

    fn outside(&self, seen: &SeenRequest) -> Reply {
        match seen.path.as_str() {
            "/.well-known/did.json" => {
                let settings = self.settings();
                let document = DidDocument {
                    context: json!(["https://www.w3.org/ns/did/v1"]),
                    id: settings.service_did.parse().unwrap(),
                    also_known_as: Vec::new(),
                    verification_method: Vec::new(),
                    service: Vec::new(),
                    other: std::collections::BTreeMap::new(),
                };
                loopback::json(200, &json!(document))
            }
            "/.well-known/oauth-protected-resource" => {
                let settings = self.settings();
                // Without an entryway a PDS is its own authorization server.
                let issuer =
                    settings.entryway.map_or_else(|| settings.public_url.clone(), |entryway| entryway.url);
                loopback::json(
                    200,
                    &json!({ "resource": settings.public_url, "authorization_servers": [issuer] }),
                )
            }
            _ => loopback::refusal(404, "NotFound", "Not Found"),
        }
    }
}

/// Methods that the host forwards to the entryway, signed with the account's key. The value says
/// who may call them, and whether the account must not be taken down.
fn signed_method(nsid: &str) -> Option<(&'static [Scope], bool)> {
    Some(match nsid {
        "com.atproto.server.getSession" => (STANDARD_QUEUED, false),
        "com.atproto.server.createAppPassword"
        | "com.atproto.server.getAccountInviteCodes"
        | "com.atproto.server.requestEmailUpdate"
        | "com.atproto.server.updateEmail"
        | "com.atproto.server.requestAccountDelete" => (FULL, true),
        "com.atproto.server.listAppPasswords" | "com.atproto.server.revokeAppPassword" => (STANDARD, false),
        "com.atproto.server.requestEmailConfirmation"
        | "com.atproto.server.confirmEmail"
        | "com.atproto.identity.updateHandle" => (STANDARD, true),
        "com.atproto.server.deactivateAccount"
        | "com.atproto.identity.requestPlcOperationSignature"
        | "com.atproto.identity.signPlcOperation" => (FULL_TAKENDOWN, false),
        _ => return None,
    })
}

async fn input(body: Incoming) -> Result<Value, XrpcError> {
    optional_input(body).await?.ok_or_else(|| invalid("A request body is expected but none was provided"))
}

async fn optional_input(body: Incoming) -> Result<Option<Value>, XrpcError> {
    let bytes = body.collect().await.map_err(|_| invalid("Request aborted"))?.to_bytes();
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|_| invalid("Unexpected token in JSON"))
}
