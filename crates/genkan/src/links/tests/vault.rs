use std::time::Duration;

use genkan_testing::network::eventually;
use genkan_testing::{FakePds, Trouble};
use sqlx::Row as _;

use super::harness::{DEVICE, LinkHarness, ORIGIN};
use crate::base::Secret;
use crate::base::seal::SealingKeys;
use crate::db::{Db, on_each_database, sweep};
use crate::links::service::DAY;
use crate::links::*;

on_each_database!(
    c18_a_dump_of_the_database_has_no_secret,
    c18_swapped_secrets_do_not_open,
    c18_sessions_and_sign_ins_survive_another_sealing_key,
    c12_an_ended_session_is_refused_at_once_and_revoked,
    a_server_that_is_away_is_informed_of_the_end_later,
    an_end_that_its_server_never_confirms_is_given_up,
    servers_that_never_answer_hold_up_no_other_one,
    an_undecided_sign_in_leaves_nothing_behind,
    a_sign_in_that_cannot_end_holds_up_no_other_one,
    a_sign_in_for_the_account_pages_keeps_no_session,
    other_replicas_forget_when_the_feed_tells,
    a_grant_s_end_ends_its_session
);

async fn dump(harness: &LinkHarness) -> String {
    let mut text = String::new();
    // Every table that sessions and sign-ins write to.
    for table in ["links", "link_logins", "audit", "changes"] {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table}")))
            .fetch_all(harness.db.reader())
            .await
            .unwrap();
        for row in rows {
            for column in 0..row.len() {
                if let Ok(Some(value)) = row.try_get::<Option<String>, _>(column) {
                    text.push_str(&value);
                    text.push('\n');
                }
            }
        }
    }
    text
}

async fn c18_a_dump_of_the_database_has_no_secret(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let departure = harness.begin("ann.example.com").await.unwrap();
    let state = harness.visit(&departure).await.state.unwrap();
    let row = sql::links::find(&harness.db, &link).await.unwrap().unwrap();
    let tokens = harness.links.inner.open(&row).unwrap();
    let dump = dump(&harness).await;
    assert!(dump.contains(link.as_str()) && dump.contains(harness.ann.as_str()));
    let key = data_encoding::BASE64URL_NOPAD.encode(&*tokens.key.to_bytes());
    for secret in [&tokens.access, &tokens.refresh, &key, &state, departure.browser.expose()] {
        assert!(!dump.contains(secret.as_str()), "{secret}");
    }
    assert!(tokens.access.starts_with("opaque-") && !dump.contains("opaque-"));
}

async fn c18_swapped_secrets_do_not_open(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (one, other) = (harness.link().await, harness.link().await);
    let sealed =
        async |link: &LinkId| sql::links::find(&harness.db, link).await.unwrap().unwrap().sealed.unwrap();
    // An attacker who can write to the database could otherwise give one session the tokens of
    // another.
    let (of_one, of_other) = (sealed(&one).await, sealed(&other).await);
    let mut tx = harness.db.begin().await.unwrap();
    for (link, sealed) in [(&one, &of_other), (&other, &of_one)] {
        sqlx::query("UPDATE links SET sealed = $2 WHERE id = $1")
            .bind(link.as_str())
            .bind(sealed)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    for link in [one, other] {
        assert_eq!(harness.another().credential(&link).await.unwrap_err(), UseError::Broken);
        assert_eq!(harness.reason(&link).await, None, "a fault of Genkan's own ends no session");
    }
}

async fn c18_sessions_and_sign_ins_survive_another_sealing_key(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let departure = harness.begin("ann.example.com").await.unwrap();
    let callback = harness.visit(&departure).await;
    harness.pass(Duration::from_mins(1));
    harness.links.renew(&link, 1).await.unwrap();
    let (old, new) = (Secret::new([3; 32]), Secret::new([4; 32]));
    // During a rotation both keys open, and the new one seals.
    let both = SealingKeys { current: new.clone(), older: vec![old] };
    harness.links.inner.sealer.replace(&both);
    for sealed in SEALED_COLUMNS {
        assert_eq!(sealed.left(&harness.db, &harness.links.inner.sealer).await.unwrap(), 1);
        let (round, _) = sealed.round(&harness.db, &harness.links.inner.sealer, "").await.unwrap();
        assert_eq!((round.resealed, round.unopened), (1, Vec::<String>::new()));
    }
    harness.links.inner.sealer.replace(&SealingKeys::one(new));
    assert_eq!(harness.credential(&link).await.unwrap().version, 2);
    harness.finish(&departure, callback).await.unwrap();
    harness.pass(Duration::from_hours(1));
    assert_eq!(harness.credential(&link).await.unwrap().version, 3);
}

async fn state(harness: &LinkHarness, link: &LinkId) -> &'static str {
    harness.links.find(link).await.unwrap().unwrap().state.as_str()
}

