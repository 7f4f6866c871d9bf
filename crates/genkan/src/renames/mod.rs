//! Handle changes: the directory first, then our record, then the host.
//!
//! A row holds the intent before anything is done elsewhere. *Recorded*: the new handle is reserved
//! here, and the directory may have been told. *Published*: the directory has it, our record too, and
//! the host is yet to hear. Each step looks before it acts and can be repeated; a job goes on with
//! what a crash, a host or the directory left half-way.

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
    /// The DID cannot be changed by us: its owner took our key out, or it was ended.
    #[error("Genkan may not change this DID")]
    NotOurs,
    #[error("the PLC directory refused: {0}")]
    Refused(String),
    /// Recorded, and going on by itself; the same request again joins it.
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

/// What handle changes work with.
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
    /// Names this process in leases.
    worker: String,
}

impl Renames {
    pub(crate) fn new(with: Dependencies) -> Self {
        Self { with, worker: random::id() }
    }

    /// Gives `account` the handle `typed`. It goes on to the end also when the client leaves.
    ///
    /// `Ok`: the directory and our records have it. The host hears of it now or, when it is away, later.
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

    /// Writes the intent down, reserves the handle and takes the lease, in one transaction.
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

    /// Ends every lease: for the start of a process that has the database to itself, where whoever held them is gone.
    pub(crate) async fn end_leases(&self) -> Result<(), Error> {
        Ok(sql::end_leases(&self.with.db).await?)
    }

    /// Goes on with what was left half-way. Says how many were taken up.
    pub(crate) async fn finish_broken_off(&self) -> Result<usize, Error> {
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
                    "the handle change of {did} could not go on"
                );
            }
        }
        Ok(taken_up)
    }
}

const AT_ONCE: i64 = 100;
