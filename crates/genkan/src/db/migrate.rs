//! Bringing the schema up to date: forward only, once, and under a lock.

use sqlx::AnyPool;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::{Error, Result};

/// Every step from an empty database to today's schema, oldest first.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "start", include_str!("../../../../migrations/0001_start.sql")),
    (2, "mail", include_str!("../../../../migrations/0002_mail.sql")),
    (3, "signin", include_str!("../../../../migrations/0003_signin.sql")),
    (4, "oauth", include_str!("../../../../migrations/0004_oauth.sql")),
    (5, "links", include_str!("../../../../migrations/0005_links.sql")),
    (6, "linked grants", include_str!("../../../../migrations/0006_linked_grants.sql")),
    (7, "deletions", include_str!("../../../../migrations/0007_deletions.sql")),
    (8, "replicas", include_str!("../../../../migrations/0008_replicas.sql")),
    (9, "attempts", include_str!("../../../../migrations/0009_attempts.sql")),
];

pub(super) async fn run(pool: &AnyPool) -> Result<()> {
    let steps = STEPS
        .iter()
        .map(|&(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(steps);
    // Steps that this version does not know are reported below as a newer schema, which tells the
    // operator more than sqlx's own error.
    migrator.set_ignore_missing(true);
    let known = STEPS.iter().map(|step| step.0).max().unwrap_or(0);
    match migrator.run(pool).await {
        Ok(()) => {}
        Err(sqlx::migrate::MigrateError::Execute(cause)) => return Err(cause.into()),
        Err(cause) => return Err(Error::Migrate(cause)),
    }
    let found: i64 = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(pool).await?;
    if found > known {
        return Err(Error::Newer { found, known });
    }
    Ok(())
}
