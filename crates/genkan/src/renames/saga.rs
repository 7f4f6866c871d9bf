//! The steps of a handle change. Only the process that holds its lease does them.

use std::time::Duration;

use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::Did;

use super::context::Context;
use super::error::Error;
use super::sql::{self, Rename, Step};

use crate::accounts;
use crate::db::leases::while_held;
use crate::fleet::Host;
use crate::identity::{DirectoryError, Submission};

/// The state of a change after some steps.
pub(super) enum Outcome {
    Done,
    /// The directory and the database have the handle. The host does not answer.
    HostLater,
    /// The directory does not answer.
    DirectoryLater,
    /// The change is impossible. Everything is as before.
    Undone(Error),
}

/// Continues a change whose lease this process holds, and renews the lease meanwhile.
pub(super) async fn go_on(of: &Context, did: &Did) -> Result<Outcome, Error> {
    let renew = || sql::keep_lease(&of.with.db, did, &of.worker, of.now());
    while_held(Box::pin(step_by_step(of, did)), renew).await
}

async fn step_by_step(of: &Context, did: &Did) -> Result<Outcome, Error> {
    // Another process has finished it.
    let Some(rename) = sql::find(&of.with.db, did).await? else { return Ok(Outcome::Done) };
    if rename.step == Step::Recorded {
        match publish(of, did, &rename).await {
            // The database changes only after the directory accepted. The host comes last, because
            // it checks the directory itself.
            PublishOutcome::Yes => keep(of, did).await?,
            PublishOutcome::Later(why) => {
                put_off(of, &rename, &why).await?;
                return Ok(Outcome::DirectoryLater);
            }
            PublishOutcome::Never(why) => {
                // The directory never had the new handle, so freeing the reservation restores the
                // old state.
                undo(of, did, &rename).await?;
                return Ok(Outcome::Undone(why));
            }
        }
    }
    tell_host(of, did, &rename).await
}

/// The result of publishing a handle.
enum PublishOutcome {
    Yes,
    Later(String),
    Never(Error),
}

/// Publishes the handle in the directory, unless it is already there.
///
/// Each round reads the log first. The log shows whether an operation arrived whose answer was
/// lost, and which operation the next one must follow.
async fn publish(of: &Context, did: &Did, rename: &Rename) -> PublishOutcome {
    let directory = &of.with.directory;
    let rotation = of.with.ring.rotation();
    let mut refused = None;
    for _ in 0..ATTEMPTS {
        let last = match directory.log_last(did).await {
            Ok(Some(last)) => last,
            Ok(None) | Err(DirectoryError::Ended) => return PublishOutcome::Never(Error::NotOurs),
            Err(trouble) => return PublishOutcome::Later(trouble.to_string()),
        };
        let Some(mut data) = last.data() else { return PublishOutcome::Never(Error::NotOurs) };
        // A legacy operation is replaced by a current one even if its handle is right.
        if data.handle().as_ref() == Some(&rename.handle) && !matches!(last, Operation::LegacyCreate(_)) {
            return PublishOutcome::Yes;
        }
        // The operation was refused and the log has not changed, so another attempt would be
        // refused too. With a changed log the refusal was a race with another operation, and a new
        // attempt can succeed. `take` makes each refusal count for one comparison only.
        if let Some((prev, status, message)) = refused.take()
            && prev == last.cid()
        {
            return if status == TOO_MANY {
                PublishOutcome::Later(message)
            } else {
                PublishOutcome::Never(Error::Refused(message))
            };
        }
        // The owner may have removed Genkan's key. The directory would refuse the operation, so it
        // is not sent.
        if !data.rotation_keys.contains(&rotation.public().to_did_key()) {
            return PublishOutcome::Never(Error::NotOurs);
        }
        data.set_handle(&rename.handle);
        match directory.submit(did, &plc::update(&last.cid(), data, rotation)).await {
            Submission::Accepted => return PublishOutcome::Yes,
            Submission::Unreachable(why) => return PublishOutcome::Later(why.to_string()),
            // The operation may be in the log. The next round looks there, and sends again only if
            // it is not.
            Submission::Unanswered(_) => {}
            Submission::Refused { status, message } => refused = Some((last.cid(), status, message)),
        }
    }
    PublishOutcome::Later("the directory does not answer clearly".to_owned())
}

