//! Refreshes after which a session ends, and those that look like it.

use std::sync::Arc;
use std::time::Duration;

use genkan_testing::{FakePds, Gate, Trouble};
use serde_json::json;

use super::harness::{LinkHarness, SCOPE, key, know, reloads, until};
use crate::base::Timestamp;
use crate::db::feed::Change;
use crate::db::{Db, on_each_database};
use crate::links::end::EndCondition;
use crate::links::error::Reason;
use crate::links::sql::leases::{self, NewTokens};
use crate::links::*;

on_each_database!(
    c11_invalid_grant_ends_the_session,
    a_lost_answer_ends_the_session_by_its_name,
    c13_an_account_that_moved_behind_the_same_server_is_followed,
    c13_an_account_that_moved_to_another_server_has_to_sign_in_again,
    another_subject_in_a_refresh_ends_the_session,
    c19_a_key_that_is_gone_ends_exactly_its_sessions,
    a_replica_whose_keys_are_behind_ends_no_session,
    a_refusal_to_a_worker_that_lost_its_lease_ends_nothing,
    a_refusal_that_comes_after_the_lease_was_lost_ends_nothing,
    a_refused_session_has_ended,
);

const HOUR: Duration = Duration::from_hours(1);

async fn c11_invalid_grant_ends_the_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let heard: Arc<std::sync::Mutex<Vec<LinkId>>> = Arc::default();
    let sink = Arc::clone(&heard);
    harness.links.inner.feed.subscribe(Change::Link, move |link| sink.lock().unwrap().push(link.into()));
    harness.pds.end_sessions();
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("grant_gone"));
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("grant_gone"));
    assert!(harness.links.recall(&link).is_none());
    assert_eq!(*heard.lock().unwrap(), std::slice::from_ref(&link));
    let asked = harness.pds.asked("/oauth/token");
    let _ = harness.another().credential(&link).await;
    assert_eq!(harness.pds.asked("/oauth/token"), asked, "nobody asks again");
}

async fn a_lost_answer_ends_the_session_by_its_name(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    // The nonce of the sign-in is still valid. So the first request is accepted, and its answer is
    // lost.
    harness.pds.trouble_times("/oauth/token", Trouble::CutAfter, 1);
    assert!(matches!(harness.links.renew(&link, 1).await, Err(UseError::Unavailable { .. })));
    assert_eq!(harness.pds.sessions()[0].refreshes, 1);
    assert_eq!(harness.credential(&link).await.unwrap().version, 1, "the old token is still good");
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("answer_lost"));
    assert_eq!(harness.pds.sessions()[0].ended, Some("replayed"));
}

async fn c13_an_account_that_moved_behind_the_same_server_is_followed(db: Db) {
    // The old PDS and the new one have the same authorization server.
    let old = FakePds::start().await;
    let new = FakePds::start_behind(&old).await;
    let harness = LinkHarness::start_with(db, "https://genkan.example.com", &[&old, &new]).await;
    know(&harness.links, &old);
    let bob = old.make_account(&harness.directory, "bob.example.com");
    harness.names.publish("bob.example.com", &[bob.as_str()]);
    let departure = harness.begin("bob.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    let link = harness.finish(&departure, callback).await.unwrap().link;
    assert_eq!(harness.credential(&link).await.unwrap().pds.as_str(), old.url());
    new.take_over(&harness.directory, &bob);
    harness.pass(HOUR);
    let moved = harness.credential(&link).await.unwrap();
    assert_eq!((moved.pds.to_string(), harness.call(&moved).await), (new.url(), 200));
}

async fn c13_an_account_that_moved_to_another_server_has_to_sign_in_again(db: Db) {
    let new = FakePds::start().await;
    let harness = LinkHarness::start_with(db, "https://genkan.example.com", &[&new]).await;
    let link = harness.link().await;
    new.take_over(&harness.directory, &harness.ann);
    harness.pds.forget();
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("moved"));
    assert_eq!(harness.pds.asked("/oauth/token"), 0, "the old server gets no refresh token");
    assert_eq!(new.asked("/oauth/token"), 0);
    harness.links.tell_servers().await.unwrap();
    until(|| harness.pds.sessions()[0].ended == Some("revoked")).await;
}

async fn another_subject_in_a_refresh_ends_the_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pds.set(|quirks| {
        drop(quirks.token_answer.insert("sub".to_owned(), json!("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")));
    });
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("other_subject"));
    assert_eq!(harness.pds.sessions()[0].ended, Some("revoked"));
}

