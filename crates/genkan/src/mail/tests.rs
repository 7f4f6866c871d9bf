//! Emails through the outbox into a folder, and emails that cannot be delivered.

use std::sync::LazyLock;
use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::{Error, Mail, Reason, Recipient};
use crate::base::seal::Sealer;
use crate::base::{Language, ManualClock, Secret, Timestamp};
use crate::config::{Config, Environment};
use crate::db::{Db, on_each_database};
use crate::mail::testing::MailFolder;
use crate::telemetry::metrics::Metrics;

on_each_database!(
    an_email_reaches_the_folder_and_leaves_the_outbox,
    a_rolled_back_cause_sends_nothing,
    a_code_that_expired_is_not_sent,
    only_the_newest_code_is_sent,
    an_email_under_way_is_not_taken_by_another_process,
    a_failing_transport_is_tried_again_with_growing_pauses,
    a_message_is_given_up_in_the_end,
    without_a_transport_nothing_is_promised,
);

static ANN: LazyLock<Did> = LazyLock::new(|| "did:plc:ann".parse().unwrap());
const START: Timestamp = Timestamp::from_seconds(1_000_000_000);

struct MailHarness {
    mail: Mail,
    db: Db,
    clock: ManualClock,
    folder: MailFolder,
    metrics: Metrics,
}

impl MailHarness {
    fn new(db: &Db) -> Self {
        let folder = MailFolder::new();
        let (mail, clock, metrics) = mail(db, &folder.settings());
        Self { mail, db: db.clone(), clock, folder, metrics }
    }

    async fn put_code(&self, language: Language) {
        let code = Secret::new("ABCDE-FGHIJ".to_owned());
        let mut tx = self.db.begin().await.unwrap();
        let expires_at = self.clock.now().plus(Duration::from_mins(15));
        self.mail.put_code(&mut tx, ann(language), Reason::ResetPassword, &code, expires_at).await.unwrap();
        tx.commit().await.unwrap();
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    fn emails(&self) -> Vec<String> {
        self.folder.emails()
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|printed| printed == line)
    }
}

fn mail(db: &Db, pairs: &[(&str, &str)]) -> (Mail, ManualClock, Metrics) {
    let all = [("GENKAN_PUBLIC_URL", "https://example.com")].into_iter().chain(pairs.iter().copied());
    let config = Config::load(&Environment::from_pairs(all), None).unwrap();
    let (clock, metrics) = (ManualClock::at(START), Metrics::default());
    let sealer = Sealer::new(&Secret::new([7; 32]));
    (Mail::new(&config, db.clone(), clock.clock(), sealer, &metrics).unwrap(), clock, metrics)
}

fn ann(language: Language) -> Recipient<'static> {
    Recipient { did: &ANN, handle: "ann.example.com", email: "ann@example.org", language }
}

async fn an_email_reaches_the_folder_and_leaves_the_outbox(db: Db) {
    let harness = MailHarness::new(&db);
    harness.put_code(Language::English).await;
    let sealed: String =
        sqlx::query_scalar("SELECT sealed FROM outbox").fetch_one(db.reader()).await.unwrap();
    // Address and code are sealed as long as the email waits. Shorter texts than these occur in ciphertext by chance.
    assert!(sealed.starts_with("v1."));
    assert!(!sealed.contains("ABCDE-FGHIJ") && !sealed.contains("ann@example.org"));
    assert_eq!(harness.mail.post_due().await.unwrap(), 1);
    let emails = harness.emails();
    let [email] = emails.as_slice() else { panic!("{emails:?}") };
    for line in [
        "From: Genkan <hello@example.com>",
        "To: ann@example.org",
        "Subject: Reset your password at Genkan",
        "Date: Sun, 09 Sep 2001 01:46:40 +0000",
        "Auto-Submitted: auto-generated",
        "Content-Language: en",
        "    ABCDE-FGHIJ",
    ] {
        assert!(email.lines().any(|found| found == line), "no {line:?} in\n{email}");
    }
    assert!(email.contains("Message-ID: <") && email.contains("@example.com>"), "{email}");
    assert_eq!(harness.mail.post_due().await.unwrap(), 0);
    assert_eq!(harness.emails().len(), 1);
    assert!(harness.counted("genkan_mails_total{outcome=\"sent\"} 1"), "{}", harness.metrics.text());
    assert!(harness.counted("genkan_mails_waiting 0"));
}

async fn a_rolled_back_cause_sends_nothing(db: Db) {
    let harness = MailHarness::new(&db);
    let code = Secret::new("ABCDE-FGHIJ".to_owned());
    let mut tx = db.begin().await.unwrap();
    let to = ann(Language::German);
    harness
        .mail
        .put_code(&mut tx, to, Reason::ConfirmEmail, &code, harness.clock.now().plus(Duration::from_mins(1)))
        .await
        .unwrap();
    // The cause is rolled back, and with it the row in the outbox.
    drop(tx);
    assert_eq!(harness.mail.post_due().await.unwrap(), 0);
    assert!(harness.emails().is_empty());
}

