//! Sessions: what a password opens, a refresh token continues, and a sign-out ends.
//!
//! A *session* is a row; its access tokens are addressed to the account's host and signed with that
//! host's key, its refresh tokens are addressed to Genkan. No token is stored: a refresh token's
//! `jti` is the session and a *generation*, and the database says which generations are still good.
//! [`AccessTokens`] checks access tokens for every request, from memory when it can.

mod access;
mod generations;
mod sql;
mod tokens;

use std::time::Duration;

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::syntax::Did;

use crate::accounts::{
    self, Account, Accounts, PasswordError, Passwords, RecognitionError, Standing, app_password,
};

use crate::base::{Clock, Secret, Timestamp, random};
use crate::db::audit::{self, Actor};
use crate::db::feed::{self, Change, Feed};
use crate::db::{Db, Tx};
use crate::fleet::Fleet;
use crate::keys::Ring;

pub(crate) use access::AccessTokens;
pub(crate) use generations::Rotation;
pub(crate) use tokens::Tokens;

/// Why a session could not be opened, continued or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("identifier or password is wrong")]
    WrongPassword,
    #[error("the account is taken down")]
    TakenDown,
    #[error("too many passwords are being checked")]
    Busy,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the account's host {0} is not known")]
    NoHome(String),
    #[error(transparent)]
    Storage(#[from] crate::db::Error),
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("not a token")]
    Malformed,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the token has expired")]
    Expired,
    #[error("the token's session has ended")]
    Revoked,
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

/// How long tokens live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) access: Duration,
    pub(crate) refresh: Duration,
    /// How long a used refresh token is still honoured, for apps that lost our answer.
    ///
    /// From its first use; not extended by the second.
    pub(crate) grace: Duration,
}

/// A session and a fresh pair of tokens.
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
    feed: Feed,
    accounts: Accounts,
    passwords: Passwords,
    mint: tokens::Mint,
}

