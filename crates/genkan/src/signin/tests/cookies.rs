//! How browsers are recognised, and how a theft of cookies is noticed.

use std::time::Duration;

use sqlx::Row as _;

use super::harness::{SignInHarness, seen};
use crate::accounts::Rank;
use crate::db::{Db, on_each_database};
use crate::signin::service::{LOST_ANSWER, ROTATE_EVERY, TOLERANCE};
use crate::signin::{BrowserInfo, Cookies, Persistence, SignIns, sql};

on_each_database!(
    a_browser_is_known_by_its_cookies,
    over_the_budget_a_browser_gets_its_row_when_it_signs_in,
    the_cookie_rotates_and_its_old_value_is_a_sign_of_theft,
    a_browser_that_moved_gets_a_new_cookie,
    a_cookie_from_before_a_sign_in_is_worth_nothing_for_it,
    the_database_has_no_cookie,
);

async fn a_browser_is_known_by_its_cookies(db: Db) {
    let harness = SignInHarness::new(db);
    let first = harness.visit(None).await;
    let again = harness.visit(first.to_set()).await;
    assert_eq!(again.device, first.device);
    // A known browser keeps its cookie until it is time to rotate it.
    assert!(again.to_set().is_none());
    harness.wait(Duration::from_mins(1));
    assert!(harness.visit(first.to_set()).await.to_set().is_none());
    let row = sql::find(&harness.db, &first.device).await.unwrap().unwrap();
    assert_eq!(row.seen_at, harness.clock.clock().now(), "the visit was noted");

    let other = harness.visit(None).await;
    assert_ne!(other.device, first.device);
    let unknown = Cookies::fresh();
    assert!(harness.sign_ins.peek(Some(&unknown), &seen("192.0.2.1")).await.unwrap().is_none());
    assert!(harness.sign_ins.peek(None, &seen("192.0.2.1")).await.unwrap().is_none());
    assert_ne!(harness.visit(Some(&unknown)).await.device.as_str(), unknown.device_hash());
}

async fn over_the_budget_a_browser_gets_its_row_when_it_signs_in(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    harness.sign_ins.spend_all();
    let first = harness.visit(None).await;
    let planted = first.to_set().unwrap().clone();
    let mut again = harness.visit(Some(&planted)).await;
    assert_eq!((&again.device, again.to_set().is_none()), (&first.device, true));
    harness.sign_ins.rotate(&mut again).await.unwrap();
    harness.sign_ins.sign_out(&mut again, &ann).await.unwrap();
    assert_eq!((devices(&harness.db).await, again.to_set().is_none()), (0, true), "nothing is stored");
    assert_eq!(harness.dids(&again, None).await, Vec::<String>::new());

    let mut tab = harness.visit(Some(&planted)).await;
    harness.sign_in(&mut again, &ann, Persistence::Remembered).await;
    assert_eq!((devices(&harness.db).await, &again.device), (1, &first.device));
    let own = again.to_set().unwrap().clone();
    assert_eq!(harness.dids(&harness.visit(Some(&own)).await, None).await, [ann.as_str()]);
    // A cookie from before the sign-in is worth nothing for it, as any other.
    let stale = harness.visit(Some(&planted)).await;
    assert_eq!((&stale.device, stale.to_set().is_none()), (&first.device, true));
    assert_eq!(harness.dids(&stale, None).await, Vec::<String>::new());
    // Another tab of this browser signs in at the same time.
    harness.sign_in(&mut tab, &ann, Persistence::Remembered).await;
    assert_eq!((devices(&harness.db).await, &tab.device), (1, &first.device));
    assert_eq!(harness.dids(&harness.visit(tab.to_set()).await, None).await, [ann.as_str()]);
    harness.wait(LOST_ANSWER + Duration::from_millis(1));
    harness.visit(Some(&planted)).await;
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);

    let other = SignIns::new(
        harness.db.clone(),
        harness.clock.clock(),
        harness.accounts.clone(),
        harness.passwords.clone(),
        [8; 32].into(),
    );
    let planted = harness.visit(None).await;
    assert!(other.peek(planted.to_set(), &seen("192.0.2.1")).await.unwrap().is_none(), "another key");
}

async fn devices(db: &Db) -> i64 {
    sqlx::query("SELECT COUNT(*) AS number FROM devices").fetch_one(db.reader()).await.unwrap().get("number")
}

async fn the_cookie_rotates_and_its_old_value_is_a_sign_of_theft(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();

    harness.wait(ROTATE_EVERY);
    let rotated = harness.visit(Some(&old)).await;
    let new = rotated.to_set().unwrap().clone();
    assert_ne!(new.session_hash(), old.session_hash());
    assert_eq!(harness.dids(&rotated, None).await, [ann.as_str()]);

    // A request that was under way during the rotation still has the old cookie.
    harness.wait(TOLERANCE);
    let late = harness.visit(Some(&old)).await;
    assert_eq!((&late.device, late.to_set().is_none()), (&rotated.device, true));
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    assert!(harness.visit(Some(&new)).await.to_set().is_none());

    // From here on only a thief, or a browser restored from a backup, has the old cookie.
    harness.wait(LOST_ANSWER);
    let stolen = harness.visit(Some(&old)).await;
    assert_ne!(stolen.device, rotated.device);
    assert_eq!(harness.dids(&stolen, None).await, Vec::<String>::new());
    let owner = harness.visit(Some(&new)).await;
    assert_ne!(owner.device, rotated.device, "nobody gets in with its cookies any more");
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
}

async fn a_browser_that_moved_gets_a_new_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let first = harness.visit(None).await;
    let cookies = first.to_set().unwrap();
    let moved = harness.sign_ins.visit(Some(cookies), &seen("192.0.2.9")).await.unwrap();
    assert_eq!(moved.device, first.device);
    assert_ne!(moved.to_set().unwrap().session_hash(), cookies.session_hash());
    let other = BrowserInfo { user_agent: "curl".to_owned(), ..seen("192.0.2.9") };
    assert!(harness.sign_ins.visit(moved.to_set(), &other).await.unwrap().to_set().is_some());
}

async fn a_cookie_from_before_a_sign_in_is_worth_nothing_for_it(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let before = visit.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(1));
    let mut visit = harness.visit(Some(&before)).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let after = visit.to_set().unwrap().clone();
    assert_ne!(after.session_hash(), before.session_hash());

    let stale = harness.visit(Some(&before)).await;
    assert_eq!(stale.device, visit.device);
    assert_eq!(harness.dids(&stale, None).await, [ann.as_str()], "what it could do before, and no more");
    let after = harness.visit(Some(&after)).await;
    for (visit, rank) in [(&stale, Rank::Ordinary), (&after, Rank::Known)] {
        assert_eq!(harness.rank(visit, &ann).await, rank);
    }
    assert_eq!(harness.dids(&after, None).await, [bob.as_str(), ann.as_str()]);
}

async fn the_database_has_no_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let visit = harness.visit(None).await;
    let cookies = visit.to_set().unwrap();
    let row = sqlx::query("SELECT id, session FROM devices").fetch_one(harness.db.reader()).await.unwrap();
    let (id, session): (String, String) = (row.get("id"), row.get("session"));
    for kept in [id, session] {
        assert!(!cookies.device().expose().contains(&kept) && !cookies.session().expose().contains(&kept));
        assert_eq!(kept.len(), 64);
    }
}
