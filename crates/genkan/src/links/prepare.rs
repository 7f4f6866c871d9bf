//! What a refresh does before its refresh token is sent.

use std::sync::Arc;
use std::time::Duration;

use super::client::ClientIdentity;
use super::discovery::{Authority, DiscoveryError};
use super::error::{Reason, UseError};
use super::open::{KeysBehind, stored};
use super::service::Links;
use super::sql::leases;
use super::sql::links::Row;
use super::vault::Tokens;
use crate::base::fetch::Pool;

impl Links {
    /// Does everything that can fail before the refresh token is sent, and records that it is being
    /// sent.
    pub(super) async fn prepare(&self, row: &Row, holder: &str) -> Result<RefreshInputs, PrepareError> {
        let inner = &self.inner;
        let later = |why: String| PrepareError::Later(why.into(), None);
        // Secrets that do not open do not end the session: perhaps only this process has the wrong
        // sealing key.
        let tokens = inner.open(row).map_err(|_| later("its secrets do not open".to_owned()))?;
        let identity = match self.identity_of(row).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err(PrepareError::Over(Reason::KeyGone)),
            Err(KeysBehind) => return Err(later("its client key is not known here".to_owned())),
        };
        // The account may have moved since the last refresh. Its refresh token must not go to a
        // server that no longer speaks for it.
        let verified =
            tokio::time::timeout(VERIFY, inner.discovery.in_pool(Pool::Refreshes).of_did(&row.did))
                .await
                .map_err(|_| later("its authority did not answer in time".to_owned()))?;
        let found = match verified {
            Ok(found) if found.server.issuer == row.server.issuer => found,
            Ok(_) | Err(DiscoveryError::Ended) => return Err(PrepareError::Over(Reason::Moved)),
            Err(DiscoveryError::NotTried(why)) => {
                return Err(PrepareError::Later(why, Some(NOT_TRIED_PAUSE)));
            }
            Err(error) => return Err(later(error.to_string())),
        };
        let (pds, now) = (found.pds.as_str(), inner.now());
        // The last step before the token is sent. From here a crash leaves `unanswered` above zero,
        // so nothing slow may come between this write and the request.
        match leases::sending(&inner.db, &row.id, holder, pds, &found.server, now).await {
            Ok(true) => Ok(RefreshInputs { tokens, identity, found }),
            Ok(false) => Err(PrepareError::TakenOver),
            Err(cause) => Err(PrepareError::Failed(stored(&cause))),
        }
    }
}

/// What a refresh sends, and to whom.
pub(super) struct RefreshInputs {
    pub(super) tokens: Tokens,
    pub(super) identity: ClientIdentity,
    pub(super) found: Authority,
}

pub(super) enum PrepareError {
    Over(Reason),
    /// Something about this session, or between Genkan and its server, with the pause that follows.
    Later(Arc<str>, Option<Duration>),
    /// Another process has taken the lease.
    TakenOver,
    /// The database failed.
    Failed(UseError),
}

const VERIFY: Duration = Duration::from_secs(10);
/// The pause of a session whose refresh did not begin.
pub(super) const NOT_TRIED_PAUSE: Duration = Duration::from_secs(2);
