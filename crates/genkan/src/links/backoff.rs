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
    /// By issuer: the last session to which it answered 429, and until when that one pauses.
    limited: Mutex<HashMap<String, (String, Pause)>>,
}

impl Backoff {
    /// Counts an answer of 429 to a session's refresh.
    ///
    /// A server may limit each of its accounts, and an account that is over its limit must not stop
    /// the others. So only the session pauses, until a second session of the server is refused
    /// before that pause ends.
    pub(super) fn limited(&self, issuer: &str, link: &str, asked: Option<Duration>, now: Timestamp) {
        let pause = Pause::new(self.links.failed(link, asked, now), now);
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.len() >= MOST {
            limited.retain(|_, (_, pause)| pause.left(now).is_some());
        }
        let before = limited.remove(issuer);
        if limited.len() < MOST {
            limited.insert(issuer.to_owned(), (link.to_owned(), pause));
        }
        drop(limited);
        if before.is_some_and(|(other, pause)| other != link && pause.left(now).is_some()) {
            self.servers.failed(issuer, asked, now);
        }
    }

    /// Forgets the failures of a session and of its server, because a refresh succeeded.
    pub(super) fn mended(&self, issuer: &str, link: &str) {
        self.servers.mended(issuer);
        self.links.mended(link);
        self.limited.lock().unwrap_or_else(PoisonError::into_inner).remove(issuer);
    }
}

#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<String, Failure>>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    pause: Pause,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Timestamp,
    length: Duration,
}

impl Pause {
    fn new(length: Duration, now: Timestamp) -> Self {
        Self { until: now.plus(length), length }
    }

    /// Returns the rest of the pause, if it is running.
    fn left(self, now: Timestamp) -> Option<Duration> {
        let left = self.until.since(now);
        // More than the whole pause is left if the clock was ahead when it began.
        (!left.is_zero() && left <= self.length).then_some(left)
    }

    /// The pause and some time after it.
    fn and(self, after: Duration) -> Self {
        let Self { until, length } = self;
        Self { until: until.plus(after), length: length.saturating_add(after) }
    }
}

impl Failures {
    /// Returns the rest of a pause, if one is running.
    pub(super) fn pause(&self, issuer: &str, now: Timestamp) -> Option<Duration> {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        servers.get(issuer)?.pause.left(now)
    }

    /// Counts a failure and returns the pause that follows. `asked` is the pause that the server
    /// requested.
    pub(super) fn failed(&self, issuer: &str, asked: Option<Duration>, now: Timestamp) -> Duration {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map is searched only when it is full. An entry whose pause ended more than a minute
        // ago is dropped, and with it the count of its failures.
        if servers.len() >= MOST {
            servers.retain(|_, trouble| trouble.pause.and(LONGEST).left(now).is_some());
        }
        let times = servers.get(issuer).map_or(0, |trouble| trouble.times);
        // The exponent is bounded, so the multiplication cannot overflow.
        let doubled = (FIRST * 2_u32.pow(times.min(8))).min(LONGEST);
        // Spread by ±20 %, so that the sessions of one server do not all return at the same moment.
        let pause = asked.unwrap_or(doubled).mul_f64(0.8 + 0.4 * random::fraction());
        // A full map takes no new names. Memory stays bounded, and such a server is merely asked
        // more often.
        if servers.len() < MOST || servers.contains_key(issuer) {
            let trouble = Failure { times: times.saturating_add(1), pause: Pause::new(pause, now) };
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

    #[test]
    fn a_server_that_limits_one_session_is_asked_for_others_until_it_limits_a_second() {
        let (backoff, now) = (Backoff::default(), Timestamp::from_seconds(1));
        let minute = Some(Duration::from_mins(1));
        let is_paused = |now| backoff.servers.pause("server", now).is_some();
        backoff.limited("server", "first", minute, now);
        backoff.limited("server", "first", minute, now);
        backoff.limited("other", "second", minute, now);
        assert!(!is_paused(now) && backoff.links.pause("first", now).is_some());
        backoff.limited("server", "second", minute, now);
        assert!(is_paused(now) && backoff.servers.pause("other", now).is_none());
        // A refresh that succeeded between two refusals shows that they are not about everyone.
        backoff.mended("server", "second");
        backoff.limited("server", "first", minute, now);
        backoff.mended("server", "second");
        backoff.limited("server", "third", minute, now);
        assert!(!is_paused(now));
        // Nor does a pause that began by a clock that was ahead count.
        let ahead = now.plus(Duration::from_hours(40 * 24));
        backoff.limited("server", "first", minute, ahead);
        backoff.limited("server", "second", minute, now);
        assert!(!is_paused(now));
        backoff.mended("server", "second");
        backoff.limited("server", "first", minute, now);
        // So does the end of the first pause.
        let later = now.plus(Duration::from_mins(2));
        backoff.limited("server", "first", minute, later);
        assert!(!is_paused(later));
    }
}
