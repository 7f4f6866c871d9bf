//! The catalogue of what emails say, in each language.

use super::Reason;
use crate::base::Language;

/// The texts of one code email.
#[derive(Debug)]
pub(super) struct CodeTexts {
    pub(super) subject: String,
    /// Before the handle.
    pub(super) hello: &'static str,
    /// Before the code.
    pub(super) cause: String,
    pub(super) how: &'static str,
    pub(super) otherwise: &'static str,
}

pub(super) fn texts(reason: Reason, language: Language, service: &str) -> CodeTexts {
    let (subject, cause, otherwise) = match language {
        Language::English => english(reason, service),
        Language::German => german(reason, service),
    };
    let (hello, how) = match language {
        Language::English => {
            ("Hello", "It can be used once, within 15 minutes. Never tell it to anybody, whoever asks.")
        }
        Language::German => (
            "Guten Tag",
            "Er gilt einmal und nur 15 Minuten lang. Geben Sie ihn niemandem weiter, wer auch immer danach fragt.",
        ),
    };
    CodeTexts { subject, hello, cause, how, otherwise }
}

pub(super) fn subject_of_operator(language: Language, service: &str) -> String {
    match language {
        Language::English => format!("A message from {service}"),
        Language::German => format!("Eine Nachricht von {service}"),
    }
}

/// Subject, cause, and what to do if it was not you.
fn english(reason: Reason, service: &str) -> (String, String, &'static str) {
    match reason {
        Reason::ConfirmEmail => (
            format!("Confirm your e-mail address at {service}"),
            format!(
                "please confirm that this is the e-mail address of your account at {service}, with this code:"
            ),
            "If you have no account there, somebody mistyped their address: you need not do anything.",
        ),
        Reason::UpdateEmail => (
            format!("Change your e-mail address at {service}"),
            format!(
                "somebody asked to change the e-mail address of your account at {service}. This is the code for it:"
            ),
            "If it was not you, somebody else uses your account: change your password.",
        ),
        Reason::ResetPassword => (
            format!("Reset your password at {service}"),
            format!(
                "somebody asked to set a new password for your account at {service}. This is the code for it:"
            ),
            "If it was not you, you need not do anything: your password stays as it is.",
        ),
        Reason::DeleteAccount => (
            format!("Delete your account at {service}"),
            format!(
                "somebody asked to delete your account at {service}, with everything in it, for good. This is the code for it:"
            ),
            "If it was not you, somebody else uses your account: change your password.",
        ),
        Reason::PlcOperation => (
            format!("Change your identity, signed by {service}"),
            format!(
                "somebody asked {service} to sign a change of your identity. Whoever has this code can take your account elsewhere, with its name:"
            ),
            "If it was not you, somebody else uses your account: change your password.",
        ),
    }
}

fn german(reason: Reason, service: &str) -> (String, String, &'static str) {
    match reason {
        Reason::ConfirmEmail => (
            format!("Bestätigen Sie Ihre E-Mail-Adresse bei {service}"),
            format!(
                "bitte bestätigen Sie mit diesem Code, dass dies die E-Mail-Adresse Ihres Kontos bei {service} ist:"
            ),
            "Wenn Sie dort kein Konto haben, hat sich jemand vertippt: Sie müssen nichts tun.",
        ),
        Reason::UpdateEmail => (
            format!("Ändern Sie Ihre E-Mail-Adresse bei {service}"),
            format!(
                "jemand möchte die E-Mail-Adresse Ihres Kontos bei {service} ändern. Dies ist der Code dafür:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto: Ändern Sie Ihr Passwort.",
        ),
        Reason::ResetPassword => (
            format!("Setzen Sie Ihr Passwort bei {service} neu"),
            format!(
                "jemand möchte für Ihr Konto bei {service} ein neues Passwort setzen. Dies ist der Code dafür:"
            ),
            "Wenn Sie das nicht waren, müssen Sie nichts tun: Ihr Passwort bleibt, wie es ist.",
        ),
        Reason::DeleteAccount => (
            format!("Löschen Sie Ihr Konto bei {service}"),
            format!(
                "jemand möchte Ihr Konto bei {service} mit allem, was darin ist, endgültig löschen. Dies ist der Code dafür:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto: Ändern Sie Ihr Passwort.",
        ),
        Reason::PlcOperation => (
            format!("Ändern Sie Ihre Identität, signiert von {service}"),
            format!(
                "jemand möchte, dass {service} eine Änderung Ihrer Identität signiert. Wer diesen Code hat, kann mit Ihrem Konto und seinem Namen umziehen:"
            ),
            "Wenn Sie das nicht waren, benutzt jemand anderes Ihr Konto: Ändern Sie Ihr Passwort.",
        ),
    }
}
