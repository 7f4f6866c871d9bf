//! A database that is busy or overloaded: 503 for requests that need it, while forwarding goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genkan_testing::{Line, LineState, Plan, Schema};

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
    // SQLite waits five seconds for the lock (`busy_timeout`). A write of a job may have begun
    // its own wait on the only write connection just before. The bounds leave room for both and
    // for a slow machine.
    assert!((3..14).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
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
    sweep_notes(&schema).await;
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
        // A busy pool is not an unreachable database.
        assert_eq!(net.genkan().ops().get("/readyz").await.status, 200);
        // The changes feed has a connection of its own, so a token that is in memory stays trusted.
        let start = Instant::now();
        net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
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

/// Removes the notes of a sign-up. When the feed reads them, it drops what is in memory once more.
async fn sweep_notes(schema: &Schema) {
    use sqlx::{Connection as _, Executor as _};
    sqlx::any::install_default_drivers();
    let mut other = sqlx::AnyConnection::connect(&schema.url()).await.unwrap();
    other.execute(sqlx::raw_sql("DELETE FROM changes")).await.unwrap();
}

/// A migration by hand, or a backup with a lock, on the table that most requests read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_locked_table_does_not_stop_posts_of_remembered_sessions() {
    use sqlx::{Connection as _, Executor as _};
    let schema = Schema::borrow().await;
    let net = store::postgres(&schema).await;
    let alice = net.sign_up("alice").await;
    sweep_notes(&schema).await;
    let post = serde_json::json!({
        "repo": alice.did, "collection": "app.bsky.feed.post", "record": { "text": "hello" },
    });
    let send = async || {
        let start = Instant::now();
        net.client_of(&alice).procedure("com.atproto.repo.createRecord", &post).await.ok();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    };
    send().await;
    let mut other = sqlx::AnyConnection::connect(&schema.url()).await.unwrap();
    let lock = "BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE";
    other.execute(sqlx::raw_sql(lock)).await.unwrap();

    let began = Instant::now();
    // Others wait for the lock all the time, so the pool stays used up.
    let refreshes = async {
        while began.elapsed() < OVERLOAD {
            let refused = (0..6).map(|_| net.refresh(&alice.refresh));
            for answer in futures_util::future::join_all(refused).await {
                assert_eq!(answer.summary(), "503 NotEnoughResources");
            }
        }
    };
    let posts = async {
        while began.elapsed() < OVERLOAD {
            send().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(refreshes, posts);
    other.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
    net.sign_in(&alice.handle, &alice.password).await.ok();
}

/// How long the pool is used up, and the database far away. Much longer than a cache may be trusted
/// without a reading of the changes feed.
const OVERLOAD: Duration = Duration::from_secs(30);

/// A database that is half a second away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_database_that_is_far_away_does_not_stop_forwarding() {
    let schema = Schema::borrow().await;
    let line = Line::to(&schema.url()).await;
    let through = line.through(&schema.url());
    let net = store::postgres(&schema).set("GENKAN_DATABASE_URL", &through).await;
    let alice = net.sign_up("alice").await;
    sweep_notes(&schema).await;
    net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
    line.set(LineState::Late(Duration::from_millis(250)));

    let is_over = Arc::new(AtomicBool::new(false));
    // These keep the pool busy. Half a second per statement is too slow for all of them.
    let busy: Vec<_> = (0..12)
        .map(|_| {
            let (client, is_over) = (net.visitor().bearer(&alice.refresh), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let summary = client.call("com.atproto.server.refreshSession").await.summary();
                    assert!(["200", "503 NotEnoughResources"].contains(&summary.as_str()), "{summary}");
                }
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < OVERLOAD {
        let start = Instant::now();
        net.client_of(&alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    line.set(LineState::Late(Duration::ZERO));
    for one in busy {
        one.await.unwrap();
    }
}

/// A proxy whose PostgreSQL is away: it accepts each connection and closes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_proxy_that_closes_connections_makes_503_until_its_database_is_back() {
    let schema = Schema::borrow().await;
    let line = Line::to(&schema.url()).await;
    let net = store::postgres(&schema).set("GENKAN_DATABASE_URL", &line.through(&schema.url())).await;
    let alice = net.sign_up("alice").await;
    for state in [LineState::Cut, LineState::Silent] {
        line.set(state);
        for answer in [
            net.refresh(&alice.refresh).await,
            net.sign_in(&alice.handle, &alice.password).await,
            net.refresh(&alice.refresh).await,
        ] {
            assert_eq!(answer.summary(), "503 NotEnoughResources", "{state:?}");
            assert_ne!(answer.header("retry-after"), "");
        }
        line.set(LineState::Late(Duration::ZERO));
        let until = Instant::now() + Duration::from_mins(1);
        while net.refresh(&alice.refresh).await.summary() != "200" {
            assert!(Instant::now() < until, "it recovers from {state:?}");
        }
    }
}
