use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genkan_testing::network::eventually;
use genkan_testing::{FakePds, Gate, Trouble};
use serde_json::json;

use super::harness::{LinkHarness, SCOPE, key, know, reloads};
use crate::base::Timestamp;
use crate::base::fetch::Pool;
use crate::db::feed::Change;
use crate::db::{Db, on_each_database};
use crate::links::end::EndCondition;
use crate::links::error::Reason;
use crate::links::service::DAY;
use crate::links::sql::leases::{self, NewTokens};
use crate::links::sql::links;
use crate::links::*;

on_each_database!(
    a_due_token_is_refreshed_before_it_is_used,
    c15_a_token_without_a_known_end_is_refreshed_when_it_is_refused,
    c09_200_calls_over_3_replicas_make_one_refresh,
    c09_a_holder_that_dies_before_sending_loses_nothing,
    c09_a_holder_that_dies_while_sending_makes_one_ambiguous_retry,
    c10_a_server_that_is_away_ends_nothing,
    c11_invalid_grant_ends_the_session,
    a_lost_answer_ends_the_session_by_its_name,
    trouble_of_every_other_kind_keeps_the_session,
    one_session_in_trouble_keeps_no_other_of_its_server_waiting,
    a_database_that_is_away_is_not_the_servers_trouble,
    c13_an_account_that_moved_behind_the_same_server_is_followed,
    c13_an_account_that_moved_to_another_server_has_to_sign_in_again,
    another_subject_in_a_refresh_ends_the_session,
    c19_a_key_that_is_gone_ends_exactly_its_sessions,
    a_replica_whose_keys_are_behind_ends_no_session,
    a_refusal_to_a_worker_that_lost_its_lease_ends_nothing,
    a_refusal_that_comes_after_the_lease_was_lost_ends_nothing,
    a_refused_session_has_ended,
    an_idle_session_is_kept_alive,
    a_refresh_goes_on_without_its_caller,
    a_refresh_that_never_left_is_no_trouble_of_the_server,
    a_revocation_that_never_left_is_no_attempt,
    a_sign_in_waits_for_no_place_of_other_calls,
    older_tokens_never_replace_newer_ones,
    c06_a_nonce_in_every_answer_costs_no_second_try
);

const HOUR: Duration = Duration::from_hours(1);

async fn a_due_token_is_refreshed_before_it_is_used(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    // Tokens live for an hour and are refreshed in the last minutes of it, with a spread by
    // session.
    harness.pass(Duration::from_mins(50));
    assert_eq!(harness.credential(&link).await.unwrap().version, 1);
    harness.pass(Duration::from_mins(6));
    let fresh = harness.credential(&link).await.unwrap();
    assert_eq!((fresh.version, harness.pds.sessions()[0].refreshes), (2, 1));
    assert_eq!(harness.call(&fresh).await, 200);
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap().version, 3);
}

async fn c15_a_token_without_a_known_end_is_refreshed_when_it_is_refused(db: Db) {
    let harness = LinkHarness::start(db).await;
    harness.pds.set(|quirks| quirks.expires_in = None);
    let link = harness.link().await;
    harness.pass(HOUR);
    let old = harness.credential(&link).await.unwrap();
    // Without `expires_in`, only the PDS can tell that the token has expired.
    assert_eq!((old.version, harness.call(&old).await), (1, 401));
    let new = harness.links.renew(&link, old.version).await.unwrap();
    assert_eq!((new.version, harness.call(&new).await), (2, 200));
    // Another caller saw the same refusal of the old token.
    assert_eq!(harness.links.renew(&link, old.version).await.unwrap().version, 2);
    assert_eq!(harness.pds.sessions()[0].refreshes, 1);
}

