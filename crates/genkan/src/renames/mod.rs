//! Handle changes: first at the directory, then in our record, then at the host.
//!
//! A row records the intent before anything leaves Genkan. *Recorded*: the new handle is reserved, and
//! the directory may have it. *Published*: the directory and our record have it, and the host does not
//! yet. Each step looks before it acts and can be repeated. A job finishes changes that a crash, a host
//! or the directory interrupted. The steps are in `saga`.

mod saga;
mod sql;
#[cfg(test)]
mod tests;

use genkan_protocol::syntax::Did;

use crate::accounts::{self, Account, Accounts, ClaimError};
use crate::base::{Clock, random};
use crate::db::Db;
use crate::db::audit::{self, Actor};
use crate::fleet::{Fleet, HostClient};
use crate::identity::{Directory, HandlePolicy, Handles, PolicyError};
use crate::keys::Ring;

/// Why a handle was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Handle(#[from] PolicyError),
    #[error("Handle already taken")]
    Taken,
    /// Another change of the same account is under way.
    #[error("another change of this handle is under way")]
    UnderWay,
    #[error("there is no such account")]
    NoAccount,
    /// Genkan has no key of the DID: its owner removed it, or the DID has a tombstone.
    #[error("Genkan may not change this DID")]
    NotOurs,
    #[error("the PLC directory refused: {0}")]
    Refused(String),
    /// Recorded. A job finishes it.
    #[error("the change is recorded and will be finished")]
    Unfinished,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<ClaimError> for Error {
    fn from(cause: ClaimError) -> Self {
        use ClaimError as E;
        match cause {
            E::Taken => Self::Taken,
            E::NotFound => Self::NoAccount,
            E::Storage(cause) => Self::Storage(cause),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

/// The services that handle changes use.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
    pub(crate) directory: Directory,
    pub(crate) handles: Handles,
    pub(crate) policy: HandlePolicy,
}

/// Changes handles. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Renames {
    with: Dependencies,
    /// The holder name of this process in leases.
    worker: String,
}

impl Renames {
    pub(crate) fn new(with: Dependencies) -> Self {
        Self { with, worker: random::id() }
    }

    /// Gives `account` the handle `typed`. Continues to the end if the client disconnects.
    ///
    /// `Ok` means that the directory and our record have the handle. The host learns of it at once, or
    /// later if it is away.
    pub(crate) async fn rename(&self, account: &Account, typed: &str, actor: Actor<'_>) -> Result<(), Error> {
        let (handle, _) = self.with.policy.for_account(typed, &account.did, &self.with.handles).await?;
        let change = sql::Rename { did: account.did.to_string(), handle, step: sql::Step::Recorded };
        self.record(&change, actor).await?;
        let (this, did) = (self.clone(), account.did.clone());
        let worked = tokio::spawn(async move { saga::go_on(&this, &did).await }).await;
        match worked.unwrap_or(Err(Error::Unfinished))? {
            saga::Outcome::Done | saga::Outcome::HostLater => Ok(()),
            saga::Outcome::DirectoryLater => Err(Error::Unfinished),
            saga::Outcome::Undone(why) => Err(why),
        }
    }

    /// Records the intent, reserves the handle and takes the lease, in one transaction.
    async fn record(&self, change: &sql::Rename, actor: Actor<'_>) -> Result<(), Error> {
        let now = self.with.clock.now();
        let mut tx = self.with.db.begin().await?;
        if !sql::insert_or_replace(&mut tx, change, &self.worker, now).await? {
            return Err(Error::UnderWay);
        }
        accounts::reserve_handle(&mut tx, &change.did, &change.handle).await?;
        audit::record(&mut tx, now, actor, "account.rename", &change.did, change.handle.as_str()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Ends every lease. For the start of a process that has the database to itself: every earlier holder
    /// is gone.
    pub(crate) async fn end_leases(&self) -> Result<(), Error> {
        Ok(sql::end_leases(&self.with.db).await?)
    }

    /// Continues interrupted changes. Returns how many this process took up.
    pub(crate) async fn finish_interrupted(&self) -> Result<usize, Error> {
        let mut taken_up = 0;
        for did in sql::abandoned(&self.with.db, self.with.clock.now(), AT_ONCE).await? {
            let now = self.with.clock.now();
            let mine = sql::take_lease(&self.with.db, &did, &self.worker, now).await?;
            let Ok(did) = did.parse::<Did>() else { continue };
            if !mine {
                continue;
            }
            taken_up += 1;
            if let Err(cause) = saga::go_on(self, &did).await {
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

const AT_ONCE: i64 = 100;
