//! A database that is busy or overloaded: 503 for requests that need it, while forwarding goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genkan_testing::{Plan, Schema};

use crate::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_sqlite_is_waited_for_five_seconds() {
    use sqlx::{Connection as _, Executor as _};
    let net = store::sqlite().await;
    let alice = net.sign_up("alice").await;
    // The token is checked once here, and is in memory from then on.
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}", net.database_file().display());
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    // `BEGIN IMMEDIATE` takes SQLite's only write lock. Readers are not blocked (WAL).
    other.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();

    let start = Instant::now();
    let answer = net.refresh(&alice.refresh).await;
    assert_eq!(answer.summary(), "503 NotEnoughResources");
    assert_ne!(answer.header("retry-after"), "");
    // SQLite waits five seconds for the lock (`busy_timeout`). The bounds leave room for a slow
    // machine.
    assert!((3..9).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    // Reading goes on, and forwarding does.
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();

    // A short wait is no error at all. While it lasts, others are answered.
    let waiting = net.refresh(&alice.refresh);
    let release = async {
        for _ in 0..10 {
            net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();
        }
        other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, release);
    assert_eq!(answer.summary(), "200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_used_up_pool_does_not_stop_forwarding() {
    use sqlx::{Connection as _, Executor as _};
    let schema = Schema::borrow().await;
    // Two connections are used up quickly.
    let plan: Plan = store::postgres(&schema).set("GENKAN_DATABASE_CONNECTIONS", "2");
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    let repo = [("repo", alice.did.as_str())];
    // The location of the repository is in the cache from here on.
    net.visitor().query("com.atproto.repo.describeRepo", &repo).await.ok();
    let mut other = sqlx::AnyConnection::connect(&schema.url()).await.unwrap();
    other
        // This lock blocks even reads of the two tables.
        .execute(sqlx::raw_sql("BEGIN; LOCK TABLE accounts, sessions IN ACCESS EXCLUSIVE MODE"))
        .await
        .unwrap();

    // As long as the tables are locked, these hold or wait for both connections of the pool.
    let released = Arc::new(AtomicBool::new(false));
    let stuck: Vec<_> = (0..6)
        .map(|_| {
            let (client, released) = (net.visitor().bearer(&alice.refresh), Arc::clone(&released));
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                while !released.load(Ordering::Relaxed) {
                    let answer = client.call("com.atproto.server.refreshSession").await;
                    outcomes.push(answer.summary());
                }
                outcomes
            })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND relation IN ('accounts'::regclass, 'sessions'::regclass)";
    let until = Instant::now() + Duration::from_secs(10);
    // Only now is the pool known to be used up, and the measurement can begin.
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut other).await.unwrap() < 2 {
        assert!(Instant::now() < until, "both connections of the pool wait for the lock");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    while began.elapsed() < OVERLOAD {
        let start = Instant::now();
        net.visitor().query("com.atproto.repo.describeRepo", &repo).await.ok();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        // The changes feed needs the pool, too. While it cannot be read, a token that is in memory
        // may have been revoked by another process. After some seconds the token is looked up,
        // which fails.
        let start = Instant::now();
        let is_trusted = began.elapsed() < TRUSTED;
        let answer = net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await;
        if is_trusted {
            assert_eq!(answer.summary(), "200");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        } else {
            assert!(["200", "503 NotEnoughResources"].contains(&answer.summary().as_str()));
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let start = Instant::now();
    // A sign-in needs the database. It must fail in time and not hang.
    assert_eq!(net.sign_in(&alice.handle, &alice.password).await.summary(), "503 NotEnoughResources");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    released.store(true, Ordering::Relaxed);
    other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    for outcomes in stuck {
        for outcome in outcomes.await.unwrap() {
            assert!(["200", "503 NotEnoughResources"].contains(&outcome.as_str()), "{outcome}");
        }
    }
    net.sign_in(&alice.handle, &alice.password).await.ok();
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
}

/// How long the story keeps the pool used up.
const OVERLOAD: Duration = Duration::from_secs(9);
/// For at least this long a token in memory is trusted without a reading of the changes feed: the
/// feed's limit is 4 s, and its last reading is up to a second old.
const TRUSTED: Duration = Duration::from_millis(2_500);
