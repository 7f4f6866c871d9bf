//! `[mail]`: emails to users.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;

use super::problem::Findings;
use super::section::section;
use super::value::Setting;
use crate::base::Secret;

section! {
    /// Emails to users: codes that confirm an email address, reset a password or allow an action
    /// that cannot be undone. Without `smtp_url` and `folder`, Genkan sends no email, and methods
    /// that need it answer 501.
    pub struct Mail = "mail" {
        /// Mail server. `smtps://` uses TLS from the start (port 465). `smtp://` requires STARTTLS
        /// (port 587), unless the server is on loopback or the URL ends in `?tls=opportunistic` or
        /// `?tls=off`. In the reference PDS's variable, `smtp://` means what it means there:
        /// STARTTLS if the server offers it.
        smtp_url: Option<SmtpUrl> { env: "GENKAN_MAIL_SMTP_URL", alias: "PDS_EMAIL_SMTP_URL" by as_hosts_have_it },
        /// Folder in which each email is stored as an `.eml` file, instead of being sent: for
        /// development, or for a mailer of your own.
        folder: Option<PathBuf> { env: "GENKAN_MAIL_FOLDER" },
        /// Sender of all emails. The display name is `name` of `[service]` unless this value
        /// contains one.
        from: Option<Sender> { env: "GENKAN_MAIL_FROM", alias: "PDS_EMAIL_FROM_ADDRESS" },
        /// Time for one attempt to hand an email to the mail server.
        timeout: Duration { env: "GENKAN_MAIL_TIMEOUT", default: "30s" },
        /// Time after which Genkan stops trying to send an email. Emails with a code are given up
        /// when the code expires, after 15 minutes.
        give_up_after: Duration { env: "GENKAN_MAIL_GIVE_UP_AFTER", default: "24h" },
    }
}

impl Mail {
    /// Whether emails are sent at all.
    pub fn is_on(&self) -> bool {
        self.smtp_url.is_some() || self.folder.is_some()
    }

    fn check(&self, found: &mut Findings) {
        if self.smtp_url.is_some() && self.folder.is_some() {
            found.add("GENKAN_MAIL_FOLDER", "is set as well as GENKAN_MAIL_SMTP_URL", "remove one of them");
        }
        if self.is_on() && self.from.is_none() {
            found.add(
                "GENKAN_MAIL_FROM",
                "is required when GENKAN_MAIL_SMTP_URL or GENKAN_MAIL_FOLDER is set",
                "set it to the sender, such as hello@example.com or Example <hello@example.com>",
            );
        }
        if let Some(folder) = &self.folder
            && !folder.is_dir()
        {
            found.add(
                "GENKAN_MAIL_FOLDER",
                format!("{} is not a folder", folder.display()),
                "use a folder that Genkan's user can write to",
            );
        }
        if self.timeout < Duration::from_secs(1) || self.timeout > Duration::from_mins(5) {
            found.add("GENKAN_MAIL_TIMEOUT", "is out of range", "use 1s to 5m");
        }
        if self.give_up_after < Duration::from_mins(1) || self.give_up_after > Duration::from_hours(24 * 7) {
            found.add("GENKAN_MAIL_GIVE_UP_AFTER", "is out of range", "use 1m to 7d");
        }
    }
}

/// Translates the reference PDS's URL: its mailer uses STARTTLS only where the server offers it.
fn as_hosts_have_it(url: &str) -> String {
    if url.starts_with("smtp://") && !url.contains('?') {
        format!("{url}?tls=opportunistic")
    } else {
        url.to_owned()
    }
}

/// A mail server. Displays without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// User name and password.
    pub credentials: Option<(Secret<String>, Secret<String>)>,
}

/// When a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// TLS from the start of the connection.
    Implicit,
    /// STARTTLS. Nothing is sent without it.
    StartTls,
    /// STARTTLS if the server offers it.
    Opportunistic,
    Off,
}