async fn c12_an_ended_session_is_refused_at_once_and_revoked(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.credential(&link).await.unwrap();
    assert!(harness.links.end(&link, Reason::GrantEnded).await.unwrap());
    assert!(harness.links.recall(&link).is_none());
    assert_eq!(harness.credential(&link).await.unwrap_err(), UseError::Gone("grant_ended"));
    assert!(!harness.links.end(&link, Reason::Operator).await.unwrap(), "once");
    eventually("the session is dead", async || state(&harness, &link).await == "dead").await;
    assert_eq!(harness.pds.sessions()[0].ended, Some("revoked"));
    assert_eq!(sql::links::find(&harness.db, &link).await.unwrap().unwrap().sealed, None);
    assert!(harness.links.of_account(&harness.ann).await.unwrap().is_empty());
}

async fn a_server_that_is_away_is_informed_of_the_end_later(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pds.trouble("/oauth/revoke", Trouble::Status(503));
    harness.links.drop_waiting(&link).await.unwrap();
    eventually("the server is told", async || harness.pds.asked("/oauth/revoke") > 0).await;
    assert_eq!(state(&harness, &link).await, "ending");
    assert_eq!(harness.links.tell_servers().await.unwrap(), 0, "not yet again");
    harness.pds.mend();
    harness.pass(Duration::from_mins(2));
    // Any process may do it.
    assert_eq!(harness.another().tell_servers().await.unwrap(), 1);
    assert_eq!((state(&harness, &link).await, harness.pds.sessions()[0].ended), ("dead", Some("revoked")));
    assert_eq!(harness.reason(&link).await, Some("rejected"));
}

async fn an_end_that_its_server_never_confirms_is_given_up(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    harness.pds.trouble("/oauth/revoke", Trouble::Status(500));
    harness.links.end(&link, Reason::Operator).await.unwrap();
    eventually("the server is told", async || harness.pds.asked("/oauth/revoke") > 0).await;
    // More attempts than Genkan makes.
    for _ in 0..22 {
        harness.pass(Duration::from_hours(4));
        harness.links.tell_servers().await.unwrap();
    }
    let row = sql::links::find(&harness.db, &link).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.sealed), ("dead", None));
    harness.pass(DAY * 31);
    sweep::all(&harness.db, harness.now(), SWEEPS).await.unwrap();
    assert!(harness.links.find(&link).await.unwrap().is_none());
}

async fn servers_that_never_answer_hold_up_no_other_one(db: Db) {
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(FakePds::start().await);
    }
    let harness = LinkHarness::start_with(db, ORIGIN, &silent.iter().collect::<Vec<_>>()).await;
    let mut links = Vec::new();
    for (number, server) in silent.iter().enumerate() {
        let handle = format!("user{number}.example.com");
        let did = server.make_account(&harness.directory, &handle);
        harness.names.publish(&handle, &[did.as_str()]);
        for _ in 0..2 {
            links.push(harness.link_of(&handle).await);
        }
        server.trouble("/oauth/revoke", Trouble::Silent);
    }
    let healthy = harness.link().await;
    // The healthy server's session ended last, in another process that was killed before it told
    // the server.
    for (age, link) in links.iter().rev().chain([&healthy]).rev().enumerate() {
        let ended_at = harness.now().minus(Duration::from_secs(age as u64)).as_millis();
        sqlx::query("UPDATE links SET state = 'ending', ended_at = $2, revoke_at = $2 WHERE id = $1")
            .bind(link.as_str())
            .bind(ended_at)
            .execute(harness.db.writer())
            .await
            .unwrap();
    }
    let job = tokio::spawn({
        let links = harness.links.clone();
        async move { links.tell_servers().await }
    });
    eventually("the healthy server is told", async || state(&harness, &healthy).await == "dead").await;
    assert!(!job.is_finished(), "the others have not answered");
    assert_eq!(job.await.unwrap().unwrap(), 21, "one call to each, and none after its silence");
    assert!(silent.iter().all(|server| server.asked("/oauth/revoke") == 1));
    assert_eq!(harness.links.tell_servers().await.unwrap(), 0, "all are put off");
}

