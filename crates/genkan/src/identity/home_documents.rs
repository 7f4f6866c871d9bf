//! The DID documents of home accounts, for session answers.
//!
//! Genkan submits nearly all operations that change them, or passes them on from hosts. So it keeps
//! a copy of each in the database, and a session answer needs no request to the PLC directory. An
//! owner may submit an operation elsewhere. So a copy is renewed in the background after
//! [`RENEWED_AFTER`] when a session asks for it, and is not used after [`OLDEST`] if the directory
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::did_document::AccountFacts;
use genkan_protocol::syntax::{Did, Handle};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::Error;
use super::documents::{Documents, WholeDocument};
use super::sql::{self, StoredDocument};
use crate::base::single_flight::SingleFlight;
use crate::base::{CacheSize, Clock, Origin, Timestamp, Weigh, allocation};
use crate::db::feed::{self, Change, Feed};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{Db, FeedCache, Result as DbResult, Tx};

/// The kept documents. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HomeDocuments {
    db: Db,
    clock: Clock,
    documents: Documents,
    memory: FeedCache<Box<str>, Arc<HomeDocument>>,
    single_flight: SingleFlight<Result<Arc<HomeDocument>, Error>>,
    renewals: Arc<Semaphore>,
}

/// A copy of a home account's document.
#[derive(Debug)]
pub(crate) struct HomeDocument {
    pub(crate) facts: AccountFacts,
    pub(crate) text: Box<RawValue>,
    /// When the directory was asked for it.
    checked_at: Timestamp,
    /// Until then an operation is expected that the directory may get from another server.
    may_change_until: Timestamp,
    /// When the directory last gave no answer, in milliseconds since the Unix epoch.
    failed_at: AtomicI64,
}

/// What Genkan's own records say about a home account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomeRecords<'a> {
    pub(crate) did: &'a Did,
    pub(crate) handle: &'a Handle,
    pub(crate) host: &'a Origin,
    pub(crate) host_key: &'a PublicKey,
    pub(crate) is_active: bool,
}

impl HomeRecords<'_> {
    /// How long a copy is used. A copy that contradicts the records, or one of an account that may
    /// be about to move, is likely to change.
    fn lifetime_of(&self, copy: &HomeDocument, now: Timestamp) -> Duration {
        let facts = &copy.facts;
        if facts.pds.as_ref() != Ok(self.host) {
            return Duration::ZERO;
        }
        let agrees =
            facts.handle.as_ref() == Some(self.handle) && facts.signing_key.as_ref() == Some(self.host_key);
        if agrees && self.is_active && copy.may_change_until <= now { OLDEST } else { UNSETTLED }
    }
}

impl HomeDocument {
    fn new(
        facts: AccountFacts,
        text: Box<RawValue>,
        (checked_at, may_change_until): (Timestamp, Timestamp),
    ) -> Self {
        Self { facts, text, checked_at, may_change_until, failed_at: AtomicI64::new(0) }
    }

    /// Whether the directory was asked in vain a moment ago.
    fn has_failed(&self, now: Timestamp) -> bool {
        now.is_within(PAUSE, Timestamp::from_millis(self.failed_at.load(Ordering::Relaxed)))
    }
}

impl HomeDocuments {
    pub(crate) fn new(db: Db, clock: Clock, feed: &Feed, documents: Documents) -> Self {
        let single_flight = SingleFlight::default();
        let under_way = single_flight.clone();
        let memory = FeedCache::new(feed, Change::Account, SIZE, move |entries, did| {
            under_way.forget(did);
            entries.remove(did);
        });
        let renewals = Arc::new(Semaphore::new(RENEWALS));
        Self { db, clock, documents, memory, single_flight, renewals }
    }

