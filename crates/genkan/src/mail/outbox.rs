//! The outbox: emails on their way from the transaction that causes them to the transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use genkan_protocol::syntax::Did;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};

use super::message::{Message, Recipient, Sender};
use super::reason::Reason;
use super::sql::{self, Row, UndeliveredEmail};
use super::transport::{Refusal, Transport, TransportError};
use crate::base::seal::Sealer;
use crate::base::{Clock, Secret, Timestamp, random};
use crate::config::Config;
use crate::db::leases::{LONGEST_DELAY, while_held};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{Db, Tx};
use crate::keys::SealedColumn;
use crate::telemetry::failpoint;
use crate::telemetry::metrics::{Counter, Gauge, MAILS, MAILS_WAITING, Metrics, OLDEST_MAIL};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operator configured no way to send email.
    #[error("this service sends no email")]
    Off,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

/// Writes emails into the outbox and sends them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    sealer: Sealer,
    sender: Sender,
    delivery: Option<Delivery>,
    counters: Counters,
}

/// The transport, with its sender and times.
#[derive(Debug)]
struct Delivery {
    transport: Transport,
    from: Mailbox,
    /// Maximum time of one attempt.
    timeout: Duration,
    give_up_after: Duration,
}

impl Delivery {
    /// Longer than any email is put off or taken for. A later time is of a clock that was wrong.
    fn longest_delay(&self) -> Duration {
        LONGEST_PAUSE.mul_f64(1.5).max(self.timeout * 2) + LONGEST_DELAY
    }
}

#[derive(Debug)]
struct Counters {
    queued: Counter,
    sent: Counter,
    failed: Counter,
    expired: Counter,
    given_up: Counter,
    waiting: Gauge,
    oldest: Gauge,
}

impl Mail {
    pub(crate) fn new(
        config: &Config,
        db: Db,
        clock: Clock,
        sealer: Sealer,
        metrics: &Metrics,
    ) -> Result<Self, TransportError> {
        let (settings, service) = (&config.mail, &config.service);
        let transport = match (&settings.smtp_url, &settings.folder) {
            // The server wins over the folder if both are set.
            (Some(server), _) => {
                let authorities = config.network.extra_ca_file.as_deref();
                Some(Transport::smtp(server, service.public_url.host(), authorities, settings.timeout)?)
            }
            (None, Some(folder)) => Some(Transport::Folder(folder.clone())),
            (None, None) => None,
        };
        let delivery = transport.zip(settings.from.as_ref()).map(|(transport, from)| Delivery {
            transport,
            from: Mailbox::new(
                from.0.name.clone().or_else(|| Some(service.name.clone())),
                from.0.email.clone(),
            ),
            timeout: settings.timeout,
            give_up_after: settings.give_up_after,
        });
        let sender = Sender { service: service.name.clone(), url: service.public_url.to_string() };
        let counters = Counters::new(metrics);
        Ok(Self { inner: Arc::new(Inner { db, clock, sealer, sender, delivery, counters }) })
    }

    /// Whether this service sends email. Ask before announcing one to a user.
    pub(crate) fn is_on(&self) -> bool {
        self.inner.delivery.is_some()
    }

    /// Writes an email with a code into the outbox, as part of `tx`.
    ///
    /// A waiting email with an older code of the same reason is removed: its code is void.
    pub(crate) async fn put_code(
        &self,
        tx: &mut Tx,
        to: Recipient<'_>,
        reason: Reason,
        code: &Secret<String>,
        expires_at: Timestamp,
    ) -> Result<(), Error> {
        self.delivery()?;
        // The newest code is the only valid one. An older email that arrived after it would confuse
        // the user.
        sql::drop_waiting(tx, to.did, reason.as_str()).await?;
        let message = self.inner.sender.code(to, reason, code);
        self.put(tx, to.did, reason.as_str(), &message, expires_at).await
    }

    /// Writes an email by the operator or a moderator into the outbox, as part of `tx`.
    pub(crate) async fn put_message(
        &self,
        tx: &mut Tx,
        to: Recipient<'_>,
        subject: Option<&str>,
        html: &str,
    ) -> Result<(), Error> {
        let expires_at = self.inner.now().plus(self.delivery()?.give_up_after);
        let message = self.inner.sender.by_operator(to, subject, html);
        self.put(tx, to.did, MESSAGE, &message, expires_at).await
    }

