//! Step 2 of a sign-up: the record of what is about to be done.

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::Did;

use super::context::Context;
use super::error::Error;
use super::request::Request;
use super::sql::{self, SignUp, Step};
use crate::accounts::{self, NewAccount, use_invite};
use crate::base::Secret;
use crate::db;
use crate::db::audit::{self, Actor};
use crate::fleet::Host;

/// Does step 2: records the intent before anything leaves Genkan.
pub(super) async fn record(
    of: &Context,
    request: &Request,
    hash: &Secret<String>,
    host: &Host,
    key: &PublicKey,
) -> Result<Did, Error> {
    let now = of.now();
    let (did, operation) = plc::genesis(identity(of, request, host, key), of.with.ring.rotation());
    let account = NewAccount {
        did: did.clone(),
        handle: request.handle.clone(),
        email: request.email.clone(),
        password_hash: hash.clone(),
        host: host.id.clone(),
        host_key: key.clone(),
        created_at: now,
    };
    let sign_up = SignUp {
        did: did.clone(),
        host: host.id.to_string(),
        host_key: key.to_did_key(),
        operation: json(&operation),
        invite_code: request.invite_code.clone(),
        step: Step::Recorded,
        attempts: 0,
        created_at: now,
    };
    db::repeated(|| write(of, request, &account, &sign_up)).await?;
    Ok(did)
}

async fn write(of: &Context, request: &Request, account: &NewAccount, sign_up: &SignUp) -> Result<(), Error> {
    let (did, now) = (&account.did, account.created_at);
    let mut tx = of.with.db.begin().await?;
    // The unique indexes on handle and address decide between two sign-ups at the same moment.
    accounts::insert_creating(&mut tx, account).await?;
    if let Some(code) = &request.invite_code
        && !use_invite(&mut tx, code, did, now).await?
    {
        // Dropping `tx` rolls the account row back.
        return Err(Error::InvalidInvite);
    }
    // With the account, so that a repeated request is known by its address even after a crash.
    of.with.attempts.note_sign_up(&mut tx, did, request.client).await?;
    sql::insert(&mut tx, sign_up, &of.worker).await?;
    audit::record(&mut tx, now, Actor::Genkan, "plc.genesis", did.as_str(), &sign_up.host).await?;
    // A client that was told to send the request again may have got its account by now, and may even
    // have deleted it. Handle and address are held here, so a copy that comes later waits for this
    // commit and finds the account.
    if request.waiting.has_left() {
        return Err(Error::Unfinished);
    }
    Ok(tx.commit().await?)
}

/// Returns the identity of the new account: the data of its genesis operation.
fn identity(of: &Context, request: &Request, host: &Host, key: &PublicKey) -> plc::Data {
    let own = of.with.ring.rotation().public().to_did_key();
    let mut rotation_keys: Vec<String> = Vec::new();
    for candidate in [&request.recovery_key, &of.rules.recovery_key].into_iter().flatten() {
        rotation_keys.push(candidate.to_did_key());
    }
    rotation_keys.push(own);
    // The directory refuses a list that names a key twice.
    // A recovery key may be equal to the service's own one, or to Genkan's rotation key. The order
    // is kept, because earlier keys have more authority in PLC.
    let mut seen = std::collections::HashSet::new();
    rotation_keys.retain(|key| seen.insert(key.clone()));
    plc::Data::of_account(rotation_keys, key, &request.handle, host.origin.as_str())
}

fn json(operation: &Operation) -> String {
    serde_json::to_string(operation).expect("an operation is strings and maps of strings")
}
