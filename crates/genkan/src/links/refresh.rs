//! Using a session: its tokens from memory or the database, and new ones when they are due.
//!
//! A refresh token is valid once, and a server that sees one twice ends the session. So there is
//! one refresh at a time. Within this process all callers share it. Between replicas a lease on the
//! row decides, which a replica claims by comparing the version.
//!
//! Before a refresh token is sent, the row records that it was sent. A process that later finds the
//! record without a response treats the token as possibly used. An `invalid_grant` then says
//! nothing about the person, only that an answer was lost.
//!
//! A session ends here by its server's own `invalid_grant`, because another server speaks for the
//! account, or because its client key no longer exists. It never ends because a server does not
//! answer.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::dpop::ProofKey;

use super::credential::{Credential, due_at};
use super::end::EndCondition;
use super::error::{Reason, UseError};
use super::id::LinkId;
use super::open::stored;
use super::prepare::{NOT_TRIED_PAUSE, PrepareError, RefreshInputs};
use super::server_client::{TokenRequestError, TokenResponse};
use super::service::{Inner, Links};
use super::sql::leases::{self, NewTokens};
use super::sql::links::{self, Row};
use super::vault::{SessionAad, Tokens};
use crate::base::fetch::Pool;
use crate::base::random;
use crate::telemetry::metrics::LINK_REFRESHES;

/// The result of one attempt to refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Rotated,
    /// Another process had already refreshed.
    Joined,
    /// The refresh token was not used. A later attempt may succeed.
    Transient,
    /// The refresh token may have been used. A later attempt will tell.
    Ambiguous,
    /// The server does not accept this Genkan as a client, which the operator has to correct.
    Misconfigured,
    Gone,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Joined => "joined",
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::Misconfigured => "misconfigured",
            Self::Gone => "gone",
        }
    }
}

impl Links {
    /// Returns the credential of a link, refreshed if that is due. While the server is in trouble,
    /// the old one is used as long as it is valid.
    pub(crate) async fn credential(&self, link: &LinkId) -> Result<Arc<Credential>, UseError> {
        let inner = &self.inner;
        // Begun before the row is read: if the session ends in between, the credential is not
        // cached.
        let reading = inner.memory.begin();
        let row = inner.usable(link).await?;
        let now = inner.now();
        let due = due_at(&row.id, row.version, row.issued_at, row.expires_at);
        // Without a due time the server named no lifetime. Such a token is used until the PDS
        // refuses it, and then `renew` is called.
        if due.is_none_or(|due| now < due) {
            inner.note_use(&row, now).await?;
            return inner.opened(&row, Some(reading));
        }
        let old = inner.opened(&row, None)?;
        let is_valid = old.is_valid(now);
        // The shared refresh continues when this caller stops waiting. While the old token is
        // valid, a caller waits only briefly, because it can work without the new one.
        let patience = if is_valid { PATIENCE_WHILE_VALID } else { PATIENCE };
        let shared = self.shared_refresh(&row.id, row.version);
        let refreshed = tokio::time::timeout(patience, shared)
            .await
            .unwrap_or(Err(UseError::Unavailable { retry_after: PATIENCE_WHILE_VALID }));
        match refreshed {
            Err(error @ (UseError::Unavailable { .. } | UseError::Storage)) if is_valid => {
                let pause = match error {
                    UseError::Unavailable { retry_after } => retry_after.max(PATIENCE_WHILE_VALID),
                    _ => PATIENCE_WHILE_VALID,
                };
                // Until then requests take this credential from the cache. Otherwise each of them
                // would wait for the server in trouble.
                old.put_off(now.plus(pause));
                inner.memory.keep(old.link.clone(), Arc::clone(&old), reading);
                Ok(old)
            }
            other => other,
        }
    }

    /// Returns a newer credential than `version`, which the PDS refused before it expired.
    pub(crate) async fn renew(&self, link: &LinkId, version: i64) -> Result<Arc<Credential>, UseError> {
        let reading = self.inner.memory.begin();
        let row = self.inner.usable(link).await?;
        // Another request or another replica has already refreshed it.
        if row.version > version {
            return self.inner.opened(&row, Some(reading));
        }
        let shared = self.shared_refresh(link, version);
        let renewed = tokio::time::timeout(PATIENCE, shared)
            .await
            .unwrap_or(Err(UseError::Unavailable { retry_after: PATIENCE_WHILE_VALID }))?;
        // A refresh that began before this call may have kept the old one.
        if renewed.version > version {
            Ok(renewed)
        } else {
            Err(UseError::Unavailable { retry_after: PATIENCE_WHILE_VALID })
        }
    }

