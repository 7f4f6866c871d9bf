//! Accounts that rest, and accounts that were taken down.

use std::time::Duration;

use genkan_testing::network::{App, claims_of, within};
use genkan_testing::{Plan, TestNetwork, Trouble, User};
use http::Method;
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    a_deletion_that_broke_off_is_finished,
    only_a_full_session_has_an_account_deleted_later,
    a_deactivated_account_can_read_and_be_reactivated,
    a_deactivation_ends_what_apps_were_allowed,
    a_taken_down_account_may_only_leave,
    a_host_that_was_away_is_told_of_a_takedown_and_its_end,
    a_takedown_survives_a_kill_before_the_host_is_told,
    a_takedown_survives_a_kill_after_the_host_was_told,
    a_restoration_goes_on_after_a_kill_when_the_host_was_told,
    a_takedown_by_command_is_told_by_a_running_genkan,
    owners_read_their_own_data_when_others_may_not,
);

const GET: &str = "com.atproto.server.getSession";

async fn take_down(net: &TestNetwork, user: &User, applied: bool) {
    let input = json!({
        "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": user.did },
        "takedown": { "applied": applied },
    });
    let answer = net.operator().procedure("com.atproto.admin.updateSubjectStatus", &input).await.ok();
    // Clients that check answers take no `null` for the reference.
    assert_eq!(answer.json()["takedown"], json!({ "applied": applied }));
}

/// Also after the owner is back: apps have to ask again.
async fn a_deactivation_ends_what_apps_were_allowed(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, "atproto transition:generic").await;
    app.refresh().await.ok();
    let own = net.client_of(&alice);
    own.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
    own.call("com.atproto.server.activateAccount").await.ok();
    assert_eq!(app.refresh().await.summary(), "400 invalid_grant");
}

async fn a_deactivated_account_can_read_and_be_reactivated(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let own = net.client_of(&alice);
    own.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
    assert!(net.host(0).account(&alice.did).unwrap().deactivated);

    let opened = net.sign_in(&alice.handle, &alice.password).await.ok();
    for answer in [opened, net.refresh(&alice.refresh).await.ok(), own.query(GET, &[]).await.ok()] {
        let body = answer.json();
        assert_eq!((&body["active"], &body["status"]), (&json!(false), &json!("deactivated")));
    }
    let post = json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "record": {} });
    let refused = own.procedure("com.atproto.repo.createRecord", &post).await;
    assert_eq!(refused.summary(), "401 AccountDeactivated");
    let read = [("did", alice.did.as_str())];
    assert_eq!(net.visitor().query("com.atproto.sync.getRepo", &read).await.summary(), "400 RepoDeactivated");

    own.call("com.atproto.server.activateAccount").await.ok();
    assert!(!net.host(0).account(&alice.did).unwrap().deactivated);
    let body = own.query(GET, &[]).await.ok().json();
    assert_eq!((&body["active"], &body["status"]), (&json!(true), &Value::Null));
    own.procedure("com.atproto.repo.createRecord", &post).await.ok();
}

async fn a_taken_down_account_may_only_leave(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).query(GET, &[]).await.ok();
    take_down(&net, &alice, true).await;
    assert!(net.host(0).account(&alice.did).unwrap().taken_down);

    assert_eq!(net.sign_in(&alice.handle, &alice.password).await.summary(), "401 AccountTakedown");
    // A wrong password must not reveal that the account is taken down.
    let wrong = net.sign_in(&alice.handle, "not her password").await;
    assert_eq!(wrong.summary(), "401 AuthenticationRequired");
    // The takedown has ended her sessions.
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "401 AccountTakedown");
    assert_eq!(net.client_of(&alice).query(GET, &[]).await.summary(), "400 ExpiredToken");

    let input = json!({ "identifier": alice.handle, "password": alice.password, "allowTakendown": true });
    let opened = net.visitor().procedure("com.atproto.server.createSession", &input).await.ok();
    assert_eq!((&opened.json()["active"], &opened.json()["status"]), (&json!(false), &json!("takendown")));
    let leaving = alice.with_session(&opened);
    // The session's scope allows little more than taking the data away.
    assert_eq!(claims_of(&leaving.access)["scope"], "com.atproto.takendown");
    assert_eq!(net.client_of(&leaving).query(GET, &[]).await.summary(), "400 InvalidToken");
    assert_eq!(net.refresh(&leaving.refresh).await.summary(), "401 AccountTakedown");
    let own = net.client_of(&leaving);
    own.query("com.atproto.sync.getRepo", &[("did", alice.did.as_str())]).await.ok();
    own.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();

    take_down(&net, &alice, false).await;
    net.sign_in(&alice.handle, &alice.password).await.ok();
    // The sessions that the takedown ended do not come back with the account.
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "400 ExpiredToken");
}

const STATUS: &str = "com.atproto.admin.updateSubjectStatus";
/// A host is told again within this time.
const TOLD: Duration = Duration::from_mins(1);