impl Setting for SmtpUrl {
    const FORM: &'static str = "smtps://user:password@host:465 or smtp://user:password@host:587";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or("does not name a server")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (mut tls, port) = match url.scheme_str() {
            Some("smtps") => (SmtpTls::Implicit, 465),
            Some("smtp") if is_loopback(&host) => (SmtpTls::Opportunistic, 587),
            Some("smtp") => (SmtpTls::StartTls, 587),
            _ => return Err("does not begin with smtps:// or smtp://".to_owned()),
        };
        match (url.query(), url.scheme_str()) {
            (None, _) => {}
            (Some("tls=required"), Some("smtp")) => tls = SmtpTls::StartTls,
            (Some("tls=opportunistic"), Some("smtp")) => tls = SmtpTls::Opportunistic,
            (Some("tls=off"), Some("smtp")) => tls = SmtpTls::Off,
            _ => {
                return Err(
                    "has a parameter other than tls=required, tls=opportunistic or tls=off of smtp://"
                        .to_owned(),
                );
            }
        }
        if !["", "/"].contains(&url.path()) {
            return Err("has a path".to_owned());
        }
        // The last `@`, since a password may contain others.
        let authority = url.authority().map_or("", http::uri::Authority::as_str);
        let credentials = match authority.rsplit_once('@') {
            None => None,
            Some((user_and_password, _)) => {
                let (user, password) =
                    user_and_password.split_once(':').ok_or("has a user without a password")?;
                let plain =
                    |text: &str| unescaped(text).ok_or("has a % without two hexadecimal digits before the @");
                Some((Secret::new(plain(user)?), Secret::new(plain(password)?)))
            }
        };
        // Traffic on the loopback interface does not leave the machine, so a local relay may be
        // used without TLS.
        if credentials.is_some() && tls == SmtpTls::Off && !is_loopback(&host) {
            return Err("would send the password without encryption".to_owned());
        }
        Ok(Self { port: url.port_u16().unwrap_or(port), host, tls, credentials })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls == SmtpTls::Implicit { "smtps" } else { "smtp" };
        let sealed = if self.credentials.is_some() { "[sealed]@" } else { "" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{sealed}{host}:{}", self.port)
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sender of emails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender(pub Mailbox);

impl Setting for Sender {
    const FORM: &'static str = "a sender such as hello@example.com or Example <hello@example.com>";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "is not an email address".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Undoes percent-encoding (RFC 3986 §2.1): user names of mail servers often contain an `@`.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_is_set_by_its_url() {
        for (given, shown, tls) in [
            (
                "smtps://me:hunter2@mail.example.com",
                "smtps://[sealed]@mail.example.com:465",
                SmtpTls::Implicit,
            ),
            ("smtp://mail.example.com", "smtp://mail.example.com:587", SmtpTls::StartTls),
            (
                "smtp://me:hunter2@mail.example.com:25/",
                "smtp://[sealed]@mail.example.com:25",
                SmtpTls::StartTls,
            ),
            ("smtp://mail.example.com?tls=off", "smtp://mail.example.com:587", SmtpTls::Off),
            (
                "smtp://mail.example.com?tls=opportunistic",
                "smtp://mail.example.com:587",
                SmtpTls::Opportunistic,
            ),
            ("smtp://localhost:1025", "smtp://localhost:1025", SmtpTls::Opportunistic),
            ("smtp://localhost?tls=required", "smtp://localhost:587", SmtpTls::StartTls),
            ("smtp://[::1]:25", "smtp://[::1]:25", SmtpTls::Opportunistic),
        ] {
            let url = SmtpUrl::parse(given).unwrap();
            assert_eq!((url.to_string(), url.tls), (shown.to_owned(), tls), "{given}");
            assert_eq!(format!("{url:?}"), shown);
        }
        let url = SmtpUrl::parse("smtps://me%40example.com:p%3Aw%25@mail.example.com").unwrap();
        let (user, password) = url.credentials.unwrap();
        assert_eq!((user.expose().as_str(), password.expose().as_str()), ("me@example.com", "p:w%"));
    }

    #[test]
    fn the_same_url_under_the_hosts_name_upgrades_where_it_can() {
        for (given, tls) in [
            ("smtp://me:hunter2@mail.example.com:587/", SmtpTls::Opportunistic),
            ("smtp://mail.example.com", SmtpTls::Opportunistic),
            ("smtp://mail.example.com?tls=required", SmtpTls::StartTls),
            ("smtps://mail.example.com", SmtpTls::Implicit),
        ] {
            let config = crate::config::Config::load(
                &crate::config::Environment::from_pairs([
                    ("GENKAN_PUBLIC_URL", "https://example.com"),
                    ("GENKAN_HANDLE_DOMAINS", ".example.com"),
                    ("PDS_EMAIL_SMTP_URL", given),
                    ("PDS_EMAIL_FROM_ADDRESS", "hello@example.com"),
                ]),
                None,
            )
            .unwrap();
            assert_eq!(config.mail.smtp_url.unwrap().tls, tls, "{given}");
        }
    }

    #[test]
    fn an_invalid_mail_server_is_refused_and_its_text_is_not_repeated() {
        for text in [
            "",
            "mail.example.com",
            "https://mail.example.com",
            "smtp://",
            "smtp://hunter2@mail.example.com",
            "smtp://me:hunter2@mail.example.com?tls=off",
            "smtp://me:hunter2%4@mail.example.com",
            "smtps://mail.example.com?tls=off",
            "smtps://mail.example.com/path",
            "smtp://mail.example.com?pool=true",
        ] {
            let why = SmtpUrl::parse(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }
}
