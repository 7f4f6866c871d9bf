//! How long a sign-up waits for a host that is away, and who may repeat it, with a manual clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genkan_testing::network::eventually;
use genkan_testing::{FakeDirectory, FakeHost, Gate, Trouble};

use super::outcome::Outcome;
use super::*;
use crate::accounts::{Accounts, Passwords};
use crate::base::fetch::UnguardedClient;
use crate::base::seal::Sealer;
use crate::base::{ManualClock, Secret, WaitingClient};
use crate::config::Config;
use crate::db::Db;
use crate::db::audit::Actor;
use crate::db::feed::Feed;
use crate::db::on_each_database;
use crate::fleet::testing::add_host;
use crate::fleet::{Fleet, HostClient};
use crate::identity::{Directory, HandlePolicy};
use crate::keys::Ring;
use crate::limits::RateLimits;
use crate::sessions::{Lifetimes, Sessions};
use crate::signin::Attempts;
use crate::telemetry::metrics::Metrics;

on_each_database!(
    a_host_that_stays_away_is_given_ten_minutes_when_nothing_was_published,
    a_published_operation_is_given_an_hour,
    a_host_that_comes_back_in_time_keeps_the_account,
    a_worker_that_takes_long_is_not_overtaken,
    a_task_that_lost_its_lease_to_another_one_finishes_nothing,
    a_sign_up_at_a_silent_host_ends_and_its_repetition_finds_the_account,
    a_sign_up_whose_client_has_left_is_not_recorded,
    a_sign_up_is_repeated_by_its_owner_and_within_an_hour_only,
    a_repeated_sign_up_tells_strangers_nothing_about_the_password,
);

const RESERVE: &str = "com.atproto.server.reserveSigningKey";
const CREATE: &str = "com.atproto.server.createAccount";
const LOOK: &str = "com.atproto.admin.getAccountInfo";
const MINUTE: Duration = Duration::from_mins(1);

struct SignUpHarness {
    sign_ups: SignUps,
    directory: FakeDirectory,
    host: FakeHost,
    clock: ManualClock,
}

impl SignUpHarness {
    async fn new(db: Db) -> Self {
        let hand = ManualClock::at_present();
        let clock = hand.clock();
        let feed = Feed::new(db.clone());
        let ring = Ring::open(&db, &clock, Sealer::new(&Secret::new([4; 32])), None).await.unwrap();
        let fleet = Fleet::open(db.clone(), clock.clone(), ring.clone(), feed.clone()).await.unwrap();
        let (directory, host) = (FakeDirectory::start().await, FakeHost::start("admin word").await);
        let rotation = ring.rotation().public();
        // The host checks the operation against these settings, so they name Genkan's rotation key.
        host.configure(&format!(
            "PDS_DID_PLC_URL={}\nPDS_ENTRYWAY_URL=http://localhost:1\nPDS_ENTRYWAY_DID=did:web:localhost%3A1\n\
             PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX={}\nPDS_ENTRYWAY_PLC_ROTATION_KEY={}",
            directory.url(),
            rotation.to_sec1_uncompressed_hex(),
            rotation.to_did_key(),
        ));
        add_host(&fleet, "oak", &host).await;
        let accounts = Accounts::new(db.clone(), clock.clone(), &feed);
        let passwords = Passwords::new(2, 8);
        let day = Duration::from_hours(24);
        let sessions = Sessions::new(
            db.clone(),
            clock.clone(),
            accounts.clone(),
            passwords.clone(),
            ring.clone(),
            fleet.clone(),
            "did:web:localhost%3A1".parse().unwrap(),
            Lifetimes { access: day, refresh: day, grace: day },
        );
        let plc = Directory::new(
            UnguardedClient::new(None).unwrap(),
            directory.url().parse().unwrap(),
            Duration::from_secs(5),
        );
        let rates = [("GENKAN_RATE_LIMITS_ENABLED", "true"), ("GENKAN_RATE_CREATE_SESSION", "12/3650d")];
        let config = Config::for_tests_with(Path::new("/nowhere"), &rates);
        let limits = RateLimits::new(&config, &Metrics::default());
        let attempts = Attempts::new(db.clone(), clock.clone(), limits, &ring);
        let with = Dependencies {
            db,
            clock,
            accounts,
            passwords,
            sessions,
            ring,
            fleet,
            hosts: HostClient::new(UnguardedClient::new(None).unwrap(), Duration::from_secs(20)),
            directory: plc,
            attempts,
        };
        let rules = Rules {
            handles: HandlePolicy::new(vec![".test".to_owned()], &[], true),
            blocked_email_domains: Arc::default(),
            invite_required: false,
            password: (8, 256),
            recovery_key: None,
        };
        Self { sign_ups: SignUps::new(with, rules), directory, host, clock: hand }
    }

