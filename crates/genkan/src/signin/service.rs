//! The service of this room: recognising browsers, signing in and out.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::syntax::Did;
use zeroize::Zeroizing;

use super::attempts::KNOWN_FOR;
use super::cookies::KEEP_UNUSED;
use super::sql::{self, DeviceTimes};
use super::{BrowserInfo, Cookies, Device, DeviceId, Error, Persistence, SignIn, Visit};
use crate::accounts::{self, Account, Accounts, Demand, Passwords, Requester, Standing};
use crate::base::{Clock, Secret, Timestamp};
use crate::db::audit::{self, Actor};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{self, Db, Tx};
use crate::limits::StorageBudget;

/// The browsers and their sign-ins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SignIns {
    db: Db,
    clock: Clock,
    accounts: Accounts,
    passwords: Passwords,
    /// For browsers that come without cookies.
    new_browsers: Arc<StorageBudget>,
    /// Proves the cookies of browsers that have no row.
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for SignIns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignIns")
    }
}

impl SignIns {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        accounts: Accounts,
        passwords: Passwords,
        key: Zeroizing<[u8; 32]>,
    ) -> Self {
        let new_browsers = Arc::new(StorageBudget::new(NEW_BROWSERS, NEW_BROWSERS_OF_A_NETWORK));
        Self { db, clock, accounts, passwords, new_browsers, key }
    }

    /// Recognises a browser by its cookies, or gives it new ones.
    pub(crate) async fn visit(&self, cookies: Option<&Cookies>, seen: &BrowserInfo) -> Result<Visit, Error> {
        if let Some(visit) = self.peek(cookies, seen).await? {
            return Ok(visit);
        }
        let now = self.clock.now();
        // A program without cookies is a new browser on each page. When such programs have spent the
        // budget, a browser gets its row only when it signs in.
        let (cookies, without_row) = if self.new_browsers.spend(seen.address, sql::size_of(seen), now) {
            (Cookies::fresh(), None)
        } else {
            (Cookies::fresh_without_row(&self.key, now), Some(seen.clone()))
        };
        let device = DeviceId::from(cookies.device_hash());
        if without_row.is_none() {
            let session = cookies.session_hash();
            db::repeated(|| async {
                let mut tx = self.db.begin().await?;
                sql::insert(&mut tx, &device, &session, seen, now).await?;
                tx.commit().await
            })
            .await?;
        }
        let client = seen.client.clone();
        Ok(Visit { device, cookies, changed: true, carries: NONE, is_older: false, without_row, client })
    }

    /// Recognises a browser, for pages that have nothing for a new one. Returns `None` if it is
    /// unknown.
    pub(crate) async fn peek(
        &self,
        cookies: Option<&Cookies>,
        seen: &BrowserInfo,
    ) -> Result<Option<Visit>, Error> {
        let Some(cookies) = cookies else { return Ok(None) };
        let device = DeviceId::from(cookies.device_hash());
        // The row may change between its reading and a decision, by another request of this
        // browser. Then it is read again.
        for _ in 0..MOST_READINGS {
            let row = sql::find(&self.db, &device).await?;
            let mut visit = Visit {
                device: device.clone(),
                cookies: cookies.clone(),
                changed: false,
                carries: NONE,
                is_older: false,
                without_row: None,
                client: seen.client.clone(),
            };
            let Some(row) = row else {
                visit.without_row = Some(seen.clone());
                return Ok(cookies.need_no_row(&self.key, self.clock.now()).then_some(visit));
            };
            if row.is_forgotten() {
                return Ok(None);
            }
            let recognised = if row.session == cookies.session_hash() {
                Some(self.with_present_cookie(visit, &row, seen).await?)
            } else {
                self.with_older_cookie(visit, &row).await?
            };
            if recognised.is_some() {
                return Ok(recognised);
            }
        }
        Ok(None)
    }

    /// Decides on a cookie that was rotated. Returns `None` if the row changed, or is gone.
    async fn with_older_cookie(&self, mut visit: Visit, row: &sql::Row) -> Result<Option<Visit>, Error> {
        let (now, shown) = (self.clock.now(), visit.cookies.session_hash());
        let age = now.since(row.rotated_at);
        let is_last = row.has_replaced(&shown);
        // While nobody has shown a later cookie, the answer with the present one did not arrive: this
        // browser has no other. Of two programs that share the cookies, one has shown a later one.
        let is_only_one = row.was_shown_last(&shown);
        let may_come_late = is_last && (is_only_one || (age <= LOST_ANSWER && row.may_come_late(&shown)));
        // The last rotation replaced this cookie, or an older one of the same sign-ins.
        visit.carries = row.rotations - 1;
        visit.is_older = true;
        // Browsers send requests in parallel. Some still carry the cookie from before a rotation
        // that another request caused.
        if (is_last && age <= TOLERANCE) || (may_come_late && visit.client.has_left()) {
            return Ok(Some(visit));
        }
        // The answer with the present cookie may have been lost, so the browser gets another. If the
        // lost answer was only slow, its cookie has replaced that one, and gets another as well.
        if may_come_late {
            let next = visit.cookies.with_new_session();
            let (id, next_hash) = (&visit.device, next.session_hash());
            let rotation = db::repeated(|| async {
                let mut tx = self.db.begin().await?;
                let hashes = (row.session.as_str(), shown.as_str(), &*next_hash);
                let rotation = sql::rotate_after_loss(&mut tx, id, hashes, visit.carries, now).await?;
                if rotation.is_some() {
                    audit::record(&mut tx, now, Actor::Genkan, "signin.lost_cookie", id.as_str(), "").await?;
                    tx.commit().await?;
                }
                Ok::<_, Error>(rotation)
            });
            let Some(rotation) = rotation.await? else { return Ok(None) };
            visit.replace_cookies(next, rotation);
            return Ok(Some(visit));
        }
        // An older cookie means that two programs share one browser's cookies. Genkan cannot know
        // which of them is the owner's, so the sign-ins end for both.
        self.forget_stolen(&visit.device, &row.session).await?;
        Ok(None)
    }

    /// Rotates the present cookie if it is time, and notes that the browser was seen.
    async fn with_present_cookie(
        &self,
        mut visit: Visit,
        row: &sql::Row,
        seen: &BrowserInfo,
    ) -> Result<Visit, Error> {
        let (now, shown) = (self.clock.now(), visit.cookies.session_hash());
        visit.carries = row.rotations;
        if visit.client.has_left() {
            return Ok(visit);
        }
        if now.since(row.rotated_at) >= ROTATE_EVERY || row.looks_other(seen) {
            let next = visit.cookies.with_new_session();
            let (id, next_hash) = (&visit.device, next.session_hash());
            let rotated = db::repeated(|| async {
                let mut tx = self.db.begin().await?;
                let rotated = sql::rotate_from(&mut tx, id, &shown, &next_hash, seen, now).await?;
                tx.commit().await?;
                Ok::<_, Error>(rotated)
            });
            match rotated.await? {
                Some(rotation) => visit.replace_cookies(next, rotation),
                // Another request of this browser rotated first, so this one carries the previous
                // cookie. It is not a thief, and keeps the rights that it had.
                None => visit.is_older = true,
            }
        } else if !row.was_shown_last(&shown) || now.since(row.seen_at) >= NOTE_SEEN_EVERY {
            db::repeated(|| async {
                let mut tx = self.db.begin().await?;
                sql::note_seen(&mut tx, &visit.device, &shown, now).await?;
                tx.commit().await
            })
            .await?;
        }
        Ok(visit)
    }

    /// Returns the accounts that are signed in there, remembered or for this request, the latest
    /// first. Accounts that are taken down are left out.
    pub(crate) async fn signed_in(&self, visit: &Visit, request: Option<&str>) -> Result<Vec<SignIn>, Error> {
        let now = self.clock.now();
        let entries = sql::accounts_on(&self.db, &visit.device, request.unwrap_or_default()).await?;
        let mut found: Vec<SignIn> = Vec::new();
        // Newest first: of two sign-ins of one account, the newer counts.
        for entry in entries {
            // A sign-in that came after the visit's cookie may be of another browser: a stolen cookie
            // gains nothing from it.
            let known = entry.rotation <= visit.carries;
            let over = !entry.remembered && now.since(entry.at) > FOR_ONE_REQUEST;
            if !known || over || found.iter().any(|one| one.account.did == entry.did) {
                continue;
            }
            let Some(account) = self.accounts.find(&entry.did).await? else { continue };
            if account.standing() != Standing::TakenDown {
                found.push(SignIn { account, at: entry.at });
            }
        }
        Ok(found)
    }

    /// Finds the account whose own password this is. App passwords do not count. An unknown account
    /// takes as long as a known one.
    pub(crate) async fn recognise(
        &self,
        identifier: &str,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Account, Error> {
        let found = self.accounts.find_by_identifier(identifier).await?;
        let hash = self.passwords.recognises(&self.accounts, found.as_ref(), password, by).await?;
        let (Some(mut account), Some(hash)) = (found, hash) else { return Err(Error::WrongPassword) };
        account.password_hash = hash;
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        Ok(account)
    }

    /// Returns the linked people whom their own servers have signed in there, for a visit or for an
    /// authorization request.
    pub(crate) async fn linked_in(&self, visit: &Visit, keep: Persistence<'_>) -> Result<Vec<Did>, Error> {
        let entries = sql::accounts_on(&self.db, &visit.device, keep.request()).await?;
        let known = entries.into_iter().filter(|entry| !entry.remembered && entry.rotation <= visit.carries);
        Ok(known.map(|entry| entry.did).collect())
    }

    /// Signs in the recognised account, unless its password was changed since. The previous cookie
    /// does not carry this sign-in.
    ///
    /// # Errors
    ///
    /// [`db::Error::ClientGone`] if the browser does not wait for the cookie that carries it.
    pub(crate) async fn sign_in(
        &self,
        visit: &mut Visit,
        account: &Account,
        keep: Persistence<'_>,
    ) -> Result<(), Error> {
        let (next, rotation) = db::repeated(|| self.sign_in_once(visit, account, keep)).await?;
        visit.replace_cookies(next, rotation);
        Ok(())
    }

    async fn sign_in_once(
        &self,
        visit: &Visit,
        account: &Account,
        keep: Persistence<'_>,
    ) -> Result<(Cookies, i64), Error> {
        let mut tx = self.db.begin().await?;
        // The account's row first, in the same order as a transaction that ends every sign-in.
        let hash = Demand::PasswordHash(&account.password_hash);
        if !accounts::hold(&mut tx, &account.did, hash).await? {
            return Err(Error::WrongPassword);
        }
        let entered = self.enter(&mut tx, visit, &account.did, keep).await?;
        sql::note_sign_in(&mut tx, &visit.device, self.clock.now()).await?;
        tx.commit_for(&visit.client).await?;
        Ok(entered)
    }

    /// Signs in a linked person, who returned from their own server.
    ///
    /// # Errors
    ///
    /// Those of [`SignIns::sign_in`].
    pub(crate) async fn sign_in_linked(
        &self,
        visit: &mut Visit,
        did: &Did,
        keep: Persistence<'_>,
    ) -> Result<(), Error> {
        let (next, rotation) = db::repeated(|| self.sign_in_linked_once(visit, did, keep)).await?;
        visit.replace_cookies(next, rotation);
        Ok(())
    }

    async fn sign_in_linked_once(
        &self,
        visit: &Visit,
        did: &Did,
        keep: Persistence<'_>,
    ) -> Result<(Cookies, i64), Error> {
        let mut tx = self.db.begin().await?;
        let entered = self.enter(&mut tx, visit, did, keep).await?;
        tx.commit_for(&visit.client).await?;
        Ok(entered)
    }

    /// Enters a sign-in. Returns a new cookie, which carries it beside those that the visit's cookie
    /// does, and the number of its rotation.
    async fn enter(
        &self,
        tx: &mut Tx,
        visit: &Visit,
        did: &Did,
        keep: Persistence<'_>,
    ) -> Result<(Cookies, i64), Error> {
        let (now, next) = (self.clock.now(), visit.cookies.with_new_session());
        let (shown, id) = (visit.cookies.session_hash(), &visit.device);
        if let Some(seen) = &visit.without_row {
            sql::insert(tx, id, &shown, seen, now).await?;
        }
        // Against session fixation: a cookie that was planted before the sign-in is not signed in.
        let hashes = (&*shown, &*next.session_hash());
        let rotation = match sql::rotate(tx, id, hashes, visit.changed, now).await? {
            Some(rotation) => Some(rotation),
            // Another request rotated it since this one began.
            None => sql::rotate_older(tx, id, hashes.1, visit.carries, now).await?,
        };
        let rotation = rotation.ok_or(db::Error::BrokenOff)?;
        sql::enter(tx, id, (did, keep.request()), rotation, now).await?;
        audit::record(tx, now, Actor::Account(did), "signin.open", did.as_str(), "").await?;
        Ok((next, rotation))
    }

    /// Signs an account out of this browser, which gets a new cookie as by [`SignIns::rotate`].
    ///
    /// # Errors
    ///
    /// Those of [`SignIns::rotate`]. The account is signed out then, too.
    pub(crate) async fn sign_out(&self, visit: &mut Visit, did: &Did) -> Result<(), Error> {
        self.sign_out_at(&visit.device, did).await?;
        self.rotate(visit).await
    }

    /// Rotates the cookie and changes nothing else, after a request was decided. A cookie that another
    /// one has replaced stays as it is: the other one came with another answer to this browser, or the
    /// request is not of its owner.
    ///
    /// # Errors
    ///
    /// [`db::Error::ClientGone`] if the browser does not wait for the next cookie.
    pub(crate) async fn rotate(&self, visit: &mut Visit) -> Result<(), Error> {
        // The cookie of a browser without a row carries no sign-in.
        if visit.without_row.is_some() {
            return Ok(());
        }
        let next = visit.cookies.with_new_session();
        let (shown, next_hash) = (visit.cookies.session_hash(), next.session_hash());
        let rotation = db::repeated(|| async {
            let (hashes, now) = ((&*shown, &*next_hash), self.clock.now());
            let mut tx = self.db.begin().await?;
            let rotation = sql::rotate(&mut tx, &visit.device, hashes, visit.changed, now).await?;
            tx.commit_for(&visit.client).await?;
            Ok::<_, Error>(rotation)
        });
        if let Some(rotation) = rotation.await? {
            visit.replace_cookies(next, rotation);
        }
        Ok(())
    }

    /// Signs an account out of one of its browsers. Returns `false` if it was not signed in there.
    pub(crate) async fn sign_out_at(&self, device: &DeviceId, did: &Did) -> Result<bool, Error> {
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            let left = leave(&mut tx, device, did, self.clock.now()).await?;
            tx.commit().await?;
            Ok(left)
        })
        .await
    }

    /// Returns the browsers that remember an account, the latest seen first.
    pub(crate) async fn devices_of(&self, did: &Did) -> Result<Vec<Device>, Error> {
        Ok(sql::devices_of(&self.db, did).await?)
    }

    /// Signs an account out everywhere, as part of `tx`. No process caches sign-ins, so no note in
    /// the feed is needed.
    pub(crate) async fn end_all(&self, tx: &mut Tx, did: &Did) -> db::Result<()> {
        if sql::end_all(tx, did).await? > 0 {
            let now = self.clock.now();
            audit::record(tx, now, Actor::Account(did), "signin.end_all", did.as_str(), "").await?;
        }
        Ok(())
    }

    /// Spends what is left for new browsers.
    #[cfg(test)]
    pub(crate) fn spend_all(&self) {
        self.new_browsers.spend_all(self.clock.now());
    }

    async fn forget_stolen(&self, device: &DeviceId, session: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let forgotten = db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            let forgotten = sql::forget(&mut tx, device, session, now).await?;
            if forgotten {
                audit::record(&mut tx, now, Actor::Genkan, "signin.stale_cookie", device.as_str(), "")
                    .await?;
            }
            tx.commit().await?;
            Ok::<_, Error>(forgotten)
        });
        if forgotten.await? {
            tracing::warn!("a browser showed a cookie that was replaced before: its sign-ins have ended");
        }
        Ok(())
    }
}

