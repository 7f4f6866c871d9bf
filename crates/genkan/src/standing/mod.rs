//! How an account stands: deactivated, active again, taken down, restored, deleted.
//!
//! The host is told first and Genkan's own mark follows, so that a call that broke off can simply be
//! made again. A takedown works the other way round: sign-ins stop here at once, whatever the host says.

use std::sync::Arc;
use std::time::Duration;

use crate::accounts::{self, Account, Accounts, Standing};
use crate::base::{Clock, Timestamp};
use crate::db::Db;
use crate::db::audit::Actor;
use crate::fleet::{Fleet, Host, HostClient, HostError, StatusChange};
use crate::oauth::{self, OAuth};
use crate::sessions::{self, Sessions};
use crate::signin::{self, SignIns};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such account")]
    NotFound,
    #[error("the account is taken down")]
    TakenDown,
    #[error("the account's host {0} is not known")]
    NoHome(String),
    #[error("the account's host: {0}")]
    Host(#[from] HostError),
    #[error("session: {0}")]
    Session(#[from] sessions::Error),
    #[error("grant: {0}")]
    Grant(#[from] oauth::Error),
    #[error("sign-in: {0}")]
    SignIn(#[from] signin::Error),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<accounts::Error> for Error {
    fn from(cause: accounts::Error) -> Self {
        use accounts::Error as E;
        match cause {
            E::NotFound => Self::NotFound,
            E::Storage(cause) => Self::Storage(cause),
        }
    }
}

/// Changes how accounts stand. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) oauth: OAuth,
    pub(crate) sign_ins: SignIns,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
}

impl Standings {
    /// The owner leaves for a while. `delete_after`: and for good, then.
    pub(crate) async fn deactivate(
        &self,
        did: &str,
        delete_after: Option<Timestamp>,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let account = self.account(did).await?;
        let host = self.home(&account)?;
        self.hosts.update_subject_status(&host, &account.did, &StatusChange::Deactivated(true)).await?;
        self.accounts.set_deactivated(did, true, delete_after, actor).await?;
        // What apps were allowed is for an active account.
        Ok(self.oauth.end_everything_of(did).await?)
    }

    /// The owner is back. The host checks that the DID document names it.
    pub(crate) async fn activate(&self, did: &str, actor: Actor<'_>) -> Result<(), Error> {
        let account = self.account(did).await?;
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        let host = self.home(&account)?;
        self.hosts.update_subject_status(&host, &account.did, &StatusChange::Deactivated(false)).await?;
        Ok(self.accounts.set_deactivated(did, false, None, actor).await?)
    }

    /// Ends every session, grant and sign-in at once, then hides the account on its host.
    pub(crate) async fn take_down(&self, did: &str, reference: &str, actor: Actor<'_>) -> Result<(), Error> {
        let account = self.account(did).await?;
        self.accounts.set_taken_down(did, Some(reference), actor).await?;
        self.end_all(did).await?;
        let host = self.home(&account)?;
        let status = StatusChange::TakenDown { applied: true, reference: Some(reference.to_owned()) };
        Ok(self.hosts.update_subject_status(&host, &account.did, &status).await?)
    }

    pub(crate) async fn restore(&self, did: &str, actor: Actor<'_>) -> Result<(), Error> {
        let account = self.account(did).await?;
        let host = self.home(&account)?;
        self.hosts
            .update_subject_status(
                &host,
                &account.did,
                &StatusChange::TakenDown { applied: false, reference: None },
            )
            .await?;
        Ok(self.accounts.set_taken_down(did, None, actor).await?)
    }

    /// For good: sessions, grants and sign-ins, then the data on the host, then the account. Once begun it is finished,
    /// by [`Standings::delete_due`] when it breaks off.
    pub(crate) async fn delete(&self, did: &str, actor: Actor<'_>) -> Result<(), Error> {
        if self.delete_if(did, false, actor).await? { Ok(()) } else { Err(Error::NotFound) }
    }

    /// `due`: only if its owner asked for it and has not come back. `false`: not so.
    async fn delete_if(&self, did: &str, due: bool, actor: Actor<'_>) -> Result<bool, Error> {
        let account = self.accounts.find_to_delete(did).await?.ok_or(Error::NotFound)?;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if !self.accounts.begin_deletion(&mut tx, did, due).await? {
            return Ok(false);
        }
        let ended = self.sessions.end_all(&mut tx, did).await?;
        let grants = self.oauth.end_all_of(&mut tx, did).await?;
        self.sign_ins.end_all(&mut tx, did).await?;
        self.accounts.commit_change(tx, now, did).await?;
        self.sessions.tell_ended(&ended);
        self.oauth.tell_ended(&grants);
        let host = self.home(&account)?;
        self.hosts.delete_account(&host, &account.did).await?;
        match self.accounts.remove(did, actor).await {
            // Whoever finished it was quicker.
            Ok(()) | Err(accounts::Error::NotFound) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the password and ends every session, grant and sign-in.
    pub(crate) async fn set_password_hash(
        &self,
        did: &str,
        hash: &str,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        self.accounts.set_password_hash(&mut tx, did, hash).await?;
        let ended = self.sessions.end_all(&mut tx, did).await?;
        let grants = self.oauth.end_all_of(&mut tx, did).await?;
        self.sign_ins.end_all(&mut tx, did).await?;
        crate::db::audit::record(&mut tx, now, actor, "account.password", did, "").await?;
        tx.commit().await?;
        self.sessions.tell_ended(&ended);
        self.oauth.tell_ended(&grants);
        Ok(())
    }

    /// Deletes accounts whose owners asked for it and did not come back in time, and finishes deletions that broke off.
    pub(crate) async fn delete_due(&self) -> Result<usize, Error> {
        let mut deleted = 0;
        for did in self.accounts.due_for_deletion(self.clock.now(), BATCH).await? {
            // The list may be minutes old by now.
            match self.delete_if(&did, true, Actor::Genkan).await {
                Ok(done) => deleted += usize::from(done),
                Err(cause) => {
                    tracing::warn!(
                        account.did = did,
                        cause = &cause as &dyn std::error::Error,
                        "an account could not be deleted yet"
                    );
                }
            }
        }
        Ok(deleted)
    }

    async fn end_all(&self, did: &str) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        let ended = self.sessions.end_all(&mut tx, did).await?;
        let grants = self.oauth.end_all_of(&mut tx, did).await?;
        self.sign_ins.end_all(&mut tx, did).await?;
        tx.commit().await?;
        self.sessions.tell_ended(&ended);
        self.oauth.tell_ended(&grants);
        Ok(())
    }

    async fn account(&self, did: &str) -> Result<Account, Error> {
        self.accounts.find(did).await?.ok_or(Error::NotFound)
    }

    fn home(&self, account: &Account) -> Result<Arc<Host>, Error> {
        self.fleet.host(&account.host).ok_or_else(|| Error::NoHome(account.host.to_string()))
    }
}

const BATCH: i64 = 20;
/// How often [`Standings::delete_due`] is worth calling.
pub(crate) const DELETE_DUE_EVERY: Duration = Duration::from_mins(1);
