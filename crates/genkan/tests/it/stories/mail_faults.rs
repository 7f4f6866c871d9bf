//! No email is lost by a crash or a mail server's bad day, and none is sent for nothing.

use std::time::Duration;

use genkan_testing::network::within;
use genkan_testing::{Mood, Plan};
use http::Method;
use serde_json::json;

use super::emails::with_mail;
use crate::store::{on_each_database, on_postgres};

on_each_database!(
    a_crash_after_the_answer_was_due_loses_no_email,
    a_crash_while_handing_over_loses_no_email,
    a_crash_before_it_is_noted_sends_the_same_email_again,
    a_mail_server_that_is_away_gets_it_later,
    a_mail_server_that_says_nothing_is_left,
    a_mailbox_that_is_not_there_is_the_operators_to_know,
    a_newer_code_is_the_only_one_that_is_sent,
    nothing_of_an_email_is_printed,
);

mod many {
    use super::*;
    on_postgres!(many_genkans_send_each_email_once);

    async fn many_genkans_send_each_email_once(plan: Plan) {
        let (net, mail) = with_mail(plan).await;
        let (_second, _third) = (net.another_genkan().await, net.another_genkan().await);
        let mut people = Vec::new();
        for name in ["alice", "bobby", "carol", "daisy", "emily"] {
            let user = net.sign_up(name).await;
            net.client_of(&user).call(CONFIRM).await.ok();
            people.push(user);
        }
        within(Duration::from_secs(20), "all emails are sent", async || mail.emails().len() >= people.len())
            .await;
        // Later emails are a fence: whichever process sends them has looked at the outbox again.
        for round in 1..=3 {
            net.client_of(&people[0]).call(CONFIRM).await.ok();
            within(Duration::from_secs(20), "a later email is sent", async || {
                mail.emails().len() >= people.len() + round
            })
            .await;
        }
        assert_eq!(mail.emails().len(), people.len() + 3);
    }
}

const CONFIRM: &str = "com.atproto.server.requestEmailConfirmation";
const RESET: &str = "com.atproto.server.requestPasswordReset";

async fn a_crash_after_the_answer_was_due_loses_no_email(plan: Plan) {
    crashed_at("mail.queued", plan, 1).await;
}

async fn a_crash_while_handing_over_loses_no_email(plan: Plan) {
    crashed_at("mail.taken", plan, 1).await;
}

async fn a_crash_before_it_is_noted_sends_the_same_email_again(plan: Plan) {
    crashed_at("mail.sent", plan, 2).await;
}

/// Alice loses her password, Genkan crashes at `point`, and after the restart she gets in.
// The failpoint is set at a restart, since the sign-up before must not reach it.
async fn crashed_at(point: &str, plan: Plan, emails: usize) {
    let (mut net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    net.restart_with(&[("GENKAN_TEST_CRASH_AT".to_owned(), point.to_owned())]).await;
    let client = net.visitor();
    let request = client.request(Method::POST, &format!("/xrpc/{RESET}"));
    let request = request.header("content-type", "application/json");
    // The answer is lost in the crash, so the result is not looked at.
    let _ = client.try_send(request.body(json!({ "email": alice.email }).to_string()).unwrap()).await;
    // Waiting for the end of the process shows that the failpoint was reached.
    assert!(net.genkan_mut().is_gone(Duration::from_secs(20)).await, "{point} was never reached");
    net.restart().await;
    within(Duration::from_secs(20), "the email comes", async || mail.emails().len() >= emails).await;
    let all = mail.emails();
    assert_eq!(all.len(), emails);
    // An equal Message-ID lets a mailbox show both deliveries as one email.
    assert!(all.iter().all(|email| email.header("message-id") == all[0].header("message-id")));
    let input = json!({ "token": all[0].code(), "password": "another secret" });
    net.visitor().procedure("com.atproto.server.resetPassword", &input).await.ok();
    net.sign_in(&alice.handle, "another secret").await.ok();
}

async fn a_mail_server_that_is_away_gets_it_later(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    for mood in [Mood::Away, Mood::Busy] {
        mail.set(mood);
        net.client_of(&alice).call(CONFIRM).await.ok();
        // The mail server recovers only after a failed attempt, so the second attempt is what is
        // tested.
        within(Duration::from_secs(20), "the attempt fails", async || {
            let metrics = net.metrics().await;
            metrics.contains("genkan_mails_waiting 1") && !metrics.contains("{outcome=\"failed\"} 0")
        })
        .await;
        assert!(mail.emails().is_empty());
        mail.set(Mood::Well);
        mail.email_to(&alice.email).await;
        within(Duration::from_secs(5), "nothing waits", async || {
            net.metrics().await.contains("genkan_mails_waiting 0")
        })
        .await;
    }
}

async fn a_mail_server_that_says_nothing_is_left(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    mail.set(Mood::Silent);
    net.client_of(&alice).call(CONFIRM).await.ok();
    within(Duration::from_secs(20), "the attempt is given up", async || {
        net.metrics().await.contains("genkan_mails_total{outcome=\"failed\"} 1")
    })
    .await;
    assert!(net.printed().contains("took too long"), "{}", net.printed());
    mail.set(Mood::Well);
    mail.email_to(&alice.email).await;
}

async fn a_mailbox_that_is_not_there_is_the_operators_to_know(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    mail.set(Mood::NoMailbox);
    // The answer does not tell the requester that the mailbox does not exist.
    net.visitor().procedure(RESET, &json!({ "email": alice.email })).await.ok();
    within(Duration::from_secs(20), "it is given up", async || {
        net.metrics().await.contains("genkan_mails_total{outcome=\"given_up\"} 1")
    })
    .await;
    let listed = net.command(&["mail", "given-up", "--json"]).await.ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["why"], "the mail server answered 550");
    assert_eq!(listed[0]["account"], json!(alice.did));
    assert_eq!(listed[0]["kind"], "reset_password");
    assert!(!net.printed().contains(&alice.email), "{}", net.printed());
}

