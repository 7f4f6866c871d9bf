//! The wiring: it builds the services of all rooms.

use std::collections::HashSet;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::crypto::PublicKey;

use crate::accounts::{Accounts, AppPasswords, EmailTokens, Emails, Invites, Passwords};
use crate::base::Clock;
use crate::base::fetch::tls::{TlsError, client_config};
use crate::base::fetch::{Dns, DnsError, GuardedClient, UnguardedClient};
use crate::base::seal::{Sealer, SealingKeys};
use crate::config::Config;
use crate::credentials::{Credentials, Pairing};
use crate::db::feed::{Change, Feed};
use crate::db::{DatabaseUrl, Db, PoolSize, ServingLock, Upgrade};
use crate::fleet::{self, Fleet, HostClient};
use crate::identity::{Directory, Documents, HandlePolicy, Handles, HomeDocuments, Identity};
use crate::keys::{self, Ring, SealedColumn, WebPurpose};
use crate::limits::{AttemptError, Limit, RateLimits, address, address_at_host, all_at_host};
use crate::links::{self, ClientKey, Links};
use crate::mail::{self, Mail, TransportError};
use crate::moves::Moves;
use crate::oauth::{self, OAuth};
use crate::recovery::Recovery;
use crate::renames::{self, Renames};
use crate::sessions::{AccessTokens, Lifetimes, Sessions};
use crate::signin::{Attempts, SignIns};
use crate::signup::{self, Rules, SignUps};
use crate::standing::Standings;
use crate::telemetry::metrics::Metrics;
use crate::wire::AccountClient;

#[cfg(test)]
pub(crate) mod testing;

/// All services, each with just what it needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App {
    services: Arc<Services>,
}

#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) feed: Feed,
    pub(crate) ring: Ring,
    pub(crate) fleet: Fleet,
    pub(crate) hosts: HostClient,
    pub(crate) unguarded: UnguardedClient,
    pub(crate) identity: Identity,
    pub(crate) home_documents: HomeDocuments,
    pub(crate) accounts: Accounts,
    pub(crate) passwords: Passwords,
    pub(crate) app_passwords: AppPasswords,
    pub(crate) invites: Invites,
    pub(crate) mail: Mail,
    pub(crate) emails: Emails,
    pub(crate) recovery: Recovery,
    pub(crate) moves: Moves,
    pub(crate) sessions: Sessions,
    pub(crate) access: AccessTokens,
    pub(crate) sign_ins: SignIns,
    pub(crate) attempts: Attempts,
    pub(crate) oauth: OAuth,
    pub(crate) links: Links,
    pub(crate) credentials: Credentials,
    pub(crate) sign_ups: SignUps,
    pub(crate) renames: Renames,
    pub(crate) standings: Standings,
    pub(crate) limits: RateLimits,
    pub(crate) metrics: Metrics,
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

impl App {
    /// Counts an attempt, and refuses it if it is over its limit. Every door calls this before the work, so
    /// that attempts at the same time cannot exceed the limit.
    ///
    /// `key` says whose attempt it is, by one of the functions of [`limits`](crate::limits).
    pub(crate) async fn count_attempt(&self, limit: Limit, key: &str) -> Result<(), AttemptError> {
        self.limits.attempt(&self.db, limit, key, self.clock.now()).await
    }

    /// Counts one attempt of a client that names no account: the client's by `limit`, and all that
    /// its host passes on by `at_host`. Without the first, one client at a host could use up the
    /// limit of everybody there.
    pub(crate) async fn count_attempt_of(
        &self,
        client: &AccountClient,
        (limit, at_host): (Limit, Limit),
    ) -> Result<(), AttemptError> {
        let counted = match client.source() {
            (own, None) => vec![(limit, address(own))],
            (_, Some(via)) => {
                vec![(limit, address_at_host(&via.host, via.client)), (at_host, all_at_host(&via.host))]
            }
        };
        self.limits.attempt_all(&self.db, &counted, self.clock.now()).await
    }

    /// Opens the database, the keys and the fleet, and builds the services.
    pub(crate) async fn build(config: Config) -> Result<Self, BuildError> {
        let db = open_database(&config).await?;
        let clock = db.clock();
        Self::build_on(db, config, clock, Metrics::default()).await
    }

