//! The database: SQLite in one file, or PostgreSQL, behind one portable SQL text.
//!
//! [`Db`] is the database and `Tx` a write transaction. `feed` informs processes of each other's
//! changes, `FeedCache` is a cache that the feed keeps valid, `leases` keep workers apart, and
//! `sweep` removes old rows in batches. `turns` heals what a clock that was ahead put off.
//!
//! Rooms above own their tables and keep their SQL in a private `sql.rs`. Columns are `TEXT` or
//! `BIGINT`, placeholders `$1`, times milliseconds since the epoch. What truly differs between the
//! two databases is in `dialect.rs` and nowhere else.

pub(crate) mod audit;
mod cache;
mod changes;
mod connection;
mod database;
mod dialect;
mod error;
pub(crate) mod feed;
mod file;
mod kept;
pub(crate) mod leases;
mod migrate;
mod pooler;
mod repeat;
pub(crate) mod replicas;
#[cfg(test)]
mod statements;
mod steps;
mod subjects;
pub(crate) mod sweep;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod turns;
mod tx;
mod watch;
mod write_state;

pub(crate) use cache::{FeedCache, Reading};
pub use database::{Db, PoolSize};
pub use dialect::DatabaseUrl;
pub use error::{Error, Result};
pub(crate) use file::{ServingLock, lock_for_serving, refuse_lost_database};
pub(crate) use migrate::Upgrade;
pub(crate) use repeat::repeated;
pub(crate) use replicas::LiveReplicas;
pub(crate) use tx::Tx;

#[cfg(test)]
pub(crate) use testing::on_each_database;
