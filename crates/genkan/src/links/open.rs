//! A stored session, unsealed for use.

use std::sync::Arc;
use std::time::Duration;

use super::client::ClientIdentity;
use super::credential::{Credential, CredentialParts};
use super::error::{Reason, UseError};
use super::id::LinkId;
use super::service::Inner;
use super::sql::links::{self, Row};
use super::vault::{SessionAad, Tokens};
use crate::base::Timestamp;
use crate::db::{self, Reading};

impl Inner {
    /// Finds a session that has not ended.
    pub(super) async fn usable(&self, link: &LinkId) -> Result<Row, UseError> {
        let row = links::find(&self.db, link).await.map_err(|cause| stored(&cause))?;
        match row {
            Some(row) if row.state.is_usable() => Ok(row),
            Some(row) => Err(UseError::Gone(row.reason.map_or("over", Reason::as_str))),
            None => Err(UseError::Gone("unknown")),
        }
    }

    pub(super) fn open(&self, row: &Row) -> Result<Tokens, UseError> {
        let aad = SessionAad { link: row.id.as_str(), did: row.did.as_str(), version: row.version };
        let sealed = row.sealed.as_deref().ok_or(UseError::Broken)?;
        Tokens::open(&self.sealer, aad, sealed).map_err(|cause| {
            tracing::error!(
                cause = &cause as &dyn std::error::Error,
                link = %row.id,
                "a session's secrets do not open"
            );
            UseError::Broken
        })
    }

    /// Opens the credential of a row. With the `reading` that found the row, it is also cached.
    pub(super) fn opened(&self, row: &Row, reading: Option<Reading>) -> Result<Arc<Credential>, UseError> {
        let tokens = self.open(row)?;
        let credential = Arc::new(Credential::new(CredentialParts {
            link: row.id.clone(),
            did: row.did.clone(),
            pds: row.pds.clone(),
            version: row.version,
            token: tokens.access,
            key: tokens.key,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
        }));
        if let Some(reading) = reading {
            self.memory.keep(credential.link.clone(), Arc::clone(&credential), reading);
        }
        Ok(credential)
    }

    /// The client that this session's server knows. Returns `None` if the key with which it began
    /// no longer exists.
    pub(super) fn identity_of(&self, row: &Row) -> Option<ClientIdentity> {
        let key = match &row.client_key {
            Some(id) => Some(self.client.key(id)?),
            None => None,
        };
        Some(ClientIdentity { id: row.client_id.clone(), key })
    }

    /// Records that the session was used, at most twice a day.
    pub(super) async fn note_use(&self, row: &Row, now: Timestamp) -> Result<(), UseError> {
        if now.since(row.used_at) < USE_NOTED_EACH {
            return Ok(());
        }
        let mut tx = self.db.begin().await.map_err(|cause| stored(&cause))?;
        links::used(&mut tx, &row.id, now).await.map_err(|cause| stored(&cause))?;
        tx.commit().await.map_err(|cause| stored(&cause))
    }
}

/// Logs a database failure, and converts it for a call.
pub(super) fn stored(cause: &db::Error) -> UseError {
    if cause.is_passing() {
        tracing::warn!(cause = cause as &dyn std::error::Error, "a session could not be read or written");
        UseError::Storage
    } else {
        tracing::error!(cause = cause as &dyn std::error::Error, "a session could not be read or written");
        UseError::Broken
    }
}

const USE_NOTED_EACH: Duration = Duration::from_hours(12);
