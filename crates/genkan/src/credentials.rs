//! Everything that an account can be used with, ended together.
//!
//! Sessions, browser sign-ins and grants are kept by three rooms. An event that ends them (a reset,
//! a takedown, a deletion) must not forget one: a session that lives on after a takedown is a hole.
//! So stories say *which* credentials end with [`Ending`], and [`Credentials::end`] knows where
//! they are. It works in the caller's transaction, so the event and the end of the credentials
//! happen together or not at all. The commit informs this process, and the changes feed informs the
//! others. A grant of a linked account ends together with its link, see [`Pairing`].

mod pairing;

use std::sync::Arc;

use genkan_protocol::syntax::Did;

pub(crate) use pairing::Pairing;

use crate::accounts::{self, AppPasswords, Demand};
use crate::base::Clock;
use crate::db::audit::{self, Actor};
use crate::db::{self, Db, Tx};
use crate::links::LinkId;
use crate::oauth::{GrantId, OAuth};
use crate::sessions::Sessions;
use crate::signin::SignIns;

/// Which credentials of an account end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All of them: sessions, browser sign-ins, and grants with their codes and consents. App
    /// passwords stay, as at the reference PDS; the sessions that they opened do not.
    Everything,
    /// What the owner allowed apps: grants with their codes and consents.
    Grants,
}

/// Ends credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) app_passwords: AppPasswords,
    pub(crate) sessions: Sessions,
    pub(crate) sign_ins: SignIns,
    pub(crate) oauth: OAuth,
}

/// A link has the id of its grant. The rooms of the two do not know each other, so each has a type of its
/// own for it.
impl From<&GrantId> for LinkId {
    fn from(grant: &GrantId) -> Self {
        Self::from(Arc::<str>::from(grant))
    }
}

impl From<&LinkId> for GrantId {
    fn from(link: &LinkId) -> Self {
        Self::from(Arc::<str>::from(link))
    }
}

impl Credentials {
    /// Ends them as part of `tx`.
    pub(crate) async fn end(&self, tx: &mut Tx, did: &Did, ending: Ending) -> db::Result<()> {
        // The account's row first, as every transaction that makes a credential does: what such a
        // one made ends here, or it sees what the caller changed of the account.
        accounts::hold(tx, did, Demand::Nothing).await?;
        match ending {
            Ending::Everything => {
                self.sessions.end_all(tx, did).await?;
                self.sign_ins.end_all(tx, did).await?;
                self.oauth.end_all_of(tx, did).await
            }
            Ending::Grants => self.oauth.end_all_of(tx, did).await,
        }
    }

    /// Removes an app password and ends the sessions that it opened. An unknown name is no error.
    pub(crate) async fn revoke_app_password(
        &self,
        did: &Did,
        name: &str,
        actor: Actor<'_>,
    ) -> db::Result<()> {
        db::repeated(|| self.revoke_app_password_once(did, name, actor)).await
    }

    async fn revoke_app_password_once(&self, did: &Did, name: &str, actor: Actor<'_>) -> db::Result<()> {
        let mut tx = self.db.begin().await?;
        // The row first. A transaction that opens a session with this app password holds the same
        // row, so its session either ends here or is never opened.
        self.app_passwords.remove(&mut tx, did, name).await?;
        self.sessions.end_of_app_password(&mut tx, did, name).await?;
        let now = self.clock.now();
        audit::record(&mut tx, now, actor, "app_password.revoke", did.as_str(), name).await?;
        tx.commit().await
    }
}
