//! Texts of emails, in each language.

use super::reason::Reason;
use crate::base::Language;

/// The texts of an email with a code.
#[derive(Debug)]
pub(super) struct CodeTexts {
    pub(super) subject: String,
    /// The greeting before the handle.
    pub(super) hello: &'static str,
    /// What the code is for. It precedes the code.
    pub(super) cause: String,
    /// How the code is used.
    pub(super) how: &'static str,
    /// What to do if the reader did not ask for it.
    pub(super) otherwise: &'static str,
}

pub(super) fn texts(reason: Reason, language: Language, service: &str) -> CodeTexts {
    let (subject, cause, otherwise) = match language {
        Language::English => english(reason, service),
        Language::German => german(reason, service),
    };
    let (hello, how) = match language {
        Language::English => ("Hello", "The code works once, within 15 minutes. Never share it with anyone."),
        Language::German => {
            ("Guten Tag", "Der Code gilt nur einmal und 15 Minuten lang. Geben Sie ihn an niemanden weiter.")
        }
    };
    CodeTexts { subject, hello, cause, how, otherwise }
}

pub(super) fn subject_of_operator(language: Language, service: &str) -> String {
    match language {
        Language::English => format!("A message from {service}"),
        Language::German => format!("Eine Nachricht von {service}"),
    }
}

/// Returns the subject, the cause, and what to do if the reader did not ask for the code.
fn english(reason: Reason, service: &str) -> (String, String, &'static str) {
    match reason {
        Reason::ConfirmEmail => (
            format!("Confirm your email address at {service}"),
            format!("please confirm the email address of your account at {service} with this code:"),
            "If you do not have an account there, you can ignore this email.",
        ),
        Reason::UpdateEmail => (
            format!("Change your email address at {service}"),
            format!(
                "someone asked to change the email address of your account at {service}. This code allows it:"
            ),
            "If this was not you, someone else is using your account. Change your password.",
        ),
        Reason::ResetPassword => (
            format!("Reset your password at {service}"),
            format!(
                "someone asked to reset the password of your account at {service}. Set a new one with this code:"
            ),
            "If this was not you, you can ignore this email. Your password stays the same.",
        ),
        Reason::DeleteAccount => (
            format!("Delete your account at {service}"),
            format!(
                "someone asked to delete your account at {service} and everything in it permanently. This code allows it:"
            ),
            "If this was not you, someone else is using your account. Change your password.",
        ),
        Reason::PlcOperation => (
            format!("Confirm a change to your identity at {service}"),
            format!(
                "someone asked {service} to sign a change to your identity. Anyone who has this code can move your account, with its handle, to another server:"
            ),
            "If this was not you, someone else is using your account. Change your password.",
        ),
    }
}

fn german(reason: Reason, service: &str) -> (String, String, &'static str) {
    match reason {
        Reason::ConfirmEmail => (
            format!("Bestätigen Sie Ihre E-Mail-Adresse bei {service}"),
            format!("bitte bestätigen Sie die E-Mail-Adresse Ihres Kontos bei {service} mit diesem Code:"),
            "Wenn Sie dort kein Konto haben, können Sie diese E-Mail ignorieren.",
        ),
        Reason::UpdateEmail => (
            format!("Ändern Sie Ihre E-Mail-Adresse bei {service}"),
            format!(
                "jemand möchte die E-Mail-Adresse Ihres Kontos bei {service} ändern. Dieser Code erlaubt es:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto. Ändern Sie Ihr Passwort.",
        ),
        Reason::ResetPassword => (
            format!("Setzen Sie Ihr Passwort bei {service} zurück"),
            format!(
                "jemand möchte das Passwort Ihres Kontos bei {service} zurücksetzen. Mit diesem Code legen Sie ein neues fest:"
            ),
            "Wenn Sie das nicht waren, können Sie diese E-Mail ignorieren. Ihr Passwort bleibt unverändert.",
        ),
        Reason::DeleteAccount => (
            format!("Löschen Sie Ihr Konto bei {service}"),
            format!(
                "jemand möchte Ihr Konto bei {service} mit allen Inhalten endgültig löschen. Dieser Code erlaubt es:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto. Ändern Sie Ihr Passwort.",
        ),
        Reason::PlcOperation => (
            format!("Bestätigen Sie eine Änderung Ihrer Identität bei {service}"),
            format!(
                "jemand möchte, dass {service} eine Änderung Ihrer Identität signiert. Wer diesen Code hat, kann Ihr Konto samt Handle auf einen anderen Server umziehen:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto. Ändern Sie Ihr Passwort.",
        ),
    }
}
