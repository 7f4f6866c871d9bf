//! The names of services that hosts are sent to, resolved before a host resolves them.
//!
//! A text does not tell that a public name leads to a private address, or that only the search list
//! of a host's resolver makes it a name.
//!
//! DNS has to answer once for each name. From then on the last answer is used while another lookup
//! runs behind it, so trouble with DNS stops no call to a service in use. A name of which DNS says
//! nothing is not passed on: its owner may run a name server that is silent for Genkan only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use genkan_protocol::syntax::Did;
use http::Uri;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::base::fetch::{NameError, Names};
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Weigh, monotonic_now};
use crate::config::Config;
use crate::identity::origin_of_web;

/// The services that were looked up lately. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::forward) struct Services {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    /// The runtime that resolves names. A lookup must not end with the edge thread that needs it.
    control: Handle,
    /// By the identifier of the `did:web`, as received.
    known: ByteCache<Box<str>, Known>,
    single_flight: SingleFlight<LookUp>,
    places: Places,
    rules: ServiceRules,
}

/// Which services hosts are sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceRules {
    /// Whether a service must have a name that exists in DNS.
    pub(crate) must_exist: bool,
    /// The longest wait of a call for the lookup of its service.
    pub(crate) lookup_limit: Duration,
}

impl ServiceRules {
    pub(crate) fn of(config: &Config) -> Self {
        // A development network may have no DNS.
        Self { must_exist: !config.service.development, lookup_limit: Duration::from_millis(900) }
    }
}

/// Why a host may not be sent to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum ServiceError {
    /// Its name does not exist, or leads to an address that is not public.
    NotPublic,
    /// DNS has not said where the name leads.
    Unknown,
}

/// What DNS said about a name.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None` while it has said nothing.
    is_public: Option<bool>,
    /// When the name is looked up again.
    due: Instant,
    /// Until when this outcome is used if no other one replaces it.
    ends: Instant,
}

