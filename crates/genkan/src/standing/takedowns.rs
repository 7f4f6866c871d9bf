//! Takedowns and restorations, and how the account's host learns of them.
//!
//! A row of `takedowns` says what the host is still to be told. It is written in the transaction of
//! the takedown, so a process that dies leaves the wish to the job. A task tells the host only with
//! the lease of the row: two tasks at once could leave the host with the older wish.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::service::found;
use super::sql::{self, Wish};
use super::{Error, Standings};
use crate::base::random;
use crate::credentials::Ending;
use crate::db;
use crate::db::audit::Actor;
use crate::db::leases::while_held;
use crate::fleet::{HostError, HostId, StatusChange};
use crate::telemetry::failpoint;

/// Whether the account's host knows of a takedown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Now,
    /// The host did not answer yet. A job tells it.
    Later,
}

impl Standings {
    /// Ends every session, grant and sign-in at once, and tells the host to hide the account.
    pub(crate) async fn take_down(
        &self,
        did: &Did,
        reference: &str,
        actor: Actor<'_>,
    ) -> Result<Told, Error> {
        let lease = random::id();
        // Here first, unlike a deactivation: the credentials must end even while the host is away.
        let is_mine = db::repeated(|| self.record_takedown(did, reference, actor, &lease)).await?;
        failpoint("takedown.recorded");
        if !is_mine {
            return Ok(Told::Later);
        }
        let (this, did) = (self.clone(), did.clone());
        let telling = tokio::spawn(async move { this.tell(&did, &lease).await });
        // The takedown is in effect here, so the operator does not wait for a silent host.
        match tokio::time::timeout(TELL_WITHIN, telling).await {
            Ok(Ok(Ok(()))) => Ok(Told::Now),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => Ok(Told::Later),
        }
    }

    /// Returns whether the lease is this caller's, who then tells the host.
    async fn record_takedown(
        &self,
        did: &Did,
        reference: &str,
        actor: Actor<'_>,
        lease: &str,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        found(self.accounts.set_taken_down(&mut tx, did, Some(reference), actor).await?)?;
        self.credentials.end(&mut tx, did, Ending::Everything).await?;
        let is_mine = sql::insert_or_replace(&mut tx, did, Wish::TakenDown, lease, now).await?;
        if !is_mine {
            sql::overrule(&mut tx, did, Wish::TakenDown, now).await?;
        }
        tx.commit().await?;
        Ok(is_mine)
    }

    /// Shows a taken-down account again: first at its host, then here.
    pub(crate) async fn restore(&self, did: &Did, actor: Actor<'_>) -> Result<(), Error> {
        let account = self.account(did).await?;
        self.home(&account)?;
        let (now, lease) = (self.clock.now(), random::id());
        let mut tx = self.db.begin().await?;
        if !sql::insert_or_replace(&mut tx, did, Wish::Restored, &lease, now).await? {
            return Err(Error::UnderWay);
        }
        tx.commit().await?;
        let restored = self.held(did, &lease, self.restore_with_lease(did, &lease, actor)).await;
        if restored.is_err() {
            self.hide_again(did, &lease).await?;
        }
        restored
    }

    async fn restore_with_lease(&self, did: &Did, lease: &str, actor: Actor<'_>) -> Result<(), Error> {
        // The host first: otherwise the owner could sign in to an account that its host still
        // hides.
        self.tell_status(did, StatusChange::TakenDown { applied: false, reference: None }).await?;
        failpoint("restoration.told");
        let mut tx = self.db.begin().await?;
        // A takedown that came meanwhile has the last word.
        if !sql::remove(&mut tx, did, lease).await? {
            return Err(Error::UnderWay);
        }
        found(self.accounts.set_taken_down(&mut tx, did, None, actor).await?)?;
        Ok(tx.commit().await?)
    }

