use std::time::Duration;

use genkan_testing::Trouble;
use sqlx::Row as _;

use super::world::{DEVICE, World};
use crate::base::Secret;
use crate::base::seal::SealingKeys;
use crate::db::feed::Change;
use crate::db::{Db, on_each_database};
use crate::links::service::DAY;
use crate::links::*;

on_each_database!(
    c18_a_dump_of_the_database_has_no_secret,
    c18_swapped_secrets_do_not_open,
    c18_sessions_and_sign_ins_survive_another_sealing_key,
    c12_an_ended_session_is_refused_at_once_and_revoked,
    a_server_that_is_away_hears_of_the_end_later,
    an_end_that_nobody_hears_is_given_up,
    who_never_decides_leaves_nothing_behind,
    who_only_shows_who_they_are_keeps_no_session,
    other_replicas_forget_when_the_feed_tells,
    a_grant_s_end_ends_its_session
);

async fn dump(world: &World) -> String {
    let mut text = String::new();
    for table in ["links", "link_logins", "audit", "changes"] {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table}")))
            .fetch_all(world.db.reader())
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
    let world = World::start(db).await;
    let link = world.link().await;
    let departure = world.begin("ann.example.com").await.unwrap();
    let state = world.visit(&departure).await.state.unwrap();
    let row = sql::links::find(&world.db, &link).await.unwrap().unwrap();
    let tokens = world.links.inner.open(&row).unwrap();
    let dump = dump(&world).await;
    assert!(dump.contains(&link) && dump.contains(world.ann.as_str()));
    let key = data_encoding::BASE64URL_NOPAD.encode(&*tokens.key.to_bytes());
    for secret in [&tokens.access, &tokens.refresh, &key, &state, departure.browser.expose()] {
        assert!(!dump.contains(secret.as_str()), "{secret}");
    }
    assert!(tokens.access.starts_with("opaque-") && !dump.contains("opaque-"));
}

async fn c18_swapped_secrets_do_not_open(db: Db) {
    let world = World::start(db).await;
    let (one, other) = (world.link().await, world.link().await);
    let sealed = async |link: &str| sql::links::find(&world.db, link).await.unwrap().unwrap().sealed.unwrap();
    let (of_one, of_other) = (sealed(&one).await, sealed(&other).await);
    let mut tx = world.db.begin().await.unwrap();
    for (link, sealed) in [(&one, &of_other), (&other, &of_one)] {
        sqlx::query("UPDATE links SET sealed = $2 WHERE id = $1")
            .bind(link)
            .bind(sealed)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    for link in [one, other] {
        assert_eq!(world.another().credential(&link).await.unwrap_err(), UseError::Broken);
        assert_eq!(world.reason(&link).await, None, "a fault of ours ends no session");
    }
}

async fn c18_sessions_and_sign_ins_survive_another_sealing_key(db: Db) {
    let world = World::start(db).await;
    let link = world.link().await;
    let departure = world.begin("ann.example.com").await.unwrap();
    let callback = world.visit(&departure).await;
    world.pass(Duration::from_mins(1));
    world.links.renew(&link, 1).await.unwrap();
    let (old, new) = (Secret::new([3; 32]), Secret::new([4; 32]));
    let both = SealingKeys { current: new.clone(), older: vec![old] };
    world.links.inner.sealer.replace(&both);
    for sealed in SEALED_COLUMNS {
        assert_eq!(sealed.left(&world.db, &world.links.inner.sealer).await.unwrap(), 1);
        let (round, _) = sealed.round(&world.db, &world.links.inner.sealer, "").await.unwrap();
        assert_eq!((round.resealed, round.unopened), (1, Vec::<String>::new()));
    }
    world.links.inner.sealer.replace(&SealingKeys::one(new));
    assert_eq!(world.credential(&link).await.unwrap().version, 2);
    world.finish(&departure, callback).await.unwrap();
    world.pass(Duration::from_hours(1));
    assert_eq!(world.credential(&link).await.unwrap().version, 3);
}

/// Waits until something done in the background is done.
async fn soon(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..100 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("it was not done in time");
}

async fn state(world: &World, link: &str) -> &'static str {
    world.links.find(link).await.unwrap().unwrap().state.as_str()
}

async fn c12_an_ended_session_is_refused_at_once_and_revoked(db: Db) {
    let world = World::start(db).await;
    let link = world.link().await;
    world.credential(&link).await.unwrap();
    assert!(world.links.end(&link, Reason::GrantEnded).await.unwrap());
    assert!(world.links.recall(&link).is_none());
    assert_eq!(world.credential(&link).await.unwrap_err(), UseError::Gone("grant_ended"));
    assert!(!world.links.end(&link, Reason::Operator).await.unwrap(), "once");
    soon(async || state(&world, &link).await == "dead").await;
    assert_eq!(world.pds.sessions()[0].ended, Some("revoked"));
    assert_eq!(sql::links::find(&world.db, &link).await.unwrap().unwrap().sealed, None);
    assert!(world.links.of_account(&world.ann).await.unwrap().is_empty());
}

