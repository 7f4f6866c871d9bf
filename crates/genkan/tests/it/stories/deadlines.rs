//! Calls and forms whose work takes longer than their clients wait: 503, and a repetition finds it.

use std::time::{Duration, Instant};

use genkan_testing::network::{App, eventually};
use genkan_testing::{Answer, Gate, Plan, Schema, TestNetwork, Trouble, User};
use serde_json::{Value, json};

use super::emails::with_mail;
use crate::store::{self, on_each_database};

on_each_database!(
    a_handle_change_ends_in_time_and_its_repetition_finds_it,
    a_deactivation_ends_in_time_and_goes_on,
    a_deletion_ends_in_time_and_can_be_repeated,
    a_form_ends_in_time_and_goes_on_without_its_browser,
);

/// The kind of call by which a host learns of a deactivation.
const STATUS: &str = "com.atproto.admin.updateSubjectStatus";

/// Sends the request while a host is silent, and expects 503 before the host is given up (20 s).
async fn ends_in_time(request: impl Future<Output = Answer>) {
    let start = Instant::now();
    let answer = request.await;
    assert_eq!(answer.summary(), "503 NotEnoughResources");
    assert!(answer.message().contains("goes on"), "{}", answer.message());
    assert_ne!(answer.header("retry-after"), "");
    assert!((9..17).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

async fn status_of(net: &TestNetwork, user: &User) -> String {
    let shown = net.command(&["account", "show", &user.handle, "--json"]).await.ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["status"].as_str().unwrap().to_owned()
}

async fn a_handle_change_ends_in_time_and_its_repetition_finds_it(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let gate = Gate::closed();
    net.host(0).trouble("com.atproto.admin.updateAccountHandle", Trouble::Held(gate.clone()));
    let own = net.client_of(&alice);
    let update = || async {
        let input = json!({ "handle": "alicia.genkan.test" });
        own.procedure("com.atproto.identity.updateHandle", &input).await
    };
    ends_in_time(update()).await;
    let start = Instant::now();
    update().await.ok();
    assert!(start.elapsed() < Duration::from_secs(8), "it waits for no host: {:?}", start.elapsed());
    gate.open();
    eventually("the host knows the handle", async || {
        net.host(0).account(&alice.did).unwrap().handle.as_str() == "alicia.genkan.test"
    })
    .await;
}

async fn a_deactivation_ends_in_time_and_goes_on(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let gate = Gate::closed();
    net.host(0).trouble(STATUS, Trouble::Held(gate.clone()));
    let own = net.client_of(&alice);
    let deactivate = || async { own.procedure("com.atproto.server.deactivateAccount", &json!({})).await };
    ends_in_time(deactivate()).await;
    assert_eq!(status_of(&net, &alice).await, "active");
    gate.open();
    eventually("it goes on", async || status_of(&net, &alice).await == "deactivated").await;
    deactivate().await.ok();
}

async fn a_deletion_ends_in_time_and_can_be_repeated(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).call("com.atproto.server.requestAccountDelete").await.ok();
    let code = mail.email_to(&alice.email).await.code();
    let input = |code: &str| json!({ "did": alice.did, "password": alice.password, "token": code });
    let delete = |code: String| {
        let (client, input) = (net.visitor(), input(&code));
        async move { client.procedure("com.atproto.server.deleteAccount", &input).await }
    };
    let gate = Gate::closed();
    net.host(0).trouble("com.atproto.admin.deleteAccount", Trouble::Held(gate.clone()));
    let repeat = async {
        eventually("the host is asked", async || net.host(0).asked("com.atproto.admin.deleteAccount") == 1)
            .await;
        ends_in_time(delete(code.clone())).await;
    };
    tokio::join!(ends_in_time(delete(code.clone())), repeat);
    // What is under way is no way to guess codes, and none costs an attempt.
    for _ in 0..6 {
        assert_eq!(delete("AAAAA-AAAAA".to_owned()).await.summary(), "400 InvalidToken");
    }
    gate.open();
    let repeated = delete(code.clone()).await;
    // It takes the deletion up again, or finds that the first request has finished it.
    assert!(
        ["200", "400 InvalidRequest"].contains(&repeated.summary().as_str()),
        "{}",
        repeated.transcript()
    );
    assert!(net.host(0).account(&alice.did).is_none());
    assert_eq!(delete(code).await.message(), "account not found");
}

async fn a_form_ends_in_time_and_goes_on_without_its_browser(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let browser = net.browser();
    let page = browser.open("/account/sign-in").await;
    let form = page.form("/sign-in").with("identifier", &alice.handle).with("password", &alice.password);
    browser.send(&form).await;
    for leaves in [false, true] {
        let own = net.client_of(&alice);
        own.procedure("com.atproto.server.deactivateAccount", &json!({})).await.ok();
        let form = browser.open("/account").await.form("/reactivate");
        let (gate, before) = (Gate::closed(), net.host(0).asked(STATUS));
        net.host(0).trouble(STATUS, Trouble::Held(gate.clone()));
        let sending = browser.post(&form, &[]);
        if leaves {
            tokio::select! {
                answer = sending => panic!("the host has not answered: {}", answer.transcript()),
                () = eventually("the host is asked", async || net.host(0).asked(STATUS) > before) => {}
            }
            // Genkan sees the closed connection no later than another request.
            net.visitor().get("/xrpc/_health").await.ok();
        } else {
            let start = Instant::now();
            let answer = sending.await;
            assert_eq!(answer.status, 503, "{}", answer.transcript());
            assert_ne!(answer.header("retry-after"), "");
            assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
            assert!((9..17).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        }
        gate.open();
        eventually("it goes on", async || status_of(&net, &alice).await == "active").await;
        net.host(0).mend();
    }
}

/// Locks the database while a person allows an app. The form ends in time, and the same form sent again
/// gets the code.
async fn a_consent_is_sent_again(net: &TestNetwork, url: &str, lock: &'static str) {
    use sqlx::{Connection as _, Executor as _};
    sqlx::any::install_default_drivers();
    let alice = net.sign_up("alice").await;
    let app = App::at(net.visitor(), &net.origin(), "atproto transition:generic");
    let (verifier, browser, page) = app.begin().await;
    let form = page.form("/sign-in").with("identifier", &alice.handle).with("password", &alice.password);
    let page = browser.send(&form).await;
    let mut other = sqlx::AnyConnection::connect(url).await.unwrap();
    other.execute(sqlx::raw_sql(lock)).await.unwrap();
    let consent = page.form("/consent").with("answer", "allow");
    let start = Instant::now();
    let sending = async { (browser.post(&consent, &[]).await, start.elapsed()) };
    let release = async {
        // Longer than a form may take, and than one statement may.
        tokio::time::sleep(Duration::from_secs(11)).await;
        other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    };
    let ((answer, took), ()) = tokio::join!(sending, release);
    assert_eq!(answer.status, 503, "{}", answer.transcript());
    assert_ne!(answer.header("retry-after"), "");
    assert!(took < Duration::from_secs(17), "{took:?}");
    let code = App::allow(verifier, &browser, &page).await;
    app.redeem(&code).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_beside_a_locked_sqlite_is_sent_again() {
    let net = store::sqlite().await;
    let url = format!("sqlite://{}", net.database_file().display());
    a_consent_is_sent_again(&net, &url, "BEGIN IMMEDIATE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_consent_beside_a_locked_table_is_sent_again() {
    // Before the decision, and in the middle of it.
    for lock in [
        "BEGIN; LOCK TABLE devices IN ACCESS EXCLUSIVE MODE",
        "BEGIN; LOCK TABLE oauth_codes IN ACCESS EXCLUSIVE MODE",
    ] {
        let schema = Schema::borrow().await;
        let net = store::postgres(&schema).await;
        a_consent_is_sent_again(&net, &schema.url(), lock).await;
    }
}

/// The check of the caller counts, and a password that is shown once is not kept for a client that
/// got another answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_password_that_came_too_late_is_not_kept() {
    use sqlx::{Connection as _, Executor as _};
    let schema = Schema::borrow().await;
    let net = store::postgres(&schema).await;
    let alice = net.sign_up("alice").await;
    let own = net.client_of(&alice);
    own.query("com.atproto.server.getSession", &[]).await.ok();
    let locked = async |table: &str| {
        let mut other = sqlx::AnyConnection::connect(&schema.url()).await.unwrap();
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
        other
    };
    let (mut accounts, mut audit) = (locked("accounts").await, locked("audit").await);
    let create =
        || async { own.procedure("com.atproto.server.createAppPassword", &json!({ "name": "phone" })).await };
    let release = async {
        // Less than the longest time of one statement.
        tokio::time::sleep(Duration::from_secs(6)).await;
        accounts.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    };
    tokio::join!(ends_in_time(create()), release);
    audit.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    let answer = create().await.ok();
    net.sign_in(&alice.handle, &answer.text("/password")).await.ok();
}
