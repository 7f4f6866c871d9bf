//! Permission sets: resolved by name, verified, and kept for times when their authors' servers are
//! away.
//!
//! Resolution goes from the name's authority in DNS to its DID's document and to a signed record at
//! its PDS (atproto permissions). A resolved set is checked again after five minutes, and a failed
//! name after one. New sign-ins accept the last good copy for 90 days. A set that cannot be
//! resolved never ends a grant.

mod lookup;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::permission_set::PermissionSet;
use genkan_protocol::oauth::scope::{Scope, Scopes};
use genkan_protocol::syntax::Nsid;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::lookup::LookUpError;
use super::error::Error;
use super::scope::{ApprovedScope, ExpandedScope, RequestedScope};
use super::sql::permission_sets::{self as sql, StoredPermissionSet};
use crate::base::fetch::{GuardedClient, Pool, UnguardedClient};
use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Clock, Timestamp, Weigh, monotonic_now};
use crate::db::Db;
use crate::fleet::Fleet;
use crate::identity::Documents;
use crate::limits::StorageBudget;

/// Resolves and stores permission sets. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PermissionSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    fleet: Fleet,
    /// For sets on hosts of the fleet, which may have private addresses.
    unguarded: UnguardedClient,
    documents: Documents,
    guarded: GuardedClient,
    single_flight: SingleFlight<Result<Arc<str>, Problem>>,
    /// One result is stored at a time. One request may resolve many sets, and must not take all
    /// connections to the database.
    storing: Mutex<()>,
    /// For sets that strangers name.
    new_sets: StorageBudget,
    /// For sets that grants use.
    used_sets: StorageBudget,
    /// Results of lookups that were not stored, by name.
    unstored: ByteCache<Box<str>, Arc<StoredPermissionSet>>,
}

/// Why a set could not be resolved.
#[derive(Clone, Debug)]
enum Problem {
    /// The set is not available. The reason is remembered, in words for the app's developer.
    Unresolved,
    /// Too many external servers are being asked. Nothing is known about the set.
    Busy,
    /// The database failed.
    Storage,
}

/// A permission set as its author wrote it.
#[derive(Clone, Debug)]
pub(crate) struct SetView {
    pub(crate) nsid: Nsid,
    /// The set itself, with a title and a detail in each language.
    pub(crate) set: PermissionSet,
    /// The scope values that replace it in a token.
    pub(crate) expanded: Vec<Scope>,
}

