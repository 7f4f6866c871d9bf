//! Connections in use: each statement has a deadline, and a connection whose state is in doubt is
//! closed and not used again.
//!
//! [`Pool`] runs single statements, and [`TxConnection`] those of a transaction. Both are executors
//! of sqlx, so `.execute(db.writer())` and `.execute(&mut **tx)` get here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{TryStreamExt as _, stream};
use sqlx::any::{Any, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Either, Execute, Executor, SqlStr};

use super::dialect::Dialect;
use super::error::leaves_connection_in_doubt;
use super::kept::{Kept, Turn};
use super::write_state::WriteState;

/// A pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(super) inner: AnyPool,
    pub(super) dialect: Dialect,
    pub(super) state: Arc<WriteState>,
    /// Whether its single statements write, on SQLite.
    pub(super) is_writer: bool,
    /// The connections between two uses, on SQLite.
    kept: Option<Kept>,
}

impl Pool {
    pub(super) fn new(inner: AnyPool, dialect: Dialect, state: Arc<WriteState>, is_writer: bool) -> Self {
        let kept = dialect.keeps_connections().then(|| Kept::of(&inner));
        Self { inner, dialect, state, is_writer, kept }
    }

    pub(super) async fn close(&self) {
        if let Some(kept) = &self.kept {
            kept.close().await;
        }
        self.inner.close().await;
    }

    /// Checks a single write before it is acknowledged.
    fn check_place(&self) -> sqlx::Result<()> {
        if self.is_writer { self.state.check_place() } else { Ok(()) }
    }

    /// Takes a connection. Waits for one if all are in use.
    pub(super) async fn take(&self) -> sqlx::Result<Taken> {
        let taken = match &self.kept {
            Some(kept) => kept
                .take(&self.inner)
                .await
                .map(|(connection, turn)| (connection, Some((kept.clone(), turn)))),
            None => self.inner.acquire().await.map(|connection| (connection, None)),
        };
        let (connection, kept) = taken.map_err(|cause| self.state.note(cause))?;
        Ok(Taken {
            connection: Some(connection),
            kept,
            dialect: self.dialect,
            state: Arc::clone(&self.state),
            in_doubt: false,
        })
    }

    /// Begins a write transaction.
    pub(super) async fn begin(&self) -> sqlx::Result<TxConnection> {
        let mut taken = self.take().await?;
        // A caller that leaves before the answer does not know whether the transaction began. If it
        // did, the next user of the connection would write into it, and nothing would commit that.
        taken.in_doubt = true;
        let begun = within(self.dialect, taken.get().execute(self.dialect.begin_write())).await;
        taken.settle(begun)?;
        taken.trust();
        Ok(TxConnection { taken, is_open: true, has_failed: false })
    }
}

/// A connection that was taken from a pool. Dropping it gives it back, or closes it if its state is
/// in doubt.
#[derive(Debug)]
pub(super) struct Taken {
    /// `None` only while it is dropped.
    connection: Option<PoolConnection<Any>>,
    /// Where it is kept after this use, on SQLite, and the turn that ends then.
    kept: Option<(Kept, Turn)>,
    dialect: Dialect,
    state: Arc<WriteState>,
    in_doubt: bool,
}

impl Taken {
    fn get(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("the connection is there until the drop")
    }

    /// Says that the state of the connection is known.
    const fn trust(&mut self) {
        self.in_doubt = false;
    }

