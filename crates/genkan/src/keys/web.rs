//! Web keys: P-256 pairs for access tokens that only Genkan reads, and for Genkan as an OAuth
//! client.
//!
//! A key is published some time before it signs, so that a server that caches the published set
//! never meets an unknown `kid`. The newest key that may sign does so. Older ones stay published
//! until every signature that they made has expired.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::crypto::{P256PrivateKey, PublicKey};

use super::Error;
use super::purpose::WebPurpose;
use super::sql::{self, WebRow};
use crate::base::seal::Sealer;
use crate::base::{Clock, Timestamp, random};
use crate::db::{Db, Tx};

/// A web key pair.
#[derive(Clone)]
pub(crate) struct WebKey {
    /// The `kid`.
    pub(crate) id: String,
    pub(crate) purpose: WebPurpose,
    pub(crate) private: P256PrivateKey,
    pub(crate) public: PublicKey,
    /// The time from which it may sign. It is published before that.
    pub(crate) usable_from: Timestamp,
    pub(crate) created_at: Timestamp,
}

impl fmt::Debug for WebKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebKey({} for {})", self.id, self.purpose.as_str())
    }
}

/// All pairs that are not retired, the newest first.
#[derive(Clone, Debug, Default)]
pub(super) struct WebKeys(Vec<Arc<WebKey>>);

impl WebKeys {
    /// Reads all pairs, and creates the first one of each purpose.
    pub(super) async fn open(db: &Db, sealer: &Sealer, clock: &Clock) -> Result<Self, Error> {
        let keys = Self::read(db, sealer).await?;
        let missing = WebPurpose::ALL.into_iter().filter(|purpose| keys.of(*purpose).next().is_none());
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return Ok(keys);
        }
        let now = clock.now();
        let mut tx = db.begin().await?;
        for purpose in missing {
            // Of several replicas at their first start, one creates the key that all use.
            sql::insert_web(&mut tx, &fresh(sealer, purpose, now, now), 1).await?;
        }
        tx.commit().await?;
        Self::read(db, sealer).await
    }

    pub(super) async fn read(db: &Db, sealer: &Sealer) -> Result<Self, Error> {
        let rows = sql::web_keys(db).await?;
        let keys: Result<_, Error> =
            rows.into_iter().map(|row| Ok(Arc::new(open_row(sealer, row)?))).collect();
        Ok(Self(keys?))
    }

    pub(super) fn of(&self, purpose: WebPurpose) -> impl Iterator<Item = &Arc<WebKey>> {
        self.0.iter().filter(move |key| key.purpose == purpose)
    }

    /// Returns the newest pair that may sign. If no pair may sign yet, returns the newest that
    /// waits.
    pub(super) fn signing(&self, purpose: WebPurpose, now: Timestamp) -> Option<&Arc<WebKey>> {
        // The keys are sorted from new to old, so the first that may sign is the newest.
        self.of(purpose).find(|key| key.usable_from <= now).or_else(|| self.of(purpose).next())
    }
}

/// Adds a pair that signs once its publication has had time to spread.
pub(super) async fn add(
    tx: &mut Tx,
    sealer: &Sealer,
    purpose: WebPurpose,
    now: Timestamp,
) -> Result<WebKey, Error> {
    let row = fresh(sealer, purpose, now, now.plus(PUBLISHED_BEFORE));
    let serial = sql::last_web_serial(tx, purpose).await?.saturating_add(1);
    // The serial is unique. Of two processes that rotate at the same time, the later one fails here
    // instead of adding a second key.
    if !sql::insert_web(tx, &row, serial).await? {
        return Err(Error::Rotating);
    }
    open_row(sealer, row)
}

fn fresh(sealer: &Sealer, purpose: WebPurpose, now: Timestamp, usable_from: Timestamp) -> WebRow {
    let private = loop {
        // Nearly every 256-bit number is a valid key. The few others are drawn again.
        if let Ok(key) = P256PrivateKey::from_bytes(&random::bytes::<32>()) {
            break key;
        }
    };
    let id = random::id();
    WebRow {
        sealed: sealer.seal(SEALED_AS, &id, private.to_bytes().as_slice()),
        public: private.public().to_did_key(),
        id,
        purpose,
        usable_from,
        created_at: now,
    }
}

