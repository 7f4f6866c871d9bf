//! A stored session, unsealed for use.

use std::sync::Arc;
use std::time::Duration;

use super::client::{ClientIdentity, ClientKey};
use super::credential::{Credential, CredentialParts};
use super::error::{Reason, UseError};
use super::id::LinkId;
use super::service::{Inner, Links};
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

    /// Records that the session was used, at most twice a day.
    pub(super) async fn note_use(&self, row: &Row, now: Timestamp) -> Result<(), UseError> {
        if now.since(row.used_at) < USE_NOTED_EACH {
            return Ok(());
        }
        let noted = db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            links::used(&mut tx, &row.id, now).await?;
            tx.commit().await
        });
        noted.await.map_err(|cause| stored(&cause))
    }
}

impl Links {
    /// The client that this session's server knows. Returns `None` if the key with which it began
    /// no longer exists.
    ///
    /// # Errors
    ///
    /// [`KeysBehind`] when the key may exist without being known to this process.
    pub(super) async fn identity_of(&self, row: &Row) -> Result<Option<ClientIdentity>, KeysBehind> {
        let id = row.client_id.clone();
        Ok(match &row.client_key {
            None => Some(ClientIdentity { id, key: None }),
            Some(key) => self.client_key(key).await?.map(|key| ClientIdentity { id, key: Some(key) }),
        })
    }

    /// Returns Genkan's client key of this id, or `None` if it no longer exists.
    ///
    /// # Errors
    ///
    /// [`KeysBehind`] when the key may exist without being known to this process.
    pub(super) async fn client_key(&self, id: &str) -> Result<Option<ClientKey>, KeysBehind> {
        let inner = &self.inner;
        if let Some(key) = inner.client.key(id) {
            return Ok(Some(key));
        }
        // Another process may have made the key a moment ago. Only the database knows whether it
        // exists.
        if !(inner.reload_keys)().await {
            return Err(KeysBehind);
        }
        Ok(inner.client.key(id))
    }
}

/// The keys in the database could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeysBehind;

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
