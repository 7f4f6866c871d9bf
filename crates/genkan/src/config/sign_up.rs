//! `[sign_up]`: who may come in.

use super::key::section;
use super::problem::Findings;

section! {
    /// Who may come in, and with which names.
    pub struct SignUp = "sign_up" {
        /// Whether a new account needs an invite code. The reference PDS defaults to true, Genkan to false.
        invite_required: bool { env: "GENKAN_INVITE_REQUIRED", alias: "PDS_INVITE_REQUIRED", default: "false" },
        /// Domains of e-mail addresses, with all below them, that no account may have.
        blocked_email_domains: Vec<String> { env: "GENKAN_BLOCKED_EMAIL_DOMAINS", file: true },
        /// Names that nobody may take as the first part of a handle, besides those that Genkan itself reserves.
        reserved_handles: Vec<String> { env: "GENKAN_RESERVED_HANDLES", file: true },
        /// The fewest characters of a password.
        password_min: usize { env: "GENKAN_PASSWORD_MIN", default: "8" },
        /// The most characters of a password.
        password_max: usize { env: "GENKAN_PASSWORD_MAX", default: "256" },
    }
}

impl SignUp {
    fn check(&self, found: &mut Findings) {
        if self.password_min < 8 {
            found.add("GENKAN_PASSWORD_MIN", format!("{} is too few", self.password_min), "write 8 or more");
        }
        if self.password_max < self.password_min || self.password_max > 512 {
            found.add(
                "GENKAN_PASSWORD_MAX",
                format!("{} is out of range", self.password_max),
                "write no less than GENKAN_PASSWORD_MIN and no more than 512",
            );
        }
        for domain in &self.blocked_email_domains {
            if !domain.contains('.') || domain.starts_with('.') || domain.contains(['@', ' ', '/']) {
                found.add(
                    "GENKAN_BLOCKED_EMAIL_DOMAINS",
                    format!("{domain:?} is not a domain"),
                    "write it such as mail.example",
                );
            }
        }
        for name in &self.reserved_handles {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !name.bytes().all(plain) {
                found.add(
                    "GENKAN_RESERVED_HANDLES",
                    format!("{name:?} cannot be the first part of a handle"),
                    "write lower-case letters, digits and hyphens, without a domain",
                );
            }
        }
    }
}
