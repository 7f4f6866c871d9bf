//! A directory, names, other servers, and this service on one database, several times if that is
//! asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::syntax::Did;
use genkan_testing::network::eventually;
use genkan_testing::{Client, FakeDirectory, FakeNames, FakePds};

use crate::base::fetch::{Dns, GuardedClient, UnguardedClient, tls};
use crate::base::seal::Sealer;
use crate::base::{ManualClock, Origin, Secret, Timestamp};
use crate::credentials::Pairing;
use crate::db::Db;
use crate::db::feed::Feed;
use crate::identity::{Directory, Documents, Handles, Identity};
use crate::links::login::LoginRedirect;
use crate::links::*;
use crate::telemetry::metrics::Metrics;

pub(super) const SCOPE: &str = "atproto transition:generic";
pub(super) const DEVICE: &str = "dev-1";
pub(super) const ORIGIN: &str = "https://genkan.example.com";

pub(super) struct LinkHarness {
    pub(super) db: Db,
    pub(super) directory: FakeDirectory,
    pub(super) names: FakeNames,
    pub(super) pds: FakePds,
    pub(super) ann: Did,
    pub(super) links: Links,
    clock: ManualClock,
    listed: Vec<Origin>,
}

impl LinkHarness {
    pub(super) async fn start(db: Db) -> Self {
        Self::start_with(db, ORIGIN, &[]).await
    }

    /// Starts the harness at this origin, with further servers that the operator listed.
    pub(super) async fn start_with(db: Db, origin: &str, others: &[&FakePds]) -> Self {
        let clock = ManualClock::at_present();
        let (directory, names) = (FakeDirectory::start().await, FakeNames::start().await);
        let pds = FakePds::start().await;
        let listed: Vec<Origin> = others
            .iter()
            .map(|other| other.url())
            .chain([pds.url()])
            .map(|url| url.parse().unwrap())
            .collect();
        let keys: ClientKeys = Arc::new(|| vec![key()]);
        let links = instance(&db, &clock, &directory, &names, listed.clone(), origin, (keys, reloads(true)));
        for server in others.iter().copied().chain([&pds]) {
            server.set_clock(clock.shared());
            know(&links, server);
        }
        let ann = pds.make_account(&directory, "ann.example.com");
        names.publish("ann.example.com", &[ann.as_str()]);
        Self { db, directory, names, pds, ann, links, clock, listed }
    }

    /// Returns another process on the same database.
    pub(super) fn another(&self) -> Links {
        self.another_with(Arc::new(|| vec![key()]))
    }

    /// Returns another process on the same database, with these client keys.
    pub(super) fn another_with(&self, keys: ClientKeys) -> Links {
        self.another_reading(keys, reloads(true))
    }

