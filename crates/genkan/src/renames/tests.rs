use std::time::Duration;

use genkan_testing::network::eventually;
use genkan_testing::{FakeDirectory, FakeHost, Gate, Trouble};

use super::*;
use crate::accounts::testing::{add, new_account};
use crate::accounts::{Account, Accounts, NewAccount, reserve_handle};
use crate::base::fetch::test_dns::{Reply, TestDns};
use crate::base::fetch::{Dns, GuardedClient, tls};
use crate::base::seal::Sealer;
use crate::base::{ManualClock, Secret};
use crate::db::Db;
use crate::db::audit::Actor;
use crate::db::feed::Feed;
use crate::db::on_each_database;
use crate::fleet::Fleet;
use crate::fleet::testing::{add_host, host_client};
use crate::identity::{Directory, Documents, HandlePolicy, Handles, HomeDocuments, PolicyError};
use crate::keys::Ring;

on_each_database!(
    a_change_reaches_directory_record_and_host,
    a_taken_or_reserved_handle_changes_nothing,
    a_lost_answer_of_the_directory_is_looked_up,
    a_directory_that_is_down_is_waited_for,
    a_change_that_was_put_off_does_not_block_its_repetition,
    a_change_that_was_put_off_blocks_no_other_one,
    a_host_that_is_away_gets_the_change_later,
    a_repeated_change_does_not_wait_for_a_silent_host,
    a_repeated_change_needs_one_connection,
    a_task_that_lost_its_lease_to_another_one_changes_nothing,
    a_did_that_is_not_ours_stays_as_it_is,
    a_custom_handle_has_to_lead_here
);

struct RenameHarness {
    renames: Renames,
    directory: FakeDirectory,
    host: FakeHost,
    clock: ManualClock,
}

impl RenameHarness {
    async fn new(db: Db) -> Self {
        let hand = ManualClock::at_present();
        let clock = hand.clock();
        let feed = Feed::new(db.clone());
        let ring = Ring::open(&db, &clock, Sealer::new(&Secret::new([4; 32])), None).await.unwrap();
        let fleet = Fleet::open(db.clone(), clock.clone(), ring.clone(), feed.clone()).await.unwrap();
        let (directory, host) = (FakeDirectory::start().await, FakeHost::start("admin word").await);
        // The host compares a new handle with the directory, as the reference PDS does.
        host.configure(&format!("PDS_DID_PLC_URL={}", directory.url()));
        add_host(&fleet, "oak", &host).await;
        let dns = TestDns::start(|name, _| match name {
            // A name that leads to another account.
            "_atproto.theirs.example.org." => Reply::texts(&[&["did=did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"]]),
            _ => Reply::NoSuchName,
        })
        .await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
        let directory_client = Directory::of(&directory);
        let documents =
            Documents::new(directory_client.clone(), &guarded, clock.clone(), Duration::from_secs(5));
        let renames = Renames::new(Dependencies {
            home_documents: HomeDocuments::new(db.clone(), clock.clone(), &feed, documents),
            accounts: Accounts::new(db.clone(), clock.clone(), &feed),
            db,
            ring,
            fleet,
            hosts: host_client(),
            directory: directory_client,
            handles: Handles::new(&guarded, clock.clone(), Duration::from_secs(5)),
            policy: HandlePolicy::new(vec![".test".to_owned()], &[], true),
            clock,
        });
        Self { renames, directory, host, clock: hand }
    }

    /// Creates an account on the host, in the directory and in the database.
    async fn account(&self, name: &str) -> Account {
        let with = &self.renames.context.with;
        let (account, rotation) = (new_account(name), with.ring.rotation());
        let did = self.host.make_account(&self.directory, account.handle.as_str(), rotation);
        let account = NewAccount { did, host_key: rotation.public(), ..account };
        add(&with.db, &account).await.unwrap();
        with.accounts.find(&account.did).await.unwrap().unwrap()
    }

    async fn rename(&self, account: &Account, typed: &str) -> Result<(), Error> {
        self.renames.rename(account, typed, Actor::Account(&account.did)).await
    }

    /// Returns the handle in the directory, in the database and at the host.
    async fn handles(&self, account: &Account) -> [String; 3] {
        let published = self.directory.data(&account.did).unwrap().handle().unwrap();
        let ours = self.renames.context.with.accounts.find(&account.did).await.unwrap().unwrap().handle;
        let host = self.host.account(&account.did).unwrap().handle;
        [published.to_string(), ours.to_string(), host.to_string()]
    }

    async fn later(&self) -> usize {
        // Long enough for every lease and every pause before another attempt to end.
        self.clock.advance(Duration::from_mins(2));
        self.renames.finish_interrupted().await.unwrap()
    }
}

