//! The service of this room: accounts, found and changed.

use std::collections::HashMap;

use genkan_protocol::syntax::{AtIdentifier, Did, Handle};

use super::account_hosts::AccountHosts;
use super::sql::accounts::{self as sql, Demand};
use super::sql::{app_passwords, counts, email_tokens};
use super::{Account, ClaimError, Email, NewAccount, NewError, State};
use crate::base::{Clock, Timestamp};
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change, Feed};
use crate::db::{self, Db, Tx};
use crate::fleet::HostId;
use crate::mail;

/// The accounts of this operator. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    db: Db,
    clock: Clock,
    account_hosts: AccountHosts,
}

impl Accounts {
    pub(crate) fn new(db: Db, clock: Clock, feed: &Feed) -> Self {
        let account_hosts = AccountHosts::new(db.clone(), feed);
        Self { db, clock, account_hosts }
    }

    /// The cache of accounts' hosts.
    pub(crate) const fn account_hosts(&self) -> &AccountHosts {
        &self.account_hosts
    }

    /// Finds an open account by its DID.
    pub(crate) async fn find(&self, did: &Did) -> db::Result<Option<Account>> {
        Ok(sql::by_did(&self.db, did.as_str()).await?.filter(Account::is_open))
    }

    /// Finds an account by its DID, even if its deletion has begun.
    pub(crate) async fn find_to_delete(&self, did: &Did) -> db::Result<Option<Account>> {
        let found = sql::by_did(&self.db, did.as_str()).await?;
        Ok(found.filter(|account| account.is_open() || account.state == State::Deleting))
    }

    /// Finds an account by its handle, even while its sign-up is under way.
    pub(crate) async fn find_by_handle(&self, handle: &Handle) -> db::Result<Option<Account>> {
        sql::by_handle(&self.db, handle.as_str()).await
    }

    /// Whether no account has the handle or is getting it.
    pub(crate) async fn is_handle_free(&self, handle: &Handle) -> db::Result<bool> {
        sql::is_handle_free(&self.db, handle.as_str()).await
    }

    /// Finds an account by its e-mail address, even while its sign-up is under way.
    pub(crate) async fn find_by_email(&self, email: &Email) -> db::Result<Option<Account>> {
        sql::by_email(&self.db, email.key()).await
    }

    /// Finds an open account by what people type at sign-in: a handle, e-mail address or DID.
    pub(crate) async fn find_by_identifier(&self, identifier: &str) -> db::Result<Option<Account>> {
        let typed = identifier.trim();
        // People write handles as `@ann.example.com`. An e-mail address has something before its
        // `@`.
        let found = if typed.contains('@') && !typed.starts_with('@') {
            match typed.parse::<Email>() {
                Ok(email) => sql::by_email(&self.db, email.key()).await?,
                Err(_) => None,
            }
        } else {
            match typed.trim_start_matches('@').parse::<AtIdentifier>() {
                Ok(AtIdentifier::Did(did)) => sql::by_did(&self.db, did.as_str()).await?,
                Ok(AtIdentifier::Handle(handle)) => sql::by_handle(&self.db, handle.as_str()).await?,
                Err(_) => None,
            }
        };
        Ok(found.filter(Account::is_open))
    }

    /// Returns accounts, the newest first. `after` is the creation time and DID of the last one
    /// seen.
    pub(crate) async fn list(
        &self,
        limit: i64,
        after: Option<(Timestamp, &str)>,
    ) -> db::Result<Vec<Account>> {
        sql::list(&self.db, limit, after).await
    }

    /// Records that the account is being deleted, as part of `tx`. The account cannot be used any
    /// more. With `due`, only if its owner asked for it and did not return in time. Returns `false`
    /// if the condition does not hold.
    pub(crate) async fn begin_deletion(&self, tx: &mut Tx, did: &Did, due: bool) -> db::Result<bool> {
        sql::begin_deletion(tx, did, due, self.clock.now()).await
    }

