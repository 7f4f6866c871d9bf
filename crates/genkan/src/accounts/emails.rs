//! E-mail addresses of accounts, and what their owners prove with a code from the mailbox.

use genkan_protocol::syntax::Did;

use super::email_token::{self, CodeError, EmailTokens, VerifiedCode};
use super::sql::accounts as sql;
use super::{Account, Accounts, ClaimError, Email};
use crate::base::{Clock, Language, WaitingClient};
use crate::db::audit::{self, Actor};
use crate::db::sweep::{Sweep, sweep};
use crate::db::{self, Db};
use crate::mail::{self, Mail, Reason, Recipient};
use crate::telemetry::failpoint;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EmailsError {
    /// The operator configured no way to send mail.
    #[error("this service sends no e-mail")]
    Off,
    #[error("the account has no e-mail address")]
    NoAddress,
    /// The address is not the account's. It may have changed meanwhile.
    #[error("the e-mail address is not the account's")]
    OtherAddress,
    #[error("a code is required, because the current address is confirmed")]
    CodeRequired,
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Address(#[from] ClaimError),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<mail::Error> for EmailsError {
    fn from(cause: mail::Error) -> Self {
        match cause {
            mail::Error::Off => Self::Off,
            mail::Error::Storage(cause) => Self::Storage(cause),
        }
    }
}

/// Codes by e-mail, and the addresses of accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Emails {
    db: Db,
    clock: Clock,
    accounts: Accounts,
    tokens: EmailTokens,
    mail: Mail,
}

impl Emails {
    pub(crate) const fn new(
        db: Db,
        clock: Clock,
        accounts: Accounts,
        tokens: EmailTokens,
        mail: Mail,
    ) -> Self {
        Self { db, clock, accounts, tokens, mail }
    }

    /// Whether codes can be sent at all.
    pub(crate) fn is_on(&self) -> bool {
        self.mail.is_on()
    }

    /// Sends a new code. When this returns, the email is in the outbox and will be delivered.
    pub(crate) async fn send_code(
        &self,
        account: &Account,
        reason: Reason,
        language: Language,
    ) -> Result<(), EmailsError> {
        if !self.is_on() {
            return Err(EmailsError::Off);
        }
        let to = recipient(account, language)?;
        db::repeated(|| self.put_code(to, reason)).await?;
        failpoint("mail.queued");
        Ok(())
    }

    async fn put_code(&self, to: Recipient<'_>, reason: Reason) -> Result<(), EmailsError> {
        let (did, now) = (to.did, self.clock.now());
        let mut tx = self.db.begin().await?;
        // Code and e-mail are stored in one transaction, so there is never one without the other.
        let (code, expires_at) = self.tokens.issue(&mut tx, did, reason, now).await?;
        self.mail.put_code(&mut tx, to, reason, &code, expires_at).await?;
        audit::record(&mut tx, now, Actor::Account(did), "email.code", did.as_str(), reason.as_str()).await?;
        Ok(tx.commit().await?)
    }

