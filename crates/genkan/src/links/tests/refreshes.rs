use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genkan_testing::{Gate, Trouble};

use super::harness::{LinkHarness, SCOPE, until};
use crate::db::{Db, on_each_database};
use crate::links::service::DAY;
use crate::links::sql::leases::{self, NewTokens};
use crate::links::*;

on_each_database!(
    a_due_token_is_refreshed_before_it_is_used,
    c15_a_token_without_a_known_end_is_refreshed_when_it_is_refused,
    c09_200_calls_over_3_replicas_make_one_refresh,
    c09_a_holder_that_dies_before_sending_loses_nothing,
    c09_a_holder_that_dies_while_sending_makes_one_ambiguous_retry,
    c10_a_server_that_is_away_ends_nothing,
    trouble_of_every_other_kind_keeps_the_session,
    one_session_in_trouble_keeps_no_other_of_its_server_waiting,
    a_database_that_is_away_is_not_the_servers_trouble,
    an_idle_session_is_kept_alive,
    a_refresh_goes_on_without_its_caller,
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
