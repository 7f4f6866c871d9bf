//! Upgrades from older schemas, beside older binaries, and beside other upgrades.

use std::path::PathBuf;

use genkan_testing::{Line, LineState};
use sqlx::migrate::Migrator;

use super::*;
use crate::base::random;

/// An empty database: a file, or a schema of its own.
struct Empty {
    url: DatabaseUrl,
    folder: Option<PathBuf>,
    schema: Option<String>,
}

impl Empty {
    fn sqlite() -> Self {
        let folder = std::env::temp_dir().join(format!("genkan-upgrade-{}", random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { url: DatabaseUrl::sqlite(&folder.join("test.db")), folder: Some(folder), schema: None }
    }

    async fn postgres() -> Self {
        sqlx::any::install_default_drivers();
        let server = std::env::var("GENKAN_TEST_POSTGRES").unwrap();
        let schema = format!("upgrade_{}", random::id().to_lowercase().replace('-', "_"));
        let create = format!("CREATE SCHEMA {schema}");
        AnyConnection::connect(&server)
            .await
            .unwrap()
            .execute(sqlx::raw_sql(AssertSqlSafe(create)))
            .await
            .unwrap();
        let joint = if server.contains('?') { '&' } else { '?' };
        let url = DatabaseUrl::postgres(format!("{server}{joint}options=-csearch_path%3D{schema}"));
        Self { url, folder: None, schema: Some(schema) }
    }

    async fn connect(&self) -> AnyConnection {
        sqlx::any::install_default_drivers();
        AnyConnection::connect(self.url.expose()).await.unwrap()
    }

    async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.connect().await.execute(sql).await.unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }

    async fn upgrade(&self, steps: &'static [Step]) -> Result<()> {
        match Upgrade::find_among(steps, &self.url).await? {
            Some(upgrade) => upgrade.apply().await,
            None => Ok(()),
        }
    }

    /// Starts as a binary does that uses sqlx's migrator alone and knows the steps up to
    /// [`LAST_OF_SQLX`]. Returns the version that it finds.
    async fn start_parent(&self) -> i64 {
        let mut connection = self.connect().await;
        let known = STEPS.iter().filter(|step| step.version <= LAST_OF_SQLX);
        let mut migrator =
            Migrator::with_migrations(known.map(|step| step.for_sqlx(self.url.dialect())).collect());
        migrator.set_ignore_missing(true);
        migrator.run(&mut connection).await.unwrap();
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    async fn remove(self) {
        if let Some(schema) = &self.schema {
            self.execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

macro_rules! on_empty_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                let empty = super::Empty::sqlite();
                super::$name(&empty).await;
                empty.remove().await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs GENKAN_TEST_POSTGRES"]
            async fn $name() {
                let empty = super::Empty::postgres().await;
                super::$name(&empty).await;
                empty.remove().await;
            })+
        }
    };
}

on_empty_databases!(
    the_binary_before_starts_on_a_newer_schema,
    a_schema_names_the_oldest_binary_that_may_use_it,
    a_database_of_the_binary_before_gets_the_later_steps,
    upgrades_at_once_apply_each_step_once,
    a_step_with_another_text_is_reported,
    each_database_may_have_a_text_of_its_own,
    a_failed_step_is_named_and_leaves_nothing,
);

const TABLE: Step =
    Step::new(20, "names", "CREATE TABLE IF NOT EXISTS names (name TEXT NOT NULL, age BIGINT)");
const COLUMN: Step = Step::new(21, "towns", "ALTER TABLE names ADD COLUMN town TEXT NOT NULL DEFAULT ''");
const INDEX: Step = Step::new(22, "index", "-- Why.\nCREATE UNIQUE INDEX names_by_name ON names (name);");
const LAST: Step = STEPS[STEPS.len() - 1];
const START: Step = STEPS[0];
const RECORDS: Step = STEPS[9];

/// A short schema with a later step of each kind.
const NEWER: &[Step] = &[START, RECORDS, TABLE, COLUMN, INDEX];
/// The schema of a later binary.
const LATER: &[Step] =
    &[START, RECORDS, TABLE, Step::new(1000, "more", "CREATE INDEX names_by_age ON names (age)")];

async fn the_binary_before_starts_on_a_newer_schema(empty: &Empty) {
    empty.upgrade(STEPS).await.unwrap();
    assert_eq!(empty.start_parent().await, LAST_OF_SQLX);
    // And a binary of today on the schema of a later one.
    empty.upgrade(LATER).await.unwrap();
    assert!(Upgrade::find_among(STEPS, &empty.url).await.unwrap().is_none());
    assert_eq!(empty.start_parent().await, LAST_OF_SQLX);
}

async fn a_schema_names_the_oldest_binary_that_may_use_it(empty: &Empty) {
    const BREAKING: &[Step] = &[START, RECORDS, TABLE, COLUMN.since(20)];
    empty.upgrade(BREAKING).await.unwrap();
    // It knows step 20, though not 21.
    assert!(Upgrade::find_among(&[START, RECORDS, TABLE], &empty.url).await.unwrap().is_none());
    let refused = Upgrade::find_among(&[START, RECORDS], &empty.url).await.unwrap_err();
    assert!(matches!(refused, Error::Newer { needed: 20, known: 10 }), "{refused}");
    // Binaries that look only at sqlx's table must see it there.
    let seen = empty.count("SELECT MAX(version) FROM _sqlx_migrations").await;
    assert!(seen > LAST_OF_SQLX, "{seen}");
}

async fn a_database_of_the_binary_before_gets_the_later_steps(empty: &Empty) {
    assert_eq!(empty.start_parent().await, LAST_OF_SQLX);
    empty.upgrade(STEPS).await.unwrap();
    let steps = i64::try_from(STEPS.len()).unwrap() - LAST_OF_SQLX;
    assert_eq!(empty.count("SELECT COUNT(*) FROM schema_steps").await, steps);
    assert_eq!(LAST.version, empty.count("SELECT MAX(version) FROM schema_steps").await);
    assert!(Upgrade::find(&empty.url).await.unwrap().is_none());
}

async fn upgrades_at_once_apply_each_step_once(empty: &Empty) {
    let all = futures_util::future::join_all((0..4).map(|_| empty.upgrade(NEWER))).await;
    for outcome in all {
        outcome.unwrap();
    }
    assert_eq!(empty.count("SELECT COUNT(*) FROM schema_steps").await, 4);
    empty.execute("INSERT INTO names (name) VALUES ('ann')").await;
}

async fn a_step_with_another_text_is_reported(empty: &Empty) {
    const OTHER: &[Step] =
        &[START, RECORDS, TABLE, COLUMN, Step::new(22, "index", "CREATE INDEX other ON names (age)")];
    empty.upgrade(NEWER).await.unwrap();
    let refused = empty.upgrade(OTHER).await.unwrap_err();
    assert!(matches!(refused, Error::ChangedStep { version: 22 }), "{refused}");
}

async fn each_database_may_have_a_text_of_its_own(empty: &Empty) {
    const EACH: &[Step] = &[
        START,
        RECORDS,
        Step::per_dialect(
            20,
            "names",
            "CREATE TABLE IF NOT EXISTS in_sqlite (name TEXT)",
            "CREATE TABLE IF NOT EXISTS in_postgres (name TEXT)",
        ),
    ];
    empty.upgrade(EACH).await.unwrap();
    let table = if empty.folder.is_some() { "in_sqlite" } else { "in_postgres" };
    empty.execute(&format!("INSERT INTO {table} (name) VALUES ('ann')")).await;
}

async fn a_failed_step_is_named_and_leaves_nothing(empty: &Empty) {
    const WRONG: &[Step] =
        &[START, RECORDS, TABLE, Step::new(21, "wrong", "UPDATE names SET no_such_column = 1")];
    let failed = empty.upgrade(WRONG).await.unwrap_err();
    assert!(matches!(failed, Error::Migrate { version: 21, name: "wrong", .. }), "{failed}");
    assert_eq!(empty.count("SELECT COUNT(*) FROM schema_steps WHERE version > 20").await, 0);
    empty.upgrade(NEWER).await.unwrap();
}

/// A machine that dies while it has the lock. PostgreSQL keeps its session, which is silent.
#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn the_lock_of_a_dead_machine_is_released() {
    let empty = Empty::postgres().await;
    let line = Line::to(empty.url.expose()).await;
    let through = DatabaseUrl::postgres(line.through(empty.url.expose()));
    let mut dead = Upgrade::find_among(NEWER, &through).await.unwrap().unwrap();
    dead.lock().await.unwrap();
    line.set(LineState::Silent);
    let upgraded = tokio::time::timeout(Duration::from_mins(1), empty.upgrade(NEWER)).await;
    upgraded.expect("the lock is free within a minute").unwrap();
    empty.remove().await;
}