    /// Takes the outcome of a statement into account.
    fn settle<T>(&mut self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        outcome.map_err(|cause| {
            self.in_doubt |= leaves_connection_in_doubt(&cause);
            self.state.note(cause)
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.in_doubt {
            // Without a word to the database, which may not hear it. The pool opens another one.
            drop(connection.detach());
            return;
        }
        if let Some((kept, turn)) = self.kept.take() {
            // A statement that was cancelled ends before the next one begins: the connection's
            // thread takes one after the other.
            match kept.give_back(connection, turn) {
                None => return,
                Some(returned) => connection = returned,
            }
        }
        // The pool waits for a statement that was cancelled, with a ping that has no limit of its
        // own. A connection to a machine that is gone would keep its place in the pool for minutes.
        let returned = connection.return_to_pool();
        let limit = self.dialect.return_limit();
        spawn(async move {
            match limit {
                Some(limit) => drop(tokio::time::timeout(limit, returned).await),
                None => returned.await,
            }
        });
    }
}

/// The connection of a write transaction. Dropping it before [`TxConnection::commit`] rolls back.
#[derive(Debug)]
pub(crate) struct TxConnection {
    taken: Taken,
    /// Not committed, and not known to be rolled back.
    is_open: bool,
    /// A statement failed. PostgreSQL refuses all that follow, and SQLite may have rolled back by
    /// itself, after which it would run each one that follows outside of a transaction.
    has_failed: bool,
}

impl TxConnection {
    pub(super) const fn dialect(&self) -> Dialect {
        self.taken.dialect
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// The database's own error. The transaction may be committed all the same, because a
    /// connection can break between the commit and its confirmation.
    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        self.check()?;
        let dialect = self.taken.dialect;
        let committed = within(dialect, self.taken.get().execute("COMMIT")).await;
        // Whatever went wrong, the connection may still be in the transaction.
        self.taken.in_doubt = committed.is_err();
        self.is_open = false;
        self.taken.settle(committed)?;
        self.taken.state.check_place()
    }

    fn check(&self) -> sqlx::Result<()> {
        // PostgreSQL answers the commit of a failed transaction without an error, and rolls it back.
        if self.has_failed { Err(sqlx::Error::BeginFailed) } else { Ok(()) }
    }

    fn settle<T>(&mut self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        self.has_failed |= outcome.is_err();
        self.taken.settle(outcome)
    }
}

impl Drop for TxConnection {
    fn drop(&mut self) {
        if !self.is_open || self.taken.in_doubt {
            return;
        }
        let (connection, kept) = (self.taken.connection.take(), self.taken.kept.take());
        let (dialect, state) = (self.taken.dialect, Arc::clone(&self.taken.state));
        // In doubt until the rollback is confirmed. SQLite refuses it when it has already rolled
        // back by itself, and such a connection is closed too.
        let mut taken = Taken { connection, kept, dialect, state, in_doubt: true };
        spawn(async move {
            if within(dialect, taken.get().execute("ROLLBACK")).await.is_ok() {
                taken.trust();
            }
        });
    }
}

/// Spawns the end of a use. When the runtime ends, the connection ends with it.
fn spawn(end: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(end);
    }
}

/// Bounds the time that one statement takes.
async fn within<T>(dialect: Dialect, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let Some(limit) = dialect.statement_limit() else { return statement.await };
    tokio::time::timeout(limit, statement).await.unwrap_or_else(|_| Err(not_in_time(limit)))
}

fn not_in_time(limit: Duration) -> sqlx::Error {
    let told = format!("the database did not answer within {} s", limit.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, told))
}

type Step = Either<AnyQueryResult, AnyRow>;

impl<'p> Executor<'p> for &'p Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        // Read to its end, since a deadline belongs to the whole.
        let steps = async move {
            let mut taken = self.take().await?;
            let steps = within(self.dialect, taken.get().fetch_many(query).try_collect::<Vec<_>>()).await;
            let steps = taken.settle(steps)?;
            self.check_place()?;
            Ok::<_, sqlx::Error>(stream::iter(steps.into_iter().map(Ok)))
        };
        Box::pin(stream::once(steps).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<AnyRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(async move {
            // SQLite's thread ends a reading after its first row, and nothing is committed after it.
            if self.dialect == Dialect::Sqlite && !self.is_writer {
                let mut taken = self.take().await?;
                let row = taken.get().fetch_optional(query).await;
                return taken.settle(row);
            }
            // Read to its end as well. A write that returns a row is committed after that row, and
            // SQLite reports only then that the disk is full.
            let rows: Vec<AnyRow> = self.fetch_all(query).await?;
            Ok(rows.into_iter().next())
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<AnyStatement>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut taken = self.take().await?;
            let prepared = within(self.dialect, taken.get().prepare_with(sql, parameters)).await;
            taken.settle(prepared)
        })
    }
}

