//! Table `app_passwords`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::accounts::AppPassword;
use crate::base::Timestamp;
use crate::db::{self, Db, Tx};

/// Inserts an app password. Returns `false` if the account has one of that name.
pub(in crate::accounts) async fn insert(
    tx: &mut Tx,
    did: &Did,
    password: &AppPassword,
    hash: &str,
) -> db::Result<bool> {
    let done = sqlx::query(
        "INSERT INTO app_passwords (did, name, hash, privilege, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(did.as_str())
    .bind(&password.name)
    .bind(hash)
    .bind(if password.privileged { "privileged" } else { "plain" })
    .bind(password.created_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn find(db: &Db, did: &Did, hash: &str) -> db::Result<Option<AppPassword>> {
    let row =
        sqlx::query("SELECT name, privilege, created_at FROM app_passwords WHERE did = $1 AND hash = $2")
            .bind(did.as_str())
            .bind(hash)
            .fetch_optional(db.reader())
            .await?;
    row.as_ref().map(read).transpose()
}

pub(in crate::accounts) async fn list(db: &Db, did: &Did) -> db::Result<Vec<AppPassword>> {
    let rows = sqlx::query(
        "SELECT name, privilege, created_at FROM app_passwords WHERE did = $1 ORDER BY created_at",
    )
    .bind(did.as_str())
    .fetch_all(db.reader())
    .await?;
    rows.iter().map(read).collect()
}

/// Removes an app password. Returns `false` if there was none.
pub(in crate::accounts) async fn remove(tx: &mut Tx, did: &Did, name: &str) -> db::Result<bool> {
    let done = sqlx::query("DELETE FROM app_passwords WHERE did = $1 AND name = $2")
        .bind(did.as_str())
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Holds an app password's row until `tx` ends. Returns `false` if it was removed.
pub(in crate::accounts) async fn hold(tx: &mut Tx, did: &Did, name: &str) -> db::Result<bool> {
    let done = sqlx::query("UPDATE app_passwords SET name = name WHERE did = $1 AND name = $2")
        .bind(did.as_str())
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn remove_all(tx: &mut Tx, did: &Did) -> db::Result<()> {
    sqlx::query("DELETE FROM app_passwords WHERE did = $1").bind(did.as_str()).execute(&mut **tx).await?;
    Ok(())
}

fn read(row: &sqlx::any::AnyRow) -> db::Result<AppPassword> {
    Ok(AppPassword {
        name: row.try_get("name")?,
        privileged: row.try_get::<String, _>("privilege")? == "privileged",
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(the_passwords_of_one_account_go_together);

    async fn the_passwords_of_one_account_go_together(db: Db) {
        let [ann, bob]: [Did; 2] = ["did:plc:ann", "did:plc:bob"].map(|did| did.parse().unwrap());
        let password = |name: &str| AppPassword {
            name: name.to_owned(),
            privileged: false,
            created_at: Timestamp::from_millis(1),
        };
        let mut tx = db.begin().await.unwrap();
        for (did, name) in [(&ann, "phone"), (&ann, "tablet"), (&bob, "phone")] {
            assert!(insert(&mut tx, did, &password(name), name).await.unwrap());
        }
        assert!(!insert(&mut tx, &ann, &password("phone"), "other hash").await.unwrap());
        remove_all(&mut tx, &ann).await.unwrap();
        assert!(!hold(&mut tx, &ann, "phone").await.unwrap());
        assert!(hold(&mut tx, &bob, "phone").await.unwrap());
        tx.commit().await.unwrap();
        assert!(list(&db, &ann).await.unwrap().is_empty());
        assert_eq!(list(&db, &bob).await.unwrap().len(), 1);
    }
}
