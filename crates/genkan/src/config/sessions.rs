//! `[sessions]`: lifetimes of sessions and tokens, and the cost of password checks.

use std::time::Duration;

use super::listen::cores;
use super::problem::Findings;
use super::section::section;

section! {
    /// Lifetimes of sessions and tokens, and the cost of password checks.
    pub struct Sessions = "sessions" {
        /// Lifetime of an access token.
        access_lifetime: Duration { env: "GENKAN_ACCESS_LIFETIME", default: "120m" },
        /// Lifetime of a refresh token. A session that is not used for this long ends.
        refresh_lifetime: Duration { env: "GENKAN_REFRESH_LIFETIME", default: "90d" },
        /// Time for which a used refresh token still returns the same successor, for apps that lost
        /// the answer.
        refresh_grace: Duration { env: "GENKAN_REFRESH_GRACE", default: "2h" },
        /// Maximum number of verified access tokens in the cache, which takes 512 bytes for each.
        token_cache_entries: usize { env: "GENKAN_TOKEN_CACHE_ENTRIES", default: "100000" },
        /// Number of passwords that are checked at the same time. Each check takes about 30 ms of
        /// one core and 20 MiB of memory.
        password_workers: usize { env: "GENKAN_PASSWORD_WORKERS", derived: "as many as there are cores" => Some(cores()) },
        /// Maximum number of password checks that wait. Further requests fail with 503.
        password_queue: usize { env: "GENKAN_PASSWORD_QUEUE", default: "64" },
    }
}

impl Sessions {
    fn check(&self, found: &mut Findings) {
        if self.access_lifetime < Duration::from_mins(1) {
            found.add("GENKAN_ACCESS_LIFETIME", "is shorter than 1m", "use 120m, for example");
        }
        if self.refresh_lifetime <= self.access_lifetime {
            found.add(
                "GENKAN_REFRESH_LIFETIME",
                "must be longer than GENKAN_ACCESS_LIFETIME",
                "use 90d, for example",
            );
        }
        if self.refresh_grace > Duration::from_hours(24) {
            found.add(
                "GENKAN_REFRESH_GRACE",
                "is longer than 24h, for which a stolen token would stay usable",
                "use 2h, for example",
            );
        }
        for (env, given) in [
            ("GENKAN_TOKEN_CACHE_ENTRIES", self.token_cache_entries),
            ("GENKAN_PASSWORD_WORKERS", self.password_workers),
        ] {
            if given == 0 {
                found.add(env, "0 is too small", "use 1 or more");
            }
        }
    }
}
