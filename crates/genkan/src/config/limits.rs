//! `[limits]`: how often, how large, how long.

use std::time::Duration;

use super::key::section;
use super::problem::Findings;
use super::{Rate, Size};

section! {
    /// How often, how large, how long. The rates are those that the reference PDS publishes.
    pub struct Limits = "limits" {
        /// Whether rates are limited at all.
        rates_enabled: bool { env: "GENKAN_RATE_LIMITS_ENABLED", alias: "PDS_RATE_LIMITS_ENABLED", default: "true" },
        /// Requests of one client address (IPv6: of one /64).
        global: Rate { env: "GENKAN_RATE_GLOBAL", default: "3000/5m" },
        /// Sign-ins with one identifier from one address.
        create_session: Rate { env: "GENKAN_RATE_CREATE_SESSION", default: "30/5m" },
        /// The same in the long run.
        create_session_daily: Rate { env: "GENKAN_RATE_CREATE_SESSION_DAILY", default: "300/1d" },
        /// Sign-ins on the pages from one address, whoever they are for.
        sign_in_address: Rate { env: "GENKAN_RATE_SIGN_IN_ADDRESS", default: "100/15m" },
        /// Sign-ins on the pages to one account, wherever they come from. A browser where the account was signed in before counts by itself.
        sign_in_account: Rate { env: "GENKAN_RATE_SIGN_IN_ACCOUNT", default: "50/15m" },
        /// Sign-ups from one address.
        create_account: Rate { env: "GENKAN_RATE_CREATE_ACCOUNT", default: "100/5m" },
        /// Changes of one account's handle.
        update_handle: Rate { env: "GENKAN_RATE_UPDATE_HANDLE", default: "10/5m" },
        /// The same in the long run.
        update_handle_daily: Rate { env: "GENKAN_RATE_UPDATE_HANDLE_DAILY", default: "50/1d" },
        /// Authorization requests that apps push from one address, per Genkan.
        oauth_par: Rate { env: "GENKAN_RATE_OAUTH_PAR", default: "300/5m" },
        /// Token requests from one address, per Genkan. Apps with a server refresh for all their users from one.
        oauth_token: Rate { env: "GENKAN_RATE_OAUTH_TOKEN", default: "3000/5m" },
        /// Revocations from one address, per Genkan.
        oauth_revoke: Rate { env: "GENKAN_RATE_OAUTH_REVOKE", default: "300/5m" },
        /// Mails with a code of one kind to one account, or to one address that asks for a password reset.
        request_mail: Rate { env: "GENKAN_RATE_REQUEST_MAIL", default: "5/1h" },
        /// The same in the long run.
        request_mail_daily: Rate { env: "GENKAN_RATE_REQUEST_MAIL_DAILY", default: "15/1d" },
        /// Requests for a password reset from one address.
        password_reset: Rate { env: "GENKAN_RATE_PASSWORD_RESET", default: "15/1h" },
        /// The same in the long run.
        password_reset_daily: Rate { env: "GENKAN_RATE_PASSWORD_RESET_DAILY", default: "50/1d" },
        /// Attempts from one address to use a code without a session: to reset a password, to delete an account.
        use_code: Rate { env: "GENKAN_RATE_USE_CODE", default: "50/5m" },
        /// The largest JSON body of a method that Genkan answers itself.
        own_body: Size { env: "GENKAN_OWN_BODY_LIMIT", default: "150kB" },
        /// The most that a compressed body of such a method may grow to.
        own_body_unpacked: Size { env: "GENKAN_OWN_BODY_UNPACKED_LIMIT", default: "1MiB" },
        /// The largest JSON body that is forwarded.
        forwarded_body: Size { env: "GENKAN_FORWARDED_BODY_LIMIT", default: "2MiB" },
        /// The largest blob that is forwarded. Hosts have a limit of their own.
        upload: Size { env: "GENKAN_UPLOAD_LIMIT", alias: "PDS_BLOB_UPLOAD_LIMIT", default: "100MiB" },
        /// The largest repository that is forwarded to `importRepo`.
        import: Size { env: "GENKAN_IMPORT_LIMIT", alias: "PDS_MAX_REPO_IMPORT_SIZE", default: "1GiB" },
        /// The largest answer to a read without credentials.
        answer: Size { env: "GENKAN_ANSWER_LIMIT", default: "4GiB" },
        /// How long connecting to a host may take, TLS included.
        connect_timeout: Duration { env: "GENKAN_CONNECT_TIMEOUT", default: "5s" },
        /// From the last byte of a request until the head of the host's answer.
        answer_timeout: Duration { env: "GENKAN_ANSWER_TIMEOUT", default: "30s" },
        /// The same for uploads and imports, which hosts digest before they answer.
        upload_answer_timeout: Duration { env: "GENKAN_UPLOAD_ANSWER_TIMEOUT", default: "120s" },
        /// The longest pause between two bytes of a forwarded body, either way.
        idle_timeout: Duration { env: "GENKAN_STREAM_IDLE_TIMEOUT", default: "30s" },
        /// How long resolving a handle or DID may take as a whole.
        resolve_timeout: Duration { env: "GENKAN_RESOLVE_TIMEOUT", default: "5s" },
    }
}

impl Limits {
    fn check(&self, found: &mut Findings) {
        for (env, given) in [
            ("GENKAN_CONNECT_TIMEOUT", self.connect_timeout),
            ("GENKAN_ANSWER_TIMEOUT", self.answer_timeout),
            ("GENKAN_UPLOAD_ANSWER_TIMEOUT", self.upload_answer_timeout),
            ("GENKAN_STREAM_IDLE_TIMEOUT", self.idle_timeout),
            ("GENKAN_RESOLVE_TIMEOUT", self.resolve_timeout),
        ] {
            if given < Duration::from_millis(100) {
                found.add(env, "is too short", "write 100ms or more");
            }
        }
        for (env, given, least, most) in [
            ("GENKAN_OWN_BODY_LIMIT", self.own_body, Size(16_000), Size(10_000_000)),
            ("GENKAN_OWN_BODY_UNPACKED_LIMIT", self.own_body_unpacked, Size(16_000), Size(16 << 20)),
            ("GENKAN_FORWARDED_BODY_LIMIT", self.forwarded_body, Size(150_000), Size(1 << 30)),
            ("GENKAN_UPLOAD_LIMIT", self.upload, Size(1_000_000), Size(1 << 40)),
            ("GENKAN_IMPORT_LIMIT", self.import, Size(1_000_000), Size(1 << 40)),
            ("GENKAN_ANSWER_LIMIT", self.answer, Size(1_000_000), Size(1 << 40)),
        ] {
            if given < least || given > most {
                found.add(env, format!("{given} is out of range"), format!("write {least} to {most}"));
            }
        }
    }
}