    /// Sends the emails that are due. Returns the number that this process handled.
    pub(crate) async fn post_due(&self) -> Result<u64, Error> {
        let Some(delivery) = &self.inner.delivery else { return Ok(0) };
        let due = sql::due(&self.inner.db, self.inner.now(), delivery.longest_delay(), BATCH).await?;
        let posting = due.into_iter().map(|row| async move { self.post(delivery, &row).await });
        let done: Vec<Result<bool, Error>> =
            // The batch is small and the concurrency bounded, so that a slow mail server does not
            // tie up the database or open many connections.
            futures_util::stream::iter(posting).buffer_unordered(AT_ONCE).collect().await;
        let mut posted = 0;
        for one in done {
            // The first failure is reported only after all emails of the batch were handled.
            posted += u64::from(one?);
        }
        // The gauges are set after the sending, so that they show what is left.
        let (waiting, oldest) = sql::waiting(&self.inner.db).await?;
        let age = oldest.map_or(0, |oldest| self.inner.now().since(oldest).as_secs());
        self.inner.counters.waiting.set(waiting);
        self.inner.counters.oldest.set(i64::try_from(age).unwrap_or(i64::MAX));
        Ok(posted)
    }

    /// Returns emails that were given up recently, the newest first.
    pub(crate) async fn given_up(db: &Db, limit: i64) -> Result<Vec<UndeliveredEmail>, Error> {
        Ok(sql::given_up(db, limit).await?)
    }

    async fn put(
        &self,
        tx: &mut Tx,
        did: &Did,
        kind: &str,
        message: &Message,
        expires_at: Timestamp,
    ) -> Result<(), Error> {
        let (id, now) = (random::id(), self.inner.now());
        // The row's id is part of the sealed data: a sealed text that is copied into another row
        // does not unseal.
        let plain = serde_json::to_vec(message).expect("texts make JSON");
        let sealed = self.inner.sealer.seal(SEALED_AS, &id, &plain);
        let row = Row {
            id,
            did: did.clone(),
            kind: kind.to_owned(),
            sealed,
            attempts: 0,
            due_at: now,
            expires_at,
            created_at: now,
        };
        sql::insert(tx, &row).await?;
        self.inner.counters.queued.increment();
        Ok(())
    }

    /// Sends one email. `false` if another process handles it.
    async fn post(&self, delivery: &Delivery, row: &Row) -> Result<bool, Error> {
        let inner = &*self.inner;
        let now = inner.now();
        // Short, so that the email of a process that was killed is soon taken over. Renewed while the
        // attempt runs, so that no other process sends the email while this one can still succeed.
        let lease = AtomicI64::new(now.plus(LEASE).as_millis());
        let held = || Timestamp::from_millis(lease.load(Ordering::Relaxed));
        let mut tx = inner.db.begin().await?;
        let mine = sql::take(&mut tx, row, held()).await?;
        // Committed before the sending: other processes must see the lease first.
        tx.commit().await?;
        if !mine {
            return Ok(false);
        }
        failpoint("mail.taken");
        // Checked only with the lease, so that one process alone ends the email.
        if row.expires_at <= now {
            self.expire(row).await?;
            return Ok(true);
        }
        let handed_over = match self.email(delivery, row) {
            Ok(email) => {
                let handing = delivery.transport.hand_over(&row.id, email);
                // The transport has a timeout per command. This one bounds the whole attempt.
                let handing = tokio::time::timeout(delivery.timeout, handing);
                let renew = || async {
                    let next = inner.now().plus(LEASE);
                    let is_kept = sql::renew(&inner.db, &row.id, held(), next).await?;
                    if is_kept {
                        lease.store(next.as_millis(), Ordering::Relaxed);
                    }
                    Ok::<_, crate::db::Error>(is_kept)
                };
                while_held(handing, renew)
                    .await
                    .unwrap_or_else(|_| Err(Refusal::passing("the mail server took too long".to_owned())))
            }
            // No later attempt can succeed with a row that cannot be unsealed or written.
            Err(why) => Err(Refusal { why: why.to_owned(), is_final: true }),
        };
        match handed_over {
            Ok(()) => {
                // A crash here sends the email a second time, which the equal Message-ID makes
                // harmless. The other order would lose it.
                failpoint("mail.sent");
                let mut tx = inner.db.begin().await?;
                sql::remove(&mut tx, &row.id).await?;
                tx.commit().await?;
                inner.counters.sent.increment();
            }
            Err(refusal) if refusal.is_final => self.give_up(row, &refusal.why).await?,
            Err(refusal) => self.put_off(row, held(), &refusal.why).await?,
        }
        Ok(true)
    }

