//! `[limits]`: rate limits, size limits and timeouts.

use std::time::Duration;

use super::problem::Findings;
use super::section::section;
use super::{Rate, Size};

section! {
    /// Rate limits, size limits and timeouts. The default rates are those that the reference PDS
    /// publishes.
    pub struct Limits = "limits" {
        /// Whether rate limits are enforced.
        rates_enabled: bool { env: "GENKAN_RATE_LIMITS_ENABLED", alias: "PDS_RATE_LIMITS_ENABLED", default: "true" },
        /// Requests per client address (for IPv6, per /64 network).
        global: Rate { env: "GENKAN_RATE_GLOBAL", default: "3000/5m" },
        /// Sign-ins per identifier and client address.
        create_session: Rate { env: "GENKAN_RATE_CREATE_SESSION", default: "30/5m" },
        /// Sign-ins per identifier and client address, over a longer period.
        create_session_daily: Rate { env: "GENKAN_RATE_CREATE_SESSION_DAILY", default: "300/1d" },
        /// Sign-ins per client address, for all accounts together. Sign-ins to accounts that were
        /// signed in to from this address in the last 30 days are counted separately.
        sign_in_address: Rate { env: "GENKAN_RATE_SIGN_IN_ADDRESS", default: "100/15m" },
        /// Sign-ins per account, from all client addresses together. An address or browser that
        /// signed in to the account in the last 30 days is counted separately.
        sign_in_account: Rate { env: "GENKAN_RATE_SIGN_IN_ACCOUNT", default: "50/15m" },
        /// Sign-ups per client address.
        create_account: Rate { env: "GENKAN_RATE_CREATE_ACCOUNT", default: "100/5m" },
        /// Handle changes per account.
        update_handle: Rate { env: "GENKAN_RATE_UPDATE_HANDLE", default: "10/5m" },
        /// Handle changes per account, over a longer period.
        update_handle_daily: Rate { env: "GENKAN_RATE_UPDATE_HANDLE_DAILY", default: "50/1d" },
        /// Pushed authorization requests per client address. Each Genkan process counts separately.
        oauth_par: Rate { env: "GENKAN_RATE_OAUTH_PAR", default: "300/5m" },
        /// OAuth token requests per client address. Each Genkan process counts separately. An app
        /// with a server refreshes the tokens of all its users from one address.
        oauth_token: Rate { env: "GENKAN_RATE_OAUTH_TOKEN", default: "3000/5m" },
        /// OAuth revocation requests per client address. Each Genkan process counts separately.
        oauth_revoke: Rate { env: "GENKAN_RATE_OAUTH_REVOKE", default: "300/5m" },
        /// Emails with a code of one kind per account, or per email address for which a password
        /// reset is requested.
        request_mail: Rate { env: "GENKAN_RATE_REQUEST_MAIL", default: "5/1h" },
        /// Emails with a code of one kind per account or email address, over a longer period.
        request_mail_daily: Rate { env: "GENKAN_RATE_REQUEST_MAIL_DAILY", default: "15/1d" },
        /// Password reset requests per client address.
        password_reset: Rate { env: "GENKAN_RATE_PASSWORD_RESET", default: "15/1h" },
        /// Password reset requests per client address, over a longer period.
        password_reset_daily: Rate { env: "GENKAN_RATE_PASSWORD_RESET_DAILY", default: "50/1d" },
        /// Attempts per client address to use a code without a session: to reset a password or to
        /// delete an account.
        use_code: Rate { env: "GENKAN_RATE_USE_CODE", default: "50/5m" },
        /// Wrong admin passwords per client address. Further ones are refused unread. Each Genkan
        /// process counts separately.
        admin_password: Rate { env: "GENKAN_RATE_ADMIN_PASSWORD", default: "20/5m" },
        /// Maximum size of a JSON body for methods that Genkan answers itself.
        own_body: Size { env: "GENKAN_OWN_BODY_LIMIT", default: "150kB" },
        /// Maximum size of such a body after decompression.
        own_body_unpacked: Size { env: "GENKAN_OWN_BODY_UNPACKED_LIMIT", default: "1MiB" },
        /// Maximum size of a JSON body that is forwarded.
        forwarded_body: Size { env: "GENKAN_FORWARDED_BODY_LIMIT", default: "2MiB" },
        /// Maximum size of a blob that is forwarded. Hosts enforce limits of their own.
        upload: Size { env: "GENKAN_UPLOAD_LIMIT", alias: "PDS_BLOB_UPLOAD_LIMIT", default: "100MiB" },
        /// Maximum size of a repository that is forwarded to `importRepo`.
        import: Size { env: "GENKAN_IMPORT_LIMIT", alias: "PDS_MAX_REPO_IMPORT_SIZE", default: "1GiB" },
        /// Maximum size of an answer to a read without credentials.
        answer: Size { env: "GENKAN_ANSWER_LIMIT", default: "4GiB" },
        /// Time to connect to a host, including the TLS handshake.
        connect_timeout: Duration { env: "GENKAN_CONNECT_TIMEOUT", default: "5s" },
        /// Time from the last byte of a request to the head of the host's answer.
        answer_timeout: Duration { env: "GENKAN_ANSWER_TIMEOUT", default: "30s" },
        /// Time from the last byte of an upload or import to the head of the host's answer. Hosts
        /// process the data before they answer.
        upload_answer_timeout: Duration { env: "GENKAN_UPLOAD_ANSWER_TIMEOUT", default: "120s" },
        /// Maximum pause between two bytes of a forwarded body, in either direction.
        idle_timeout: Duration { env: "GENKAN_STREAM_IDLE_TIMEOUT", default: "30s" },
        /// Time to resolve a handle or DID, including all lookups.
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
                found.add(env, "is too short", "use 100ms or more");
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
                found.add(env, format!("{given} is out of range"), format!("use {least} to {most}"));
            }
        }
    }
}