    /// Ends the session, because the PDS refused tokens of `version` that had just been refreshed.
    /// A session whose tokens were replaced meanwhile does not end. Returns what the call is told.
    pub(crate) async fn refused(&self, link: &LinkId, version: i64) -> UseError {
        let ended = self.end_when(link, Reason::TokenRefused, EndCondition::Version(version)).await;
        if let Err(cause) = &ended {
            return stored(cause);
        }
        // If it has not ended, the next call uses the newer tokens.
        let usable = self.inner.usable(link).await;
        usable.err().unwrap_or(UseError::Unavailable { retry_after: PATIENCE_WHILE_VALID })
    }

    /// Refreshes `version`. All callers in this process share the refresh, which continues when
    /// they leave.
    pub(super) async fn shared_refresh(
        &self,
        link: &LinkId,
        version: i64,
    ) -> Result<Arc<Credential>, UseError> {
        let (links, id) = (self.clone(), link.clone());
        let refreshing = async move { links.refresh(&id, version).await };
        // Boxed: the future holds everything that a refresh may do.
        self.inner
            .single_flight
            .join(link.as_str(), Box::pin(refreshing))
            .await
            .unwrap_or(Err(UseError::Broken))
    }

    async fn refresh(&self, link: &LinkId, version: i64) -> Result<Arc<Credential>, UseError> {
        let inner = &self.inner;
        let mut waits = 0;
        loop {
            let reading = inner.memory.begin();
            let row = inner.usable(link).await?;
            // The version that the caller saw has been replaced. Its refresh token is used up, and
            // sending it again could end the session at its server.
            if row.version > version {
                inner.count(Outcome::Joined);
                return inner.opened(&row, Some(reading));
            }
            let now = inner.now();
            // Checked before the lease is taken: while a server is in trouble, a caller costs one
            // read and no write.
            if let Some(pause) = inner.pause(&row) {
                return Err(UseError::Unavailable { retry_after: pause });
            }
            // Each attempt has a holder of its own. An earlier attempt of this process may have
            // been dropped half-way, and its lease must run out before the token is sent again.
            let holder = format!("{} {}", inner.holder, random::id());
            let until = now.plus(LEASE);
            if leases::take(&inner.db, link, row.version, &holder, now, until)
                .await
                .map_err(|cause| stored(&cause))?
            {
                // A failure of the database counts as transient.
                let attempt = self.attempt(&row, &holder).await;
                inner.count(*attempt.as_ref().unwrap_or(&Outcome::Transient));
                return match attempt? {
                    Outcome::Rotated | Outcome::Joined => {
                        let reading = inner.memory.begin();
                        let row = inner.usable(link).await?;
                        inner.opened(&row, Some(reading))
                    }
                    Outcome::Gone => Err(inner.usable(link).await.err().unwrap_or(UseError::Broken)),
                    _ => Err(UseError::Unavailable {
                        retry_after: inner.pause(&row).unwrap_or(PATIENCE_WHILE_VALID),
                    }),
                };
            }
            // Another process has the lease. All waits together take about as long as a caller's
            // patience. The random factor keeps waiting replicas from asking the database at the
            // same moment.
            waits += 1;
            if waits > MOST_WAITS {
                return Err(UseError::Unavailable { retry_after: PATIENCE_WHILE_VALID });
            }
            tokio::time::sleep(WAIT.mul_f64(0.5 + random::fraction())).await;
        }
    }

    /// Refreshes once, under the lease. Its errors are failures of Genkan's database, never of the
    /// server.
    async fn attempt(&self, row: &Row, holder: &str) -> Result<Outcome, UseError> {
        let inner = &self.inner;
        let outcome = match self.prepare(row, holder).await {
            Ok(inputs) => {
                let fields = vec![
                    ("grant_type", "refresh_token".to_owned()),
                    ("refresh_token", inputs.tokens.refresh.as_str().to_owned()),
                ];
                let key = ProofKey::new(inputs.tokens.key.clone());
                let (issuer, identity) = (&inputs.found.server, &inputs.identity);
                let server = inner.server_client(Pool::Refreshes, issuer, identity, row.id.as_str(), &key);
                match server.token(fields).await {
                    Ok(given) => self.store(row, holder, &inputs, given).await?,
                    Err(error) => {
                        self.request_failed(row, holder, &inputs.found.server.issuer, error).await?
                    }
                }
            }
            Err(PrepareError::Over(reason)) => self.over(row, holder, reason).await?,
            Err(PrepareError::Later(why, pause)) => {
                tracing::info!(link = %row.id, why = &*why, "a session cannot be refreshed at the moment");
                inner.backoff.links.failed(row.id.as_str(), pause, inner.now());
                inner.release(row, holder, false).await;
                Outcome::Transient
            }
            // Nothing to release: another process has the lease and continues.
            Err(PrepareError::TakenOver) => Outcome::Transient,
            Err(PrepareError::Failed(error)) => {
                inner.release(row, holder, false).await;
                return Err(error);
            }
        };
        if matches!(outcome, Outcome::Rotated) {
            inner.backoff.mended(&row.server.issuer, row.id.as_str());
            inner.note_client(row).await;
        }
        Ok(outcome)
    }

