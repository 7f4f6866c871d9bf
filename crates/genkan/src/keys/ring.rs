//! The keys in memory, and how they are created, rotated and retired.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Error;
use super::purpose::{Purpose, WebPurpose};
use super::sql::{self, KeyRow};
use super::web::{self, WebKey, WebKeys};
use crate::base::seal::Sealer;
use crate::base::{Clock, Secret, random};
use crate::db::{Db, Tx};

/// A key pair that signs the tokens of one host.
pub(crate) struct HostKey {
    /// The `kid` in refresh tokens. Hosts ignore it.
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) private: K256PrivateKey,
    pub(crate) public: PublicKey,
    pub(crate) current: bool,
}

/// All keys in use. Cheap to clone. [`Ring::reload`] reads keys that other processes added.
#[derive(Clone)]
pub(crate) struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    clock: Clock,
    sealer: Sealer,
    rotation: K256PrivateKey,
    internal: Secret<[u8; 32]>,
    hosts: RwLock<Arc<HostKeys>>,
    web: RwLock<Arc<WebKeys>>,
}

#[derive(Default)]
struct HostKeys {
    by_id: HashMap<String, Arc<HostKey>>,
    by_host: HashMap<String, Vec<Arc<HostKey>>>,
}

impl Ring {
    /// Unseals every key, and creates a missing rotation key or internal key.
    ///
    /// `rotation` is the PLC rotation key from the settings, which takes the place of a generated
    /// one.
    pub(crate) async fn open(
        db: &Db,
        clock: &Clock,
        sealer: Sealer,
        rotation: Option<&Secret<[u8; 32]>>,
    ) -> Result<Self, Error> {
        let given = rotation
            .map(|bytes| K256PrivateKey::from_bytes(bytes.expose()).map_err(|_| Error::NotAKey))
            .transpose()?;
        let mut rows = sql::all(db).await?;
        let has = |rows: &[KeyRow], purpose| rows.iter().any(|row| row.purpose == purpose);
        if !has(&rows, Purpose::PlcRotation) || !has(&rows, Purpose::Internal) {
            let rotation = match &given {
                Some(key) => key.clone(),
                None => fresh_key(),
            };
            let mut tx = db.begin().await?;
            let now = clock.now();
            // Both are tried even if one exists. The insert changes nothing then.
            sql::insert(&mut tx, &seal_pair(&sealer, Purpose::PlcRotation, "", &rotation), now).await?;
            sql::insert(&mut tx, &seal_row(&sealer, Purpose::Internal, "", "", &random::bytes::<32>()), now)
                .await?;
            tx.commit().await?;
            // Two processes at their first start both come here. The unique index keeps one key of
            // each kind, and both read that one.
            rows = sql::all(db).await?;
        }

        let mut known_rotation = None;
        let mut internal = None;
        for row in rows.iter().filter(|row| row.current) {
            match row.purpose {
                Purpose::PlcRotation => known_rotation = Some(open_private(&sealer, row)?),
                Purpose::Internal => {
                    internal = <[u8; 32]>::try_from(open_bytes(&sealer, row)?.as_slice()).ok();
                }
                Purpose::HostSigning => {}
            }
        }
        let known_rotation = known_rotation.ok_or_else(|| missing("plc_rotation"))?;
        // A key in the settings that differs from the stored one is refused: existing DIDs list the
        // stored key, and operations signed with another one would be rejected.
        if let Some(given) = given
            && given.public().to_did_key() != known_rotation.public().to_did_key()
        {
            return Err(Error::OtherRotationKey { known: known_rotation.public().to_did_key() });
        }
        let inner = Inner {
            db: db.clone(),
            clock: clock.clone(),
            rotation: known_rotation,
            internal: Secret::new(internal.ok_or_else(|| missing("internal"))?),
            hosts: RwLock::new(Arc::new(host_keys(&sealer, &rows)?)),
            web: RwLock::new(Arc::new(WebKeys::open(db, &sealer, clock).await?)),
            sealer,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads the host keys and the web keys from the database again.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let rows = sql::all(&self.inner.db).await?;
        let hosts = Arc::new(host_keys(&self.inner.sealer, &rows)?);
        *self.inner.hosts.write().unwrap_or_else(std::sync::PoisonError::into_inner) = hosts;
        self.reload_web().await
    }

    async fn reload_web(&self) -> Result<(), Error> {
        let web = Arc::new(WebKeys::read(&self.inner.db, &self.inner.sealer).await?);
        *self.inner.web.write().unwrap_or_else(std::sync::PoisonError::into_inner) = web;
        Ok(())
    }

    /// Creates the key pair of a new host, or stores the given one. Call [`Ring::reload`] after the
    /// commit.
    pub(crate) async fn add_host_key(
        &self,
        tx: &mut Tx,
        host: &str,
        given: Option<K256PrivateKey>,
    ) -> Result<HostKey, Error> {
        let private = given.unwrap_or_else(fresh_key);
        let row = seal_pair(&self.inner.sealer, Purpose::HostSigning, host, &private);
        if !sql::insert(tx, &row, self.inner.clock.now()).await? {
            return Err(Error::HasKey(host.to_owned()));
        }
        Ok(HostKey { id: row.id, host: host.to_owned(), public: private.public(), private, current: true })
    }

    /// Retires the keys of a removed host. Their tokens are invalid then. Call [`Ring::reload`]
    /// after the commit.
    pub(crate) async fn retire_host_keys(&self, tx: &mut Tx, host: &str) -> Result<(), Error> {
        Ok(sql::retire_of(tx, Purpose::HostSigning, host).await?)
    }

    /// The key that signs the tokens of a host.
    pub(crate) fn host_key(&self, host: &str) -> Option<Arc<HostKey>> {
        self.hosts().by_host.get(host)?.iter().find(|key| key.current).cloned()
    }

    /// Every key whose tokens for a host are valid, the current one first.
    pub(crate) fn host_keys(&self, host: &str) -> Vec<Arc<HostKey>> {
        self.hosts().by_host.get(host).cloned().unwrap_or_default()
    }

    /// The current key of every host, sorted by the name of the host.
    pub(crate) fn current_host_keys(&self) -> Vec<Arc<HostKey>> {
        let hosts = self.hosts();
        let mut keys: Vec<_> = hosts.by_id.values().filter(|key| key.current).cloned().collect();
        keys.sort_by(|one, other| one.host.cmp(&other.host));
        keys
    }

    /// Returns a host key by its id, which is the `kid` of refresh tokens.
    pub(crate) fn host_key_by_id(&self, id: &str) -> Option<Arc<HostKey>> {
        self.hosts().by_id.get(id).cloned()
    }

    /// The web key that signs.
    pub(crate) fn web_key(&self, purpose: WebPurpose) -> Arc<WebKey> {
        let now = self.inner.clock.now();
        Arc::clone(
            self.web()
                .signing(purpose, now)
                .expect("there is one of each purpose from the start, and the last one stays"),
        )
    }

    /// Every web key to publish and to accept signatures of, the newest first.
    pub(crate) fn web_keys(&self, purpose: WebPurpose) -> Vec<Arc<WebKey>> {
        self.web().of(purpose).cloned().collect()
    }

    /// Returns a web key by its `kid`, unless it is retired.
    pub(crate) fn web_key_by_id(&self, id: &str) -> Option<Arc<WebKey>> {
        WebPurpose::ALL
            .into_iter()
            .find_map(|purpose| self.web().of(purpose).find(|key| key.id == id).cloned())
    }

    /// Creates the next web key.
    ///
    /// It is published at once and signs after [`web::PUBLISHED_BEFORE`]. Other replicas see it at
    /// their next [`Ring::reload`].
    pub(crate) async fn rotate_web_key(&self, purpose: WebPurpose) -> Result<WebKey, Error> {
        let mut tx = self.inner.db.begin().await?;
        let key = web::add(&mut tx, &self.inner.sealer, purpose, self.inner.clock.now()).await?;
        tx.commit().await?;
        self.reload_web().await?;
        Ok(key)
    }

    /// Retires the web keys that were replaced longer ago than `lifetime`: all their tokens have
    /// expired. Returns their number.
    pub(crate) async fn retire_outdated(
        &self,
        purpose: WebPurpose,
        lifetime: Duration,
    ) -> Result<u64, Error> {
        let (now, current) = (self.inner.clock.now(), self.web_key(purpose));
        // The slack covers differing clocks, and replicas that read a new key late.
        if now < current.usable_from.plus(lifetime + SLACK) {
            return Ok(0);
        }
        let mut retired = 0;
        for key in self.web_keys(purpose) {
            // A newer key that does not sign yet must stay: it is the next one.
            if key.usable_from < current.usable_from && self.retire_web_key(&key.id).await? {
                retired += 1;
            }
        }
        Ok(retired)
    }

    /// Retires a web key. `false` if it is the one that signs, which stays, or was retired before.
    pub(crate) async fn retire_web_key(&self, id: &str) -> Result<bool, Error> {
        // Without the key that signs now, no new token or session could be made.
        if WebPurpose::ALL.into_iter().any(|purpose| self.web_key(purpose).id == id) {
            return Ok(false);
        }
        let mut tx = self.inner.db.begin().await?;
        let retired = sql::retire_web(&mut tx, id, self.inner.clock.now()).await?;
        tx.commit().await?;
        self.reload_web().await?;
        Ok(retired)
    }

    /// The key that signs PLC operations.
    pub(crate) fn rotation(&self) -> &K256PrivateKey {
        &self.inner.rotation
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    /// Returns a symmetric key for one purpose, derived from the internal key.
    ///
    /// The internal key has a fixed length, so no two purposes give the same input to the hash.
    pub(crate) fn derived(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        // The purpose is the last part and the key before it has a fixed length, so no two purposes
        // share an input.
        let digest = Sha256::new()
            .chain_update(b"genkan derived key\0")
            .chain_update(self.inner.internal.expose())
            .chain_update(purpose.as_bytes())
            .finalize();
        Zeroizing::new(digest.into())
    }

    fn web(&self) -> Arc<WebKeys> {
        Arc::clone(&self.inner.web.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn hosts(&self) -> Arc<HostKeys> {
        Arc::clone(&self.inner.hosts.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring [sealed]")
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({} of {})", self.id, self.host)
    }
}

fn host_keys(sealer: &Sealer, rows: &[KeyRow]) -> Result<HostKeys, Error> {
    let mut keys = HostKeys::default();
    for row in rows.iter().filter(|row| row.purpose == Purpose::HostSigning) {
        let private = open_private(sealer, row)?;
        let key = Arc::new(HostKey {
            id: row.id.clone(),
            host: row.subject.clone(),
            public: private.public(),
            private,
            current: row.current,
        });
        keys.by_id.insert(row.id.clone(), Arc::clone(&key));
        keys.by_host.entry(row.subject.clone()).or_default().push(key);
    }
    for of_host in keys.by_host.values_mut() {
        // `false` sorts before `true`, so the current key comes first.
        of_host.sort_by_key(|key| !key.current);
    }
    Ok(keys)
}

fn fresh_key() -> K256PrivateKey {
    loop {
        // Nearly every 256-bit number is a valid key. The few others are drawn again.
        if let Ok(key) = K256PrivateKey::from_bytes(&random::bytes::<32>()) {
            return key;
        }
    }
}

fn seal_pair(sealer: &Sealer, purpose: Purpose, subject: &str, key: &K256PrivateKey) -> KeyRow {
    seal_row(sealer, purpose, subject, &key.public().to_did_key(), key.to_bytes().as_slice())
}

fn seal_row(sealer: &Sealer, purpose: Purpose, subject: &str, public: &str, plain: &[u8]) -> KeyRow {
    let id = random::id();
    // Sealed for its row: a copy in another row does not unseal.
    let closed = sealer.seal(SEALED_AS, &id, plain);
    KeyRow {
        id,
        purpose,
        subject: subject.to_owned(),
        public: public.to_owned(),
        sealed: closed,
        current: true,
    }
}

fn open_bytes(sealer: &Sealer, row: &KeyRow) -> Result<Zeroizing<Vec<u8>>, Error> {
    sealer
        .unseal(SEALED_AS, &row.id, &row.sealed)
        .map_err(|cause| Error::Sealed { id: row.id.clone(), cause: cause.to_string() })
}

fn open_private(sealer: &Sealer, row: &KeyRow) -> Result<K256PrivateKey, Error> {
    let bytes = Zeroizing::new(
        <[u8; 32]>::try_from(open_bytes(sealer, row)?.as_slice()).map_err(|_| Error::NotAKey)?,
    );
    let key = K256PrivateKey::from_bytes(&bytes).map_err(|_| Error::NotAKey)?;
    if key.public().to_did_key() != row.public {
        // A row that was altered outside of Genkan: its pair would sign what no one can verify.
        return Err(Error::Sealed {
            id: row.id.clone(),
            cause: "its public key belongs to another private key".to_owned(),
        });
    }
    Ok(key)
}

fn missing(what: &str) -> Error {
    Error::Sealed { id: what.to_owned(), cause: "the database does not contain it".to_owned() }
}

pub(super) const SEALED_AS: &str = "keys.sealed";
/// Tolerance for differences between clocks and for late reads of keys.
const SLACK: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;

    on_each_database!(
        keys_made_at_the_first_start_are_found_at_the_second,
        a_given_rotation_key_must_stay_the_same,
        another_sealing_key_opens_nothing,
        a_host_has_one_current_key
    );

    async fn open(db: &Db, sealing: u8, rotation: Option<u8>) -> Result<Ring, Error> {
        let sealer = Sealer::new(&Secret::new([sealing; 32]));
        let rotation = rotation.map(|byte| Secret::new([byte; 32]));
        Ring::open(db, &Clock::of_process(), sealer, rotation.as_ref()).await
    }

    async fn keys_made_at_the_first_start_are_found_at_the_second(db: Db) {
        let first = open(&db, 1, None).await.unwrap();
        let second = open(&db, 1, None).await.unwrap();
        assert_eq!(first.rotation().public().to_did_key(), second.rotation().public().to_did_key());
        assert_eq!(first.derived("front"), second.derived("front"));
        assert_ne!(first.derived("front"), second.derived("cookies"));
    }

    async fn a_given_rotation_key_must_stay_the_same(db: Db) {
        let ring = open(&db, 1, Some(0x11)).await.unwrap();
        assert_eq!(
            ring.rotation().public().to_did_key(),
            K256PrivateKey::from_bytes(&[0x11; 32]).unwrap().public().to_did_key()
        );
        assert!(matches!(open(&db, 1, Some(0x22)).await, Err(Error::OtherRotationKey { .. })));
        open(&db, 1, None).await.unwrap();
    }

    async fn another_sealing_key_opens_nothing(db: Db) {
        open(&db, 1, None).await.unwrap();
        assert!(matches!(open(&db, 2, None).await, Err(Error::Sealed { .. })));
    }

    async fn a_host_has_one_current_key(db: Db) {
        let ring = open(&db, 1, None).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        let made = ring.add_host_key(&mut tx, "oak", None).await.unwrap();
        assert!(matches!(ring.add_host_key(&mut tx, "oak", None).await, Err(Error::HasKey(_))));
        tx.commit().await.unwrap();
        ring.reload().await.unwrap();
        assert_eq!(ring.host_key("oak").unwrap().id, made.id);
        assert_eq!(ring.host_key_by_id(&made.id).unwrap().public.to_did_key(), made.public.to_did_key());
        assert!(ring.host_key("elm").is_none());
    }
}
