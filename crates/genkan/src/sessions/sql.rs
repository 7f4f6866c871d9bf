//! Table `sessions`.

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use super::SessionId;
use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};

pub(super) async fn insert(
    tx: &mut Tx,
    id: &SessionId,
    did: &Did,
    scope: Scope,
    app_password: Option<&str>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO sessions (id, did, scope, app_password, opened_at, touched_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $5, $6)",
    )
    .bind(id.as_str())
    .bind(did.as_str())
    .bind(scope.as_str())
    .bind(app_password)
    .bind(now.as_millis())
    .bind(expires_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Holds the row of a live session and returns its scope. Returns `None` if it has ended or never
/// existed.
pub(super) async fn touch(
    tx: &mut Tx,
    id: &SessionId,
    did: &Did,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Option<Scope>> {
    let row = sqlx::query(
        // An update locks the row on both databases. So of a refresh and a sign-out at the same
        // time, the second sees the first.
        "UPDATE sessions SET touched_at = $3, expires_at = $4 WHERE id = $1 AND did = $2 AND ended_at IS NULL
         RETURNING scope",
    )
    .bind(id.as_str())
    .bind(did.as_str())
    .bind(now.as_millis())
    .bind(expires_at.as_millis())
    .fetch_optional(&mut **tx)
    .await?;
    // The scope is read from the row and not from the token, so the server decides what a session
    // may do.
    let Some(row) = row else { return Ok(None) };
    let scope = row
        .try_get::<String, _>("scope")?
        .parse()
        .map_err(|_| Error::corrupt("sessions", "scope", id.as_str()))?;
    Ok(Some(scope))
}

/// Ends a session. Returns `false` if it had ended or never existed.
pub(super) async fn end_one(tx: &mut Tx, id: &SessionId, did: &Did, now: Timestamp) -> Result<bool> {
    let done =
        sqlx::query("UPDATE sessions SET ended_at = $3 WHERE id = $1 AND did = $2 AND ended_at IS NULL")
            .bind(id.as_str())
            .bind(did.as_str())
            .bind(now.as_millis())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends an account's sessions, or those of one app password, and returns their ids.
pub(super) async fn end_all(
    tx: &mut Tx,
    did: &Did,
    app_password: Option<&str>,
    now: Timestamp,
) -> Result<Vec<SessionId>> {
    let rows = match app_password {
        None => {
            sqlx::query("UPDATE sessions SET ended_at = $2 WHERE did = $1 AND ended_at IS NULL RETURNING id")
                .bind(did.as_str())
                .bind(now.as_millis())
                .fetch_all(&mut **tx)
                .await?
        }
        Some(name) => {
            sqlx::query(
                "UPDATE sessions SET ended_at = $2 WHERE did = $1 AND app_password = $3 AND ended_at IS NULL
                 RETURNING id",
            )
            .bind(did.as_str())
            .bind(now.as_millis())
            .bind(name)
            .fetch_all(&mut **tx)
            .await?
        }
    };
    rows.iter().map(|row| Ok(row.try_get::<String, _>("id")?.into())).collect()
}

/// Whether a session is alive.
pub(super) async fn is_alive(db: &Db, id: &SessionId, did: &Did) -> Result<bool> {
    // The expiry is in the token, which is checked before. This asks for what a token cannot say.
    let row = sqlx::query("SELECT 1 FROM sessions WHERE id = $1 AND did = $2 AND ended_at IS NULL")
        .bind(id.as_str())
        .bind(did.as_str())
        .fetch_optional(db.reader())
        .await?;
    Ok(row.is_some())
}

/// Removes a batch of sessions that ended in `range`.
pub(super) async fn sweep_ended(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "sessions", key: "id", time: "ended_at", only: None };
    old.sweep(db, range).await
}

/// Removes a batch of sessions that expired in `range`.
pub(super) async fn sweep_expired(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "sessions", key: "id", time: "expires_at", only: None };
    old.sweep(db, range).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(an_ended_session_cannot_be_touched, an_app_password_ends_its_own_sessions);

    fn ann() -> Did {
        "did:plc:ann".parse().unwrap()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    async fn open(tx: &mut Tx, id: &str, app_password: Option<&str>) {
        let scope = if app_password.is_some() { Scope::AppPass } else { Scope::Access };
        insert(tx, &id.into(), &ann(), scope, app_password, NOW, NOW).await.unwrap();
    }

    async fn an_ended_session_cannot_be_touched(db: Db) {
        let mut tx = db.begin().await.unwrap();
        open(&mut tx, "s1", None).await;
        assert_eq!(touch(&mut tx, &"s1".into(), &ann(), NOW, NOW).await.unwrap(), Some(Scope::Access));
        assert_eq!(
            touch(&mut tx, &"s1".into(), &"did:plc:bob".parse().unwrap(), NOW, NOW).await.unwrap(),
            None
        );
        assert!(end_one(&mut tx, &"s1".into(), &ann(), NOW).await.unwrap());
        assert!(!end_one(&mut tx, &"s1".into(), &ann(), NOW).await.unwrap());
        assert_eq!(touch(&mut tx, &"s1".into(), &ann(), NOW, NOW).await.unwrap(), None);
        tx.commit().await.unwrap();
        assert!(!is_alive(&db, &"s1".into(), &ann()).await.unwrap());

        let mut tx = db.begin().await.unwrap();
        open(&mut tx, "not ended", None).await;
        tx.commit().await.unwrap();
        let after = Timestamp::from_millis(1_000_001);
        assert_eq!(sweep_ended(&db, NOW.into()).await.unwrap().removed, 0);
        assert_eq!(sweep_ended(&db, after.into()).await.unwrap().removed, 1);
        assert_eq!(sweep_expired(&db, NOW.into()).await.unwrap().removed, 0);
        assert_eq!(sweep_expired(&db, after.into()).await.unwrap().removed, 1);
    }

    async fn an_app_password_ends_its_own_sessions(db: Db) {
        let mut tx = db.begin().await.unwrap();
        open(&mut tx, "s1", None).await;
        open(&mut tx, "s2", Some("phone")).await;
        open(&mut tx, "s3", Some("desk")).await;
        assert_eq!(end_all(&mut tx, &ann(), Some("phone"), NOW).await.unwrap(), ["s2".into()]);
        let mut rest = end_all(&mut tx, &ann(), None, NOW).await.unwrap();
        rest.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        assert_eq!(rest, ["s1".into(), "s3".into()]);
        tx.commit().await.unwrap();
        assert!(!is_alive(&db, &"s3".into(), &ann()).await.unwrap());
    }
}
