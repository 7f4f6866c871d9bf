//! Permission sets: resolved by name, verified, and kept for times when their authors' servers are
//! away.
//!
//! Resolution goes from the name's authority in DNS to its DID's document and to a signed record at
//! its PDS (atproto permissions). A resolved set is checked again after five minutes, and a failed
//! name after one. New sign-ins accept the last good copy for 90 days. A set that cannot be
//! resolved never ends a grant.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::permission_set::PermissionSet;
use genkan_protocol::oauth::scope::{Scope, Scopes};
use genkan_protocol::repo_proof;
use genkan_protocol::syntax::{Did, Nsid};
use http::StatusCode;

use super::error::Error;
use super::scope::{ApprovedScope, ExpandedScope, RequestedScope};
use super::sql::permission_sets as sql;
use crate::base::fetch::{Dns, DnsError, GuardedClient, Limits};
use crate::base::single_flight::SingleFlight;
use crate::base::{Clock, Timestamp};
use crate::db::Db;
use crate::identity::{Documents, Freshness};

/// Resolves and stores permission sets. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PermissionSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Clock,
    dns: Dns,
    documents: Documents,
    guarded: GuardedClient,
    single_flight: SingleFlight<Result<(), Problem>>,
}

/// Why a set could not be resolved.
#[derive(Clone, Debug)]
enum Problem {
    /// The set is not available. The reason is stored, in words for the app's developer.
    Unresolved,
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
    pub(super) fn new(db: Db, clock: Clock, dns: Dns, documents: Documents, guarded: GuardedClient) -> Self {
        let single_flight = SingleFlight::default();
        Self { inner: Arc::new(Inner { db, clock, dns, documents, guarded, single_flight }) }
    }

    /// Requires that every requested set can be resolved, for a new sign-in.
    pub(super) async fn require(&self, scope: &RequestedScope) -> Result<(), Error> {
        let scopes = Scopes::parse(scope.as_str());
        // Each set may cost a DNS query and a request to an external host.
        if scopes.includes().count() > MOST_SETS {
            let why = format!("more than {MOST_SETS} permission sets requested");
            return Err(Error::refused(Code::InvalidScope, why));
        }
        for include in scopes.includes() {
            if self.fresh(&include.nsid).await?.is_none() {
                let problem =
                    sql::find(&self.inner.db, include.nsid.as_str()).await?.and_then(|it| it.problem);
                let why = format!(
                    "Could not resolve Lexicon for NSID ({}): {}",
                    include.nsid,
                    problem.unwrap_or_else(|| "it is not known".to_owned())
                );
                return Err(Error::refused(Code::InvalidScope, why));
            }
        }
        Ok(())
    }

    /// Expands the sets of a scope, as tokens contain it. An old copy is used at once and refreshed
    /// in the background.
    pub(super) async fn expand(&self, scope: &ApprovedScope) -> Result<ExpandedScope, Error> {
        let scopes = Scopes::parse(scope.as_str());
        let mut known = Vec::new();
        for include in scopes.includes() {
            if let Some(set) = self.stored(&include.nsid).await? {
                known.push((include.clone(), set));
            }
        }
        let expanded = scope.expanded(|include| {
            known
                .iter()
                .find(|(one, _)| one == include)
                .map(|(_, set)| set.expand(include))
                .unwrap_or_default()
        });
        Ok(expanded)
    }

    /// The view for people of a scope value, if it is a set.
    pub(super) async fn view(&self, value: &str) -> crate::db::Result<Option<SetView>> {
        let Ok(Scope::Include(include)) = value.parse::<Scope>() else { return Ok(None) };
        let Some(set) = self.read(&include.nsid).await?.map(|(set, _)| set) else { return Ok(None) };
        Ok(Some(SetView { expanded: set.expand(&include), nsid: include.nsid, set }))
    }

    /// Returns the last good copy, and refreshes an old one in the background.
    async fn stored(&self, nsid: &Nsid) -> crate::db::Result<Option<PermissionSet>> {
        let Some((set, checked_at)) = self.read(nsid).await? else { return Ok(None) };
        if self.inner.clock.now().since(checked_at) >= FRESH {
            let (sets, nsid) = (self.clone(), nsid.clone());
            tokio::spawn(async move { sets.resolve(&nsid).await });
        }
        Ok(Some(set))
    }