    /// Records after a failed restoration that the host is to hide the account: it may have shown
    /// it, and it may never have heard of the takedown.
    async fn hide_again(&self, did: &Did, lease: &str) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        sql::set_wish(&mut tx, did, Wish::TakenDown, lease).await?;
        let again = self.clock.now().plus(AGAIN);
        sql::put_off(&mut tx, did, lease, again, "the restoration failed").await?;
        Ok(tx.commit().await?)
    }

    /// Tells hosts of takedowns that they have not accepted yet, and ends interrupted restorations.
    /// Returns how many hosts accepted.
    pub(crate) async fn tell_hosts(&self) -> Result<usize, Error> {
        let mut accepted = 0;
        // A host that does not answer is asked once per run, so that it keeps no other waiting.
        let mut silent: HashSet<HostId> = HashSet::new();
        for did in sql::abandoned(&self.db, self.clock.now(), BATCH).await? {
            // One corrupt row must not keep the others waiting.
            let Ok(did) = did.parse::<Did>() else { continue };
            let lease = random::id();
            if !sql::take_lease(&self.db, &did, &lease, self.clock.now()).await? {
                continue;
            }
            let host = self.accounts.find(&did).await?.map(|account| account.host);
            if let Some(host) = host.as_ref().filter(|host| silent.contains(*host)) {
                self.put_off(&did, &lease, &format!("host {host} does not answer")).await?;
                continue;
            }
            match self.tell(&did, &lease).await {
                Ok(()) => accepted += 1,
                Err(cause) => {
                    tracing::warn!(
                        account.did = did.as_str(),
                        cause = &cause as &dyn std::error::Error,
                        "an account's host was not told of its takedown yet"
                    );
                    if matches!(&cause, Error::Host(HostError::Unreachable(_) | HostError::Unanswered(_))) {
                        silent.extend(host);
                    }
                }
            }
        }
        Ok(accepted)
    }

    /// Tells the host what the row says, and removes the row. The caller holds its lease.
    async fn tell(&self, did: &Did, lease: &str) -> Result<(), Error> {
        let told = self.held(did, lease, self.tell_with_lease(did, lease)).await;
        if let Err(cause) = &told {
            self.put_off(did, lease, &cause.to_string()).await?;
        }
        told
    }

    async fn tell_with_lease(&self, did: &Did, lease: &str) -> Result<(), Error> {
        let Some(wish) = sql::find(&self.db, did).await? else { return Ok(()) };
        let Some(account) = self.accounts.find(did).await? else {
            // It is deleted, or its deletion has begun: nothing is left to hide.
            return self.forget(did, lease).await;
        };
        if wish == Wish::Restored && account.takedown_ref.is_some() {
            return self.restore_with_lease(did, lease, Actor::Genkan).await;
        }
        // A restoration that was committed removed its row, so this account is taken down.
        let reference = account.takedown_ref.clone();
        self.tell_status(did, StatusChange::TakenDown { applied: reference.is_some(), reference }).await?;
        failpoint("takedown.told");
        self.forget(did, lease).await
    }

    async fn tell_status(&self, did: &Did, status: StatusChange) -> Result<(), Error> {
        let host = self.home(&self.account(did).await?)?;
        Ok(self.hosts.update_subject_status(&host, did, &status).await?)
    }

    async fn forget(&self, did: &Did, lease: &str) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        sql::remove(&mut tx, did, lease).await?;
        Ok(tx.commit().await?)
    }

    async fn put_off(&self, did: &Did, lease: &str, why: &str) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        sql::put_off(&mut tx, did, lease, self.clock.now().plus(AGAIN), why).await?;
        Ok(tx.commit().await?)
    }

    /// Does `work` with the lease, and renews it meanwhile.
    async fn held<T>(&self, did: &Did, lease: &str, work: impl Future<Output = T>) -> T {
        while_held(Box::pin(work), || sql::keep_lease(&self.db, did, lease, self.clock.now())).await
    }

    /// Ends every lease, when a process starts that has the database to itself.
    pub(crate) async fn end_leases(&self) -> db::Result<()> {
        sql::end_leases(&self.db).await
    }
}

const BATCH: i64 = 100;
/// Interval at which [`Standings::tell_hosts`] is called.
pub(crate) const TELL_HOSTS_EVERY: Duration = Duration::from_secs(3);
/// How long a takedown waits for the host before it returns.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Pause before a host is told again.
const AGAIN: Duration = Duration::from_secs(15);
