//! Accounts: who has one here, under which handle and e-mail address, on which host, in what standing.
//!
//! *Home* is the host that keeps an account's repository; [`AccountHosts`] answers "whose home is where"
//! from memory. An account row appears when a sign-up is recorded (`creating`) and counts as an
//! account when the sign-up is done (`open`). This room never speaks to a host or the directory.

mod account_hosts;
pub(crate) mod app_password;
mod caller;
mod email;
mod email_token;
pub(crate) mod emails;
mod error;
pub(crate) mod invite;
mod password;
mod sql;
mod types;

use genkan_protocol::syntax::{AtIdentifier, Did, Handle};

use crate::base::{Clock, Timestamp};
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change, Feed};
use crate::db::{self, Db, Tx};

pub(crate) use account_hosts::{AccountHosts, Home};
pub(crate) use caller::Caller;
pub(crate) use email::Email;
pub(crate) use email_token::{CodeError, EmailTokens, VerifiedCode};
pub(crate) use emails::{Emails, EmailsError};
pub(crate) use error::{ClaimError, Error, NewError};
pub(crate) use password::{PasswordError, Passwords, RecognitionError};
pub(crate) use types::{Account, NewAccount, Standing, State};

/// The accounts of this operator. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    db: Db,
    clock: Clock,
    feed: Feed,
    account_hosts: AccountHosts,
}

impl Accounts {
    pub(crate) fn new(db: Db, clock: Clock, feed: Feed) -> Self {
        let account_hosts = AccountHosts::new(db.clone(), &feed);
        Self { db, clock, feed, account_hosts }
    }

    /// The memory of whose home is where.
    pub(crate) const fn account_hosts(&self) -> &AccountHosts {
        &self.account_hosts
    }

    /// An open account by its DID.
    pub(crate) async fn find(&self, did: &str) -> db::Result<Option<Account>> {
        Ok(sql::by_did(&self.db, did).await?.filter(Account::is_open))
    }

    /// An account by its DID, also when its deletion has begun.
    pub(crate) async fn find_to_delete(&self, did: &str) -> db::Result<Option<Account>> {
        let found = sql::by_did(&self.db, did).await?;
        Ok(found.filter(|account| account.is_open() || account.state == State::Deleting))
    }

    /// An account by its handle, also while its sign-up is under way.
    pub(crate) async fn find_by_handle(&self, handle: &Handle) -> db::Result<Option<Account>> {
        sql::by_handle(&self.db, handle.as_str()).await
    }

    /// Whether no account has the handle, or is getting it.
    pub(crate) async fn is_handle_free(&self, handle: &Handle) -> db::Result<bool> {
        sql::is_handle_free(&self.db, handle.as_str()).await
    }

    /// An account by its e-mail address, also while its sign-up is under way.
    pub(crate) async fn find_by_email(&self, email: &Email) -> db::Result<Option<Account>> {
        sql::by_email(&self.db, email.key()).await
    }

    /// An open account by what people type at sign-in: handle, e-mail address or DID.
    pub(crate) async fn find_by_identifier(&self, identifier: &str) -> db::Result<Option<Account>> {
        let typed = identifier.trim();
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

    /// The newest accounts first; `after` is the creation time and DID of the last one seen.
    pub(crate) async fn list(
        &self,
        limit: i64,
        after: Option<(Timestamp, &str)>,
    ) -> db::Result<Vec<Account>> {
        sql::list(&self.db, limit, after).await
    }

    /// Records that the account is being deleted, as part of `tx`: from now on nobody can use it. `due`: only if its owner
    /// asked for it and did not come back in time.
    pub(crate) async fn begin_deletion(&self, tx: &mut Tx, did: &str, due: bool) -> db::Result<bool> {
        sql::begin_deletion(tx, did, due, self.clock.now()).await
    }

    /// Deactivated accounts whose time is over, and deletions that broke off.
    pub(crate) async fn due_for_deletion(&self, now: Timestamp, limit: i64) -> db::Result<Vec<String>> {
        sql::due_for_deletion(&self.db, now, limit).await
    }

    /// Records what the owner or the operator decided; the host is told by the caller, first.
    pub(crate) async fn set_deactivated(
        &self,
        did: &str,
        deactivated: bool,
        delete_after: Option<Timestamp>,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let at = deactivated.then_some(now);
        if !sql::set_deactivated(&mut tx, did, at, delete_after).await? {
            return Err(Error::NotFound);
        }
        let action = if deactivated { "account.deactivate" } else { "account.activate" };
        audit::record(&mut tx, now, actor, action, did, "").await?;
        Ok(self.commit_change(tx, now, did).await?)
    }

    /// Marks an account as taken down (`Some`) or restored (`None`). Sessions are the caller's to end.
    pub(crate) async fn set_taken_down(
        &self,
        did: &str,
        reference: Option<&str>,
        actor: Actor<'_>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if !sql::set_taken_down(&mut tx, did, reference.map(|reference| (now, reference))).await? {
            return Err(Error::NotFound);
        }
        let action = if reference.is_some() { "account.takedown" } else { "account.restore" };
        audit::record(&mut tx, now, actor, action, did, reference.unwrap_or("")).await?;
        Ok(self.commit_change(tx, now, did).await?)
    }

