//! A grant and the rotation of its refresh tokens.
//!
//! A refresh token is derived from a sealed key, the grant's id and a generation, so it can be
//! issued again without being stored. The first use of a generation makes the next one valid. For a
//! short grace period, and while the next one is unused, the same key gets the same successor
//! again.

use std::time::Duration;

use genkan_protocol::oauth::dpop::Proof;
use genkan_protocol::syntax::Did;

use super::ids::GrantId;
use super::parameters::ClientAuth;
use super::scope::ApprovedScope;
use crate::base::Timestamp;
use crate::signin::DeviceId;

/// What an account allowed a client, with the state of its refresh tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: GrantId,
    pub(crate) did: Did,
    pub(crate) client_id: String,
    pub(crate) scope: ApprovedScope,
    /// Thumbprint of the key that the tokens are bound to. `None` means plain Bearer tokens.
    pub(crate) dpop_key: Option<String>,
    pub(crate) client_auth: ClientAuth,
    /// The browser in which consent was given.
    pub(crate) device: DeviceId,
    pub(crate) place: GrantPlace,
    /// Whether the client requested refresh tokens.
    pub(crate) refreshable: bool,
    /// The generation of the refresh token that is valid now.
    pub(crate) generation: i64,
    /// When the token of the previous generation was used, and below, the one before it.
    pub(crate) rotated_at: Timestamp,
    pub(crate) rotated_before_at: Timestamp,
    /// The grant ends at this time unless it is used before.
    pub(crate) idle_until: Timestamp,
    /// The grant ends at this time in any case.
    pub(crate) expires_at: Timestamp,
    pub(crate) created_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
}

/// The kind of server that keeps the account of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantPlace {
    /// On a host of the fleet.
    Home,
    /// On an external PDS. The link to it has the grant's id.
    Link,
}

impl GrantPlace {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Link => "link",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Home, Self::Link].into_iter().find(|one| one.as_str() == text)
    }
}

/// How long a grant lives in all, and how long unused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) total: Duration,
    pub(super) idle: Duration,
}

const DAY: Duration = Duration::from_hours(24);

/// The span for clients that authenticate, and for those that the operator trusts.
pub(super) const LONG: Span = Span { total: DAY.saturating_mul(730), idle: DAY.saturating_mul(91) };
/// The span for public clients.
pub(super) const SHORT: Span = Span { total: DAY.saturating_mul(14), idle: DAY.saturating_mul(14) };

/// The effect of a refresh token whose holder has proved the grant's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// The grant moves to this generation.
    To(i64),
    /// The grant has already moved, and the same successor is issued again.
    Again(i64),
    /// The token was used before and is too late to be honoured, but too early to prove a replay.
    Refused,
    /// The token was used before and its grace period is over: token and key were stolen, or the
    /// client lost its place.
    Replayed,
}

impl Grant {
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && now < self.idle_until && now < self.expires_at
    }

    /// Whether the holder of this proof, or of none, may use the grant.
    pub(super) fn is_held_by(&self, proof: Option<&Proof>) -> bool {
        is_held_by(self.dpop_key.as_deref(), proof)
    }

    /// Decides the effect of a token of `generation`. Its code has been verified already.
    pub(super) fn rotation(&self, generation: i64, now: Timestamp, grace: Duration) -> Rotation {
        // A later generation than the stored one means that the database was restored from a copy.
        if generation >= self.generation {
            return Rotation::To(generation.saturating_add(1));
        }
        let is_last = generation.saturating_add(1) == self.generation;
        // A client that lost the response tries the old token again and gets the same successor.
        if is_last && now <= self.rotated_at.plus(grace) {
            return Rotation::Again(self.generation);
        }
        // The token was used at this time at the latest.
        let used_at = if is_last { self.rotated_at } else { self.rotated_before_at };
        if now <= used_at.plus(grace) { Rotation::Refused } else { Rotation::Replayed }
    }

    /// Returns the grant after a rotation to `generation`.
    pub(super) fn rotated(
        mut self,
        generation: i64,
        client_auth: ClientAuth,
        now: Timestamp,
        span: Span,
    ) -> Self {
        self.generation = generation;
        self.rotated_before_at = self.rotated_at;
        self.rotated_at = now;
        // Counted from the creation: no number of refreshes extends a grant's whole life.
        self.expires_at = self.created_at.plus(span.total);
        self.idle_until = now.plus(span.idle).min(self.expires_at);
        self.client_auth = client_auth;
        self
    }
}

/// Whether the holder of this proof, or of none, may use what is bound to `key`. Without a key no
/// proof is needed.
pub(super) fn is_held_by(key: Option<&str>, proof: Option<&Proof>) -> bool {
    key.is_none_or(|key| proof.is_some_and(|proof| proof.jkt.as_str() == key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing::grant;

    const GRACE: Duration = Duration::from_secs(30);
    const START: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn a_used_token_gets_the_same_successor_and_later_a_refusal() {
        let after = |seconds| START.plus(Duration::from_secs(seconds));
        // Generation 5 is good; 4 was used at the start, 3 a minute before.
        let grant = Grant {
            generation: 5,
            rotated_at: START,
            rotated_before_at: START.minus(Duration::from_mins(1)),
            ..grant()
        };
        for (generation, at, rotation) in [
            (5, 0, Rotation::To(6)),
            (5, 9999, Rotation::To(6)),
            (9, 0, Rotation::To(10)),
            (4, 0, Rotation::Again(5)),
            (4, 30, Rotation::Again(5)),
            (4, 31, Rotation::Replayed),
            (3, 0, Rotation::Replayed),
            (0, 0, Rotation::Replayed),
        ] {
            assert_eq!(grant.rotation(generation, after(at), GRACE), rotation, "{generation} after {at} s");
        }
        // Two rotations in quick succession: the late copy of the first is refused, and ends
        // nothing until its grace is over.
        let quick = Grant { rotated_before_at: START.minus(Duration::from_secs(5)), ..grant };
        assert_eq!(quick.rotation(3, START, GRACE), Rotation::Refused);
        assert_eq!(quick.rotation(3, after(26), GRACE), Rotation::Replayed);
    }

    #[test]
    fn a_rotation_extends_the_idle_time_and_never_the_total() {
        let first = Grant { created_at: START, ..grant() };
        let day = |days: u32| START.plus(DAY * days);
        let rotated = |at, span| first.clone().rotated(1, ClientAuth::None, at, span);
        assert_eq!(rotated(day(3), SHORT).idle_until, day(14));
        assert_eq!(rotated(day(3), LONG).idle_until, day(94));
        assert_eq!(rotated(day(700), LONG).idle_until, day(730));
        assert!(rotated(day(3), SHORT).is_alive(day(13)) && !rotated(day(3), SHORT).is_alive(day(14)));
    }
}
