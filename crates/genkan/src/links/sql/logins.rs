//! Table `link_logins`.

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::{Db, Error, Result, Tx};
use crate::links::discovery::Server;

/// A sign-in that waits for its browser to return.
#[derive(Clone, Debug)]
pub(in crate::links) struct Login {
    /// The hash of the `state` that the person's server will send back.
    pub(in crate::links) state: String,
    pub(in crate::links) sealed: String,
    pub(in crate::links) server: Server,
    pub(in crate::links) did: Option<Did>,
    pub(in crate::links) client_id: String,
    pub(in crate::links) client_key: Option<String>,
    pub(in crate::links) request: Option<String>,
    pub(in crate::links) back: String,
    pub(in crate::links) device: String,
    pub(in crate::links) browser: String,
    pub(in crate::links) expires_at: Timestamp,
}

pub(in crate::links) async fn insert(tx: &mut Tx, login: &Login) -> Result<()> {
    sqlx::query(
        "INSERT INTO link_logins
            (state, sealed, server, did, client_id, client_key, request, back, device, browser, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&login.state)
    .bind(&login.sealed)
    .bind(login.server.to_json())
    .bind(login.did.as_ref().map(Did::as_str))
    .bind(&login.client_id)
    .bind(login.client_key.as_deref())
    .bind(login.request.as_deref())
    .bind(&login.back)
    .bind(&login.device)
    .bind(&login.browser)
    .bind(login.expires_at.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a sign-in out of the table, so that its state can be used once.
pub(in crate::links) async fn take(tx: &mut Tx, state: &str) -> Result<Option<Login>> {
    // Deleting and reading are one statement: of two browsers with the same state, one finds no
    // row.
    let row = sqlx::query(
        "DELETE FROM link_logins WHERE state = $1
         RETURNING sealed, server, did, client_id, client_key, request, back, device, browser, expires_at",
    )
    .bind(state)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let corrupt = |column| Error::corrupt("link_logins", column, state);
    let did: Option<String> = row.try_get("did")?;
    Ok(Some(Login {
        state: state.to_owned(),
        sealed: row.try_get("sealed")?,
        server: Server::of_json(&row.try_get::<String, _>("server")?).ok_or_else(|| corrupt("server"))?,
        did: did.map(|did| did.parse()).transpose().map_err(|_| corrupt("did"))?,
        client_id: row.try_get("client_id")?,
        client_key: row.try_get("client_key")?,
        request: row.try_get("request")?,
        back: row.try_get("back")?,
        device: row.try_get("device")?,
        browser: row.try_get("browser")?,
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
    }))
}

/// Removes a batch of sign-ins that expired in `range`.
pub(in crate::links) async fn sweep(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows { table: "link_logins", key: "state", time: "expires_at", only: None };
    old.sweep(db, range).await
}
