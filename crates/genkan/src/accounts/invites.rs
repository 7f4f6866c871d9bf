//! Invite codes: the operator creates them, and each can be used for a number of sign-ups.

use data_encoding::BASE32_NOPAD;
use genkan_protocol::syntax::Did;

use super::sql::invites as sql;
use super::{Invite, InviteUse};
use crate::base::{Clock, Timestamp, random};
use crate::db::audit::{self, Actor};
use crate::db::{self, Db, Tx};

/// A request of the operator for codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewInvites<'a> {
    /// The DID that they are created for, or `admin`.
    pub(crate) for_account: &'a str,
    pub(crate) created_by: &'static str,
    pub(crate) count: u32,
    /// How often each can be used.
    pub(crate) uses: u32,
}

/// The invite codes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Invites {
    db: Db,
    clock: Clock,
    /// The public host name, which begins every code.
    host: String,
}

impl Invites {
    pub(crate) fn new(db: Db, clock: Clock, host: &str) -> Self {
        Self { db, clock, host: host.to_owned() }
    }

    /// Creates all codes or none.
    pub(crate) async fn create(&self, new: NewInvites<'_>) -> db::Result<Vec<Invite>> {
        let now = self.clock.now();
        let invites: Vec<Invite> = (0..new.count)
            .map(|_| Invite {
                code: generate(&self.host),
                uses: new.uses,
                left: new.uses,
                for_account: new.for_account.to_owned(),
                created_by: new.created_by.to_owned(),
                created_at: now,
                disabled_at: None,
            })
            .collect();
        let detail = format!("{} × {}", new.count, new.uses);
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            for invite in &invites {
                sql::insert(&mut tx, invite).await?;
            }
            audit::record(&mut tx, now, Actor::Operator, "invite.create", new.for_account, &detail).await?;
            tx.commit().await
        })
        .await?;
        Ok(invites)
    }

    /// Disables one code. Returns `false` if there is no such code or it was already disabled.
    pub(crate) async fn disable(&self, code: &str) -> db::Result<bool> {
        let now = self.clock.now();
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            // Dropping the transaction rolls it back, and the audit trail stays without an entry.
            if !sql::disable(&mut tx, code, now).await? {
                return Ok(false);
            }
            audit::record(&mut tx, now, Actor::Operator, "invite.disable", code, "").await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Disables these codes, and every code created for these accounts, in one transaction.
    pub(crate) async fn disable_all(&self, codes: &[String], accounts: &[String]) -> db::Result<()> {
        let now = self.clock.now();
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            for code in codes {
                sql::disable(&mut tx, code, now).await?;
                audit::record(&mut tx, now, Actor::Operator, "invite.disable", code, "").await?;
            }
            for account in accounts {
                sql::disable_of_account(&mut tx, account, now).await?;
                audit::record(&mut tx, now, Actor::Operator, "invite.disable", account, "all").await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Returns codes, the newest first.
    pub(crate) async fn list(&self, limit: i64) -> db::Result<Vec<Invite>> {
        sql::list(&self.db, limit).await
    }

    /// Returns the codes created for an account, the oldest first.
    pub(crate) async fn of_account(&self, account: &str) -> db::Result<Vec<Invite>> {
        sql::of_account(&self.db, account).await
    }

    /// Returns the uses of a code, the oldest first.
    pub(crate) async fn uses_of(&self, code: &str) -> db::Result<Vec<InviteUse>> {
        sql::uses_of(&self.db, code).await
    }
}

/// Whether the code could be used now. [`use_invite`] decides.
pub(crate) async fn is_invite_good(db: &Db, code: &str) -> db::Result<bool> {
    sql::is_good(db, code).await
}

/// Uses the code once for `did`, as part of a sign-up. Returns `false` if it is unknown, used up or
/// disabled.
pub(crate) async fn use_invite(tx: &mut Tx, code: &str, did: &Did, now: Timestamp) -> db::Result<bool> {
    sql::take(tx, code, did, now).await
}

/// Returns a use to the code after a failed sign-up. A repeated call returns nothing more.
pub(crate) async fn return_invite(tx: &mut Tx, code: &str, did: &Did) -> db::Result<()> {
    sql::give_back(tx, code, did).await
}

/// `example-com-abcde-fghij`: 50 random bits.
fn generate(host: &str) -> String {
    // Seven bytes give twelve letters, of which ten are used.
    let letters = BASE32_NOPAD.encode(&random::bytes::<7>()).to_ascii_lowercase();
    let (first, second) = (letters.get(..5).unwrap_or_default(), letters.get(5..10).unwrap_or_default());
    // Dots become dashes, as in the codes of the reference PDS.
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{host}-{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::on_each_database;
    use crate::db::testing::Fresh;

    on_each_database!(
        a_code_is_used_as_often_as_it_says,
        a_use_is_given_back_once,
        a_disabled_code_is_refused
    );

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn did(name: &str) -> Did {
        format!("did:plc:{name}").parse().unwrap()
    }

    async fn created(db: &Db, uses: u32) -> (Invites, String) {
        let invites = Invites::new(db.clone(), Clock::of_process(), "example.com");
        let new = NewInvites { for_account: "admin", created_by: "operator", count: 1, uses };
        let code = invites.create(new).await.unwrap().remove(0).code;
        assert!(code.starts_with("example-com-") && code.len() == 23, "{code}");
        (invites, code)
    }

    #[tokio::test]
    #[ignore = "needs GENKAN_TEST_POSTGRES"]
    async fn a_transaction_that_gives_way_is_repeated() {
        let fresh = Fresh::postgres().await;
        let db = &fresh.db;
        let (invites, code) = db.giving_way("invite_codes", created(db, 2)).await;
        assert!(db.giving_way("audit", invites.disable(&code)).await.unwrap());
        let (codes, accounts) = ([created(db, 1).await.1], ["admin".to_owned()]);
        db.giving_way("invite_codes", invites.disable_all(&codes, &accounts)).await.unwrap();
        assert!(!is_invite_good(db, &codes[0]).await.unwrap());
    }

    async fn a_code_is_used_as_often_as_it_says(db: Db) {
        let (invites, code) = created(&db, 2).await;
        let mut tx = db.begin().await.unwrap();
        assert!(use_invite(&mut tx, &code, &did("a"), NOW).await.unwrap());
        assert!(use_invite(&mut tx, &code, &did("b"), NOW).await.unwrap());
        assert!(!use_invite(&mut tx, &code, &did("c"), NOW).await.unwrap());
        assert!(!use_invite(&mut tx, "no-such-code", &did("c"), NOW).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!is_invite_good(&db, &code).await.unwrap());
        assert_eq!(invites.uses_of(&code).await.unwrap().len(), 2);
    }

    async fn a_use_is_given_back_once(db: Db) {
        let (invites, code) = created(&db, 1).await;
        let mut tx = db.begin().await.unwrap();
        assert!(use_invite(&mut tx, &code, &did("a"), NOW).await.unwrap());
        return_invite(&mut tx, &code, &did("a")).await.unwrap();
        return_invite(&mut tx, &code, &did("a")).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(invites.list(10).await.unwrap()[0].left, 1);
    }

    async fn a_disabled_code_is_refused(db: Db) {
        let (invites, code) = created(&db, 5).await;
        assert!(invites.disable(&code).await.unwrap());
        assert!(!invites.disable(&code).await.unwrap());
        let mut tx = db.begin().await.unwrap();
        assert!(!use_invite(&mut tx, &code, &did("a"), NOW).await.unwrap());
        tx.commit().await.unwrap();
        assert!(!is_invite_good(&db, &code).await.unwrap());
        assert_eq!(invites.of_account("admin").await.unwrap().len(), 1);
    }
}
