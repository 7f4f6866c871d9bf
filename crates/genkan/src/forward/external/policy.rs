//! What all threads share about external PDSes: the operator's rules, checked addresses and call
//! budgets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genkan_protocol::syntax::Did;
use http::Uri;
use http1::Cause;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::budget::{Admission, CallBudgets};
use super::limits::{ReadLimiter, ReadLimits, ReadPermit, ReadRefusal};
use super::rules::{BudgetError, CallBudgetRules, CallClass, CallKind, CallOwner};
use super::services::{ServiceRules, Services};
use crate::base::fetch::target::Refusal;
use crate::base::fetch::{NameError, Names};
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Clock, Origin, Weigh, allocation, monotonic_now};
use crate::config::{self, Rate, TargetReads};
use crate::db::LiveReplicas;
use crate::forward::error::Error;
use crate::limits::{OverLimit, Verdict};
use crate::telemetry::metrics::{Counter, Metrics, UPSTREAM_CALLS, UPSTREAM_HOSTS, UPSTREAM_HOSTS_EXHAUSTED};

/// How Genkan treats external PDSes.
#[derive(Clone, Debug)]
pub(crate) struct ExternalPolicy {
    pub(crate) target_reads: TargetReads,
    pub(crate) blocked_hosts: Vec<String>,
    pub(crate) blocked_dids: Vec<Did>,
    pub(crate) reads: ReadLimits,
    pub(crate) fair: CallBudgetRules,
    /// Requests under way at one PDS from one edge thread.
    pub(crate) at_once: usize,
    pub(crate) services: ServiceRules,
}

impl ExternalPolicy {
    pub(crate) fn of(config: &config::Config) -> Self {
        let external = &config.external;
        let lower = |host: &String| host.trim_start_matches('.').to_ascii_lowercase();
        Self {
            target_reads: external.target_reads,
            blocked_hosts: external.blocked_hosts.iter().map(lower).collect(),
            blocked_dids: external.blocked_dids.clone(),
            reads: ReadLimits::of(config),
            fair: CallBudgetRules::of(config),
            at_once: external.connections,
            services: ServiceRules::of(config),
        }
    }
}

/// External PDSes, as all threads know them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ExternalPdses {
    pub(in crate::forward) policy: Arc<ExternalPolicy>,
    names: Names,
    services: Services,
    /// The runtime that resolves names. A lookup must not end with the edge thread that needs it.
    control: Handle,
    checked: ByteCache<Origin, CheckedOrigin>,
    single_flight: SingleFlight<Result<Arc<[IpAddr]>, NameError>>,
    reads: ReadLimiter,
    budgets: CallBudgets,
    clock: Clock,
    counters: Arc<[[Counter; 3]; 2]>,
}

/// The checked addresses of an origin, or why it is not called.
#[derive(Clone, Debug)]
struct CheckedOrigin {
    outcome: Result<Arc<[IpAddr]>, NameError>,
    at: Instant,
    /// Whether a renewal is under way.
    is_renewed: Arc<AtomicBool>,
}

impl CheckedOrigin {
    fn new(outcome: Result<Arc<[IpAddr]>, NameError>) -> Self {
        Self { outcome, at: monotonic_now(), is_renewed: Arc::default() }
    }
}

impl Weigh for CheckedOrigin {
    fn heap_bytes(&self) -> usize {
        match &self.outcome {
            Ok(addresses) => allocation(FLAG) + addresses.heap_bytes(),
            // A refusal's reason is one of a few, and a failure is not cached.
            Err(_) => allocation(FLAG),
        }
    }
}

impl ExternalPdses {
    /// Creates the shared state. Names are resolved on the runtime that this is called on.
    pub(crate) fn new(
        names: Names,
        clock: Clock,
        policy: ExternalPolicy,
        metrics: &Metrics,
        replicas: LiveReplicas,
    ) -> Self {
        let counter = |class, outcome| metrics.counter(&UPSTREAM_CALLS, &[class, outcome]);
        let counters = ["linked", "read"]
            .map(|class| ["at_once", "waited", "refused"].map(|outcome| counter(class, outcome)));
        Self {
            services: Services::new(names.clone(), policy.services),
            names,
            control: Handle::current(),
            checked: NAMES.build(),
            single_flight: SingleFlight::default(),
            reads: ReadLimiter::new(policy.reads),
            budgets: CallBudgets::new(policy.fair, replicas),
            policy: Arc::new(policy),
            clock,
            counters: Arc::new(counters),
        }
    }

    /// The names that Genkan connects to.
    pub(in crate::forward) const fn names(&self) -> &Names {
        &self.names
    }

    /// The services that hosts are sent to.
    pub(in crate::forward) const fn services(&self) -> &Services {
        &self.services
    }

    /// Returns the addresses of an origin, all of them checked recently.
    pub(in crate::forward) async fn addresses(&self, origin: &Origin) -> Result<Arc<[IpAddr]>, Error> {
        if self.is_blocked(origin) {
            return Err(Error::NotAllowed);
        }
        let outcome = match self.checked.get(origin) {
            Some(checked) if checked.at.elapsed() < CHECKED_FOR => checked.outcome,
            // A name server that is slow now holds up no call to a PDS in use. The old addresses were
            // checked as well, and no other one is connected to.
            Some(checked) if checked.outcome.is_ok() && checked.at.elapsed() < KEPT_FOR => {
                self.renew(origin, &checked);
                checked.outcome
            }
            _ => self.look_up(origin).await,
        };
        outcome.map_err(|error| match error {
            NameError::Refused(_) => Error::NotAllowed,
            error => Error::Unreachable(Cause::Name(std::io::Error::other(error)).into()),
        })
    }

