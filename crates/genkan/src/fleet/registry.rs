//! The fleet in memory, and placement with what this process knows beyond the rows.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use genkan_protocol::syntax::Did;
use tokio::sync::Notify;

use super::host::{Health, Host, HostState};
use super::placement::{self, Candidate, Explanation};
use super::sql::{self, HostRow, ProbeRow};
use super::{Error, HostId};
use crate::base::{Clock, Secret, Timestamp, random};
use crate::db::Db;
use crate::db::feed::{self, Change, ChangeId, Feed};
use crate::db::replicas::{self, Replica, Unread};
use crate::keys::{Ring, SealedColumn};

/// The fleet as it was last read. The changes feed causes the next reading. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fleet {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) ring: Ring,
    pub(super) feed: Feed,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Accounts on each host: the last count, and one more for each placement since.
    counts: Mutex<HashMap<HostId, u64>>,
    /// For a host with a rate: when its next sign-up is due.
    pace: Mutex<HashMap<HostId, Timestamp>>,
    /// Signals a change that is not read yet. Several changes before a reading need only one.
    changed: Notify,
}

#[derive(Default)]
struct Snapshot {
    hosts: Arc<[Arc<Host>]>,
    by_id: HashMap<HostId, Arc<Host>>,
    by_did: HashMap<Did, Arc<Host>>,
}

impl Fleet {
    /// Reads the fleet. Changes arrive only while [`Fleet::follow`] runs.
    pub(crate) async fn open(db: Db, clock: Clock, ring: Ring, feed: Feed) -> Result<Self, Error> {
        let inner = Inner {
            db,
            clock,
            ring,
            feed,
            snapshot: RwLock::default(),
            counts: Mutex::default(),
            pace: Mutex::default(),
            changed: Notify::new(),
        };
        let fleet = Self { inner: Arc::new(inner) };
        fleet.reload().await?;
        // Weak, because the fleet holds the feed: a strong reference would keep both alive without
        // end.
        let listener = Arc::downgrade(&fleet.inner);
        fleet.inner.feed.subscribe(Change::Fleet, move |_| {
            if let Some(inner) = listener.upgrade() {
                inner.changed.notify_one();
            }
        });
        let listener = Arc::downgrade(&fleet.inner);
        fleet.inner.feed.subscribe_to_gaps(move || {
            if let Some(inner) = listener.upgrade() {
                inner.changed.notify_one();
            }
        });
        Ok(fleet)
    }

    pub(crate) fn host(&self, id: &HostId) -> Option<Arc<Host>> {
        self.snapshot().by_id.get(id).cloned()
    }

    pub(crate) fn by_did(&self, did: &str) -> Option<Arc<Host>> {
        self.snapshot().by_did.get(did).cloned()
    }

    /// Returns every added host by name, including draining and retired ones.
    pub(crate) fn all(&self) -> Arc<[Arc<Host>]> {
        Arc::clone(&self.snapshot().hosts)
    }

    /// Chooses a host for a new account, and counts the account there at once.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when no host takes new accounts now.
    pub(crate) fn place(&self, now: Timestamp) -> Result<Arc<Host>, NoRoom> {
        let explanations = self.explain(now);
        let host = placement::choose(&explanations, random::fraction()).ok_or(NoRoom)?;
        // At once, and not at the next count: otherwise a burst would fill a host beyond its
        // capacity.
        *self
            .inner
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(host.id.clone())
            .or_insert(0) += 1;
        if let Some(step) = step(host) {
            let mut pace = self.inner.pace.lock().unwrap_or_else(PoisonError::into_inner);
            // Each sign-up moves the due time by one step. It may run ahead of the present by
            // BURST, so that a few people at the same moment are not refused. Unused time is not
            // saved up.
            let due = pace.entry(host.id.clone()).or_insert(now);
            *due = (*due).max(now).plus(step);
        }
        Ok(Arc::clone(host))
    }

    /// Excludes a host from placement for a few seconds, because it left a sign-up unanswered.
    pub(crate) fn doubt(&self, host: &Host) {
        host.health.doubt(self.inner.clock.now());
    }

    /// Returns every host's part in the next draw.
    pub(crate) fn explain(&self, now: Timestamp) -> Vec<Explanation> {
        let counts = self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pace = self.inner.pace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let candidate = |host: &Arc<Host>| Candidate {
            accounts: counts.get(&host.id).copied().unwrap_or(0),
            within_rate: step(host).is_none() || pace.get(&host.id).is_none_or(|due| *due <= now.plus(BURST)),
            doubted: host.health.is_doubted(now),
            host: Arc::clone(host),
        };
        placement::explain(self.all().iter().map(candidate).collect())
    }