/// Whether the account is signed in on the device, as `tx` sees it.
pub(crate) async fn is_signed_in(tx: &mut Tx, device: &DeviceId, did: &Did) -> db::Result<bool> {
    sql::is_on(&mut **tx, device, did).await
}

async fn leave(tx: &mut Tx, device: &DeviceId, did: &Did, now: Timestamp) -> db::Result<bool> {
    let left = sql::leave(tx, device, did).await?;
    if left {
        audit::record(tx, now, Actor::Account(did), "signin.end", did.as_str(), "").await?;
    }
    Ok(left)
}

/// The sweeps of this room: browsers that did not return, and sign-ins whose request ended long ago.
pub(crate) const SWEEPS: &[Sweep] = &[
    sweep!("sign-ins for a request", |db, range| sql::sweep_for_requests(
        db,
        range.keeping(LONGEST_NOT_KEPT)
    )),
    sweep!("browsers", |db, range| sql::sweep_devices(
        db,
        DeviceTimes {
            now: range.until,
            keep_unused: KEEP_UNUSED,
            keep_known: KNOWN_FOR,
            keep: KEEP,
            again_after: LOOK_AGAIN
        }
    )),
];

/// When the sweep looks again at a browser with a sign-in.
const LOOK_AGAIN: Duration = Duration::from_hours(7 * 24);

