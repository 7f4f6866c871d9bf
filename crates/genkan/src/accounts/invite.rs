//! Invite codes: made by the operator, used at sign-up, as often as they say.

use data_encoding::BASE32_NOPAD;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::base::{Timestamp, random};
use crate::db::{self, Db, Tx};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) code: String,
    pub(crate) uses: u32,
    pub(crate) left: u32,
    pub(crate) for_account: String,
    pub(crate) created_by: String,
    pub(crate) created_at: Timestamp,
    pub(crate) disabled_at: Option<Timestamp>,
}

/// Who used a code, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InviteUse {
    pub(crate) code: String,
    pub(crate) did: String,
    pub(crate) used_at: Timestamp,
}

/// `for_account`: the DID it is made for, or `admin`. `host`: the public host name, which begins the code.
pub(crate) async fn create(
    tx: &mut Tx,
    host: &str,
    for_account: &str,
    created_by: &str,
    uses: u32,
    now: Timestamp,
) -> db::Result<Invite> {
    let code = generate(host);
    sqlx::query(
        "INSERT INTO invite_codes (code, uses, left_over, for_account, created_by, created_at)
         VALUES ($1, $2, $2, $3, $4, $5)",
    )
    .bind(&code)
    .bind(i64::from(uses))
    .bind(for_account)
    .bind(created_by)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(Invite {
        code,
        uses,
        left: uses,
        for_account: for_account.to_owned(),
        created_by: created_by.to_owned(),
        created_at: now,
        disabled_at: None,
    })
}

/// Whether the code could be used now. Only [`take`] decides.
pub(crate) async fn is_good(db: &Db, code: &str) -> db::Result<bool> {
    let row =
        sqlx::query("SELECT 1 FROM invite_codes WHERE code = $1 AND left_over > 0 AND disabled_at IS NULL")
            .bind(code)
            .fetch_optional(db.reader())
            .await?;
    Ok(row.is_some())
}

/// Uses the code once for `did`. `false`: it is unknown, used up or disabled.
pub(crate) async fn take(tx: &mut Tx, code: &str, did: &str, now: Timestamp) -> db::Result<bool> {
    let done = sqlx::query(
        "UPDATE invite_codes SET left_over = left_over - 1 WHERE code = $1 AND left_over > 0 AND disabled_at IS NULL",
    )
    .bind(code)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query("INSERT INTO invite_uses (code, did, used_at) VALUES ($1, $2, $3)")
        .bind(code)
        .bind(did)
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

/// Gives a use back when the sign-up came to nothing. Repeating it gives back nothing more.
pub(crate) async fn give_back(tx: &mut Tx, code: &str, did: &str) -> db::Result<()> {
    let done = sqlx::query("DELETE FROM invite_uses WHERE code = $1 AND did = $2")
        .bind(code)
        .bind(did)
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 1 {
        sqlx::query("UPDATE invite_codes SET left_over = left_over + 1 WHERE code = $1")
            .bind(code)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// `false`: there is no such code, or it was disabled before.
pub(crate) async fn disable(tx: &mut Tx, code: &str, now: Timestamp) -> db::Result<bool> {
    let done =
        sqlx::query("UPDATE invite_codes SET disabled_at = $2 WHERE code = $1 AND disabled_at IS NULL")
            .bind(code)
            .bind(now.as_millis())
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Disables every code made for an account.
pub(crate) async fn disable_of_account(tx: &mut Tx, account: &str, now: Timestamp) -> db::Result<u64> {
    let done = sqlx::query(
        "UPDATE invite_codes SET disabled_at = $2 WHERE for_account = $1 AND disabled_at IS NULL",
    )
    .bind(account)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

pub(crate) async fn list(db: &Db, limit: i64) -> db::Result<Vec<Invite>> {
    let rows = sqlx::query(
        "SELECT code, uses, left_over, for_account, created_by, created_at, disabled_at FROM invite_codes
         ORDER BY created_at DESC, code LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

pub(crate) async fn of_account(db: &Db, account: &str) -> db::Result<Vec<Invite>> {
    let rows = sqlx::query(
        "SELECT code, uses, left_over, for_account, created_by, created_at, disabled_at FROM invite_codes
         WHERE for_account = $1 ORDER BY created_at, code",
    )
    .bind(account)
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

pub(crate) async fn uses_of(db: &Db, code: &str) -> db::Result<Vec<InviteUse>> {
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

/// `example-com-abcde-fghij`: 50 random bits.
fn generate(host: &str) -> String {
    let letters = BASE32_NOPAD.encode(&random::bytes::<7>()).to_ascii_lowercase();
    let (first, second) = (letters.get(..5).unwrap_or_default(), letters.get(5..10).unwrap_or_default());
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{host}-{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(
        a_code_is_used_as_often_as_it_says,
        a_use_is_given_back_once,
        a_disabled_code_is_no_good
    );

    const NOW: Timestamp = Timestamp::from_millis(1000);

    async fn made(db: &Db, uses: u32) -> String {
        let mut tx = db.begin().await.unwrap();
        let invite = create(&mut tx, "example.com", "admin", "operator", uses, NOW).await.unwrap();
        tx.commit().await.unwrap();
        assert!(invite.code.starts_with("example-com-") && invite.code.len() == 23, "{}", invite.code);
        invite.code
    }

    async fn a_code_is_used_as_often_as_it_says(db: Db) {
        let code = made(&db, 2).await;
        let mut tx = db.begin().await.unwrap();
        assert!(take(&mut tx, &code, "did:plc:a", NOW).await.unwrap());
        assert!(take(&mut tx, &code, "did:plc:b", NOW).await.unwrap());
        assert!(!take(&mut tx, &code, "did:plc:c", NOW).await.unwrap());
        assert!(!take(&mut tx, "no-such-code", "did:plc:c", NOW).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!is_good(&db, &code).await.unwrap());
        assert_eq!(uses_of(&db, &code).await.unwrap().len(), 2);
    }

    async fn a_use_is_given_back_once(db: Db) {
        let code = made(&db, 1).await;
        let mut tx = db.begin().await.unwrap();
        assert!(take(&mut tx, &code, "did:plc:a", NOW).await.unwrap());
        give_back(&mut tx, &code, "did:plc:a").await.unwrap();
        give_back(&mut tx, &code, "did:plc:a").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(list(&db, 10).await.unwrap()[0].left, 1);
    }

    async fn a_disabled_code_is_no_good(db: Db) {
        let code = made(&db, 5).await;
        let mut tx = db.begin().await.unwrap();
        assert!(disable(&mut tx, &code, NOW).await.unwrap());
        assert!(!disable(&mut tx, &code, NOW).await.unwrap());
        assert!(!take(&mut tx, &code, "did:plc:a", NOW).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!is_good(&db, &code).await.unwrap());
        assert_eq!(of_account(&db, "admin").await.unwrap().len(), 1);
    }
}
