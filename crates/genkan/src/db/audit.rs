//! The audit trail: who did what to whom, append-only.
//!
//! Sign-ins, key uses, administrative acts and revocations write a row in their own transaction.
//! Details are for operators and contain no secret.

use genkan_protocol::syntax::Did;

use super::{Result, Tx};
use crate::base::{Timestamp, random};

/// Who acted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor<'a> {
    Account(&'a Did),
    Host(&'a str),
    Operator,
    Genkan,
}

/// Adds a row to the trail.
pub(crate) async fn record(
    tx: &mut Tx,
    now: Timestamp,
    actor: Actor<'_>,
    action: &'static str,
    subject: &str,
    detail: &str,
) -> Result<()> {
    let actor = match actor {
        Actor::Account(did) => did.to_string(),
        Actor::Host(id) => format!("host:{id}"),
        Actor::Operator => "operator".to_owned(),
        Actor::Genkan => "genkan".to_owned(),
    };
    sqlx::query("INSERT INTO audit (id, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(random::id())
        .bind(now.as_millis())
        .bind(actor)
        .bind(action)
        .bind(subject)
        .bind(detail)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