impl PermissionSets {
    pub(super) fn new(
        db: Db,
        clock: Clock,
        fleet: Fleet,
        unguarded: UnguardedClient,
        documents: &Documents,
        guarded: &GuardedClient,
    ) -> Self {
        // Strangers name sets, so everything about them is asked for with places of their own.
        let documents = documents.in_pool(Pool::PermissionSets);
        let guarded = guarded.in_pool(Pool::PermissionSets);
        let single_flight = SingleFlight::default();
        let inner = Inner {
            db,
            clock,
            fleet,
            unguarded,
            documents,
            guarded,
            single_flight,
            storing: Mutex::default(),
            new_sets: StorageBudget::new(NEW_SETS, NEW_SETS_OF_A_NETWORK),
            used_sets: StorageBudget::new(NEW_SETS, NEW_SETS),
            unstored: UNSTORED.build(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Requires that every requested set can be resolved, for a new sign-in. The sets are resolved
    /// together, in [`TOTAL`]. `network` is that of the caller, who may be anyone.
    pub(super) async fn require(&self, scope: &RequestedScope, network: IpAddr) -> Result<(), Error> {
        let scopes = Scopes::parse(scope.as_str());
        // Each set may cost a DNS query and a request to an external host.
        if scopes.includes().count() > MOST_SETS {
            let why = format!("more than {MOST_SETS} permission sets requested");
            return Err(Error::refused(Code::InvalidScope, why));
        }
        let mut lookups = Vec::new();
        for include in scopes.includes() {
            let known = self.known(&include.nsid).await?;
            if !self.is_fresh(known.as_ref()) {
                lookups
                    .push(async { (&include.nsid, self.look_up_for(&include.nsid, known, network).await) });
            }
        }
        let mut is_busy = false;
        let mut found = HashSet::new();
        for (nsid, outcome) in join_all(lookups).await {
            match outcome? {
                Resolution::Found(_) => drop(found.insert(nsid)),
                Resolution::Tried => {}
                Resolution::NotTried => is_busy = true,
            }
        }
        for include in scopes.includes().filter(|include| !found.contains(&include.nsid)) {
            let known = self.known(&include.nsid).await?;
            if self.good_copy(known.as_ref(), &include.nsid).is_some() {
                continue;
            }
            if is_busy {
                return Err(Error::Busy);
            }
            let problem = known.and_then(|known| known.set.problem);
            let why = format!(
                "Could not resolve Lexicon for NSID ({}): {}",
                include.nsid,
                problem.unwrap_or_else(|| "it is not known".to_owned())
            );
            return Err(Error::refused(Code::InvalidScope, why));
        }
        Ok(())
    }

    /// Returns what is known of a set: the last result and the last good document, each stored or not.
    async fn known(&self, nsid: &Nsid) -> crate::db::Result<Option<Known>> {
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        let row = stored.as_ref().map(bytes_of);
        let unstored = self.inner.unstored.get(nsid.as_str());
        let set = match (stored, unstored) {
            (stored, None) => stored,
            (None, Some(unstored)) => Some((*unstored).clone()),
            (Some(stored), Some(unstored)) => Some(joined(&stored, &unstored)),
        };
        Ok(set.map(|set| Known { set, row }))
    }

    /// Looks one set of a new sign-in up.
    async fn look_up_for(
        &self,
        nsid: &Nsid,
        known: Option<Known>,
        network: IpAddr,
    ) -> Result<Resolution, Error> {
        let row = known.as_ref().and_then(|known| known.row);
        let resolving = self.resolve(nsid, Some(Stranger { network, row }));
        // A set whose author's server is away costs people with a good copy only this long. The
        // lookup goes on, and the next sign-in has its result.
        if self.good_copy(known.as_ref(), nsid).is_some() {
            return tokio::time::timeout(PATIENCE, resolving).await.unwrap_or(Ok(Resolution::Tried));
        }
        resolving.await
    }

    fn is_fresh(&self, known: Option<&Known>) -> bool {
        let pause = match known {
            Some(known) if known.set.problem.is_none() => FRESH,
            _ => NEGATIVE,
        };
        known.is_some_and(|known| self.inner.clock.now().is_within(pause, known.set.checked_at))
    }

    /// Returns the copy that a new sign-in may use.
    fn good_copy(&self, known: Option<&Known>, nsid: &Nsid) -> Option<PermissionSet> {
        let (document, at) = known?.set.document.as_ref()?;
        if self.inner.clock.now().since(*at) < LAST_GOOD { parse(document, nsid) } else { None }
    }

    /// Expands the sets of a scope, as tokens contain it. An old copy is used at once and refreshed
    /// in the background.
    pub(super) async fn expand(&self, scope: &ApprovedScope) -> Result<ExpandedScope, Error> {
        let scopes = Scopes::parse(scope.as_str());
        let copies = self.last_copies(scopes.includes().map(|include| &include.nsid)).await?;
        let mut known = Vec::new();
        for (include, copy) in scopes.includes().zip(copies) {
            if let Some((set, stored)) = copy {
                self.note_use(&include.nsid, stored).await?;
                known.push((include, set));
            }
        }
        let expanded = scope.expanded(|include| {
            known
                .iter()
                .find(|(one, _)| *one == include)
                .map(|(_, set)| set.expand(include))
                .unwrap_or_default()
        });
        Ok(expanded)
    }

    /// The views for people of those scope values that are sets, by value.
    pub(super) async fn views<'a>(
        &self,
        values: impl Iterator<Item = &'a str>,
    ) -> crate::db::Result<HashMap<&'a str, SetView>> {
        let includes = values.filter_map(|value| match value.parse::<Scope>() {
            Ok(Scope::Include(include)) => Some((value, include)),
            _ => None,
        });
        let includes: Vec<_> = includes.collect();
        let copies = self.last_copies(includes.iter().map(|(_, include)| &include.nsid)).await?;
        let views = includes.into_iter().zip(copies).filter_map(|((value, include), copy)| {
            let (set, _) = copy?;
            Some((value, SetView { expanded: set.expand(&include), nsid: include.nsid, set }))
        });
        Ok(views.collect())
    }

    /// Returns the last good copies, in order. Those that have to be looked up are so together, in
    /// [`TOTAL`]: a call waits for them.
    async fn last_copies<'a>(
        &self,
        nsids: impl Iterator<Item = &'a Nsid>,
    ) -> crate::db::Result<Vec<Option<(PermissionSet, Known)>>> {
        let mut known = Vec::new();
        for nsid in nsids {
            known.push((nsid, self.known(nsid).await?));
        }
        Ok(join_all(known.into_iter().map(|(nsid, known)| self.last_copy(nsid, known))).await)
    }

    /// Returns the last good copy, with what is known of it. A set without a stored copy may be in the
    /// memory of another process, or may have left this one's, and is looked up.
    async fn last_copy(&self, nsid: &Nsid, mut known: Option<Known>) -> Option<(PermissionSet, Known)> {
        let row = known.as_ref().and_then(|known| known.row);
        if known.as_ref().is_none_or(|known| known.set.document.is_none()) && !self.is_fresh(known.as_ref()) {
            let asking = Stranger { network: ANYONE, row };
            if let Ok(Resolution::Found(document)) = self.resolve(nsid, Some(asking)).await {
                let now = self.inner.clock.now();
                known = Some(Known { set: result_of(&Ok(document.to_string()), now), row });
            }
        }
        let known = known?;
        Some((parse(&known.set.document.as_ref()?.0, nsid)?, known))
    }