    /// Returns another process on the same database, which reads its client keys again this way.
    pub(super) fn another_reading(&self, keys: ClientKeys, reload: ReloadKeys) -> Links {
        instance(
            // Connections and subscribers of its own, as in another process.
            &self.db.apart(),
            &self.clock,
            &self.directory,
            &self.names,
            self.listed.clone(),
            ORIGIN,
            (keys, reload),
        )
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(super) async fn begin(&self, identifier: &str) -> Result<LoginRedirect, BeginError> {
        self.begin_for(identifier, SCOPE).await
    }

    pub(super) async fn begin_for(&self, identifier: &str, scope: &str) -> Result<LoginRedirect, BeginError> {
        let login = NewLogin {
            identifier,
            scope,
            request: Some("req-1"),
            back: "/oauth/authorize?x",
            device: DEVICE,
            network: [192, 0, 2, 7].into(),
            browser: None,
        };
        self.links.begin(login).await
    }

    /// Visits the other server, and returns the parameters of its redirect back.
    pub(super) async fn visit(&self, departure: &LoginRedirect) -> Callback {
        // The fake server approves at once, so one request stands for the whole visit.
        let (origin, path) = departure.url.split_at(departure.url.find("/oauth/").unwrap());
        let sent = Client::new(origin).get(path).await;
        assert_eq!(sent.status, 303, "{}", sent.transcript());
        let (address, query) = sent.header("location").split_once('?').unwrap();
        assert!(address.ends_with("/oauth/callback"), "{address}");
        let mut query: BTreeMap<String, String> = serde_html_form::from_str(query).unwrap();
        Callback {
            state: query.remove("state"),
            iss: query.remove("iss"),
            code: query.remove("code").map(Secret::new),
            error: query.remove("error"),
            has_response: query.contains_key("response"),
        }
    }

    pub(super) async fn finish(
        &self,
        departure: &LoginRedirect,
        callback: Callback,
    ) -> Result<Arrival, FinishError> {
        self.links.finish(callback, Some(departure.browser.expose()), Some(DEVICE)).await
    }

    /// Signs in up to the consent page.
    pub(super) async fn arrive(&self) -> Arrival {
        self.arrive_as("ann.example.com").await
    }

    async fn arrive_as(&self, handle: &str) -> Arrival {
        let departure = self.begin(handle).await.unwrap();
        let callback = self.visit(&departure).await;
        self.finish(&departure, callback).await.unwrap()
    }

    /// Signs in and keeps the session.
    pub(super) async fn link(&self) -> LinkId {
        self.link_of("ann.example.com").await
    }

    /// Signs in with the account of this handle and keeps the session.
    pub(super) async fn link_of(&self, handle: &str) -> LinkId {
        let arrival = self.arrive_as(handle).await;
        assert!(self.links.keep(&arrival.link).await.unwrap());
        arrival.link
    }

    pub(super) async fn credential(&self, link: &LinkId) -> Result<Arc<Credential>, UseError> {
        self.links.credential(link).await
    }

    /// Calls the PDS with this credential, and returns the status of its answer.
    pub(super) async fn call(&self, credential: &Credential) -> u16 {
        let path = "/xrpc/com.atproto.repo.listMissingBlobs";
        let mut status = 0;
        // The second attempt has the nonce of the first answer.
        for _ in 0..2 {
            let nonce = self.links.nonce(&credential.link, &credential.pds);
            let signed = credential.sign("GET", path, nonce.as_ref().map(|heard| &*heard.nonce), self.now());
            let client = Client::new(credential.pds.as_str())
                .with("authorization", &format!("DPoP {}", signed.token()))
                .with("dpop", signed.proof());
            let answer = client.get(path).await;
            self.links.hear_nonce(&credential.link, &credential.pds, answer.header("dpop-nonce"));
            status = answer.status;
            if answer.summary() != "401 use_dpop_nonce" {
                break;
            }
        }
        status
    }

    /// Returns why a session has ended.
    pub(super) async fn reason(&self, link: &LinkId) -> Option<&'static str> {
        self.links.find(link).await.unwrap().unwrap().reason
    }
}

/// Gives a server Genkan's client document and keys.
pub(super) fn know(links: &Links, server: &FakePds) {
    let client = &links.inner.client;
    let document = client.document(None);
    let id = document["client_id"].as_str().unwrap();
    server.know_client(id, document["scope"].as_str().unwrap(), client.key_set());
}

/// A reading of the keys that changes nothing, and whether it succeeds.
pub(super) fn reloads(succeeds: bool) -> ReloadKeys {
    Arc::new(move || Box::pin(async move { succeeds }))
}

pub(super) fn key() -> ClientKey {
    let private = P256PrivateKey::from_bytes(&[5; 32]).unwrap();
    ClientKey { id: "one".to_owned(), private, usable_from: Timestamp::from_millis(0) }
}

fn instance(
    db: &Db,
    clock: &ManualClock,
    directory: &FakeDirectory,
    names: &FakeNames,
    listed: Vec<Origin>,
    origin: &str,
    (keys, reload_keys): (ClientKeys, ReloadKeys),
) -> Links {
    let clock = clock.clock();
    let within = Duration::from_secs(5);
    let dns = Dns::new(&[names.address()]).unwrap();
    let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), listed.clone());
    let unguarded = UnguardedClient::new(None).unwrap();
    let directory = Directory::new(unguarded, directory.url().parse().unwrap(), within);
    let identity = Identity {
        documents: Documents::new(directory.clone(), &guarded, clock.clone(), within),
        handles: Handles::new(&guarded, clock.clone(), within),
        directory,
    };
    let dependencies = Dependencies {
        db: db.clone(),
        feed: Feed::new(db.clone()),
        clock,
        sealer: Sealer::new(&Secret::new([3; 32])),
        identity,
        guarded,
        keys,
        reload_keys,
        grants: Arc::new(Pairing),
        metrics: Metrics::default(),
    };
    let settings = Settings {
        public_url: origin.parse().unwrap(),
        client_name: "Genkan".to_owned(),
        scope: SCOPE.to_owned(),
        pages: Vec::new(),
        private_origins: listed,
    };
    let links = Links::new(dependencies, settings);
    tokio::spawn(links.follow_ends());
    links
}

pub(super) async fn until(done: impl Fn() -> bool) {
    eventually("it is done", async || done()).await;
}