    /// Sends Alice's sign-up to a host that fails while it creates the account.
    async fn broken_off(&self, trouble: Trouble) {
        // The creation fails once, and the lookup of the account afterwards fails always. So Genkan
        // cannot learn what happened.
        self.host.trouble_times(CREATE, trouble, 1);
        self.host.trouble(LOOK, Trouble::Status(503));
        let outcome = self.sign_ups.create(form("alice@example.com")).await;
        assert!(matches!(outcome, Err(Error::Unfinished)), "{outcome:?}");
    }

    async fn later(&self, time: Duration) {
        self.clock.advance(time);
        self.sign_ups.settle_all().await.unwrap();
    }

    /// Returns whether Alice's handle is reserved.
    async fn is_held(&self) -> bool {
        let other = form("other@example.com");
        self.sign_ups.context.with.accounts.find_by_handle(&other.handle).await.unwrap().is_some()
    }

    async fn unfinished(&self) -> usize {
        self.sign_ups.unfinished().await.unwrap().len()
    }
}

fn form(email: &str) -> Request {
    Request {
        handle: "alice.test".parse().unwrap(),
        email: email.parse().unwrap(),
        password: Secret::new("alice's secret".to_owned()),
        invite_code: None,
        recovery_key: None,
        client: [192, 0, 2, 1].into(),
        waiting: WaitingClient::patient(),
    }
}

async fn a_host_that_stays_away_is_given_ten_minutes_when_nothing_was_published(db: Db) {
    let harness = SignUpHarness::new(db).await;
    harness.broken_off(Trouble::CutBefore).await;
    harness.later(9 * MINUTE).await;
    assert!(harness.is_held().await, "the host may come back");
    harness.later(2 * MINUTE).await;
    assert!(!harness.is_held().await, "waited for long enough");
    assert_eq!(harness.unfinished().await, 1, "the host is still to be looked at");
    harness.host.mend();
    harness.later(2 * MINUTE).await;
    assert_eq!(harness.unfinished().await, 0);
    assert!(harness.directory.dids().is_empty() && harness.host.accounts().is_empty());
    harness.sign_ups.create(form("other@example.com")).await.unwrap();
}

async fn a_published_operation_is_given_an_hour(db: Db) {
    let harness = SignUpHarness::new(db).await;
    harness.broken_off(Trouble::CutAfter).await;
    // Beyond the ten minutes that an unpublished operation gets.
    harness.later(11 * MINUTE).await;
    harness.later(48 * MINUTE).await;
    assert!(harness.is_held().await, "the account may well be there");
    harness.later(2 * MINUTE).await;
    assert!(!harness.is_held().await);
    let dids = harness.directory.dids();
    assert!(harness.directory.is_tombstoned(&dids[0]), "the DID names nobody's account");
    assert_eq!((harness.host.accounts().len(), harness.unfinished().await), (1, 1), "still to be cleared up");
    harness.host.mend();
    harness.later(2 * MINUTE).await;
    assert_eq!((harness.host.accounts().len(), harness.unfinished().await), (0, 0));
    harness.sign_ups.create(form("other@example.com")).await.unwrap();
}