    /// Takes some deactivated accounts of a host whose time is over, and interrupted deletions, for another
    /// attempt.
    pub(crate) async fn take_due_for_deletion(&self, host: &HostId, now: Timestamp) -> db::Result<Vec<Did>> {
        sql::take_due_for_deletion(&self.db, host, now).await
    }

    /// Stores the time at which a deactivated account is deleted, or that it is not, as part of
    /// `tx`. Returns `false` if there is no such account.
    pub(crate) async fn set_delete_after(
        &self,
        tx: &mut Tx,
        did: &Did,
        date: Option<Timestamp>,
    ) -> db::Result<bool> {
        sql::set_delete_after(tx, did, date).await
    }

    /// Marks an account as deactivated or as active again, as part of `tx`. The caller tells the
    /// host first. An active account has no time of deletion. Returns `false` if there is no such
    /// account.
    pub(crate) async fn set_deactivated(
        &self,
        tx: &mut Tx,
        did: &Did,
        deactivated: bool,
        actor: Actor<'_>,
    ) -> db::Result<bool> {
        let now = self.clock.now();
        if !sql::set_deactivated(tx, did, deactivated.then_some(now)).await? {
            return Ok(false);
        }
        // The audit trail and the feed are part of the same transaction, so neither can differ from
        // the row.
        let action = if deactivated { "account.deactivate" } else { "account.activate" };
        audit::record(tx, now, actor, action, did.as_str(), "").await?;
        note_change(tx, did).await?;
        Ok(true)
    }

    /// Marks an account as taken down (`Some`) or restored (`None`), as part of `tx`. Returns
    /// `false` if there is no such account.
    pub(crate) async fn set_taken_down(
        &self,
        tx: &mut Tx,
        did: &Did,
        reference: Option<&str>,
        actor: Actor<'_>,
    ) -> db::Result<bool> {
        let now = self.clock.now();
        if !sql::set_taken_down(tx, did, reference.map(|reference| (now, reference))).await? {
            return Ok(false);
        }
        let action = if reference.is_some() { "account.takedown" } else { "account.restore" };
        audit::record(tx, now, actor, action, did.as_str(), reference.unwrap_or("")).await?;
        note_change(tx, did).await?;
        Ok(true)
    }

    /// Replaces the password's hash, as part of `tx`. Returns `false` if there is no such account.
    pub(crate) async fn set_password_hash(&self, tx: &mut Tx, did: &Did, hash: &str) -> db::Result<bool> {
        sql::set_password_hash(tx, did, hash).await
    }

    /// Stores a newer kind of hash of the same password. Returns `false` if the hash changed
    /// meanwhile.
    pub(crate) async fn upgrade_password_hash(&self, did: &Did, old: &str, new: &str) -> db::Result<bool> {
        let mut tx = self.db.begin().await?;
        // The old hash is a condition of the update, so that a new password set meanwhile is kept.
        let done = sql::upgrade_password_hash(&mut tx, did, old, new).await?;
        tx.commit().await?;
        Ok(done)
    }