    /// Builds on a database that is open already. Every room goes by `clock`.
    #[expect(clippy::too_many_lines, reason = "one list of all services, in the order of their dependencies")]
    pub(crate) async fn build_on(
        db: Db,
        config: Config,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, BuildError> {
        let feed = Feed::new(db.clone());
        // The ring comes before everything that signs or unseals. It refuses the start if a sealing
        // key is missing.
        let ring = open_ring(&config, &db, &clock).await?;
        let fleet = Fleet::open(db.clone(), clock.clone(), ring.clone(), feed.clone()).await?;
        let unguarded = UnguardedClient::new(config.network.extra_ca_file.as_deref())?;
        let hosts = HostClient::new(unguarded.clone(), HOST_CALL);
        let guarded = external_names(&config)?;
        let identity = identity(&config, &clock, unguarded.clone(), &guarded);

        let home_documents = HomeDocuments::new(db.clone(), clock.clone(), &feed, identity.documents.clone());

        // The accounts subscribe to the feed, so that a change by another process empties their
        // cache.
        let accounts = Accounts::new(db.clone(), clock.clone(), &feed);
        let passwords = Passwords::new(config.sessions.password_workers, config.sessions.password_queue);
        let key = ring.derived("browsers");
        let sign_ins = SignIns::new(db.clone(), clock.clone(), accounts.clone(), passwords.clone(), key);
        let limits = RateLimits::new(&config, &metrics);
        let attempts = Attempts::new(db.clone(), clock.clone(), limits.clone(), &ring);
        let lifetimes = Lifetimes {
            access: config.sessions.access_lifetime,
            refresh: config.sessions.refresh_lifetime,
            grace: config.sessions.refresh_grace,
        };
        let sessions = Sessions::new(
            db.clone(),
            clock.clone(),
            accounts.clone(),
            passwords.clone(),
            ring.clone(),
            fleet.clone(),
            config.service.did.clone(),
            lifetimes,
        );
        let access = AccessTokens::new(
            db.clone(),
            feed.clone(),
            ring.clone(),
            fleet.clone(),
            config.sessions.token_cache_entries,
        );
        let links = Links::new(
            links::Dependencies {
                db: db.clone(),
                clock: clock.clone(),
                feed: feed.clone(),
                sealer: ring.sealer().clone(),
                identity: identity.clone(),
                guarded: guarded.clone(),
                keys: client_keys(&ring),
                reload_keys: reload_keys(&ring),
                grants: Arc::new(Pairing),
                metrics: metrics.clone(),
            },
            links_settings(&config),
        );
        let oauth = OAuth::new(
            oauth::Dependencies {
                db: db.clone(),
                clock: clock.clone(),
                feed: feed.clone(),
                accounts: accounts.clone(),
                sign_ins: sign_ins.clone(),
                ring: ring.clone(),
                fleet: fleet.clone(),
                unguarded: unguarded.clone(),
                guarded,
                documents: identity.documents.clone(),
                links: Arc::new(Pairing),
            },
            oauth_settings(&config),
        );
        let rules = rules(&config)?;
        let renames = Renames::new(renames::Dependencies {
            db: db.clone(),
            clock: clock.clone(),
            accounts: accounts.clone(),
            ring: ring.clone(),
            fleet: fleet.clone(),
            hosts: hosts.clone(),
            directory: identity.directory.clone(),
            handles: identity.handles.clone(),
            policy: rules.handles.clone(),
            home_documents: home_documents.clone(),
        });
        let sign_ups = SignUps::new(
            signup::Dependencies {
                db: db.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
                passwords: passwords.clone(),
                sessions: sessions.clone(),
                ring: ring.clone(),
                fleet: fleet.clone(),
                hosts: hosts.clone(),
                directory: identity.directory.clone(),
                attempts: attempts.clone(),
            },
            rules,
        );
        let app_passwords = AppPasswords::new(db.clone(), clock.clone());
        let invites = Invites::new(db.clone(), clock.clone(), config.service.public_url.host());
        let credentials = Credentials {
            db: db.clone(),
            clock: clock.clone(),
            app_passwords: app_passwords.clone(),
            sessions: sessions.clone(),
            sign_ins: sign_ins.clone(),
            oauth: oauth.clone(),
        };
        let standings = Standings {
            db: db.clone(),
            clock: clock.clone(),
            accounts: accounts.clone(),
            credentials: credentials.clone(),
            attempts: attempts.clone(),
            fleet: fleet.clone(),
            hosts: hosts.clone(),
        };
        let mail = Mail::new(&config, db.clone(), clock.clone(), ring.sealer().clone(), &metrics)?;
        let emails = Emails::new(
            db.clone(),
            clock.clone(),
            accounts.clone(),
            EmailTokens::new(db.clone(), &ring),
            mail.clone(),
        );
        let recovery = Recovery {
            db: db.clone(),
            clock: clock.clone(),
            accounts: accounts.clone(),
            emails: emails.clone(),
            passwords: passwords.clone(),
            credentials: credentials.clone(),
        };
        let moves = Moves {
            db: db.clone(),
            clock: clock.clone(),
            emails: emails.clone(),
            ring: ring.clone(),
            directory: identity.directory.clone(),
            home_documents: home_documents.clone(),
        };
        let documents = identity.documents.clone();
        // A rename changes the DID document, so its cached copy must go with the account's other
        // caches.
        feed.subscribe(Change::Account, move |did| documents.forget(did));
        let services = Services {
            config: Arc::new(config),
            clock,
            db,
            feed,
            ring,
            fleet,
            hosts,
            unguarded,
            identity,
            home_documents,
            accounts,
            passwords,
            app_passwords,
            invites,
            mail,
            emails,
            recovery,
            moves,
            sessions,
            access,
            sign_ins,
            attempts,
            oauth,
            links,
            credentials,
            sign_ups,
            renames,
            standings,
            limits,
            metrics,
        };
        Ok(Self { services: Arc::new(services) })
    }
}

/// Creates the data folder if it is missing. Refuses one that has lost its database.
pub(crate) fn prepare_data_dir(config: &Config) -> Result<(), BuildError> {
    config.database.make_data_dir()?;
    // With a key in the settings, a first start cannot be told from a lost database.
    if config.keys.sealing_key.is_none() {
        crate::db::refuse_lost_database(&(&config.database.url).into(), &sealing_key_path(config))?;
    }
    Ok(())
}

/// Takes the right to serve from the database.
pub(crate) async fn lock_for_serving(config: &Config) -> Result<ServingLock, BuildError> {
    prepare_data_dir(config)?;
    Ok(crate::db::lock_for_serving(&(&config.database.url).into()).await?)
}

/// Brings the schema up to date, for as long as that takes. Only looking whether it must be done is
/// bounded by `limit`.
///
/// A database that does not answer is no error here: opening it afterwards waits for it, and reports
/// the cause.
pub(crate) async fn upgrade_schema(config: &Config, limit: Duration) -> Result<(), BuildError> {
    prepare_data_dir(config)?;
    let url = DatabaseUrl::from(&config.database.url);
    match tokio::time::timeout(limit, Upgrade::find(&url)).await {
        Ok(Ok(Some(upgrade))) => Ok(upgrade.apply().await.map_err(|cause| url.name_file(cause))?),
        Ok(Err(cause)) if !cause.is_passing() => Err(cause.into()),
        Ok(Ok(None) | Err(_)) | Err(_) => Ok(()),
    }
}

/// Opens the database, after its schema is up to date. Returns `None` if that takes longer than
/// `limit`, in which the time of the upgrade does not count.
pub(crate) async fn open_upgraded(config: &Config, limit: Duration) -> Result<Option<Db>, BuildError> {
    let mut is_late = false;
    loop {
        upgrade_schema(config, limit).await?;
        match tokio::time::timeout(limit, open_database(config)).await {
            // It began to answer only after the look at its schema, which is repeated.
            Ok(Err(BuildError::Database(crate::db::Error::Outdated))) if !is_late => is_late = true,
            Ok(opened) => return opened.map(Some),
            Err(_) => return Ok(None),
        }
    }
}

async fn open_database(config: &Config) -> Result<Db, BuildError> {
    prepare_data_dir(config)?;
    let size =
        PoolSize { connections: config.database.connections, acquire: config.database.acquire_timeout };
    Ok(Db::open(&(&config.database.url).into(), size).await?)
}

/// Opens the key ring, once every sealed value in the database is known to be readable.
async fn open_ring(config: &Config, db: &Db, clock: &Clock) -> Result<Ring, BuildError> {
    let keys = sealing_keys(config)?;
    // A missing sealing key stops the start: otherwise it would show only when its first value is
    // read.
    let sealer = Sealer::of(&keys);
    // Each sealed column is searched for ids of keys that were not provided. One is enough to stop.
    for column in sealed_columns() {
        if let Some(id) = column.unknown_keys(db, &sealer).await?.first() {
            let table = column.table;
            return Err(BuildError::Keys(keys::Error::MissingSealingKey { id: id.clone(), table }));
        }
    }
    Ok(Ring::open(db, clock, sealer, config.keys.plc_rotation_key.as_ref()).await?)
}

/// Returns the sealing keys: from the settings, or else from the file in the data folder, which is
/// created at the first start.
pub(crate) fn sealing_keys(config: &Config) -> Result<SealingKeys, keys::Error> {
    match &config.keys.sealing_key {
        Some(key) => Ok(SealingKeys {
            current: key.clone(),
            older: config.keys.sealing_key_older.iter().cloned().collect(),
        }),
        None => keys::sealing_key_file(&sealing_key_path(config)),
    }
}

pub(crate) fn sealing_key_path(config: &Config) -> PathBuf {
    config.database.data_dir.join("sealing.key")
}

/// All sealed columns of the database.
pub(crate) fn sealed_columns() -> impl Iterator<Item = &'static SealedColumn> {
    keys::SEALED_COLUMNS
        .iter()
        .chain(fleet::SEALED_COLUMNS)
        .chain(mail::SEALED_COLUMNS)
        .chain(links::SEALED_COLUMNS)
}