impl Weigh for Known {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// How a lookup ended.
#[derive(Clone, Copy, Debug)]
enum LookUp {
    Done(Option<bool>),
    /// It did not begin: too many are under way, of its account or in all.
    Busy,
}

impl Services {
    /// Names are resolved on the runtime that this is called on.
    pub(super) fn new(names: Names, rules: ServiceRules) -> Self {
        let inner = Inner {
            names,
            control: Handle::current(),
            known: KNOWN.build(),
            single_flight: SingleFlight::default(),
            places: Places::default(),
            rules,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Checks that a host may be sent to a `did:web` whose text has passed, by a call of this account.
    /// `identifier` is the DID without its method.
    ///
    /// Only the first call for a name waits for DNS.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotPublic`] is final, and [`ServiceError::Unknown`] may pass.
    pub(in crate::forward) async fn check(
        &self,
        identifier: &str,
        account: &Did,
    ) -> Result<(), ServiceError> {
        let now = monotonic_now();
        let is_public = match self.recall(identifier, now) {
            Some(known) => {
                if known.due <= now {
                    self.refresh(identifier, account, known, now);
                }
                known.is_public
            }
            // Boxed: nearly all names are in memory.
            None => Box::pin(self.find(identifier, account)).await,
        };
        match is_public {
            Some(true) => Ok(()),
            Some(false) => Err(ServiceError::NotPublic),
            None => Err(ServiceError::Unknown),
        }
    }

    /// Whether a name is known to be public. Causes no lookup.
    pub(in crate::forward) fn is_known_public(&self, identifier: &str) -> bool {
        self.recall(identifier, monotonic_now()).is_some_and(|known| known.is_public == Some(true))
    }

    fn recall(&self, identifier: &str, now: Instant) -> Option<Known> {
        self.inner.known.get(identifier).filter(|known| now < known.ends)
    }

    /// Looks a name up again behind the answer from memory.
    fn refresh(&self, identifier: &str, account: &Did, known: Known, now: Instant) {
        // Moved first, so that the calls of the next seconds do not begin one each.
        let later = Known { due: now + SILENT_FOR, ..known };
        self.inner.known.insert(identifier.into(), later);
        drop(self.begin(identifier, account));
    }

    /// Waits for the first lookup of a name.
    async fn find(&self, identifier: &str, account: &Did) -> Option<bool> {
        let until = monotonic_now() + self.inner.rules.lookup_limit;
        // Twice: the first may have joined a lookup that did not begin because of another account.
        for _ in 0..2 {
            match tokio::time::timeout_at(until, self.begin(identifier, account)).await {
                Ok(Ok(Some(LookUp::Done(is_public)))) => return is_public,
                Ok(Ok(Some(LookUp::Busy))) => {}
                // The lookup goes on, and its outcome replaces this one. Until then the next call
                // does not wait as long as this one did.
                _ => return self.remember(identifier, None),
            }
        }
        None
    }

    /// Begins a lookup, or joins the one that is under way.
    fn begin(&self, identifier: &str, account: &Did) -> JoinHandle<Option<LookUp>> {
        let (this, name, account) = (self.clone(), identifier.to_owned(), account.clone());
        self.inner.control.spawn(async move {
            let (of, wanted) = (this.clone(), name.clone());
            let look_up = async move {
                let Some(_place) = Place::take(&of.inner, &account) else { return LookUp::Busy };
                let found = of.look_up(&wanted).await;
                LookUp::Done(of.remember(&wanted, found))
            };
            this.inner.single_flight.join(&name, look_up).await
        })
    }

    async fn look_up(&self, identifier: &str) -> Option<bool> {
        let inner = &self.inner;
        let url = origin_of_web(identifier).and_then(|origin| origin.parse::<Uri>().ok());
        let Some(Ok(target)) = url.map(|url| inner.names.check(&url)) else { return Some(false) };
        match inner.names.addresses(&target).await {
            Ok(_) => Some(true),
            Err(NameError::Refused(_)) => Some(false),
            Err(NameError::NoSuchName) => Some(!inner.rules.must_exist),
            Err(NameError::Failed(_)) => None,
        }
    }

    /// Remembers the outcome of a lookup. Returns what is known from now on, which is the last answer
    /// while DNS is silent.
    fn remember(&self, identifier: &str, found: Option<bool>) -> Option<bool> {
        let now = monotonic_now();
        let due = now + SILENT_FOR;
        let known = match (found, self.recall(identifier, now)) {
            (Some(_), _) => {
                Known { is_public: found, due: now + KNOWN_FOR, ends: now + KNOWN_FOR + STALE_FOR }
            }
            (None, Some(before)) if before.is_public.is_some() => Known { due, ..before },
            (None, _) => {
                let is_public = (!self.inner.rules.must_exist).then_some(true);
                Known { is_public, due, ends: due }
            }
        };
        self.inner.known.insert(identifier.into(), known);
        known.is_public
    }
}

/// The lookups under way: in all, and by account.
///
/// Users choose the names, and can let each lookup hang.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<Did, usize>>);

/// The place of one lookup, which is free again when this is dropped.
struct Place {
    of: Arc<Inner>,
    account: Did,
}

impl Place {
    /// Takes a place for a lookup that a call of this account causes. `None` if too many are under
    /// way.
    fn take(of: &Arc<Inner>, account: &Did) -> Option<Self> {
        let mut taken = of.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted each time: lookups are rare, and few are under way.
        let in_all: usize = taken.values().sum();
        let own = taken.get(account).copied().unwrap_or_default();
        if in_all >= AT_ONCE || own >= AT_ONCE_OF_ONE {
            return None;
        }
        taken.insert(account.clone(), own + 1);
        drop(taken);
        Some(Self { of: Arc::clone(of), account: account.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

/// The time after which a name is looked up again.
const KNOWN_FOR: Duration = Duration::from_mins(1);
/// How much longer the last answer is used while DNS is silent.
const STALE_FOR: Duration = Duration::from_hours(1);
/// The time until the next lookup of a name of which DNS said nothing.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// The most lookups at once.
const AT_ONCE: usize = 256;
/// The most lookups at once that the calls of one account cause.
const AT_ONCE_OF_ONE: usize = 8;
/// Some 10 000 names.
const KNOWN: CacheSize = CacheSize { name: "services", bytes: 2 << 20, typical: 200 };

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::base::fetch::Dns;
    use crate::base::fetch::test_dns::{Reply, TestDns};

    /// Longer than any lookup, and than a busy machine needs.
    const PATIENCE: Duration = Duration::from_mins(1);

    fn services(dns: &TestDns, rules: ServiceRules, listed: &[&str]) -> Services {
        let listed = listed.iter().map(|origin| origin.parse().unwrap()).collect();
        Services::new(Names::new(Dns::new(&[dns.address()]).unwrap(), listed), rules)
    }

    fn rules() -> ServiceRules {
        ServiceRules { must_exist: true, lookup_limit: PATIENCE }
    }

    fn account(letter: char) -> Did {
        format!("did:plc:{}", letter.to_string().repeat(24)).parse().unwrap()
    }

    async fn dns() -> TestDns {
        TestDns::start(|name, _| match name {
            "view.example.com." => Reply::addresses(&["1.1.1.1", "2606:4700::1111"]),
            "loopback.example.com." => Reply::addresses(&["127.0.0.1"]),
            "both.example.com." => Reply::addresses(&["1.1.1.1", "10.0.0.7"]),
            "broken.example.com." => Reply::ServerFailure,
            silent if silent.contains("silent") => Reply::Silence,
            _ => Reply::NoSuchName,
        })
        .await
    }

    #[tokio::test]
    async fn a_service_has_a_name_that_leads_to_public_addresses_only() {
        let dns = dns().await;
        let services = services(&dns, rules(), &["https://loopback.example.com"]);
        let private = Err(ServiceError::NotPublic);
        for (identifier, outcome) in [
            ("view.example.com", Ok(())),
            ("view.example.com%3A443", Ok(())),
            ("both.example.com", private),
            // As a search list could make of it: a service in the host's own network.
            ("kubernetes.default", private),
            ("none.example.com", private),
            ("broken.example.com", Err(ServiceError::Unknown)),
            // The operator listed it.
            ("loopback.example.com", Ok(())),
        ] {
            assert_eq!(services.check(identifier, &account('a')).await, outcome, "{identifier}");
            assert_eq!(services.is_known_public(identifier), outcome.is_ok(), "{identifier}");
        }
        assert!(!services.is_known_public("other.example.com"));
        let services = self::services(&dns, ServiceRules { must_exist: false, ..rules() }, &[]);
        assert_eq!(services.check("loopback.example.com", &account('a')).await, private);
        for name in ["none.example.com", "broken.example.com"] {
            let outcome = services.check(name, &account('a')).await;
            assert_eq!(outcome, Ok(()), "{name}: a development network may have no DNS");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_a_minute() {
        let dns = dns().await;
        let services = services(&dns, rules(), &[]);
        let alice = account('a');
        let all = join_all((0..50).map(|_| services.check("both.example.com", &alice))).await;
        assert!(all.iter().all(|outcome| *outcome == Err(ServiceError::NotPublic)));
        assert!(services.check("both.example.com", &alice).await.is_err());
        let asked = dns.asked();
        assert!(asked <= 2, "once for each family of addresses: {asked}");
        let known = services.recall("both.example.com", monotonic_now()).unwrap();
        let in_a_minute = monotonic_now() + KNOWN_FOR;
        assert!(known.due <= in_a_minute && in_a_minute < known.ends, "then it is looked up again");
    }

    /// Remembers an outcome that is due for another lookup.
    fn knows(services: &Services, identifier: &str, is_public: bool) {
        let now = monotonic_now();
        let known = Known { is_public: Some(is_public), due: now, ends: now + STALE_FOR };
        services.inner.known.insert(identifier.into(), known);
    }

    async fn all_looked_up(services: &Services) {
        while services.inner.single_flight.len() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_silent_name_server_changes_nothing_that_is_known() {
        let dns = dns().await;
        let services = services(&dns, rules(), &[]);
        let alice = account('a');
        for (identifier, is_public) in
            [("silent.example.com", true), ("silent.example.org", false), ("broken.example.com", true)]
        {
            knows(&services, identifier, is_public);
            let before = services.recall(identifier, monotonic_now()).unwrap();
            let began = monotonic_now();
            assert_eq!(services.check(identifier, &alice).await.is_ok(), is_public, "{identifier}");
            assert!(began.elapsed() < Duration::from_secs(1), "{identifier}: it waits for no lookup");
            assert_eq!(services.inner.single_flight.len(), 0, "the lookup begins on its own");
            tokio::task::yield_now().await;
            all_looked_up(&services).await;
            let after = services.recall(identifier, monotonic_now()).unwrap();
            assert_eq!(after.is_public, Some(is_public), "{identifier}");
            assert_eq!(after.ends, before.ends, "{identifier}: for an hour from the last answer");
            assert!(after.due > before.due, "{identifier}: not at each call");
        }
        let later = monotonic_now() + STALE_FOR;
        assert!(services.recall("silent.example.com", later).is_none(), "then it is not known");
    }

    #[tokio::test]
    async fn an_answer_replaces_what_is_known() {
        let dns = dns().await;
        let services = services(&dns, rules(), &[]);
        let alice = account('a');
        knows(&services, "both.example.com", true);
        knows(&services, "view.example.com", false);
        for round in 0.. {
            let outcomes = (
                services.check("both.example.com", &alice).await,
                services.check("view.example.com", &alice).await,
            );
            if outcomes == (Err(ServiceError::NotPublic), Ok(())) {
                assert!(round > 0, "the first call has the last answer");
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_name_that_was_never_known_does_not_pass_while_dns_is_silent() {
        let dns = dns().await;
        let limit = Duration::from_millis(50);
        let services = services(&dns, ServiceRules { lookup_limit: limit, ..rules() }, &[]);
        let began = monotonic_now();
        assert_eq!(services.check("silent.example.com", &account('a')).await, Err(ServiceError::Unknown));
        assert!(began.elapsed() >= limit);
        let known = services.recall("silent.example.com", monotonic_now()).unwrap();
        assert_eq!(known.is_public, None, "the next call does not wait");
        assert!(!services.is_known_public("silent.example.com"));
    }

    #[tokio::test]
    async fn one_account_leaves_lookups_to_others() {
        let dns = dns().await;
        let services = services(&dns, rules(), &[]);
        let (alice, bob) = (account('a'), account('b'));
        let hanging: Vec<_> = (0..AT_ONCE_OF_ONE)
            .map(|number| services.begin(&format!("silent{number}.example.com"), &alice))
            .collect();
        while services.inner.single_flight.len() < AT_ONCE_OF_ONE {
            tokio::task::yield_now().await;
        }
        assert_eq!(services.check("view.example.com", &alice).await, Err(ServiceError::Unknown));
        assert!(services.recall("view.example.com", monotonic_now()).is_none(), "it was not looked up");
        assert_eq!(services.check("view.example.com", &bob).await, Ok(()));
        assert_eq!(services.check("view.example.com", &alice).await, Ok(()), "it is known now");
        join_all(hanging).await;
        all_looked_up(&services).await;
        assert!(services.inner.places.0.lock().unwrap().is_empty(), "nothing is kept of them");
    }

    #[tokio::test]
    async fn lookups_at_once_are_bounded() {
        let dns = dns().await;
        let services = services(&dns, rules(), &[]);
        let number = |number: usize| format!("did:web:n{number}.example.com").parse::<Did>().unwrap();
        let places: Vec<_> =
            (0..AT_ONCE).map_while(|index| Place::take(&services.inner, &number(index / 4))).collect();
        assert_eq!(places.len(), AT_ONCE);
        assert_eq!(services.check("view.example.com", &account('a')).await, Err(ServiceError::Unknown));
        drop(places);
        assert_eq!(services.check("view.example.com", &account('a')).await, Ok(()));
    }
}
