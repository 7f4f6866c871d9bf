//! The service of this room: changes the standing of accounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::Error;
use crate::accounts::{self, Account, Accounts, Standing, note_change};
use crate::base::neighbours::{Visit, visit_each};
use crate::base::{Clock, Timestamp};
use crate::credentials::{Credentials, Ending};
use crate::db::audit::{self, Actor};
use crate::db::{self, Db};
use crate::fleet::{Fleet, Host, HostClient, HostError, StatusChange};
use crate::identity;
use crate::signin::Attempts;

/// What a deactivation says about the account's deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The owner wants it at this time, or not at all.
    At(Option<Timestamp>),
    /// The caller may not decide this. A date that the owner set before stays.
    AsBefore,
}

/// Changes the standing of accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    pub(crate) credentials: Credentials,
    pub(crate) attempts: Attempts,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
}

impl Standings {
    /// Deactivates an account, and says whether it will be deleted later.
    pub(crate) async fn deactivate(
        &self,
        did: &Did,
        deletion: Deletion,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let account = self.account(did).await?;
        let host = self.home(&account)?;
        // The host first: if it does not answer, nothing has changed here and the owner can try
        // again.
        self.hosts.update_subject_status(&host, did, &StatusChange::Deactivated(true)).await?;
        db::repeated(|| self.record_deactivation(did, deletion, actor)).await
    }

    async fn record_deactivation(
        &self,
        did: &Did,
        deletion: Deletion,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        if let Deletion::At(date) = deletion {
            // A nearer date is ignored and not moved: it was not what the owner asked for. An earlier
            // date stays.
            let earliest = self.clock.now().plus(accounts::DELETION_NOTICE);
            if date.is_none_or(|date| date >= earliest) {
                found(self.accounts.set_delete_after(&mut tx, did, date).await?)?;
            }
        }
        found(self.accounts.set_deactivated(&mut tx, did, true, actor).await?)?;
        // Grants are for active accounts only.
        self.credentials.end(&mut tx, did, Ending::Grants).await?;
        Ok(tx.commit().await?)
    }

    /// Activates an account again. The host checks that the DID document names it.
    pub(crate) async fn activate(&self, did: &Did, actor: Actor<'_>) -> Result<(), Error> {
        let account = self.account(did).await?;
        // The owner cannot end a takedown by activating the account.
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        let host = self.home(&account)?;
        self.hosts.update_subject_status(&host, did, &StatusChange::Deactivated(false)).await?;
        db::repeated(|| self.record_activation(did, actor)).await
    }

    async fn record_activation(&self, did: &Did, actor: Actor<'_>) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        found(self.accounts.set_deactivated(&mut tx, did, false, actor).await?)?;
        Ok(tx.commit().await?)
    }

    /// Deletes an account: first its sessions, grants and sign-ins, then the data on the host, then
    /// the account itself. [`Standings::delete_due`] finishes an interrupted deletion.
    pub(crate) async fn delete(&self, did: &Did, actor: Actor<'_>) -> Result<(), Error> {
        found(self.delete_if(did, false, actor).await?)
    }

    /// Deletes an account; with `due`, only if its owner asked for it and has not returned. Returns
    /// `false` if that does not hold.
    async fn delete_if(&self, did: &Did, due: bool, actor: Actor<'_>) -> Result<bool, Error> {
        let account = self.accounts.find_to_delete(did).await?.ok_or(Error::NotFound)?;
        if !db::repeated(|| self.begin_deletion(did, due)).await? {
            return Ok(false);
        }
        let host = self.home(&account)?;
        // Outside of the transaction, so that a slow host holds no row. If it fails, `delete_due`
        // finds the account by its `deleting_at`.
        self.hosts.delete_account(&host, did).await?;
        // `false` means that another process finished it first.
        self.accounts.remove(did, actor).await?;
        Ok(true)
    }

    async fn begin_deletion(&self, did: &Did, due: bool) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        // In the transaction that ends the credentials: once it commits, the account cannot be
        // used, and its data can be deleted.
        if !self.accounts.begin_deletion(&mut tx, did, due).await? {
            return Ok(false);
        }
        self.credentials.end(&mut tx, did, Ending::Everything).await?;
        self.attempts.forget(&mut tx, did).await?;
        identity::delete_document(&mut tx, did).await?;
        note_change(&mut tx, did).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Replaces the password and ends every session, grant and sign-in.
    pub(crate) async fn set_password_hash(
        &self,
        did: &Did,
        hash: &str,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        db::repeated(|| self.record_password_hash(did, hash, actor)).await
    }

    async fn record_password_hash(&self, did: &Did, hash: &str, actor: Actor<'_>) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        found(self.accounts.set_password_hash(&mut tx, did, hash).await?)?;
        self.credentials.end(&mut tx, did, Ending::Everything).await?;
        audit::record(&mut tx, now, actor, "account.password", did.as_str(), "").await?;
        Ok(tx.commit().await?)
    }

    /// Deletes accounts whose owners asked for it and did not return in time, and finishes
    /// interrupted deletions.
    pub(crate) async fn delete_due(&self) -> Result<usize, Error> {
        let now = self.clock.now();
        let mut due = Vec::new();
        for host in self.fleet.all().iter() {
            let of_host = self.accounts.take_due_for_deletion(&host.id, now).await?;
            due.extend(of_host.into_iter().map(|did| (host.id.clone(), did)));
        }
        let deleted = AtomicUsize::new(0);
        // Every host at the same time: one that is gone keeps no others waiting. What is left of its
        // batch was taken, so it comes last next time.
        visit_each(due, usize::MAX, |did| {
            let deleted = &deleted;
            async move {
                // The list may be minutes old by now.
                match self.delete_if(&did, true, Actor::Genkan).await {
                    Ok(done) => {
                        deleted.fetch_add(usize::from(done), Ordering::Relaxed);
                        Visit::Answered
                    }
                    Err(cause) => {
                        tracing::warn!(
                            account.did = did.as_str(),
                            cause = &cause as &dyn std::error::Error,
                            "an account could not be deleted yet"
                        );
                        match cause {
                            Error::Host(HostError::Unreachable(_) | HostError::Unanswered(_)) => Visit::Dead,
                            _ => Visit::Answered,
                        }
                    }
                }
            }
        })
        .await;
        Ok(deleted.into_inner())
    }

    pub(super) async fn account(&self, did: &Did) -> Result<Account, Error> {
        self.accounts.find(did).await?.ok_or(Error::NotFound)
    }

    pub(super) fn home(&self, account: &Account) -> Result<Arc<Host>, Error> {
        self.fleet.host(&account.host).ok_or_else(|| Error::NoHome(account.host.to_string()))
    }
}

pub(super) const fn found(found: bool) -> Result<(), Error> {
    if found { Ok(()) } else { Err(Error::NotFound) }
}

/// Interval at which [`Standings::delete_due`] is called.
pub(crate) const DELETE_DUE_EVERY: Duration = Duration::from_mins(1);
