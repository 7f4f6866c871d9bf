use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use genkan_protocol::plc::{Data, genesis};

use super::*;
use crate::accounts::{self, Account, Accounts};
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::fetch::{Dns, GuardedClient, tls};
use crate::base::seal::Sealer;
use crate::base::test_directory::{Fault, TestDirectory};
use crate::base::{Clock, Secret};
use crate::db::Db;
use crate::db::audit::Actor;
use crate::db::feed::Feed;
use crate::db::on_each_database;
use crate::fleet::testing::{FakeHost, HostFault, host_client};
use crate::fleet::{Admission, Fleet, HostChanges};
use crate::identity::{Directory, HandlePolicy, Handles, PolicyError};
use crate::keys::Ring;

on_each_database!(
    a_change_reaches_directory_record_and_host,
    a_taken_or_reserved_handle_changes_nothing,
    a_lost_answer_of_the_directory_is_looked_up,
    a_directory_that_is_down_is_waited_for,
    a_host_that_is_away_hears_later,
    a_did_that_is_not_ours_stays_as_it_is,
    a_custom_handle_has_to_lead_here
);

struct Stand {
    renames: Renames,
    directory: TestDirectory,
    host: FakeHost,
    hand: Arc<AtomicI64>,
}

impl Stand {
    async fn new(db: Db) -> Self {
        let hand = Arc::new(AtomicI64::new(Clock::System.now().as_millis()));
        let clock = Clock::Manual(Arc::clone(&hand));
        let feed = Feed::new(db.clone(), clock.clone());
        let ring = Ring::open(&db, &clock, Sealer::new(&Secret::new([4; 32])), None).await.unwrap();
        let fleet = Fleet::open(db.clone(), clock.clone(), ring.clone(), feed.clone()).await.unwrap();
        let directory = TestDirectory::start().await;
        let host = FakeHost::start().await;
        let url = directory.origin().to_string();
        host.with(|state| state.settings.insert("PDS_DID_PLC_URL", url));
        fleet.prepare(&"oak".into(), &host.origin, None).await.unwrap();
        let admission = Admission {
            did: host.as_host("oak").did.clone(),
            admin_password: host.as_host("oak").admin_password.clone(),
            version: None,
            blob_limit: None,
            changes: HostChanges::default(),
        };
        fleet.admit(&"oak".into(), admission).await.unwrap();
        let dns = TestDns::start(|name, _| match name {
            "_atproto.theirs.example.org." => Reply::texts(&[&["did=did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"]]),
            _ => Reply::NoSuchName,
        })
        .await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns.clone(), tls::client_config(None).unwrap(), Vec::new());
        let renames = Renames::new(Dependencies {
            accounts: Accounts::new(db.clone(), clock.clone(), &feed),
            db,
            ring,
            fleet,
            hosts: host_client(),
            directory: Directory::of(&directory),
            handles: Handles::new(dns, guarded, clock.clone(), std::time::Duration::from_secs(5)),
            policy: HandlePolicy::new(vec![".test".to_owned()], &[], true),
            clock,
        });
        Self { renames, directory, host, hand }
    }

    /// Creates an account on the host, in the directory and in the database.
    async fn account(&self, name: &str) -> Account {
        let with = &self.renames.context.with;
        let (handle, key) = (format!("{name}.test").parse().unwrap(), with.ring.rotation().public());
        let data = Data::of_account(vec![key.to_did_key()], &key, &handle, self.host.origin.as_str());
        let (did, operation) = genesis(data, with.ring.rotation());
        self.directory.write(&did, &operation);
        self.host.with(|state| state.accounts.insert(did.to_string(), handle.to_string()));
        let mut tx = with.db.begin().await.unwrap();
        let account = accounts::NewAccount {
            did: did.clone(),
            handle,
            email: format!("{name}@example.com").parse().unwrap(),
            password_hash: Secret::new("hash".to_owned()),
            host: "oak".into(),
            host_key: key,
            created_at: with.clock.now(),
        };
        accounts::insert_creating(&mut tx, &account).await.unwrap();
        assert!(accounts::open(&mut tx, &did).await.unwrap());
        tx.commit().await.unwrap();
        with.accounts.find(&did).await.unwrap().unwrap()
    }

    async fn rename(&self, account: &Account, typed: &str) -> Result<(), Error> {
        self.renames.rename(account, typed, Actor::Account(account.did.as_str())).await
    }

    /// Returns the handle in the directory, in the database and at the host.
    async fn handles(&self, account: &Account) -> [String; 3] {
        let did = account.did.as_str();
        let published = self.directory.log(did).last().unwrap().data().unwrap().handle().unwrap();
        let ours = self.renames.context.with.accounts.find(&account.did).await.unwrap().unwrap().handle;
        let host = self.host.with(|state| state.accounts[did].clone());
        [published.to_string(), ours.to_string(), host]
    }

    async fn later(&self) -> usize {
        self.hand.fetch_add(120_000, Ordering::SeqCst);
        self.renames.finish_interrupted().await.unwrap()
    }
}

