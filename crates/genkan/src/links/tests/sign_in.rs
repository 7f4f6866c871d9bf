use std::sync::Arc;
use std::time::Duration;

use genkan_testing::{FakePds, Trouble};
use serde_json::json;
use sqlx::Row as _;

use super::harness::{DEVICE, LinkHarness, SCOPE, know};
use crate::base::query;
use crate::db::testing::Fresh;
use crate::db::{Db, on_each_database, sweep};
use crate::links::*;

on_each_database!(
    strangers_cause_only_so_many_client_documents,
    a_person_signs_in_at_an_external_server_and_comes_back,
    every_way_of_naming_an_account_leads_to_its_server,
    on_loopback_we_sign_in_as_a_client_in_development,
    scopes_beyond_the_stable_document_go_under_a_name_of_their_own,
    c14_iss_missing_or_wrong_is_refused,
    c14_a_state_is_valid_once,
    c14_another_browser_gets_nothing,
    c14_another_sub_is_refused_and_revoked,
    c14_a_server_that_does_not_speak_for_sub_is_refused_and_revoked,
    c14_what_is_missing_in_the_tokens_is_refused_and_revoked,
    an_answer_in_another_form_is_refused,
    a_denial_leads_back_to_where_the_person_came_from,
    servers_that_cannot_be_used_are_named_so,
    a_handle_that_its_account_does_not_claim_is_refused,
    home_accounts_are_not_sent_to_another_server,
    a_sign_in_expires_after_ten_minutes
);

#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_transaction_that_gives_way_is_repeated() {
    let fresh = Fresh::postgres().await;
    let db = &fresh.db;
    let harness = LinkHarness::start(db.clone()).await;
    for table in ["link_logins", "links"] {
        let departure = db.giving_way("link_logins", harness.begin("ann.example.com")).await.unwrap();
        let callback = harness.visit(&departure).await;
        let arrival = db.giving_way(table, harness.finish(&departure, callback)).await.unwrap();
        let visiting = harness.links.start_visit(&arrival, DEVICE);
        db.giving_way("link_visits", visiting).await.unwrap();
        assert_eq!(harness.reason(&arrival.link).await, Some("identity_only"));
    }
    let link = harness.link().await;
    assert!(db.giving_way("links", harness.links.end(&link, Reason::GrantEnded)).await.unwrap());
    let leaving = harness.links.end_visit(DEVICE, &harness.ann);
    db.giving_way("link_visits", leaving).await.unwrap();
}

async fn a_person_signs_in_at_an_external_server_and_comes_back(db: Db) {
    let harness = LinkHarness::start(db).await;
    let arrival = harness.arrive().await;
    assert_eq!(
        (arrival.did.clone(), arrival.handle.as_deref()),
        (harness.ann.clone(), Some("ann.example.com"))
    );
    assert_eq!((arrival.scope.as_str(), arrival.request.as_deref()), (SCOPE, Some("req-1")));
    assert_eq!((arrival.issuer.clone(), arrival.back.as_str()), (harness.pds.issuer(), "/oauth/authorize?x"));
    let id = arrival.link.as_str();
    assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let waiting = harness.links.waiting("req-1", DEVICE).await.unwrap().unwrap();
    assert_eq!(waiting.link, arrival.link);
    // Another browser must not see what this one signed in.
    assert_eq!(harness.links.waiting("req-1", "dev-2").await.unwrap(), None);
    assert!(harness.links.keep(&arrival.link).await.unwrap());
    assert_eq!(harness.links.waiting("req-1", DEVICE).await.unwrap(), None);

    let credential = harness.credential(&arrival.link).await.unwrap();
    assert_eq!((credential.version, credential.pds.to_string()), (1, harness.pds.url()));
    assert_eq!(harness.call(&credential).await, 200);
    // The second use finds the credential in the cache.
    assert!(Arc::ptr_eq(&credential, &harness.links.recall(&arrival.link).unwrap()));
    let sessions = harness.pds.sessions();
    assert_eq!(sessions[0].client_id, "https://genkan.example.com/oauth/client-metadata.json");
    assert_eq!(harness.links.of_account(&harness.ann).await.unwrap().len(), 1);
}