    /// Returns a copy that a new sign-in may use.
    async fn fresh(&self, nsid: &Nsid) -> Result<Option<PermissionSet>, Error> {
        let now = self.inner.clock.now();
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        let pause = match &stored {
            Some(stored) if stored.problem.is_none() => FRESH,
            _ => NEGATIVE,
        };
        if stored.is_none_or(|stored| now.since(stored.checked_at) >= pause) {
            self.resolve(nsid).await?;
        }
        // Read again, because the lookup may have been shared with another caller and returns no
        // document.
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        let document = stored.and_then(|stored| stored.document).filter(|(_, at)| now.since(*at) < LAST_GOOD);
        Ok(document.and_then(|(document, _)| parse(&document, nsid)))
    }

    async fn read(&self, nsid: &Nsid) -> crate::db::Result<Option<(PermissionSet, Timestamp)>> {
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        Ok(stored.and_then(|stored| Some((parse(&stored.document?.0, nsid)?, stored.checked_at))))
    }

    /// Resolves a set and stores the result.
    async fn resolve(&self, nsid: &Nsid) -> Result<(), Error> {
        let (sets, name) = (self.clone(), nsid.clone());
        // Boxed: the future is large, and every waiting caller would carry it along.
        let asking = Box::pin(async move { sets.resolve_once(&name).await });
        match self.inner.single_flight.join(nsid.as_str(), asking).await {
            Some(Ok(()) | Err(Problem::Unresolved)) => Ok(()),
            Some(Err(Problem::Storage)) | None => Err(Error::Storage(crate::db::Error::BrokenOff)),
        }
    }

    async fn resolve_once(&self, nsid: &Nsid) -> Result<(), Problem> {
        // One limit for DNS, document and record together: a person waits for this.
        let found = match tokio::time::timeout(TOTAL, self.look_up(nsid)).await {
            Ok(found) => found,
            Err(_) => Err("it was not resolved in time".to_owned()),
        };
        self.store(nsid, &found).await.map_err(|cause| {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a permission set could not be stored");
            Problem::Storage
        })?;
        found.map(|_| ()).map_err(|_| Problem::Unresolved)
    }

    async fn store(&self, nsid: &Nsid, found: &Result<String, String>) -> crate::db::Result<()> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.db.begin().await?;
        match found {
            Ok(document) => sql::put(&mut tx, nsid.as_str(), document, now).await?,
            Err(problem) => sql::put_problem(&mut tx, nsid.as_str(), problem, now).await?,
        }
        tx.commit().await
    }

    async fn look_up(&self, nsid: &Nsid) -> Result<String, String> {
        let did = self.authority(nsid).await?;
        let document = self.inner.documents.resolve(&did, Freshness::Remembered).await;
        let document = document.map_err(|error| format!("its authority {did}: {error}"))?;
        let host = document.pds.clone().map_err(|error| format!("its authority {did}: {error}"))?;
        let key =
            document.signing_key.clone().ok_or_else(|| format!("its authority {did} has no signing key"))?;
        let url =
            format!("{host}/xrpc/com.atproto.sync.getRecord?did={did}&collection={COLLECTION}&rkey={nsid}");
        let answer = self.inner.guarded.get(&url, "application/vnd.ipld.car", &Limits::DOCUMENT).await;
        let answer = answer.map_err(|error| format!("its authority's host: {error}"))?;
        if answer.status != StatusCode::OK {
            return Err(format!("its authority's host answered {}", answer.status.as_u16()));
        }
        // The authority's signature proves the record, so the server that sends it need not be
        // trusted.
        let record = repo_proof::verify_record(&answer.body, &did, &key, COLLECTION, nsid.as_str())
            .map_err(|error| error.to_string())?;
        // Only a record that parses is stored. A broken new version does not replace the last good
        // copy.
        PermissionSet::parse(&record, nsid).map_err(|error| error.to_string())?;
        Ok(record.to_string())
    }

    /// Finds the DID with authority over a name. Its TXT record is under the name without its last
    /// part, reversed.
    async fn authority(&self, nsid: &Nsid) -> Result<Did, String> {
        let mut parts: Vec<&str> = nsid.as_str().split('.').collect();
        parts.pop();
        parts.reverse();
        let name = format!("_lexicon.{}", parts.join("."));
        let texts = self.inner.dns.texts(&name).await.map_err(|error| match error {
            DnsError::NoRecord => format!("{name} has no TXT record"),
            DnsError::Failed(_) => format!("{name} could not be looked up"),
        })?;
        let mut named = texts.iter().filter_map(|text| text.strip_prefix("did="));
        // With two different answers, chance would decide who has authority over the name.
        match (named.next(), named.next()) {
            (Some(did), None) => did.trim().parse().map_err(|_| format!("{name} names no DID")),
            (None, _) => Err(format!("{name} has no TXT record \"did=…\"")),
            (Some(_), Some(_)) => Err(format!("{name} names several DIDs")),
        }
    }
}