    /// Stores new tokens. They are used only when that succeeded.
    async fn store(
        &self,
        row: &Row,
        holder: &str,
        inputs: &RefreshInputs,
        given: TokenResponse,
    ) -> Result<Outcome, UseError> {
        let inner = &self.inner;
        let now = inner.now();
        let other = given.sub.as_ref().is_some_and(|sub| *sub != row.did);
        let tokens = Tokens {
            access: given.access,
            // A server may keep the old refresh token (RFC 6749 §6).
            refresh: given.refresh.unwrap_or_else(|| inputs.tokens.refresh.clone()),
            key: inputs.tokens.key.clone(),
        };
        // The server answered for another account. With these tokens the grant would act for a
        // person who never gave it.
        if other {
            self.give_back(row, inputs, &tokens).await;
            return self.over(row, holder, Reason::OtherSubject).await;
        }
        // Sealed for the version that `rotate` is about to write, because a sealed text opens only
        // in its own version.
        let aad = SessionAad { link: row.id.as_str(), did: row.did.as_str(), version: row.version + 1 };
        let sealed = tokens.seal(&inner.sealer, aad);
        let new = NewTokens {
            sealed: &sealed,
            scope: given.scope.as_deref().unwrap_or(&row.scope),
            issued_at: now,
            expires_at: given.expires_in.map(|lifetime| now.plus(lifetime)),
        };
        // The old refresh token is used up, and the new tokens exist only in this process. Several
        // attempts, because a short database failure must not cost the person's session.
        for attempt in 0..WRITE_ATTEMPTS {
            match leases::rotate(&inner.db, &row.id, row.version, new).await {
                Ok(true) => return Ok(Outcome::Rotated),
                Ok(false) => {
                    // The session ended meanwhile, or a newer version was written. These tokens
                    // would stay valid at their server without a use.
                    self.give_back(row, inputs, &tokens).await;
                    return match inner.usable(&row.id).await {
                        Ok(_) => Ok(Outcome::Joined),
                        Err(UseError::Gone(_)) => Ok(Outcome::Gone),
                        Err(error) => Err(error),
                    };
                }
                Err(cause) => {
                    tracing::warn!(
                        cause = &cause as &dyn std::error::Error,
                        link = %row.id,
                        "new tokens could not be stored"
                    );
                    tokio::time::sleep(WAIT * 2_u32.pow(attempt)).await;
                }
            }
        }
        // The old tokens are used, and the new ones could not be stored. This revocation ends the
        // session at the server, and the next refresh learns of it.
        self.give_back(row, inputs, &tokens).await;
        Ok(Outcome::Ambiguous)
    }