fn open_row(sealer: &Sealer, row: WebRow) -> Result<WebKey, Error> {
    let wrong = |cause: String| Error::Sealed { id: row.id.clone(), cause };
    let bytes = sealer.unseal(SEALED_AS, &row.id, &row.sealed).map_err(|cause| wrong(cause.to_string()))?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map(zeroize::Zeroizing::new);
    let private = bytes.ok().and_then(|bytes| P256PrivateKey::from_bytes(&bytes).ok());
    let private = private.ok_or_else(|| wrong("it is not a P-256 key".to_owned()))?;
    let public = private.public();
    // A row that was altered outside of Genkan would publish one key and sign with another.
    if public.to_did_key() != row.public {
        return Err(wrong("its public key belongs to another private key".to_owned()));
    }
    let (purpose, usable_from, created_at) = (row.purpose, row.usable_from, row.created_at);
    Ok(WebKey { id: row.id, purpose, private, public, usable_from, created_at })
}

pub(super) const SEALED_AS: &str = "web_keys.sealed";
/// Time for which a key is published before it signs. Servers may cache the published set for five
/// minutes.
pub(crate) const PUBLISHED_BEFORE: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ManualClock, Secret};
    use crate::db::on_each_database;
    use crate::keys::Ring;

    on_each_database!(
        the_first_keys_are_made_once,
        a_new_key_is_published_before_it_signs,
        a_retired_key_is_gone,
        a_sealed_key_moved_to_another_row_does_not_open
    );

    fn manual_clock() -> ManualClock {
        ManualClock::at(Timestamp::from_seconds(1_000_000))
    }

    async fn ring(db: &Db, clock: &Clock) -> Result<Ring, Error> {
        Ring::open(db, clock, Sealer::new(&Secret::new([1; 32])), None).await
    }

    async fn the_first_keys_are_made_once(db: Db) {
        let clock = db.clock();
        let (one, other) = tokio::join!(ring(&db, &clock), ring(&db, &clock));
        let (one, other) = (one.unwrap(), other.unwrap());
        for purpose in WebPurpose::ALL {
            assert_eq!(one.web_keys(purpose).len(), 1);
            assert_eq!(one.web_key(purpose).id, other.web_key(purpose).id, "{purpose:?}");
        }
        assert_ne!(one.web_key(WebPurpose::Tokens).id, one.web_key(WebPurpose::Client).id);
    }

    async fn a_new_key_is_published_before_it_signs(db: Db) {
        let clock = manual_clock();
        let ring = ring(&db, &clock.clock()).await.unwrap();
        let first = ring.web_key(WebPurpose::Client).id.clone();
        let second = ring.rotate_web_key(WebPurpose::Client).await.unwrap();
        let published: Vec<_> = ring.web_keys(WebPurpose::Client).iter().map(|key| key.id.clone()).collect();
        assert_eq!(published, [second.id.clone(), first.clone()]);
        assert_eq!(ring.web_key(WebPurpose::Client).id, first);
        clock.advance(PUBLISHED_BEFORE);
        assert_eq!(ring.web_key(WebPurpose::Client).id, second.id);
        assert_eq!(ring.web_keys(WebPurpose::Tokens).len(), 1, "the other purpose has its own");
    }

    async fn a_retired_key_is_gone(db: Db) {
        let clock = manual_clock();
        let ring = ring(&db, &clock.clock()).await.unwrap();
        let first = ring.web_key(WebPurpose::Client).id.clone();
        let second = ring.rotate_web_key(WebPurpose::Client).await.unwrap();
        clock.advance(PUBLISHED_BEFORE);
        assert!(ring.retire_web_key(&first).await.unwrap());
        assert!(!ring.retire_web_key(&first).await.unwrap());
        assert_eq!(ring.web_keys(WebPurpose::Client).len(), 1);
        assert!(ring.web_key_by_id(&first).is_none() && ring.web_key_by_id(&second.id).is_some());
    }

    async fn a_sealed_key_moved_to_another_row_does_not_open(db: Db) {
        let ring = ring(&db, &Clock::of_process()).await.unwrap();
        drop(ring);
        let mut tx = db.begin().await.unwrap();
        sqlx::query(
            "UPDATE web_keys SET sealed = (SELECT sealed FROM web_keys WHERE purpose = 'client') WHERE purpose = 'tokens'",
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(self::ring(&db, &Clock::of_process()).await, Err(Error::Sealed { .. })));
    }
}
