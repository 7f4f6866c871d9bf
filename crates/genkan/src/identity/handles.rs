//! Resolution of handles to DIDs, by DNS and by the handle's web site
//! (<https://atproto.com/specs/handle>).

use std::time::Duration;

use futures_util::future::Either;
use genkan_protocol::syntax::{Did, Handle};
use http::StatusCode;

use super::documents::external_failure;
use super::memory::LookupCache;
use super::{Error, Freshness};
use crate::base::fetch::{DnsError, GuardedClient, Limits, Pool, TextsError};
use crate::base::{CacheSize, Clock};
use crate::limits::ClientNetwork;

/// Resolves handles. Rooms above answer first for handles of their own accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    guarded: GuardedClient,
    memory: LookupCache<Did>,
    /// The limit of one lookup as a whole.
    within: Duration,
}

impl Handles {
    pub(crate) fn new(guarded: &GuardedClient, clock: Clock, within: Duration) -> Self {
        let guarded = guarded.in_pool(Pool::Handles);
        Self { guarded, memory: LookupCache::new(clock, SIZE), within }
    }

    /// Returns the same handles, looked up with the places of another pool.
    pub(crate) fn in_pool(&self, pool: Pool) -> Self {
        Self { guarded: self.guarded.in_pool(pool), ..self.clone() }
    }

    /// Returns the same handles, looked up for a client of Genkan, which gets a share of the places.
    pub(crate) fn caused_by(&self, client: ClientNetwork) -> Self {
        Self { guarded: self.guarded.caused_by(client.address()), ..self.clone() }
    }

    /// Returns the DID that `handle` leads to. Does not check whether the DID's document names the
    /// handle.
    pub(crate) async fn resolve(&self, handle: &Handle, freshness: Freshness) -> Result<Did, Error> {
        let look_up = || look_up(self.guarded.clone(), handle.clone(), self.within);
        self.memory.get(handle.as_str(), freshness, look_up).await
    }

    /// Returns the DID, if it is cached and young enough.
    pub(super) fn recall(&self, handle: &str) -> Option<Result<Did, Error>> {
        self.memory.recall(handle)
    }
}

async fn look_up(guarded: GuardedClient, handle: Handle, within: Duration) -> Result<Did, Error> {
    // Such names do not resolve on the internet, and asking for one under `.local` or `.internal`
    // could send a query into the operator's own network.
    if handle.has_disallowed_tld() {
        return Err(Error::NotFound("handle"));
    }
    let both = async {
        let by_dns = std::pin::pin!(by_dns(&guarded, &handle, within / 2));
        let by_site = std::pin::pin!(by_site(&guarded, &handle, within));
        match futures_util::future::select(by_dns, by_site).await {
            // DNS wins when both answer, so its definite answer need not wait for the web site.
            Either::Left((by_dns @ (Ok(_) | Err(Error::Unusable(_))), _)) => by_dns,
            Either::Left((by_dns, by_site)) => choose(by_dns, by_site.await),
            Either::Right((by_site, by_dns)) => choose(by_dns.await, by_site),
        }
    };
    tokio::time::timeout(within, both)
        .await
        .map_err(|_| Error::Passing("the handle was not resolved in time".into()))?
}

/// Chooses between the two answers. DNS wins. A failure of either way means that "not found" is not
/// certain.
fn choose(by_dns: Result<Did, Error>, by_site: Result<Did, Error>) -> Result<Did, Error> {
    match (by_dns, by_site) {
        (Ok(did), _) | (Err(Error::NotFound(_) | Error::Passing(_) | Error::Busy), Ok(did)) => Ok(did),
        (Err(Error::Busy), Err(_)) | (Err(Error::NotFound(_) | Error::Passing(_)), Err(Error::Busy)) => {
            Err(Error::Busy)
        }
        (Err(Error::NotFound(_)), Err(error)) | (Err(error), _) => Err(error),
    }
}

async fn by_dns(guarded: &GuardedClient, handle: &Handle, wait: Duration) -> Result<Did, Error> {
    let texts = guarded.texts(&format!("_atproto.{handle}"), wait).await.map_err(|error| match error {
        TextsError::Dns(DnsError::NoRecord) => Error::NotFound("handle"),
        TextsError::Dns(DnsError::Failed(why)) => Error::Passing(why),
        TextsError::Busy => Error::Busy,
    })?;
    let mut named = texts.iter().filter_map(|text| text.strip_prefix("did="));
    match (named.next(), named.next()) {
        (None, _) => Err(Error::NotFound("handle")),
        (Some(did), None) => did
            .trim()
            .parse()
            .map_err(|_| Error::Unusable("the DNS record of the handle names no DID".into())),
        // Several DIDs are ambiguous, so resolution should fail (atproto Handle, "DNS TXT Method").
        (Some(_), Some(_)) => Err(Error::Unusable("the DNS records of the handle name several DIDs".into())),
    }
}