fn parse(document: &str, nsid: &Nsid) -> Option<PermissionSet> {
    PermissionSet::parse(&serde_json::from_str(document).ok()?, nsid).ok()
}

const COLLECTION: &str = "com.atproto.lexicon.schema";
const FRESH: Duration = Duration::from_mins(5);
/// Short, because a set that was just published must not wait for long.
const NEGATIVE: Duration = Duration::from_mins(1);
const LAST_GOOD: Duration = Duration::from_hours(90 * 24);
const TOTAL: Duration = Duration::from_secs(15);
const MOST_SETS: usize = 32;

#[cfg(test)]
mod tests {
    use genkan_testing::{FakeDirectory, FakeSite};
    use serde_json::json;

    use super::*;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::tls;
    use crate::base::{ManualClock, Origin};
    use crate::db::on_each_database;
    use crate::identity::Directory;

    on_each_database!(a_stored_set_serves_while_its_author_is_away, a_set_that_is_not_proved_is_refused);

    struct PermissionSetHarness {
        sets: PermissionSets,
        clock: ManualClock,
        dns: TestDns,
        _servers: (FakeDirectory, FakeSite),
    }

    impl PermissionSetHarness {
        /// `com.example` is spoken for by the DID of a site that has a document, and garbage for a
        /// record.
        async fn new(db: Db) -> Self {
            let clock = ManualClock::at(Timestamp::from_seconds(1_700_000_000));
            let site = FakeSite::start().await;
            let kind = "application/vnd.ipld.car";
            site.put("/xrpc/com.atproto.sync.getRecord", 200, kind, "forged");
            let host: Origin = site.localhost_url().parse().unwrap();
            let key = genkan_protocol::crypto::K256PrivateKey::from_bytes(&[7; 32]).unwrap();
            let directory = FakeDirectory::start().await;
            let data = genkan_protocol::plc::Data::of_account(
                vec![key.public().to_did_key()],
                &key.public(),
                &"ann.example.com".parse().unwrap(),
                host.as_str(),
            );
            let (did, genesis) = genkan_protocol::plc::genesis(data, &key);
            directory.submit(&did, &genesis).unwrap();
            let dns = TestDns::start(move |name, _| match name {
                "_lexicon.example.com." => Reply::texts(&[&["did=", did.as_str()]]),
                _ => Reply::NoSuchName,
            })
            .await;
            let asked = Dns::new(&[dns.address()]).unwrap();
            let guarded = GuardedClient::new(asked.clone(), tls::client_config(None).unwrap(), vec![host]);
            let documents = Documents::new(
                Directory::of(&directory),
                guarded.clone(),
                clock.clock(),
                Duration::from_secs(5),
            );
            let sets = PermissionSets::new(db, clock.clock(), asked, documents, guarded);
            Self { sets, clock, dns, _servers: (directory, site) }
        }

        fn later(&self, by: Duration) {
            self.clock.advance(by);
        }

        async fn refused(&self, scope: &str) -> String {
            match self.sets.require(&RequestedScope::of_request(scope)).await {
                Ok(()) => "fine".to_owned(),
                Err(error) => error.to_string(),
            }
        }
    }

    const SCOPE: &str = "atproto include:org.example.set";

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
        let view = harness.sets.view("include:org.example.set").await.unwrap().unwrap();
        assert_eq!((view.set.title(&["de"]), view.expanded.len()), (Some("Notes"), 1));
        assert!(harness.sets.view("repo:*").await.unwrap().is_none());

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
