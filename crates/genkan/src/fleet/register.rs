//! The operator's changes to the fleet: prepare, add, change, remove. Each is one transaction with
//! its note in the feed.

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::syntax::Did;

use super::host::HostState;
use super::registry::PASSWORD_SEALED_AS;
use super::sql::{self, HostRow, ProbeRow};
use super::{Error, Fleet, HostId};
use crate::base::{Origin, Secret};
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change, ChangeId};
use crate::db::{self, Tx};

/// A host that passed its check, with the operator's settings for it.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) did: Did,
    pub(crate) admin_password: Secret<String>,
    pub(crate) version: Option<String>,
    pub(crate) blob_limit: Option<u64>,
    pub(crate) changes: HostChanges,
}

/// Changes of a host. `None` leaves a setting as it is.
#[expect(clippy::option_option, reason = "outer: whether to change it; inner: the limit, or none")]
#[derive(Clone, Debug, Default)]
pub(crate) struct HostChanges {
    pub(crate) state: Option<HostState>,
    pub(crate) weight: Option<u32>,
    /// `Some(None)` removes the limit.
    pub(crate) capacity: Option<Option<u64>>,
    pub(crate) region: Option<String>,
    pub(crate) sign_ups_per_hour: Option<Option<u64>>,
    pub(crate) admin_password: Option<Secret<String>>,
}

/// A host with a name and a key that was not added yet.
#[derive(Clone, Debug)]
pub(crate) struct PreparedHost {
    pub(crate) id: HostId,
    pub(crate) origin: Origin,
}

impl Fleet {
    /// Records a host with its signing key pair, created or given, before it runs.
    pub(crate) async fn prepare(
        &self,
        id: &HostId,
        origin: &Origin,
        signing_key: Option<K256PrivateKey>,
    ) -> Result<(), Error> {
        check_name(id)?;
        let inner = self.inner();
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        // Key and host are one transaction, so no host is left without a key, and no key without a
        // host.
        let key = inner.ring.add_host_key(&mut tx, id.as_str(), signing_key).await;
        let key = key.map_err(|error| match error {
            crate::keys::Error::HasKey(_) => Error::NameTaken,
            other => Error::Keys(other),
        })?;
        let row = HostRow {
            id: id.clone(),
            origin: origin.clone(),
            did: None,
            state: HostState::Prepared,
            weight: 1,
            capacity: None,
            region: String::new(),
            sign_ups_per_hour: None,
            admin_password_sealed: None,
            signing_key: key.id,
            version: None,
            blob_limit: None,
        };
        sql::insert(&mut tx, &row, now).await.map_err(taken)?;
        self.commit(tx, id, "host.prepare").await?;
        Ok(())
    }

    /// The hosts that were prepared and not added yet.
    pub(crate) async fn prepared(&self) -> Result<Vec<PreparedHost>, Error> {
        let rows = sql::all(&self.inner().db).await?;
        let waiting = rows.into_iter().filter(|row| row.state == HostState::Prepared);
        Ok(waiting.map(|row| PreparedHost { id: row.id, origin: row.origin }).collect())
    }

    /// Adds a prepared host to the fleet. Servers place accounts on it once they have read the
    /// change.
    pub(crate) async fn admit(&self, id: &HostId, admission: Admission) -> Result<ChangeId, Error> {
        let inner = self.inner();
        let mut row = self.row(id).await?;
        // A second `host add` must not overwrite the settings of a host with accounts.
        if row.state != HostState::Prepared {
            return Err(Error::NameTaken);
        }
        row.did = Some(admission.did);
        row.state = HostState::Enabled;
        row.version = admission.version;
        row.blob_limit = admission.blob_limit;
        let password = Some(admission.admin_password);
        self.apply(&mut row, HostChanges { admin_password: password, ..admission.changes });
        let now = inner.clock.now();
        let mut tx = inner.db.begin().await?;
        sql::update(&mut tx, &row, now).await.map_err(taken)?;
        let change = self.commit(tx, id, "host.add").await?;
        // The check before the admission counts as the first probe, so that every process begins
        // with a healthy host.
        let probe = ProbeRow {
            host_id: id.clone(),
            up: true,
            since: now,
            checked_at: now,
            latency_ms: None,
            reason: None,
        };
        sql::record_probe(&inner.db, &probe).await?;
        Ok(change)
    }

    pub(crate) async fn change(&self, id: &HostId, changes: HostChanges) -> Result<ChangeId, Error> {
        let inner = self.inner();
        let mut row = self.row(id).await?;
        if row.state == HostState::Prepared {
            return Err(Error::OnlyPrepared);
        }
        let action = match changes.state {
            Some(HostState::Draining) => "host.drain",
            Some(HostState::Retired) => "host.retire",
            Some(HostState::Enabled) => "host.enable",
            Some(HostState::Prepared) | None => "host.set",
        };
        self.apply(&mut row, changes);
        let mut tx = inner.db.begin().await?;
        if !sql::update(&mut tx, &row, inner.clock.now()).await.map_err(taken)? {
            return Err(Error::NotFound);
        }
        self.commit(tx, id, action).await
    }

