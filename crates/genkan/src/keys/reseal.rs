//! Resealing: sealing again, with the current key, what an older key sealed.
//!
//! The server goes on working meanwhile. Each room lists its sealed columns, and the name to which
//! each row is bound. A value is replaced only if it is still the one that was read, so a row that
//! changes meanwhile is left to the next round.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::seal::{Sealer, UnsealError};
use crate::db::{Db, Result, Tx};

/// A column of sealed values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedColumn {
    pub(crate) table: &'static str,
    /// The column that identifies a row.
    pub(crate) key: &'static str,
    pub(crate) column: &'static str,
    /// The purpose to which the values are bound, in addition to their row.
    pub(crate) purpose: &'static str,
    /// The SQL expression of the row name to which a value is bound: in most tables, the key
    /// itself.
    pub(crate) row: &'static str,
}

/// The result of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) resealed: u64,
    /// Rows that cannot be unsealed, by name: damaged, or sealed with an unknown key.
    pub(crate) unopened: Vec<String>,
    /// Whether there may be more rows.
    pub(crate) full: bool,
}

impl SealedColumn {
    /// Returns the number of values that another key than the current one sealed.
    pub(crate) async fn left(&self, db: &Db, sealer: &Sealer) -> Result<u64> {
        let mut left = 0;
        for id in self.key_ids(db).await?.iter().filter(|id| id.as_str() != &*sealer.key_id()) {
            left += self.count(db, id).await?;
        }
        Ok(left)
    }

    /// Counts the values that a key sealed, 5000 in each statement: counting millions at once takes
    /// longer than a statement may.
    async fn count(&self, db: &Db, id: &str) -> Result<u64> {
        let Self { table, key, column, .. } = self;
        let (mut count, mut after) = (0, String::new());
        loop {
            let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT COUNT(*) AS number, COALESCE(MAX(name), '') AS last FROM (
                    SELECT {key} AS name FROM {table} WHERE SUBSTR({column}, 4, 8) = $1 AND {key} > $2
                    ORDER BY {key} LIMIT 5000) AS counted"
            )))
            .bind(id)
            .bind(&after)
            .fetch_one(db.reader())
            .await?;
            let number: i64 = row.try_get("number")?;
            count += u64::try_from(number).unwrap_or(0);
            if number < COUNTED_AT_ONCE {
                return Ok(count);
            }
            after = row.try_get("last")?;
        }
    }

    /// Returns the ids of keys that sealed values here and that the sealer does not have.
    pub(crate) async fn unknown_keys(&self, db: &Db, sealer: &Sealer) -> Result<Vec<String>> {
        Ok(self.key_ids(db).await?.into_iter().filter(|id| !sealer.knows(id)).collect())
    }

    /// Returns the ids of all keys that sealed values here, in order.
    async fn key_ids(&self, db: &Db) -> Result<Vec<String>> {
        let mut ids: Vec<String> = Vec::new();
        // A step in the index for each key, of which there are few, and not a look at each row.
        while let Some(id) = self.next_key_id(db, ids.last().map_or("", String::as_str)).await? {
            ids.push(id);
        }
        Ok(ids)
    }

    async fn next_key_id(&self, db: &Db, after: &str) -> Result<Option<String>> {
        let Self { table, column, .. } = self;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            // `v1.` and then the key id, 8 hexadecimal digits: see `base::seal`. An empty value has
            // no key, and no id follows the empty text.
            "SELECT SUBSTR({column}, 4, 8) AS id FROM {table} WHERE SUBSTR({column}, 4, 8) > $1
             ORDER BY SUBSTR({column}, 4, 8) LIMIT 1"
        )))
        .bind(after)
        .fetch_optional(db.reader())
        .await?;
        Ok(row.map(|row| row.try_get("id")).transpose()?)
    }

    /// Reseals the next values, those that follow `after`. Returns the result, and the `after` of the
    /// next round.
    pub(crate) async fn round(&self, db: &Db, sealer: &Sealer, after: &str) -> Result<(Round, String)> {
        let Self { table, key, column, row, .. } = self;
        // A position is the id of a key, and a row among those that it sealed. The rows that cannot
        // be opened stay behind.
        let (mut id, mut last) = match after.split_once(' ') {
            Some((id, last)) => (Some(id.to_owned()), last.to_owned()),
            None => (self.next_old_key(db, sealer, "").await?, String::new()),
        };
        let mut rows = Vec::new();
        while let Some(of_key) = &id {
            rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT {key} AS name, {row} AS bound, {column} AS value FROM {table}
                 WHERE SUBSTR({column}, 4, 8) = $1 AND {key} > $2 ORDER BY {key} LIMIT 200"
            )))
            .bind(of_key)
            .bind(&last)
            .fetch_all(db.reader())
            .await?;
            if !rows.is_empty() {
                break;
            }
            (id, last) = (self.next_old_key(db, sealer, of_key).await?, String::new());
        }
        let Some(id) = id else { return Ok((Round::default(), after.to_owned())) };
        let has_more = rows.len() == AT_ONCE || self.next_old_key(db, sealer, &id).await?.is_some();
        let mut round = Round { full: has_more, ..Round::default() };
        // The rows were read outside of these transactions. The update compares the old value, so a
        // change in between is not overwritten.
        for some in rows.chunks(usize::try_from(db.rows_at_once()).unwrap_or(AT_ONCE)) {
            let mut tx = db.begin().await?;
            for row in some {
                last = row.try_get("name")?;
                self.reseal(&mut tx, sealer, row, &mut round).await?;
            }
            tx.commit().await?;
        }
        // Also after rows that could not be unsealed, or the next round would read them for ever.
        Ok((round, format!("{id} {last}")))
    }

    async fn reseal(&self, tx: &mut Tx, sealer: &Sealer, row: &AnyRow, round: &mut Round) -> Result<()> {
        let Self { table, key, column, purpose, .. } = self;
        let (name, bound): (String, String) = (row.try_get("name")?, row.try_get("bound")?);
        let value: String = row.try_get("value")?;
        match sealer.reseal(purpose, &bound, &value) {
            Ok(Some(fresh)) => {
                let done = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "UPDATE {table} SET {column} = $1 WHERE {key} = $2 AND {column} = $3"
                )))
                .bind(fresh)
                .bind(&name)
                .bind(&value)
                .execute(&mut **tx)
                .await?;
                round.resealed += done.rows_affected();
            }
            Ok(None) => {}
            // One damaged row must not stop the others. It is reported by name.
            Err(UnsealError::Form | UnsealError::OtherKey(_) | UnsealError::Changed) => {
                round.unopened.push(format!("{table} {name}"));
            }
        }
        Ok(())
    }

    /// Returns the next key that sealed values here and is not the current one.
    async fn next_old_key(&self, db: &Db, sealer: &Sealer, after: &str) -> Result<Option<String>> {
        let mut id = self.next_key_id(db, after).await?;
        if id.as_deref().is_some_and(|id| id == &*sealer.key_id()) {
            id = self.next_key_id(db, &sealer.key_id()).await?;
        }
        Ok(id)
    }
}