    /// Returns the document of an account, which may name another PDS than its host.
    ///
    /// # Errors
    ///
    /// There is no copy, and the directory has no document or gave none within [`PATIENCE`]; or the
    /// directory says that there is no document any more.
    pub(crate) async fn find(&self, of: HomeRecords<'_>) -> Result<Arc<HomeDocument>, Error> {
        let (kept, now) = (self.kept(of.did).await, self.clock.now());
        if let Some(kept) = &kept {
            let is_young = now.is_within(of.lifetime_of(kept, now), kept.checked_at);
            let has_failed = kept.has_failed(now);
            if is_young && !has_failed && !now.is_within(RENEWED_AFTER, kept.checked_at) {
                self.renew(of.did);
            }
            if is_young || has_failed {
                return Ok(Arc::clone(kept));
            }
        }
        let answer = tokio::time::timeout(PATIENCE, self.ask(of.did)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Error::Passing("the directory did not answer in time".into())));
        match (answer, kept) {
            // An old copy is better than none while the directory is away.
            (Err(error), Some(kept)) if error.is_passing() => {
                kept.failed_at.store(self.clock.now().as_millis(), Ordering::Relaxed);
                Ok(kept)
            }
            (answer, _) => answer,
        }
    }

    /// Empties the copy as part of `tx`, because the document has changed. The caller notes the
    /// change of the account.
    pub(crate) async fn forget(&self, tx: &mut Tx, did: &Did) -> DbResult<()> {
        sql::forget(tx, did, self.clock.now()).await
    }

    /// Records as part of `tx` that an operation was signed which Genkan does not submit itself. The
    /// caller notes the change of the account.
    pub(crate) async fn expect_change(&self, tx: &mut Tx, did: &Did) -> DbResult<()> {
        let now = self.clock.now();
        sql::expect_change(tx, did, now, now.plus(CHANGES_WITHIN)).await
    }

    async fn kept(&self, did: &Did) -> Option<Arc<HomeDocument>> {
        match self.memory.get(did.as_str()) {
            Some(kept) => Some(kept),
            None => self.stored(did).await,
        }
    }

    /// Reads the copy in the database. If that fails, the directory is asked instead.
    async fn stored(&self, did: &Did) -> Option<Arc<HomeDocument>> {
        let reading = self.memory.begin();
        let StoredDocument { text, times } = sql::find(&self.db, did).await.ok()??;
        let facts = AccountFacts::parse(text.as_bytes(), did).ok()?;
        let kept = Arc::new(HomeDocument::new(facts, RawValue::from_string(text).ok()?, times));
        self.memory.keep(did.as_str().into(), Arc::clone(&kept), reading);
        Some(kept)
    }

    /// Asks the directory once for all callers that wait for it.
    async fn ask(&self, did: &Did) -> Result<Arc<HomeDocument>, Error> {
        let (documents, name) = (self.clone(), did.clone());
        let asking = async move { documents.look_up(&name).await };
        let answer = self.single_flight.join(did.as_str(), asking).await;
        answer.unwrap_or_else(|| Err(Error::Passing("the lookup was cancelled".into())))
    }

    async fn look_up(&self, did: &Did) -> Result<Arc<HomeDocument>, Error> {
        let (reading, asked_at) = (self.memory.begin(), self.clock.now());
        let answer = self.documents.fetch_whole(did).await;
        if let Err(error) = &answer
            && error.is_passing()
        {
            return Err(error.clone());
        }
        let before = self.kept(did).await;
        let text = answer.as_ref().ok().map(|found| found.text.get());
        let stored = self.store(did, text, before.as_deref(), asked_at).await;
        let WholeDocument { facts, text } = answer?;
        let may_change_until = match stored {
            Ok(until) => until,
            Err(cause) => {
                tracing::warn!(
                    cause = &cause as &dyn std::error::Error,
                    "a DID document could not be stored"
                );
                before.map(|before| before.may_change_until)
            }
        };
        let times = (asked_at, may_change_until.unwrap_or(asked_at));
        let found = Arc::new(HomeDocument::new(facts, text, times));
        if may_change_until.is_some() {
            self.memory.keep(did.as_str().into(), Arc::clone(&found), reading);
        }
        Ok(found)
    }

    /// Stores the directory's answer, and tells all replicas if it differs from the copy `before`.
    /// Returns until when a change is expected, or `None` if there is a newer answer.
    async fn store(
        &self,
        did: &Did,
        text: Option<&str>,
        before: Option<&HomeDocument>,
        asked_at: Timestamp,
    ) -> DbResult<Option<Timestamp>> {
        if text.is_none() && before.is_none() {
            return Ok(None);
        }
        let mut tx = self.db.begin().await?;
        let small = text.filter(|text| text.len() <= MOST_STORED);
        let stored = sql::put(&mut tx, did, small, asked_at).await?;
        let has_changed = before.is_some_and(|before| Some(before.text.get()) != text);
        if stored.is_some() && has_changed {
            feed::note(&mut tx, Change::Account, did.as_str()).await?;
        }
        tx.commit().await?;
        Ok(stored)
    }

    /// Renews a copy in the background, unless enough others are being renewed. Then the next session
    /// answer comes back to it.
    fn renew(&self, did: &Did) {
        let Ok(place) = Arc::clone(&self.renewals).try_acquire_owned() else { return };
        let (documents, did) = (self.clone(), did.clone());
        tokio::spawn(async move {
            let _place = place;
            // Another replica may have renewed it.
            let stored = documents.stored(&did).await;
            let now = documents.clock.now();
            if stored.as_ref().is_some_and(|stored| now.is_within(RENEWED_AFTER, stored.checked_at)) {
                return;
            }
            if documents.ask(&did).await.is_err()
                && let Some(stored) = stored
            {
                stored.failed_at.store(documents.clock.now().as_millis(), Ordering::Relaxed);
            }
        });
    }
}

