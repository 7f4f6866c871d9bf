//! The steps of a sign-up, and how an interrupted one is settled.
//!
//! 1. Choose a host and reserve a signing key there. A crash leaves nothing behind: a reserved key
//!    has
//!    no effect.
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
//! If the host refuses for good, undo: first free the handle, then tombstone the DID, then make
//! sure that the host keeps nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::{Did, Handle};

use super::context::Context;
use super::error::Error;
use super::request::Request;
use super::sql::{self, SignUp, Step};

use crate::accounts::{self, NewAccount, note_change, return_invite, use_invite};
use crate::base::Secret;
use crate::db::audit::{self, Actor};
use crate::db::leases::while_held;
use crate::fleet::{Host, HostError};
use crate::identity::{DirectoryError, Submission};
use crate::telemetry::failpoint;

/// The state of a sign-up after some steps.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Did),
    Undone(String),
    /// The host or the directory does not answer. A job continues later.
    Waiting,
}

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
    if !sql::take_lease(&of.with.db, &did, &of.worker, of.with.clock.now()).await? {
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

/// Does step 2: records the intent before anything leaves Genkan.
async fn record(
    of: &Context,
    request: &Request,
    hash: &Secret<String>,
    host: &Host,
    key: &PublicKey,
) -> Result<Did, Error> {
    let now = of.with.clock.now();
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
    let mut tx = of.with.db.begin().await?;
    // The unique indexes on handle and address decide between two sign-ups at the same moment.
    accounts::insert_creating(&mut tx, &account).await?;
    if let Some(code) = &request.invite_code
        && !use_invite(&mut tx, code, &did, now).await?
    {
        // Dropping `tx` rolls the account row back.
        return Err(Error::InvalidInvite);
    }
    sql::insert(&mut tx, &sign_up, &of.worker).await?;
    audit::record(&mut tx, now, Actor::Genkan, "plc.genesis", did.as_str(), host.id.as_str()).await?;
    tx.commit().await?;
    Ok(did)
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

/// What the host and the directory have of a sign-up.
enum Evidence {
    /// The host has the account.
    Made,
    /// Neither of them has anything.
    Nothing,
    /// The directory has Genkan's operation, but the host has no account.
    OnlyPublished(Operation),
    /// The DID has a tombstone, or there is nothing left to wait for.
    Dead,
    /// One of them does not answer.
    Unclear(String),
}

async fn look(of: &Context, sign_up: &SignUp, did: &Did, host: &Host) -> Evidence {
    // The host is asked first: if it has the account, the directory does not matter.
    match of.with.hosts.account_info(host, did).await {
        Ok(Some(_)) => return Evidence::Made,
        Ok(None) => {}
        Err(cause) => {
            // A host that is away cannot tell. The wait ends after a while if nothing was
            // published, and after a longer while in any case.
            let waited = of.with.clock.now().since(sign_up.created_at);
            let over = waited > PATIENCE_PUBLISHED
                || waited > PATIENCE && matches!(of.with.directory.log_last(did).await, Ok(None));
            return if over { Evidence::Dead } else { Evidence::Unclear(cause.to_string()) };
        }
    }
    match of.with.directory.log_last(did).await {
        Ok(None) => Evidence::Nothing,
        // A DID with a tombstone is lost: no operation can follow it.
        Ok(Some(Operation::Tombstone(_))) | Err(DirectoryError::Ended) => Evidence::Dead,
        Ok(Some(last)) => Evidence::OnlyPublished(last),
        Err(cause) => Evidence::Unclear(cause.to_string()),
    }
}

/// Does step 4.
async fn finish(of: &Context, sign_up: &SignUp, did: &Did) -> Result<Outcome, Error> {
    failpoint("signup.made");
    let now = of.with.clock.now();
    let mut tx = of.with.db.begin().await?;
    // Both conditions must hold in one transaction. `remove` fails if the lease is lost, and then
    // the successor opens the account. Dropping `tx` undoes the removal.
    if !sql::remove(&mut tx, &sign_up.did, &of.worker).await? || !accounts::open(&mut tx, did).await? {
        return Ok(Outcome::Waiting);
    }
    audit::record(&mut tx, now, Actor::Account(did.as_str()), "account.create", did.as_str(), &sign_up.host)
        .await?;
    note_change(&mut tx, now, did).await?;
    tx.commit().await?;
    failpoint("signup.done");
    Ok(Outcome::Done(did.clone()))
}

/// Undoes a sign-up: frees handle, address and invite code at once, and then cleans up at the
/// directory and at the host for as long as that takes.
async fn undo(
    of: &Context,
    sign_up: &SignUp,
    did: &Did,
    host: Option<&Arc<Host>>,
    why: &str,
) -> Result<Outcome, Error> {
    if sign_up.step == Step::Recorded {
        let now = of.with.clock.now();
        let mut tx = of.with.db.begin().await?;
        // A lost lease: the successor decides what happens to the sign-up.
        if !sql::set_undoing(&mut tx, &sign_up.did, &of.worker, why).await? {
            return Ok(Outcome::Waiting);
        }
        // In the same transaction as the step, so that a crash never leaves a handle taken by a
        // sign-up that is being undone.
        free(&mut tx, did, sign_up.invite_code.as_deref()).await?;
        note_change(&mut tx, now, did).await?;
        tx.commit().await?;
        failpoint("signup.undoing");
        tracing::warn!(account.did = %did, host.id = %sign_up.host, why, "undoing a sign-up");
    }
    if let Err(cause) = clear_up(of, did, host).await {
        // The handle is already free. Only the cleaning up continues later.
        wait(of, sign_up, did, &cause).await?;
        return Ok(Outcome::Undone(why.to_owned()));
    }
    let mut tx = of.with.db.begin().await?;
    let late = sign_up.created_at.plus(LATE);
    if of.with.clock.now() < late {
        // A request that timed out may still run on the host and create the account after this
        // look. The second look comes when that is no longer possible.
        sql::put_off(&mut tx, &sign_up.did, &of.worker, late, why).await?;
    } else {
        sql::remove(&mut tx, &sign_up.did, &of.worker).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Undone(why.to_owned()))
}

/// Makes sure that the DID has a tombstone and the host keeps no account.
async fn clear_up(of: &Context, did: &Did, host: Option<&Arc<Host>>) -> Result<(), String> {
    match of.with.directory.log_last(did).await {
        Ok(None | Some(Operation::Tombstone(_))) | Err(DirectoryError::Ended) => {}
        Ok(Some(last)) => {
            let tombstone = plc::tombstone(&last.cid(), of.with.ring.rotation());
            match of.with.directory.submit(did, &tombstone).await {
                Submission::Accepted => {}
                other => return Err(format!("the directory did not accept the tombstone: {other:?}")),
            }
        }
        Err(cause) => return Err(cause.to_string()),
    }
    // A host that was removed from the fleet has nothing more to delete.
    let Some(host) = host else { return Ok(()) };
    match of.with.hosts.account_info(host, did).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => of.with.hosts.delete_account(host, did).await.map_err(|cause| cause.to_string()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Deletes a record from which nothing left Genkan.
async fn drop_record(of: &Context, did: &Did, invite_code: Option<&str>) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    // If the lease is lost, another process has the sign-up, and nothing may be freed.
    if sql::remove(&mut tx, did, &of.worker).await? {
        free(&mut tx, did, invite_code).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Frees the handle, the address and the invite code of an account that was never opened.
async fn free(tx: &mut crate::db::Tx, did: &Did, invite_code: Option<&str>) -> Result<(), Error> {
    accounts::remove_row(tx, did).await?;
    if let Some(code) = invite_code {
        return_invite(tx, code, did).await?;
    }
    Ok(())
}

/// Postpones a sign-up, for longer after each attempt.
async fn wait(of: &Context, sign_up: &SignUp, did: &Did, why: &str) -> Result<Outcome, Error> {
    // The shift is bounded, so 2 s doubles at most four times, to the maximum of 30 s.
    let pause = BACKOFF.saturating_mul(1 << sign_up.attempts.clamp(0, 4)).min(BACKOFF_MOST);
    let mut tx = of.with.db.begin().await?;
    sql::put_off(&mut tx, did, &of.worker, of.with.clock.now().plus(pause), why).await?;
    tx.commit().await?;
    Ok(Outcome::Waiting)
}

/// Does `work` on a sign-up whose lease this process holds, and renews the lease meanwhile.
async fn held<T>(of: &Context, did: &Did, work: impl Future<Output = T>) -> T {
    // Pinned on the heap: the future of a whole saga is too large to be moved on the stack.
    while_held(Box::pin(work), || keep_lease(of, did)).await
}

async fn keep_lease(of: &Context, did: &Did) -> Result<bool, Error> {
    Ok(sql::keep_lease(&of.with.db, did, &of.worker, of.with.clock.now()).await?)
}

/// Records an update operation in the audit log, as every use of the rotation key.
async fn note_update(of: &Context, did: &Did) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    // Written before the operation is sent: the log may contain a use that did not happen, but
    // never misses one.
    audit::record(&mut tx, of.with.clock.now(), Actor::Genkan, "plc.update", did.as_str(), "sign-up").await?;
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

fn json(operation: &Operation) -> String {
    serde_json::to_string(operation).expect("an operation is strings and maps of strings")
}

fn corrupt(did: &Did) -> Error {
    crate::db::Error::corrupt("signups", "operation", did.as_str()).into()
}

/// Maximum number of hosts for one request.
const HOSTS_TRIED: usize = 3;
/// Maximum number of requests to the host in one go.
const SENDS: usize = 3;
/// First pause of a sign-up that waits. It doubles up to [`BACKOFF_MOST`].
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// Time after which a sign-up is undone if its host is away and nothing was published.
const PATIENCE: Duration = Duration::from_mins(10);
/// Time after which a sign-up is undone in any case if its host is away. It is longer than
/// [`PATIENCE`] because with a published operation the account is probably on the host.
const PATIENCE_PUBLISHED: Duration = Duration::from_hours(1);
/// Maximum time for which a host may still work on a request that timed out.
const LATE: Duration = Duration::from_secs(90);