    /// Records the version and blob limit (bytes) that a host reports. Writes nothing if both are
    /// known.
    pub(crate) async fn learn(
        &self,
        id: &HostId,
        version: Option<String>,
        blob_limit: Option<u64>,
    ) -> Result<(), Error> {
        let inner = self.inner();
        let mut row = self.row(id).await?;
        // Each change makes all processes read the fleet again, so equal values are not written.
        if (&row.version, &row.blob_limit) == (&version, &blob_limit) {
            return Ok(());
        }
        (row.version, row.blob_limit) = (version, blob_limit);
        let mut tx = inner.db.begin().await?;
        sql::update(&mut tx, &row, inner.clock.now()).await.map_err(taken)?;
        self.commit(tx, id, "host.learn").await?;
        Ok(())
    }

    /// Removes a host without accounts, and retires its keys.
    ///
    /// `accounts` is how many it holds, as the accounts' room has just counted.
    pub(crate) async fn remove(&self, id: &HostId, accounts: u64) -> Result<ChangeId, Error> {
        if accounts > 0 {
            return Err(Error::HasAccounts(accounts));
        }
        let inner = self.inner();
        let mut tx = inner.db.begin().await?;
        if !sql::remove(&mut tx, id).await? {
            return Err(Error::NotFound);
        }
        // In the same transaction: a removed host must not keep a key that signs.
        inner.ring.retire_host_keys(&mut tx, id.as_str()).await?;
        self.commit(tx, id, "host.remove").await
    }

    fn apply(&self, row: &mut HostRow, changes: HostChanges) {
        row.state = changes.state.unwrap_or(row.state);
        row.weight = changes.weight.unwrap_or(row.weight);
        row.capacity = changes.capacity.unwrap_or(row.capacity);
        row.sign_ups_per_hour = changes.sign_ups_per_hour.unwrap_or(row.sign_ups_per_hour);
        if let Some(region) = changes.region {
            row.region = region;
        }
        // The password is sealed for its row: a copy in another row does not unseal.
        if let Some(password) = changes.admin_password {
            let sealer = self.inner().ring.sealer();
            row.admin_password_sealed =
                Some(sealer.seal(PASSWORD_SEALED_AS, row.id.as_str(), password.expose().as_bytes()));
        }
    }

    async fn row(&self, id: &HostId) -> Result<HostRow, Error> {
        sql::one(&self.inner().db, id).await?.ok_or(Error::NotFound)
    }

    /// Commits with a note for the other processes and a line in the audit.
    async fn commit(&self, mut tx: Tx, id: &HostId, action: &'static str) -> Result<ChangeId, Error> {
        let inner = self.inner();
        let now = inner.clock.now();
        audit::record(&mut tx, now, Actor::Operator, action, id.as_str(), "").await?;
        // In the transaction of the change, so that no process learns of a change that is rolled
        // back.
        let change = feed::note(&mut tx, Change::Fleet, id.as_str()).await?;
        tx.commit().await?;
        self.reload().await?;
        Ok(change)
    }
}

/// A name fits into a command line, a log line and a metric label: 1 to 32 of a–z, 0–9 and hyphens.
fn check_name(id: &HostId) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = id.as_str();
    // The name stands in settings, metrics and URLs, so it has only characters that need no quotes
    // there.
    let good = (1..=32).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-');
    if good { Ok(()) } else { Err(Error::BadName) }
}

