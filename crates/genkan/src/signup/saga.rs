//! The steps of a sign-up, and how a broken one is settled.
//!
//! 1. Choose a host and reserve a signing key there. Nothing is held yet; a reserved key binds nobody.
//! 2. Build and sign the genesis operation, which fixes the DID. Write account, invite use and
//!    sign-up in one transaction: from here on there is something to finish or to undo.
//! 3. Ask the host to make the account. It publishes the operation itself.
//! 4. Open the account and forget the sign-up, in one transaction.
//!
//! Whoever settles a sign-up looks first: an account on the host → step 4; nothing in the directory →
//! step 3 again with the same operation; the operation is in the directory without an account → step 3
//! with an update operation, which uses the same DID; that refused too → undo. To undo: first free the
//! handle, then tombstone the DID, then make sure that the host keeps nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::{Did, Handle};

use super::sql::{self, SignUp, Step};
use super::{Error, Request, SignUps};
use crate::accounts::{self, NewAccount, invite};
use crate::base::Secret;
use crate::db::audit::{self, Actor};
use crate::db::leases::while_held;
use crate::fleet::{Host, HostError};
use crate::identity::{DirectoryError, Submission};
use crate::telemetry::failpoint;

/// Where a sign-up has come to.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Did),
    Undone(String),
    /// Host or directory do not answer: a job goes on later.
    Waiting,
}

/// Steps 1 to 4 for a new request. Another host is tried only while surely nothing was sent.
pub(super) async fn begin(of: &SignUps, request: &Request, hash: &Secret<String>) -> Result<Outcome, Error> {
    for _ in 0..HOSTS_TRIED {
        let host = of.with.fleet.place(of.with.clock.now()).map_err(|_| Error::NoRoom)?;
        let key = match of.with.hosts.reserve_signing_key(&host).await {
            Ok(key) => key,
            Err(cause) => {
                tracing::warn!(host.id = %host.id, cause = %cause, "a host could not reserve a signing key");
                of.with.fleet.doubt(&host);
                continue;
            }
        };
        let did = record(of, request, hash, &host, &key).await?;
        failpoint("signup.recorded");
        match held(of, &did, settle_recorded(of, &did, &host, FirstStep::Send)).await? {
            SendOutcome::Settled(settled) => return Ok(settled),
            SendOutcome::Never => {
                of.with.fleet.doubt(&host);
                drop_record(of, &did, request.invite_code.as_deref()).await?;
            }
        }
    }
    Err(Error::NoRoom)
}

/// Settles one that nobody works on. `None`: somebody does, or it is gone.
pub(super) async fn settle(of: &SignUps, did: &str) -> Result<Option<Outcome>, Error> {
    let did: Did = did.parse().map_err(|_| crate::db::Error::corrupt("signups", "did", did))?;
    if !sql::take_lease(&of.with.db, did.as_str(), &of.worker, of.with.clock.now()).await? {
        return Ok(None);
    }
    held(of, &did, settle_taken(of, &did)).await
}

async fn settle_taken(of: &SignUps, did: &Did) -> Result<Option<Outcome>, Error> {
    let Some(sign_up) = sql::find(&of.with.db, did.as_str()).await? else { return Ok(None) };
    let Some(host) = of.with.fleet.host(&sign_up.host.as_str().into()) else {
        return undo(of, &sign_up, did, None, "its host was removed").await.map(Some);
    };
    match sign_up.step {
        Step::Undoing => undo(of, &sign_up, did, Some(&host), "undoing").await.map(Some),
        Step::Recorded => match settle_recorded(of, did, &host, FirstStep::Look).await? {
            SendOutcome::Settled(settled) => Ok(Some(settled)),
            SendOutcome::Never => wait(of, &sign_up, did, "the host does not answer").await.map(Some),
        },
    }
}

/// Step 2.
async fn record(
    of: &SignUps,
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
        did: did.to_string(),
        host: host.id.to_string(),
        host_key: key.to_did_key(),
        operation: json(&operation),
        invite_code: request.invite_code.clone(),
        step: Step::Recorded,
        attempts: 0,
        created_at: now,
    };
    let mut tx = of.with.db.begin().await?;
    accounts::insert_creating(&mut tx, &account).await?;
    if let Some(code) = &request.invite_code
        && !invite::take(&mut tx, code, did.as_str(), now).await?
    {
        return Err(Error::InvalidInvite);
    }
    sql::insert(&mut tx, &sign_up, &of.worker).await?;
    audit::record(&mut tx, now, Actor::Genkan, "plc.genesis", did.as_str(), host.id.as_str()).await?;
    tx.commit().await?;
    Ok(did)
}

