//! The steps of a sign-up, and how an interrupted one is settled.
//!
//! 1. Choose a host and reserve a signing key there. A crash leaves nothing behind: a reserved key
//!    has no effect.
//! 2. Build and sign the genesis operation, which determines the DID. Write account, invite use and
//!    sign-up in one transaction: from here on there is something to finish or to undo.
//! 3. Ask the host to create the account. It publishes the operation itself.
//! 4. Open the account and delete the sign-up, in one transaction.
//!
//! Settling begins with a look at the host and at the directory:
//!
//! | host | directory | then |
//! |---|---|---|
//! | has the account | any | step 4 |
//! | has none | empty | step 3 again, with the same operation |
//! | has none | has the operation | step 3 with an update operation, which keeps the DID |
//! | has none | tombstone | undo |
//!
//! That look is in `evidence`. If the host refuses for good, `undo` frees the handle first, then
//! tombstones the DID, and then makes sure that the host keeps nothing.

use std::future::Future;
use std::sync::Arc;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::{Did, Handle};

use super::context::Context;
use super::error::Error;
use super::evidence::{Evidence, look};
use super::outcome::{Outcome, wait};
use super::record::record;
use super::request::Request;
use super::sql::{self, SignUp, Step};
use super::undo::{drop_record, undo};
use crate::accounts::{self, note_change};
use crate::base::Secret;
use crate::db::audit::{self, Actor};
use crate::db::leases::while_held;
use crate::fleet::{Host, HostError};
use crate::telemetry::failpoint;

/// Does steps 1 to 4 for a new request. Tries another host only if nothing was sent to the first.
pub(super) async fn begin(of: &Context, request: &Request, hash: &Secret<String>) -> Result<Outcome, Error> {
    for _ in 0..HOSTS_TRIED {
        // A doubted host is left out for a few seconds, so the next round draws another one.
        let host = of.with.fleet.place(of.with.clock.now()).map_err(|_| Error::NoRoom)?;
        let key = match of.with.hosts.reserve_signing_key(&host).await {
            Ok(key) => key,
            Err(cause) => {
                tracing::warn!(host.id = %host.id, cause = %cause, "could not reserve a signing key at a host; trying another host");
                of.with.fleet.doubt(&host);
                continue;
            }
        };
        let did = record(of, request, hash, &host, &key).await?;
        failpoint("signup.recorded");
        // A crash from here on is settled by the job, because the row is committed.
        match held(of, &did, settle_recorded(of, &did, &host, FirstStep::Send)).await? {
            SendOutcome::Settled(settled) => return Ok(settled),
            SendOutcome::Never => {
                // The host was not reached, so trying another one cannot create two accounts. The
                // old record holds the handle, so it goes first.
                of.with.fleet.doubt(&host);
                drop_record(of, &did, request.invite_code.as_deref()).await?;
            }
        }
    }
    Err(Error::NoRoom)
}

/// Settles an interrupted sign-up. Returns `None` if another process works on it or it no longer
/// exists.
pub(super) async fn settle(of: &Context, did: &str) -> Result<Option<Outcome>, Error> {
    let did: Did = did.parse().map_err(|_| crate::db::Error::corrupt("signups", "did", did))?;
    // The lease keeps two processes from sending requests to the host at the same time.
    if !sql::take_lease(&of.with.db, &did, &of.worker, of.now()).await? {
        return Ok(None);
    }
    held(of, &did, settle_taken(of, &did)).await
}

async fn settle_taken(of: &Context, did: &Did) -> Result<Option<Outcome>, Error> {
    let Some(sign_up) = sql::find(&of.with.db, did).await? else { return Ok(None) };
    let Some(host) = of.with.fleet.host(&sign_up.host.as_str().into()) else {
        return undo(of, &sign_up, did, None, "its host was removed").await.map(Some);
    };
    match sign_up.step {
        // The undoing continues even if the host has become healthy again: handle and address are
        // free, and another account may have them by now.
        Step::Undoing => undo(of, &sign_up, did, Some(&host), "undoing").await.map(Some),
        Step::Recorded => match settle_recorded(of, did, &host, FirstStep::Look).await? {
            SendOutcome::Settled(settled) => Ok(Some(settled)),
            // The host could not be reached. The record stays, and the job tries again.
            SendOutcome::Never => wait(of, &sign_up, did, "the host does not answer").await.map(Some),
        },
    }
}

/// Where work on a recorded sign-up begins.
enum FirstStep {
    /// Nothing was sent yet: send the request.
    Send,
    /// The request may have been sent, so Genkan looks first.
    Look,
}

/// The result of step 3 and what follows it.
enum SendOutcome {
    Settled(Outcome),
    /// The host was not reached, so nothing can have happened.
    Never,
}