async fn a_host_that_comes_back_in_time_keeps_the_account(db: Db) {
    let harness = SignUpHarness::new(db).await;
    harness.broken_off(Trouble::CutAfter).await;
    harness.later(59 * MINUTE).await;
    harness.host.mend();
    harness.later(MINUTE / 2).await;
    assert_eq!(harness.unfinished().await, 0);
    let opened = harness.sign_ups.create(form("alice@example.com")).await.unwrap();
    assert_eq!(harness.directory.dids(), std::slice::from_ref(&opened.account.did));
    assert_eq!(harness.host.accounts().len(), 1);
}

/// Another process on the same database checks every second, while the host needs longer than a
/// lease.
async fn a_worker_that_takes_long_is_not_overtaken(db: Db) {
    let harness = SignUpHarness::new(db).await;
    // Longer than a lease of six seconds, so the lease has to be renewed.
    harness.host.trouble(CREATE, Trouble::Slow(Duration::from_secs(7)));
    let with = harness.sign_ups.context.with.clone();
    let other = SignUps::new(with, harness.sign_ups.rules().clone());
    let clock = harness.clock.clone();
    let looking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            clock.advance(Duration::from_secs(1));
            assert_eq!(other.settle_all().await.unwrap(), 0, "somebody works on it");
        }
    });
    let opened = harness.sign_ups.create(form("alice@example.com")).await.unwrap();
    assert!(!looking.is_finished(), "the other found nothing to do");
    looking.abort();
    assert_eq!((harness.host.asked(CREATE), harness.host.asked(LOOK)), (1, 0));
    assert_eq!(harness.directory.dids(), [opened.account.did]);
}

/// Both are tasks of one process. The first one is held up for longer than its lease.
async fn a_task_that_lost_its_lease_to_another_one_finishes_nothing(db: Db) {
    let harness = SignUpHarness::new(db).await;
    let (made, looked_at) = (Gate::closed(), Gate::closed());
    harness.host.trouble(CREATE, Trouble::Held(made.clone()));
    harness.host.trouble(LOOK, Trouble::Held(looked_at.clone()));
    let (first, second) = (harness.sign_ups.context.for_task(), harness.sign_ups.context.for_task());
    let (form, hash) = (form("alice@example.com"), Secret::new("$argon2id$x".to_owned()));
    let mut beginning = Box::pin(saga::begin(&first, &form, &hash));
    tokio::select! {
        begun = &mut beginning => panic!("the host has not answered: {begun:?}"),
        () = eventually("the host is asked", async || harness.host.asked(CREATE) == 1) => {}
    }
    // From here on the first task stands still, and renews nothing.
    harness.clock.advance(MINUTE);
    let did = harness.sign_ups.unfinished().await.unwrap().pop().unwrap().0;
    let settling = tokio::spawn(async move { saga::settle(&second, &did).await });
    eventually("the second task looks at the host", async || harness.host.asked(LOOK) == 1).await;
    made.open();
    let begun = beginning.await.unwrap();
    assert!(matches!(begun, Outcome::Waiting), "the second task has the lease: {begun:?}");
    assert_eq!(harness.unfinished().await, 1);
    looked_at.open();
    let settled = settling.await.unwrap().unwrap();
    assert!(matches!(settled, Some(Outcome::Done(_))), "{settled:?}");
    assert_eq!((harness.unfinished().await, harness.host.accounts().len()), (0, 1));
}

/// The host is silent for longer than a caller waits, and goes on then.
async fn a_sign_up_at_a_silent_host_ends_and_its_repetition_finds_the_account(db: Db) {
    let harness = SignUpHarness::new(db).await;
    let gate = Gate::closed();
    harness.host.trouble(CREATE, Trouble::Held(gate.clone()));
    let outcome = harness.sign_ups.create(form("alice@example.com")).await;
    assert!(matches!(outcome, Err(Error::Unfinished)), "{outcome:?}");
    gate.open();
    let opened = harness.sign_ups.create(form("alice@example.com")).await.unwrap();
    assert_eq!(harness.directory.dids(), [opened.account.did]);
    assert_eq!(harness.host.asked(CREATE), 1, "the first request went on");
}