async fn every_way_of_naming_an_account_leads_to_its_server(db: Db) {
    let harness = LinkHarness::start(db).await;
    for identifier in ["@Ann.Example.com", harness.ann.as_str(), &harness.pds.url()] {
        let departure = harness.begin(identifier).await.unwrap();
        let callback = harness.visit(&departure).await;
        let arrival = harness.finish(&departure, callback).await.unwrap();
        assert_eq!(arrival.did, harness.ann, "{identifier}");
    }
}

async fn on_loopback_we_sign_in_as_a_client_in_development(db: Db) {
    let harness = LinkHarness::start_with(db, "http://localhost:2583", &[]).await;
    let arrival = harness.arrive().await;
    assert_eq!(harness.call(&harness.credential(&arrival.link).await.unwrap()).await, 200);
    let session = &harness.pds.sessions()[0];
    assert!(session.client_id.starts_with("http://localhost?scope=atproto%20"), "{}", session.client_id);
}

async fn scopes_beyond_the_stable_document_go_under_a_name_of_their_own(db: Db) {
    let harness = LinkHarness::start(db).await;
    let scope = "atproto repo:com.example.post";
    // The server does not have the document of that client id.
    let refused = harness.begin_for("ann.example.com", scope).await.unwrap_err();
    assert!(
        matches!(&refused, BeginError::Refused(code) if &**code == "invalid_client_metadata"),
        "{refused}"
    );
    let name = harness.links.inner.client.name_for(scope);
    let document = harness.links.client_document(name.own_document.as_deref(), None).await.unwrap().unwrap();
    assert_eq!((&document["client_id"], &document["scope"]), (&json!(name.id), &json!(scope)));
    // As a server that has fetched the document.
    harness.pds.know_client(&name.id, scope, harness.links.client_key_set());
    let departure = harness.begin_for("ann.example.com", scope).await.unwrap();
    let callback = harness.visit(&departure).await;
    assert_eq!(harness.finish(&departure, callback).await.unwrap().scope, scope);
    assert_eq!(harness.links.client_document(Some("unknown"), None).await.unwrap(), None);
}