/// Updates the database after the directory. Every process drops what it cached of the account.
async fn keep(of: &Context, did: &Did) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    // The lease was lost, and its new holder continues. Nothing was changed here.
    if !sql::publish(&mut tx, did, &of.worker).await? {
        return Err(Error::UnderWay);
    }
    accounts::take_reserved_handle(&mut tx, did).await?;
    of.with.home_documents.forget(&mut tx, did).await?;
    accounts::note_change(&mut tx, did).await?;
    Ok(tx.commit().await?)
}

/// Tells the host, which checks the handle in the directory itself.
async fn tell_host(of: &Context, did: &Did, rename: &Rename) -> Result<Outcome, Error> {
    // The account was deleted meanwhile. Then no host needs the handle.
    let Some(account) = of.with.accounts.find(did).await? else {
        return finish(of, rename).await;
    };
    let Some(host) = of.with.fleet.host(&account.host) else {
        put_off(of, rename, "the account's host is not in the fleet").await?;
        return Ok(Outcome::HostLater);
    };
    let mut why = String::new();
    for pause in PAUSES {
        tokio::time::sleep(pause).await;
        match of.with.hosts.update_account_handle(&host, did, &rename.handle).await {
            Ok(()) => return finish(of, rename).await,
            // Perhaps only the answer was lost.
            Err(error) if error.may_be_done() && has_it(of, &host, did, rename).await => {
                return finish(of, rename).await;
            }
            Err(error) => {
                // The PLC proxy of another replica may cache the old document for a moment, so the
                // host still reads the old handle. Only in this case a short pause helps.
                why = error.to_string();
                if !error.is_outdated_document() {
                    break;
                }
            }
        }
    }
    tracing::warn!(
        account.did = %did,
        host.id = %host.id,
        cause = %why,
        "could not tell host {} the new handle of {did}; will try again", host.id
    );
    put_off(of, rename, &why).await?;
    Ok(Outcome::HostLater)
}

async fn has_it(of: &Context, host: &Host, did: &Did, rename: &Rename) -> bool {
    let known = of.with.hosts.account_info(host, did).await;
    matches!(known, Ok(Some(account)) if account.handle == rename.handle.as_str())
}

async fn finish(of: &Context, rename: &Rename) -> Result<Outcome, Error> {
    let mut tx = of.with.db.begin().await?;
    sql::remove(&mut tx, &rename.did, &of.worker).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// Undoes a change that the directory never had: frees the reserved handle.
async fn undo(of: &Context, did: &Did, rename: &Rename) -> Result<(), Error> {
    let mut tx = of.with.db.begin().await?;
    // Without the lease nothing is released: the successor may be publishing the handle.
    if sql::remove(&mut tx, &rename.did, &of.worker).await? {
        accounts::release_reserved_handle(&mut tx, did).await?;
        accounts::note_change(&mut tx, did).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn put_off(of: &Context, rename: &Rename, why: &str) -> Result<(), Error> {
    let again = of.now().plus(AGAIN);
    let mut tx = of.with.db.begin().await?;
    sql::put_off(&mut tx, &rename.did, &of.worker, again, why).await?;
    tx.commit().await?;
    Ok(())
}

/// The most rounds in one go. One may be lost to a race with another operation of the DID.
const ATTEMPTS: usize = 3;
const TOO_MANY: u16 = 429;
/// Pause before a job continues.
const AGAIN: Duration = Duration::from_secs(15);
/// Pause before each attempt at the host.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500)];