impl Sessions {
    #[expect(clippy::too_many_arguments, reason = "what it works with; only app.rs calls it")]
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        feed: Feed,
        accounts: Accounts,
        passwords: Passwords,
        ring: Ring,
        fleet: Fleet,
        service: Did,
        lifetimes: Lifetimes,
    ) -> Self {
        let mint = tokens::Mint::new(ring, fleet, service, lifetimes);
        Self { db, clock, feed, accounts, passwords, mint }
    }

    /// Signs in by handle, e-mail address or DID, with the account's password or an app password.
    ///
    /// `allow_taken_down`: give a taken-down account a token with which it can leave.
    pub(crate) async fn open(
        &self,
        identifier: &str,
        password: &Secret<String>,
        allow_taken_down: bool,
    ) -> Result<SessionTokens, Error> {
        let found = self.accounts.find_by_identifier(identifier).await?;
        let app_password = match &found {
            Some(account) => app_password::find(&self.db, account.did.as_str(), password).await?,
            None => None,
        };
        let hash = match app_password {
            Some(_) => None,
            None => Some(self.check_password(found.as_ref(), password).await?),
        };
        let mut account = found.ok_or(Error::WrongPassword)?;
        if let Some(hash) = hash {
            account.password_hash = hash;
        }
        if account.standing() == Standing::TakenDown {
            return if allow_taken_down { self.open_taken_down(account) } else { Err(Error::TakenDown) };
        }
        let scope = app_password.as_ref().map_or(Scope::Access, app_password::AppPassword::scope);
        self.open_for(account, scope, app_password.map(|it| it.name).as_deref()).await
    }

    /// Opens a session for an account whose owner has just been recognised, by its password or an app password of this
    /// name.
    pub(crate) async fn open_for(
        &self,
        account: Account,
        scope: Scope,
        app_password: Option<&str>,
    ) -> Result<SessionTokens, Error> {
        let now = self.clock.now();
        let session = random::id();
        let did = account.did.as_str();
        let tokens = self.mint.pair(&account, scope, &session, FIRST, now)?;
        let mut tx = self.db.begin().await?;
        // A password that was changed while it was being checked opens nothing.
        let is_still = match app_password {
            Some(name) => {
                accounts::hold(&mut tx, did).await? && app_password::hold(&mut tx, did, name).await?
            }
            None => accounts::hold_recognised(&mut tx, &account).await?,
        };
        if !is_still {
            return Err(Error::WrongPassword);
        }
        let expires_at = now.plus(self.mint.lifetimes().refresh);
        sql::insert(&mut tx, &session, did, scope, app_password, now, expires_at).await?;
        generations::insert(&mut tx, &session, FIRST, expires_at).await?;
        audit::record(&mut tx, now, Actor::Account(did), "session.open", did, app_password.unwrap_or(""))
            .await?;
        tx.commit().await?;
        Ok(SessionTokens { account, tokens })
    }

    /// A pair for an account that may only look and leave. Nothing is stored: it cannot be continued.
    fn open_taken_down(&self, account: Account) -> Result<SessionTokens, Error> {
        let tokens = self.mint.pair(&account, Scope::Takendown, &random::id(), FIRST, self.clock.now())?;
        Ok(SessionTokens { account, tokens })
    }

    async fn check_password(
        &self,
        account: Option<&Account>,
        password: &Secret<String>,
    ) -> Result<Secret<String>, Error> {
        self.passwords.recognises(&self.accounts, account, password).await?.ok_or(Error::WrongPassword)
    }

    /// Whether `password` is the account's own password.
    pub(crate) async fn knows_password(
        &self,
        account: &Account,
        password: &Secret<String>,
    ) -> Result<bool, Error> {
        match self.check_password(Some(account), password).await {
            Ok(_) => Ok(true),
            Err(Error::WrongPassword) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Continues a session: a used refresh token gives the same successor again within the grace.
    pub(crate) async fn refresh(&self, token: &str) -> Result<SessionTokens, Error> {
        let now = self.clock.now();
        let claims = self.mint.verify_refresh(token)?;
        if claims.expires_at <= now {
            return Err(TokenError::Expired.into());
        }
        let account = self.accounts.find(claims.did.as_str()).await?.ok_or(TokenError::Revoked)?;
        if account.standing() == Standing::TakenDown {
            return Err(Error::TakenDown);
        }
        let lifetimes = self.mint.lifetimes();
        let mut tx = self.db.begin().await?;
        // First the session's row: it holds off a sign-out until this is done, and the other way round.
        let expires_at = now.plus(lifetimes.refresh);
        let session = sql::touch(&mut tx, &claims.session, claims.did.as_str(), now, expires_at).await?;
        let scope = session.ok_or(TokenError::Revoked)?;
        let rotation =
            generations::rotate(&mut tx, &claims.session, claims.generation, now, lifetimes).await?;
        let Rotation::To(generation) = rotation else { return Err(TokenError::Revoked.into()) };
        let tokens = self.mint.pair(&account, scope, &claims.session, generation, now)?;
        tx.commit().await?;
        Ok(SessionTokens { account, tokens })
    }

    /// Signs out, by a refresh token of any age. Repeating it is fine.
    pub(crate) async fn end(&self, token: &str) -> Result<(), Error> {
        let claims = self.mint.verify_refresh(token)?;
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let ended = sql::end_one(&mut tx, &claims.session, claims.did.as_str(), now).await?;
        if ended {
            let did = claims.did.as_str();
            audit::record(&mut tx, now, Actor::Account(did), "session.end", did, "").await?;
            feed::note(&mut tx, now, Change::Session, &claims.session).await?;
        }
        tx.commit().await?;
        if ended {
            self.feed.tell(Change::Session, &claims.session);
        }
        Ok(())
    }

    /// Ends every session of an account as part of `tx`. Tell the feed of them after the commit.
    pub(crate) async fn end_all(&self, tx: &mut Tx, did: &str) -> Result<Ended, Error> {
        self.note_ended(sql::end_all(tx, did, None, self.clock.now()).await?, tx).await
    }

    /// Ends the sessions opened with one app password, likewise.
    pub(crate) async fn end_of_app_password(
        &self,
        tx: &mut Tx,
        did: &str,
        name: &str,
    ) -> Result<Ended, Error> {
        self.note_ended(sql::end_all(tx, did, Some(name), self.clock.now()).await?, tx).await
    }

    async fn note_ended(&self, sessions: Vec<String>, tx: &mut Tx) -> Result<Ended, Error> {
        for session in &sessions {
            feed::note(tx, self.clock.now(), Change::Session, session).await?;
        }
        Ok(Ended { sessions })
    }

    /// Binds the end of sessions in this process at once; others hear of it from the feed.
    pub(crate) fn tell_ended(&self, ended: &Ended) {
        for session in &ended.sessions {
            self.feed.tell(Change::Session, session);
        }
    }
}

/// Sessions that ended in a transaction.
#[must_use = "tell the feed of them after the commit"]
#[derive(Debug)]
pub(crate) struct Ended {
    sessions: Vec<String>,
}

/// Removes sessions and generations that nothing can use any more.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> crate::db::Result<u64> {
    let mut tx = db.begin().await?;
    let mut gone = generations::sweep(&mut tx, now).await?;
    gone += sql::sweep(&mut tx, now.minus(KEEP_ENDED)).await?;
    tx.commit().await?;
    Ok(gone)
}

/// The generation of a session's first refresh token.
const FIRST: i64 = 0;
/// An ended session is kept until its last access token has expired, whatever its lifetime.
const KEEP_ENDED: Duration = Duration::from_hours(48);