/// Number of rows in one round: the `LIMIT` of its statement.
const AT_ONCE: usize = 200;

/// Number of values that one statement counts: its `LIMIT`.
const COUNTED_AT_ONCE: i64 = 5000;

/// The sealed columns of this room.
pub(crate) const SEALED_COLUMNS: &[SealedColumn] = &[
    SealedColumn { table: "keys", key: "id", column: "sealed", purpose: super::ring::SEALED_AS, row: "id" },
    SealedColumn {
        table: "web_keys",
        key: "id",
        column: "sealed",
        purpose: super::web::SEALED_AS,
        row: "id",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::seal::SealingKeys;
    use crate::base::{Clock, Secret};
    use crate::db::on_each_database;
    use crate::keys::Ring;

    on_each_database!(
        everything_is_resealed_and_opens_with_the_new_key_only,
        a_damaged_row_is_named_and_left
    );

    fn keys(current: u8, older: &[u8]) -> SealingKeys {
        let key = |byte| Secret::new([byte; 32]);
        SealingKeys { current: key(current), older: older.iter().copied().map(key).collect() }
    }

    async fn everything_is_resealed_and_opens_with_the_new_key_only(db: Db) {
        let sealer = Sealer::of(&keys(1, &[]));
        let ring = Ring::open(&db, &Clock::of_process(), sealer.clone(), None).await.unwrap();
        assert_eq!(SEALED_COLUMNS[0].left(&db, &sealer).await.unwrap(), 0);
        sealer.replace(&keys(2, &[1]));
        for sealed in SEALED_COLUMNS {
            assert_eq!(sealed.left(&db, &sealer).await.unwrap(), 2, "{}", sealed.table);
            assert_eq!(sealed.unknown_keys(&db, &Sealer::of(&keys(2, &[]))).await.unwrap().len(), 1);
            let (round, _) = sealed.round(&db, &sealer, "").await.unwrap();
            assert_eq!(round, Round { resealed: 2, ..Round::default() });
            assert_eq!(sealed.left(&db, &sealer).await.unwrap(), 0);
        }
        let again = Ring::open(&db, &Clock::of_process(), Sealer::of(&keys(2, &[])), None).await.unwrap();
        assert_eq!(again.rotation().public().to_did_key(), ring.rotation().public().to_did_key());
        assert!(Ring::open(&db, &Clock::of_process(), Sealer::of(&keys(1, &[])), None).await.is_err());
    }

    async fn a_damaged_row_is_named_and_left(db: Db) {
        let sealer = Sealer::of(&keys(1, &[]));
        Ring::open(&db, &Clock::of_process(), sealer.clone(), None).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        sqlx::query("UPDATE web_keys SET sealed = sealed || 'AA' WHERE purpose = 'client'")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        sealer.replace(&keys(2, &[1]));
        let (round, last) = SEALED_COLUMNS[1].round(&db, &sealer, "").await.unwrap();
        assert_eq!((round.resealed, round.unopened.len()), (1, 1));
        assert!(!last.is_empty());
        assert_eq!(SEALED_COLUMNS[1].left(&db, &sealer).await.unwrap(), 1);
    }
}