async fn a_newer_code_is_the_only_one_that_is_sent(plan: Plan) {
    let (net, mail) = with_mail(plan).await;
    let alice = net.sign_up("alice").await;
    // Nothing is delivered while the four codes are requested, so the newer ones replace the older
    // ones.
    mail.set(Mood::Busy);
    for _ in 0..4 {
        net.client_of(&alice).call(CONFIRM).await.ok();
    }
    mail.set(Mood::Well);
    let code = mail.email_to(&alice.email).await.code();
    let input = json!({ "email": alice.email, "token": code });
    net.client_of(&alice).procedure("com.atproto.server.confirmEmail", &input).await.ok();
    // The outbox is empty, so no older code can arrive later.
    within(Duration::from_secs(5), "nothing waits", async || {
        net.metrics().await.contains("genkan_mails_waiting 0")
    })
    .await;
    assert!(mail.emails().is_empty());
}

async fn nothing_of_an_email_is_printed(plan: Plan) {
    // At `trace` the log contains the most that it can contain.
    let (net, mail) = with_mail(plan.set("GENKAN_LOG_LEVEL", "trace")).await;
    let alice = net.sign_up("alice").await;
    let mut secrets = vec![alice.email.clone(), genkan_testing::mail::PASSWORD.to_owned()];
    for mood in [Mood::Well, Mood::Forgetful, Mood::NoMailbox] {
        mail.set(mood);
        net.client_of(&alice).call(CONFIRM).await.ok();
        if mood != Mood::NoMailbox {
            secrets.push(mail.email_to(&alice.email).await.code());
        }
    }
    let wrong = json!({ "email": alice.email, "token": secrets[2] });
    net.client_of(&alice).procedure("com.atproto.server.confirmEmail", &wrong).await;
    within(Duration::from_secs(20), "it is given up", async || {
        net.metrics().await.contains("genkan_mails_total{outcome=\"given_up\"} 1")
    })
    .await;
    let shown = net.command(&["config", "show"]).await.ok();
    let (printed, metrics) = (net.printed(), net.metrics().await);
    let database = match std::fs::read(net.database_file()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // On PostgreSQL there is no file to search.
        Err(_) => String::new(),
    };
    for secret in &secrets {
        for (place, text) in [("log", &printed), ("metrics", &metrics), ("config show", &shown)] {
            assert!(!text.contains(secret.as_str()), "{secret} is in the {place}");
        }
        // The address has its place in the table of accounts.
        assert!(*secret == alice.email || !database.contains(secret.as_str()), "{secret} is in the database");
    }
}
