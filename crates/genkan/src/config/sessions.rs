//! `[sessions]`: how long people stay signed in, and what passwords cost.

use std::time::Duration;

use super::key::section;
use super::listen::cores;
use super::problem::Findings;

section! {
    /// How long people stay signed in, and what checking passwords may cost.
    pub struct Sessions = "sessions" {
        /// How long an access token is good for.
        access_lifetime: Duration { env: "GENKAN_ACCESS_LIFETIME", default: "120m" },
        /// How long a refresh token is good for, and so a session that nobody uses.
        refresh_lifetime: Duration { env: "GENKAN_REFRESH_LIFETIME", default: "90d" },
        /// How long a used refresh token still gets the same successor, for apps that lost our answer.
        refresh_grace: Duration { env: "GENKAN_REFRESH_GRACE", default: "2h" },
        /// The most access tokens remembered as checked.
        token_cache_entries: usize { env: "GENKAN_TOKEN_CACHE_ENTRIES", default: "100000" },
        /// Passwords checked at a time. Each takes about 30 ms of a core and 20 MiB.
        password_workers: usize { env: "GENKAN_PASSWORD_WORKERS", derived: "as many as there are cores" => Some(cores()) },
        /// Passwords that may wait for their turn; past that 503.
        password_queue: usize { env: "GENKAN_PASSWORD_QUEUE", default: "64" },
    }
}

impl Sessions {
    fn check(&self, found: &mut Findings) {
        if self.access_lifetime < Duration::from_mins(1) {
            found.add("GENKAN_ACCESS_LIFETIME", "is shorter than a minute", "write 120m, for instance");
        }
        if self.refresh_lifetime <= self.access_lifetime {
            found.add(
                "GENKAN_REFRESH_LIFETIME",
                "is not longer than GENKAN_ACCESS_LIFETIME",
                "write 90d, for instance",
            );
        }
        if self.refresh_grace > Duration::from_hours(24) {
            found.add(
                "GENKAN_REFRESH_GRACE",
                "is longer than a day",
                "write 2h, for instance: a stolen token lives as long",
            );
        }
        for (env, given) in [
            ("GENKAN_TOKEN_CACHE_ENTRIES", self.token_cache_entries),
            ("GENKAN_PASSWORD_WORKERS", self.password_workers),
        ] {
            if given == 0 {
                found.add(env, "0 is too few", "write 1 or more");
            }
        }
    }
}