async fn a_host_that_was_away_is_told_of_a_takedown_and_its_end(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).trouble(STATUS, Trouble::CutBefore);
    take_down(&net, &alice, true).await;
    assert_eq!(net.sign_in(&alice.handle, &alice.password).await.summary(), "401 AccountTakedown");
    let end = json!({
        "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": alice.did },
        "takedown": { "applied": false },
    });
    // The host has to show the account before its owner can sign in.
    assert_eq!(net.operator().procedure(STATUS, &end).await.summary(), "502 UpstreamFailure");
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.host(0).mend();
    let is_told = async || net.host(0).account(&alice.did).unwrap().taken_down;
    within(TOLD, "the host knows of the takedown", is_told).await;
    take_down(&net, &alice, false).await;
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.sign_in(&alice.handle, &alice.password).await.ok();
}

/// Has the operator apply a takedown, or end it, and Genkan killed at this point.
async fn killed_at(point: &str, net: &mut TestNetwork, user: &User, applied: bool) {
    net.restart_with(&[("GENKAN_TEST_CRASH_AT".to_owned(), point.to_owned())]).await;
    let input = json!({
        "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": user.did },
        "takedown": { "applied": applied },
    });
    let operator = net.operator();
    let request = operator.request(Method::POST, &format!("/xrpc/{STATUS}"));
    let request = request.header("content-type", "application/json").body(input.to_string()).unwrap();
    assert!(operator.try_send(request).await.is_err(), "Genkan was killed before it answered");
    assert!(net.genkan_mut().is_gone(Duration::from_secs(20)).await);
}

async fn a_takedown_survives_a_kill_before_the_host_is_told(plan: Plan) {
    let mut net = plan.await;
    let alice = net.sign_up("alice").await;
    let mut app = net.authorize(&alice, "atproto transition:generic").await;
    app.refresh().await.ok();
    killed_at("takedown.recorded", &mut net, &alice, true).await;
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.restart().await;
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "401 AccountTakedown");
    let is_told = async || net.host(0).account(&alice.did).unwrap().taken_down;
    within(TOLD, "the host knows of the takedown", is_told).await;
    // While the account is down, an error says nothing about the session. Nothing of it is left.
    take_down(&net, &alice, false).await;
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "400 ExpiredToken");
    assert_eq!(net.client_of(&alice).query(GET, &[]).await.summary(), "400 ExpiredToken");
    assert_eq!(app.refresh().await.summary(), "400 invalid_grant");
}

async fn a_takedown_survives_a_kill_after_the_host_was_told(plan: Plan) {
    let mut net = plan.await;
    let alice = net.sign_up("alice").await;
    killed_at("takedown.told", &mut net, &alice, true).await;
    assert!(net.host(0).account(&alice.did).unwrap().taken_down);
    let before = net.host(0).asked(STATUS);
    net.restart().await;
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "401 AccountTakedown");
    // That the host knows was not recorded, so it is told once more.
    within(TOLD, "the host is told again", async || net.host(0).asked(STATUS) > before).await;
    assert!(net.host(0).account(&alice.did).unwrap().taken_down);
    take_down(&net, &alice, false).await;
    net.sign_in(&alice.handle, &alice.password).await.ok();
}

async fn a_restoration_goes_on_after_a_kill_when_the_host_was_told(plan: Plan) {
    let mut net = plan.await;
    let alice = net.sign_up("alice").await;
    take_down(&net, &alice, true).await;
    killed_at("restoration.told", &mut net, &alice, false).await;
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.restart().await;
    within(TOLD, "the account is restored", async || {
        net.sign_in(&alice.handle, &alice.password).await.status == 200
    })
    .await;
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
}

async fn a_takedown_by_command_is_told_by_a_running_genkan(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.host(0).trouble(STATUS, Trouble::CutBefore);
    let said = net.command(&["account", "takedown", &alice.handle]).await.ok();
    assert!(said.contains("did not answer yet"), "{said}");
    // The command has ended, and what it did is in effect.
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "401 AccountTakedown");
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.host(0).mend();
    let is_told = async || net.host(0).account(&alice.did).unwrap().taken_down;
    within(TOLD, "the host knows of the takedown", is_told).await;
    let said = net.command(&["account", "restore", &alice.handle]).await.ok();
    assert!(said.contains("is restored"), "{said}");
    assert!(!net.host(0).account(&alice.did).unwrap().taken_down);
    net.sign_in(&alice.handle, &alice.password).await.ok();
}

async fn owners_read_their_own_data_when_others_may_not(plan: Plan) {
    let net = plan.await;
    let (alice, bob) = (net.sign_up("alice").await, net.sign_up("bobby").await);
    net.client_of(&alice).procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
    net.host(0).set_repo_size(&alice.did, 300_000);
    let read = [("did", alice.did.as_str())];
    let own = net.client_of(&alice).query("com.atproto.sync.getRepo", &read).await.ok();
    assert_eq!(own.body.len(), 300_000);
    for other in [net.visitor(), net.client_of(&bob)] {
        assert_eq!(other.query("com.atproto.sync.getRepo", &read).await.summary(), "400 RepoDeactivated");
    }
}