/// Deletes the copy of an account that is deleted, as part of `tx`.
pub(crate) async fn delete_document(tx: &mut Tx, did: &Did) -> DbResult<()> {
    sql::delete(tx, did).await
}

/// The removal of copies that no session has asked for since long.
pub(crate) const SWEEPS: &[Sweep] =
    &[sweep!("DID documents", |db, range| sql::sweep(db, range.keeping(UNUSED)))];

impl Weigh for HomeDocument {
    fn heap_bytes(&self) -> usize {
        self.facts.heap_bytes() + allocation(self.text.get().len())
    }
}

/// The age at which a copy is renewed in the background. Longer than several refreshes of a session
/// are apart.
const RENEWED_AFTER: Duration = Duration::from_hours(12);
/// The age up to which a copy is used while the directory answers. A change that was submitted
/// elsewhere is noticed within this time.
const OLDEST: Duration = Duration::from_hours(24);
/// The age up to which a copy is used that is likely to change, while the directory answers.
const UNSETTLED: Duration = Duration::from_mins(10);
/// The time in which the owner of a signed operation submits it, usually from a new PDS.
const CHANGES_WITHIN: Duration = Duration::from_hours(24);
/// How long a session answer may wait for the directory. People wait for it to sign in.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long no session answer waits again, after the directory gave none.
const PAUSE: Duration = Duration::from_secs(30);
/// The most copies that a process renews at the same time.
const RENEWALS: usize = 4;
/// The most bytes in memory, for the sign-ins and refreshes of some minutes.
const SIZE: CacheSize = CacheSize { name: "home_documents", bytes: 16 << 20, typical: 2048 };
/// The most bytes of a document in the database. Larger ones are the work of their owners.
const MOST_STORED: usize = 16 << 10;
const UNUSED: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::plc;
    use genkan_testing::{FakeDirectory, Trouble};
    use serde_json::json;

    use super::*;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, GuardedClient, tls};
    use crate::base::{ManualClock, assert_weighs};
    use crate::db::{on_each_database, sweep};
    use crate::identity::Directory;

    on_each_database!(
        a_copy_serves_while_the_directory_is_away,
        a_copy_is_renewed_in_the_background,
        a_change_is_seen_at_once_here_and_soon_elsewhere,
        a_move_elsewhere_is_noticed_and_told,
        a_signed_operation_is_expected,
        copies_that_nobody_asks_for_are_swept
    );

    #[test]
    fn a_copy_weighs_its_text_and_what_was_read_of_it() {
        let handle_of = |length: usize| format!("{}example.com", "a.".repeat(length / 2));
        let copy = |handle: &str, text: usize| {
            let facts = AccountFacts {
                id: "did:plc:ann".parse().unwrap(),
                handle: Some(handle.parse().unwrap()),
                pds: Ok("https://oak.example.com".parse().unwrap()),
                signing_key: None,
            };
            let text = RawValue::from_string(format!("\"{}\"", "a".repeat(text))).unwrap();
            HomeDocument::new(facts, text, (Timestamp::from_millis(0), Timestamp::from_millis(0)))
        };
        assert_weighs(|length| copy("ann.test", length));
        assert_weighs(|length| copy(&handle_of(length), 2));
    }

    struct Trial {
        db: Db,
        feed: Feed,
        directory: FakeDirectory,
        guarded: GuardedClient,
        clock: ManualClock,
        documents: HomeDocuments,
        key: K256PrivateKey,
        did: Did,
    }

    impl Trial {
        async fn new(db: Db) -> Self {
            let (directory, clock) = (FakeDirectory::start().await, ManualClock::at_present());
            let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
            let keys = vec![key.public().to_did_key()];
            let data = plc::Data::of_account(keys, &key.public(), &handle("ann"), "https://oak.example.com");
            let (did, genesis) = plc::genesis(data, &key);
            directory.submit(&did, &genesis).unwrap();
            let feed = Feed::new(db.clone());
            let dns = TestDns::start(|_, _| Reply::NoSuchName).await;
            let dns = Dns::new(&[dns.address()]).unwrap();
            let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
            let documents = Self::process(&db, &feed, &directory, &guarded, &clock);
            Self { db, feed, directory, guarded, clock, documents, key, did }
        }

        /// The documents as another process has them.
        fn process(
            db: &Db,
            feed: &Feed,
            directory: &FakeDirectory,
            guarded: &GuardedClient,
            clock: &ManualClock,
        ) -> HomeDocuments {
            let documents =
                Documents::new(Directory::of(directory), guarded, clock.clock(), Duration::from_secs(5));
            HomeDocuments::new(db.clone(), clock.clock(), feed, documents)
        }

        async fn find(&self, documents: &HomeDocuments, name: &str) -> Result<Arc<HomeDocument>, Error> {
            let host = "https://oak.example.com".parse().unwrap();
            let (handle, host_key) = (handle(name), self.key.public());
            let of = HomeRecords {
                did: &self.did,
                handle: &handle,
                host: &host,
                host_key: &host_key,
                is_active: true,
            };
            documents.find(of).await
        }

        async fn found(&self, documents: &HomeDocuments) -> Arc<HomeDocument> {
            self.find(documents, "ann").await.unwrap()
        }

        /// Returns the handle in the document of the account, which Genkan knows by this name.
        async fn handle_by(&self, documents: &HomeDocuments, name: &str) -> Result<String, Error> {
            let found = self.find(documents, name).await?;
            assert!(found.text.get().contains(found.facts.handle.as_ref().unwrap().as_str()));
            Ok(found.facts.handle.as_ref().unwrap().to_string())
        }

        fn rename_in_directory(&self, name: &str) {
            self.change_in_directory(|data| data.set_handle(&handle(name)));
        }

        fn change_in_directory(&self, change: impl FnOnce(&mut plc::Data)) {
            let last = self.directory.operations(&self.did).pop().unwrap();
            let mut data = last.data().unwrap();
            change(&mut data);
            self.directory.submit(&self.did, &plc::update(&last.cid(), data, &self.key)).unwrap();
        }

        fn asked(&self) -> usize {
            self.directory.journal().len()
        }
    }

    fn handle(name: &str) -> Handle {
        format!("{name}.example.com").parse().unwrap()
    }

    /// The memory counts copies by their weight. Their owners choose how long they are.
    #[test]
    fn a_copy_weighs_its_text_and_its_facts() {
        let did: Did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let copy = |handle: &str, more: usize| {
            let document = json!({ "id": did.as_str(), "alsoKnownAs": [format!("at://{handle}")] });
            let facts = AccountFacts::parse(document.to_string().as_bytes(), &did).unwrap();
            assert_eq!(facts.handle.as_ref().map(Handle::as_str), Some(handle));
            let text = RawValue::from_string(json!({ "more": "x".repeat(more) }).to_string()).unwrap();
            let now = Timestamp::from_seconds(1);
            Arc::new(HomeDocument::new(facts, text, (now, now)))
        };
        assert_weighs(|length| copy("ann.example.com", length));
        assert_weighs(|length| copy(&format!("{}example.com", "a.".repeat(length / 2)), 1));
    }

    async fn a_copy_serves_while_the_directory_is_away(db: Db) {
        let trial = Trial::new(db).await;
        assert_eq!(trial.handle_by(&trial.documents, "ann").await.unwrap(), "ann.example.com");
        assert_eq!(trial.asked(), 1);
        let other = Trial::process(&trial.db, &trial.feed, &trial.directory, &trial.guarded, &trial.clock);
        trial.directory.trouble("*", Trouble::Status(503));
        for documents in [&trial.documents, &other] {
            assert_eq!(trial.handle_by(documents, "ann").await.unwrap(), "ann.example.com");
        }
        assert_eq!(trial.asked(), 1, "a copy in memory or in the database asks nobody");
        trial.clock.advance(OLDEST);
        assert_eq!(trial.handle_by(&other, "ann").await.unwrap(), "ann.example.com");
        let asked = trial.asked();
        assert!(asked > 1, "it is old, and still better than none");
        assert_eq!(trial.handle_by(&other, "ann").await.unwrap(), "ann.example.com");
        assert_eq!(trial.asked(), asked, "the directory was asked in vain a moment ago");
        trial.directory.mend();
        trial.clock.advance(PAUSE);
        trial.handle_by(&other, "ann").await.unwrap();
        assert!(trial.asked() > asked);
    }

    async fn a_copy_is_renewed_in_the_background(db: Db) {
        let trial = Trial::new(db).await;
        trial.handle_by(&trial.documents, "ann").await.unwrap();
        trial.rename_in_directory("beth");
        let asked = trial.asked();
        trial.clock.advance(RENEWED_AFTER);
        assert_eq!(trial.handle_by(&trial.documents, "ann").await.unwrap(), "ann.example.com", "at once");
        let renewed = async {
            while trial.handle_by(&trial.documents, "ann").await.unwrap() != "beth.example.com" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), renewed).await.unwrap();
        assert_eq!(trial.asked(), asked + 1);
    }

    /// A rename by this Genkan, and one by an older Genkan beside it, which knows of no copies.
    async fn a_change_is_seen_at_once_here_and_soon_elsewhere(db: Db) {
        let trial = Trial::new(db).await;
        trial.handle_by(&trial.documents, "ann").await.unwrap();
        trial.rename_in_directory("beth");
        trial.clock.advance(Duration::from_secs(1));
        let mut tx = trial.db.begin().await.unwrap();
        trial.documents.forget(&mut tx, &trial.did).await.unwrap();
        feed::note(&mut tx, Change::Account, trial.did.as_str()).await.unwrap();
        tx.commit().await.unwrap();
        trial.clock.advance(Duration::from_secs(1));
        assert_eq!(trial.handle_by(&trial.documents, "beth").await.unwrap(), "beth.example.com");
        // Nothing was forgotten here: the copy contradicts the records, so it is soon too old.
        trial.rename_in_directory("cleo");
        assert_eq!(trial.handle_by(&trial.documents, "cleo").await.unwrap(), "beth.example.com");
        trial.clock.advance(UNSETTLED);
        assert_eq!(trial.handle_by(&trial.documents, "cleo").await.unwrap(), "cleo.example.com");
    }

    /// The owner has a key of their own, and moves away without a word to this Genkan.
    async fn a_move_elsewhere_is_noticed_and_told(db: Db) {
        let trial = Trial::new(db).await;
        let apart = trial.db.apart();
        let feed = Feed::new(apart.clone());
        let other = Trial::process(&apart, &feed, &trial.directory, &trial.guarded, &trial.clock);
        tokio::spawn(feed.follow());
        for documents in [&trial.documents, &other] {
            trial.handle_by(documents, "ann").await.unwrap();
        }
        trial.change_in_directory(|data| {
            data.services.get_mut("atproto_pds").unwrap().endpoint = "https://elm.example.com".to_owned();
        });
        trial.clock.advance(OLDEST);
        let elm: Origin = "https://elm.example.com".parse().unwrap();
        assert_eq!(trial.found(&trial.documents).await.facts.pds.as_ref(), Ok(&elm));
        let told = async {
            while other.memory.get(trial.did.as_str()).is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("the other process is told");
        // What is known last counts while the directory is away: nothing says that the account is back.
        trial.directory.trouble("*", Trouble::Status(503));
        trial.clock.advance(PAUSE);
        assert_eq!(trial.found(&other).await.facts.pds.as_ref(), Ok(&elm));
    }

    /// Genkan signs an operation, and another PDS submits it.
    async fn a_signed_operation_is_expected(db: Db) {
        let trial = Trial::new(db).await;
        trial.handle_by(&trial.documents, "ann").await.unwrap();
        let mut tx = trial.db.begin().await.unwrap();
        trial.documents.expect_change(&mut tx, &trial.did).await.unwrap();
        feed::note(&mut tx, Change::Account, trial.did.as_str()).await.unwrap();
        tx.commit().await.unwrap();
        for key in 2..4 {
            trial.change_in_directory(|data| {
                let key = K256PrivateKey::from_bytes(&[key; 32]).unwrap();
                data.rotation_keys.push(key.public().to_did_key());
                data.also_known_as.push(format!("at://{key:?}.example.com", key = data.rotation_keys.len()));
            });
            let before = trial.asked();
            trial.clock.advance(UNSETTLED);
            let found = trial.found(&trial.documents).await;
            assert!(found.text.get().contains(&format!("{key}.example.com")), "{}", found.text);
            assert_eq!(trial.asked(), before + 1);
        }
        trial.clock.advance(CHANGES_WITHIN);
        trial.found(&trial.documents).await;
        let before = trial.asked();
        trial.clock.advance(UNSETTLED);
        trial.found(&trial.documents).await;
        assert_eq!(trial.asked(), before, "nothing is expected any more");
    }

    async fn copies_that_nobody_asks_for_are_swept(db: Db) {
        let trial = Trial::new(db).await;
        trial.handle_by(&trial.documents, "ann").await.unwrap();
        let now = trial.clock.now();
        assert_eq!(sweep::all(&trial.db, now, SWEEPS).await.unwrap(), 0);
        assert_eq!(sweep::all(&trial.db, now.plus(UNUSED * 2), SWEEPS).await.unwrap(), 1);
    }
}
