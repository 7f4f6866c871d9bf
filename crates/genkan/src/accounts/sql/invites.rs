//! Tables `invite_codes` and `invite_uses`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::accounts::{Invite, InviteUse};
use crate::base::Timestamp;
use crate::db::{self, Db, Tx};

pub(in crate::accounts) async fn insert(tx: &mut Tx, invite: &Invite) -> db::Result<()> {
    sqlx::query(
        "INSERT INTO invite_codes (code, uses, left_over, for_account, created_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&invite.code)
    .bind(i64::from(invite.uses))
    .bind(i64::from(invite.left))
    .bind(&invite.for_account)
    .bind(&invite.created_by)
    .bind(invite.created_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Whether the code could be used now. [`take`] decides.
pub(in crate::accounts) async fn is_good(db: &Db, code: &str) -> db::Result<bool> {
    let row =
        sqlx::query("SELECT 1 FROM invite_codes WHERE code = $1 AND left_over > 0 AND disabled_at IS NULL")
            .bind(code)
            .fetch_optional(db.reader())
            .await?;
    Ok(row.is_some())
}

/// Uses the code once for `did`. Returns `false` if it is unknown, used up or disabled.
pub(in crate::accounts) async fn take(
    tx: &mut Tx,
    code: &str,
    did: &Did,
    now: Timestamp,
) -> db::Result<bool> {
    // Condition and count are one statement, so the last use goes to a single sign-up.
    let done = sqlx::query(
        "UPDATE invite_codes SET left_over = left_over - 1 WHERE code = $1 AND left_over > 0 AND disabled_at IS NULL",
    )
    .bind(code)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    // The same transaction notes who used it. A sign-up that fails finds it again by the DID.
    sqlx::query("INSERT INTO invite_uses (code, did, used_at) VALUES ($1, $2, $3)")
        .bind(code)
        .bind(did.as_str())
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

/// Returns a use to the code after a failed sign-up. A repeated call returns nothing more.
pub(in crate::accounts) async fn give_back(tx: &mut Tx, code: &str, did: &Did) -> db::Result<()> {
    let done = sqlx::query("DELETE FROM invite_uses WHERE code = $1 AND did = $2")
        .bind(code)
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    // The removed row is the proof that this sign-up used the code, so nothing is returned twice.
    if done.rows_affected() == 1 {
        sqlx::query("UPDATE invite_codes SET left_over = left_over + 1 WHERE code = $1")
            .bind(code)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Disables a code. Returns `false` if there is no such code or it was already disabled.
pub(in crate::accounts) async fn disable(tx: &mut Tx, code: &str, now: Timestamp) -> db::Result<bool> {
    let done =
        sqlx::query("UPDATE invite_codes SET disabled_at = $2 WHERE code = $1 AND disabled_at IS NULL")
            .bind(code)
            .bind(now.as_millis())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Disables every code created for an account.
pub(in crate::accounts) async fn disable_of_account(
    tx: &mut Tx,
    account: &str,
    now: Timestamp,
) -> db::Result<u64> {
    let done = sqlx::query(
        "UPDATE invite_codes SET disabled_at = $2 WHERE for_account = $1 AND disabled_at IS NULL",
    )
    .bind(account)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

pub(in crate::accounts) async fn list(db: &Db, limit: i64) -> db::Result<Vec<Invite>> {
    let rows = sqlx::query(
        "SELECT code, uses, left_over, for_account, created_by, created_at, disabled_at FROM invite_codes
         ORDER BY created_at DESC, code LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

pub(in crate::accounts) async fn of_account(db: &Db, account: &str) -> db::Result<Vec<Invite>> {
    let rows = sqlx::query(
        "SELECT code, uses, left_over, for_account, created_by, created_at, disabled_at FROM invite_codes
         WHERE for_account = $1 ORDER BY created_at, code",
    )
    .bind(account)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

pub(in crate::accounts) async fn uses_of(db: &Db, code: &str) -> db::Result<Vec<InviteUse>> {
    let rows = sqlx::query("SELECT code, did, used_at FROM invite_uses WHERE code = $1 ORDER BY used_at")
        .bind(code)
        .fetch_all(db.reader())
        .await?;
    let uses = rows.iter().map(|row| {
        Ok(InviteUse {
            code: row.try_get("code")?,
            did: row.try_get("did")?,
            used_at: Timestamp::from_millis(row.try_get("used_at")?),
        })
    });
    uses.collect()
}

fn read(row: &AnyRow) -> db::Result<Invite> {
    let count = |column: &str| -> db::Result<u32> {
        Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
    };
    Ok(Invite {
        code: row.try_get("code")?,
        uses: count("uses")?,
        left: count("left_over")?,
        for_account: row.try_get("for_account")?,
        created_by: row.try_get("created_by")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(Timestamp::from_millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(the_codes_of_one_account_are_disabled_together);

    async fn the_codes_of_one_account_are_disabled_together(db: Db) {
        let now = Timestamp::from_millis(7);
        let mut tx = db.begin().await.unwrap();
        for (code, for_account) in [("one", "did:plc:ann"), ("two", "did:plc:ann"), ("other", "admin")] {
            let invite = Invite {
                code: code.to_owned(),
                uses: 1,
                left: 1,
                for_account: for_account.to_owned(),
                created_by: "admin".to_owned(),
                created_at: Timestamp::from_millis(1),
                disabled_at: None,
            };
            insert(&mut tx, &invite).await.unwrap();
        }
        assert!(disable(&mut tx, "one", now).await.unwrap());
        assert_eq!(disable_of_account(&mut tx, "did:plc:ann", now).await.unwrap(), 1, "the other is");
        tx.commit().await.unwrap();
        for (code, good) in [("one", false), ("two", false), ("other", true)] {
            assert_eq!(is_good(&db, code).await.unwrap(), good, "{code}");
        }
    }
}
