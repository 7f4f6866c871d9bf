//! Accounts that are signed in, and for how long.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::harness::{BY, PASSWORD, SignInHarness, secret};
use crate::accounts::{AppPasswords, Passwords, Rank};
use crate::base::{Clock, WaitingClient};
use crate::db::audit::Actor;
use crate::db::{Db, on_each_database, sweep};
use crate::signin::cookies::KEEP_UNUSED;
use crate::signin::service::{FOR_ONE_REQUEST, KEEP};
use crate::signin::types::FRESH;
use crate::signin::{Attempt, Error, Persistence, SWEEPS, SignIns};

on_each_database!(
    a_sign_in_is_remembered_or_for_one_request,
    a_browser_is_known_for_thirty_days_after_a_sign_in,
    a_password_for_an_unknown_account_takes_as_much_work,
    only_the_owners_own_password_counts,
    a_sign_out_is_of_one_account_and_one_browser,
    everything_of_an_account_ends_at_once,
    a_password_that_was_changed_meanwhile_opens_nothing,
    expired_rows_are_swept,
);

async fn a_sign_in_is_remembered_or_for_one_request(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    harness.wait(FRESH + Duration::from_millis(1));
    let mut visit = harness.visit(visit.to_set()).await;
    let old = harness.sign_ins.signed_in(&visit, None).await.unwrap();
    let now = harness.clock.now();
    assert!(!old[0].is_fresh(now));

    // Bob signs in for one request. Ann does too, although she is remembered here.
    harness.sign_in(&mut visit, &bob, Persistence::OneRequest("req-1")).await;
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    for (request, expected) in [(Some("req-2"), vec![&ann]), (None, vec![&ann])] {
        assert_eq!(
            harness.dids(&visit, request).await,
            expected.into_iter().map(Did::to_string).collect::<Vec<_>>()
        );
    }
    let mut both = harness.dids(&visit, Some("req-1")).await;
    both.sort();
    assert_eq!(both, [ann.as_str(), bob.as_str()]);
    let here = harness.sign_ins.signed_in(&visit, Some("req-1")).await.unwrap();
    assert!(here.iter().all(|one| one.is_fresh(now)), "the newer sign-in counts");
    assert_eq!(harness.sign_ins.devices_of(&bob).await.unwrap(), []);

    harness.wait(FOR_ONE_REQUEST + Duration::from_millis(1));
    assert_eq!(harness.dids(&visit, Some("req-1")).await, [ann.as_str()]);
}

/// Also if it was for one request, and while guesses use up what the account has.
async fn a_browser_is_known_for_thirty_days_after_a_sign_in(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let attempts = harness.attempts().await;
    let mut visit = harness.visit(None).await;
    let account = harness.accounts.find(&ann).await.unwrap();
    let home = Attempt {
        account: account.as_ref(),
        identifier: "",
        client: [192, 0, 2, 1].into(),
        browser: Some(&visit),
    };
    let admitted = attempts.admit(&home).await.unwrap();
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    attempts.succeeded_in(&admitted, &visit).await;

    let mut cookies = visit.to_set().unwrap().clone();
    for days in [0, 1, 28] {
        harness.wait(Duration::from_hours(days * 24) + Duration::from_mins(20));
        sweep::all(&harness.db, harness.clock.now(), SWEEPS).await.unwrap();
        let visit = harness.visit(Some(&cookies)).await;
        cookies = visit.to_set().unwrap().clone();
        assert!(harness.dids(&visit, Some("req-1")).await.is_empty(), "it is not signed in");
        while harness.attempt(&attempts, None, &ann).await.is_some() {}
        let known = harness.attempt(&attempts, Some(&visit), &ann).await.expect("an allowance of its own");
        assert_eq!(known.requester.rank, Rank::Known, "{days} days later");
        assert_ne!(harness.rank(&visit, &bob).await, Rank::Known, "to another account it is a stranger");
    }
    harness.wait(Duration::from_hours(2 * 24));
    let later = harness.visit(Some(&cookies)).await;
    assert_eq!(harness.rank(&later, &ann).await, Rank::Ordinary);
    harness.wait(KEEP_UNUSED * 8);
    sweep::all(&harness.db, harness.clock.now(), SWEEPS).await.unwrap();
    assert_ne!(harness.visit(later.to_set()).await.device, visit.device);
}

/// Otherwise the duration of a sign-in would reveal whether the account exists.
async fn a_password_for_an_unknown_account_takes_as_much_work(db: Db) {
    let harness = SignInHarness::new(db);
    harness.account("ann").await;
    // With a queue of zero, every password check is refused as busy.
    let clock = harness.clock.clock();
    let (accounts, passwords) = (harness.accounts.clone(), Passwords::new(1, 0));
    let full = SignIns::new(harness.db.clone(), clock, accounts, passwords, [7; 32].into());
    for identifier in ["ann.test", "eve.test", ""] {
        let found = full.recognise(identifier, &secret("wrong"), BY).await;
        assert!(matches!(found, Err(Error::Busy)), "{identifier}");
    }
}

