//! A database that is busy or away (F13, F17): 503 for what needs it, and forwarding goes on.

use std::time::{Duration, Instant};

use genkan_testing::{Plan, Schema};

use crate::store;

/// F13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_sqlite_is_waited_for_five_seconds() {
    use sqlx::{Connection as _, Executor as _};
    let net = store::sqlite().await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}", net.database_file().display());
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    other.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();

    let start = Instant::now();
    let answer = net.refresh(&alice.refresh).await;
    assert_eq!(answer.summary(), "503 NotEnoughResources");
    assert_ne!(answer.header("retry-after"), "");
    assert!((3..9).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    // Reading goes on, and forwarding does.
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();

    // A short wait is no error at all.
    let waiting = net.refresh(&alice.refresh);
    let release = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, release);
    assert_eq!(answer.summary(), "200");
}

/// F17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_used_up_pool_does_not_stop_forwarding() {
    use sqlx::{Connection as _, Executor as _};
    let schema = Schema::borrow().await;
    let plan: Plan = store::postgres(&schema).set("GENKAN_DATABASE_CONNECTIONS", "2");
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    let mut other = sqlx::AnyConnection::connect(&schema.url()).await.unwrap();
    other
        .execute(sqlx::raw_sql("BEGIN; LOCK TABLE accounts, sessions IN ACCESS EXCLUSIVE MODE"))
        .await
        .unwrap();

    let stuck: Vec<_> = (0..6)
        .map(|_| {
            let client = net.visitor().bearer(&alice.refresh);
            tokio::spawn(async move { client.call("com.atproto.server.refreshSession").await.summary() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        let start = Instant::now();
        net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    let start = Instant::now();
    assert_eq!(net.sign_in(&alice.handle, &alice.password).await.summary(), "503 NotEnoughResources");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    for outcome in stuck {
        let outcome = outcome.await.unwrap();
        assert!(["200", "503 NotEnoughResources"].contains(&outcome.as_str()), "{outcome}");
    }
    net.sign_in(&alice.handle, &alice.password).await.ok();
}