    /// Notes that a grant uses a set, stores it if it is not yet, and refreshes an old copy in the
    /// background.
    async fn note_use(&self, nsid: &Nsid, Known { set: stored, mut row }: Known) -> crate::db::Result<()> {
        let now = self.inner.clock.now();
        // Strangers can fill the memory with other sets, and spend what they may have stored.
        if let (None, Some((document, at))) = (row, &stored.document)
            && self.inner.used_sets.spend(ANYONE, nsid.as_str().len() + document.len(), now)
        {
            self.store(nsid, &Ok(document.clone()), *at).await?;
            row = Some(bytes_of(&stored));
        }
        if row.is_some() && stored.used_at.is_none_or(|at| now.since(at) >= NOTE_USE_EVERY) {
            let mut tx = self.inner.db.begin().await?;
            sql::note_use(&mut tx, nsid.as_str(), now).await?;
            tx.commit().await?;
        }
        if !now.is_within(FRESH, stored.checked_at) {
            // Without a row it is stored only if there is room for it.
            let stranger = row.is_none().then_some(Stranger { network: ANYONE, row });
            let (sets, nsid) = (self.clone(), nsid.clone());
            tokio::spawn(async move { sets.resolve(&nsid, stranger).await });
        }
        Ok(())
    }

    /// Resolves a set and remembers the result. `stranger` is who asks, if it is for
    /// no grant.
    async fn resolve(&self, nsid: &Nsid, stranger: Option<Stranger>) -> Result<Resolution, Error> {
        // Also for a lookup of its own, after that of another caller was too busy to begin.
        let deadline = monotonic_now() + TOTAL;
        let asking = || {
            let (sets, name) = (self.clone(), nsid.clone());
            // Boxed: the future is large, and every waiting caller would carry it along.
            Box::pin(async move { sets.resolve_once(&name, stranger, deadline).await })
        };
        let has_not_begun = |found: &Result<_, Problem>| matches!(found, Err(Problem::Busy));
        match self.inner.single_flight.share(nsid.as_str(), asking, has_not_begun).await {
            Some(Ok(document)) => Ok(Resolution::Found(document)),
            Some(Err(Problem::Unresolved)) => Ok(Resolution::Tried),
            Some(Err(Problem::Busy)) => Ok(Resolution::NotTried),
            Some(Err(Problem::Storage)) | None => Err(Error::Storage(crate::db::Error::BrokenOff)),
        }
    }

    async fn resolve_once(
        &self,
        nsid: &Nsid,
        stranger: Option<Stranger>,
        deadline: Instant,
    ) -> Result<Arc<str>, Problem> {
        let time = deadline.saturating_duration_since(monotonic_now());
        // One limit for DNS, document and record together: a person waits for this.
        let found = match tokio::time::timeout_at(deadline, self.look_up(nsid, stranger)).await {
            Ok(found) => found,
            // The time passed before it began.
            Err(_) if time < TOTAL * 3 / 4 => Err(LookUpError::Busy),
            Err(_) => Err("it was not resolved in time".into()),
        };
        let found = match found {
            // Nothing was learnt about the set, so nothing is stored.
            Err(LookUpError::Busy) => return Err(Problem::Busy),
            Err(LookUpError::Because(why)) => Err(why),
            Ok(document) => Ok(document),
        };
        self.remember(nsid, &found, stranger).await.map_err(|cause| {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a permission set could not be stored");
            Problem::Storage
        })?;
        found.map(Arc::from).map_err(|_| Problem::Unresolved)
    }

    /// Stores a result, or keeps it in memory if strangers may not cause it to be stored.
    async fn remember(
        &self,
        nsid: &Nsid,
        found: &Result<String, String>,
        stranger: Option<Stranger>,
    ) -> crate::db::Result<()> {
        if self.may_store(nsid, found, stranger) {
            return self.store(nsid, found, self.inner.clock.now()).await;
        }
        let mut result = result_of(found, self.inner.clock.now());
        // The last good document stays while later lookups fail.
        if result.document.is_none() {
            let before = self.inner.unstored.get(nsid.as_str());
            result.document = before.and_then(|before| before.document.clone());
        }
        self.inner.unstored.insert(nsid.as_str().into(), Arc::new(result));
        Ok(())
    }