async fn an_undecided_sign_in_leaves_nothing_behind(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (waiting, kept) = (harness.arrive().await, harness.link().await);
    // One minute before the end of the time for a decision.
    harness.pass(Duration::from_mins(14));
    assert_eq!(harness.links.end_undecided().await.unwrap(), 0);
    harness.pass(Duration::from_mins(2));
    assert_eq!(harness.links.waiting("req-1", DEVICE).await.unwrap(), None);
    assert_eq!(harness.links.end_undecided().await.unwrap(), 1);
    assert!(!harness.links.keep(&waiting.link).await.unwrap(), "too late");
    eventually("it is revoked", async || harness.pds.sessions()[0].ended == Some("revoked")).await;
    assert_eq!(
        (state(&harness, &kept).await, harness.reason(&waiting.link).await),
        ("live", Some("undecided"))
    );
}

async fn a_sign_in_that_cannot_end_holds_up_no_other_one(db: Db) {
    let harness = LinkHarness::start(db.clone()).await;
    let (one, two) = (harness.arrive().await, harness.arrive().await);
    let (first, second) = if one.link.as_str() < two.link.as_str() { (one, two) } else { (two, one) };
    let execute = async |text: String| {
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(db.writer()).await.unwrap();
    };
    // The database refuses the end of the first one, whatever is tried.
    let ended = harness.link().await;
    execute(format!("UPDATE links SET reason = 'undecided' WHERE id = '{ended}'")).await;
    execute(format!(
        "CREATE UNIQUE INDEX refusing ON links (reason) WHERE id IN ('{ended}', '{}')",
        first.link
    ))
    .await;
    harness.pass(Duration::from_mins(16));
    let outcome = harness.links.end_undecided().await;
    // The next test may get the same schema.
    execute("DROP INDEX refusing".to_owned()).await;
    assert_eq!(outcome.unwrap(), 1);
    assert_eq!(state(&harness, &first.link).await, "waiting");
    assert_eq!(harness.reason(&second.link).await, Some("undecided"));
    assert_eq!(harness.links.end_undecided().await.unwrap(), 1, "as soon as it can");
}

async fn a_sign_in_for_the_account_pages_keeps_no_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let arrival = harness.arrive().await;
    harness.links.start_visit(&arrival, DEVICE).await.unwrap();
    let visitors = harness.links.visitors(DEVICE).await.unwrap();
    assert_eq!((visitors.len(), visitors[0].did.as_str()), (1, harness.ann.as_str()));
    assert!(harness.links.visitors("dev-2").await.unwrap().is_empty());
    eventually("it is revoked", async || harness.pds.sessions()[0].ended == Some("revoked")).await;
    harness.links.end_visit(DEVICE, &harness.ann).await.unwrap();
    assert!(harness.links.visitors(DEVICE).await.unwrap().is_empty());
    let again = harness.arrive().await;
    harness.links.start_visit(&again, DEVICE).await.unwrap();
    harness.pass(Duration::from_hours(1));
    assert!(harness.links.visitors(DEVICE).await.unwrap().is_empty());
}

async fn other_replicas_forget_when_the_feed_tells(db: Db) {
    let harness = LinkHarness::start(db).await;
    let link = harness.link().await;
    let other = harness.another();
    other.credential(&link).await.unwrap();
    assert!(other.recall(&link).is_some());
    let follower = tokio::spawn(other.inner.feed.clone().follow());
    harness.links.end(&link, Reason::GrantEnded).await.unwrap();
    eventually("the other replica forgets", async || other.recall(&link).is_none()).await;
    follower.abort();
    // A process that does not read the feed does not use its cache.
    let deaf = harness.another();
    let link = harness.link().await;
    deaf.credential(&link).await.unwrap();
    deaf.inner.feed.fall_silent();
    assert!(deaf.recall(&link).is_none());
}

async fn a_grant_s_end_ends_its_session(db: Db) {
    let harness = LinkHarness::start(db).await;
    let (link, other) = (harness.link().await, harness.link().await);
    harness.credential(&link).await.unwrap();
    let mut tx = harness.db.begin().await.unwrap();
    for grant in [&link, &"a home account's".into()] {
        end_with_grant(&mut tx, grant, harness.now()).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert!(harness.links.is_over(&link).await.unwrap() && harness.links.recall(&link).is_none());
    assert_eq!(harness.reason(&link).await, Some("grant_ended"));
    assert!(!harness.links.is_over(&other).await.unwrap());
    eventually("its server is told", async || harness.pds.sessions()[0].ended == Some("revoked")).await;
    // Sessions are compared with their grants only when the time for a decision is over.
    harness.pass(Duration::from_mins(16));
    assert_eq!(harness.links.live(None).await.unwrap(), std::slice::from_ref(&other));
    assert!(harness.links.live(Some(&other)).await.unwrap().is_empty());
}