    /// Judges a failed request. Trouble of a server pauses all of its sessions, and a refusal only
    /// the one session.
    async fn request_failed(
        &self,
        row: &Row,
        holder: &str,
        issuer: &str,
        error: TokenRequestError,
    ) -> Result<Outcome, UseError> {
        let inner = &self.inner;
        let now = inner.now();
        tracing::info!(link = %row.id, issuer, answer = %error, "a session was not refreshed");
        let outcome = match &error {
            TokenRequestError::Refused { code, .. } if &**code == "invalid_grant" => {
                // Another replica may have succeeded with the same token.
                let again = match links::find(&inner.db, &row.id).await {
                    Ok(again) => again,
                    Err(cause) => {
                        inner.release(row, holder, true).await;
                        return Err(stored(&cause));
                    }
                };
                return match again {
                    Some(again) if again.version > row.version => Ok(Outcome::Joined),
                    // An earlier request was sent and its answer was never stored. The server
                    // probably rotated the token then, so this refusal says nothing about the
                    // person.
                    _ if row.unanswered > 0 => self.over(row, holder, Reason::AnswerLost).await,
                    _ => self.over(row, holder, Reason::GrantGone).await,
                };
            }
            TokenRequestError::Refused { code, .. } if is_about_us(code) => {
                tracing::error!(
                    issuer,
                    code = &**code,
                    "another server does not accept this service as a client"
                );
                // Only this session pauses: the server may still accept sessions that began with
                // another client document or key.
                inner.backoff.links.failed(row.id.as_str(), Some(MISCONFIGURED_PAUSE), now);
                Outcome::Misconfigured
            }
            TokenRequestError::Refused { .. } => {
                inner.backoff.links.failed(row.id.as_str(), None, now);
                Outcome::Transient
            }
            // The token never left, and nothing is known about the server. Only this session pauses,
            // and not for long.
            TokenRequestError::NotTried(_) | TokenRequestError::LookupFailed(_) => {
                inner.backoff.links.failed(row.id.as_str(), Some(NOT_TRIED_PAUSE), now);
                Outcome::Transient
            }
            TokenRequestError::NotSent(_) => {
                inner.backoff.servers.failed(issuer, None, now);
                Outcome::Transient
            }
            // An answer of 429 or 5xx is taken to mean that the server did not use the refresh
            // token.
            TokenRequestError::Later { status: 429, after } => {
                inner.backoff.limited(issuer, row.id.as_str(), *after, now);
                Outcome::Transient
            }
            TokenRequestError::Later { after, .. } => {
                inner.backoff.servers.failed(issuer, *after, now);
                Outcome::Transient
            }
            TokenRequestError::Unanswered(_) => {
                inner.backoff.servers.failed(issuer, None, now);
                Outcome::Ambiguous
            }
        };
        // After an ambiguous outcome the record that the token was sent stays. Only an answer
        // removes the doubt.
        inner.release(row, holder, outcome != Outcome::Ambiguous).await;
        Ok(outcome)
    }

    /// Ends the session, if this worker still refreshes this version.
    ///
    /// If another worker has taken the lease over, it sends the same refresh token. One of the two
    /// then gets new tokens and the other a refusal, so a refusal here says nothing: the worker that
    /// has the lease will tell.
    async fn over(&self, row: &Row, holder: &str, reason: Reason) -> Result<Outcome, UseError> {
        let condition = EndCondition::Lease { version: row.version, holder };
        if self.end_when(&row.id, reason, condition).await.map_err(|cause| stored(&cause))? {
            return Ok(Outcome::Gone);
        }
        match self.inner.usable(&row.id).await {
            Ok(now) if now.version > row.version => Ok(Outcome::Joined),
            Ok(_) => Ok(Outcome::Transient),
            Err(UseError::Gone(_)) => Ok(Outcome::Gone),
            Err(error) => Err(error),
        }
    }

    /// Revokes tokens that cannot be kept, if their server answers.
    async fn give_back(&self, row: &Row, inputs: &RefreshInputs, tokens: &Tokens) {
        let key = ProofKey::new(tokens.key.clone());
        let (server, identity) = (&inputs.found.server, &inputs.identity);
        let server = self.inner.server_client(Pool::Refreshes, server, identity, row.id.as_str(), &key);
        if let Err(error) = server.revoke(&tokens.refresh, "refresh_token").await {
            tracing::warn!(link = %row.id, answer = %error, "tokens that were not kept could not be revoked");
        }
    }
}

impl Inner {
    fn count(&self, outcome: Outcome) {
        self.metrics.counter(&LINK_REFRESHES, &[outcome.as_str()]).increment();
    }
}

/// OAuth error codes that blame Genkan's own client document or keys.
fn is_about_us(code: &str) -> bool {
    matches!(
        code,
        "invalid_client"
            | "invalid_client_id"
            | "invalid_client_metadata"
            | "unauthorized_client"
            | "invalid_redirect_uri"
    )
}

/// Longer than everything that happens under it: verification, two forms of twelve seconds each,
/// and writing.
const LEASE: Duration = Duration::from_secs(45);
/// How long a caller waits for a refresh, while its old token is valid and otherwise.
const PATIENCE_WHILE_VALID: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(25);
/// The pause between two looks while another process refreshes, and the number of looks.
const WAIT: Duration = Duration::from_millis(100);
const MOST_WAITS: u32 = 240;
const WRITE_ATTEMPTS: u32 = 4;
const MISCONFIGURED_PAUSE: Duration = Duration::from_secs(30);