    fn email(&self, delivery: &Delivery, row: &Row) -> Result<lettre::Message, &'static str> {
        let plain = self.inner.sealer.unseal(SEALED_AS, &row.id, &row.sealed);
        let plain = plain.map_err(|_| "the sealing key does not unseal it")?;
        let message: Message = serde_json::from_slice(&plain).map_err(|_| "its stored form is unknown")?;
        let to = message.to.parse().map_err(|_| "its address is not valid")?;
        // A date before 1970 cannot occur. Zero keeps the email sendable even so.
        let created = u64::try_from(row.created_at.as_millis()).unwrap_or(0);
        lettre::Message::builder()
            .from(delivery.from.clone())
            .to(Mailbox::new(None, to))
            .subject(message.subject)
            // Equal at every attempt, so that a mailbox shows the email once.
            .message_id(Some(format!("<{}@{}>", row.id, delivery.from.email.domain())))
            .date(std::time::UNIX_EPOCH + Duration::from_millis(created))
            .header(AutoSubmitted)
            .header(ContentLanguage(message.language))
            .multipart(MultiPart::alternative_plain_html(message.text, message.html))
            .map_err(|_| "it cannot be written as an email")
    }

    async fn put_off(&self, row: &Row, lease: Timestamp, why: &str) -> Result<(), Error> {
        // Not after the expiry: at that moment the email must come up once more to be ended.
        let again = self.inner.now().plus(pause_after(row.attempts)).min(row.expires_at);
        let mut tx = self.inner.db.begin().await?;
        sql::put_off(&mut tx, &row.id, lease, again, why).await?;
        tx.commit().await?;
        self.inner.counters.failed.increment();
        tracing::warn!(
            mail.id = row.id,
            mail.kind = row.kind,
            why,
            "could not send an email; will try again"
        );
        Ok(())
    }

    /// Ends an email whose time is over. An expired code is removed, since it is of no use to
    /// anyone. An undelivered message is kept for the operator.
    async fn expire(&self, row: &Row) -> Result<(), Error> {
        if row.kind == MESSAGE {
            return self.give_up(row, "expired").await;
        }
        let mut tx = self.inner.db.begin().await?;
        sql::remove(&mut tx, &row.id).await?;
        tx.commit().await?;
        self.inner.counters.expired.increment();
        tracing::error!(
            mail.id = row.id,
            mail.kind = row.kind,
            "a code expired before its email could be sent; check the mail server"
        );
        Ok(())
    }

    async fn give_up(&self, row: &Row, why: &str) -> Result<(), Error> {
        let mut tx = self.inner.db.begin().await?;
        sql::give_up(&mut tx, &row.id, why).await?;
        tx.commit().await?;
        self.inner.counters.given_up.increment();
        tracing::error!(
            mail.id = row.id,
            mail.kind = row.kind,
            account.did = %row.did,
            why,
            "gave up an email; see `genkan mail given-up`"
        );
        Ok(())
    }

    fn delivery(&self) -> Result<&Delivery, Error> {
        self.inner.delivery.as_ref().ok_or(Error::Off)
    }
}

/// Removes the emails of an account that was deleted, as part of `tx`.
pub(crate) async fn forget_account(tx: &mut Tx, did: &Did) -> crate::db::Result<()> {
    sql::drop_all_of(tx, did).await
}

/// The sweep of records of emails that were given up long ago.
pub(crate) const SWEEPS: &[Sweep] =
    &[sweep!("undelivered emails", |db, range| sql::sweep(db, range.keeping(KEEP_GIVEN_UP)))];

/// Returns the pause after an attempt: doubled each time, and spread at random by half of it, so
/// that not all emails are sent at once when the mail server is back.
fn pause_after(attempts: u32) -> Duration {
    // The exponent is bounded before the shift, because a shift by 32 or more would overflow.
    let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
    pause.mul_f64(0.5 + random::fraction())
}

impl Inner {
    /// The clock that replicas share, because they compare the times of emails.
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Counters {
    fn new(metrics: &Metrics) -> Self {
        let mails = |outcome| metrics.counter(&MAILS, &[outcome]);
        Self {
            queued: mails("queued"),
            sent: mails("sent"),
            failed: mails("failed"),
            expired: mails("expired"),
            given_up: mails("given_up"),
            waiting: metrics.gauge(&MAILS_WAITING, &[]),
            oldest: metrics.gauge(&OLDEST_MAIL, &[]),
        }
    }
}

/// The `Auto-Submitted` header (RFC 3834 §5), which keeps automatic replies away.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The `Content-Language` header (RFC 3282).
#[derive(Clone)]
struct ContentLanguage(String);

impl Header for ContentLanguage {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Content-Language")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

const SEALED_AS: &str = "outbox.sealed";

/// The sealed columns of this room.
pub(crate) const SEALED_COLUMNS: &[SealedColumn] =
    &[SealedColumn { table: "outbox", key: "id", column: "sealed", purpose: SEALED_AS, row: "id" }];
/// The kind of an email without a code.
const MESSAGE: &str = "message";
/// Maximum number of emails that one round of the job handles.
const BATCH: i64 = 40;
/// Number of emails that are sent at the same time, each over its own connection.
const AT_ONCE: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(4);
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// Time for which records of emails that were given up are kept.
const KEEP_GIVEN_UP: Duration = Duration::from_hours(24 * 14);
/// How long an email belongs to a process that does not renew its lease. With the pause between two
/// rounds of the job, another process takes it over within half a minute.
const LEASE: Duration = Duration::from_secs(15);
/// Interval at which [`Mail::post_due`] is called. It is short because users wait for their codes.
pub(crate) const POST_EVERY: Duration = Duration::from_secs(1);
