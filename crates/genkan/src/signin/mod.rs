//! Browser sign-ins: which accounts a browser may speak for, and how a thief of its cookies is noticed.
//!
//! A *device* is a browser, known by a pair of cookies: one that stays, and one that *rotates* every few
//! minutes and whenever somebody signs in or out. The database has hashes of both. Who shows a rotated
//! cookie later than [`TOLERANCE`] has a copy, or the owner's place was taken by one: the device is
//! forgotten with every sign-in on it. A *sign-in* is remembered, or good for one authorization request
//! only; either way it is fresh for a while, and then the password is wanted again.
//!
//! This room never sees a request or a page, and sends no cookie: it says which to send.

mod cookies;
mod sql;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use crate::accounts::{self, Account, Accounts, PasswordError, Passwords, RecognitionError, Standing};
use crate::base::{Clock, Secret, Timestamp};
use crate::db::audit::{self, Actor};
use crate::db::{Db, Tx};

pub(crate) use cookies::Cookies;

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Or there is no such account: nobody is told which.
    #[error("identifier or password is wrong")]
    WrongPassword,
    #[error("the account is taken down")]
    TakenDown,
    #[error("too many passwords are being checked")]
    Busy,
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Storage(cause.into())
    }
}

impl From<PasswordError> for Error {
    fn from(cause: PasswordError) -> Self {
        match cause {
            PasswordError::Busy | PasswordError::Failed => Self::Busy,
            PasswordError::TooLong => Self::WrongPassword,
        }
    }
}

impl From<RecognitionError> for Error {
    fn from(cause: RecognitionError) -> Self {
        match cause {
            RecognitionError::Password(cause) => cause.into(),
            RecognitionError::Storage(cause) => Self::Storage(cause),
        }
    }
}

/// Names a browser. Made from its cookie, but tells nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DeviceId(String);

impl DeviceId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is seen of a browser.
#[derive(Clone, Debug)]
pub(crate) struct BrowserInfo {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: String,
}

/// A browser that was recognised, or is new.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) device: DeviceId,
    cookies: Cookies,
    /// The cookies are not those that the browser showed.
    changed: bool,
    /// The browser showed the cookie from before the last rotation, which was then: what came with that one is not its.
    stale_since: Option<Timestamp>,
}

impl Visit {
    /// What to send with the answer.
    pub(crate) fn to_set(&self) -> Option<&Cookies> {
        self.changed.then_some(&self.cookies)
    }

    fn replace_cookies(&mut self, cookies: Cookies) {
        *self = Self { device: self.device.clone(), cookies, changed: true, stale_since: None };
    }
}

/// How long a sign-in is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence<'a> {
    Remembered,
    /// For this one authorization request.
    OneRequest(&'a str),
}

impl<'a> Persistence<'a> {
    const fn request(self) -> &'a str {
        match self {
            Self::Remembered => "",
            Self::OneRequest(request) => request,
        }
    }
}

/// An account that a browser is, or was, signed in to.
#[derive(Clone, Debug)]
pub(crate) struct SignIn {
    pub(crate) account: Account,
    /// When the password was typed.
    pub(crate) at: Timestamp,
}

impl SignIn {
    /// Whether it may act without its password.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.at) <= FRESH
    }
}

/// A browser as the owner of an account sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) user_agent: String,
    pub(crate) seen_at: Timestamp,
    pub(crate) entered_at: Timestamp,
}

/// The browsers and their sign-ins. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SignIns {
    db: Db,
    clock: Clock,
    accounts: Accounts,
    passwords: Passwords,
}

impl SignIns {
    pub(crate) const fn new(db: Db, clock: Clock, accounts: Accounts, passwords: Passwords) -> Self {
        Self { db, clock, accounts, passwords }
    }

    /// Recognises a browser by its cookies, or gives it new ones.
    pub(crate) async fn visit(&self, cookies: Option<&Cookies>, seen: &BrowserInfo) -> Result<Visit, Error> {
        if let Some(visit) = self.peek(cookies, seen).await? {
            return Ok(visit);
        }
        let now = self.clock.now();
        let fresh = Cookies::fresh();
        let mut tx = self.db.begin().await?;
        sql::insert(&mut tx, &fresh.device_hash(), &fresh.session_hash(), seen, now).await?;
        tx.commit().await?;
        Ok(Visit { device: DeviceId(fresh.device_hash()), cookies: fresh, changed: true, stale_since: None })
    }

