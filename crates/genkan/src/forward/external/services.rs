//! The names of services that hosts are sent to, resolved before a host resolves them.
//!
//! A text does not tell that a public name leads to a private address, or that only the search list
//! of a host's resolver makes it a name.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::fetch::{NameError, Names};
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, Weigh, byte_cache, monotonic_now};
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
    single_flight: SingleFlight<bool>,
    /// Limits concurrent lookups: users choose the names, and can let each lookup hang.
    places: Semaphore,
    rules: ServiceRules,
}

/// Which services hosts are sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceRules {
    /// Whether a service must have a name that exists.
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

#[derive(Clone, Copy, Debug)]
struct Known {
    is_public: bool,
    until: Instant,
}

impl Weigh for Known {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Services {
    /// Names are resolved on the runtime that this is called on.
    pub(super) fn new(names: Names, rules: ServiceRules) -> Self {
        let inner = Inner {
            names,
            control: Handle::current(),
            known: byte_cache(KNOWN_BYTES, KNOWN_TYPICAL),
            single_flight: SingleFlight::default(),
            places: Semaphore::new(AT_ONCE),
            rules,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether a host may be sent to a `did:web` whose text has passed. `identifier` is the DID
    /// without its method.
    ///
    /// A name of which DNS says nothing within the limit passes: a host would most likely not find it
    /// either, and trouble with DNS must not stop all calls.
    pub(in crate::forward) async fn is_public(&self, identifier: &str) -> bool {
        match self.recall(identifier, monotonic_now()) {
            Some(is_public) => is_public,
            // Boxed: nearly all names are in memory.
            None => Box::pin(self.find(identifier)).await,
        }
    }

    fn recall(&self, identifier: &str, now: Instant) -> Option<bool> {
        let known = self.inner.known.get(identifier)?;
        (now < known.until).then_some(known.is_public)
    }

    async fn find(&self, identifier: &str) -> bool {
        let (this, name) = (self.clone(), identifier.to_owned());
        let finding = self.inner.control.spawn(async move {
            let (of, wanted) = (this.clone(), name.clone());
            this.inner.single_flight.join(&name, async move { of.look_up(&wanted).await }).await
        });
        if let Ok(Ok(Some(is_public))) = tokio::time::timeout(self.inner.rules.lookup_limit, finding).await {
            return is_public;
        }
        // The lookup goes on, and its outcome replaces this one. Until then the next call does not
        // wait as long as this one did.
        let known = self.recall(identifier, monotonic_now());
        known.unwrap_or_else(|| self.remember(identifier, true, SILENT_FOR))
    }

    async fn look_up(&self, identifier: &str) -> bool {
        let inner = &self.inner;
        let Ok(_place) = inner.places.try_acquire() else { return true };
        let url = origin_of_web(identifier).and_then(|origin| origin.parse::<Uri>().ok());
        let Some(Ok(target)) = url.map(|url| inner.names.check(&url)) else { return false };
        let (is_public, time) = match inner.names.addresses(&target).await {
            Ok(_) => (true, KNOWN_FOR),
            Err(NameError::Refused(_)) => (false, KNOWN_FOR),
            Err(NameError::NoSuchName) => (!inner.rules.must_exist, KNOWN_FOR),
            Err(NameError::Failed(_)) => (true, SILENT_FOR),
        };
        self.remember(identifier, is_public, time)
    }

    fn remember(&self, identifier: &str, is_public: bool, time: Duration) -> bool {
        self.inner.known.insert(identifier.into(), Known { is_public, until: monotonic_now() + time });
        is_public
    }
}

/// The time for which the outcome of a lookup is used.
const KNOWN_FOR: Duration = Duration::from_mins(1);
/// The time for which a name passes of which DNS said nothing.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// The most lookups at once. Names beyond pass without one.
const AT_ONCE: usize = 256;
/// Some 10 000 names.
const KNOWN_BYTES: usize = 2 << 20;
const KNOWN_TYPICAL: usize = 200;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::base::fetch::Dns;
    use crate::base::fetch::test_dns::{Reply, TestDns};

    fn services(dns: std::net::SocketAddr, must_exist: bool, listed: &[&str]) -> Services {
        let listed = listed.iter().map(|origin| origin.parse().unwrap()).collect();
        let rules = ServiceRules { must_exist, lookup_limit: Duration::from_secs(30) };
        Services::new(Names::new(Dns::new(&[dns]).unwrap(), listed), rules)
    }

    async fn dns() -> TestDns {
        TestDns::start(|name, _| match name {
            "view.example.com." => Reply::addresses(&["1.1.1.1", "2606:4700::1111"]),
            "loopback.example.com." => Reply::addresses(&["127.0.0.1"]),
            "both.example.com." => Reply::addresses(&["1.1.1.1", "10.0.0.7"]),
            "broken.example.com." => Reply::ServerFailure,
            _ => Reply::NoSuchName,
        })
        .await
    }

    #[tokio::test]
    async fn a_service_has_a_name_that_leads_to_public_addresses_only() {
        let dns = dns().await;
        let services = services(dns.address(), true, &["https://loopback.example.com"]);
        for (identifier, is_public) in [
            ("view.example.com", true),
            ("view.example.com%3A443", true),
            ("both.example.com", false),
            // As a search list could make of it: a service in the host's own network.
            ("kubernetes.default", false),
            ("none.example.com", false),
            // Trouble with DNS stops no call.
            ("broken.example.com", true),
            // The operator listed it.
            ("loopback.example.com", true),
        ] {
            assert_eq!(services.is_public(identifier).await, is_public, "{identifier}");
        }
        let services = self::services(dns.address(), false, &[]);
        assert!(!services.is_public("loopback.example.com").await);
        assert!(services.is_public("none.example.com").await, "a development network may have no DNS");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_a_minute() {
        let dns = dns().await;
        let services = services(dns.address(), true, &[]);
        let all = join_all((0..50).map(|_| services.is_public("both.example.com"))).await;
        assert!(all.iter().all(|is_public| !is_public));
        assert!(!services.is_public("both.example.com").await);
        let asked = dns.asked();
        assert!(asked <= 2, "once for each family of addresses: {asked}");
        let in_a_minute = monotonic_now() + KNOWN_FOR;
        assert_eq!(services.recall("both.example.com", in_a_minute), None, "then it is looked up again");
    }

    /// A name server that takes questions and never answers.
    async fn silent(lookup_limit: Duration) -> (tokio::net::UdpSocket, Services) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names = Names::new(Dns::new(&[socket.local_addr().unwrap()]).unwrap(), Vec::new());
        (socket, Services::new(names, ServiceRules { must_exist: true, lookup_limit }))
    }

    #[tokio::test]
    async fn a_silent_name_server_delays_one_call_of_a_name() {
        let limit = Duration::from_millis(50);
        let (_socket, services) = silent(limit).await;
        let began = monotonic_now();
        assert!(services.is_public("view.example.com").await);
        assert!(began.elapsed() >= limit);
        assert_eq!(
            services.recall("view.example.com", monotonic_now()),
            Some(true),
            "the next call does not wait"
        );
    }

    #[tokio::test]
    async fn lookups_at_once_are_bounded() {
        let (_socket, services) = silent(Duration::from_secs(30)).await;
        let all = services.inner.places.acquire_many(AT_ONCE.try_into().unwrap()).await.unwrap();
        assert!(services.is_public("view.example.com").await);
        assert_eq!(services.recall("view.example.com", monotonic_now()), None, "it was not looked up");
        drop(all);
        assert!(services.is_public("view.example.com").await);
        assert_eq!(services.recall("view.example.com", monotonic_now()), Some(true));
    }
}