/// Does steps 3 and 4 of a recorded sign-up, whose lease this process holds.
async fn settle_recorded(
    of: &Context,
    did: &Did,
    host: &Arc<Host>,
    first: FirstStep,
) -> Result<SendOutcome, Error> {
    // Another process has finished or undone it meanwhile.
    let Some(sign_up) = sql::find(&of.with.db, did).await? else {
        return Ok(SendOutcome::Settled(Outcome::Waiting));
    };
    let handle = handle_of(&sign_up, did)?;
    let mut refusal = None;
    if matches!(first, FirstStep::Send) {
        match of.with.hosts.create_account(host, did, &handle, &operation(&sign_up.operation, did)?).await {
            Ok(()) => return finish(of, &sign_up, did).await.map(SendOutcome::Settled),
            // `Unreachable` says that the request never reached the host. Every later failure is
            // ambiguous.
            Err(HostError::Unreachable(cause)) => {
                tracing::warn!(host.id = %host.id, cause = &*cause, "could not reach a host for a new account");
                return Ok(SendOutcome::Never);
            }
            Err(cause) => refusal = Some(cause),
        }
    }
    failpoint("signup.sent");
    if let Some(HostError::Unanswered(cause)) = &refusal {
        // The host may still be working on the request. A second one now could overtake it.
        return match look(of, &sign_up, did, host).await {
            Evidence::Made => finish(of, &sign_up, did).await.map(SendOutcome::Settled),
            _ => wait(of, &sign_up, did, cause).await.map(SendOutcome::Settled),
        };
    }
    for _ in 0..SENDS {
        // A process that lost its lease must not send: its successor may be sending.
        if !keep_lease(of, did).await? {
            return Ok(SendOutcome::Settled(Outcome::Waiting));
        }
        match look(of, &sign_up, did, host).await {
            Evidence::Made => return finish(of, &sign_up, did).await.map(SendOutcome::Settled),
            Evidence::Unclear(why) => return wait(of, &sign_up, did, &why).await.map(SendOutcome::Settled),
            Evidence::Dead => {
                let why = "the DID is tombstoned";
                return undo(of, &sign_up, did, Some(host), why).await.map(SendOutcome::Settled);
            }
            Evidence::Nothing => {
                if let Some(cause) = &refusal
                    && is_final(cause)
                {
                    let why = cause.to_string();
                    return undo(of, &sign_up, did, Some(host), &why).await.map(SendOutcome::Settled);
                }
                // The same signed operation again: the DID is its hash, so a new signature would
                // result in another DID.
                let again = operation(&sign_up.operation, did)?;
                refusal = of.with.hosts.create_account(host, did, &handle, &again).await.err();
            }
            Evidence::OnlyPublished(last) => {
                // The DID exists without an account. The host accepts it with an update operation,
                // and would refuse the genesis operation a second time.
                let update =
                    plc::update(&last.cid(), identity_again(&last, &sign_up, did)?, of.with.ring.rotation());
                note_update(of, did).await?;
                failpoint("signup.updating");
                refusal = of.with.hosts.create_account(host, did, &handle, &update).await.err();
            }
        }
        if refusal.is_none() {
            return finish(of, &sign_up, did).await.map(SendOutcome::Settled);
        }
    }
    // The last request may still be running on the host. `undo` looks again after `LATE`.
    let why = refusal.map_or_else(|| "the host refused the account".to_owned(), |cause| cause.to_string());
    undo(of, &sign_up, did, Some(host), &why).await.map(SendOutcome::Settled)
}

/// Whether the host would refuse the request again: a 4xx status other than 429.
fn is_final(cause: &HostError) -> bool {
    matches!(cause, HostError::Refused { status, .. } if *status < 500 && *status != 429)
}

/// Does step 4.
async fn finish(of: &Context, sign_up: &SignUp, did: &Did) -> Result<Outcome, Error> {
    failpoint("signup.made");
    let now = of.now();
    let mut tx = of.with.db.begin().await?;
    // Both conditions must hold in one transaction. `remove` fails if the lease is lost, and then
    // the successor opens the account. Dropping `tx` undoes the removal.
    if !sql::remove(&mut tx, &sign_up.did, &of.worker).await? || !accounts::open(&mut tx, did).await? {
        return Ok(Outcome::Waiting);
    }
    audit::record(&mut tx, now, Actor::Account(did), "account.create", did.as_str(), &sign_up.host).await?;
    note_change(&mut tx, did).await?;
    tx.commit().await?;
    failpoint("signup.done");
    Ok(Outcome::Done(did.clone()))
}

/// Does `work` on a sign-up whose lease this process holds, and renews the lease meanwhile.
async fn held<T>(of: &Context, did: &Did, work: impl Future<Output = T>) -> T {
    // Pinned on the heap: the future of a whole saga is too large to be moved on the stack.
    while_held(Box::pin(work), || keep_lease(of, did)).await
}

async fn keep_lease(of: &Context, did: &Did) -> Result<bool, Error> {
    Ok(sql::keep_lease(&of.with.db, did, &of.worker, of.now()).await?)
}

/// Records an update operation in the audit log, as every use of the rotation key.
async fn note_update(of: &Context, did: &Did) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    // Written before the operation is sent: the log may contain a use that did not happen, but
    // never misses one.
    audit::record(&mut tx, of.now(), Actor::Genkan, "plc.update", did.as_str(), "sign-up").await?;
    tx.commit().await?;
    Ok(())
}

fn handle_of(sign_up: &SignUp, did: &Did) -> Result<Handle, Error> {
    let data = operation(&sign_up.operation, did)?.data();
    data.and_then(|data| data.handle()).ok_or_else(|| corrupt(did))
}

/// Returns the published identity with the key that the host reserved for this sign-up.
fn identity_again(last: &Operation, sign_up: &SignUp, did: &Did) -> Result<plc::Data, Error> {
    let mut data = last.data().ok_or_else(|| corrupt(did))?;
    let key = PublicKey::from_did_key(&sign_up.host_key).map_err(|_| corrupt(did))?;
    data.set_signing_key(&key);
    Ok(data)
}

fn operation(text: &str, did: &Did) -> Result<Operation, Error> {
    serde_json::from_str(text).map_err(|_| corrupt(did))
}

fn corrupt(did: &Did) -> Error {
    crate::db::Error::corrupt("signups", "operation", did.as_str()).into()
}

/// Maximum number of hosts for one request.
const HOSTS_TRIED: usize = 3;
/// Maximum number of requests to the host in one go.
const SENDS: usize = 3;
