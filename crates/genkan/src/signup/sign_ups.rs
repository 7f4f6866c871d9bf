//! The service that creates accounts.

use std::time::Duration;

use genkan_protocol::jwt::session::Scope;

use super::context::{Context, Dependencies};
use super::error::Error;
use super::outcome::Outcome;
use super::request::{Request, Rules};
use super::saga;
use super::sql;
use crate::accounts::{Account, Rank, Requester, Standing, is_invite_good};
use crate::base::Timestamp;
use crate::limits::ClientNetwork;
use crate::sessions::SessionTokens;
use crate::signin::Attempt;

/// Creates accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SignUps {
    pub(super) context: Context,
}

impl SignUps {
    pub(crate) fn new(with: Dependencies, rules: Rules) -> Self {
        Self { context: Context::new(with, rules) }
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.context.rules
    }

    /// Creates the account and its first session.
    ///
    /// Once it is recorded it continues to the end even if the client disconnects. A client that
    /// lost the answer and repeats the request gets the same account.
    pub(crate) async fn create(&self, request: Request) -> Result<SessionTokens, Error> {
        let account = self.create_account(request).await?;
        Ok(self.context.with.sessions.open_for(account, Scope::Access, None).await?)
    }

    /// Creates the account without a session. Pages use it, because they have sign-ins instead.
    pub(crate) async fn create_account(&self, request: Request) -> Result<Account, Error> {
        self.context.rules.check(&request)?;
        let this = self.clone();
        // In a task of its own: dropping the request must not stop a saga between two steps.
        let made = tokio::spawn(async move { this.make(&request).await });
        // A recorded sign-up goes on after this time, and a repeated request finds its account.
        let made = tokio::time::timeout(ANSWER_WITHIN, made).await;
        made.unwrap_or(Ok(Err(Error::Unfinished))).unwrap_or(Err(Error::Unfinished))
    }

    async fn make(&self, request: &Request) -> Result<Account, Error> {
        // A client that lost the answer sends the request again, and expects its account and not
        // "taken".
        if let Some(account) = self.made_before(request).await? {
            return Ok(account);
        }
        self.check_free(request).await?;
        let by = Requester { rank: Rank::Ordinary, client: Some(ClientNetwork::of(request.client)) };
        // Hashing is slow on purpose. It comes after the cheap checks, and before the transaction.
        let hash = self.context.with.passwords.hash(&request.password, by).await?;
        let recorded = match saga::begin(&self.context.for_task(), request, &hash).await {
            Ok(outcome) => outcome,
            // Another sign-up was faster. It may be a copy of this very request.
            Err(Error::HandleTaken | Error::EmailTaken) => {
                return match self.made_before(request).await? {
                    Some(account) => Ok(account),
                    // The index reported a conflict, and these checks say for which field. If the
                    // other sign-up was undone meanwhile, nothing is taken any more, and the handle
                    // is named.
                    None => Err(self.check_free(request).await.err().unwrap_or(Error::HandleTaken)),
                };
            }
            Err(other) => return Err(other),
        };
        match recorded {
            Outcome::Done(did) => self.context.with.accounts.find(&did).await?.ok_or(Error::Unfinished),
            Outcome::Undone(why) => Err(Error::Refused(why)),
            Outcome::Waiting => Err(Error::Unfinished),
        }
    }

    /// Returns the account that an earlier copy of this request created, or is creating: recent,
    /// from the same address, with the same handle, email address and password.
    async fn made_before(&self, request: &Request) -> Result<Option<Account>, Error> {
        let accounts = &self.context.with.accounts;
        let Some(mut account) = accounts.find_by_handle(&request.handle).await? else { return Ok(None) };
        // Without the password Genkan reveals nothing about the account: for this client the handle
        // is simply taken.
        if !self.is_same_person(&account, request).await? {
            return Ok(None);
        }
        let did = account.did.clone();
        let mut waited = Duration::ZERO;
        while !account.is_open() {
            if waited >= WAIT_FOR_TWIN {
                return Err(Error::Unfinished);
            }
            // The process of the earlier copy may have died. If it is alive, it holds the lease,
            // and this call does nothing.
            self.settle_one(did.as_str()).await;
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
            match accounts.find_by_handle(&request.handle).await? {
                Some(found) if found.did == did => account = found,
                // The earlier copy was undone meanwhile.
                _ => return Ok(None),
            }
        }
        Ok(Some(account))
    }