    fn may_store(&self, nsid: &Nsid, found: &Result<String, String>, stranger: Option<Stranger>) -> bool {
        let Some(Stranger { network, row }) = stranger else { return true };
        // A name that leads nowhere costs a stranger nothing, so it must not spend the budget.
        if row.is_none() && found.is_err() {
            return false;
        }
        let bytes = nsid.as_str().len() + found.as_ref().map_or_else(String::len, String::len);
        let grows_by = bytes.saturating_sub(row.unwrap_or(0));
        grows_by == 0 || self.inner.new_sets.spend(network, grows_by, self.inner.clock.now())
    }

    async fn store(
        &self,
        nsid: &Nsid,
        found: &Result<String, String>,
        at: Timestamp,
    ) -> crate::db::Result<()> {
        let _one_at_a_time = self.inner.storing.lock().await;
        let mut tx = self.inner.db.begin().await?;
        match found {
            Ok(document) => sql::put(&mut tx, nsid.as_str(), document, at).await?,
            Err(problem) => sql::put_problem(&mut tx, nsid.as_str(), problem, at).await?,
        }
        tx.commit().await
    }
}

/// A caller without a grant, who names a set.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    network: IpAddr,
    /// The bytes of the set's row, if it has one.
    row: Option<usize>,
}

/// What is known of a set.
#[derive(Debug)]
struct Known {
    set: StoredPermissionSet,
    /// The bytes of its row, if it has one.
    row: Option<usize>,
}

/// Returns the result of a lookup as its row would say it.
fn result_of(found: &Result<String, String>, now: Timestamp) -> StoredPermissionSet {
    StoredPermissionSet {
        document: found.as_ref().ok().map(|document| (document.clone(), now)),
        checked_at: now,
        problem: found.as_ref().err().cloned(),
        used_at: None,
    }
}

/// Returns the later result of both with the later document of both.
fn joined(stored: &StoredPermissionSet, unstored: &StoredPermissionSet) -> StoredPermissionSet {
    let documents = stored.document.iter().chain(&unstored.document);
    let document = documents.max_by_key(|(_, verified_at)| *verified_at).cloned();
    let later = if stored.checked_at < unstored.checked_at { unstored } else { stored };
    StoredPermissionSet {
        document,
        checked_at: later.checked_at,
        problem: later.problem.clone(),
        used_at: stored.used_at,
    }
}

impl Weigh for StoredPermissionSet {
    fn heap_bytes(&self) -> usize {
        self.document.as_ref().map_or(0, |(document, _)| document.heap_bytes()) + self.problem.heap_bytes()
    }
}

/// Returns the bytes that a row takes.
fn bytes_of(stored: &StoredPermissionSet) -> usize {
    let document = stored.document.as_ref().map_or(0, |(document, _)| document.len());
    // A failure of a later lookup is short, and replaces the one before it.
    document + LONGEST_PROBLEM
}

/// How a lookup of a set ended.
#[derive(Debug)]
enum Resolution {
    /// With its document, which is remembered too.
    Found(Arc<str>),
    /// Without success, or it goes on. Why is remembered.
    Tried,
    /// Too many external servers are being asked.
    NotTried,
}

fn parse(document: &str, nsid: &Nsid) -> Option<PermissionSet> {
    PermissionSet::parse(&serde_json::from_str(document).ok()?, nsid).ok()
}

const COLLECTION: &str = "com.atproto.lexicon.schema";
const FRESH: Duration = Duration::from_mins(5);
/// Short, because a set that was just published must not wait for long.
const NEGATIVE: Duration = Duration::from_mins(1);
const LAST_GOOD: Duration = Duration::from_hours(90 * 24);
/// Maximum time to resolve a set, and all sets of one request.
const TOTAL: Duration = Duration::from_secs(5);
/// How long a sign-in waits for a newer copy than the last good one.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_SETS: usize = 32;
/// About the length of the name and of the reason why a lookup failed.
const LONGEST_PROBLEM: usize = 1024;
/// Bytes of new sets that pushed requests cause to be stored per hour, and as many for grants. Those that no grant uses stay
/// for a day.
const NEW_SETS: u64 = 64 << 20;
const NEW_SETS_OF_A_NETWORK: u64 = 4 << 20;
/// For lookups of sets without a row that are for a person or a grant.
const ANYONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The bytes of results that are not stored.
const UNSTORED: CacheSize = CacheSize { name: "permission_sets", bytes: 8 << 20, typical: 2 << 10 };
/// How often it is noted that grants use a set.
const NOTE_USE_EVERY: Duration = Duration::from_hours(24);
const CAR: &str = "application/vnd.ipld.car";

#[cfg(test)]
mod tests {
    use genkan_protocol::crypto::K256PrivateKey;
    use genkan_protocol::syntax::Did;
    use genkan_testing::{FakeDirectory, FakeSite, Gate, Trouble, proof_of_record};
    use serde_json::json;
    use sqlx::Row as _;

