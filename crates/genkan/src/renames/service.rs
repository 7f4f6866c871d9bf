//! The service that changes handles.

use genkan_protocol::syntax::Did;

use super::context::{Context, Dependencies};
use super::error::Error;
use super::{saga, sql};
use crate::accounts::{self, Account};
use crate::db;
use crate::db::audit::{self, Actor};

/// The state of a change whose recording was asked for.
enum Recorded {
    Now,
    /// An earlier request asked for the same change. The directory and the database have the handle.
    Before,
}

/// Changes handles. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Renames {
    pub(super) context: Context,
}

impl Renames {
    pub(crate) fn new(with: Dependencies) -> Self {
        Self { context: Context::new(with) }
    }

    /// Gives `account` the handle `typed`. Continues to the end even if the client disconnects.
    ///
    /// `Ok` means that the directory and the database have the handle. The host learns of it at
    /// once, or later if it is away.
    pub(crate) async fn rename(&self, account: &Account, typed: &str, actor: Actor<'_>) -> Result<(), Error> {
        let (handle, _) =
            self.context.with.policy.for_account(typed, &account.did, &self.context.with.handles).await?;
        let change = sql::Rename { did: account.did.clone(), handle, step: sql::Step::Recorded };
        let context = self.context.for_task();
        if let Recorded::Before = db::repeated(|| record(&context, &change, actor)).await? {
            return Ok(());
        }
        let did = account.did.clone();
        // A task of its own, because this future is dropped when the client disconnects. The change
        // could otherwise stop after the directory and before the database.
        let worked = tokio::spawn(async move { saga::go_on(&context, &did).await }).await;
        match worked.unwrap_or(Err(Error::Unfinished))? {
            saga::Outcome::Done | saga::Outcome::HostLater => Ok(()),
            // The record stays, and a job continues it when the directory answers again.
            saga::Outcome::DirectoryLater => Err(Error::Unfinished),
            saga::Outcome::Undone(why) => Err(why),
        }
    }

    /// Ends every lease, when a process starts that has the database to itself: every earlier
    /// holder is gone.
    pub(crate) async fn end_leases(&self) -> Result<(), Error> {
        Ok(sql::end_leases(&self.context.with.db).await?)
    }

    /// Continues interrupted changes. Returns how many this process took over.
    pub(crate) async fn finish_interrupted(&self) -> Result<usize, Error> {
        let mut taken_up = 0;
        for did in sql::abandoned(&self.context.with.db, self.context.now(), AT_ONCE).await? {
            let (context, now) = (self.context.for_task(), self.context.now());
            // One corrupt row must not prevent the others from being finished.
            let Ok(did) = did.parse::<Did>() else { continue };
            let mine = sql::take_lease(&self.context.with.db, &did, &context.worker, now).await?;
            if !mine {
                continue;
            }
            taken_up += 1;
            // The error is logged and the loop continues: the changes are independent of each
            // other.
            if let Err(cause) = saga::go_on(&context, &did).await {
                tracing::warn!(
                    account.did = %did,
                    cause = &cause as &dyn std::error::Error,
                    "could not finish the handle change of {did}; will try again"
                );
            }
        }
        Ok(taken_up)
    }
}

/// Records the intent, reserves the handle and takes the lease, in one transaction.
async fn record(context: &Context, change: &sql::Rename, actor: Actor<'_>) -> Result<Recorded, Error> {
    let now = context.now();
    let mut tx = context.with.db.begin().await?;
    if !sql::insert_or_replace(&mut tx, change, &context.worker, now).await? {
        // The transaction ends first: a request that waits for a second connection must hold none.
        drop(tx);
        // A client that got no answer in time asks again. Only the host remains to be told.
        let found = sql::find(&context.with.db, &change.did).await?;
        let is_kept = found.is_some_and(|it| it.handle == change.handle && it.step == sql::Step::Published);
        return if is_kept { Ok(Recorded::Before) } else { Err(Error::UnderWay) };
    }
    // The reservation keeps other accounts from the handle until the directory has decided.
    accounts::reserve_handle(&mut tx, &change.did, &change.handle).await?;
    audit::record(&mut tx, now, actor, "account.rename", change.did.as_str(), change.handle.as_str()).await?;
    tx.commit().await?;
    Ok(Recorded::Now)
}

const AT_ONCE: i64 = 100;