    /// Makes what is known of an origin older.
    #[cfg(test)]
    pub(super) fn age(&self, origin: &Origin, by: Duration) {
        let checked = self.checked.get(origin).unwrap();
        self.checked.insert(origin.clone(), CheckedOrigin { at: checked.at - by, ..checked });
    }

    /// Looks an origin up in the background, unless that is under way.
    fn renew(&self, origin: &Origin, checked: &CheckedOrigin) {
        if checked.is_renewed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (external, origin, is_renewed) = (self.clone(), origin.clone(), Arc::clone(&checked.is_renewed));
        self.control.spawn(async move {
            // The outcome replaces the entry. After a failure the next call tries again.
            if external.look_up(&origin).await.is_err() {
                is_renewed.store(false, Ordering::Release);
            }
        });
    }

    async fn look_up(&self, origin: &Origin) -> Result<Arc<[IpAddr]>, NameError> {
        let (names, single_flight) = (self.names.clone(), self.single_flight.clone());
        let (checked, origin) = (self.checked.clone(), origin.clone());
        // On the control runtime: the caller may be cancelled, but others may be waiting for the
        // same lookup.
        let looking = self.control.spawn(async move {
            let wanted = origin.clone();
            let look_up = async move {
                let url: Uri = wanted.as_str().parse().map_err(|_| Refusal::NotAUrl)?;
                let target = names.check(&url)?;
                let mut addresses = names.addresses(&target).await?;
                // Sorted, because pools are compared by their addresses and name servers rotate
                // theirs.
                addresses.sort_unstable();
                addresses.dedup();
                Ok(Arc::from(addresses))
            };
            let outcome = single_flight
                .join(origin.as_str(), look_up)
                .await
                .unwrap_or_else(|| Err(NameError::Failed("the lookup was cancelled".into())));
            // A failure is not cached, so the next call tries again. A refusal is.
            if !matches!(outcome, Err(NameError::Failed(_))) {
                checked.insert(origin, CheckedOrigin::new(outcome.clone()));
            }
            outcome
        });
        looking.await.unwrap_or_else(|_| Err(NameError::Failed("the lookup was cancelled".into())))
    }

    fn is_blocked(&self, origin: &Origin) -> bool {
        let host = origin.host();
        self.policy.blocked_hosts.iter().any(|blocked| {
            // Only whole labels match: `example.com` blocks `a.example.com` and not
            // `badexample.com`.
            host.strip_suffix(blocked.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    pub(in crate::forward) fn is_blocked_account(&self, did: &Did) -> bool {
        self.policy.blocked_dids.contains(did)
    }

    /// Admits a client's read.
    pub(in crate::forward) fn admit_read(&self, client: IpAddr) -> Result<ReadPermit, Error> {
        self.reads.begin(client, monotonic_now()).map_err(|bound| match bound {
            ReadRefusal::Client { rate, wait } => self.over_limit(rate, wait),
            ReadRefusal::InAll => Error::ExternalCrowded,
        })
    }

    /// Waits until a call may leave.
    pub(in crate::forward) async fn admit(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
    ) -> Result<(), Error> {
        let admission = self.budgets.admit(pds, account, kind).await;
        let outcome = match admission {
            Ok(Admission::Immediate) => 0,
            Ok(Admission::AfterWaiting) => 1,
            Err(_) => 2,
        };
        let class = match account.class() {
            CallClass::Linked => 0,
            CallClass::Read => 1,
        };
        if let Some(counter) = self.counters.get(class).and_then(|row: &[Counter; 3]| row.get(outcome)) {
            counter.increment();
        }
        admission.map(drop).map_err(|BudgetError { rate, wait }| self.over_limit(rate, wait))
    }

    /// Takes the rate-limit headers of an answer.
    pub(in crate::forward) fn hear(
        &self,
        pds: &Origin,
        account: &CallOwner,
        kind: CallKind,
        status: http::StatusCode,
        headers: &http::HeaderMap,
    ) {
        self.budgets.hear(pds, account, kind, status, headers, self.clock.now());
    }

    /// Reports how close external PDSes are to their limits.
    pub(crate) fn show(&self, metrics: &Metrics) {
        let (known, exhausted) = self.budgets.known();
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.gauge(&UPSTREAM_HOSTS, &[]).set(number(known));
        metrics.gauge(&UPSTREAM_HOSTS_EXHAUSTED, &[]).set(number(exhausted));
    }

    fn over_limit(&self, rate: Rate, wait: Duration) -> Error {
        let reset = self.clock.now().plus(wait);
        let retry_after = wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX);
        Error::OverLimit(OverLimit {
            verdict: Verdict { rate, allowed: false, remaining: 0, reset },
            retry_after,
        })
    }
}

/// The time after which a client learns that a PDS is not called. It is equal for all reasons: a
/// shorter one would tell which names and addresses exist in Genkan's network.
pub(in crate::forward) const REFUSED_AFTER: Duration = Duration::from_millis(300);
/// The time for which checked addresses are used before they are checked again.
pub(super) const CHECKED_FOR: Duration = Duration::from_secs(30);
/// The time for which checked addresses are used while they are checked again.
pub(super) const KEPT_FOR: Duration = Duration::from_mins(5);
const FLAG: usize = 3 * size_of::<usize>();
/// Some 10 000 names with a few addresses each.
const NAMES: CacheSize = CacheSize { name: "external_names", bytes: 8 << 20, typical: 700 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::assert_weighs;

    #[test]
    fn a_checked_origin_weighs_its_addresses() {
        assert_weighs(|bytes| CheckedOrigin::new(Ok(vec![IpAddr::from([127, 0, 0, 1]); bytes / 16].into())));
    }
}