    use super::*;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, tls};
    use crate::base::seal::Sealer;
    use crate::base::{ManualClock, Origin, Secret, assert_weighs};
    use crate::db::feed::Feed;
    use crate::db::on_each_database;
    use crate::fleet::testing::add_host_of_origin;
    use crate::identity::Directory;
    use crate::keys::Ring;

    on_each_database!(
        a_stored_set_serves_while_its_author_is_away,
        a_set_that_is_not_proved_is_refused,
        the_sets_of_one_request_are_resolved_together,
        a_set_on_a_host_of_the_fleet_is_read_there,
        silent_authors_cost_five_seconds_in_all,
        a_lookup_after_a_busy_one_costs_five_seconds_in_all,
        a_set_waits_for_no_place_of_other_calls,
        a_good_copy_is_not_held_up_by_a_silent_author,
        over_the_budget_sets_are_used_and_not_stored,
        a_failed_lookup_throws_no_good_copy_away,
        a_set_of_a_grant_is_stored,
        the_sets_of_one_token_and_one_page_are_looked_up_together,
        a_name_that_leads_nowhere_spends_no_budget
    );

    struct PermissionSetHarness {
        sets: PermissionSets,
        clock: ManualClock,
        dns: TestDns,
        site: FakeSite,
        fleet: Fleet,
        db: Db,
        did: Did,
        key: K256PrivateKey,
        directory: FakeDirectory,
    }

    impl PermissionSetHarness {
        /// `com.example` is spoken for by the DID of a site that has a document, and garbage for a
        /// record.
        async fn new(db: Db) -> Self {
            Self::with(db, true).await
        }

        /// `is_listed` says whether the operator listed the site among the private origins.
        async fn with(db: Db, is_listed: bool) -> Self {
            let clock = ManualClock::at(Timestamp::from_seconds(1_700_000_000));
            let site = FakeSite::start().await;
            let kind = "application/vnd.ipld.car";
            site.put("/xrpc/com.atproto.sync.getRecord", 200, kind, "forged");
            let host: Origin = site.localhost_url().parse().unwrap();
            let key = K256PrivateKey::from_bytes(&[7; 32]).unwrap();
            let directory = FakeDirectory::start().await;
            let data = genkan_protocol::plc::Data::of_account(
                vec![key.public().to_did_key()],
                &key.public(),
                &"ann.example.com".parse().unwrap(),
                host.as_str(),
            );
            let (did, genesis) = genkan_protocol::plc::genesis(data, &key);
            directory.submit(&did, &genesis).unwrap();
            let authority = did.clone();
            let dns = TestDns::start(move |name, _| match name {
                "_lexicon.example.com." => Reply::texts(&[&["did=", authority.as_str()]]),
                _ => Reply::NoSuchName,
            })
            .await;
            let listed = if is_listed { vec![host] } else { Vec::new() };
            let names = Dns::new(&[dns.address()]).unwrap();
            let guarded = GuardedClient::new(names, tls::client_config(None).unwrap(), listed);
            let ring =
                Ring::open(&db, &clock.clock(), Sealer::new(&Secret::new([4; 32])), None).await.unwrap();
            let feed = Feed::new(db.clone());
            let fleet = Fleet::open(db.clone(), clock.clock(), ring, feed).await.unwrap();
            let unguarded = UnguardedClient::new(None).unwrap();
            let documents =
                Documents::new(Directory::of(&directory), &guarded, clock.clock(), Duration::from_secs(5));
            let sets = PermissionSets::new(
                db.clone(),
                clock.clock(),
                fleet.clone(),
                unguarded,
                &documents,
                &guarded,
            );
            Self { sets, clock, dns, site, fleet, db, did, key, directory }
        }

        /// Publishes a set of this name under `com.example`, and returns a scope with it.
        fn publish(&self, name: &str) -> String {
            let nsid = format!("com.example.{name}");
            let permissions =
                json!([{ "type": "permission", "resource": "repo", "collection": ["com.example.note"] }]);
            let main = json!({ "type": "permission-set", "title": "Notes", "permissions": permissions });
            let record = json!({ "$type": COLLECTION, "lexicon": 1, "id": nsid, "defs": { "main": main } });
            let proof = proof_of_record(self.did.as_str(), &self.key, (COLLECTION, &nsid), &record);
            self.site.put(RECORD, 200, CAR, proof);
            format!("atproto include:{nsid}")
        }

        async fn rows(&self) -> i64 {
            let counted = sqlx::query("SELECT COUNT(*) AS number FROM permission_sets");
            counted.fetch_one(self.db.reader()).await.unwrap().get("number")
        }

        /// What a token of this scope contains, and whether the consent page knows the set.
        async fn use_of(&self, scope: &str) -> (String, bool) {
            let expanded = self.sets.expand(&ApprovedScope::stored(scope.to_owned())).await.unwrap();
            (expanded.as_str().to_owned(), self.is_shown(scope).await)
        }

        /// Whether the consent page knows the set of this scope.
        async fn is_shown(&self, scope: &str) -> bool {
            !self.sets.views(scope.split(' ')).await.unwrap().is_empty()
        }

        fn later(&self, by: Duration) {
            self.clock.advance(by);
        }

        async fn refused(&self, scope: &str) -> String {
            let network = [192, 0, 2, 1].into();
            match self.sets.require(&RequestedScope::of_request(scope), network).await {
                Ok(()) => "fine".to_owned(),
                Err(error) => error.to_string(),
            }
        }
    }

    const SCOPE: &str = "atproto include:org.example.set";

    #[test]
    fn a_set_weighs_its_document_and_its_problem() {
        let now = Timestamp::from_seconds(1);
        assert_weighs(|length| result_of(&Ok("x".repeat(length)), now));
        assert_weighs(|length| result_of(&Err("x".repeat(length)), now));
    }

    async fn a_stored_set_serves_while_its_author_is_away(db: Db) {
        let harness = PermissionSetHarness::new(db.clone()).await;
        let document = json!({
            "lexicon": 1, "id": "org.example.set",
            "defs": { "main": { "type": "permission-set", "title": "Notes", "permissions": [
                { "type": "permission", "resource": "repo", "collection": ["org.example.note"] },
                { "type": "permission", "resource": "repo", "collection": ["com.other.note"] },
            ] } },
        });
        let now = harness.sets.inner.clock.now();
        let mut tx = db.begin().await.unwrap();
        sql::put(&mut tx, "org.example.set", &document.to_string(), now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(harness.refused(SCOPE).await, "fine");
        assert_eq!(harness.dns.asked(), 0, "fresh");
        let approved = ApprovedScope::stored(SCOPE.to_owned());
        assert_eq!(
            harness.sets.expand(&approved).await.unwrap().as_str(),
            "atproto repo:org.example.note",
            "71: what names another namespace is dropped"
        );
        let mut views = harness.sets.views(SCOPE.split(' ')).await.unwrap();
        let view = views.remove("include:org.example.set").unwrap();
        assert_eq!((view.set.title(&["de"]), view.expanded.len()), (Some("Notes"), 1));
        assert!(!harness.is_shown("atproto repo:*").await);

        harness.later(Duration::from_hours(89 * 24));
        assert_eq!(harness.refused(SCOPE).await, "fine");
        assert!(harness.dns.asked() > 0);
        harness.later(Duration::from_hours(2 * 24));
        assert!(
            harness
                .refused(SCOPE)
                .await
                .starts_with("invalid_scope: Could not resolve Lexicon for NSID (org.example.set)")
        );
        // What lives goes on with it.
        assert_eq!(harness.sets.expand(&approved).await.unwrap().as_str(), "atproto repo:org.example.note");
    }

    const RECORD: &str = "/xrpc/com.atproto.sync.getRecord";

    /// Polls until the site has been asked for so many records.
    async fn until_asked(site: &FakeSite, times: usize) {
        let asked = async {
            while site.asked(RECORD) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("asked so often");
    }

    async fn the_sets_of_one_request_are_resolved_together(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        let gate = Gate::closed();
        harness.site.trouble(RECORD, Trouble::Held(gate.clone()));
        let many: Vec<String> = (0..6).map(|number| format!("include:com.example.set{number}")).collect();
        let scope = format!("atproto {}", many.join(" "));
        let all = async {
            // No answer comes before all are asked for.
            until_asked(&harness.site, 6).await;
            gate.open();
        };
        let (refused, ()) = tokio::join!(harness.refused(&scope), all);
        assert!(refused.contains("the proof is malformed"), "{refused}");
    }

    async fn silent_authors_cost_five_seconds_in_all(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        // The records are asked for when some of the time has passed. A limit of their own would end
        // later than that of the whole lookup, and for another reason.
        harness.directory.trouble("document", Trouble::Slow(Duration::from_millis(300)));
        harness.site.trouble(RECORD, Trouble::Silent);
        let many: Vec<String> = (0..6).map(|number| format!("include:com.example.set{number}")).collect();
        let began = monotonic_now();
        let refused = harness.refused(&format!("atproto {}", many.join(" "))).await;
        assert!(refused.ends_with("it was not resolved in time"), "{refused}");
        assert_eq!(harness.site.asked(RECORD), 6);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    async fn a_lookup_after_a_busy_one_costs_five_seconds_in_all(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        harness.site.trouble(RECORD, Trouble::Silent);
        // The lookup of another caller, which gets no place for half of the time.
        let single_flight = harness.sets.inner.single_flight.clone();
        let busy = async {
            tokio::time::sleep(TOTAL / 2).await;
            Err(Problem::Busy)
        };
        tokio::spawn(async move { single_flight.join("com.example.set", busy).await });
        while harness.sets.inner.single_flight.len() == 0 {
            tokio::task::yield_now().await;
        }
        // A lookup with all of its time would find out that the author is silent.
        let refused = harness.refused("atproto include:com.example.set").await;
        assert_eq!(refused, Error::Busy.to_string());
        assert_eq!(harness.site.asked(RECORD), 1);
        let known = harness.sets.known(&"com.example.set".parse().unwrap()).await.unwrap();
        assert!(known.is_none(), "nothing was learnt: {known:?}");
    }

    async fn a_set_waits_for_no_place_of_other_calls(db: Db) {
        let (harness, gate) = (PermissionSetHarness::new(db).await, Gate::closed());
        harness.site.trouble("/hang", Trouble::Held(gate.clone()));
        let url = format!("{}/hang", harness.site.localhost_url());
        let guarded = &harness.sets.inner.guarded;
        for pool in [Pool::Other, Pool::PushedClients, Pool::DidDocuments] {
            guarded.take_places(pool, 8, &url, || harness.site.asked("/hang")).await;
        }
        assert_eq!(harness.refused(&harness.publish("set")).await, "fine");
        gate.open();
    }

    async fn a_set_on_a_host_of_the_fleet_is_read_there(db: Db) {
        let harness = PermissionSetHarness::with(db, false).await;
        let refused = harness.refused("atproto include:com.example.set").await;
        assert!(refused.contains("not allowed"), "a private address: {refused}");
        assert_eq!(harness.site.asked(RECORD), 0);
        add_host_of_origin(&harness.fleet, "oak", &harness.site.localhost_url().parse().unwrap()).await;
        let read = harness.refused("atproto include:com.example.other").await;
        assert!(read.contains("the proof is malformed"), "{read}");
    }

    async fn a_good_copy_is_not_held_up_by_a_silent_author(db: Db) {
        let harness = PermissionSetHarness::new(db.clone()).await;
        let document = json!({
            "lexicon": 1, "id": "com.example.set",
            "defs": { "main": { "type": "permission-set", "permissions": [] } },
        });
        let now = harness.sets.inner.clock.now();
        let mut tx = db.begin().await.unwrap();
        sql::put(&mut tx, "com.example.set", &document.to_string(), now).await.unwrap();
        tx.commit().await.unwrap();
        harness.later(Duration::from_hours(1));
        let gate = Gate::closed();
        harness.site.trouble(RECORD, Trouble::Held(gate.clone()));
        assert_eq!(harness.refused("atproto include:com.example.set").await, "fine");
        let problem = sql::find(&db, "com.example.set").await.unwrap().unwrap().problem;
        assert_eq!(problem, None, "it did not wait for the lookup to run out of time");
        gate.open();
    }

    async fn over_the_budget_sets_are_used_and_not_stored(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        let within = harness.publish("within");
        assert_eq!((harness.refused(&within).await.as_str(), harness.rows().await), ("fine", 1));

        harness.sets.inner.new_sets.spend_all(harness.clock.now());
        let scope = harness.publish("over");
        assert_eq!(harness.refused(&scope).await, "fine");
        let good = ("atproto repo:com.example.note".to_owned(), true);
        assert!(harness.is_shown(&scope).await);
        let asked = harness.site.asked(RECORD);
        assert_eq!(harness.refused(&scope).await, "fine");
        assert_eq!((harness.site.asked(RECORD), harness.rows().await), (asked, 1), "it is in memory");
        // Another process, or a memory that others have filled.
        harness.sets.inner.unstored.clear();
        assert!(harness.is_shown(&scope).await);
        assert_eq!((harness.site.asked(RECORD), harness.rows().await), (asked + 1, 1));
        harness.sets.inner.unstored.clear();
        assert_eq!(harness.refused(&scope).await, "fine");

        // In the next hour there is room for it.
        harness.later(Duration::from_hours(1));
        assert_eq!(harness.refused(&scope).await, "fine");
        assert_eq!(harness.rows().await, 2);
        assert_eq!(harness.use_of(&scope).await, good);
    }

    /// Polls until a lookup of this set has failed.
    async fn until_failed(harness: &PermissionSetHarness, name: &str) {
        let nsid: Nsid = name.parse().unwrap();
        let failed = async {
            while harness.sets.known(&nsid).await.unwrap().is_none_or(|known| known.set.problem.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), failed).await.expect("a lookup failed");
    }

    async fn a_failed_lookup_throws_no_good_copy_away(db: Db) {
        let harness = PermissionSetHarness::new(db.clone()).await;
        let good = ("atproto repo:com.example.note".to_owned(), true);
        harness.sets.inner.new_sets.spend_all(harness.clock.now());
        harness.sets.inner.used_sets.spend_all(harness.clock.now());
        let scope = harness.publish("kept");
        assert_eq!(harness.refused(&scope).await, "fine");
        harness.later(Duration::from_mins(6));
        harness.site.put(RECORD, 500, CAR, "");
        assert_eq!(harness.use_of(&scope).await, good, "refreshed in the background");
        until_failed(&harness, "com.example.kept").await;
        assert_eq!((harness.use_of(&scope).await, harness.rows().await), (good.clone(), 0));
    }

    #[test]
    fn the_later_document_stays_beside_the_later_result() {
        let at = Timestamp::from_seconds;
        let set = |document: Option<(&str, i64)>, checked_at, problem: Option<&str>| StoredPermissionSet {
            document: document.map(|(text, verified_at)| (text.to_owned(), at(verified_at))),
            checked_at: at(checked_at),
            problem: problem.map(str::to_owned),
            used_at: None,
        };
        let (old, new) = (Some(("old", 1)), Some(("new", 2)));
        for (stored, unstored, expected) in [
            (set(old, 3, Some("away")), set(new, 2, None), set(new, 3, Some("away"))),
            (set(old, 1, None), set(new, 3, Some("away")), set(new, 3, Some("away"))),
            (set(new, 2, None), set(old, 1, None), set(new, 2, None)),
            (set(old, 1, None), set(None, 2, Some("away")), set(old, 2, Some("away"))),
            (set(None, 2, Some("away")), set(old, 1, None), set(old, 2, Some("away"))),
        ] {
            assert_eq!(joined(&stored, &unstored), expected);
        }
    }

    /// Strangers can spend what they may have stored, and fill the memory.
    async fn a_set_of_a_grant_is_stored(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        let good = ("atproto repo:com.example.note".to_owned(), true);
        harness.sets.inner.new_sets.spend_all(harness.clock.now());
        let scope = harness.publish("used");
        assert_eq!((harness.refused(&scope).await.as_str(), harness.rows().await), ("fine", 0));
        assert_eq!((harness.use_of(&scope).await, harness.rows().await), (good.clone(), 1));
        harness.sets.inner.unstored.clear();
        harness.later(Duration::from_mins(6));
        harness.site.put(RECORD, 500, CAR, "");
        assert_eq!(harness.use_of(&scope).await, good);
    }

    async fn the_sets_of_one_token_and_one_page_are_looked_up_together(db: Db) {
        for is_token in [true, false] {
            let harness = PermissionSetHarness::new(db.clone()).await;
            let gate = Gate::closed();
            harness.site.trouble(RECORD, Trouble::Held(gate.clone()));
            let name = if is_token { "token" } else { "page" };
            let many: Vec<String> = (0..6).map(|n| format!("include:com.example.{name}{n}")).collect();
            let scope = format!("atproto {}", many.join(" "));
            let work = async {
                if is_token { harness.use_of(&scope).await.1 } else { harness.is_shown(&scope).await }
            };
            let all = async {
                // No answer comes before all are asked for.
                until_asked(&harness.site, 6).await;
                gate.open();
            };
            assert!(!tokio::join!(work, all).0, "the records are garbage");
            // One that waited for another would have ended by its limit, and not by its answer.
            for n in 0..6 {
                let nsid = format!("com.example.{name}{n}").parse().unwrap();
                let found = harness.sets.known(&nsid).await.unwrap().unwrap();
                let problem = found.set.problem.unwrap();
                assert!(problem.contains("the proof is malformed"), "{nsid}: {problem}");
            }
        }
    }

    async fn a_name_that_leads_nowhere_spends_no_budget(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        let unknown = harness.refused(SCOPE).await;
        assert!(unknown.contains("_lexicon.example.org has no TXT record"), "{unknown}");
        assert_eq!(harness.rows().await, 0);
        harness.sets.inner.new_sets.spend_all(harness.clock.now());
        harness.later(Duration::from_mins(1));
        assert_eq!(harness.refused(SCOPE).await, unknown);
    }

    async fn a_set_that_is_not_proved_is_refused(db: Db) {
        let harness = PermissionSetHarness::new(db).await;
        let unknown = harness.refused(SCOPE).await;
        assert!(unknown.contains("_lexicon.example.org has no TXT record"), "{unknown}");
        let asked = harness.dns.asked();
        assert_eq!(harness.refused(SCOPE).await, unknown);
        assert_eq!(harness.dns.asked(), asked, "remembered for a minute");
        harness.later(Duration::from_mins(1));
        harness.refused(SCOPE).await;
        assert!(harness.dns.asked() > asked);

        let forged = harness.refused("atproto include:com.example.set").await;
        assert!(forged.contains("the proof is malformed"), "72: {forged}");
        let many: Vec<String> = (0..33).map(|number| format!("include:com.example.set{number}")).collect();
        assert!(harness.refused(&many.join(" ")).await.contains("more than 32"), "70");
    }
}
