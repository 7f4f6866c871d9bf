//! Poolers between Genkan and PostgreSQL, such as `PgBouncer`.
//!
//! Genkan needs sessions: its settings, prepared statements and the lock of upgrades belong to one.
//! A pooler in session mode gives each connection a session of its own. In transaction mode it lends
//! sessions to transactions, so settings are lost and statements fail at random.

use sqlx::{AnyConnection, Connection as _, Executor as _, Row as _};

use super::dialect::DatabaseUrl;
use super::{Error, Result};

/// Refuses a pooler that lends one session to several connections.
///
/// Two connections that are open at once have different sessions, unless a pooler shares them. A
/// pooler lends a connection's session to the next that asks, so a few rounds show it.
pub(super) async fn refuse_shared_sessions(url: &DatabaseUrl, first: &mut AnyConnection) -> Result<()> {
    let mut second = AnyConnection::connect(url.expose()).await?;
    for _ in 0..ROUNDS {
        let before = session(first).await?;
        // While the transaction is open, its session cannot be lent to the first connection.
        second.execute(sqlx::raw_sql("BEGIN")).await?;
        let other = session(&mut second).await;
        let after = session(first).await;
        second.execute(sqlx::raw_sql("ROLLBACK")).await?;
        if before == other? || before != after? {
            return Err(Error::SharedSessions);
        }
    }
    second.close().await?;
    Ok(())
}

async fn session(connection: &mut AnyConnection) -> Result<i32> {
    // Without a prepared statement, which the other session would not know.
    let row = connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid() AS pid")).await?;
    Ok(row.try_get("pid")?)
}

const ROUNDS: usize = 3;