fn taken(cause: db::Error) -> Error {
    // Name, URL and DID have unique indexes. Each says that the host is known already.
    if matches!(cause, db::Error::Conflict(_)) { Error::NameTaken } else { Error::Storage(cause) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::base::seal::Sealer;
    use crate::base::{Clock, Timestamp};
    use crate::db::feed::Feed;
    use crate::db::{Db, on_each_database};
    use crate::fleet::placement::Exclusion;
    use crate::keys::Ring;

    on_each_database!(
        a_host_goes_from_prepared_to_removed,
        another_process_sees_the_change,
        names_and_keys_are_given_once,
        placement_respects_capacity_and_rate
    );

    async fn open(db: &Db) -> Fleet {
        let sealer = Sealer::new(&Secret::new([5; 32]));
        let ring = Ring::open(db, &Clock::of_process(), sealer, None).await.unwrap();
        let feed = Feed::new(db.clone());
        Fleet::open(db.clone(), Clock::of_process(), ring, feed).await.unwrap()
    }

    fn origin(id: &str) -> Origin {
        format!("https://{id}.example.com").parse().unwrap()
    }

    async fn add(fleet: &Fleet, id: &str, changes: HostChanges) {
        fleet.prepare(&id.into(), &origin(id), None).await.unwrap();
        let admission = Admission {
            did: format!("did:web:{id}.example.com").parse().unwrap(),
            admin_password: Secret::new(format!("word of {id}")),
            version: None,
            blob_limit: None,
            changes,
        };
        fleet.admit(&id.into(), admission).await.unwrap();
    }

    async fn a_host_goes_from_prepared_to_removed(db: Db) {
        let fleet = open(&db).await;
        let oak = HostId::from("oak");
        fleet.prepare(&oak, &origin("oak"), None).await.unwrap();
        assert!(fleet.host(&oak).is_none() && fleet.prepared().await.unwrap()[0].id == oak);
        let key = fleet.inner().ring.host_key("oak").unwrap();
        fleet.change(&oak, HostChanges::default()).await.unwrap_err();
        let admission = Admission {
            did: "did:web:oak.example.com".parse().unwrap(),
            admin_password: Secret::new("word".to_owned()),
            version: Some("1".to_owned()),
            blob_limit: Some(5),
            changes: HostChanges { weight: Some(7), ..HostChanges::default() },
        };
        fleet.admit(&oak, admission.clone()).await.unwrap();
        assert!(matches!(fleet.admit(&oak, admission).await, Err(Error::NameTaken)));
        let host = fleet.host(&oak).unwrap();
        assert_eq!(
            (host.weight, host.state, host.admin_password.expose().as_str()),
            (7, HostState::Enabled, "word")
        );
        assert_eq!(fleet.by_did("did:web:oak.example.com").unwrap().id, oak);
        fleet
            .change(&oak, HostChanges { state: Some(HostState::Draining), ..HostChanges::default() })
            .await
            .unwrap();
        assert_eq!(fleet.host(&oak).unwrap().state, HostState::Draining);
        assert_eq!(fleet.host(&oak).unwrap().admin_password.expose(), "word");
        assert!(matches!(fleet.remove(&oak, 2).await, Err(Error::HasAccounts(2))));
        fleet.remove(&oak, 0).await.unwrap();
        assert!(fleet.host(&oak).is_none());
        fleet.prepare(&oak, &origin("oak"), None).await.unwrap();
        assert_ne!(fleet.inner().ring.host_key("oak").unwrap().id, key.id);
    }

    async fn another_process_sees_the_change(db: Db) {
        let (first, second) = (open(&db).await, open(&db).await);
        add(&first, "oak", HostChanges::default()).await;
        assert!(second.host(&"oak".into()).is_none());
        second.reload().await.unwrap();
        let host = second.host(&"oak".into()).unwrap();
        assert_eq!(host.admin_password.expose(), "word of oak");
        assert!(host.health.is_up());
    }

    async fn names_and_keys_are_given_once(db: Db) {
        let fleet = open(&db).await;
        add(&fleet, "oak", HostChanges::default()).await;
        assert!(fleet.prepare(&"oak".into(), &origin("elm"), None).await.is_err());
        assert!(matches!(fleet.prepare(&"elm".into(), &origin("oak"), None).await, Err(Error::NameTaken)));
        for name in ["", "Oak", "-oak", "o ak", "oak.example", &"x".repeat(33)] {
            assert!(
                matches!(fleet.prepare(&name.into(), &origin("elm"), None).await, Err(Error::BadName)),
                "{name}"
            );
        }
        let given = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
        fleet.prepare(&"elm".into(), &origin("elm"), Some(given.clone())).await.unwrap();
        let kept = fleet.inner().ring.host_key("elm").unwrap();
        assert_eq!(kept.public.to_did_key(), given.public().to_did_key());
    }

    async fn placement_respects_capacity_and_rate(db: Db) {
        let fleet = open(&db).await;
        let now = Timestamp::from_millis(1_000_000);
        assert!(fleet.place(now).is_err());
        add(&fleet, "oak", HostChanges { capacity: Some(Some(2)), ..HostChanges::default() }).await;
        fleet.set_counts(HashMap::from([("oak".into(), 1)]));
        assert_eq!(fleet.place(now).unwrap().id, "oak".into());
        assert!(fleet.place(now).is_err(), "counted at once, not at the next count");
        assert_eq!(fleet.explain(now)[0].exclusions, [Exclusion::Full]);
        let rate =
            HostChanges { capacity: Some(None), sign_ups_per_hour: Some(Some(60)), ..HostChanges::default() };
        fleet.change(&"oak".into(), rate).await.unwrap();
        assert!(fleet.place(now).is_ok() && fleet.place(now).is_ok());
        assert!(fleet.place(now).is_err());
        assert_eq!(fleet.explain(now)[0].exclusions, [Exclusion::OverRate]);
        assert!(fleet.place(now.plus(std::time::Duration::from_secs(61))).is_ok());
    }
}