    /// Sets how many accounts each host holds, as the accounts' room has counted.
    pub(crate) fn set_counts(&self, counts: HashMap<HostId, u64>) {
        *self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Reads the fleet again after each change that the feed reports. Never returns.
    pub(crate) async fn follow(self, replica: Replica) {
        loop {
            self.inner.changed.notified().await;
            while let Err(cause) = self.take_up(&replica).await {
                tracing::warn!(cause = &cause as &dyn std::error::Error, "the fleet could not be read again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Reads the keys and hosts, and acknowledges the changes that are now in memory.
    pub(crate) async fn take_up(&self, replica: &Replica) -> Result<(), Error> {
        // In this order: a change that is committed in between is in memory without being
        // acknowledged. The other way round it could be acknowledged without being in memory.
        let changes = feed::noted_of_fleet(&self.inner.db).await?;
        self.reload().await?;
        Ok(replica.acknowledge(changes).await?)
    }

    /// Waits until every running server works with the change, and returns those that did not
    /// within `limit`.
    pub(crate) async fn wait_until_read(
        &self,
        change: &ChangeId,
        limit: Duration,
    ) -> Result<Vec<Unread>, Error> {
        Ok(replicas::wait_until_read(&self.inner.db, change, limit).await?)
    }

    /// Reads the keys and hosts from the database.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        // Keys first, so that a host never appears in the snapshot before its key.
        self.inner.ring.reload().await?;
        let rows = sql::all(&self.inner.db).await?;
        let probes = sql::probes(&self.inner.db).await?;
        let before = self.snapshot();
        // Health outlives the snapshot: the probes of this process know more than the recorded row.
        let mut hosts = Vec::new();
        // A prepared host has no DID and password yet, which `host_of` requires.
        for row in rows.into_iter().filter(|row| row.state != HostState::Prepared) {
            // First what this process knows, then the recorded row, then what a new host begins
            // with.
            let known = before.by_id.get(&row.id).map(|host| Arc::clone(&host.health));
            let seen = probes.iter().find(|last| last.host_id == row.id).map(health_of);
            let health = known.or(seen).unwrap_or_else(|| Arc::new(unknown_health(self.inner.clock.now())));
            hosts.push(Arc::new(self.host_of(row, health)?));
        }
        let named = hosts.iter().map(|host| (host.id.clone(), Arc::clone(host))).collect();
        let addressed = hosts.iter().map(|host| (host.did.clone(), Arc::clone(host))).collect();
        let snapshot = Arc::new(Snapshot { hosts: hosts.into(), by_id: named, by_did: addressed });
        *self.inner.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        Ok(())
    }

    fn host_of(&self, row: HostRow, health: Arc<Health>) -> Result<Host, Error> {
        let corrupt = |column| crate::db::Error::Corrupt { table: "hosts", column, row: row.id.to_string() };
        let did = row.did.clone().ok_or_else(|| corrupt("did"))?;
        let sealed = row.admin_password_sealed.as_deref().ok_or_else(|| corrupt("admin_password_sealed"))?;
        let opened = self.inner.ring.sealer().unseal(PASSWORD_SEALED_AS, row.id.as_str(), sealed);
        let opened =
            opened.map_err(|cause| Error::Sealed { id: row.id.clone(), cause: cause.to_string() })?;
        let password = String::from_utf8(opened.to_vec()).map_err(|_| corrupt("admin_password_sealed"))?;
        Ok(Host {
            id: row.id,
            did,
            origin: row.origin,
            state: row.state,
            weight: row.weight,
            capacity: row.capacity,
            region: row.region,
            sign_ups_per_hour: row.sign_ups_per_hour,
            admin_password: Secret::new(password),
            version: row.version,
            blob_limit: row.blob_limit,
            health,
        })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// No host takes new accounts now; [`Fleet::explain`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no host has room for a new account")]
pub(crate) struct NoRoom;

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().iter().map(|host| &host.id)).finish()
    }
}

fn health_of(probe: &ProbeRow) -> Arc<Health> {
    Arc::new(Health::new(probe.up, probe.since, probe.checked_at))
}

/// The health of a host that was added and not probed yet. The check before it was added counts as
/// a probe.
const fn unknown_health(now: Timestamp) -> Health {
    Health::new(true, now, now)
}

/// The time between two sign-ups at the host's rate.
fn step(host: &Host) -> Option<Duration> {
    host.sign_ups_per_hour.map(|per_hour| Duration::from_millis(3_600_000 / per_hour.max(1)))
}

/// `purpose` of the sealed admin passwords.
pub(super) const PASSWORD_SEALED_AS: &str = "hosts.admin_password";

/// The sealed columns of this room.
pub(crate) const SEALED_COLUMNS: &[SealedColumn] = &[SealedColumn {
    table: "hosts",
    key: "id",
    column: "admin_password_sealed",
    purpose: PASSWORD_SEALED_AS,
    row: "id",
}];
/// How far ahead of its rate a host may get sign-ups.
const BURST: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(1);