fn all(handle: &str) -> [String; 3] {
    [handle.to_owned(), handle.to_owned(), handle.to_owned()]
}

async fn a_change_reaches_directory_record_and_host(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    harness.rename(&alice, "Alicia.test").await.unwrap();
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
    assert_eq!(harness.directory.operations(&alice.did).len(), 2);
    harness.rename(&alice, "alicia.test").await.unwrap();
    assert_eq!(harness.directory.operations(&alice.did).len(), 2, "again: nothing to publish");
    assert_eq!(harness.later().await, 0);
    harness.rename(&harness.account("bob").await, "alice.test").await.unwrap();
}

async fn a_taken_or_reserved_handle_changes_nothing(db: Db) {
    let harness = RenameHarness::new(db).await;
    let (alice, _bob) = (harness.account("alice").await, harness.account("bob").await);
    assert!(matches!(harness.rename(&alice, "bob.test").await, Err(Error::Taken)));
    assert!(matches!(harness.rename(&alice, "admin.test").await, Err(Error::Handle(PolicyError::Reserved))));
    assert!(matches!(harness.rename(&alice, "x").await, Err(Error::Handle(PolicyError::Invalid(_)))));
    assert_eq!(harness.handles(&alice).await, all("alice.test"));
    assert_eq!(harness.later().await, 0);
    harness.rename(&alice, "alicia.test").await.unwrap();
}

async fn a_lost_answer_of_the_directory_is_looked_up(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    // The directory accepts the operation, and its answer is lost.
    harness.directory.trouble("submit", Trouble::CutAfter);
    harness.rename(&alice, "alicia.test").await.unwrap();
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
    assert_eq!(harness.directory.asked("submit"), 1, "sent once");
}

async fn a_directory_that_is_down_is_waited_for(db: Db) {
    let harness = RenameHarness::new(db).await;
    let (alice, bob) = (harness.account("alice").await, harness.account("bob").await);
    harness.directory.trouble("*", Trouble::CutBefore);
    assert!(matches!(harness.rename(&alice, "alicia.test").await, Err(Error::Unfinished)));
    assert!(matches!(harness.rename(&bob, "alicia.test").await, Err(Error::Taken)), "held meanwhile");
    assert_eq!(harness.handles(&alice).await, all("alice.test"));
    harness.directory.mend();
    assert_eq!(harness.later().await, 1);
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
    assert_eq!(harness.later().await, 0);
}

/// One refused connection of the directory.
async fn a_change_that_was_put_off_does_not_block_its_repetition(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    harness.directory.trouble("*", Trouble::CutBefore);
    for _ in 0..2 {
        assert!(matches!(harness.rename(&alice, "alicia.test").await, Err(Error::Unfinished)));
    }
    harness.directory.mend();
    harness.rename(&alice, "alicia.test").await.unwrap();
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
    assert_eq!(harness.later().await, 0);
}

async fn a_change_that_was_put_off_blocks_no_other_one(db: Db) {
    let harness = RenameHarness::new(db).await;
    let (alice, bob) = (harness.account("alice").await, harness.account("bob").await);
    harness.directory.trouble("*", Trouble::CutBefore);
    assert!(matches!(harness.rename(&alice, "alicia.test").await, Err(Error::Unfinished)));
    harness.directory.mend();
    harness.rename(&alice, "alison.test").await.unwrap();
    assert_eq!(harness.handles(&alice).await, all("alison.test"));
    harness.rename(&bob, "alicia.test").await.unwrap();
    // The host learns of the last one only.
    harness.host.trouble("*", Trouble::CutBefore);
    for handle in ["alina.test", "alma.test"] {
        harness.rename(&alice, handle).await.unwrap();
    }
    harness.host.mend();
    assert_eq!(harness.later().await, 1);
    assert_eq!(harness.handles(&alice).await, all("alma.test"));
}

async fn a_host_that_is_away_gets_the_change_later(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    harness.host.trouble("*", Trouble::CutBefore);
    harness.rename(&alice, "alicia.test").await.unwrap();
    let [published, ours, host] = harness.handles(&alice).await;
    assert_eq!([&*published, &*ours, &*host], ["alicia.test", "alicia.test", "alice.test"]);
    harness.host.mend();
    // The host makes the change, but its answer is lost. The work is then finished without a second
    // call.
    harness.host.trouble("com.atproto.admin.updateAccountHandle", Trouble::CutAfter);
    assert_eq!(harness.later().await, 1);
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
    harness.host.mend();
    assert_eq!(harness.later().await, 0);
}