async fn a_code_that_expired_is_not_sent(db: Db) {
    let harness = MailHarness::new(&db);
    harness.put_code(Language::English).await;
    harness.pass(Duration::from_mins(15));
    harness.mail.post_due().await.unwrap();
    assert!(harness.emails().is_empty());
    assert!(harness.counted("genkan_mails_total{outcome=\"expired\"} 1"));
    assert!(harness.counted("genkan_mails_waiting 0"));
}

async fn only_the_newest_code_is_sent(db: Db) {
    let harness = MailHarness::new(&db);
    harness.put_code(Language::English).await;
    harness.put_code(Language::German).await;
    assert_eq!(harness.mail.post_due().await.unwrap(), 1);
    let emails = harness.emails();
    assert!(emails.len() == 1 && emails[0].contains("Content-Language: de"), "{emails:?}");
}

/// The mail server does not answer, and another process looks for emails meanwhile.
async fn an_email_under_way_is_not_taken_by_another_process(db: Db) {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", server.local_addr().unwrap());
    let settings = [("GENKAN_MAIL_SMTP_URL", url.as_str()), ("GENKAN_MAIL_FROM", "hello@example.com")];
    let ((first, clock, _), (second, other_clock, _)) = (mail(&db, &settings), mail(&db, &settings));
    let mut tx = db.begin().await.unwrap();
    first.put_message(&mut tx, ann(Language::English), Some("Hello"), "<p>News</p>").await.unwrap();
    tx.commit().await.unwrap();
    let posting = tokio::spawn(async move { first.post_due().await });
    // The connection is accepted and stays silent, so the first process waits for the greeting.
    let _silent = server.accept().await.unwrap();
    let looked = tokio::time::timeout(Duration::from_secs(5), second.post_due()).await;
    assert_eq!(looked.expect("it has nothing to wait for").unwrap(), 0);
    // The first process goes on, and renews its lease.
    for _ in 0..2 {
        clock.advance(Duration::from_secs(10));
        other_clock.advance(Duration::from_secs(10));
        let renewed = clock.now().plus(Duration::from_secs(10)).as_millis();
        while due_at(&db).await < renewed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(second.post_due().await.unwrap(), 0);
    }
    // It is killed.
    posting.abort();
    posting.await.unwrap_err();
    other_clock.advance(Duration::from_secs(25));
    let posting = tokio::spawn(async move { second.post_due().await });
    let taken_over = tokio::time::timeout(Duration::from_secs(20), server.accept()).await;
    assert!(taken_over.is_ok(), "another process tries within half a minute");
    posting.abort();
}

async fn due_at(db: &Db) -> i64 {
    sqlx::query_scalar("SELECT due_at FROM outbox").fetch_one(db.reader()).await.unwrap()
}

async fn a_failing_transport_is_tried_again_with_growing_pauses(db: Db) {
    let harness = MailHarness::new(&db);
    harness.put_code(Language::English).await;
    harness.folder.remove();
    assert_eq!(harness.mail.post_due().await.unwrap(), 1);
    assert_eq!(harness.mail.post_due().await.unwrap(), 0, "the first pause has begun");
    harness.pass(Duration::from_secs(6));
    assert_eq!(harness.mail.post_due().await.unwrap(), 1);
    // Pauses are spread by chance, so the test is close to the shortest second pause.
    harness.pass(Duration::from_millis(3900));
    assert_eq!(
        harness.mail.post_due().await.unwrap(),
        0,
        "the second pause is longer than the shortest first"
    );
    assert!(harness.counted("genkan_mails_total{outcome=\"failed\"} 2"));
    assert!(harness.counted("genkan_mails_waiting 1"));
    assert!(harness.counted("genkan_oldest_mail_age_seconds 9"), "{}", harness.metrics.text());
    harness.folder.restore();
    harness.pass(Duration::from_secs(20));
    assert_eq!(harness.mail.post_due().await.unwrap(), 1);
    assert_eq!(harness.emails().len(), 1);
}

async fn a_message_is_given_up_in_the_end(db: Db) {
    let harness = MailHarness::new(&db);
    let mut tx = db.begin().await.unwrap();
    harness.mail.put_message(&mut tx, ann(Language::English), Some("Hello"), "<p>News</p>").await.unwrap();
    tx.commit().await.unwrap();
    harness.folder.remove();
    harness.mail.post_due().await.unwrap();
    harness.pass(Duration::from_hours(24));
    harness.mail.post_due().await.unwrap();
    let lost = Mail::given_up(&db, 10).await.unwrap();
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].kind.as_str(), lost[0].why.as_str(), lost[0].attempts), ("message", "expired", 2));
    assert!(harness.counted("genkan_mails_total{outcome=\"given_up\"} 1"));
}

async fn without_a_transport_nothing_is_promised(db: Db) {
    let (mail, ..) = mail(&db, &[]);
    assert!(!mail.is_on());
    let mut tx = db.begin().await.unwrap();
    let put = mail.put_message(&mut tx, ann(Language::English), None, "x").await;
    assert!(matches!(put, Err(Error::Off)));
    assert_eq!(mail.post_due().await.unwrap(), 0);
}