async fn only_the_owners_own_password_counts(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    for identifier in ["ann.test", "@ann.test", "ANN@example.com", ann.as_str()] {
        let found = harness.sign_ins.recognise(identifier, &secret(PASSWORD), BY).await.unwrap();
        assert_eq!(found.did, ann, "{identifier}");
    }
    let app_passwords = AppPasswords::new(harness.db.clone(), Clock::of_process());
    // An app password opens sessions of apps, but never the pages.
    let (_, for_app) = app_passwords
        .create(&ann, "app", true, Actor::Genkan, &WaitingClient::patient())
        .await
        .unwrap()
        .unwrap();
    for (identifier, password) in [
        ("ann.test", "wrong"),
        ("ann.test", ""),
        ("ann.test", for_app.expose().as_str()),
        ("eve.test", PASSWORD),
        ("", PASSWORD),
        ("ann.test", &"x".repeat(600)),
    ] {
        let found = harness.sign_ins.recognise(identifier, &secret(password), BY).await;
        assert!(matches!(found, Err(Error::WrongPassword)), "{identifier} {password}");
    }
    harness.take_down(&ann).await;
    assert!(matches!(
        harness.sign_ins.recognise("ann.test", &secret(PASSWORD), BY).await,
        Err(Error::TakenDown)
    ));
}

async fn a_sign_out_is_of_one_account_and_one_browser(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut desk = harness.visit(None).await;
    let mut phone = harness.visit(None).await;
    for did in [&ann, &bob] {
        harness.sign_in(&mut desk, did, Persistence::Remembered).await;
    }
    harness.sign_in(&mut phone, &ann, Persistence::Remembered).await;
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap().len(), 2);

    // A sign-out changes the cookie too, so that a copy of the old one is worth nothing.
    let before = desk.to_set().unwrap().session_hash();
    harness.sign_ins.sign_out(&mut desk, &ann).await.unwrap();
    assert_ne!(desk.to_set().unwrap().session_hash(), before);
    assert_eq!(harness.dids(&desk, None).await, [bob.as_str()]);
    assert_eq!(harness.dids(&phone, None).await, [ann.as_str()]);

    assert!(!harness.sign_ins.sign_out_at(&phone.device, &bob).await.unwrap());
    assert!(harness.sign_ins.sign_out_at(&phone.device, &ann).await.unwrap());
    assert_eq!(harness.dids(&phone, None).await, Vec::<String>::new());
}

async fn everything_of_an_account_ends_at_once(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let mut tx = harness.db.begin().await.unwrap();
    harness.sign_ins.end_all(&mut tx, &ann).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(harness.dids(&visit, Some("req-1")).await, [bob.as_str()]);

    harness.take_down(&bob).await;
    assert_eq!(harness.dids(&visit, None).await, Vec::<String>::new(), "taken down");
}

async fn expired_rows_are_swept(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let passing = harness.visit(None).await;
    let mut kept = harness.visit(None).await;
    harness.sign_in(&mut kept, &ann, Persistence::Remembered).await;
    harness.sign_in(&mut kept, &ann, Persistence::OneRequest("req-1")).await;
    let now = || harness.clock.now();
    assert_eq!(sweep::all(&harness.db, now(), SWEEPS).await.unwrap(), 0);

    harness.wait(KEEP_UNUSED + Duration::from_millis(1));
    // A clock that was ahead has put them off.
    sqlx::query("UPDATE devices SET sweep_at = $1")
        .bind(now().plus(KEEP * 2).as_millis())
        .execute(harness.db.writer())
        .await
        .unwrap();
    assert_eq!(
        sweep::all(&harness.db, now(), SWEEPS).await.unwrap(),
        2,
        "the request's sign-in, the browser without one"
    );
    assert_ne!(harness.visit(passing.to_set()).await.device, passing.device);
    let kept = harness.visit(kept.to_set()).await;
    assert_eq!(harness.dids(&kept, None).await, [ann.as_str()]);

    harness.wait(KEEP + Duration::from_millis(1));
    assert_eq!(sweep::all(&harness.db, now(), SWEEPS).await.unwrap(), 2);
    assert_ne!(harness.visit(kept.to_set()).await.device, kept.device);
}

async fn a_password_that_was_changed_meanwhile_opens_nothing(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    // The password is checked before the change, and the sign-in is stored after it.
    let recognised = harness.sign_ins.recognise(ann.as_str(), &secret(PASSWORD), BY).await.unwrap();
    let mut tx = harness.db.begin().await.unwrap();
    harness.accounts.set_password_hash(&mut tx, &ann, "another").await.unwrap();
    harness.sign_ins.end_all(&mut tx, &ann).await.unwrap();
    tx.commit().await.unwrap();
    let late = harness.sign_ins.sign_in(&mut visit, &recognised, Persistence::Remembered).await;
    assert!(matches!(late, Err(Error::WrongPassword)), "{late:?}");
    assert!(harness.dids(&visit, None).await.is_empty());
}
