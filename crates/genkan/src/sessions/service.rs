//! The service of this room: opening, continuing and ending sessions.

use std::time::Duration;

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::Did;

use super::generations::{self, Rotation};
use super::tokens::{Lifetimes, Mint, Tokens};
use super::{Error, SessionId, TokenError, sql};
use crate::accounts::{
    self, Account, Accounts, AppPassword, AppPasswords, Demand, Passwords, Requester, Standing,
};
use crate::base::{Clock, Secret, Timestamp, random};
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{self, Db, Tx};
use crate::fleet::Fleet;
use crate::keys::Ring;

/// A session and a new pair of tokens.
#[derive(Clone, Debug)]
pub(crate) struct SessionTokens {
    pub(crate) account: Account,
    pub(crate) tokens: Tokens,
}

/// Opens, continues and ends sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    db: Db,
    clock: Clock,
    accounts: Accounts,
    passwords: Passwords,
    app_passwords: AppPasswords,
    mint: Mint,
}

impl Sessions {
    #[expect(clippy::too_many_arguments, reason = "what it works with; only app.rs calls it")]
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        accounts: Accounts,
        passwords: Passwords,
        ring: Ring,
        fleet: Fleet,
        service: Did,
        lifetimes: Lifetimes,
    ) -> Self {
        let mint = Mint::new(ring, fleet, service, lifetimes);
        let app_passwords = AppPasswords::new(db.clone(), clock.clone());
        Self { db, clock, accounts, passwords, app_passwords, mint }
    }

    /// Signs in by handle, e-mail address or DID, with the account's password or an app password.
    ///
    /// With `allow_taken_down`, an account that is taken down gets a token with which it can leave.
    pub(crate) async fn open(
        &self,
        identifier: &str,
        password: &Secret<String>,
        allow_taken_down: bool,
        by: Requester,
    ) -> Result<SessionTokens, Error> {
        let found = self.accounts.find_by_identifier(identifier).await?;
        // App passwords first: they are found by their hash, and a match saves the slow check
        // below.
        let app_password = match &found {
            Some(account) => self.app_passwords.find(&account.did, password).await?,
            None => None,
        };
        // Checked even without an account, so that the answer takes as long as for a wrong
        // password.
        let hash = match app_password {
            Some(_) => None,
            None => Some(self.check_password(found.as_ref(), password, by).await?),
        };
        let mut account = found.ok_or(Error::WrongPassword)?;
        if let Some(hash) = hash {
            account.password_hash = hash;
        }
        if account.standing() == Standing::TakenDown {
            return if allow_taken_down { self.open_taken_down(account) } else { Err(Error::TakenDown) };
        }
        let scope = app_password.as_ref().map_or(Scope::Access, AppPassword::scope);
        self.open_for(account, scope, app_password.map(|it| it.name).as_deref()).await
    }

    /// Opens a session for an account whose owner has just given its password, or the app password
    /// of this name.
    pub(crate) async fn open_for(
        &self,
        account: Account,
        scope: Scope,
        app_password: Option<&str>,
    ) -> Result<SessionTokens, Error> {
        let now = self.clock.now();
        let session = SessionId::from(random::id());
        let tokens = self.mint.pair(&account, scope, &session, FIRST, now)?;
        db::repeated(|| self.record(&account, scope, app_password, &session, now)).await?;
        Ok(SessionTokens { account, tokens })
    }

    /// Writes a new session, if the password that opens it is still the account's.
    async fn record(
        &self,
        account: &Account,
        scope: Scope,
        app_password: Option<&str>,
        session: &SessionId,
        now: Timestamp,
    ) -> Result<(), Error> {
        let did = &account.did;
        let mut tx = self.db.begin().await?;
        // Checking a password takes a while. The row is held only if it still has the same hash, so
        // a password that was changed meanwhile opens nothing.
        let is_still = if let Some(name) = app_password {
            accounts::hold(&mut tx, did, Demand::Usable).await?
                && self.app_passwords.hold(&mut tx, did, name).await?
        } else {
            let hash = Demand::PasswordHash(&account.password_hash);
            accounts::hold(&mut tx, did, hash).await?
        };
        if !is_still {
            return Err(Error::WrongPassword);
        }
        let expires_at = now.plus(self.mint.lifetimes().refresh);
        sql::insert(&mut tx, session, did, scope, app_password, now, expires_at).await?;
        generations::insert(&mut tx, session, FIRST, expires_at).await?;
        let detail = app_password.unwrap_or("");
        audit::record(&mut tx, now, Actor::Account(did), "session.open", did.as_str(), detail).await?;
        Ok(tx.commit().await?)
    }

    /// A pair for an account that is taken down, which may only export and leave. Nothing is
    /// stored, so the session cannot be continued.
    fn open_taken_down(&self, account: Account) -> Result<SessionTokens, Error> {
        let tokens =
            self.mint.pair(&account, Scope::Takendown, &random::id().into(), FIRST, self.clock.now())?;
        Ok(SessionTokens { account, tokens })
    }

    async fn check_password(
        &self,
        account: Option<&Account>,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<Secret<String>, Error> {
        self.passwords.recognises(&self.accounts, account, password, by).await?.ok_or(Error::WrongPassword)
    }

    /// Whether `password` is the account's own password. Without an account it takes as long, and is
    /// not.
    pub(crate) async fn knows_password(
        &self,
        account: Option<&Account>,
        password: &Secret<String>,
        by: Requester,
    ) -> Result<bool, Error> {
        match self.check_password(account, password, by).await {
            Ok(_) => Ok(true),
            Err(Error::WrongPassword) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Continues a session. Within the grace period a used refresh token yields the same successor
    /// again.
    pub(crate) async fn refresh(&self, token: &str) -> Result<SessionTokens, Error> {
        db::repeated(|| self.refresh_once(token)).await
    }

    async fn refresh_once(&self, token: &str) -> Result<SessionTokens, Error> {
        let now = self.clock.now();
        let claims = self.mint.verify_refresh(token)?;
        if claims.expires_at <= now {
            return Err(TokenError::Expired.into());
        }
        let account = self.accounts.find(&claims.did).await?.ok_or(TokenError::Revoked)?;
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        let lifetimes = self.mint.lifetimes();
        let mut tx = self.db.begin().await?;
        // The session's row first. A sign-out at the same time either waits for this commit and
        // ends the rotated session, or came first, and then this call finds that the session has
        // ended.
        let expires_at = now.plus(lifetimes.refresh);
        let session = sql::touch(&mut tx, &claims.session, &claims.did, now, expires_at).await?;
        let scope = session.ok_or(TokenError::Revoked)?;
        let rotation =
            generations::rotate(&mut tx, &claims.session, claims.generation, now, lifetimes).await?;
        let Rotation::To(generation) = rotation else { return Err(TokenError::Revoked.into()) };
        let tokens = self.mint.pair(&account, scope, &claims.session, generation, now)?;
        tx.commit().await?;
        Ok(SessionTokens { account, tokens })
    }

    /// Signs out by a refresh token of any age. A repeated call is no error.
    pub(crate) async fn end(&self, token: &str) -> Result<(), Error> {
        db::repeated(|| self.end_once(token)).await
    }

    async fn end_once(&self, token: &str) -> Result<(), Error> {
        let claims = self.mint.verify_refresh(token)?;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let ended = sql::end_one(&mut tx, &claims.session, &claims.did, now).await?;
        if ended {
            let did = &claims.did;
            audit::record(&mut tx, now, Actor::Account(did), "session.end", did.as_str(), "").await?;
            feed::note(&mut tx, Change::Session, claims.session.as_str()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Ends every session of an account, as part of `tx`.
    pub(crate) async fn end_all(&self, tx: &mut Tx, did: &Did) -> db::Result<()> {
        let now = self.clock.now();
        let ended = sql::end_all(tx, did, None, now).await?;
        note_ended(tx, &ended).await
    }

    /// Ends the sessions that one app password opened, as part of `tx`.
    pub(crate) async fn end_of_app_password(&self, tx: &mut Tx, did: &Did, name: &str) -> db::Result<()> {
        let now = self.clock.now();
        let ended = sql::end_all(tx, did, Some(name), now).await?;
        note_ended(tx, &ended).await
    }
}

async fn note_ended(tx: &mut Tx, sessions: &[SessionId]) -> db::Result<()> {
    for session in sessions {
        feed::note(tx, Change::Session, session.as_str()).await?;
    }
    Ok(())
}

/// The sweeps of this room.
pub(crate) const SWEEPS: &[Sweep] = &[
    sweep!("refresh tokens", |db, range| generations::sweep(db, range)),
    sweep!("ended sessions", |db, range| sql::sweep_ended(db, range.keeping(KEEP_ENDED))),
    sweep!("expired sessions", |db, range| sql::sweep_expired(db, range.keeping(KEEP_ENDED))),
];

/// The generation of a session's first refresh token.
const FIRST: i64 = 0;
/// An ended session is kept until its last access token has expired, whatever its lifetime.
const KEEP_ENDED: Duration = Duration::from_hours(48);