fn identity(of: &SignUps, request: &Request, host: &Host, key: &PublicKey) -> plc::Data {
    let own = of.with.ring.rotation().public().to_did_key();
    let mut rotation_keys: Vec<String> = Vec::new();
    for candidate in [&request.recovery_key, &of.rules.recovery_key].into_iter().flatten() {
        rotation_keys.push(candidate.to_did_key());
    }
    rotation_keys.push(own);
    // The directory refuses a list that names a key twice.
    let mut seen = std::collections::HashSet::new();
    rotation_keys.retain(|key| seen.insert(key.clone()));
    plc::Data::of_account(rotation_keys, key, &request.handle, host.origin.as_str())
}

enum FirstStep {
    /// Nothing was sent yet: send.
    Send,
    /// Something may have been sent: look.
    Look,
}

enum SendOutcome {
    Settled(Outcome),
    /// The host was not reached, so surely nothing happened.
    Never,
}

/// Steps 3 and 4 of a recorded sign-up whose lease is held.
async fn settle_recorded(
    of: &SignUps,
    did: &Did,
    host: &Arc<Host>,
    first: FirstStep,
) -> Result<SendOutcome, Error> {
    let Some(sign_up) = sql::find(&of.with.db, did.as_str()).await? else {
        return Ok(SendOutcome::Settled(Outcome::Waiting));
    };
    let handle = handle_of(&sign_up, did)?;
    let mut refusal = None;
    if matches!(first, FirstStep::Send) {
        match of.with.hosts.create_account(host, did, &handle, &operation(&sign_up.operation, did)?).await {
            Ok(()) => return finish(of, &sign_up, did).await.map(SendOutcome::Settled),
            Err(HostError::Unreachable(cause)) => {
                tracing::warn!(host.id = %host.id, cause = &*cause, "a host was not reached for a new account");
                return Ok(SendOutcome::Never);
            }
            Err(cause) => refusal = Some(cause),
        }
    }
    failpoint("signup.sent");
    if let Some(HostError::Unanswered(cause)) = &refusal {
        // The host may still be at it: asking again now could cross the first request.
        return match look(of, &sign_up, did, host).await {
            Evidence::Made => finish(of, &sign_up, did).await.map(SendOutcome::Settled),
            _ => wait(of, &sign_up, did, cause).await.map(SendOutcome::Settled),
        };
    }
    for _ in 0..SENDS {
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
                let again = operation(&sign_up.operation, did)?;
                refusal = of.with.hosts.create_account(host, did, &handle, &again).await.err();
            }
            Evidence::OnlyPublished(last) => {
                // The DID exists without an account: the host takes it with an update operation.
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
    let why = refusal.map_or_else(|| "the host did not take it".to_owned(), |cause| cause.to_string());
    undo(of, &sign_up, did, Some(host), &why).await.map(SendOutcome::Settled)
}

/// The host looked at the request and will say the same again.
fn is_final(cause: &HostError) -> bool {
    matches!(cause, HostError::Refused { status, .. } if *status < 500 && *status != 429)
}

/// What became of a sign-up, by the host and the directory.
enum Evidence {
    Made,
    Nothing,
    /// The directory has an operation of ours, the host no account.
    OnlyPublished(Operation),
    Dead,
    Unclear(String),
}

async fn look(of: &SignUps, sign_up: &SignUp, did: &Did, host: &Host) -> Evidence {
    match of.with.hosts.account_info(host, did).await {
        Ok(Some(_)) => return Evidence::Made,
        Ok(None) => {}
        Err(cause) => {
            // A host that is away cannot say. Once it is clear that nothing was published, there is nothing to wait for.
            let waited = of.with.clock.now().since(sign_up.created_at);
            let over = waited > PATIENCE_PUBLISHED
                || waited > PATIENCE && matches!(of.with.directory.log_last(did).await, Ok(None));
            return if over { Evidence::Dead } else { Evidence::Unclear(cause.to_string()) };
        }
    }
    match of.with.directory.log_last(did).await {
        Ok(None) => Evidence::Nothing,
        Ok(Some(Operation::Tombstone(_))) | Err(DirectoryError::Ended) => Evidence::Dead,
        Ok(Some(last)) => Evidence::OnlyPublished(last),
        Err(cause) => Evidence::Unclear(cause.to_string()),
    }
}

/// Step 4.
async fn finish(of: &SignUps, sign_up: &SignUp, did: &Did) -> Result<Outcome, Error> {
    failpoint("signup.made");
    let now = of.with.clock.now();
    let mut tx = of.with.db.begin().await?;
    if !sql::remove(&mut tx, &sign_up.did, &of.worker).await?
        || !accounts::open(&mut tx, &sign_up.did).await?
    {
        return Ok(Outcome::Waiting);
    }
    audit::record(&mut tx, now, Actor::Account(&sign_up.did), "account.create", &sign_up.did, &sign_up.host)
        .await?;
    of.with.accounts.commit_change(tx, now, &sign_up.did).await?;
    failpoint("signup.done");
    Ok(Outcome::Done(did.clone()))
}

/// Frees what the sign-up held at once, then clears up behind it for as long as that takes.
async fn undo(
    of: &SignUps,
    sign_up: &SignUp,
    did: &Did,
    host: Option<&Arc<Host>>,
    why: &str,
) -> Result<Outcome, Error> {
    if sign_up.step == Step::Recorded {
        let now = of.with.clock.now();
        let mut tx = of.with.db.begin().await?;
        if !sql::set_undoing(&mut tx, &sign_up.did, &of.worker, why).await? {
            return Ok(Outcome::Waiting);
        }
        free(&mut tx, &sign_up.did, sign_up.invite_code.as_deref()).await?;
        of.with.accounts.commit_change(tx, now, &sign_up.did).await?;
        failpoint("signup.undoing");
        tracing::warn!(account.did = %did, host.id = %sign_up.host, why, "a sign-up is undone");
    }
    if let Err(cause) = clear_up(of, did, host).await {
        // The handle is free; only the clearing up goes on later.
        wait(of, sign_up, did, &cause).await?;
        return Ok(Outcome::Undone(why.to_owned()));
    }
    let mut tx = of.with.db.begin().await?;
    let late = sign_up.created_at.plus(LATE);
    if of.with.clock.now() < late {
        // One more look when no request of ours can be under way on the host.
        sql::put_off(&mut tx, &sign_up.did, &of.worker, late, why).await?;
    } else {
        sql::remove(&mut tx, &sign_up.did, &of.worker).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Undone(why.to_owned()))
}

/// No DID may name an account that nobody has, and no host keep one.
async fn clear_up(of: &SignUps, did: &Did, host: Option<&Arc<Host>>) -> Result<(), String> {
    match of.with.directory.log_last(did).await {
        Ok(None | Some(Operation::Tombstone(_))) | Err(DirectoryError::Ended) => {}
        Ok(Some(last)) => {
            let tombstone = plc::tombstone(&last.cid(), of.with.ring.rotation());
            match of.with.directory.submit(did, &tombstone).await {
                Submission::Accepted => {}
                other => return Err(format!("the tombstone was not taken: {other:?}")),
            }
        }
        Err(cause) => return Err(cause.to_string()),
    }
    let Some(host) = host else { return Ok(()) };
    match of.with.hosts.account_info(host, did).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => of.with.hosts.delete_account(host, did).await.map_err(|cause| cause.to_string()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Takes back a record of which surely nothing left Genkan.
async fn drop_record(of: &SignUps, did: &Did, invite_code: Option<&str>) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    if sql::remove(&mut tx, did.as_str(), &of.worker).await? {
        free(&mut tx, did.as_str(), invite_code).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn free(tx: &mut crate::db::Tx, did: &str, invite_code: Option<&str>) -> Result<(), Error> {
    accounts::remove_row(tx, did).await?;
    if let Some(code) = invite_code {
        invite::give_back(tx, code, did).await?;
    }
    Ok(())
}

async fn wait(of: &SignUps, sign_up: &SignUp, did: &Did, why: &str) -> Result<Outcome, Error> {
    let pause = BACKOFF.saturating_mul(1 << sign_up.attempts.clamp(0, 4)).min(BACKOFF_MOST);
    let mut tx = of.with.db.begin().await?;
    sql::put_off(&mut tx, did.as_str(), &of.worker, of.with.clock.now().plus(pause), why).await?;
    tx.commit().await?;
    Ok(Outcome::Waiting)
}

/// Does `work` on a sign-up whose lease is held, and keeps it held meanwhile.
async fn held<T>(of: &SignUps, did: &Did, work: impl Future<Output = T>) -> T {
    while_held(Box::pin(work), || keep_lease(of, did)).await
}

async fn keep_lease(of: &SignUps, did: &Did) -> Result<bool, Error> {
    Ok(sql::keep_lease(&of.with.db, did.as_str(), &of.worker, of.with.clock.now()).await?)
}

/// Every use of the rotation key is told.
async fn note_update(of: &SignUps, did: &Did) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    audit::record(&mut tx, of.with.clock.now(), Actor::Genkan, "plc.update", did.as_str(), "sign-up").await?;
    tx.commit().await?;
    Ok(())
}

fn handle_of(sign_up: &SignUp, did: &Did) -> Result<Handle, Error> {
    let data = operation(&sign_up.operation, did)?.data();
    data.and_then(|data| data.handle()).ok_or_else(|| corrupt(did))
}

/// The same identity again, with the key that the host reserved for this sign-up.
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

const HOSTS_TRIED: usize = 3;
const SENDS: usize = 3;
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// How long a host may be away before a sign-up of which nothing was published is undone.
const PATIENCE: Duration = Duration::from_mins(10);
/// The same when the operation is in the directory: the account may well be on the host.
const PATIENCE_PUBLISHED: Duration = Duration::from_hours(1);
/// How long a host may still be busy with a request whose answer nobody waits for.
const LATE: Duration = Duration::from_secs(90);
