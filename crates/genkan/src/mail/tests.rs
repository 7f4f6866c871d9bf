//! Emails through the outbox into a folder, and emails that cannot be delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Error, Mail, Reason, Recipient};
use crate::base::seal::Sealer;
use crate::base::{Clock, Language, Secret, Timestamp, random};
use crate::config::{Config, Environment};
use crate::db::{Db, on_each_database};
use crate::telemetry::metrics::Metrics;

on_each_database!(
    a_letter_reaches_the_folder_and_leaves_the_outbox,
    a_rolled_back_cause_sends_nothing,
    a_code_that_expired_is_not_sent,
    only_the_newest_code_is_sent,
    a_letter_under_way_is_nobody_elses,
    a_failing_transport_is_tried_again_with_growing_pauses,
    a_message_is_given_up_in_the_end,
    without_a_transport_nothing_is_promised,
);

const START: i64 = 1_000_000_000_000;

struct Post {
    mail: Mail,
    db: Db,
    now: Arc<AtomicI64>,
    folder: std::path::PathBuf,
    metrics: Metrics,
}

impl Post {
    fn new(db: &Db) -> Self {
        let folder = std::env::temp_dir().join(format!("genkan-mail-{}", random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = folder.to_string_lossy().into_owned();
        let (mail, now, metrics) =
            mail(db, &[("GENKAN_MAIL_FOLDER", &text), ("GENKAN_MAIL_FROM", "post@example.com")]);
        Self { mail, db: db.clone(), now, folder, metrics }
    }

    async fn put_code(&self, language: Language) {
        let code = Secret::new("ABCDE-FGHIJ".to_owned());
        let mut tx = self.db.begin().await.unwrap();
        let expires_at = self.clock().plus(Duration::from_mins(15));
        self.mail.put_code(&mut tx, ann(language), Reason::ResetPassword, &code, expires_at).await.unwrap();
        tx.commit().await.unwrap();
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn emails(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|printed| printed == line)
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn mail(db: &Db, pairs: &[(&str, &str)]) -> (Mail, Arc<AtomicI64>, Metrics) {
    let all = [("GENKAN_PUBLIC_URL", "https://example.com")].into_iter().chain(pairs.iter().copied());
    let config = Config::load(&Environment::from_pairs(all), None).unwrap();
    let (now, metrics) = (Arc::new(AtomicI64::new(START)), Metrics::default());
    let sealer = Sealer::new(&Secret::new([7; 32]));
    let clock = Clock::Manual(Arc::clone(&now));
    (Mail::new(&config, db.clone(), clock, sealer, &metrics).unwrap(), now, metrics)
}

fn ann(language: Language) -> Recipient<'static> {
    Recipient { did: "did:plc:ann", handle: "ann.example.com", email: "ann@example.org", language }
}

async fn a_letter_reaches_the_folder_and_leaves_the_outbox(db: Db) {
    let post = Post::new(&db);
    post.put_code(Language::English).await;
    let sealed: String =
        sqlx::query_scalar("SELECT sealed FROM outbox").fetch_one(db.reader()).await.unwrap();
    assert!(!sealed.contains("ABCDE") && !sealed.contains("ann"), "{sealed}");
    assert_eq!(post.mail.post_due().await.unwrap(), 1);
    let emails = post.emails();
    let [email] = emails.as_slice() else { panic!("{emails:?}") };
    for line in [
        "From: Genkan <post@example.com>",
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
    assert_eq!(post.mail.post_due().await.unwrap(), 0);
    assert_eq!(post.emails().len(), 1);
    assert!(post.counted("genkan_mails_total{outcome=\"sent\"} 1"), "{}", post.metrics.text());
    assert!(post.counted("genkan_mails_waiting 0"));
}

async fn a_rolled_back_cause_sends_nothing(db: Db) {
    let post = Post::new(&db);
    let code = Secret::new("ABCDE-FGHIJ".to_owned());
    let mut tx = db.begin().await.unwrap();
    let to = ann(Language::German);
    post.mail
        .put_code(&mut tx, to, Reason::ConfirmEmail, &code, post.clock().plus(Duration::from_mins(1)))
        .await
        .unwrap();
    drop(tx);
    assert_eq!(post.mail.post_due().await.unwrap(), 0);
    assert!(post.emails().is_empty());
}

async fn a_code_that_expired_is_not_sent(db: Db) {
    let post = Post::new(&db);
    post.put_code(Language::English).await;
    post.pass(Duration::from_mins(15));
    post.mail.post_due().await.unwrap();
    assert!(post.emails().is_empty());
    assert!(post.counted("genkan_mails_total{outcome=\"expired\"} 1"));
    assert!(post.counted("genkan_mails_waiting 0"));
}

async fn only_the_newest_code_is_sent(db: Db) {
    let post = Post::new(&db);
    post.put_code(Language::English).await;
    post.put_code(Language::German).await;
    assert_eq!(post.mail.post_due().await.unwrap(), 1);
    let emails = post.emails();
    assert!(emails.len() == 1 && emails[0].contains("Content-Language: de"), "{emails:?}");
}

/// A mail server is slow, and another process looks for emails meanwhile.
async fn a_letter_under_way_is_nobody_elses(db: Db) {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", server.local_addr().unwrap());
    let settings = [("GENKAN_MAIL_SMTP_URL", url.as_str()), ("GENKAN_MAIL_FROM", "post@example.com")];
    let ((first, ..), (second, ..)) = (mail(&db, &settings), mail(&db, &settings));
    let mut tx = db.begin().await.unwrap();
    first.put_message(&mut tx, ann(Language::English), Some("Hello"), "<p>News</p>").await.unwrap();
    tx.commit().await.unwrap();
    let posting = tokio::spawn(async move { first.post_due().await });
    let _silent = server.accept().await.unwrap();
    let looked = tokio::time::timeout(Duration::from_secs(5), second.post_due()).await;
    assert_eq!(looked.expect("it has nothing to wait for").unwrap(), 0);
    posting.abort();
}

async fn a_failing_transport_is_tried_again_with_growing_pauses(db: Db) {
    let post = Post::new(&db);
    post.put_code(Language::English).await;
    std::fs::remove_dir_all(&post.folder).unwrap();
    assert_eq!(post.mail.post_due().await.unwrap(), 1);
    assert_eq!(post.mail.post_due().await.unwrap(), 0, "the first pause has begun");
    post.pass(Duration::from_secs(6));
    assert_eq!(post.mail.post_due().await.unwrap(), 1);
    post.pass(Duration::from_millis(3900));
    assert_eq!(post.mail.post_due().await.unwrap(), 0, "the second pause is longer than the shortest first");
    assert!(post.counted("genkan_mails_total{outcome=\"failed\"} 2"));
    assert!(post.counted("genkan_mails_waiting 1"));
    assert!(post.counted("genkan_oldest_mail_age_seconds 9"), "{}", post.metrics.text());
    std::fs::create_dir_all(&post.folder).unwrap();
    post.pass(Duration::from_secs(20));
    assert_eq!(post.mail.post_due().await.unwrap(), 1);
    assert_eq!(post.emails().len(), 1);
}

async fn a_message_is_given_up_in_the_end(db: Db) {
    let post = Post::new(&db);
    let mut tx = db.begin().await.unwrap();
    post.mail.put_message(&mut tx, ann(Language::English), Some("Hello"), "<p>News</p>").await.unwrap();
    tx.commit().await.unwrap();
    std::fs::remove_dir_all(&post.folder).unwrap();
    post.mail.post_due().await.unwrap();
    post.pass(Duration::from_hours(24));
    post.mail.post_due().await.unwrap();
    let lost = Mail::given_up(&db, 10).await.unwrap();
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].kind.as_str(), lost[0].why.as_str(), lost[0].attempts), ("message", "expired", 2));
    assert!(post.counted("genkan_mails_total{outcome=\"given_up\"} 1"));
}

async fn without_a_transport_nothing_is_promised(db: Db) {
    let (mail, ..) = mail(&db, &[]);
    assert!(!mail.is_on());
    let mut tx = db.begin().await.unwrap();
    let put = mail.put_message(&mut tx, ann(Language::English), None, "x").await;
    assert!(matches!(put, Err(Error::Off)));
    assert_eq!(mail.post_due().await.unwrap(), 0);
}
