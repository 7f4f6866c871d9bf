//! Permission sets: found by name, proved, and kept for when their authors' hosts are away.
//!
//! The way: the name's authority in DNS, its DID's document, a signed record at its host (atproto Permissions). What was
//! found is asked for again after five minutes; what was not, after one. New sign-ins take the last good copy for 90
//! days, and a grant that lives is never ended by a set that cannot be had.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::permission_set::PermissionSet;
use genkan_protocol::oauth::scope::{Scope, Scopes};
use genkan_protocol::repo_proof;
use genkan_protocol::syntax::{Did, Nsid};
use http::StatusCode;

use super::sql::permission_sets as sql;
use super::{Error, SetView};
use crate::base::fetch::{Dns, DnsError, Guarded, Limits};
use crate::base::flights::Flights;
use crate::base::{Clock, Timestamp};
use crate::db::Db;
use crate::identity::{Documents, Freshness};

/// Knows permission sets. Cheap to clone.
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
    guarded: Guarded,
    flights: Flights<Result<(), Problem>>,
}

/// Why a set could not be had.
#[derive(Clone, Debug)]
enum Problem {
    /// In words for the app's developer.
    Unresolved(String),
    /// Ours.
    Storage,
}

impl PermissionSets {
    pub(super) fn new(db: Db, clock: Clock, dns: Dns, documents: Documents, guarded: Guarded) -> Self {
        let flights = Flights::default();
        Self { inner: Arc::new(Inner { db, clock, dns, documents, guarded, flights }) }
    }

    /// Every set that is asked for can be had, for a new sign-in.
    pub(super) async fn require(&self, scope: &str) -> Result<(), Error> {
        let scopes = Scopes::parse(scope);
        if scopes.includes().count() > MOST_SETS {
            let why = format!("more than {MOST_SETS} permission sets are asked for");
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

    /// The scope with its sets expanded, as tokens say it. An old copy serves, and is asked for anew behind its back.
    pub(super) async fn expand(&self, scope: &str) -> Result<String, Error> {
        let scopes = Scopes::parse(scope);
        let mut known = Vec::new();
        for include in scopes.includes() {
            if let Some(set) = self.stored(&include.nsid).await? {
                known.push((include.clone(), set));
            }
        }
        let expanded = scopes.expanded(|include| {
            known
                .iter()
                .find(|(one, _)| one == include)
                .map(|(_, set)| set.expand(include))
                .unwrap_or_default()
        });
        Ok(expanded.to_string())
    }

    /// What people see of a scope value, if it is a set.
    pub(super) async fn view(&self, value: &str) -> crate::db::Result<Option<SetView>> {
        let Ok(Scope::Include(include)) = value.parse::<Scope>() else { return Ok(None) };
        let Some(set) = self.read(&include.nsid).await?.map(|(set, _)| set) else { return Ok(None) };
        Ok(Some(SetView { expanded: set.expand(&include), nsid: include.nsid, set }))
    }

    /// The last good copy; asked for again without waiting when it is old.
    async fn stored(&self, nsid: &Nsid) -> crate::db::Result<Option<PermissionSet>> {
        let Some((set, checked_at)) = self.read(nsid).await? else { return Ok(None) };
        if self.inner.clock.now().since(checked_at) >= FRESH {
            let (sets, nsid) = (self.clone(), nsid.clone());
            tokio::spawn(async move { sets.resolve(&nsid).await });
        }
        Ok(Some(set))
    }

    /// A copy that may be used for a new sign-in.
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
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        let document = stored.and_then(|stored| stored.document).filter(|(_, at)| now.since(*at) < LAST_GOOD);
        Ok(document.and_then(|(document, _)| parse(&document, nsid)))
    }

    async fn read(&self, nsid: &Nsid) -> crate::db::Result<Option<(PermissionSet, Timestamp)>> {
        let stored = sql::find(&self.inner.db, nsid.as_str()).await?;
        Ok(stored.and_then(|stored| Some((parse(&stored.document?.0, nsid)?, stored.checked_at))))
    }

    /// Asks for a set, and stores what came of it.
    async fn resolve(&self, nsid: &Nsid) -> Result<(), Error> {
        let (sets, name) = (self.clone(), nsid.clone());
        let asking = async move { sets.resolve_once(&name).await };
        match self.inner.flights.join(nsid.as_str(), asking).await {
            Some(Ok(())) | Some(Err(Problem::Unresolved(_))) => Ok(()),
            Some(Err(Problem::Storage)) | None => {
                Err(Error::Storage(crate::db::Error::Away(sqlx::Error::WorkerCrashed)))
            }
        }
    }

    async fn resolve_once(&self, nsid: &Nsid) -> Result<(), Problem> {
        let found = match tokio::time::timeout(TOTAL, self.look_up(nsid)).await {
            Ok(found) => found,
            Err(_) => Err("it was not resolved in time".to_owned()),
        };
        self.store(nsid, &found).await.map_err(|cause| {
            tracing::warn!(cause = &cause as &dyn std::error::Error, "a permission set could not be stored");
            Problem::Storage
        })?;
        found.map(|_| ()).map_err(Problem::Unresolved)
    }

    async fn store(&self, nsid: &Nsid, found: &Result<String, String>) -> crate::db::Result<()> {
        let now = self.inner.clock.now();
        let mut tx = self.inner.db.begin().await?;
        match found {
            Ok(document) => sql::put(&mut tx, nsid.as_str(), document, now).await?,
            Err(problem) => sql::put_problem(&mut tx, nsid.as_str(), problem, now).await?,
        }
        Ok(tx.commit().await?)
    }

    async fn look_up(&self, nsid: &Nsid) -> Result<String, String> {
        let did = self.authority(nsid).await?;
        let document = self.inner.documents.resolve(&did, Freshness::Remembered).await;
        let document = document.map_err(|error| format!("its authority {did}: {error}"))?;
        let host = document.pds_endpoint().ok_or_else(|| format!("its authority {did} has no host"))?;
        let key = document.signing_key().ok_or_else(|| format!("its authority {did} has no signing key"))?;
        let url = format!(
            "{}/xrpc/com.atproto.sync.getRecord?did={did}&collection={COLLECTION}&rkey={nsid}",
            host.trim_end_matches('/')
        );
        let answer = self.inner.guarded.get(&url, "application/vnd.ipld.car", &LIMITS).await;
        let answer = answer.map_err(|error| format!("its authority's host: {error}"))?;
        if answer.status != StatusCode::OK {
            return Err(format!("its authority's host answered {}", answer.status.as_u16()));
        }
        let record = repo_proof::verify_record(&answer.body, &did, &key, COLLECTION, nsid.as_str())
            .map_err(|error| error.to_string())?;
        PermissionSet::parse(&record, nsid).map_err(|error| error.to_string())?;
        Ok(record.to_string())
    }

    /// The DID that speaks for a name: DNS knows it under the name without its last part, backwards.
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
/// A set that has just been published must not wait for long.
const NEGATIVE: Duration = Duration::from_secs(60);
const LAST_GOOD: Duration = Duration::from_hours(90 * 24);
const TOTAL: Duration = Duration::from_secs(15);
const MOST_SETS: usize = 32;
const LIMITS: Limits = Limits {
    total: Duration::from_secs(10),
    idle: Duration::from_secs(5),
    body_bytes: 512 * 1024,
    redirects: 0,
};
