//! The order of a start, and what a failed one leaves behind.

use std::net::SocketAddr;
use std::path::Path;

use sqlx::{AnyConnection, Connection as _, Executor as _, Row as _};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::base::Secret;
use crate::db::{feed, on_each_database};

on_each_database!(
    nothing_is_served_before_the_process_is_known,
    a_start_that_fails_at_its_end_leaves_no_row,
    a_start_that_fails_on_the_fleet_leaves_no_row,
    a_start_that_takes_too_long_leaves_no_row
);

async fn prepared(db: &Db) -> Preparation {
    let mut config = Config::for_tests(Path::new("/nowhere"));
    config.keys.sealing_key = Some(Secret::new([9; 32]));
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.directory.front_listen = None;
    let app = App::build_on(db.clone(), config, Clock::of_process(), Metrics::default()).await.unwrap();
    Preparation::of(app, LiveReplicas::one()).await.unwrap()
}

fn this_process(db: &Db) -> Replica {
    Replica::new(db, &Clock::of_process(), "this one")
}

async fn rows(db: &Db) -> i64 {
    let row = sqlx::query("SELECT COUNT(*) AS number FROM replicas").fetch_one(db.reader()).await.unwrap();
    row.try_get("number").unwrap()
}

/// Long enough for a busy machine.
fn ample() -> StartLimit {
    let total = Duration::from_mins(1);
    StartLimit { until: monotonic_now() + total, total }
}

async fn serve(prepared: Preparation, db: &Db, limit: &StartLimit) -> Result<Edge, StartError> {
    let (_stop, stopping) = watch::channel(false);
    Box::pin(prepared.serve(&this_process(db), limit, &mut JoinSet::new(), &stopping)).await
}

#[expect(clippy::disallowed_methods, reason = "a test connects to its own server on loopback")]
async fn nothing_is_served_before_the_process_is_known(db: Db) {
    let prepared = prepared(&db).await;
    let address = prepared.address.address();
    let is_open = async || TcpStream::connect(address).await.is_ok();
    assert_eq!((is_open().await, rows(&db).await), (false, 0));
    let replica = this_process(&db);
    let entered = prepared.enter(&replica).await.unwrap();
    assert_eq!((is_open().await, rows(&db).await), (false, 1));
    let (_stop, stopping) = watch::channel(false);
    let edge = entered.open(&mut JoinSet::new(), &stopping).unwrap();
    assert_eq!((is_open().await, rows(&db).await), (true, 1));
    edge.stop(Duration::ZERO).await;
    leave(&replica).await;
    assert_eq!(rows(&db).await, 0);
}

/// Another program listens on the port in the last moment.
async fn a_start_that_fails_at_its_end_leaves_no_row(db: Db) {
    let prepared = prepared(&db).await;
    let thief = TcpSocket::new_v4().unwrap();
    thief.set_reuseaddr(true).unwrap();
    thief.bind(prepared.address.address()).unwrap();
    let _taken = thief.listen(1).unwrap();
    let failed = Box::pin(serve(prepared, &db, &ample())).await.unwrap_err();
    assert!(matches!(failed, StartError::Listen { setting: "GENKAN_LISTEN", .. }), "{failed}");
    assert_eq!(rows(&db).await, 0);
}

async fn a_start_that_fails_on_the_fleet_leaves_no_row(db: Db) {
    let prepared = prepared(&db).await;
    sqlx::query("ALTER TABLE hosts RENAME TO out_of_reach").execute(db.writer()).await.unwrap();
    let failed = Box::pin(serve(prepared, &db, &ample())).await;
    // Schemas of PostgreSQL are lent to the next test.
    sqlx::query("ALTER TABLE out_of_reach RENAME TO hosts").execute(db.writer()).await.unwrap();
    let failed = failed.unwrap_err();
    assert!(matches!(failed, StartError::Fleet(_)), "{failed}");
    assert_eq!(rows(&db).await, 0);
}

/// On PostgreSQL another transaction holds what the start has to write. SQLite has no second writer
/// that could hold it up so far.
async fn a_start_that_takes_too_long_leaves_no_row(db: Db) {
    let prepared = prepared(&db).await;
    let mut tx = db.begin().await.unwrap();
    feed::note(&mut tx, Change::Fleet, "oak").await.unwrap();
    tx.commit().await.unwrap();
    if db.is_embedded() {
        return;
    }
    let mut other = db.begin().await.unwrap();
    sqlx::query("LOCK TABLE replica_reads").execute(&mut *other).await.unwrap();
    let total = Duration::from_millis(500);
    let limit = StartLimit { until: monotonic_now() + total, total };
    let failed = Box::pin(serve(prepared, &db, &limit)).await.unwrap_err();
    assert!(matches!(failed, StartError::TimedOut(_)), "{failed}");
    drop(other);
    assert_eq!(rows(&db).await, 0);
}

/// The first step waits for the write lock of the file for longer than the start may take.
#[tokio::test]
async fn the_time_of_a_slow_step_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::for_tests(folder.path());
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}?mode=rwc", folder.path().join("genkan.db").display());
    let mut other = AnyConnection::connect(&url).await.unwrap();
    other.execute("PRAGMA journal_mode = WAL").await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let limit = Duration::from_secs(3);
    let opening = tokio::spawn(async move { open_upgraded(&config, limit).await });
    // Only the clock tells that the limit has passed, also for a second look at the schema.
    tokio::time::sleep(limit * 2 + Duration::from_secs(1)).await;
    assert!(!opening.is_finished(), "{:?}", opening.await);
    other.execute("ROLLBACK").await.unwrap();
    assert!(opening.await.unwrap().unwrap().is_some(), "it has a time of its own after the step");
}
