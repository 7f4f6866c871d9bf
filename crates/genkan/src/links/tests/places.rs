//! Calls to external servers that get no place.

use std::time::Duration;

use genkan_testing::network::eventually;
use genkan_testing::{Gate, Trouble};

use super::harness::LinkHarness;
use crate::base::fetch::Pool;
use crate::db::{Db, on_each_database};
use crate::links::error::Reason;
use crate::links::sql::links;
use crate::links::*;

on_each_database!(
    a_refresh_that_never_left_is_no_trouble_of_the_server,
    a_sign_in_waits_for_no_place_of_other_calls,
    a_revocation_that_never_left_is_no_attempt,
    a_token_request_that_never_left_is_no_trouble_of_the_server,
);

const HOUR: Duration = Duration::from_hours(1);
/// The last request before the token's.
const METADATA: &str = "/.well-known/oauth-authorization-server";
/// The calls to one server at the same time, of those that refresh tokens.
const PLACES: usize = 32;

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

async fn a_token_request_that_never_left_is_no_trouble_of_the_server(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (link, pds) = (harness.link().await, &harness.pds);
    harness.pass(HOUR);
    let (metadata, others) = (Gate::closed(), Gate::closed());
    pds.trouble(METADATA, Trouble::Held(metadata.clone()));
    pds.trouble("/hang", Trouble::Held(others.clone()));
    let (before, hang) = (pds.asked(METADATA), format!("{}/hang", pds.url()));
    let guarded = &harness.links.inner.discovery.guarded;
    let taking = async {
        eventually("the server is asked for its metadata", async || pds.asked(METADATA) > before).await;
        // The last of these waits for the place of that request, and the token's waits behind it.
        guarded.take_places(Pool::Refreshes, PLACES, &hang, || pds.asked("/hang")).await;
    };
    let answering = async {
        eventually("all other places are taken", async || pds.asked("/hang") == PLACES - 1).await;
        metadata.open();
    };
    let (refused, (), ()) = tokio::join!(harness.credential(&link), taking, answering);
    let refused = refused.unwrap_err();
    let UseError::Unavailable { retry_after } = refused else { panic!("{refused}") };
    let row = links::find(&harness.db, &link).await.unwrap().unwrap();
    assert_eq!((row.version, row.unanswered), (1, 0), "the token is not in doubt");
    let backoff = &harness.links.inner.backoff.servers;
    assert_eq!(backoff.pause(&row.server.issuer, harness.now()), None, "the server is healthy");
    others.open();
    harness.pass(retry_after);
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
}