/// Returns the HTTP client for names that users and external servers chose.
fn external_names(config: &Config) -> Result<GuardedClient, BuildError> {
    let dns = Dns::new(&config.network.dns_servers)?;
    let tls = client_config(config.network.extra_ca_file.as_deref())?;
    // The guarded client refuses private addresses, since users choose its URLs. The listed origins
    // are the exceptions that the operator made.
    Ok(GuardedClient::new(dns, tls, config.network.private_origins.clone()))
}

fn identity(config: &Config, clock: &Clock, unguarded: UnguardedClient, guarded: &GuardedClient) -> Identity {
    let within = config.limits.resolve_timeout;
    let directory = Directory::new(unguarded, config.directory.url.clone(), config.directory.timeout);
    Identity {
        documents: Documents::new(directory.clone(), guarded, clock.clone(), within),
        handles: Handles::new(guarded, clock.clone(), within),
        directory,
    }
}

fn oauth_settings(config: &Config) -> oauth::Settings {
    oauth::Settings {
        issuer: config.service.public_url.to_string(),
        service_did: config.service.did.to_string(),
        access_lifetime: config.oauth.access_lifetime,
        refresh_grace: config.oauth.refresh_grace,
        loopback_clients: config.oauth.loopback_clients,
        private_origins: config.network.private_origins.clone(),
        dpop_secret: config.oauth.dpop_secret.clone(),
    }
}