    /// The same for pages that a new browser has nothing on. `None`: it is not known.
    pub(crate) async fn peek(
        &self,
        cookies: Option<&Cookies>,
        seen: &BrowserInfo,
    ) -> Result<Option<Visit>, Error> {
        let Some(cookies) = cookies.cloned() else { return Ok(None) };
        let device = DeviceId(cookies.device_hash());
        let Some(row) = sql::find(&self.db, device.as_str()).await? else { return Ok(None) };
        let (now, shown) = (self.clock.now(), cookies.session_hash());
        let mut visit = Visit { device, cookies, changed: false, stale_since: None };
        if row.session != shown {
            let is_last = row.previous.as_ref() == Some(&shown);
            if is_last && now.since(row.rotated_at) <= TOLERANCE {
                visit.stale_since = Some(row.rotated_at);
                return Ok(Some(visit));
            }
            self.forget_stolen(&visit.device, &row.session).await?;
            return Ok(None);
        }
        if now.since(row.rotated_at) >= ROTATE_EVERY || row.looks_other(seen) {
            let next = visit.cookies.with_new_session();
            let mut tx = self.db.begin().await?;
            let id = visit.device.as_str();
            let rotated = sql::rotate_from(&mut tx, id, &shown, &next.session_hash(), seen, now).await?;
            tx.commit().await?;
            if rotated {
                visit.replace_cookies(next);
            } else {
                // A twin of this request was faster: now it is this one that shows the cookie before.
                visit.stale_since = Some(now);
            }
        } else if now.since(row.seen_at) >= NOTE_SEEN_EVERY {
            let mut tx = self.db.begin().await?;
            sql::note_seen(&mut tx, visit.device.as_str(), now).await?;
            tx.commit().await?;
        }
        Ok(Some(visit))
    }

    /// Who is signed in there, for good or for this request; the latest first. Taken-down accounts are not.
    pub(crate) async fn signed_in(&self, visit: &Visit, request: Option<&str>) -> Result<Vec<SignIn>, Error> {
        let now = self.clock.now();
        let entries = sql::accounts_on(&self.db, visit.device.as_str(), request.unwrap_or_default()).await?;
        let mut found: Vec<SignIn> = Vec::new();
        // Newest first: of two sign-ins of one account that one counts.
        for entry in entries {
            let known = visit.stale_since.is_none_or(|stale| entry.at < stale);
            let over = !entry.remembered && now.since(entry.at) > FOR_ONE_REQUEST;
            if !known || over || found.iter().any(|one| one.account.did.as_str() == entry.did) {
                continue;
            }
            let Some(account) = self.accounts.find(&entry.did).await? else { continue };
            if account.standing() != Standing::TakenDown {
                found.push(SignIn { account, at: entry.at });
            }
        }
        Ok(found)
    }

    /// Whether the account was ever signed in on this device: its attempts are counted apart.
    pub(crate) async fn knows(&self, visit: &Visit, did: &str) -> Result<bool, Error> {
        Ok(visit.stale_since.is_none() && sql::is_on(&self.db, visit.device.as_str(), did).await?)
    }

    /// The account whose own password this is. App passwords do not count, and an account that is not there
    /// takes as long as one that is.
    pub(crate) async fn recognise(
        &self,
        identifier: &str,
        password: &Secret<String>,
    ) -> Result<Account, Error> {
        let found = self.accounts.find_by_identifier(identifier).await?;
        let hash = self.passwords.recognises(&self.accounts, found.as_ref(), password).await?;
        let (Some(mut account), Some(hash)) = (found, hash) else { return Err(Error::WrongPassword) };
        account.password_hash = hash;
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        Ok(account)
    }

    /// Signs in whoever was recognised, unless the password was changed since. The cookie from before is worth nothing
    /// for this sign-in.
    pub(crate) async fn sign_in(
        &self,
        visit: &mut Visit,
        account: &Account,
        keep: Persistence<'_>,
    ) -> Result<(), Error> {
        let (now, did) = (self.clock.now(), account.did.as_str());
        let next = visit.cookies.with_new_session();
        let mut tx = self.db.begin().await?;
        // First the account's row, as whoever ends everything of it.
        if !accounts::hold_recognised(&mut tx, account).await? {
            return Err(Error::WrongPassword);
        }
        sql::rotate(&mut tx, visit.device.as_str(), &next.session_hash(), now).await?;
        sql::enter(&mut tx, visit.device.as_str(), did, keep.request(), now).await?;
        audit::record(&mut tx, now, Actor::Account(did), "signin.open", did, "").await?;
        tx.commit().await?;
        visit.replace_cookies(next);
        Ok(())
    }

