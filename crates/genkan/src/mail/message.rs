//! The content of emails: subject, text and HTML.

use askama::Template;
use genkan_protocol::syntax::Did;
use serde::{Deserialize, Serialize};

use super::plain_text::plain_text;
use super::reason::Reason;
use super::texts::{self, CodeTexts, texts};
use crate::base::{Language, Secret};

/// The recipient of an email.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) did: &'a Did,
    pub(crate) handle: &'a str,
    /// An address that was validated when it was stored.
    pub(crate) email: &'a str,
    pub(crate) language: Language,
}

/// The content of an email, as it is sealed in the outbox.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) to: String,
    pub(super) language: String,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

#[derive(Template)]
#[template(path = "mail/code.txt")]
struct CodeText<'a> {
    texts: &'a CodeTexts,
    handle: &'a str,
    code: &'a str,
    service: &'a str,
    url: &'a str,
}

#[derive(Template)]
#[template(path = "mail/code.html")]
struct CodeHtml<'a> {
    language: &'a str,
    texts: &'a CodeTexts,
    handle: &'a str,
    code: &'a str,
    service: &'a str,
    url: &'a str,
}

/// The service that sends an email: its name and URL are in the text.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) service: String,
    pub(super) url: String,
}

impl Sender {
    /// Writes an email with a code.
    pub(super) fn code(&self, to: Recipient<'_>, reason: Reason, code: &Secret<String>) -> Message {
        let texts = texts(reason, to.language, &self.service);
        let (handle, code) = (to.handle, code.expose().as_str());
        let (service, url) = (self.service.as_str(), self.url.as_str());
        let text = CodeText { texts: &texts, handle, code, service, url };
        let html = CodeHtml { language: to.language.tag(), texts: &texts, handle, code, service, url };
        Message {
            to: to.email.to_owned(),
            language: to.language.tag().to_owned(),
            text: text.render().expect("writing into a text does not fail"),
            html: html.render().expect("writing into a text does not fail"),
            subject: texts.subject,
        }
    }

    /// Writes an email with HTML by the operator, or by a moderator in the operator's name.
    pub(super) fn by_operator(&self, to: Recipient<'_>, subject: Option<&str>, html: &str) -> Message {
        let subject = match subject.map(one_line) {
            // A subject of spaces only is like none.
            Some(subject) if !subject.is_empty() => subject,
            _ => texts::subject_of_operator(to.language, &self.service),
        };
        Message {
            to: to.email.to_owned(),
            language: to.language.tag().to_owned(),
            subject,
            // Some readers show only text, and filters distrust e-mails that have none.
            text: plain_text(html),
            html: html.to_owned(),
        }
    }
}

/// Makes a subject one line of at most 200 characters. A line end in it could forge a header.
fn one_line(text: &str) -> String {
    // The bound counts characters, not bytes, so that it never cuts one in half.
    let spaced: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(200).collect();
    spaced.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static ANN: LazyLock<Did> = LazyLock::new(|| "did:plc:ann".parse().unwrap());

    fn sender() -> Sender {
        Sender { service: "Rock & Roll".to_owned(), url: "https://example.com".to_owned() }
    }

    fn ann(language: Language) -> Recipient<'static> {
        Recipient { did: &ANN, handle: "ann.example.com", email: "ann@example.com", language }
    }

    const ALL: [Reason; 5] = [
        Reason::ConfirmEmail,
        Reason::UpdateEmail,
        Reason::ResetPassword,
        Reason::DeleteAccount,
        Reason::PlcOperation,
    ];

    #[test]
    fn a_code_email_reads_like_this() {
        let code = Secret::new("ABCDE-FGHIJ".to_owned());
        let email = sender().code(ann(Language::English), Reason::ResetPassword, &code);
        assert_eq!(email.subject, "Reset your password at Rock & Roll");
        assert_eq!(
            email.text,
            "Hello ann.example.com,\n\n\
             someone asked to reset the password of your account at Rock & Roll. Set a new one with this code:\n\n\
             \x20   ABCDE-FGHIJ\n\n\
             The code works once, within 15 minutes. Never share it with anyone.\n\n\
             If this was not you, you can ignore this email. Your password stays the same.\n\n\
             -- \nRock & Roll\nhttps://example.com\n"
        );
    }

    #[test]
    fn every_email_exists_in_every_language_as_text_and_html() {
        let code = Secret::new("ABCDE-FGHIJ".to_owned());
        let mut subjects = std::collections::HashSet::new();
        for reason in ALL {
            for language in Language::ALL {
                let email = sender().code(ann(language), reason, &code);
                assert!(email.text.lines().any(|line| line.trim() == "ABCDE-FGHIJ"), "{}", email.text);
                // The HTML escapes the service's name. The text is compared above.
                assert!(email.html.contains(">ABCDE-FGHIJ<"), "{}", email.html);
                assert!(email.html.contains(&format!("<html lang=\"{}\"", language.tag())));
                assert!(email.html.contains("Rock &#38; Roll") && !email.html.contains("Rock & Roll"));
                assert!(email.text.contains("15"), "{}", email.text);
                subjects.insert(email.subject);
            }
        }
        assert_eq!(subjects.len(), ALL.len() * Language::ALL.len(), "no text was left untranslated");
    }

    #[test]
    fn what_names_hold_is_text_in_html() {
        let code = Secret::new("ABCDE-FGHIJ".to_owned());
        let to = Recipient { handle: "<script>", ..ann(Language::English) };
        let email = sender().code(to, Reason::ConfirmEmail, &code);
        assert!(!email.html.contains("<script>"), "{}", email.html);
    }

    #[test]
    fn an_operators_subject_stays_one_line() {
        let to = ann(Language::English);
        let email = sender().by_operator(to, Some("Hi\r\nBcc: eve@example.com"), "<p>Hello</p>");
        assert_eq!((email.subject.as_str(), email.text.as_str()), ("Hi  Bcc: eve@example.com", "Hello\n"));
        let email = sender().by_operator(to, Some("  "), "x");
        assert_eq!(email.subject, "A message from Rock & Roll");
    }
}