async fn c09_200_calls_over_3_replicas_make_one_refresh(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (link, others) = (harness.link().await, [harness.link().await, harness.link().await]);
    // The refresh waits at the server until every call has come as far as it can. Otherwise the
    // calls of a busy machine would come after it, and would have nothing to share.
    let gate = Gate::closed();
    harness.pds.forget();
    harness.pds.trouble("/oauth/token", Trouble::Held(gate.clone()));
    harness.pass(HOUR);
    let replicas = [harness.links.clone(), harness.another(), harness.another()];
    let begun = Arc::new(AtomicUsize::new(0));
    let call = |number: usize| {
        let (links, link, begun) = (replicas[number % 3].clone(), link.clone(), Arc::clone(&begun));
        tokio::spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            links.credential(&link).await.map(|credential| credential.version)
        })
    };
    let mut calls = vec![call(0)];
    until(|| harness.pds.asked("/oauth/token") == 1).await;
    calls.extend((1..200).map(call));
    until(|| begun.load(Ordering::SeqCst) == 200).await;
    // Refreshes of other sessions begin after these calls. When they are at the server, a second
    // refresh of the first session would be there, too.
    let later = [0, 1].map(|number| {
        let (links, other) = (replicas[number + 1].clone(), others[number].clone());
        tokio::spawn(async move { links.credential(&other).await.map(|credential| credential.version) })
    });
    until(|| harness.pds.asked("/oauth/token") >= 3).await;
    gate.open();
    calls.extend(later);
    for call in futures_util::future::join_all(calls).await {
        assert_eq!(call.unwrap(), Ok(2));
    }
    let session = &harness.pds.sessions()[0];
    assert_eq!((session.refreshes, session.ended), (1, None));
}

/// Starts a refresh on a runtime of its own, which stands for a process. A shutdown of the runtime
/// ends everything at once.
fn begin_and_die(links: Links, link: &LinkId) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let link = link.clone();
    runtime.spawn(async move { drop(links.credential(&link).await) });
    runtime
}

async fn until(done: impl Fn() -> bool) {
    eventually("it is done", async || done()).await;
}

async fn c09_a_holder_that_dies_before_sending_loses_nothing(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    // The process dies while it holds the lease.
    harness.directory.trouble("document", Trouble::Silent);
    let asked = harness.directory.asked("document");
    let dying = begin_and_die(harness.another(), &link);
    until(|| harness.directory.asked("document") > asked).await;
    dying.shutdown_background();
    harness.directory.mend();
    // One second more than the lease of a refresh.
    harness.pass(Duration::from_secs(46));
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
    assert_eq!((harness.pds.sessions()[0].refreshes, harness.pds.sessions()[0].ended), (1, None));
}

async fn c09_a_holder_that_dies_while_sending_makes_one_ambiguous_retry(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    // The request was sent, and the server never reads it.
    harness.pds.trouble("/oauth/token", Trouble::Silent);
    let asked = harness.pds.asked("/oauth/token");
    let dying = begin_and_die(harness.another(), &link);
    until(|| harness.pds.asked("/oauth/token") > asked).await;
    dying.shutdown_background();
    harness.pds.mend();
    let asked = harness.pds.asked("/oauth/token");
    harness.pass(Duration::from_secs(46));
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
    // One retry, which may take a second request for the nonce.
    assert!(harness.pds.asked("/oauth/token") <= asked + 2);
    assert_eq!(harness.pds.sessions()[0].ended, None);
}

async fn c10_a_server_that_is_away_ends_nothing(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pds.trouble("/oauth/token", Trouble::Status(503));
    harness.pass(Duration::from_mins(56));
    let old = harness.credential(&link).await.unwrap();
    assert_eq!((old.version, harness.call(&old).await), (1, 200), "the old token, while it is good");
    for _ in 0..10 {
        harness.pass(Duration::from_mins(1));
        let _ = harness.credential(&link).await;
    }
    assert!(matches!(harness.credential(&link).await, Err(UseError::Unavailable { .. })));
    harness.pds.mend();
    harness.pass(Duration::from_mins(2));
    let fresh = harness.credential(&link).await.unwrap();
    assert_eq!((fresh.version, harness.call(&fresh).await), (2, 200));
}

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

async fn trouble_of_every_other_kind_keeps_the_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    // None of these says that the session has ended.
    let mut count = 0;
    for trouble in [
        Trouble::Refusal(400, "invalid_client"),
        Trouble::Refusal(401, "invalid_client"),
        Trouble::Refusal(400, "invalid_client_metadata"),
        Trouble::Refusal(400, "invalid_request"),
        Trouble::Refusal(403, "access_denied"),
        Trouble::Refusal(418, "teapot"),
        Trouble::Status(429),
        Trouble::Status(500),
        Trouble::CutBefore,
    ] {
        harness.pds.trouble("/oauth/token", trouble.clone());
        let error = harness.credential(&link).await.unwrap_err();
        assert!(matches!(error, UseError::Unavailable { .. }), "{trouble:?}: {error}");
        let asked = harness.pds.asked("/oauth/token");
        let _ = harness.credential(&link).await;
        assert_eq!(harness.pds.asked("/oauth/token"), asked, "{trouble:?}: it is left alone for a while");
        harness.pds.mend();
        harness.pass(Duration::from_mins(3));
        count += 1;
    }
    for (name, trouble) in [
        ("/.well-known/oauth-authorization-server", Trouble::Status(500)),
        ("/.well-known/oauth-protected-resource", Trouble::Garbage),
    ] {
        harness.pds.trouble(name, trouble);
        assert!(matches!(harness.credential(&link).await, Err(UseError::Unavailable { .. })));
        harness.pds.mend();
        harness.pass(Duration::from_mins(3));
    }
    // A server that never accepts a nonce must not be called in a loop.
    harness.pds.set(|quirks| quirks.nonce_never_good = true);
    assert!(matches!(harness.credential(&link).await, Err(UseError::Unavailable { .. })));
    harness.pds.set(|quirks| quirks.nonce_never_good = false);
    harness.pass(Duration::from_mins(3));
    assert_eq!(harness.credential(&link).await.unwrap().version, 2, "after {count} kinds of trouble");
}

