//! The tables `hosts` and `host_probes`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::HostId;
use super::host::HostState;
use crate::base::{Origin, Timestamp};
use crate::db::{Db, Error, Result, Tx};

/// A row of `hosts`.
#[derive(Clone, Debug)]
pub(super) struct HostRow {
    pub(super) id: HostId,
    pub(super) origin: Origin,
    pub(super) did: Option<Did>,
    pub(super) state: HostState,
    pub(super) weight: u32,
    pub(super) capacity: Option<u64>,
    pub(super) region: String,
    pub(super) sign_ups_per_hour: Option<u64>,
    pub(super) admin_password_sealed: Option<String>,
    /// The id of its row in `keys`.
    pub(super) signing_key: String,
    pub(super) version: Option<String>,
    pub(super) blob_limit: Option<u64>,
}

/// A row of `host_probes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeRow {
    pub(super) host_id: HostId,
    pub(super) up: bool,
    pub(super) since: Timestamp,
    pub(super) checked_at: Timestamp,
    pub(super) latency_ms: Option<i64>,
    pub(super) reason: Option<String>,
}

pub(super) async fn all(db: &Db) -> Result<Vec<HostRow>> {
    let rows = sqlx::query(select("ORDER BY id")).fetch_all(db.reader()).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn one(db: &Db, id: &HostId) -> Result<Option<HostRow>> {
    let row = sqlx::query(select("WHERE id = $1")).bind(id.as_str()).fetch_optional(db.reader()).await?;
    row.as_ref().map(read).transpose()
}

/// Inserts a host.
///
/// # Errors
///
/// A violation of a unique index if another host has the name, URL or DID.
pub(super) async fn insert(tx: &mut Tx, row: &HostRow, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO hosts (id, url, did, state, weight, capacity, region, sign_ups_per_hour, \
         admin_password_sealed, signing_key, version, blob_limit, added_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
    )
    .bind(row.id.as_str())
    .bind(row.origin.as_str())
    .bind(row.did.as_ref().map(Did::as_str))
    .bind(row.state.as_str())
    .bind(i64::from(row.weight))
    .bind(signed(row.capacity))
    .bind(&row.region)
    .bind(signed(row.sign_ups_per_hour))
    .bind(row.admin_password_sealed.as_deref())
    .bind(&row.signing_key)
    .bind(row.version.as_deref())
    .bind(signed(row.blob_limit))
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes all columns except name and URL. Returns `false` if there is no such host.
pub(super) async fn update(tx: &mut Tx, row: &HostRow, now: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE hosts SET did = $2, state = $3, weight = $4, capacity = $5, region = $6, sign_ups_per_hour = $7, \
         admin_password_sealed = $8, signing_key = $9, version = $10, blob_limit = $11, updated_at = $12 \
         WHERE id = $1",
    )
    .bind(row.id.as_str())
    .bind(row.did.as_ref().map(Did::as_str))
    .bind(row.state.as_str())
    .bind(i64::from(row.weight))
    .bind(signed(row.capacity))
    .bind(&row.region)
    .bind(signed(row.sign_ups_per_hour))
    .bind(row.admin_password_sealed.as_deref())
    .bind(&row.signing_key)
    .bind(row.version.as_deref())
    .bind(signed(row.blob_limit))
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn remove(tx: &mut Tx, id: &HostId) -> Result<bool> {
    // The table has no foreign key that would delete the record with the host.
    sqlx::query("DELETE FROM host_probes WHERE host_id = $1").bind(id.as_str()).execute(&mut **tx).await?;
    let done = sqlx::query("DELETE FROM hosts WHERE id = $1").bind(id.as_str()).execute(&mut **tx).await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn probes(db: &Db) -> Result<Vec<ProbeRow>> {
    let rows = sqlx::query("SELECT host_id, health, since, checked_at, latency_ms, reason FROM host_probes")
        .fetch_all(db.reader())
        .await?;
    rows.iter()
        .map(|row| {
            Ok(ProbeRow {
                host_id: row.try_get::<String, _>("host_id")?.into(),
                up: row.try_get::<String, _>("health")? == "up",
                since: Timestamp::from_millis(row.try_get("since")?),
                checked_at: Timestamp::from_millis(row.try_get("checked_at")?),
                latency_ms: row.try_get("latency_ms")?,
                reason: row.try_get("reason")?,
            })
        })
        .collect()
}

/// Records a probe of a host. Several replicas probe, and the last record counts.
pub(super) async fn record_probe(db: &Db, probe: &ProbeRow) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query(
        "INSERT INTO host_probes (host_id, health, since, checked_at, latency_ms, reason) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (host_id) DO UPDATE SET health = excluded.health, since = excluded.since, \
         checked_at = excluded.checked_at, latency_ms = excluded.latency_ms, reason = excluded.reason",
    )
    .bind(probe.host_id.as_str())
    .bind(if probe.up { "up" } else { "down" })
    .bind(probe.since.as_millis())
    .bind(probe.checked_at.as_millis())
    .bind(probe.latency_ms)
    .bind(probe.reason.as_deref())
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

fn select(rest: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!(
        "SELECT id, url, did, state, weight, capacity, region, sign_ups_per_hour, admin_password_sealed, \
         signing_key, version, blob_limit FROM hosts {rest}"
    ))
}

fn read(row: &AnyRow) -> Result<HostRow> {
    let id: String = row.try_get("id")?;
    let corrupt = |column: &'static str| Error::Corrupt { table: "hosts", column, row: id.clone() };
    let count = |column: &'static str| -> Result<Option<u64>> {
        // SQL has no unsigned numbers. A negative one was not written by Genkan.
        let stored: Option<i64> = row.try_get(column)?;
        stored.map(|number| u64::try_from(number).map_err(|_| corrupt(column))).transpose()
    };
    let did: Option<String> = row.try_get("did")?;
    let state: String = row.try_get("state")?;
    let weight: i64 = row.try_get("weight")?;
    let url: String = row.try_get("url")?;
    Ok(HostRow {
        origin: url.parse().map_err(|_| corrupt("url"))?,
        did: did.map(|did| did.parse().map_err(|_| corrupt("did"))).transpose()?,
        state: HostState::parse(&state).ok_or_else(|| corrupt("state"))?,
        weight: u32::try_from(weight).map_err(|_| corrupt("weight"))?,
        capacity: count("capacity")?,
        region: row.try_get("region")?,
        sign_ups_per_hour: count("sign_ups_per_hour")?,
        admin_password_sealed: row.try_get("admin_password_sealed")?,
        signing_key: row.try_get("signing_key")?,
        version: row.try_get("version")?,
        blob_limit: count("blob_limit")?,
        id: id.into(),
    })
}

fn signed(count: Option<u64>) -> Option<i64> {
    // A limit beyond the range is as good as none, so it is cut and not refused.
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::Sealer;
    use crate::db::on_each_database;

    on_each_database!(
        a_host_is_written_and_read_back,
        name_url_and_did_are_unique,
        the_last_probe_counts,
        an_admin_password_is_resealed,
        a_removed_host_leaves_nothing
    );

    fn row(id: &str) -> HostRow {
        HostRow {
            id: id.into(),
            origin: format!("https://{id}.example.com").parse().unwrap(),
            did: Some(format!("did:web:{id}.example.com").parse().unwrap()),
            state: HostState::Enabled,
            weight: 3,
            capacity: Some(1000),
            region: "eu".to_owned(),
            sign_ups_per_hour: None,
            admin_password_sealed: Some("sealed".to_owned()),
            signing_key: "key".to_owned(),
            version: Some("0.5.35".to_owned()),
            blob_limit: Some(5_242_880),
        }
    }

    async fn add(db: &Db, row: &HostRow) -> Result<()> {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, row, Timestamp::from_millis(1)).await?;
        tx.commit().await
    }

    async fn a_host_is_written_and_read_back(db: Db) {
        add(&db, &row("oak")).await.unwrap();
        add(&db, &HostRow { did: None, state: HostState::Prepared, ..row("elm") }).await.unwrap();
        let changed = HostRow { state: HostState::Draining, weight: 0, capacity: None, ..row("oak") };
        let mut tx = db.begin().await.unwrap();
        assert!(update(&mut tx, &changed, Timestamp::from_millis(2)).await.unwrap());
        assert!(!update(&mut tx, &row("ash"), Timestamp::from_millis(2)).await.unwrap());
        tx.commit().await.unwrap();
        let read = one(&db, &"oak".into()).await.unwrap().unwrap();
        assert_eq!(format!("{read:?}"), format!("{changed:?}"));
        let names: Vec<String> = all(&db).await.unwrap().into_iter().map(|row| row.id.to_string()).collect();
        assert_eq!(names, ["elm", "oak"]);
    }

    async fn an_admin_password_is_resealed(db: Db) {
        let (old, new) = Sealer::before_and_after_rotation();
        let purpose = crate::fleet::registry::PASSWORD_SEALED_AS;
        let sealed = Some(old.seal(purpose, "oak", b"password"));
        add(&db, &HostRow { admin_password_sealed: sealed, ..row("oak") }).await.unwrap();
        let column = &crate::fleet::SEALED_COLUMNS[0];
        assert_eq!(column.left(&db, &new).await.unwrap(), 1);
        assert_eq!(column.round(&db, &new, "").await.unwrap().0.resealed, 1);
        assert_eq!(column.left(&db, &new).await.unwrap(), 0);
    }

    async fn name_url_and_did_are_unique(db: Db) {
        add(&db, &row("oak")).await.unwrap();
        for clash in [
            HostRow { id: "oak".into(), ..row("elm") },
            HostRow { origin: row("oak").origin, ..row("elm") },
            HostRow { did: row("oak").did, ..row("elm") },
        ] {
            assert!(matches!(add(&db, &clash).await, Err(Error::Conflict(_))));
        }
    }

    async fn the_last_probe_counts(db: Db) {
        let at = Timestamp::from_millis;
        let first = ProbeRow {
            host_id: "oak".into(),
            up: true,
            since: at(1),
            checked_at: at(1),
            latency_ms: Some(4),
            reason: None,
        };
        let second = ProbeRow {
            up: false,
            checked_at: at(9),
            latency_ms: None,
            reason: Some("away".into()),
            ..first.clone()
        };
        record_probe(&db, &first).await.unwrap();
        record_probe(&db, &second).await.unwrap();
        assert_eq!(probes(&db).await.unwrap(), [second]);
    }

    async fn a_removed_host_leaves_nothing(db: Db) {
        add(&db, &row("oak")).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        assert!(remove(&mut tx, &"oak".into()).await.unwrap());
        assert!(!remove(&mut tx, &"oak".into()).await.unwrap());
        tx.commit().await.unwrap();
        assert!(one(&db, &"oak".into()).await.unwrap().is_none());
    }
}