/// A step that is recorded in one of the two tables would not be repeated, and old binaries would not
/// see it.
#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn an_index_is_recorded_in_both_tables_or_in_none() {
    const EXCLUDING: &[Step] = &[START, RECORDS, TABLE, COLUMN, INDEX.since(20)];
    let empty = Empty::postgres().await;
    empty.upgrade(&[START, RECORDS, TABLE, COLUMN]).await.unwrap();
    empty.execute("ALTER TABLE _sqlx_migrations ADD CONSTRAINT no_later CHECK (version < 22)").await;
    empty.upgrade(EXCLUDING).await.unwrap_err();
    assert_eq!(empty.count("SELECT COUNT(*) FROM schema_steps WHERE version = 22").await, 0);
    empty.execute("ALTER TABLE _sqlx_migrations DROP CONSTRAINT no_later").await;
    empty.upgrade(EXCLUDING).await.unwrap();
    assert_eq!(empty.count("SELECT MAX(version) FROM _sqlx_migrations").await, 22);
    empty.remove().await;
}

const BROKEN: &str =
    "SELECT COUNT(*) FROM pg_index WHERE indexrelid = to_regclass('names_by_name') AND NOT indisvalid";

/// A build that was killed, or that found duplicates, leaves an index that PostgreSQL does not use.
#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_broken_index_is_built_again() {
    let empty = Empty::postgres().await;
    empty.upgrade(&[START, RECORDS, TABLE, COLUMN]).await.unwrap();
    empty.execute("INSERT INTO names (name) VALUES ('ann'), ('ann')").await;
    let failed = empty.upgrade(NEWER).await.unwrap_err();
    assert!(matches!(failed, Error::Migrate { version: 22, .. }), "{failed}");
    assert_eq!(empty.count(BROKEN).await, 1, "the fault is there");
    empty.execute("DELETE FROM names").await;
    empty.upgrade(NEWER).await.unwrap();
    assert_eq!(empty.count(BROKEN).await, 0);
    assert_eq!(empty.count("SELECT COUNT(*) FROM pg_indexes WHERE indexname = 'names_by_name' AND schemaname = current_schema()").await, 1);
    empty.remove().await;
}