/// Bytes of new browsers that are stored per hour before they sign in. Those without a sign-in stay for [`KEEP_UNUSED`].
const NEW_BROWSERS: u64 = 128 << 20;
const NEW_BROWSERS_OF_A_NETWORK: u64 = 4 << 20;
/// How long the cookie from before a rotation is accepted, for requests that were under way.
pub(super) const TOLERANCE: Duration = Duration::from_secs(5);
/// How long after a rotation the previous cookie is accepted once more, by a browser to which the
/// answer with the new cookie did not come.
pub(super) const LOST_ANSWER: Duration = Duration::from_mins(1);
/// How often a device's row is read, if other requests of the browser change it meanwhile.
const MOST_READINGS: usize = 4;
pub(super) const ROTATE_EVERY: Duration = Duration::from_mins(5);
const NOTE_SEEN_EVERY: Duration = Duration::from_mins(1);
/// How long a sign-in for one authorization request may act without the password.
pub(super) const FOR_ONE_REQUEST: Duration = Duration::from_mins(15);
/// After this the sweep removes sign-ins that are not remembered. The longest are visits of linked
/// people.
const LONGEST_NOT_KEPT: Duration = Duration::from_hours(1);
/// The number of no rotation.
const NONE: i64 = 0;
/// How long a browser with a sign-in is remembered after its last visit.
pub(super) const KEEP: Duration = Duration::from_hours(400 * 24);