async fn by_site(guarded: &GuardedClient, handle: &Handle, within: Duration) -> Result<Did, Error> {
    let url = format!("https://{handle}/.well-known/atproto-did");
    // So that a wait for a place ends before the lookup as a whole does, and is known as such.
    let limits = Limits { total: LIMITS.total.min(within), ..LIMITS };
    let answer = guarded.get(&url, "text/plain", &limits).await.map_err(|error| external_failure(&error))?;
    match answer.status {
        StatusCode::OK => {
            let text = std::str::from_utf8(&answer.body).unwrap_or_default();
            // Only the first line counts, trimmed: files written by hand end with a line feed.
            let first = text.lines().next().unwrap_or_default().trim();
            first.parse().map_err(|_| Error::NotFound("handle"))
        }
        status if status.is_server_error() => {
            Err(Error::Passing(format!("the handle's site answered {}", status.as_u16()).into()))
        }
        _ => Err(Error::NotFound("handle")),
    }
}

const LIMITS: Limits =
    Limits { total: Duration::from_secs(3), idle: Duration::from_secs(3), body_bytes: 2048, redirects: 3 };
/// The most bytes of the cache: some 20 000 handles of a `did:plc`.
const SIZE: CacheSize = CacheSize { name: "handles", bytes: 8 << 20, typical: 400 };

#[cfg(test)]
mod tests {
    use genkan_testing::{FakeSite, Gate, Trouble};

