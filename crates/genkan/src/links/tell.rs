//! Telling servers that their sessions ended (RFC 7009): at once, and again by a job as often as
//! necessary. At last the secrets of the session are erased.
//!
//! A dead server holds up no other one. Few calls go to one server at a time, and after a call
//! without an answer none goes there for a while.

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use genkan_protocol::oauth::dpop::ProofKey;
use tokio::sync::mpsc;

use super::id::LinkId;
use super::server_client::TokenRequestError;
use super::service::{DAY, Links};
use super::sql::links::{self, Row};
use super::sql::revocations::{self, ToRevoke};
use crate::base::fetch::Pool;
use crate::base::neighbours::{AT_ONCE, Visit, visit_each};
use crate::base::{Timestamp, monotonic_now, random};
use crate::db;
use crate::db::feed::Change;

impl Links {
    /// Tells the servers of sessions as they end, in any room and process. Runs until the process
    /// stops.
    ///
    /// It listens from this call on, not from the first poll. The job
    /// [`tell_servers`](Self::tell_servers) finds what it leaves out: the ends of a time without a
    /// running server, of too many sessions at once, or at a server that is busy or dead.
    pub(crate) fn follow_ends(&self) -> impl Future<Output = ()> + Send + 'static {
        let (tell, mut hear) = mpsc::channel(WAITING);
        // Listeners must be quick, so ids go through a channel. What does not fit is the job's.
        self.inner.feed.subscribe(Change::Link, move |link| drop(tell.try_send(LinkId::from(link))));
        let links = self.clone();
        let ended = stream::poll_fn(move |context| hear.poll_recv(context));
        ended.for_each_concurrent(AT_ONCE, move |link| {
            let links = links.clone();
            async move { links.tell_at_once(&link).await }
        })
    }

    /// Job: tells servers which of their sessions ended. Returns the number of calls.
    pub(crate) async fn tell_servers(&self) -> db::Result<u64> {
        let (began, mut tried) = (monotonic_now(), 0);
        while began.elapsed() < TELL_FOR {
            let now = self.inner.now();
            let due = revocations::to_revoke(&self.inner.db, now).await?;
            let ToRevoke { due, unreadable } = due;
            let is_last = due.len() + unreadable.len() < A_BATCH;
            for link in &unreadable {
                tracing::error!(%link, "the server of an ended session cannot be read, and was not told");
            }
            let paused = |issuer: &str| self.inner.backoff.revocations.pause(issuer, now).is_some();
            let (put_off, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|(issuer, _)| paused(issuer));
            let due = due.into_iter().map(|(issuer, link)| (issuer.clone(), (issuer, link)));
            let visits = visit_each(due.collect(), SHARE, |(issuer, link)| async move {
                self.tell_server(&link).await;
                let paused = self.inner.backoff.revocations.pause(&issuer, self.inner.now());
                if paused.is_some() { Visit::Dead } else { Visit::Answered }
            })
            .await;
            tried += visits.tried;
            let left = put_off.into_iter().chain(visits.left).map(|(_, link)| link);
            let left: Vec<LinkId> = left.chain(unreadable).collect();
            self.put_off(&left, now).await?;
            if is_last {
                break;
            }
        }
        Ok(tried)
    }

    /// Puts calls off that were not tried. They count as no attempt, and come back at different
    /// times.
    async fn put_off(&self, left: &[LinkId], now: Timestamp) -> db::Result<()> {
        let db = &self.inner.db;
        for some in left.chunks(usize::try_from(db.rows_at_once()).unwrap_or(usize::MAX)) {
            db::repeated(|| async {
                let mut tx = db.begin().await?;
                for link in some {
                    let until = now.plus(FIRST_PAUSE + PUT_OFF.mul_f64(random::fraction()));
                    revocations::put_off_revocation(&mut tx, link, now, until).await?;
                }
                tx.commit().await
            })
            .await?;
        }
        Ok(())
    }

    /// Tells a server as its session ends, unless it is busy with other calls or dead: then the job
    /// does.
    async fn tell_at_once(&self, link: &LinkId) {
        // After an error the job finds it.
        let Ok(Some(row)) = links::find(&self.inner.db, link).await else { return };
        let issuer = row.server.issuer;
        if self.inner.backoff.revocations.pause(&issuer, self.inner.now()).is_some() {
            return;
        }
        if self.begin_telling(&issuer) {
            self.tell_server(link).await;
            self.end_telling(&issuer);
        }
    }

    /// Returns `false` if enough calls to this server are under way.
    fn begin_telling(&self, issuer: &str) -> bool {
        let mut telling = self.inner.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = telling.entry(issuer.to_owned()).or_default();
        let may_begin = *calls < AT_ONE_SERVER;
        *calls += usize::from(may_begin);
        may_begin
    }

    fn end_telling(&self, issuer: &str) {
        let mut telling = self.inner.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = telling.get_mut(issuer) else { return };
        *calls = calls.saturating_sub(1);
        // The map has busy servers only.
        if *calls == 0 {
            telling.remove(issuer);
        }
    }

    async fn tell_server(&self, link: &LinkId) {
        if let Err(cause) = self.try_to_tell(link).await {
            tracing::warn!(
                cause = &cause as &dyn std::error::Error,
                %link,
                "a server could not be told that a session ended"
            );
            // A row that cannot be read would otherwise be the first one for ever. If the database is
            // away, the next run finds it due again.
            let _ = self.put_off(std::slice::from_ref(link), self.inner.now()).await;
        }
    }

    /// Tells the server once. The replica that claims the row has it until the next attempt is due.
    async fn try_to_tell(&self, link: &LinkId) -> db::Result<()> {
        let inner = &self.inner;
        let now = inner.now();
        // Committed before the request: no transaction stays open while another server answers.
        let taken = db::repeated(|| async {
            let mut tx = inner.db.begin().await?;
            let row = revocations::take_revocation(&mut tx, link, now, now.plus(FIRST_PAUSE)).await?;
            tx.commit().await?;
            Ok::<_, db::Error>(row)
        });
        let Some(row) = taken.await? else { return Ok(()) };
        let told = match (self.identity_of(&row).await, inner.open(&row)) {
            (Ok(Some(identity)), Ok(tokens)) => {
                let key = ProofKey::new(tokens.key);
                let server =
                    inner.server_client(Pool::Revocations, &row.server, &identity, link.as_str(), &key);
                // The refresh token first: it lives longer, and servers should revoke the access
                // tokens together with it (RFC 7009 §2.1).
                let told = match server.revoke(&tokens.refresh, "refresh_token").await {
                    Ok(()) => server.revoke(&tokens.access, "access_token").await,
                    failed => failed,
                };
                self.note_answer(&row.server.issuer, &told);
                told
            }
            // The key is gone for good, so Genkan cannot prove to the server who asks.
            (Ok(None), _) => Ok(()),
            // Perhaps only this process lacks the key, or the sealing key of the secrets. Another
            // one may tell the server.
            (Err(_), _) | (_, Err(_)) => Err(TokenRequestError::NotSent("keys are missing here".into())),
        };
        db::repeated(|| self.note_told(&row, &told, now)).await
    }

    /// Remembers whether a server answered.
    fn note_answer(&self, issuer: &str, told: &Result<(), TokenRequestError>) {
        let revocations = &self.inner.backoff.revocations;
        match told {
            // Too many calls are under way here, which says nothing about the server.
            Err(TokenRequestError::NotTried(_)) => {}
            Err(
                TokenRequestError::NotSent(_)
                | TokenRequestError::LookupFailed(_)
                | TokenRequestError::Unanswered(_),
            ) => {
                revocations.failed(issuer, None, self.inner.now());
            }
            Err(TokenRequestError::Later { after: Some(after), .. }) => {
                revocations.failed(issuer, Some(*after), self.inner.now());
            }
            _ => revocations.mended(issuer),
        }
    }

    async fn note_told(
        &self,
        row: &Row,
        told: &Result<(), TokenRequestError>,
        now: Timestamp,
    ) -> db::Result<()> {
        let mut tx = self.inner.db.begin().await?;
        match told {
            // The server was not asked, so this does not count among its attempts.
            Err(TokenRequestError::NotTried(_)) => {
                revocations::tell_again_uncounted(&mut tx, &row.id, now.plus(FIRST_PAUSE)).await?;
            }
            Err(error) if row.revoke_attempts < MOST_ATTEMPTS && may_hear_later(error) => {
                // One minute, doubled up to three hours. `revoke_attempts` already counts this
                // attempt, so the first failure doubles nothing.
                let doublings = u32::try_from(row.revoke_attempts.clamp(1, 10)).unwrap_or(1) - 1;
                let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(DAY / 8);
                revocations::tell_again(&mut tx, &row.id, now.plus(pause)).await?;
            }
            told => {
                if let Err(error) = told {
                    tracing::warn!(link = %row.id, answer = %error, "a server was not told that its session ended");
                }
                // The server was told, or will not be told again. In both cases the secrets have no
                // further use.
                revocations::erase(&mut tx, &row.id).await?;
            }
        }
        tx.commit().await
    }
}

/// Whether another attempt may succeed. A refusal is final, except for mistakes on Genkan's side
/// that can be corrected.
fn may_hear_later(error: &TokenRequestError) -> bool {
    !matches!(
        error.code(),
        Some("invalid_grant" | "unsupported_token_type" | "invalid_token" | "invalid_request")
    )
}

const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// Two days, including the pauses between them.
const MOST_ATTEMPTS: i64 = 22;
/// Calls that were not tried come back within this time. It is long, because a million sessions of
/// one server can end together.
const PUT_OFF: Duration = Duration::from_mins(30);
/// How long one run of [`Links::tell_servers`] may begin further batches.
const TELL_FOR: Duration = Duration::from_secs(20);
/// The number of rows that `revocations::to_revoke` returns at most.
const A_BATCH: usize = 200;
/// Calls to one server in a batch.
const SHARE: usize = 50;
/// Calls to one server at the same time, as its sessions end.
const AT_ONE_SERVER: usize = 2;
/// Ended sessions that wait to be told of. More are left to the job.
const WAITING: usize = 1_000;
