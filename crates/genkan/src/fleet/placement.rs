//! The choice of a host for a new account: a draw by weight among the hosts that can take one.
//!
//! A draw is used, and not the emptiest host, because every process places accounts independently
//! and learns of the others' placements only when accounts are counted again. All of them would
//! send a burst of sign-ups to the same emptiest host. Independent draws need no agreement between
//! processes and still meet the weights over many sign-ups. The reasons against a host are separate
//! from the draw, so that `genkan host place --explain` shows exactly what decides.

use std::sync::Arc;

use super::Host;
use super::host::HostState;

/// A host as placement sees it at this moment.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) host: Arc<Host>,
    /// Accounts on the host, with those that this process has placed since the last count.
    pub(crate) accounts: u64,
    /// Whether one more sign-up stays within the host's rate.
    pub(crate) within_rate: bool,
    /// Whether it left a sign-up unanswered within the last seconds.
    pub(crate) doubted: bool,
}

/// A reason why a host gets no new account now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exclusion {
    #[error("it is draining; `genkan host enable` ends that")]
    Draining,
    #[error("it is retired; `genkan host enable` ends that")]
    Retired,
    #[error("its weight is 0")]
    NoWeight,
    #[error("its last probes failed")]
    Down,
    #[error("it did not answer the last sign-up")]
    Doubted,
    #[error("it holds as many accounts as its capacity allows")]
    Full,
    #[error("it has reached its sign-ups per hour")]
    OverRate,
}

/// A host's part in the next draw, for `genkan host place --explain`.
#[derive(Clone, Debug)]
pub(crate) struct Explanation {
    pub(crate) candidate: Candidate,
    /// Every reason against the host. If there is none, the host takes part in the draw.
    pub(crate) exclusions: Vec<Exclusion>,
    /// The chance in the next draw, 0 to 1.
    pub(crate) chance: f64,
}

/// Returns every reason against a host, not just the first.
pub(crate) fn exclusions(candidate: &Candidate) -> Vec<Exclusion> {
    let host = &candidate.host;
    let state = match host.state {
        HostState::Enabled => None,
        HostState::Draining => Some(Exclusion::Draining),
        HostState::Prepared | HostState::Retired => Some(Exclusion::Retired),
    };
    let full = host.capacity.is_some_and(|capacity| candidate.accounts >= capacity);
    [
        state,
        (host.weight == 0).then_some(Exclusion::NoWeight),
        (!host.health.is_up()).then_some(Exclusion::Down),
        candidate.doubted.then_some(Exclusion::Doubted),
        full.then_some(Exclusion::Full),
        (!candidate.within_rate).then_some(Exclusion::OverRate),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Judges every candidate and computes its chance.
pub(crate) fn explain(candidates: Vec<Candidate>) -> Vec<Explanation> {
    let judged: Vec<_> =
        candidates.into_iter().map(|candidate| (exclusions(&candidate), candidate)).collect();
    // Only hosts that take part count: when one is full or down, its share goes to the others in
    // proportion to their weights.
    let total: u64 =
        judged.iter().filter(|(why, _)| why.is_empty()).map(|(_, one)| u64::from(one.host.weight)).sum();
    let share = |candidate: &Candidate| f64::from(candidate.host.weight) / total_as_float(total);
    judged
        .into_iter()
        .map(|(exclusions, candidate)| {
            let chance = if exclusions.is_empty() { share(&candidate) } else { 0.0 };
            Explanation { candidate, exclusions, chance }
        })
        .collect()
}

/// Returns the host that `draw` falls on, or `None` when no host takes part.
///
/// `draw` is at least 0 and less than 1.
pub(crate) fn choose(explanations: &[Explanation], draw: f64) -> Option<&Arc<Host>> {
    let taking_part = || explanations.iter().filter(|one| one.chance > 0.0);
    // The hosts lie next to each other on the line from 0 to 1, each as long as its chance.
    let mut left = draw;
    for one in taking_part() {
        if left < one.chance {
            return Some(&one.candidate.host);
        }
        left -= one.chance;
    }
    // Rounding can leave the sum of the chances just below 1, and a draw above it.
    taking_part().next_back().map(|one| &one.candidate.host)
}

#[expect(clippy::cast_precision_loss, reason = "weights of all hosts together are far below 2^52")]
const fn total_as_float(total: u64) -> f64 {
    total as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Timestamp;
    use crate::fleet::host::Health;

    fn candidate(id: &str, change: impl FnOnce(&mut Host)) -> Candidate {
        let at = Timestamp::from_millis(0);
        let mut host = Host {
            id: id.into(),
            did: format!("did:web:{id}.example.com").parse().unwrap(),
            origin: format!("https://{id}.example.com").parse().unwrap(),
            state: HostState::Enabled,
            weight: 1,
            capacity: None,
            region: String::new(),
            sign_ups_per_hour: None,
            admin_password: crate::base::Secret::new(String::new()),
            version: None,
            blob_limit: None,
            health: Arc::new(Health::new(true, at, at)),
        };
        change(&mut host);
        Candidate { host: Arc::new(host), accounts: 10, within_rate: true, doubted: false }
    }

    #[test]
    fn every_reason_against_a_host_is_named() {
        let down = || Arc::new(Health::new(false, Timestamp::from_millis(0), Timestamp::from_millis(0)));
        let plain = candidate("oak", |_| {});
        let cases: [(Candidate, &[Exclusion]); 10] = [
            (plain.clone(), &[]),
            (candidate("oak", |host| host.state = HostState::Draining), &[Exclusion::Draining]),
            (candidate("oak", |host| host.state = HostState::Retired), &[Exclusion::Retired]),
            (candidate("oak", |host| host.weight = 0), &[Exclusion::NoWeight]),
            (candidate("oak", |host| host.health = down()), &[Exclusion::Down]),
            (candidate("oak", |host| host.capacity = Some(10)), &[Exclusion::Full]),
            (candidate("oak", |host| host.capacity = Some(11)), &[]),
            (Candidate { within_rate: false, ..plain.clone() }, &[Exclusion::OverRate]),
            (Candidate { doubted: true, ..plain }, &[Exclusion::Doubted]),
            (
                candidate("oak", |host| {
                    host.weight = 0;
                    host.state = HostState::Draining;
                }),
                &[Exclusion::Draining, Exclusion::NoWeight],
            ),
        ];
        for (candidate, expected) in cases {
            assert_eq!(exclusions(&candidate), expected);
        }
    }

    #[test]
    fn the_draw_falls_by_weight_among_those_that_take_part() {
        let fleet = vec![
            candidate("ash", |host| host.weight = 1),
            candidate("elm", |host| host.state = HostState::Draining),
            candidate("oak", |host| host.weight = 3),
        ];
        let explained = explain(fleet);
        let chances: Vec<f64> = explained.iter().map(|one| one.chance).collect();
        assert!(
            chances.iter().zip([0.25, 0.0, 0.75]).all(|(have, want)| (have - want).abs() < 1e-9),
            "{chances:?}"
        );
        let mut counts = std::collections::HashMap::new();
        for step in 0..1000 {
            let host = choose(&explained, f64::from(step) / 1000.0).unwrap();
            *counts.entry(host.id.to_string()).or_insert(0) += 1;
        }
        assert_eq!((counts["ash"], counts["oak"], counts.get("elm")), (250, 750, None));
        assert!(choose(&explain(vec![candidate("elm", |host| host.weight = 0)]), 0.5).is_none());
        assert!(choose(&[], 0.5).is_none());
    }
}