    use super::*;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, tls};

    const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb";

    async fn resolve(handle: &str, reply: fn(&str) -> Reply) -> Result<Did, Error> {
        let dns = TestDns::start(move |name, _| reply(name)).await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
        Handles::new(&guarded, Clock::of_process(), Duration::from_secs(5))
            .resolve(&handle.parse().unwrap(), Freshness::Remembered)
            .await
    }

    #[tokio::test]
    async fn the_name_servers_are_asked() {
        let found = resolve("alice.example.com", |name| match name {
            "_atproto.alice.example.com." => Reply::texts(&[&["v=spf1"], &["did=", DID]]),
            _ => Reply::NoSuchName,
        });
        assert_eq!(found.await.unwrap().as_str(), DID);
        let nobody = resolve("nobody.example.com", |_| Reply::NoSuchName).await;
        assert!(matches!(nobody, Err(Error::NotFound(_))), "{nobody:?}");
        let two = resolve("two.example.com", |_| {
            Reply::texts(&[
                &["did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"],
                &["did=did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"],
            ])
        });
        assert!(matches!(two.await, Err(Error::Unusable(_))));
        let garbage = resolve("bad.example.com", |_| Reply::texts(&[&["did=nonsense"]])).await;
        assert!(matches!(garbage, Err(Error::Unusable(_))));
        let failing = resolve("down.example.com", |_| Reply::ServerFailure).await;
        assert!(failing.unwrap_err().is_passing());
        let special =
            resolve("printer.local", |_| Reply::texts(&[&["did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"]])).await;
        assert_eq!(special, Err(Error::NotFound("handle")));
    }

    /// The whole pool of other calls is in use, and not only a server's share of it.
    #[tokio::test]
    async fn a_handle_waits_for_no_place_of_other_calls() {
        let (mut sites, gate) = (Vec::new(), Gate::closed());
        for _ in 0..8 {
            let site = FakeSite::start().await;
            site.trouble("/hang", Trouble::Held(gate.clone()));
            sites.push(site);
        }
        let listed = sites.iter().map(|site| site.localhost_url().parse().unwrap()).collect();
        let dns = TestDns::start(|_, _| Reply::texts(&[&["did=", DID]])).await;
        let guarded = GuardedClient::new(
            Dns::new(&[dns.address()]).unwrap(),
            tls::client_config(None).unwrap(),
            listed,
        );
        for site in &sites {
            let url = format!("{}/hang", site.localhost_url());
            guarded.take_places(Pool::Other, 8, &url, || site.asked("/hang")).await;
        }
        let handles = Handles::new(&guarded, Clock::of_process(), Duration::from_secs(5));
        let found = handles.resolve(&"alice.example.com".parse().unwrap(), Freshness::Asked).await;
        assert_eq!(found.unwrap().as_str(), DID);
        gate.open();
    }

    #[test]
    fn dns_wins_and_trouble_is_not_absence() {
        let did = |text: &str| Ok(text.parse::<Did>().unwrap());
        let absent = || Err(Error::NotFound("handle"));
        let trouble = || Err(Error::Passing("away".into()));
        assert_eq!(choose(did(DID), did(OTHER)), did(DID));
        assert_eq!(choose(absent(), did(OTHER)), did(OTHER));
        assert_eq!(choose(trouble(), did(OTHER)), did(OTHER));
        assert_eq!(choose(absent(), absent()), absent());
        assert_eq!(choose(absent(), trouble()), trouble());
        assert_eq!(choose(trouble(), absent()), trouble());
        // Callers that share the lookup have to learn that it did not begin.
        let busy = || Err(Error::Busy);
        assert_eq!(choose(busy(), did(OTHER)), did(OTHER));
        for other in [absent(), trouble(), busy()] {
            assert_eq!((choose(busy(), other.clone()), choose(other, busy())), (busy(), busy()));
        }
    }

    #[tokio::test]
    async fn a_lookup_ends_at_its_time_limit() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::new(&[silent.local_addr().unwrap()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
        let handles = Handles::new(&guarded, Clock::of_process(), Duration::from_millis(200));
        let alice = "alice.example.com".parse().unwrap();
        let asking = handles.resolve(&alice, Freshness::Remembered);
        let found = tokio::time::timeout(Duration::from_secs(1), asking).await.expect("in time");
        assert!(found.unwrap_err().is_passing());
    }

    #[tokio::test]
    async fn a_private_site_is_not_asked() {
        let canary = FakeSite::start().await;
        canary.put("/.well-known/atproto-did", 200, "text/plain", DID);
        let handle = format!("localhost.{}", "example.com");
        let found = resolve(&handle, |name| match name {
            "localhost.example.com." => Reply::addresses(&["127.0.0.1"]),
            _ => Reply::NoSuchName,
        });
        assert!(matches!(found.await, Err(Error::Unusable(_))));
        assert_eq!((canary.asked("/.well-known/atproto-did"), canary.open_connections()), (0, 0));
    }

    /// Names whose servers never answer, asked for by one client.
    #[tokio::test]
    async fn the_lookups_of_one_client_leave_places_to_others() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::new(&[silent.local_addr().unwrap()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
        let handles = Handles::new(&guarded, Clock::of_process(), Duration::from_mins(1));
        let client = |last| ClientNetwork::of([192, 0, 2, last].into());
        let begun = |client: Option<ClientNetwork>, name: &str| {
            let handles = client.map_or_else(|| handles.clone(), |client| handles.caused_by(client));
            let handle: Handle = name.parse().unwrap();
            tokio::spawn(async move { handles.resolve(&handle, Freshness::Remembered).await })
        };
        let mut hanging = Vec::new();
        for number in 0..64 {
            hanging.push(begun(Some(client(1)), &format!("n{number}.tarpit{}.com", number % 8)));
        }
        // A question has its place before it is sent, so each of these names was asked for.
        let mut asked = std::collections::BTreeSet::new();
        let healthy = begun(Some(client(2)), "alice.example.org");
        let mut packet = [0; 512];
        while !asked.iter().any(|name: &String| name.contains("example")) {
            let (length, _) = silent.recv_from(&mut packet).await.unwrap();
            asked.insert(String::from_utf8_lossy(&packet[12..length]).into_owned());
        }
        assert!(asked.iter().filter(|name| name.contains("tarpit")).count() <= 2 * 8, "{asked:?}");
        healthy.abort();
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// A client whose share is used up asks for a name, and others ask for this name meanwhile.
    #[tokio::test]
    async fn a_lookup_that_waits_for_one_clients_share_holds_up_no_other_client() {
        let dns = TestDns::start(|name, _| match name {
            "_atproto.alice.example.org." => Reply::texts(&[&["did=", DID]]),
            silent if silent.contains("tarpit") => Reply::Silence,
            _ => Reply::NoSuchName,
        })
        .await;
        let guarded = GuardedClient::new(
            Dns::new(&[dns.address()]).unwrap(),
            tls::client_config(None).unwrap(),
            Vec::new(),
        );
        let patient = Handles::new(&guarded, Clock::of_process(), Duration::from_mins(1));
        let handles = Handles::new(&guarded, Clock::of_process(), Duration::from_millis(500));
        let alice: Handle = "alice.example.org".parse().unwrap();
        let client = |last| ClientNetwork::of([192, 0, 2, last].into());
        // Its places are taken again as soon as they are free.
        let hogs: Vec<_> = (0..16)
            .map(|number| {
                let handles = patient.caused_by(client(1));
                tokio::spawn(async move {
                    for round in 0.. {
                        let name = format!("n{round}.tarpit{number}.com").parse().unwrap();
                        let _ = handles.resolve(&name, Freshness::Remembered).await;
                    }
                })
            })
            .collect();
        while dns.asked() < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let first = handles.caused_by(client(1));
        let first = first.resolve(&alice, Freshness::Remembered);
        let second = handles.caused_by(client(2));
        let second = async {
            tokio::task::yield_now().await;
            second.resolve(&alice, Freshness::Remembered).await
        };
        let (first, second) = futures_util::future::join(first, second).await;
        assert_eq!(first, Err(Error::Busy), "its share is used up");
        assert_eq!(second.unwrap().as_str(), DID);
        hogs.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