    /// Sends what the operator, or a moderator of the account's host, wrote in HTML.
    pub(crate) async fn send_message(
        &self,
        account: &Account,
        subject: Option<&str>,
        html: &str,
        actor: Actor<'_>,
    ) -> Result<(), EmailsError> {
        let (did, now) = (&account.did, self.clock.now());
        let to = recipient(account, Language::default())?;
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            self.mail.put_message(&mut tx, to, subject, html).await?;
            audit::record(&mut tx, now, actor, "email.message", did.as_str(), "").await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Checks a code that the account's owner typed, and counts the attempt.
    pub(crate) async fn check(
        &self,
        did: &Did,
        reason: Reason,
        code: &str,
    ) -> Result<VerifiedCode, CodeError> {
        self.tokens.check(did, reason, code, self.clock.now()).await
    }

    /// Finds the account of a code where no account is signed in. The caller limits guesses.
    pub(crate) async fn find(&self, reason: Reason, code: &str) -> Result<VerifiedCode, CodeError> {
        self.tokens.find(reason, code, self.clock.now()).await
    }

    /// Confirms the address `email`, which must be the account's, by a code from it. The code stays
    /// good if `client` does not wait for the end.
    pub(crate) async fn confirm(
        &self,
        account: &Account,
        email: &str,
        code: &str,
        actor: Actor<'_>,
        client: &WaitingClient,
    ) -> Result<(), EmailsError> {
        let email: Email = email.parse().map_err(|_| EmailsError::OtherAddress)?;
        let own = account.email.as_deref().and_then(|own| own.parse::<Email>().ok());
        // Compared before the code, so that a mistyped address costs no attempt.
        if own.is_none_or(|own| own.key() != email.key()) {
            return Err(EmailsError::OtherAddress);
        }
        let (did, now) = (&account.did, self.clock.now());
        let checked = self.check(did, Reason::ConfirmEmail, code).await?;
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            // A change of the address removes the code in its own transaction.
            checked.take(&mut tx).await?;
            sql::confirm_email(&mut tx, did, email.key(), now).await?;
            audit::record(&mut tx, now, actor, "account.email_confirm", did.as_str(), "").await?;
            Ok(tx.commit_for(client).await?)
        })
        .await
    }

    /// Sends a code for a change of the address. While the present address is not confirmed no code
    /// is needed: this returns `false` and sends nothing.
    pub(crate) async fn request_update(
        &self,
        account: &Account,
        language: Language,
    ) -> Result<bool, EmailsError> {
        if account.email.is_none() {
            return Err(EmailsError::NoAddress);
        }
        let required = account.email_confirmed_at.is_some();
        if required {
            self.send_code(account, Reason::UpdateEmail, language).await?;
        }
        Ok(required)
    }

    /// Changes the address. The new one is not confirmed, and codes sent to the old one become
    /// invalid. The code of this change stays good if `client` does not wait for the end.
    pub(crate) async fn update(
        &self,
        account: &Account,
        email: &Email,
        code: Option<&str>,
        actor: Actor<'_>,
        client: &WaitingClient,
    ) -> Result<(), EmailsError> {
        if code.is_none() && account.email_confirmed_at.is_some() {
            return Err(EmailsError::CodeRequired);
        }
        let did = &account.did;
        let checked = match code {
            // A code is checked even if none is required, so that a wrong one is never ignored.
            Some(code) => Some(self.check(did, Reason::UpdateEmail, code).await?),
            None => None,
        };
        db::repeated(|| self.update_once(did, email, checked.as_ref(), actor, client)).await
    }

    async fn update_once(
        &self,
        did: &Did,
        email: &Email,
        checked: Option<&VerifiedCode>,
        actor: Actor<'_>,
        client: &WaitingClient,
    ) -> Result<(), EmailsError> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        match checked {
            Some(checked) => checked.take(&mut tx).await?,
            // The address may have been confirmed since the account was looked up.
            None if sql::is_email_confirmed(&mut tx, did).await? => {
                return Err(EmailsError::CodeRequired);
            }
            None => {}
        }
        self.accounts.change_email(&mut tx, did, email).await?;
        audit::record(&mut tx, now, actor, "account.email", did.as_str(), "").await?;
        Ok(tx.commit_for(client).await?)
    }
}

/// The sweeps of codes that expired long ago.
pub(crate) const SWEEPS: &[Sweep] = &[sweep!("codes in emails", |db, range| email_token::sweep(db, range))];