    /// Signs an account out of the browser at hand.
    pub(crate) async fn sign_out(&self, visit: &mut Visit, did: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let (mut tx, next) = self.begin_rotation(visit, now).await?;
        leave(&mut tx, visit.device.as_str(), did, now).await?;
        tx.commit().await?;
        visit.replace_cookies(next);
        Ok(())
    }

    /// A new rotating cookie, and no more: after a request was decided.
    pub(crate) async fn rotate(&self, visit: &mut Visit) -> Result<(), Error> {
        let (tx, next) = self.begin_rotation(visit, self.clock.now()).await?;
        tx.commit().await?;
        visit.replace_cookies(next);
        Ok(())
    }

    async fn begin_rotation(&self, visit: &Visit, now: Timestamp) -> Result<(Tx, Cookies), Error> {
        let next = visit.cookies.with_new_session();
        let mut tx = self.db.begin().await?;
        sql::rotate(&mut tx, visit.device.as_str(), &next.session_hash(), now).await?;
        Ok((tx, next))
    }

    /// Signs an account out of any of its browsers. `false`: it was not signed in there.
    pub(crate) async fn sign_out_at(&self, device: &str, did: &str) -> Result<bool, Error> {
        let mut tx = self.db.begin().await?;
        let left = leave(&mut tx, device, did, self.clock.now()).await?;
        tx.commit().await?;
        Ok(left)
    }

    /// Where an account is remembered, the latest seen first.
    pub(crate) async fn devices_of(&self, did: &str) -> Result<Vec<Device>, Error> {
        Ok(sql::devices_of(&self.db, did).await?)
    }

    /// Signs an account out everywhere, as part of `tx`. Nothing of this is in memory anywhere.
    pub(crate) async fn end_all(&self, tx: &mut Tx, did: &str) -> Result<(), Error> {
        if sql::end_all(tx, did).await? > 0 {
            audit::record(tx, self.clock.now(), Actor::Account(did), "signin.end_all", did, "").await?;
        }
        Ok(())
    }

    async fn forget_stolen(&self, device: &DeviceId, session: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        if sql::forget(&mut tx, device.as_str(), session).await? {
            audit::record(&mut tx, now, Actor::Genkan, "signin.stale_cookie", device.as_str(), "").await?;
            tracing::warn!("a browser showed a cookie that was replaced before: its sign-ins have ended");
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Whether the account is signed in on the device, as `tx` sees it.
pub(crate) async fn is_signed_in(tx: &mut Tx, device: &str, did: &str) -> crate::db::Result<bool> {
    sql::is_in(tx, device, did).await
}

async fn leave(tx: &mut Tx, device: &str, did: &str, now: Timestamp) -> Result<bool, Error> {
    let left = sql::leave(tx, device, did).await?;
    if left {
        audit::record(tx, now, Actor::Account(did), "signin.end", did, "").await?;
    }
    Ok(left)
}

/// Forgets browsers that nobody came back with, and sign-ins whose request is long over.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut tx = db.begin().await?;
    let mut gone = sql::sweep_for_requests(&mut tx, now.minus(FOR_ONE_REQUEST)).await?;
    gone += sql::sweep_devices(&mut tx, now.minus(KEEP_UNUSED), now.minus(KEEP)).await?;
    tx.commit().await?;
    Ok(gone)
}

/// How long the cookie from before a rotation is let pass, for requests that were under way.
const TOLERANCE: Duration = Duration::from_secs(5);
const ROTATE_EVERY: Duration = Duration::from_mins(5);
const NOTE_SEEN_EVERY: Duration = Duration::from_mins(1);
/// How long a remembered account may act without its password.
const FRESH: Duration = Duration::from_hours(7 * 24);
/// The same for a sign-in that is good for one authorization request.
const FOR_ONE_REQUEST: Duration = Duration::from_mins(15);
/// How long a browser without a sign-in is known.
const KEEP_UNUSED: Duration = Duration::from_hours(24);
/// How long a browser with a sign-in is known after its last visit.
const KEEP: Duration = Duration::from_hours(400 * 24);