async fn a_repeated_change_does_not_wait_for_a_silent_host(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    let gate = Gate::closed();
    harness.host.trouble("com.atproto.admin.updateAccountHandle", Trouble::Held(gate.clone()));
    let repeat = async {
        while harness.host.asked("com.atproto.admin.updateAccountHandle") == 0 {
            tokio::task::yield_now().await;
        }
        let again = harness.rename(&alice, "alicia.test").await;
        let other = harness.rename(&alice, "alison.test").await;
        gate.open();
        (again, other)
    };
    let (first, (again, other)) = tokio::join!(harness.rename(&alice, "alicia.test"), repeat);
    assert!(matches!((first, again), (Ok(()), Ok(()))));
    assert!(matches!(other, Err(Error::UnderWay)), "{other:?}");
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
}

/// On PostgreSQL, as many repetitions as connections would wait for each other otherwise.
async fn a_repeated_change_needs_one_connection(db: Db) {
    let harness = RenameHarness::new(db.apart_with(1)).await;
    let alice = harness.account("alice").await;
    let gate = Gate::closed();
    harness.host.trouble("com.atproto.admin.updateAccountHandle", Trouble::Held(gate.clone()));
    let repeat = async {
        while harness.host.asked("com.atproto.admin.updateAccountHandle") == 0 {
            tokio::task::yield_now().await;
        }
        let again = harness.rename(&alice, "alicia.test").await;
        gate.open();
        again
    };
    let (first, again) = tokio::join!(harness.rename(&alice, "alicia.test"), repeat);
    assert!(matches!(first, Ok(())), "{first:?}");
    assert!(matches!(again, Ok(())), "{again:?}");
}

/// Both are tasks of one process. The first one is held up for longer than its lease.
async fn a_task_that_lost_its_lease_to_another_one_changes_nothing(db: Db) {
    let harness = RenameHarness::new(db.clone()).await;
    let alice = harness.account("alice").await;
    let (context, gate) = (&harness.renames.context, Gate::closed());
    let (first, second) = (context.for_task(), context.for_task());
    harness.directory.trouble("submit", Trouble::Held(gate.clone()));
    let change = sql::Rename {
        did: alice.did.clone(),
        handle: "alicia.test".parse().unwrap(),
        step: sql::Step::Recorded,
    };
    let mut tx = db.begin().await.unwrap();
    assert!(sql::insert_or_replace(&mut tx, &change, &first.worker, context.now()).await.unwrap());
    reserve_handle(&mut tx, &change.did, &change.handle).await.unwrap();
    tx.commit().await.unwrap();
    let mut changing = Box::pin(saga::go_on(&first, &alice.did));
    tokio::select! {
        _ = &mut changing => panic!("the directory has not answered"),
        () = eventually("the directory is asked", async || harness.directory.asked("submit") == 1) => {}
    }
    // From here on the first task stands still, and renews nothing.
    harness.clock.advance(Duration::from_mins(1));
    assert!(sql::take_lease(&db, &alice.did, &second.worker, context.now()).await.unwrap());
    gate.open();
    let outcome = changing.await;
    assert!(matches!(outcome, Err(Error::UnderWay)), "the second task has the lease");
    let [published, ours, host] = harness.handles(&alice).await;
    assert_eq!([&*published, &*ours, &*host], ["alicia.test", "alice.test", "alice.test"]);
    assert!(matches!(saga::go_on(&second, &alice.did).await, Ok(saga::Outcome::Done)));
    assert_eq!(harness.handles(&alice).await, all("alicia.test"));
}

async fn a_did_that_is_not_ours_stays_as_it_is(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    let log = harness.directory.operations(&alice.did);
    let mut data = log[0].data().unwrap();
    let theirs = genkan_protocol::crypto::K256PrivateKey::from_bytes(&[8; 32]).unwrap();
    // The owner has taken the DID over, so Genkan's operations would be refused.
    data.rotation_keys = vec![theirs.public().to_did_key()];
    let gone =
        genkan_protocol::plc::update(&log[0].cid(), data, harness.renames.context.with.ring.rotation());
    harness.directory.submit(&alice.did, &gone).unwrap();
    assert!(matches!(harness.rename(&alice, "alicia.test").await, Err(Error::NotOurs)));
    assert_eq!(harness.handles(&alice).await, all("alice.test"));
    harness.rename(&harness.account("bob").await, "alicia.test").await.unwrap();
}

async fn a_custom_handle_has_to_lead_here(db: Db) {
    let harness = RenameHarness::new(db).await;
    let alice = harness.account("alice").await;
    for typed in ["theirs.example.org", "nobody.example.org"] {
        let refused = harness.rename(&alice, typed).await;
        assert!(matches!(refused, Err(Error::Handle(PolicyError::DoesNotLeadHere))), "{typed}");
    }
    assert_eq!(harness.handles(&alice).await, all("alice.test"));
}