async fn one_session_in_trouble_keeps_no_other_of_its_server_waiting(db: Db) {
    let harness = LinkHarness::start(db).await;
    let anns = harness.link().await;
    let bob = harness.pds.make_account(&harness.directory, "bob.example.com");
    harness.names.publish("bob.example.com", &[bob.as_str()]);
    let departure = harness.begin("bob.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    let bobs = harness.finish(&departure, callback).await.unwrap().link;
    let mut version = 1;
    for (trouble, is_the_servers) in [
        // Here the directory fails, which concerns only Bob's account.
        (None, false),
        (Some(Trouble::Refusal(400, "invalid_request")), false),
        (Some(Trouble::Refusal(400, "invalid_client_metadata")), false),
        (Some(Trouble::Refusal(403, "access_denied")), false),
        (Some(Trouble::Status(503)), true),
        // Perhaps Bob's account alone is over a limit.
        (Some(Trouble::Status(429)), false),
        (Some(Trouble::CutBefore), true),
    ] {
        harness.pass(HOUR);
        match &trouble {
            Some(trouble) => harness.pds.trouble("/oauth/token", trouble.clone()),
            None => harness.directory.trouble("document", Trouble::Status(500)),
        }
        let error = harness.credential(&bobs).await.unwrap_err();
        assert!(matches!(error, UseError::Unavailable { .. }), "{trouble:?}: {error}");
        harness.pds.mend();
        harness.directory.mend();
        let ann = harness.credential(&anns).await;
        if is_the_servers {
            assert!(matches!(ann, Err(UseError::Unavailable { .. })), "{trouble:?}");
        } else {
            version += 1;
            assert_eq!(ann.map(|fresh| fresh.version), Ok(version), "{trouble:?}");
        }
        let asked = harness.pds.asked("/oauth/token");
        assert!(harness.credential(&bobs).await.is_err(), "{trouble:?}");
        assert_eq!(harness.pds.asked("/oauth/token"), asked, "{trouble:?}: it is left alone for a while");
    }
}

async fn a_database_that_is_away_is_not_the_servers_trouble(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (link, other) = (harness.link().await, harness.link().await);
    harness.pass(HOUR);
    // The table is renamed while Genkan looks the authorization server up.
    let rename = async |from: &str, to: &str| {
        let mut tx = harness.db.begin().await.unwrap();
        let renaming = format!("ALTER TABLE {from} RENAME TO {to}");
        sqlx::query(sqlx::AssertSqlSafe(renaming)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    let asked = harness.directory.asked("document");
    harness.directory.trouble("document", Trouble::Slow(Duration::from_millis(400)));
    let (error, ()) = tokio::join!(harness.credential(&link), async {
        until(|| harness.directory.asked("document") > asked).await;
        rename("links", "links_renamed").await;
    });
    assert!(matches!(error, Err(UseError::Storage | UseError::Broken)), "{error:?}");
    rename("links_renamed", "links").await;
    harness.directory.mend();
    assert_eq!(harness.credential(&other).await.unwrap().version, 2, "nobody is kept waiting");
    // The session is usable when its lease has expired.
    harness.pass(Duration::from_secs(46));
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
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

async fn an_idle_session_is_kept_alive(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    // Servers end sessions that were not used for a while, so idle ones are refreshed every 30
    // days.
    harness.pass(DAY * 29);
    assert_eq!(harness.links.keep_alive().await.unwrap(), 0);
    harness.pass(DAY * 2);
    assert_eq!(harness.links.keep_alive().await.unwrap(), 1);
    assert_eq!(harness.links.keep_alive().await.unwrap(), 0);
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
}

async fn a_refresh_goes_on_without_its_caller(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let gate = Gate::closed();
    harness.pds.forget();
    harness.pds.trouble("/oauth/token", Trouble::Held(gate.clone()));
    harness.pass(HOUR);
    tokio::select! {
        answer = harness.credential(&link) => panic!("the server has not answered: {answer:?}"),
        () = until(|| harness.pds.asked("/oauth/token") == 1) => {}
    }
    gate.open();
    until(|| harness.pds.sessions()[0].refreshes == 1).await;
    assert_eq!(
        (harness.credential(&link).await.unwrap().version, harness.pds.sessions()[0].refreshes),
        (2, 1)
    );
}

async fn c06_a_nonce_in_every_answer_costs_no_second_try(db: Db) {
    let harness = LinkHarness::start(db).await;
    harness.pds.set(|quirks| quirks.nonce_each = true);
    let link = harness.link().await;
    let mut credential = harness.links.renew(&link, 1).await.unwrap();
    assert_eq!(harness.call(&credential).await, 200);
    harness.pds.forget();
    for count in 1..=5 {
        credential = harness.links.renew(&link, credential.version).await.unwrap();
        assert_eq!(harness.call(&credential).await, 200);
        assert_eq!(harness.pds.asked("/oauth/token"), count);
        assert_eq!(harness.pds.asked("com.atproto.repo.listMissingBlobs"), count);
    }
}

/// As from a holder whose answer came after the lease had gone to another.
async fn older_tokens_never_replace_newer_ones(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
    let late = NewTokens { sealed: "late", scope: SCOPE, issued_at: harness.now(), expires_at: None };
    assert!(!leases::rotate(&harness.db, &link, 1, late).await.unwrap());
    assert_eq!(harness.another().credential(&link).await.unwrap().version, 2);
}

/// Takes every place for calls to the server in this pool, until the gate opens.
async fn take_places(harness: &LinkHarness, pool: Pool, number: usize) -> Gate {
    let gate = Gate::closed();
    harness.pds.trouble("/hang", Trouble::Held(gate.clone()));
    let guarded = &harness.links.inner.discovery.guarded;
    let url = format!("{}/hang", harness.pds.url());
    guarded.take_places(pool, number, &url, || harness.pds.asked("/hang")).await;
    gate
}

async fn a_refresh_that_never_left_is_no_trouble_of_the_server(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pass(HOUR);
    let gate = take_places(&harness, Pool::Refreshes, 32).await;
    let refused = harness.credential(&link).await.unwrap_err();
    let UseError::Unavailable { retry_after } = refused else { panic!("{refused}") };
    assert!(retry_after <= Duration::from_secs(3), "{retry_after:?}");
    let row = links::find(&harness.db, &link).await.unwrap().unwrap();
    assert_eq!(row.unanswered, 0, "the token is not in doubt");
    let backoff = &harness.links.inner.backoff.servers;
    assert_eq!(backoff.pause(&row.server.issuer, harness.now()), None, "the server is healthy");
    // Strangers and sign-ins have places of their own, and other sessions are served at once.
    harness.arrive().await;
    gate.open();
    harness.pass(retry_after);
    eventually("it is refreshed", async || {
        harness.pass(Duration::from_secs(3));
        harness.credential(&link).await.is_ok_and(|credential| credential.version == 2)
    })
    .await;
}

async fn a_sign_in_waits_for_no_place_of_other_calls(db: Db) {
    let harness = LinkHarness::start(db).await;
    let others =
        [take_places(&harness, Pool::Other, 8).await, take_places(&harness, Pool::Refreshes, 32).await];
    harness.arrive().await;
    for gate in others {
        gate.open();
    }
}

async fn a_revocation_that_never_left_is_no_attempt(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let gate = take_places(&harness, Pool::Revocations, 4).await;
    harness.links.end(&link, Reason::GrantEnded).await.unwrap();
    let attempts = async || links::find(&harness.db, &link).await.unwrap().unwrap().revoke_attempts;
    // The attempt is counted when it begins, and taken back when it did not get its turn.
    eventually("it is tried", async || attempts().await == 1).await;
    eventually("it is taken back", async || attempts().await == 0).await;
    assert!(harness.pds.sessions()[0].ended.is_none());
    gate.open();
    harness.pass(Duration::from_mins(2));
    harness.links.tell_servers().await.unwrap();
    assert!(harness.pds.sessions()[0].ended.is_some());
}