/// Its client may have repeated it meanwhile, and have deleted the account.
async fn a_sign_up_whose_client_has_left_is_not_recorded(db: Db) {
    let harness = SignUpHarness::new(db.clone()).await;
    let gate = Gate::closed();
    harness.host.trouble_times(RESERVE, Trouble::Held(gate.clone()), 1);
    let client = WaitingClient::new();
    let request = Request { waiting: client.clone(), ..form("alice@example.com") };
    let first = tokio::spawn({
        let sign_ups = harness.sign_ups.clone();
        async move { sign_ups.create(request).await.map(drop) }
    });
    eventually("the host was asked", async || harness.host.asked(RESERVE) == 1).await;
    assert!(client.leave());
    let opened = harness.sign_ups.create(form("alice@example.com")).await.unwrap();
    let delete = "DELETE FROM accounts WHERE did = $1";
    sqlx::query(delete).bind(opened.account.did.as_str()).execute(db.writer()).await.unwrap();
    gate.open();
    let outcome = first.await.unwrap();
    assert!(matches!(outcome, Err(Error::Unfinished)), "{outcome:?}");
    assert_eq!(harness.directory.dids(), [opened.account.did]);
    assert_eq!((harness.host.asked(CREATE), harness.unfinished().await), (1, 0));
}

/// A repeated request leads to the account. Each that differs is told that the handle is taken.
async fn a_sign_up_is_repeated_by_its_owner_and_within_an_hour_only(db: Db) {
    let harness = SignUpHarness::new(db.clone()).await;
    let create = async |form: Request| match harness.sign_ups.create_account(form).await {
        Ok(account) => account.did.to_string(),
        Err(error) => format!("{error:?}"),
    };
    let owners = || form("alice@example.com");
    let alice = harness.sign_ups.create_account(owners()).await.unwrap().did;
    assert_eq!(create(form("Alice@Example.com")).await, alice.as_str());
    assert_eq!(create(form("other@example.com")).await, "HandleTaken");
    let guess = Request { password: Secret::new("a good guess".to_owned()), ..owners() };
    assert_eq!(create(guess).await, "HandleTaken");
    for (reference, expected) in [(Some("x"), "HandleTaken"), (None, alice.as_str())] {
        let (accounts, mut tx) = (&harness.sign_ups.context.with.accounts, db.begin().await.unwrap());
        accounts.set_taken_down(&mut tx, &alice, reference, Actor::Operator).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(create(owners()).await, expected, "{reference:?}");
    }
    harness.clock.advance(60 * MINUTE);
    assert_eq!(create(owners()).await, alice.as_str());
    harness.clock.advance(Duration::from_millis(1));
    assert_eq!(create(owners()).await, "HandleTaken");
    assert_eq!(harness.directory.dids(), [alice]);
}

async fn a_repeated_sign_up_tells_strangers_nothing_about_the_password(db: Db) {
    let harness = SignUpHarness::new(db).await;
    let owners = || form("alice@example.com");
    let alice = harness.sign_ups.create_account(owners()).await.unwrap().did;
    let elsewhere = || Request { client: [203, 0, 113, 1].into(), ..owners() };
    let wrong = |request| Request { password: Secret::new("a wrong guess".to_owned()), ..request };
    // From another address the right password gets the answer of a wrong one.
    for guess in [wrong(elsewhere()), elsewhere()] {
        let told = harness.sign_ups.create_account(guess).await;
        assert!(matches!(told, Err(Error::HandleTaken)), "{told:?}");
    }
    // Its owner may repeat it often.
    for _ in 0..20 {
        assert_eq!(harness.sign_ups.create_account(owners()).await.unwrap().did, alice);
    }
    // From the same address guesses count as those at sign-in do.
    for _ in 0..12 {
        let told = harness.sign_ups.create_account(wrong(owners())).await;
        assert!(matches!(told, Err(Error::HandleTaken)), "{told:?}");
    }
    let told = harness.sign_ups.create_account(owners()).await;
    assert!(matches!(told, Err(Error::OverLimit(_))), "{told:?}");
    assert_eq!(harness.directory.dids(), [alice]);
}
