//! Pauses after failures of a server or of one session. Each pause is longer than the last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::{Timestamp, random};

/// The failures of servers and of single sessions.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// By issuer.
    pub(super) servers: Failures,
    /// By link: sessions whose trouble is their own and not their server's.
    pub(super) links: Failures,
    /// By issuer: servers that could not be told of an end. Apart from `servers`, since a refresh
    /// may work where a revocation does not.
    pub(super) revocations: Failures,
}

#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<String, Failure>>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    until: Timestamp,
    pause: Duration,
}

impl Failures {
    /// Returns the rest of a pause, if one is running.
    pub(super) fn pause(&self, issuer: &str, now: Timestamp) -> Option<Duration> {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = servers.get(issuer)?;
        let left = trouble.until.since(now);
        // More than the whole pause is left if the clock was ahead when it began.
        (!left.is_zero() && left <= trouble.pause).then_some(left)
    }

    /// Counts a failure and returns the pause that follows. `asked` is the pause that the server
    /// requested.
    pub(super) fn failed(&self, issuer: &str, asked: Option<Duration>, now: Timestamp) -> Duration {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map is searched only when it is full. An entry whose pause ended more than a minute
        // ago is dropped, and with it the count of its failures.
        if servers.len() >= MOST {
            servers.retain(|_, trouble| now < trouble.until.plus(LONGEST));
        }
        let times = servers.get(issuer).map_or(0, |trouble| trouble.times);
        // The exponent is bounded, so the multiplication cannot overflow.
        let doubled = (FIRST * 2_u32.pow(times.min(8))).min(LONGEST);
        // Spread by ±20 %, so that the sessions of one server do not all return at the same moment.
        let pause = asked.unwrap_or(doubled).mul_f64(0.8 + 0.4 * random::fraction());
        // A full map takes no new names. Memory stays bounded, and such a server is merely asked
        // more often.
        if servers.len() < MOST || servers.contains_key(issuer) {
            let trouble = Failure { times: times.saturating_add(1), until: now.plus(pause), pause };
            servers.insert(issuer.to_owned(), trouble);
        }
        pause
    }

    /// Forgets the failures of a name.
    pub(super) fn mended(&self, issuer: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(issuer);
    }
}

const FIRST: Duration = Duration::from_secs(2);
/// Short enough that people are served soon after their server returns.
const LONGEST: Duration = Duration::from_mins(1);
const MOST: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_longer_each_time_and_forgiven_at_once() {
        let (backoff, now) = (Failures::default(), Timestamp::from_seconds(1));
        let pauses: Vec<u64> = (0..8).map(|_| backoff.failed("a", None, now).as_secs()).collect();
        assert!(pauses[0] <= 2 && pauses[7] >= 48 && pauses[7] <= 72, "{pauses:?}");
        assert!(backoff.pause("a", now).is_some() && backoff.pause("b", now).is_none());
        assert!(backoff.pause("a", now.plus(Duration::from_secs(73))).is_none());
        assert!(backoff.failed("c", Some(Duration::from_secs(100)), now).as_secs() >= 80);
        let earlier = Timestamp::from_seconds(0);
        assert!(backoff.pause("a", earlier).is_none(), "the clock was ahead when the pause began");
        backoff.mended("a");
        assert!(backoff.pause("a", now).is_none());
    }
}