    /// Whether the account was created recently from the same address, by someone who knows its
    /// email address and password.
    ///
    /// A repeated sign-up must be no way to guess a password. Another address gets the same refusal
    /// for every password, and this one has the limits of a sign-in.
    async fn is_same_person(&self, account: &Account, request: &Request) -> Result<bool, Error> {
        let with = &self.context.with;
        let is_fresh = self.context.now().since(account.created_at) <= REPEATABLE
            && account.standing() != Standing::TakenDown;
        if !is_fresh || !with.attempts.knows_address(&account.did, request.client).await? {
            return Ok(false);
        }
        let attempt = Attempt {
            account: Some(account),
            identifier: request.handle.as_str(),
            client: request.client,
            browser: None,
        };
        let admitted = with.attempts.admit(&attempt).await?;
        // The key is the address in lower case, as the unique index compares it. With another one
        // the check takes as long and finds nothing.
        let has_email =
            account.email.as_deref().is_some_and(|email| email.to_lowercase() == request.email.key());
        let account = has_email.then_some(account);
        let knows = with.sessions.knows_password(account, &request.password, admitted.requester).await?;
        if knows {
            with.attempts.take_back(&admitted).await?;
        } else {
            with.attempts.failed(&admitted);
        }
        Ok(knows)
    }

    /// Reports early, and by name, which value is taken. The unique indexes decide in the end.
    async fn check_free(&self, request: &Request) -> Result<(), Error> {
        if self.context.with.accounts.find_by_handle(&request.handle).await?.is_some() {
            return Err(Error::HandleTaken);
        }
        if self.context.with.accounts.find_by_email(&request.email).await?.is_some() {
            return Err(Error::EmailTaken);
        }
        match &request.invite_code {
            Some(code) if !is_invite_good(&self.context.with.db, code).await? => Err(Error::InvalidInvite),
            None if self.context.rules.invite_required => Err(Error::InvalidInvite),
            _ => Ok(()),
        }
    }

    /// Ends every lease, when a process starts that has the database to itself: every earlier
    /// holder is gone.
    pub(crate) async fn end_leases(&self) -> Result<(), Error> {
        Ok(sql::end_leases(&self.context.with.db).await?)
    }

    /// Settles interrupted sign-ups, whose lease no process holds. Returns how many are settled.
    pub(crate) async fn settle_all(&self) -> Result<usize, Error> {
        let mut settled = 0;
        for did in sql::abandoned(&self.context.with.db, self.context.now(), BATCH).await? {
            settled += usize::from(self.settle_one(&did).await);
        }
        Ok(settled)
    }

    /// Settles one sign-up. Returns whether it is settled.
    async fn settle_one(&self, did: &str) -> bool {
        match saga::settle(&self.context.for_task(), did).await {
            Ok(Some(Outcome::Done(_) | Outcome::Undone(_))) => true,
            Ok(Some(Outcome::Waiting) | None) => false,
            Err(cause) => {
                tracing::warn!(
                    account.did = did,
                    cause = &cause as &dyn std::error::Error,
                    "could not settle a sign-up; will try again"
                );
                false
            }
        }
    }

    /// Returns unfinished sign-ups: DID, start, and the last failure.
    pub(crate) async fn unfinished(&self) -> Result<Vec<(String, Timestamp, Option<String>)>, Error> {
        Ok(sql::unfinished(&self.context.with.db, BATCH).await?)
    }
}

/// Time for which a repeated request leads to the same account.
const REPEATABLE: Duration = Duration::from_hours(1);
/// The longest time until the caller learns the outcome, or that there is no outcome yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);
/// Maximum time for which a request waits for its earlier copy.
const WAIT_FOR_TWIN: Duration = Duration::from_secs(8);
/// Interval at which a waiting request looks at the account.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const BATCH: i64 = 100;