    pub(crate) async fn set_email(
        &self,
        did: &Did,
        email: &Email,
        actor: Actor<'_>,
    ) -> Result<(), ClaimError> {
        let now = self.clock.now();
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            self.change_email(&mut tx, did, email).await?;
            audit::record(&mut tx, now, actor, "account.email", did.as_str(), "").await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Changes the address. The new one is not confirmed, and codes sent to the old one become
    /// invalid.
    pub(crate) async fn change_email(&self, tx: &mut Tx, did: &Did, email: &Email) -> Result<(), ClaimError> {
        if !sql::set_email(tx, did, email).await? {
            return Err(ClaimError::NotFound);
        }
        Ok(forget_mail(tx, did).await?)
    }

    /// Removes an account whose data were deleted from its host. Returns `false` if there is no
    /// such account.
    pub(crate) async fn remove(&self, did: &Did, actor: Actor<'_>) -> db::Result<bool> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        // One transaction: a crash between two of these would leave credentials without an account.
        app_passwords::remove_all(&mut tx, did).await?;
        forget_mail(&mut tx, did).await?;
        // Another process finished this deletion. Dropping the transaction keeps the audit trail
        // from recording it twice.
        if !remove_row(&mut tx, did).await? {
            return Ok(false);
        }
        audit::record(&mut tx, now, actor, "account.delete", did.as_str(), "").await?;
        note_change(&mut tx, did).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Notes in the feed that the account changed, as part of `tx`.
pub(crate) async fn note_change(tx: &mut Tx, did: &Did) -> db::Result<()> {
    feed::note(tx, Change::Account, did.as_str()).await?;
    Ok(())
}

/// Drops codes and emails on their way to an address that is no longer the account's.
async fn forget_mail(tx: &mut Tx, did: &Did) -> db::Result<()> {
    email_tokens::remove_all(tx, did).await?;
    mail::forget_account(tx, did).await
}

/// Reserves handle, e-mail address and DID for a sign-up. The unique indexes decide who is first.
pub(crate) async fn insert_creating(tx: &mut Tx, account: &NewAccount) -> Result<(), NewError> {
    sql::insert_creating(tx, account).await
}

/// Completes a recorded sign-up: the row becomes an account.
pub(crate) async fn open(tx: &mut Tx, did: &Did) -> db::Result<bool> {
    sql::open(tx, did).await
}

pub(crate) async fn remove_row(tx: &mut Tx, did: &Did) -> db::Result<bool> {
    sql::remove(tx, did).await
}

/// Holds an account's row until `tx` ends. Returns `false` if no such account meets `demand`.
///
/// A transaction that creates a credential of an account holds the account's row first, and so does
/// one that ends all credentials. So either the second sees what the first created, or the first
/// sees what the second changed.
pub(crate) async fn hold(tx: &mut Tx, did: &Did, demand: Demand<'_>) -> db::Result<bool> {
    sql::hold(tx, did, demand).await
}

/// Reserves the handle that an account is changing to.
pub(crate) async fn reserve_handle(tx: &mut Tx, did: &Did, handle: &Handle) -> Result<(), ClaimError> {
    sql::reserve_handle(tx, did, handle).await
}

/// Makes the reserved handle the account's handle.
pub(crate) async fn take_reserved_handle(tx: &mut Tx, did: &Did) -> Result<bool, ClaimError> {
    sql::take_reserved_handle(tx, did).await
}

pub(crate) async fn release_reserved_handle(tx: &mut Tx, did: &Did) -> db::Result<()> {
    sql::release_reserved_handle(tx, did).await
}

/// Returns how many accounts each host holds, for placement by capacity. The counters may be off by a
/// few while an older version works on the same database.
pub(crate) async fn count_by_host(db: &Db) -> db::Result<HashMap<HostId, u64>> {
    counts::by_host(db).await
}

/// Returns how many accounts a host holds; 0 only if it has none.
pub(crate) async fn count_on_host(db: &Db, host: &HostId) -> db::Result<u64> {
    counts::of_host(db, host).await
}

/// Gives a host its counters, before they are checked.
pub(crate) async fn prepare_counts(db: &Db, host: &HostId) -> db::Result<()> {
    counts::prepare(db, host).await
}

/// Job: counts accounts again, a part of a host each time, at most `limit` parts. Returns how many
/// counters were wrong.
pub(crate) async fn check_counts(db: &Db, now: Timestamp, limit: usize) -> db::Result<u64> {
    let mut wrong = 0;
    for _ in 0..limit {
        let Some(was_wrong) = counts::check_one(db, now).await? else { break };
        wrong += u64::from(was_wrong);
    }
    Ok(wrong)
}

/// Whether the DID belongs to an account or to a sign-up under way.
pub(crate) async fn is_known(db: &Db, did: &Did) -> db::Result<bool> {
    Ok(sql::by_did(db, did.as_str()).await?.is_some())
}
