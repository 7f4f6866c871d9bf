//! The host of each account, from a cache.
//!
//! Two bounded caches: accounts by DID, and DIDs by handle. Every change of an account is noted in
//! the changes feed, and its entry is dropped. Unknown DIDs are cached too, because a sign-up is
//! noted as well. The DID cached for a handle counts only while the account still has that handle,
//! so the second cache needs no invalidation.

use std::sync::Arc;

use genkan_protocol::syntax::{Did, Handle};

use super::sql::accounts as sql;
use super::{Account, Standing};
use crate::base::{ByteCache, CacheSize, Weigh};
use crate::db::feed::{Change, Feed};
use crate::db::{Db, FeedCache, Result};
use crate::fleet::HostId;

/// The facts about an account that routing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) did: Did,
    pub(crate) handle: Handle,
    pub(crate) host: HostId,
    pub(crate) standing: Standing,
}

/// The cache of accounts' hosts. Cheap to clone; all clones share one cache.
#[derive(Clone, Debug)]
pub(crate) struct AccountHosts {
    db: Db,
    by_did: FeedCache<Box<str>, Option<Arc<Home>>>,
    by_handle: ByteCache<Box<str>, Box<str>>,
}

impl AccountHosts {
    pub(super) fn new(db: Db, feed: &Feed) -> Self {
        let by_did = FeedCache::new(feed, Change::Account, BY_DID, |entries, did| {
            entries.remove(did);
        });
        Self { db, by_did, by_handle: BY_HANDLE.build() }
    }

    /// Returns the home of a DID from the cache. `Some(None)` means that it is known to have none
    /// here.
    pub(crate) fn recall(&self, did: &str) -> Option<Option<Arc<Home>>> {
        self.by_did.get(did)
    }

    pub(crate) async fn find(&self, did: &str) -> Result<Option<Arc<Home>>> {
        if let Some(known) = self.recall(did) {
            return Ok(known);
        }
        let reading = self.by_did.begin();
        // An account whose sign-up or deletion is under way is not forwarded to a host.
        let found = sql::by_did(&self.db, did).await?.filter(Account::is_open).map(|account| home(&account));
        self.by_did.keep(did.into(), found.clone(), reading);
        Ok(found)
    }

    /// Returns the home of a handle from the cache, as [`AccountHosts::recall`] does. A handle that
    /// no account has is never cached.
    pub(crate) fn recall_handle(&self, handle: &str) -> Option<Option<Arc<Home>>> {
        let did = self.by_handle.get(handle)?;
        // A handle that the cache knows may lead to an account that it has dropped. That is an
        // unknown answer, not "no account".
        let home = self.recall(&did)??;
        (home.handle.as_str() == handle).then_some(Some(home))
    }

    pub(crate) async fn find_by_handle(&self, handle: &str) -> Result<Option<Arc<Home>>> {
        if let Some(known) = self.recall_handle(handle) {
            return Ok(known);
        }
        let reading = self.by_did.begin();
        let found =
            sql::by_handle(&self.db, handle).await?.filter(Account::is_open).map(|account| home(&account));
        if let Some(home) = &found {
            // Needs no `reading`: `recall_handle` compares the handle with the one that the account
            // has now.
            self.by_handle.insert(handle.into(), home.did.as_str().into());
            self.by_did.keep(home.did.as_str().into(), found.clone(), reading);
        }
        Ok(found)
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

impl Weigh for Home {
    fn heap_bytes(&self) -> usize {
        // The host's id is shared with the fleet.
        self.did.heap_bytes() + self.handle.heap_bytes()
    }
}

/// The most bytes of each cache: some 100 000 accounts with a `did:plc`.
const BY_DID: CacheSize = CacheSize { name: "hosts_by_did", bytes: 32 << 20, typical: 320 };
const BY_HANDLE: CacheSize = CacheSize { name: "hosts_by_handle", ..BY_DID };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::testing::{add, new_account};
    use crate::accounts::{Accounts, note_change, reserve_handle, take_reserved_handle};
    use crate::base::{Clock, assert_weighs};
    use crate::db::audit::Actor;
    use crate::db::on_each_database;

    on_each_database!(a_change_is_seen_at_once, an_old_handle_finds_no_account);

    fn accounts(db: &Db) -> (Accounts, Feed) {
        let feed = Feed::new(db.clone());
        (Accounts::new(db.clone(), Clock::of_process(), &feed), feed)
    }

    #[test]
    fn a_home_weighs_its_texts() {
        let home = |did: &str, handle: &str| Home {
            did: did.parse().unwrap(),
            handle: handle.parse().unwrap(),
            host: "oak".into(),
            standing: Standing::Active,
        };
        assert_weighs(|length| home(&format!("did:web:{}", "a".repeat(length)), "ann.test"));
        assert_weighs(|length| home("did:plc:ann", &format!("{}ann.test", "a.".repeat(length / 2))));
    }

    async fn a_change_is_seen_at_once(db: Db) {
        let (accounts, feed) = accounts(&db);
        let (hosts, ann) = (accounts.account_hosts(), new_account("ann"));
        let did = ann.did.as_str();
        assert_eq!(hosts.find(did).await.unwrap(), None);
        assert_eq!(hosts.recall(did), Some(None));

        add(&db, &ann).await.unwrap();
        feed.tell(Change::Account, did);
        assert_eq!(hosts.find(did).await.unwrap().unwrap().standing, Standing::Active);

        let mut tx = db.begin().await.unwrap();
        let by = Actor::Operator;
        assert!(accounts.set_deactivated(&mut tx, &ann.did, true, by).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(hosts.recall(did), None);
        assert_eq!(hosts.find(did).await.unwrap().unwrap().standing, Standing::Deactivated);
        let mut tx = db.begin().await.unwrap();
        assert!(accounts.set_taken_down(&mut tx, &ann.did, Some("T-1"), by).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(hosts.find(did).await.unwrap().unwrap().standing, Standing::TakenDown);
    }

    async fn an_old_handle_finds_no_account(db: Db) {
        let (accounts, _feed) = accounts(&db);
        let (hosts, ann) = (accounts.account_hosts(), new_account("ann"));
        add(&db, &ann).await.unwrap();
        assert!(hosts.find_by_handle("ann.test").await.unwrap().is_some());
        assert!(hosts.recall_handle("ann.test").is_some());

        let mut tx = db.begin().await.unwrap();
        reserve_handle(&mut tx, &ann.did, &"eve.test".parse().unwrap()).await.unwrap();
        take_reserved_handle(&mut tx, &ann.did).await.unwrap();
        note_change(&mut tx, &ann.did).await.unwrap();
        tx.commit().await.unwrap();

        assert!(hosts.find_by_handle("eve.test").await.unwrap().is_some());
        assert!(hosts.recall_handle("ann.test").is_none());
        assert!(hosts.find_by_handle("ann.test").await.unwrap().is_none());
    }
}
