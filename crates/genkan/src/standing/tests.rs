use genkan_testing::network::eventually;
use genkan_testing::{FakeHost, Gate, Trouble};

use super::sql::{self, Wish};
use super::*;
use crate::accounts::NewAccount;
use crate::accounts::testing::{add, new_account};
use crate::app::testing::app_with_ann;
use crate::db::audit::Actor;
use crate::db::testing::Fresh;
use crate::db::{Db, on_each_database};
use crate::fleet::testing::add_host;

on_each_database!(
    silent_hosts_hold_up_no_deletion_at_another_one,
    a_takedown_is_not_ended_by_the_owner,
    a_restoration_that_fails_leaves_the_takedown_to_be_told,
    a_takedown_overrules_a_restoration_at_work,
    a_deletion_takes_the_copy_of_the_document
);

/// The host is away, so a call that comes as far as the host fails otherwise.
async fn a_takedown_is_not_ended_by_the_owner(db: Db) {
    let (app, ann) = app_with_ann(db).await;
    let (did, by_owner) = (&ann.did, Actor::Account(&ann.did));
    assert!(matches!(app.standings.activate(did, by_owner).await, Err(Error::Host(_))));
    let told = app.standings.take_down(did, "T-1", Actor::Operator).await.unwrap();
    assert_eq!(told, Told::Later);
    let activated = app.standings.activate(did, by_owner).await;
    assert!(matches!(activated, Err(Error::TakenDown)), "{activated:?}");
}

/// The host may never have heard of the takedown, or may have shown the account again.
async fn a_restoration_that_fails_leaves_the_takedown_to_be_told(db: Db) {
    let (app, ann) = app_with_ann(db).await;
    app.standings.take_down(&ann.did, "T-1", Actor::Operator).await.unwrap();
    let restored = app.standings.restore(&ann.did, Actor::Operator).await;
    assert!(matches!(restored, Err(Error::Host(_))), "{restored:?}");
    assert_eq!(sql::find(&app.db, &ann.did).await.unwrap(), Some(Wish::TakenDown));
    let found = app.accounts.find(&ann.did).await.unwrap().unwrap();
    assert_eq!(found.takedown_ref.as_deref(), Some("T-1"));
}

async fn a_takedown_overrules_a_restoration_at_work(db: Db) {
    let (app, ann) = app_with_ann(db).await;
    let (did, now) = (&ann.did, app.clock.now());
    let mut tx = app.db.begin().await.unwrap();
    assert!(sql::insert_or_replace(&mut tx, did, Wish::Restored, "at work", now).await.unwrap());
    tx.commit().await.unwrap();
    let second = app.standings.restore(did, Actor::Operator).await;
    assert!(matches!(second, Err(Error::UnderWay)), "{second:?}");
    assert_eq!(app.standings.take_down(did, "T-1", Actor::Operator).await.unwrap(), Told::Later);
    let mut tx = app.db.begin().await.unwrap();
    assert!(!sql::remove(&mut tx, did, "at work").await.unwrap(), "the restoration can not be finished");
    tx.commit().await.unwrap();
    // The call of the restoration may still arrive at the host, so the next one waits for its end.
    assert_eq!(app.standings.tell_hosts().await.unwrap(), 0);
    assert!(
        sql::abandoned(&app.db, now.plus(std::time::Duration::from_secs(59)), 9).await.unwrap().is_empty()
    );
    let later = now.plus(std::time::Duration::from_mins(2));
    assert_eq!(sql::abandoned(&app.db, later, 9).await.unwrap(), [did.to_string()]);
}

async fn a_deletion_takes_the_copy_of_the_document(db: Db) {
    let (app, ann) = app_with_ann(db).await;
    let mut tx = app.db.begin().await.unwrap();
    app.home_documents.forget(&mut tx, &ann.did).await.unwrap();
    tx.commit().await.unwrap();
    let count = "SELECT COUNT(*) FROM home_documents";
    let copies = async || sqlx::query_scalar::<_, i64>(count).fetch_one(app.db.reader()).await.unwrap();
    assert_eq!(copies().await, 1);
    // The host is away. The account can no longer be used all the same.
    assert!(matches!(app.standings.delete(&ann.did, Actor::Operator).await, Err(Error::Host(_))));
    assert_eq!(copies().await, 0);
}

/// The account's row is locked against another transaction, or the database fails over.
#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_transaction_that_gives_way_is_repeated() {
    let fresh = Fresh::postgres().await;
    let db = &fresh.db;
    let (app, ann) = app_with_ann(db.clone()).await;
    let (did, by) = (&ann.did, Actor::Operator);
    db.giving_way("accounts", app.standings.set_password_hash(did, "hash", by)).await.unwrap();
    let done = db.giving_way("accounts", app.standings.take_down(did, "T-1", by)).await;
    assert_eq!(done.unwrap(), Told::Later);
    db.giving_way("audit", app.credentials.revoke_app_password(did, "phone", by)).await.unwrap();
    // The host is away, after everything was recorded.
    let done = db.giving_way("accounts", app.standings.delete(did, by)).await;
    assert!(matches!(done, Err(Error::Host(_))), "{done:?}");
}

async fn silent_hosts_hold_up_no_deletion_at_another_one(db: Db) {
    const DELETE: &str = "com.atproto.admin.deleteAccount";
    let (app, _) = app_with_ann(db).await;
    let (mut silent, mut healthy, gate) = (Vec::new(), Vec::new(), Gate::closed());
    let mut hosts = Vec::new();
    for name in ["ash", "elm", "yew"] {
        let host = FakeHost::start("admin word").await;
        add_host(&app.fleet, name, &host).await;
        for number in 1..=2 {
            let account = NewAccount { host: name.into(), ..new_account(&format!("{name}{number}")) };
            add(&app.db, &account).await.unwrap();
            let dids = if name == "elm" { &mut healthy } else { &mut silent };
            dids.push(account.did);
        }
        if name != "elm" {
            host.trouble(DELETE, Trouble::Held(gate.clone()));
        }
        hosts.push(host);
    }
    // Deletions that were interrupted long ago.
    let begun = "UPDATE accounts SET deleting_at = 1 WHERE host_id <> 'oak'";
    sqlx::query(begun).execute(app.db.writer()).await.unwrap();
    let standings = app.standings.clone();
    let deleting = tokio::spawn(async move { standings.delete_due().await });
    for did in &healthy {
        let is_deleted = async || app.accounts.find_to_delete(did).await.unwrap().is_none();
        eventually("the account is deleted", is_deleted).await;
    }
    for did in &silent {
        assert!(app.accounts.find_to_delete(did).await.unwrap().is_some());
    }
    let asked = || hosts.iter().map(|host| host.asked(DELETE)).collect::<Vec<_>>();
    eventually("each silent host is asked once", async || asked() == [1, 2, 1]).await;
    gate.open();
    assert!(deleting.await.unwrap().unwrap() >= healthy.len());
}