fn all(handle: &str) -> [String; 3] {
    [handle.to_owned(), handle.to_owned(), handle.to_owned()]
}

async fn a_change_reaches_directory_record_and_host(db: Db) {
    let stand = Stand::new(db).await;
    let alice = stand.account("alice").await;
    stand.rename(&alice, "Alicia.test").await.unwrap();
    assert_eq!(stand.handles(&alice).await, all("alicia.test"));
    assert_eq!(stand.directory.log(alice.did.as_str()).len(), 2);
    stand.rename(&alice, "alicia.test").await.unwrap();
    assert_eq!(stand.directory.log(alice.did.as_str()).len(), 2, "again: nothing to publish");
    assert_eq!(stand.later().await, 0);
    stand.rename(&stand.account("bob").await, "alice.test").await.unwrap();
}

async fn a_taken_or_reserved_handle_changes_nothing(db: Db) {
    let stand = Stand::new(db).await;
    let (alice, _bob) = (stand.account("alice").await, stand.account("bob").await);
    assert!(matches!(stand.rename(&alice, "bob.test").await, Err(Error::Taken)));
    assert!(matches!(stand.rename(&alice, "admin.test").await, Err(Error::Handle(PolicyError::Reserved))));
    assert!(matches!(stand.rename(&alice, "x").await, Err(Error::Handle(PolicyError::Invalid(_)))));
    assert_eq!(stand.handles(&alice).await, all("alice.test"));
    assert_eq!(stand.later().await, 0);
    stand.rename(&alice, "alicia.test").await.unwrap();
}

async fn a_lost_answer_of_the_directory_is_looked_up(db: Db) {
    let stand = Stand::new(db).await;
    let alice = stand.account("alice").await;
    stand.directory.set(Fault::AcceptThenCut);
    stand.rename(&alice, "alicia.test").await.unwrap();
    assert_eq!(stand.handles(&alice).await, all("alicia.test"));
    assert_eq!(stand.directory.asked(&format!("POST /{}", alice.did)), 1, "sent once");
}

async fn a_directory_that_is_down_is_waited_for(db: Db) {
    let stand = Stand::new(db).await;
    let (alice, bob) = (stand.account("alice").await, stand.account("bob").await);
    stand.directory.set(Fault::Down);
    assert!(matches!(stand.rename(&alice, "alicia.test").await, Err(Error::Unfinished)));
    assert!(matches!(stand.rename(&bob, "alicia.test").await, Err(Error::Taken)), "held meanwhile");
    assert_eq!(stand.handles(&alice).await, all("alice.test"));
    stand.directory.set(Fault::None);
    assert_eq!(stand.later().await, 1);
    assert_eq!(stand.handles(&alice).await, all("alicia.test"));
    assert_eq!(stand.later().await, 0);
}

async fn a_host_that_is_away_hears_later(db: Db) {
    let stand = Stand::new(db).await;
    let alice = stand.account("alice").await;
    stand.host.with(|state| state.fault = HostFault::Closed);
    stand.rename(&alice, "alicia.test").await.unwrap();
    let [published, ours, host] = stand.handles(&alice).await;
    assert_eq!([&*published, &*ours, &*host], ["alicia.test", "alicia.test", "alice.test"]);
    stand.host.with(|state| state.fault = HostFault::ActThenCut);
    assert_eq!(stand.later().await, 1);
    assert_eq!(stand.handles(&alice).await, all("alicia.test"));
    stand.host.with(|state| state.fault = HostFault::None);
    assert_eq!(stand.later().await, 0);
}

async fn a_did_that_is_not_ours_stays_as_it_is(db: Db) {
    let stand = Stand::new(db).await;
    let alice = stand.account("alice").await;
    let log = stand.directory.log(alice.did.as_str());
    let mut data = log[0].data().unwrap();
    let theirs = genkan_protocol::crypto::K256PrivateKey::from_bytes(&[8; 32]).unwrap();
    data.rotation_keys = vec![theirs.public().to_did_key()];
    let gone = genkan_protocol::plc::update(&log[0].cid(), data, stand.renames.context.with.ring.rotation());
    stand.directory.write(&alice.did, &gone);
    assert!(matches!(stand.rename(&alice, "alicia.test").await, Err(Error::NotOurs)));
    assert_eq!(stand.handles(&alice).await, all("alice.test"));
    stand.rename(&stand.account("bob").await, "alicia.test").await.unwrap();
}

async fn a_custom_handle_has_to_lead_here(db: Db) {
    let stand = Stand::new(db).await;
    let alice = stand.account("alice").await;
    for typed in ["theirs.example.org", "nobody.example.org"] {
        let refused = stand.rename(&alice, typed).await;
        assert!(matches!(refused, Err(Error::Handle(PolicyError::DoesNotLeadHere))), "{typed}");
    }
    assert_eq!(stand.handles(&alice).await, all("alice.test"));
}