/// The date on which the account is to be deleted.
async fn deleted_after(net: &TestNetwork, user: &User) -> Option<String> {
    let shown = net.command(&["account", "show", &user.handle, "--json"]).await.ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["status"], "deactivated");
    shown["deleteAfter"].as_str().map(str::to_owned)
}

/// The datetime of the lexicons at so many days from now.
fn in_days(days: i64) -> String {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let day = now.div_euclid(86_400) + days;
    // Howard Hinnant's `civil_from_days`, for years after 1970.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T12:00:00.000Z")
}

async fn only_a_full_session_has_an_account_deleted_later(plan: Plan) {
    const DEACTIVATE: &str = "com.atproto.server.deactivateAccount";
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let own = net.client_of(&alice);
    let input = |date: String| json!({ "deleteAfter": date });
    for days in [-1, 0, 2] {
        own.procedure(DEACTIVATE, &input(in_days(days))).await.ok();
        assert_eq!(deleted_after(&net, &alice).await, None, "in {days} days");
    }
    // By service auth: the host does not tell an app from the owner's session.
    let at_host = net.client_at(net.host(0), &alice);
    at_host.procedure(DEACTIVATE, &input(in_days(30))).await.ok();
    assert_eq!(deleted_after(&net, &alice).await, None, "through the host");
    own.call("com.atproto.server.activateAccount").await.ok();
    let mut app = App::at(net.visitor(), &net.origin(), "atproto account:status?action=manage");
    let (_, browser, page) = app.begin().await;
    let form = page.form("/sign-in").with("identifier", &alice.handle).with("password", &alice.password);
    let consent = browser.send(&form).await;
    let told = "Deactivate your account (the app can neither delete nor reactivate it)";
    assert!(consent.says(told), "{}", consent.html());
    app.sign_in(&alice.handle, &alice.password).await;
    let activate = "/xrpc/com.atproto.server.activateAccount";
    let refused = app.ask(&net.visitor(), &net.origin(), Method::POST, activate, "").await;
    assert_eq!(refused.summary(), "403 Forbidden");
    let body = input(in_days(30)).to_string();
    let path = format!("/xrpc/{DEACTIVATE}");
    let answer = app.ask(&net.visitor(), &net.origin(), "POST".parse().unwrap(), &path, body.clone()).await;
    assert_eq!(answer.summary(), "200");
    assert_eq!(deleted_after(&net, &alice).await, None, "for an app");
    assert_eq!(app.refresh().await.summary(), "400 invalid_grant");

    take_down(&net, &alice, true).await;
    let leave = json!({ "identifier": alice.handle, "password": alice.password, "allowTakendown": true });
    let leaving = net.visitor().procedure("com.atproto.server.createSession", &leave).await.ok();
    let leaving = net.client_of(&alice.with_session(&leaving));
    leaving.procedure(DEACTIVATE, &input(in_days(30))).await.ok();
    take_down(&net, &alice, false).await;
    assert_eq!(deleted_after(&net, &alice).await, None, "while taken down");

    let again = alice.with_session(&net.sign_in(&alice.handle, &alice.password).await.ok());
    net.client_of(&again).procedure(DEACTIVATE, &input(in_days(4))).await.ok();
    assert_eq!(deleted_after(&net, &alice).await, Some(in_days(4)));
    for days in [-1, 2] {
        net.client_of(&again).procedure(DEACTIVATE, &input(in_days(days))).await.ok();
        assert_eq!(deleted_after(&net, &alice).await, Some(in_days(4)), "{days} days are too near to count");
    }
    // Another caller neither moves the date nor cancels it.
    net.client_at(net.host(0), &again).procedure(DEACTIVATE, &json!({})).await.ok();
    assert_eq!(deleted_after(&net, &alice).await, Some(in_days(4)));
    net.client_of(&again).procedure(DEACTIVATE, &json!({})).await.ok();
    assert_eq!(deleted_after(&net, &alice).await, None, "the owner took it back");
}

async fn a_deletion_that_broke_off_is_finished(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let delete = "com.atproto.admin.deleteAccount";
    let input = json!({ "did": alice.did });
    // The host fails after Genkan has begun the deletion.
    net.host(0).trouble(delete, Trouble::Status(500));
    assert_eq!(net.operator().procedure(delete, &input).await.status, 502);
    // What was begun is not taken back, and nobody is sent round in circles meanwhile.
    let input_of_hers = json!({ "identifier": alice.handle, "password": alice.password });
    let refused = net.visitor().procedure("com.atproto.server.createSession", &input_of_hers).await;
    assert_eq!(refused.summary(), "401 AuthenticationRequired");
    assert_eq!(net.refresh(&alice.refresh).await.summary(), "400 ExpiredToken");
    net.host(0).mend();
    net.operator().procedure(delete, &input).await.ok();
    assert!(net.host(0).account(&alice.did).is_none());
    // The handle is free again.
    net.sign_up("alice").await;
}
