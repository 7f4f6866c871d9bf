//! `[sign_up]`: who may create an account.

use super::problem::Findings;
use super::section::section;

section! {
    /// Who may create an account, and with which handles and passwords.
    pub struct SignUp = "sign_up" {
        /// Whether a new account needs an invite code. The reference PDS requires one by default,
        /// Genkan does not.
        invite_required: bool { env: "GENKAN_INVITE_REQUIRED", alias: "PDS_INVITE_REQUIRED", default: "false" },
        /// Email domains that accounts may not use, including their subdomains.
        blocked_email_domains: Vec<String> { env: "GENKAN_BLOCKED_EMAIL_DOMAINS", file: true },
        /// First parts of handles that users may not choose, in addition to the built-in list.
        reserved_handles: Vec<String> { env: "GENKAN_RESERVED_HANDLES", file: true },
        /// Minimum number of characters in a password.
        password_min: usize { env: "GENKAN_PASSWORD_MIN", default: "8" },
        /// Maximum number of characters in a password.
        password_max: usize { env: "GENKAN_PASSWORD_MAX", default: "256" },
    }
}

impl SignUp {
    fn check(&self, found: &mut Findings) {
        if self.password_min < 8 {
            found.add("GENKAN_PASSWORD_MIN", format!("{} is too small", self.password_min), "use 8 or more");
        }
        if self.password_max < self.password_min || self.password_max > 512 {
            found.add(
                "GENKAN_PASSWORD_MAX",
                format!("{} is out of range", self.password_max),
                "use at least GENKAN_PASSWORD_MIN and at most 512",
            );
        }
        for domain in &self.blocked_email_domains {
            if !domain.contains('.') || domain.starts_with('.') || domain.contains(['@', ' ', '/']) {
                found.add(
                    "GENKAN_BLOCKED_EMAIL_DOMAINS",
                    format!("{domain:?} is not a domain"),
                    "use the form mail.example",
                );
            }
        }
        for name in &self.reserved_handles {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !name.bytes().all(plain) {
                found.add(
                    "GENKAN_RESERVED_HANDLES",
                    format!("{name:?} is not a valid first part of a handle"),
                    "use lower-case letters, digits and hyphens, without a domain",
                );
            }
        }
    }
}
