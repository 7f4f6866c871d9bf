//! Which host each account lives on, from memory.
//!
//! A bounded cache of accounts by DID, and of DIDs by handle. Every change of an account is noted in
//! the changes feed and forgotten here; unknown DIDs are remembered the same way, since a sign-up is
//! noted too. A DID remembered for a handle counts only while the account still has that handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use genkan_protocol::syntax::{Did, Handle};
use quick_cache::sync::Cache;

use super::{Account, Standing, sql};
use crate::db::feed::{Change, Feed};
use crate::db::{Db, Result};
use crate::fleet::HostId;

/// What routing needs to know of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) did: Did,
    pub(crate) handle: Handle,
    pub(crate) host: HostId,
    pub(crate) standing: Standing,
}

/// Cheap to clone; all clones share one memory.
#[derive(Clone, Debug)]
pub(crate) struct AccountHosts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    by_did: Cache<Box<str>, Option<Arc<Home>>>,
    by_handle: Cache<Box<str>, Box<str>>,
    /// Counts what was forgotten, so that a row read before a change is not kept after it.
    forgotten: AtomicU64,
}

impl AccountHosts {
    pub(super) fn new(db: Db, feed: &Feed) -> Self {
        let account_hosts = Self {
            inner: Arc::new(Inner {
                db,
                by_did: Cache::new(CAPACITY),
                by_handle: Cache::new(CAPACITY),
                forgotten: AtomicU64::new(0),
            }),
        };
        let listening = account_hosts.clone();
        feed.subscribe(Change::Account, move |did| listening.forget(did));
        let listening = account_hosts.clone();
        feed.subscribe_to_gaps(move || listening.forget_all());
        account_hosts
    }

    /// From memory alone. `Some(None)`: known not to be ours.
    pub(crate) fn recall(&self, did: &str) -> Option<Option<Arc<Home>>> {
        self.inner.by_did.get(did)
    }

    pub(crate) async fn find(&self, did: &str) -> Result<Option<Arc<Home>>> {
        if let Some(known) = self.recall(did) {
            return Ok(known);
        }
        let before = self.inner.forgotten.load(Ordering::SeqCst);
        let found =
            sql::by_did(&self.inner.db, did).await?.filter(Account::is_open).map(|account| home(&account));
        self.keep(did, found.as_ref(), before);
        Ok(found)
    }

    /// From memory alone, as [`AccountHosts::recall`]; a handle that is nobody's is never remembered.
    pub(crate) fn recall_handle(&self, handle: &str) -> Option<Option<Arc<Home>>> {
        let did = self.inner.by_handle.get(handle)?;
        let home = self.recall(&did)??;
        (home.handle.as_str() == handle).then_some(Some(home))
    }

    pub(crate) async fn find_by_handle(&self, handle: &str) -> Result<Option<Arc<Home>>> {
        if let Some(known) = self.recall_handle(handle) {
            return Ok(known);
        }
        let before = self.inner.forgotten.load(Ordering::SeqCst);
        let found = sql::by_handle(&self.inner.db, handle)
            .await?
            .filter(Account::is_open)
            .map(|account| home(&account));
        if let Some(home) = &found {
            self.inner.by_handle.insert(handle.into(), home.did.as_str().into());
            self.keep(home.did.as_str(), found.as_ref(), before);
        }
        Ok(found)
    }

    fn keep(&self, did: &str, home: Option<&Arc<Home>>, before: u64) {
        self.inner.by_did.insert(did.into(), home.cloned());
        if self.inner.forgotten.load(Ordering::SeqCst) != before {
            self.inner.by_did.remove(did);
        }
    }

    fn forget(&self, did: &str) {
        self.inner.forgotten.fetch_add(1, Ordering::SeqCst);
        self.inner.by_did.remove(did);
    }

    fn forget_all(&self) {
        self.inner.forgotten.fetch_add(1, Ordering::SeqCst);
        self.inner.by_did.clear();
        self.inner.by_handle.clear();
    }
}

fn home(account: &Account) -> Arc<Home> {
    Arc::new(Home {
        did: account.did.clone(),
        handle: account.handle.clone(),
        host: account.host.clone(),
        standing: account.standing(),
    })
}

/// Entries in each memory; some 250 bytes apiece.
const CAPACITY: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Accounts;
    use crate::accounts::sql::tests::{add, new_account};
    use crate::base::Clock;
    use crate::db::audit::Actor;
    use crate::db::on_each_database;

    on_each_database!(a_change_is_seen_at_once, an_old_handle_leads_nowhere);

    fn accounts(db: &Db) -> Accounts {
        Accounts::new(db.clone(), Clock::System, Feed::new(db.clone(), Clock::System))
    }

    async fn a_change_is_seen_at_once(db: Db) {
        let accounts = accounts(&db);
        let ann = new_account("ann");
        let did = ann.did.as_str();
        assert_eq!(accounts.account_hosts().find(did).await.unwrap(), None);
        assert_eq!(accounts.account_hosts().recall(did), Some(None));

        add(&db, &ann).await.unwrap();
        accounts.feed.tell(Change::Account, did);
        assert_eq!(accounts.account_hosts().find(did).await.unwrap().unwrap().standing, Standing::Active);

        accounts.set_deactivated(did, true, None, Actor::Operator).await.unwrap();
        assert_eq!(accounts.account_hosts().recall(did), None);
        assert_eq!(
            accounts.account_hosts().find(did).await.unwrap().unwrap().standing,
            Standing::Deactivated
        );
        accounts.set_taken_down(did, Some("T-1"), Actor::Operator).await.unwrap();
        assert_eq!(accounts.account_hosts().find(did).await.unwrap().unwrap().standing, Standing::TakenDown);
    }

    async fn an_old_handle_leads_nowhere(db: Db) {
        let accounts = accounts(&db);
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        assert!(accounts.account_hosts().find_by_handle("ann.test").await.unwrap().is_some());
        assert!(accounts.account_hosts().recall_handle("ann.test").is_some());

        let mut tx = db.begin().await.unwrap();
        super::super::reserve_handle(&mut tx, ann.did.as_str(), &"eve.test".parse().unwrap()).await.unwrap();
        super::super::take_reserved_handle(&mut tx, ann.did.as_str()).await.unwrap();
        accounts.commit_change(tx, Clock::System.now(), ann.did.as_str()).await.unwrap();

        assert!(accounts.account_hosts().find_by_handle("eve.test").await.unwrap().is_some());
        assert!(accounts.account_hosts().recall_handle("ann.test").is_none());
        assert!(accounts.account_hosts().find_by_handle("ann.test").await.unwrap().is_none());
    }
}