async fn c19_a_key_that_is_gone_ends_exactly_its_sessions(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    assert!(harness.links.is_client_key_in_use("one").await.unwrap());
    assert!(!harness.links.is_client_key_in_use("two").await.unwrap());
    let other = |id: &str| ClientKey {
        id: id.to_owned(),
        private: vault::fresh_key(),
        usable_from: Timestamp::from_millis(0),
    };
    let two = other("two");
    let keys = two.clone();
    // A replica after the first key was retired. It has only the second one.
    let later = harness.another_with(Arc::new(move || vec![keys.clone()]));
    know(&later, &harness.pds);
    let login = NewLogin {
        identifier: "ann.example.com",
        scope: SCOPE,
        request: None,
        back: "/account",
        device: super::harness::DEVICE,
        network: [192, 0, 2, 7].into(),
        browser: None,
    };
    let departure = later.begin(login).await.unwrap();
    let callback = harness.visit(&departure).await;
    let arrived =
        later.finish(callback, Some(departure.browser.expose()), Some(super::harness::DEVICE)).await.unwrap();
    harness.pass(HOUR);
    assert_eq!(later.credential(&link).await.unwrap_err(), UseError::Gone("key_gone"));
    assert_eq!(later.credential(&arrived.link).await.unwrap().version, 2);
    assert!(later.is_client_key_in_use("two").await.unwrap());
    assert!(!later.is_client_key_in_use("one").await.unwrap());
}

async fn a_replica_whose_keys_are_behind_ends_no_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    // Its ring does not have the key yet, and the database does not answer.
    let behind = harness.another_reading(Arc::new(Vec::new), reloads(false));
    assert!(matches!(behind.credential(&link).await, Err(UseError::Unavailable { .. })));
    assert_eq!(harness.reason(&link).await, None);
    // Once it reads its keys, it refreshes.
    let ring = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (read, reload) = (Arc::clone(&ring), Arc::clone(&ring));
    let keys: ClientKeys = Arc::new(move || read.lock().unwrap().clone());
    let late = harness.another_reading(
        keys,
        Arc::new(move || {
            *reload.lock().unwrap() = vec![key()];
            Box::pin(async { true })
        }),
    );
    harness.pass(Duration::from_mins(2));
    assert_eq!(late.credential(&link).await.unwrap().version, 2);
}

/// The lease of a slow worker ran out, and another one refreshed with the same token. The slow one
/// is refused afterwards.
async fn a_refusal_to_a_worker_that_lost_its_lease_ends_nothing(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let now = harness.now();
    let until = now.plus(Duration::from_secs(45));
    assert!(leases::take(&harness.db, &link, 1, "slow", now, until).await.unwrap());
    let taken = until.plus(Duration::from_secs(45));
    assert!(leases::take(&harness.db, &link, 1, "other", until, taken).await.unwrap());
    let refused = |holder, version| {
        let condition = EndCondition::Lease { version, holder };
        harness.links.end_when(&link, Reason::GrantGone, condition)
    };
    assert!(!refused("slow", 1).await.unwrap(), "the other worker will tell");
    let new = NewTokens { sealed: "new", scope: SCOPE, issued_at: now, expires_at: None };
    assert!(leases::rotate(&harness.db, &link, 1, new).await.unwrap());
    for (holder, version) in [("slow", 1), ("other", 1), ("slow", 2)] {
        assert!(!refused(holder, version).await.unwrap(), "{holder} {version}");
    }
    assert_eq!(harness.reason(&link).await, None);
    assert!(leases::take(&harness.db, &link, 2, "last", taken, taken.plus(HOUR)).await.unwrap());
    assert!(refused("last", 2).await.unwrap());
    assert_eq!(harness.reason(&link).await, Some("grant_gone"));
}

/// As above, with the server's own refusal: another worker takes the lease over during the request.
async fn a_refusal_that_comes_after_the_lease_was_lost_ends_nothing(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let gate = Gate::closed();
    harness.pds.forget();
    harness.pds.trouble("/oauth/token", Trouble::Held(gate.clone()));
    harness.pass(HOUR);
    let takeover = async {
        until(|| harness.pds.asked("/oauth/token") == 1).await;
        harness.pds.end_sessions();
        let later = harness.now().plus(HOUR);
        assert!(leases::take(&harness.db, &link, 1, "other", later, later.plus(HOUR)).await.unwrap());
        gate.open();
    };
    let (refused, ()) = tokio::join!(harness.credential(&link), takeover);
    assert!(matches!(refused, Err(UseError::Unavailable { .. })), "{refused:?}");
    assert_eq!(harness.reason(&link).await, None, "the worker with the lease will tell");
}

async fn a_refused_session_has_ended(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pds.forget_access_tokens();
    let old = harness.credential(&link).await.unwrap();
    assert_eq!(harness.call(&old).await, 401);
    let renewed = harness.links.renew(&link, old.version).await.unwrap();
    harness.pds.forget_access_tokens();
    assert_eq!(harness.call(&renewed).await, 401);
    // A late refusal of the version before says nothing about the one that is used now.
    assert!(matches!(harness.links.refused(&link, old.version).await, UseError::Unavailable { .. }));
    assert_eq!(harness.reason(&link).await, None);
    assert_eq!(harness.links.refused(&link, renewed.version).await, UseError::Gone("token_refused"));
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("token_refused"));
}