async fn a_server_that_is_away_hears_of_the_end_later(db: Db) {
    let world = World::start(db).await;
    let link = world.link().await;
    world.pds.trouble("/oauth/revoke", Trouble::Status(503));
    world.links.drop_waiting(&link).await.unwrap();
    soon(async || world.pds.asked("/oauth/revoke") > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state(&world, &link).await, "ending");
    assert_eq!(world.links.tell_servers().await.unwrap(), 0, "not yet again");
    world.pds.mend();
    world.pass(Duration::from_mins(2));
    // Any process may do it.
    assert_eq!(world.another().tell_servers().await.unwrap(), 1);
    assert_eq!((state(&world, &link).await, world.pds.sessions()[0].ended), ("dead", Some("revoked")));
    assert_eq!(world.reason(&link).await, Some("rejected"));
}

async fn an_end_that_nobody_hears_is_given_up(db: Db) {
    let world = World::start(db).await;
    let link = world.link().await;
    world.pds.trouble("/oauth/revoke", Trouble::Status(500));
    world.links.end(&link, Reason::Operator).await.unwrap();
    soon(async || world.pds.asked("/oauth/revoke") > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..22 {
        world.pass(Duration::from_hours(4));
        world.links.tell_servers().await.unwrap();
    }
    let row = sql::links::find(&world.db, &link).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.sealed), ("dead", None));
    world.pass(DAY * 31);
    sweep(&world.db, world.now()).await.unwrap();
    assert!(world.links.find(&link).await.unwrap().is_none());
}

async fn who_never_decides_leaves_nothing_behind(db: Db) {
    let world = World::start(db).await;
    let (waiting, kept) = (world.arrive().await, world.link().await);
    world.pass(Duration::from_mins(14));
    assert_eq!(world.links.end_undecided().await.unwrap(), 0);
    world.pass(Duration::from_mins(2));
    assert_eq!(world.links.waiting("req-1", DEVICE).await.unwrap(), None);
    assert_eq!(world.links.end_undecided().await.unwrap(), 1);
    assert!(!world.links.keep(&waiting.link).await.unwrap(), "too late");
    soon(async || world.pds.sessions()[0].ended == Some("revoked")).await;
    assert_eq!((state(&world, &kept).await, world.reason(&waiting.link).await), ("live", Some("undecided")));
}

async fn who_only_shows_who_they_are_keeps_no_session(db: Db) {
    let world = World::start(db).await;
    let arrival = world.arrive().await;
    world.links.start_visit(&arrival, DEVICE).await.unwrap();
    let visitors = world.links.visitors(DEVICE).await.unwrap();
    assert_eq!((visitors.len(), visitors[0].did.as_str()), (1, world.ann.as_str()));
    assert!(world.links.visitors("dev-2").await.unwrap().is_empty());
    soon(async || world.pds.sessions()[0].ended == Some("revoked")).await;
    world.links.end_visit(DEVICE, &world.ann).await.unwrap();
    assert!(world.links.visitors(DEVICE).await.unwrap().is_empty());
    let again = world.arrive().await;
    world.links.start_visit(&again, DEVICE).await.unwrap();
    world.pass(Duration::from_hours(1));
    assert!(world.links.visitors(DEVICE).await.unwrap().is_empty());
}

async fn other_replicas_forget_when_the_feed_tells(db: Db) {
    let world = World::start(db).await;
    let link = world.link().await;
    let other = world.another();
    other.credential(&link).await.unwrap();
    assert!(other.recall(&link).is_some());
    let follower = tokio::spawn(other.inner.feed.clone().follow());
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.links.end(&link, Reason::GrantEnded).await.unwrap();
    soon(async || other.recall(&link).is_none()).await;
    follower.abort();
    // A process that does not hear the feed does not believe its memory.
    let deaf = world.another();
    let link = world.link().await;
    deaf.credential(&link).await.unwrap();
    world.pass(Duration::from_secs(5));
    assert!(deaf.recall(&link).is_none());
}

async fn a_grant_s_end_ends_its_session(db: Db) {
    let world = World::start(db).await;
    let (link, other) = (world.link().await, world.link().await);
    let following = tokio::spawn(world.links.clone().follow_grants());
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.links.inner.feed.tell(Change::Grant, "a home account's");
    world.links.inner.feed.tell(Change::Grant, &link);
    soon(async || world.links.is_over(&link).await.unwrap()).await;
    assert_eq!(world.reason(&link).await, Some("grant_ended"));
    assert!(!world.links.is_over(&other).await.unwrap());
    world.pass(Duration::from_mins(16));
    assert_eq!(world.links.live("", 10).await.unwrap(), std::slice::from_ref(&other));
    assert!(world.links.live(&other, 10).await.unwrap().is_empty());
    following.abort();
}