/// A change of a table waits behind a long transaction, and everything else would wait behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_step_that_waits_for_a_table_lets_others_use_it() {
    let empty = Empty::postgres().await;
    empty.upgrade(&[START, RECORDS, TABLE]).await.unwrap();
    let mut long = empty.connect().await;
    long.execute("BEGIN; SELECT * FROM names").await.unwrap();
    let upgrade = Upgrade::find_among(NEWER, &empty.url).await.unwrap().unwrap();
    let upgrading = tokio::spawn(upgrade.apply());
    // More than one attempt passes, and between them every statement gets its turn.
    let mut other = empty.connect().await;
    other.execute("SET statement_timeout = '8s'").await.unwrap();
    let began = monotonic_now();
    let mut reads = 0;
    while began.elapsed() < Duration::from_secs(4) {
        sqlx::query("SELECT name FROM names").fetch_all(&mut other).await.unwrap();
        reads += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reads > 3 && !upgrading.is_finished(), "{reads} reads");
    long.execute("COMMIT").await.unwrap();
    upgrading.await.unwrap().unwrap();
    assert_eq!(empty.count("SELECT COUNT(*) FROM schema_steps WHERE version = 22").await, 1);
    empty.remove().await;
}

/// An index is built while transactions are open on its table, and blocks none of their writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn an_index_is_built_beside_writers() {
    let empty = Empty::postgres().await;
    empty.upgrade(&[START, RECORDS, TABLE, COLUMN]).await.unwrap();
    let mut writer = empty.connect().await;
    writer.execute("BEGIN; INSERT INTO names (name) VALUES ('ann')").await.unwrap();
    let upgrade = Upgrade::find_among(NEWER, &empty.url).await.unwrap().unwrap();
    let upgrading = tokio::spawn(upgrade.apply());
    // The build waits for the open transaction for longer than a step may wait for a lock.
    let began = monotonic_now();
    while began.elapsed() < Duration::from_secs(3) {
        empty
            .execute(
                "SET statement_timeout = '2s'; INSERT INTO names (name) VALUES (gen_random_uuid()::text)",
            )
            .await;
    }
    assert!(!upgrading.is_finished());
    writer.execute("COMMIT").await.unwrap();
    upgrading.await.unwrap().unwrap();
    empty.remove().await;
}

/// Requests may take 10 s per statement, and steps as long as they need.
#[tokio::test]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_step_has_no_time_limit() {
    let empty = Empty::postgres().await;
    let mut upgrade = Upgrade::find_among(NEWER, &empty.url).await.unwrap().unwrap();
    let show = "SELECT current_setting('statement_timeout')";
    let limit: String = sqlx::query_scalar(show).fetch_one(&mut upgrade.connection).await.unwrap();
    assert_eq!(limit, "0");
    empty.remove().await;
}
