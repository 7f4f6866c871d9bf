//! Undoing a sign-up, and deleting the record of one that never left Genkan.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::plc::{self, Operation};
use genkan_protocol::syntax::Did;

use super::context::Context;
use super::error::Error;
use super::outcome::{Outcome, wait};
use super::sql::{self, SignUp, Step};
use crate::accounts::{self, note_change, return_invite};
use crate::fleet::Host;
use crate::identity::{DirectoryError, Submission};
use crate::telemetry::failpoint;

/// Undoes a sign-up: frees handle, address and invite code at once, and then cleans up at the
/// directory and at the host for as long as that takes.
pub(super) async fn undo(
    of: &Context,
    sign_up: &SignUp,
    did: &Did,
    host: Option<&Arc<Host>>,
    why: &str,
) -> Result<Outcome, Error> {
    if sign_up.step == Step::Recorded {
        let mut tx = of.with.db.begin().await?;
        // A lost lease: the successor decides what happens to the sign-up.
        if !sql::set_undoing(&mut tx, &sign_up.did, &of.worker, why).await? {
            return Ok(Outcome::Waiting);
        }
        // In the same transaction as the step, so that a crash never leaves a handle taken by a
        // sign-up that is being undone.
        free(&mut tx, did, sign_up.invite_code.as_deref()).await?;
        note_change(&mut tx, did).await?;
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
    let now = of.now();
    // Not later than after a request of this moment: the clock may have been wrong at the beginning.
    let late = sign_up.created_at.min(now).plus(LATE);
    if now < late {
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
pub(super) async fn drop_record(of: &Context, did: &Did, invite_code: Option<&str>) -> Result<(), Error> {
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

/// Maximum time for which a host may still work on a request that timed out.
const LATE: Duration = Duration::from_secs(90);