fn links_settings(config: &Config) -> links::Settings {
    let service = &config.service;
    let pages = [("tos_uri", &service.terms_of_service_url), ("policy_uri", &service.privacy_policy_url)];
    links::Settings {
        public_url: service.public_url.clone(),
        client_name: config.links.client_name.clone().unwrap_or_else(|| service.name.clone()),
        scope: config.links.scope.clone(),
        pages: pages.into_iter().filter_map(|(name, url)| Some((name, url.clone()?))).collect(),
        private_origins: config.network.private_origins.clone(),
    }
}

/// Returns the keys with which Genkan authenticates itself to external authorization servers.
fn client_keys(ring: &Ring) -> links::ClientKeys {
    let ring = ring.clone();
    Arc::new(move || {
        let keys = ring.web_keys(WebPurpose::Client).into_iter();
        keys.map(|key| ClientKey {
            id: key.id.clone(),
            private: key.private.clone(),
            usable_from: key.usable_from,
        })
        .collect()
    })
}

fn reload_keys(ring: &Ring) -> links::ReloadKeys {
    let ring = ring.clone();
    Arc::new(move || {
        let ring = ring.clone();
        Box::pin(async move {
            ring.reload()
                .await
                .inspect_err(|cause| tracing::warn!(cause = %cause, "the keys could not be read again"))
                .is_ok()
        })
    })
}

fn rules(config: &Config) -> Result<Rules, BuildError> {
    let (service, sign_up) = (&config.service, &config.sign_up);
    let recovery_key = config.keys.recovery_did_key.as_deref().map(PublicKey::from_did_key).transpose();
    let blocked: HashSet<String> =
        sign_up.blocked_email_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
    Ok(Rules {
        handles: HandlePolicy::new(
            service.handle_domains.clone(),
            &sign_up.reserved_handles,
            service.development,
        ),
        blocked_email_domains: Arc::new(blocked),
        invite_required: sign_up.invite_required,
        password: (sign_up.password_min, sign_up.password_max),
        recovery_key: recovery_key.map_err(|_| BuildError::RecoveryKey)?,
    })
}

/// Why Genkan cannot start, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Folder(#[from] crate::config::Problem),
    #[error("GENKAN_RECOVERY_DID_KEY: is not a did:key; use a public key of the form did:key:z…")]
    RecoveryKey,
    #[error("cannot open the database: {0}; check GENKAN_DATABASE_URL")]
    Database(#[from] crate::db::Error),
    #[error("cannot open the keys: {0}")]
    Keys(#[from] keys::Error),
    #[error("cannot load the fleet: {0}")]
    Fleet(#[from] fleet::Error),
    #[error("GENKAN_EXTRA_CA_FILE: {0}")]
    Tls(#[from] TlsError),
    #[error("GENKAN_MAIL_SMTP_URL: {0}")]
    Mail(#[from] TransportError),
    #[error("GENKAN_DNS_SERVERS: {0}")]
    Dns(#[from] DnsError),
}

/// Maximum time of one call from Genkan to a host.
const HOST_CALL: Duration = Duration::from_secs(20);
