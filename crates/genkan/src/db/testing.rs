//! Fresh databases for tests: a SQLite file, or a borrowed schema of `GENKAN_TEST_POSTGRES`.

use std::path::PathBuf;
use std::sync::Arc;

use genkan_testing::Schema;
use sqlx::{Executor as _, Row as _};

use super::connection::Pool;
use super::dialect::Dialect;
use super::migrate::Upgrade;
use super::{DatabaseUrl, Db, PoolSize, Result, Tx};
use crate::base::random;

/// Mounts each `async fn name(db: Db)` twice: as `sqlite::name`, and as `postgres::name`, which
/// is ignored unless asked for (it needs `GENKAN_TEST_POSTGRES`).
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let fresh = $crate::db::testing::Fresh::sqlite().await;
                super::$name(fresh.db.clone()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs GENKAN_TEST_POSTGRES"]
            async fn $name() {
                let fresh = $crate::db::testing::Fresh::postgres().await;
                super::$name(fresh.db.clone()).await;
            })+
        }
    };
}
pub(crate) use on_each_database;

/// A database of its own for one test, removed with this value.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) db: Db,
    folder: Option<PathBuf>,
    /// Borrowed as long as the database is in use.
    _schema: Option<Schema>,
}

impl Fresh {
    pub(crate) async fn sqlite() -> Self {
        Self::sqlite_of(PoolSize::default()).await
    }

    pub(crate) async fn sqlite_of(size: PoolSize) -> Self {
        let folder = std::env::temp_dir().join(format!("genkan-test-{}", random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let db = Db::open_upgraded(&DatabaseUrl::sqlite(&folder.join("test.db")), size).await.unwrap();
        Self { db, folder: Some(folder), _schema: None }
    }

    pub(crate) async fn postgres() -> Self {
        let schema = Schema::borrow().await;
        let size = PoolSize { connections: 4, ..PoolSize::default() };
        let db = Db::open_upgraded(&DatabaseUrl::postgres(schema.url()), size).await.unwrap();
        Self { db, folder: None, _schema: Some(schema) }
    }
}

impl Db {
    /// Opens a database, and brings its schema up to date first.
    pub(crate) async fn open_upgraded(url: &DatabaseUrl, size: PoolSize) -> Result<Self> {
        if let Some(upgrade) = Upgrade::find(url).await? {
            upgrade.apply().await?;
        }
        Self::open(url, size).await
    }

    /// Makes the next write to a table fail, as if its transaction had to give way (PostgreSQL).
    async fn give_way_once(&self, table: &str) {
        self.run(&format!(
            "CREATE SEQUENCE given_way;
             CREATE FUNCTION give_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                -- A rollback does not take the number back.
                IF nextval('given_way') = 1 THEN
                    RAISE EXCEPTION 'gave way' USING ERRCODE = '40001';
                END IF;
                RETURN COALESCE(NEW, OLD);
             END $$;
             CREATE TRIGGER give_way BEFORE INSERT OR UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION give_way();"
        ))
        .await;
    }

    /// Ends [`Db::give_way_once`]. Returns how many writes there were.
    async fn gave_way(&self, table: &str) -> i64 {
        let writes = sqlx::query_scalar("SELECT last_value FROM given_way").fetch_one(self.reader()).await;
        self.run(&format!(
            "DROP TRIGGER give_way ON {table}; DROP FUNCTION give_way; DROP SEQUENCE given_way"
        ))
        .await;
        writes.unwrap()
    }

    /// Does work whose first write to a table gives way (PostgreSQL). It is repeated.
    pub(crate) async fn giving_way<T>(&self, table: &str, work: impl Future<Output = T>) -> T {
        self.give_way_once(table).await;
        let done = work.await;
        assert!(self.gave_way(table).await > 1, "no write to {table} was repeated");
        done
    }

    /// Requires that a statement finds rows in an index alone. A table of few rows is worth no index on
    /// PostgreSQL, so other ways and the `others` of its indexes are forbidden there.
    pub(crate) async fn assert_reads_index_only(&self, others: &[&str], text: &str) {
        let mut tx = self.begin().await.unwrap();
        let (explain, column, expected) = match self.dialect {
            Dialect::Sqlite => ("EXPLAIN QUERY PLAN", "detail", "USING COVERING INDEX"),
            Dialect::Postgres => ("EXPLAIN", "QUERY PLAN", "Index Only Scan"),
        };
        if self.dialect == Dialect::Postgres {
            let ways = ["seqscan", "bitmapscan", "sort"].map(|way| format!("SET LOCAL enable_{way} = off"));
            let drops = others.iter().map(|index| format!("DROP INDEX {index}"));
            for statement in ways.into_iter().chain(drops) {
                tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await.unwrap();
            }
        }
        let explain = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{explain} {text}")));
        let plan = tx.fetch_all(explain).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.try_get(column).unwrap()).collect();
        // Dropped and not committed: the next test may get the same schema.
        assert!(plan.iter().any(|line| line.contains(expected)), "{plan:#?}");
    }

    async fn run(&self, text: &str) {
        let mut tx = self.begin().await.unwrap();
        tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()))).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// This database as another process has it: connections and subscribers of its own.
    pub(crate) fn apart(&self) -> Self {
        self.apart_with(self.write.inner.options().get_max_connections())
    }

    /// This database as another process has it, with so many connections in each pool.
    pub(crate) fn apart_with(&self, connections: u32) -> Self {
        let again = |pool: &Pool| {
            let options = pool.inner.options().clone().max_connections(connections);
            let inner = options.connect_lazy_with((*pool.inner.connect_options()).clone());
            Pool::new(inner, self.dialect, Arc::default(), pool.is_writer)
        };
        let write = again(&self.write);
        let read = if self.dialect == Dialect::Sqlite { again(&self.read) } else { write.clone() };
        Self { dialect: self.dialect, write, read, subscribers: Arc::default(), shared_clock: Arc::default() }
    }

    /// Takes every connection of the pool for readings, for as long as the result is kept.
    pub(crate) async fn hold_readers(&self) -> Vec<impl Sized + use<>> {
        let mut held = Vec::new();
        for _ in 0..self.read.inner.options().get_max_connections() {
            held.push(self.read.take().await.unwrap());
        }
        held
    }

    /// Waits until a statement of another connection waits for `tx`. On SQLite there is one writer, and
    /// what comes later is begun later.
    pub(crate) async fn until_waited_for(&self, tx: &mut Tx) {
        if self.dialect == Dialect::Sqlite {
            return;
        }
        let own: i64 =
            sqlx::query_scalar("SELECT CAST(pg_backend_pid() AS BIGINT)").fetch_one(&mut **tx).await.unwrap();
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
             WHERE CAST($1 AS INTEGER) = ANY (pg_blocking_pids(pid))";
        while sqlx::query_scalar::<_, i64>(waiting).bind(own).fetch_one(self.reader()).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