    /// Replaces the password's hash. Sessions are the caller's to end.
    pub(crate) async fn set_password_hash(&self, tx: &mut Tx, did: &str, hash: &str) -> Result<(), Error> {
        if sql::set_password_hash(tx, did, hash).await? { Ok(()) } else { Err(Error::NotFound) }
    }

    /// Keeps the same password under a newer kind of hash. `false`: it changed meanwhile.
    pub(crate) async fn upgrade_password_hash(&self, did: &str, old: &str, new: &str) -> db::Result<bool> {
        let mut tx = self.db.begin().await?;
        let done = sql::upgrade_password_hash(&mut tx, did, old, new).await?;
        tx.commit().await?;
        Ok(done)
    }

    pub(crate) async fn set_email(
        &self,
        did: &str,
        email: &Email,
        actor: Actor<'_>,
    ) -> Result<(), ClaimError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        self.change_email(&mut tx, did, email).await?;
        audit::record(&mut tx, now, actor, "account.email", did, "").await?;
        Ok(tx.commit().await?)
    }

    /// The new address is not confirmed, and what was sent to the old one opens nothing.
    pub(crate) async fn change_email(&self, tx: &mut Tx, did: &str, email: &Email) -> Result<(), ClaimError> {
        if !sql::set_email(tx, did, email).await? {
            return Err(ClaimError::NotFound);
        }
        Ok(emails::forget(tx, did).await?)
    }

    /// Forgets an account whose data are gone from its host.
    pub(crate) async fn remove(&self, did: &str, actor: Actor<'_>) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        app_password::remove_all(&mut tx, did).await?;
        emails::forget(&mut tx, did).await?;
        if !remove_row(&mut tx, did).await? {
            return Err(Error::NotFound);
        }
        audit::record(&mut tx, now, actor, "account.delete", did, "").await?;
        Ok(self.commit_change(tx, now, did).await?)
    }

    /// Notes the change for every process, commits, and forgets what was in memory here.
    pub(crate) async fn commit_change(&self, mut tx: Tx, now: Timestamp, did: &str) -> db::Result<()> {
        feed::note(&mut tx, now, Change::Account, did).await?;
        tx.commit().await?;
        self.feed.tell(Change::Account, did);
        Ok(())
    }
}

/// Reserves handle, e-mail address and DID for a sign-up. The unique indexes decide who is first.
pub(crate) async fn insert_creating(tx: &mut Tx, account: &NewAccount) -> Result<(), NewError> {
    sql::insert_creating(tx, account).await
}

/// A recorded sign-up is done: from now on this is an account.
pub(crate) async fn open(tx: &mut Tx, did: &str) -> db::Result<bool> {
    sql::open(tx, did).await
}

pub(crate) async fn remove_row(tx: &mut Tx, did: &str) -> db::Result<bool> {
    sql::remove(tx, did).await
}

/// Holds an account's row until `tx` ends: whoever ends everything of it waits, or is seen. `false`: it is not open, or
/// taken down.
pub(crate) async fn hold(tx: &mut Tx, did: &str) -> db::Result<bool> {
    sql::hold(tx, did).await
}

/// The same for an account that was recognised by its password. `false`: the password was changed since.
pub(crate) async fn hold_recognised(tx: &mut Tx, account: &Account) -> db::Result<bool> {
    sql::hold_with(tx, account.did.as_str(), account.password_hash.expose()).await
}

/// The same for an account that acts. `false`: it is deactivated, taken down or gone.
pub(crate) async fn hold_active(tx: &mut Tx, did: &str) -> db::Result<bool> {
    sql::hold_active(tx, did).await
}

/// The same for whoever ends everything of an account, however it stands.
pub(crate) async fn hold_any(tx: &mut Tx, did: &str) -> db::Result<()> {
    sql::hold_any(tx, did).await
}

/// Reserves the handle that an account is changing to.
pub(crate) async fn reserve_handle(tx: &mut Tx, did: &str, handle: &Handle) -> Result<(), ClaimError> {
    sql::reserve_handle(tx, did, handle.as_str()).await
}

/// The reserved handle becomes the account's handle.
pub(crate) async fn take_reserved_handle(tx: &mut Tx, did: &str) -> Result<bool, ClaimError> {
    sql::take_reserved_handle(tx, did).await
}

pub(crate) async fn release_reserved_handle(tx: &mut Tx, did: &str) -> db::Result<()> {
    sql::release_reserved_handle(tx, did).await
}

/// How many accounts each host holds, for placement by capacity.
pub(crate) async fn count_by_host(
    db: &Db,
) -> db::Result<std::collections::HashMap<crate::fleet::HostId, u64>> {
    sql::count_by_host(db).await
}

/// Whether the DID belongs to an account or to a sign-up under way.
pub(crate) async fn is_known(db: &Db, did: &Did) -> db::Result<bool> {
    Ok(sql::by_did(db, did.as_str()).await?.is_some())
}
