//! Schemas of the tests' PostgreSQL server (`GENKAN_TEST_POSTGRES`). Each one is lent to one test
//! at a time.
//!
//! To make thirty tables with their indexes and drop them again costs more than most tests do. So a
//! schema is kept, and is emptied before the next test borrows it.

use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

/// A schema with no row in any of its tables. No other test has it while this value lives. The
/// first test that borrows a schema finds no tables either.
#[derive(Debug)]
pub struct Schema {
    server: String,
    name: String,
    /// The connection that holds the lock. It closes with the process, so a killed test frees the
    /// lock too.
    _lease: AnyConnection,
}

impl Schema {
    /// # Panics
    ///
    /// If `GENKAN_TEST_POSTGRES` names no server that answers.
    pub async fn borrow() -> Self {
        let server =
            std::env::var("GENKAN_TEST_POSTGRES").expect("GENKAN_TEST_POSTGRES names a database for tests");
        sqlx::any::install_default_drivers();
        let mut lease = AnyConnection::connect(&server).await.unwrap();
        let age = age_of_migrations();
        let mut number = 0_i64;
        // Tests run at the same time in several processes. The first free number is taken, so there
        // are never more schemas than tests at one time.
        while !is_free(&mut lease, number).await {
            number += 1;
        }
        let name = format!("test_{age}_{number}");
        let empty = EMPTY.replace("{name}", &name);
        lease.execute(sqlx::raw_sql(AssertSqlSafe(empty))).await.unwrap();
        Self { server, name, _lease: lease }
    }

    /// Returns the address of the database with this schema in it.
    #[must_use]
    pub fn url(&self) -> String {
        let joint = if self.server.contains('?') { '&' } else { '?' };
        // The search path is part of the address, so every connection of the pool uses this schema.
        format!("{}{joint}options=-csearch_path%3D{}", self.server, self.name)
    }
}

async fn is_free(lease: &mut AnyConnection, number: i64) -> bool {
    // The first number of the key is used by no other lock in Genkan or in sqlx's migrations.
    sqlx::query_scalar("SELECT pg_try_advisory_lock(2019914852, $1::int)")
        .bind(number)
        .fetch_one(lease)
        .await
        .unwrap()
}

/// Returns a hash of the migrations. Schemas whose tables come from other migrations are never lent
/// out.
fn age_of_migrations() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A folder is listed in no fixed order, and the hash depends on the order.
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(file).unwrap());
    }
    let mut age = HEXLOWER.encode(&hash.finalize());
    age.truncate(8);
    age
}

/// Deletes all rows. `TRUNCATE` would make new files for every table.
const EMPTY: &str = "
    CREATE SCHEMA IF NOT EXISTS {name};
    DO $$
        DECLARE found text;
        BEGIN
            PERFORM set_config('session_replication_role', 'replica', true);
            FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = '{name}' AND tablename NOT IN ('_sqlx_migrations', 'schema_steps') LOOP
                EXECUTE format('DELETE FROM {name}.%I', found);
            END LOOP;
        END
    $$";