fn recipient(account: &Account, language: Language) -> Result<Recipient<'_>, EmailsError> {
    let email = account.email.as_deref().ok_or(EmailsError::NoAddress)?;
    Ok(Recipient { did: &account.did, handle: account.handle.as_str(), email, language })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::{app_with_ann, app_with_ann_and};
    use crate::base::Secret;
    use crate::db::on_each_database;
    use crate::db::testing::Fresh;
    use crate::mail::testing::MailFolder;

    on_each_database!(
        an_address_that_is_confirmed_meanwhile_is_not_changed_without_a_code,
        a_code_that_went_to_the_old_address_is_worth_nothing,
        a_code_stays_good_for_a_client_that_did_not_wait,
    );

    async fn a_code_stays_good_for_a_client_that_did_not_wait(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let (by, gone, here) = (Actor::Account(&ann.did), WaitingClient::new(), WaitingClient::new());
        assert!(gone.leave());
        let code = async |reason| {
            let mut tx = app.db.begin().await.unwrap();
            let issued = app.emails.tokens.issue(&mut tx, &ann.did, reason, app.clock.now()).await.unwrap();
            tx.commit().await.unwrap();
            issued.0
        };
        let is_gone = |cause: &db::Error| matches!(cause, db::Error::ClientGone);
        let (address, confirm) = (ann.email.as_deref().unwrap(), code(Reason::ConfirmEmail).await);
        let late = app.emails.confirm(&ann, address, confirm.expose(), by, &gone).await;
        assert!(matches!(&late, Err(EmailsError::Storage(cause)) if is_gone(cause)), "{late:?}");
        app.emails.confirm(&ann, address, confirm.expose(), by, &here).await.unwrap();

        let (new, update) = ("ann@mail.example".parse().unwrap(), code(Reason::UpdateEmail).await);
        let late = app.emails.update(&ann, &new, Some(update.expose()), by, &gone).await;
        assert!(matches!(&late, Err(EmailsError::Storage(cause)) if is_gone(cause)), "{late:?}");
        app.emails.update(&ann, &new, Some(update.expose()), by, &here).await.unwrap();

        let (password, reset) = (Secret::new("another one".to_owned()), code(Reason::ResetPassword).await);
        let late = app.recovery.reset(reset.expose(), &password, &gone).await;
        assert!(matches!(&late, Err(crate::recovery::Error::Storage(cause)) if is_gone(cause)), "{late:?}");
        app.recovery.reset(reset.expose(), &password, &here).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_transaction_that_gives_way_is_repeated() {
        let (fresh, folder) = (Fresh::postgres().await, MailFolder::new());
        let db = &fresh.db;
        let (app, ann) = app_with_ann_and(db.clone(), &folder.settings()).await;
        let (by, client) = (Actor::Account(&ann.did), WaitingClient::patient());
        let sending = app.emails.send_code(&ann, Reason::ResetPassword, Language::default());
        db.giving_way("outbox", sending).await.unwrap();
        let sending = app.emails.send_message(&ann, None, "<p>News</p>", Actor::Operator);
        db.giving_way("audit", sending).await.unwrap();
        let code = async |reason| {
            let mut tx = db.begin().await.unwrap();
            let issued = app.emails.tokens.issue(&mut tx, &ann.did, reason, app.clock.now()).await.unwrap();
            tx.commit().await.unwrap();
            issued.0
        };
        let (address, confirm) = (ann.email.as_deref().unwrap(), code(Reason::ConfirmEmail).await);
        let checking = app.emails.check(&ann.did, Reason::ConfirmEmail, confirm.expose());
        drop(db.giving_way("email_tokens", checking).await.unwrap());
        let confirming = app.emails.confirm(&ann, address, confirm.expose(), by, &client);
        db.giving_way("audit", confirming).await.unwrap();
        let (new, update) = ("ann@mail.example".parse().unwrap(), code(Reason::UpdateEmail).await);
        let updating = app.emails.update(&ann, &new, Some(update.expose()), by, &client);
        db.giving_way("audit", updating).await.unwrap();
        let (password, reset) = (Secret::new("another one".to_owned()), code(Reason::ResetPassword).await);
        let resetting = app.recovery.reset(reset.expose(), &password, &client);
        assert_eq!(db.giving_way("accounts", resetting).await.unwrap(), ann.did);
        let by_operator = "ann@other.example".parse().unwrap();
        let setting = app.accounts.set_email(&ann.did, &by_operator, Actor::Operator);
        db.giving_way("audit", setting).await.unwrap();
    }

    async fn an_address_that_is_confirmed_meanwhile_is_not_changed_without_a_code(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        assert!(ann.email_confirmed_at.is_none(), "no code is needed when the request begins");
        let mut tx = app.db.begin().await.unwrap();
        sql::confirm_email(&mut tx, &ann.did, "ann@example.com", app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let other: Email = "mallory@example.com".parse().unwrap();
        let client = WaitingClient::patient();
        let changed = app.emails.update(&ann, &other, None, Actor::Account(&ann.did), &client).await;
        assert!(matches!(changed, Err(EmailsError::CodeRequired)), "{changed:?}");
        let now = app.accounts.find(&ann.did).await.unwrap().unwrap();
        assert_eq!(now.email.as_deref(), Some("ann@example.com"));
    }
    async fn a_code_that_went_to_the_old_address_is_worth_nothing(db: Db) {
        let (app, ann) = app_with_ann(db).await;
        let mut tx = app.db.begin().await.unwrap();
        let now = app.clock.now();
        let (code, _) = app.emails.tokens.issue(&mut tx, &ann.did, Reason::ResetPassword, now).await.unwrap();
        tx.commit().await.unwrap();
        let find = || app.emails.find(Reason::ResetPassword, code.expose());
        assert_eq!(find().await.unwrap().did(), &ann.did);
        let new: Email = "ann@mail.example".parse().unwrap();
        let client = WaitingClient::patient();
        app.emails.update(&ann, &new, None, Actor::Account(&ann.did), &client).await.unwrap();
        let late = find().await;
        assert!(matches!(late, Err(CodeError::Invalid)), "{late:?}");
    }
}