impl<'c> Executor<'c> for &'c mut TxConnection {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let steps = async move {
            self.check()?;
            let dialect = self.taken.dialect;
            let steps = within(dialect, self.taken.get().fetch_many(query).try_collect::<Vec<_>>()).await;
            Ok::<_, sqlx::Error>(stream::iter(self.settle(steps)?.into_iter().map(Ok)))
        };
        Box::pin(stream::once(steps).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<AnyRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(async move {
            let rows: Vec<AnyRow> = self.fetch_all(query).await?;
            Ok(rows.into_iter().next())
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<AnyStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.check()?;
            let dialect = self.taken.dialect;
            let prepared = within(dialect, self.taken.get().prepare_with(sql, parameters)).await;
            self.settle(prepared)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use genkan_testing::{Line, LineState, Schema};

    use crate::base::monotonic_now;
    use crate::db::testing::Fresh;
    use crate::db::{DatabaseUrl, Db, PoolSize, on_each_database};

    on_each_database!(
        a_begin_that_is_given_up_leaves_no_transaction_behind,
        a_failed_statement_ends_its_transaction,
        a_full_disk_is_overcome_when_there_is_room_again,
    );

    async fn set(db: &Db, id: &str) {
        sqlx::query(INSERT).bind(id).execute(db.writer()).await.unwrap();
    }

    /// Whether another process sees the row.
    async fn is_kept(db: &Db, id: &str) -> bool {
        let found = sqlx::query("SELECT id FROM replicas WHERE id = $1").bind(id);
        found.fetch_optional(db.apart().reader()).await.unwrap().is_some()
    }

    const INSERT: &str = "INSERT INTO replicas (id, name, started_at, seen_at) VALUES ($1, 'x', 0, 0)";

    /// A client that leaves while its transaction begins.
    async fn a_begin_that_is_given_up_leaves_no_transaction_behind(db: Db) {
        for index in 0..40 {
            // A different moment of the beginning each time.
            let mut begin = Box::pin(db.begin());
            for _ in 0..index % 8 {
                if (&mut begin).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(begin);
            let id = format!("row {index}");
            set(&db, &id).await;
            assert!(is_kept(&db, &id).await, "the write {index} was acknowledged and is not there");
        }
    }

    async fn a_failed_statement_ends_its_transaction(db: Db) {
        let mut tx = db.begin().await.unwrap();
        sqlx::query(INSERT).bind("first").execute(&mut *tx).await.unwrap();
        sqlx::query("INSERT INTO nowhere (id) VALUES (1)").execute(&mut *tx).await.unwrap_err();
        sqlx::query(INSERT).bind("second").execute(&mut *tx).await.unwrap_err();
        tx.commit().await.unwrap_err();
        assert!(!is_kept(&db, "first").await && !is_kept(&db, "second").await);
        set(&db, "first").await;
        assert!(is_kept(&db, "first").await);
    }

    async fn a_full_disk_is_overcome_when_there_is_room_again(db: Db) {
        if !db.is_embedded() {
            // A full disk of PostgreSQL is its operator's. What it answers is in the table of codes.
            return;
        }
        let large = "x".repeat(1 << 20);
        for in_transaction in [true, false] {
            let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(db.writer()).await.unwrap();
            let limit = format!("PRAGMA max_page_count = {}", pages + 2);
            sqlx::query(sqlx::AssertSqlSafe(limit)).fetch_one(db.writer()).await.unwrap();
            let failed = if in_transaction {
                let mut tx = db.begin().await.unwrap();
                sqlx::query(INSERT).bind(&large).execute(&mut *tx).await
            } else {
                sqlx::query(INSERT).bind(&large).execute(db.writer()).await
            };
            let failed = crate::db::Error::from(failed.unwrap_err());
            assert!(failed.is_passing(), "{failed:?}");
            assert!(!db.is_writable(), "readiness is told");
            // There is room again.
            sqlx::query("PRAGMA max_page_count = 100000").fetch_one(db.writer()).await.unwrap();
            let id = format!("after, {in_transaction}");
            let mut tx = db.begin().await.unwrap();
            sqlx::query(INSERT).bind(&id).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            assert!(is_kept(&db, &id).await);
            assert!(!db.is_writable(), "a small write says nothing about a large one");
            db.probe_with(async { Ok(()) }).await.unwrap();
            assert!(db.is_writable());
        }
    }

    /// A primary that became a standby, and a transaction that nothing ended.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_connection_on_which_no_write_succeeds_is_closed() {
        let schema = Schema::borrow().await;
        let size = PoolSize { connections: 1, ..PoolSize::default() };
        let db = Db::open_upgraded(&DatabaseUrl::postgres(schema.url()), size).await.unwrap();
        for spoil in [&["SET SESSION default_transaction_read_only = on"][..], &["BEGIN", "SELECT 1 / 0"]] {
            for statement in spoil {
                let _ = sqlx::query(*statement).execute(db.writer()).await;
            }
            let refused = sqlx::query(INSERT).bind(spoil[0]).execute(db.writer()).await.unwrap_err();
            let refused = crate::db::Error::from(refused);
            assert!(refused.is_passing(), "{refused:?}");
            set(&db, spoil[0]).await;
        }
    }

    /// Each setting releases the locks of a dead machine in a situation of its own: between two
    /// statements, during a statement, or while an answer is being sent.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn the_server_watches_over_each_session() {
        let fresh = Fresh::postgres().await;
        let mut apart = fresh.db.connect_apart().await.unwrap();
        for (name, value) in [
            ("statement_timeout", "10000"),
            ("idle_in_transaction_session_timeout", "10000"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "20000"),
            ("client_connection_check_interval", "5000"),
        ] {
            let text = "SELECT setting FROM pg_settings WHERE name = $1";
            let setting = || sqlx::query_scalar::<sqlx::Any, String>(text).bind(name);
            let of_pool = setting().fetch_one(fresh.db.writer()).await.unwrap();
            let of_feed = setting().fetch_one(&mut apart).await.unwrap();
            assert_eq!((&*of_pool, &*of_feed), (value, value), "{name}");
        }
    }

    /// A machine that dies in a transaction: PostgreSQL keeps its connection, which is silent.
    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_dead_machine_keeps_its_locks_for_less_than_half_a_minute() {
        const UPDATE: &str = "UPDATE replicas SET seen_at = 1 WHERE id = 'row'";
        let schema = Schema::borrow().await;
        let line = Line::to(&schema.url()).await;
        let open = async |url: String| {
            let size = PoolSize { connections: 2, ..PoolSize::default() };
            Db::open_upgraded(&DatabaseUrl::postgres(url), size).await.unwrap()
        };
        let (dead, alive) = (open(line.through(&schema.url())).await, open(schema.url()).await);
        set(&alive, "row").await;
        let mut tx = dead.begin().await.unwrap();
        sqlx::query(UPDATE).execute(&mut *tx).await.unwrap();
        line.set(LineState::Silent);
        let died = monotonic_now();
        // Each of them waits for the lock until its own limit ends it.
        while sqlx::query(UPDATE).execute(alive.writer()).await.is_err() {
            assert!(died.elapsed() < Duration::from_secs(30), "the lock is released");
        }
        // The dead machine's own process gives the connection up, too.
        sqlx::query(UPDATE).execute(&mut *tx).await.unwrap_err();
    }
}