fn unacceptable(error: &FinishError) -> &'static str {
    match &error.why {
        Failure::Unacceptable(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn c14_iss_missing_or_wrong_is_refused(db: Db) {
    let harness = LinkHarness::start(db).await;
    // Without `iss`, a code of one server could be sent to another (RFC 9207).
    for (iss, why) in [("", "\"iss\" is missing"), ("https://evil.example.com", "\"iss\" is another server")]
    {
        harness.pds.set(|quirks| quirks.callback_iss = Some(iss.to_owned()));
        let departure = harness.begin("ann.example.com").await.unwrap();
        let callback = harness.visit(&departure).await;
        let error = harness.finish(&departure, callback).await.unwrap_err();
        assert_eq!(unacceptable(&error), why);
        assert_eq!(error.back.as_deref(), Some("/oauth/authorize?x"));
    }
    assert!(harness.pds.sessions().is_empty(), "no code was redeemed");
}

async fn c14_a_state_is_valid_once(db: Db) {
    let harness = LinkHarness::start(db).await;
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    // The first state with a new code: only the state is used twice.
    let again = Callback {
        state: callback.state.clone(),
        ..harness.visit(&harness.begin("ann.example.com").await.unwrap()).await
    };
    harness.finish(&departure, callback).await.unwrap();
    let error = harness.finish(&departure, again).await.unwrap_err();
    assert!(matches!(error, FinishError { back: None, why: Failure::Unknown }));
    assert_eq!(harness.pds.sessions().len(), 1);
}

async fn c14_another_browser_gets_nothing(db: Db) {
    let harness = LinkHarness::start(db).await;
    let other = harness.begin("ann.example.com").await.unwrap();
    for (browser, device) in
        [(None, Some(DEVICE)), (Some(other.browser.expose().as_str()), Some(DEVICE)), (None, None)]
    {
        let departure = harness.begin("ann.example.com").await.unwrap();
        let callback = harness.visit(&departure).await;
        let state = callback.state.clone();
        let error = harness.links.finish(callback, browser, device).await.unwrap_err();
        assert!(matches!(error, FinishError { back: None, why: Failure::OtherBrowser }), "{error:?}");
        // The sign-in is used up for the right browser too.
        let late = Callback { state, ..Callback::default() };
        assert!(matches!(harness.finish(&departure, late).await.unwrap_err().why, Failure::Unknown));
    }
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    let error =
        harness.links.finish(callback, Some(departure.browser.expose()), Some("dev-2")).await.unwrap_err();
    assert!(matches!(error.why, Failure::OtherBrowser));
    assert!(harness.pds.sessions().is_empty());
}

/// Signs in at a server with these quirks, and returns why the sign-in failed.
async fn spoiled(harness: &LinkHarness, spoil: impl FnOnce(&mut genkan_testing::pds::Quirks)) -> FinishError {
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    harness.pds.set(spoil);
    let error = harness.finish(&departure, callback).await.unwrap_err();
    harness.pds.set(|quirks| *quirks = genkan_testing::pds::Quirks::default());
    error
}

async fn c14_another_sub_is_refused_and_revoked(db: Db) {
    let harness = LinkHarness::start(db).await;
    let bob = harness.pds.make_account(&harness.directory, "bob.example.com");
    let error =
        spoiled(&harness, |quirks| drop(quirks.token_answer.insert("sub".to_owned(), json!(bob)))).await;
    assert_eq!(unacceptable(&error), "\"sub\" is another account");
    assert_eq!(harness.pds.sessions()[0].ended, Some("revoked"));
    assert!(harness.links.waiting("req-1", DEVICE).await.unwrap().is_none());
}

async fn c14_a_server_that_does_not_speak_for_sub_is_refused_and_revoked(db: Db) {
    let evil = FakePds::start().await;
    let harness = LinkHarness::start_with(db, "https://genkan.example.com", &[&evil]).await;
    know(&harness.links, &evil);
    // The sign-in names only the server's address, so any account is possible. The server claims
    // Ann's.
    evil.adopt(&harness.ann, &"ann.example.com".parse().unwrap());
    let departure = harness.begin(&evil.url()).await.unwrap();
    let callback = harness.visit(&departure).await;
    let error = harness.finish(&departure, callback).await.unwrap_err();
    assert_eq!(unacceptable(&error), "the server does not speak for the account");
    assert_eq!(evil.sessions()[0].ended, Some("revoked"));
    assert!(harness.links.of_account(&harness.ann).await.unwrap().is_empty());
}

async fn c14_what_is_missing_in_the_tokens_is_refused_and_revoked(db: Db) {
    let harness = LinkHarness::start(db).await;
    for (member, value, why) in [
        ("sub", json!(null), "\"sub\" is not a DID"),
        ("sub", json!("ann"), "\"sub\" is not a DID"),
        ("scope", json!(null), "\"scope\" lacks atproto"),
        ("scope", json!("transition:generic"), "\"scope\" lacks atproto"),
        ("refresh_token", json!(null), "\"refresh_token\" is missing"),
    ] {
        let error =
            spoiled(&harness, |quirks| drop(quirks.token_answer.insert(member.to_owned(), value))).await;
        assert_eq!(unacceptable(&error), why);
        assert_eq!(harness.pds.sessions().last().unwrap().ended, Some("revoked"), "{why}");
    }
    let error = spoiled(&harness, |quirks| {
        drop(quirks.token_answer.insert("token_type".to_owned(), json!("Bearer")));
    })
    .await;
    assert!(matches!(error.why, Failure::Away(_)), "{error:?}");
    for (member, value) in [
        // These answers cannot be used at all. The session at the server is revoked all the same.
        ("token_type", json!("Bearer")),
        ("token_type", json!(null)),
        ("access_token", json!("not to be sent")),
        ("access_token", json!(null)),
        ("expires_in", json!("soon")),
    ] {
        let said = format!("{member}: {value}");
        let error =
            spoiled(&harness, |quirks| drop(quirks.token_answer.insert(member.to_owned(), value))).await;
        assert!(matches!(error.why, Failure::Away(_)), "{said}: {error:?}");
        assert_eq!(harness.pds.sessions().last().unwrap().ended, Some("revoked"), "{said}");
    }
}

async fn an_answer_in_another_form_is_refused(db: Db) {
    let harness = LinkHarness::start(db).await;
    let departure = harness.begin("ann.example.com").await.unwrap();
    // A signed answer (JARM), which Genkan did not request and cannot check.
    let callback = Callback { has_response: true, ..harness.visit(&departure).await };
    let error = harness.finish(&departure, callback).await.unwrap_err();
    assert_eq!(unacceptable(&error), "the response mode was not requested");
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = Callback { code: None, ..harness.visit(&departure).await };
    assert_eq!(unacceptable(&harness.finish(&departure, callback).await.unwrap_err()), "\"code\" is missing");
}

async fn a_denial_leads_back_to_where_the_person_came_from(db: Db) {
    let harness = LinkHarness::start(db).await;
    harness.pds.set(|quirks| quirks.denial = Some("access_denied"));
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    let error = harness.finish(&departure, callback).await.unwrap_err();
    assert!(matches!(&error.why, Failure::Denied(code) if &**code == "access_denied"));
    assert_eq!(error.back.as_deref(), Some("/oauth/authorize?x"));
}

async fn servers_that_cannot_be_used_are_named_so(db: Db) {
    let harness = LinkHarness::start(db).await;
    for member in [
        "require_pushed_authorization_requests",
        "authorization_response_iss_parameter_supported",
        "scopes_supported",
    ] {
        harness.pds.set(|quirks| drop(quirks.server_metadata.insert(member.to_owned(), json!(null))));
        let error = harness.begin("ann.example.com").await.unwrap_err();
        assert!(matches!(&error, BeginError::Unusable(why) if why.contains(member)), "{error}");
        harness.pds.set(|quirks| quirks.server_metadata.clear());
    }
    for (member, value) in [
        ("issuer", json!("https://other.example.com")),
        // Secrets would go to these addresses.
        ("token_endpoint", json!("http://10.0.0.1/token")),
        ("authorization_endpoint", json!("https://localhost/authorize")),
        ("revocation_endpoint", json!("https://192.168.1.1/revoke")),
        ("protected_resources", json!(5)),
        ("protected_resources", json!(["https://other.example.com"])),
    ] {
        harness.pds.set(|quirks| drop(quirks.server_metadata.insert(member.to_owned(), value)));
        let error = harness.begin("ann.example.com").await.unwrap_err();
        assert!(matches!(&error, BeginError::Unusable(_)), "{member}: {error}");
        harness.pds.set(|quirks| quirks.server_metadata.clear());
    }
    for (member, value) in [
        ("resource", json!("https://other.example.com")),
        ("authorization_servers", json!([])),
        ("authorization_servers", json!([harness.pds.url(), "https://x.example.com"])),
        ("authorization_servers", json!(["https://10.1.2.3"])),
    ] {
        harness.pds.set(|quirks| drop(quirks.resource_metadata.insert(member.to_owned(), value)));
        let error = harness.begin("ann.example.com").await.unwrap_err();
        assert!(matches!(&error, BeginError::Unusable(_)), "{member}: {error}");
        harness.pds.set(|quirks| quirks.resource_metadata.clear());
    }
    // These failures may pass, so the person is asked to try again later.
    for trouble in [Trouble::Status(503), Trouble::CutBefore] {
        harness.pds.trouble("/.well-known/oauth-authorization-server", trouble);
        assert!(matches!(harness.begin("ann.example.com").await, Err(BeginError::Away(_))));
        harness.pds.mend();
    }
    harness.pds.trouble("/.well-known/oauth-authorization-server", Trouble::Garbage);
    assert!(matches!(harness.begin("ann.example.com").await, Err(BeginError::Unusable(_))));
    harness.pds.mend();
    harness.pds.trouble("/oauth/par", Trouble::Refusal(400, "invalid_scope"));
    assert!(
        matches!(harness.begin("ann.example.com").await, Err(BeginError::Refused(code)) if &*code == "invalid_scope")
    );
}

async fn a_handle_that_its_account_does_not_claim_is_refused(db: Db) {
    let harness = LinkHarness::start(db).await;
    // Anyone can point a name at Ann's DID. Her document does not name it.
    harness.names.publish("mallory.example.com", &[harness.ann.as_str()]);
    for nobody in ["mallory.example.com", "nobody.example.com", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"] {
        let error = harness.begin(nobody).await.unwrap_err();
        assert!(matches!(error, BeginError::NoSuchAccount), "{nobody}: {error}");
    }
    for nothing in ["ann", "", "https://user@pds.example.com", "ftp://pds.example.com"] {
        assert!(matches!(harness.begin(nothing).await, Err(BeginError::NotAnIdentifier)), "{nothing}");
    }
    for address in ["https://127.0.0.1", "https://10.0.0.1", "http://pds.example.com", "https://pds.internal"]
    {
        assert!(matches!(harness.begin(address).await, Err(BeginError::Unusable(_))), "{address}");
    }
}

async fn home_accounts_are_not_sent_to_another_server(db: Db) {
    let harness = LinkHarness::start(db).await;
    let own = LinkHarness::start_with(harness.db.clone(), &harness.pds.url(), &[&harness.pds]).await;
    assert!(matches!(own.begin(&harness.pds.url()).await, Err(BeginError::Home)));
}

async fn a_sign_in_expires_after_ten_minutes(db: Db) {
    let harness = LinkHarness::start(db).await;
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    harness.pass(Duration::from_mins(10));
    assert!(matches!(harness.finish(&departure, callback).await.unwrap_err().why, Failure::Unknown));
    harness.begin("ann.example.com").await.unwrap();
    harness.pass(Duration::from_mins(11));
    assert_eq!(sweep::all(&harness.db, harness.now(), SWEEPS).await.unwrap(), 1);
}

async fn strangers_cause_only_so_many_client_documents(db: Db) {
    let harness = LinkHarness::start(db).await;
    for number in 0..5 {
        let values = format!("repo:com.example.n{number} ").repeat(15_000);
        // The fake server refuses such a long form, which comes after what is tested here.
        let _ = harness.begin_for("ann.example.com", &format!("atproto {}", values.trim())).await;
    }
    let rows = sqlx::query("SELECT COUNT(*) AS number FROM link_clients").fetch_one(harness.db.reader());
    assert_eq!(rows.await.unwrap().get::<i64, _>("number"), 3, "300 kB each, and one MiB for a network");

    // Others sign in all the same, also at servers that ask another replica for the document.
    let scope = "atproto repo:com.example.post";
    harness.links.inner.new_clients.spend_all(harness.now());
    let client = &harness.links.inner.client;
    let (carried, hash) = (client.name_with(scope).unwrap(), client.name_for(scope).own_document.unwrap());
    harness.pds.know_client(&carried.id, scope, harness.links.client_key_set());
    let departure = harness.begin_for("ann.example.com", scope).await.unwrap();
    assert!(departure.url.contains(&query::escaped(&carried.id)), "{}", departure.url);
    assert_eq!(harness.links.client_document(Some(&hash), None).await.unwrap(), None, "it has no row");
    let long = format!("atproto {}", "repo:com.example.post ".repeat(150).trim());
    let told = harness.begin_for("ann.example.com", &long).await;
    assert!(matches!(told, Err(BeginError::Away(_))), "its id would be refused: {told:?}");
    let document = harness.links.client_document(Some(&hash), Some(scope)).await.unwrap().unwrap();
    assert_eq!((&document["client_id"], &document["scope"]), (&json!(carried.id), &json!(scope)));
    let callback = harness.visit(&departure).await;
    harness.finish(&departure, callback).await.unwrap();
}
