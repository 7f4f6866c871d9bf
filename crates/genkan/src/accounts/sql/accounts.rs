//! Table `accounts`.

use genkan_protocol::syntax::{Did, Handle};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{claims, counts};
use crate::accounts::{Account, ClaimError, Email, NewAccount, NewError, State};
use crate::base::{Secret, Timestamp};
use crate::db::leases::LONGEST_DELAY;
use crate::db::{self, Db, Tx};
use crate::fleet::HostId;

/// The condition for an account that can be changed: its sign-up is complete, and its deletion has
/// not begun.
macro_rules! open {
    () => {
        "state = 'open' AND deleting_at IS NULL"
    };
}

/// The condition that an account must meet for a transaction to continue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Demand<'a> {
    /// No condition: even a sign-up under way or a deletion.
    Nothing,
    /// The account is open and not taken down.
    Usable,
    /// The account is open and neither taken down nor deactivated.
    Active,
    /// The account is usable, and this is still the hash of its password.
    PasswordHash(&'a Secret<String>),
}

const COLUMNS: &str = "did, handle, email, email_confirmed_at, password_hash, host_id, host_key, state, deleting_at, \
                       deactivated_at, delete_after, taken_down_at, takedown_ref, created_at";

pub(in crate::accounts) async fn by_did(db: &Db, did: &str) -> db::Result<Option<Account>> {
    one(db, "did", did).await
}

pub(in crate::accounts) async fn by_handle(db: &Db, handle: &str) -> db::Result<Option<Account>> {
    one(db, "handle", handle).await
}

pub(in crate::accounts) async fn by_email(db: &Db, email_key: &str) -> db::Result<Option<Account>> {
    one(db, "email_key", email_key).await
}

pub(in crate::accounts) async fn is_handle_free(db: &Db, handle: &str) -> db::Result<bool> {
    // Without the lock: the answer is for a form. The insert decides.
    let row = sqlx::query("SELECT 1 FROM accounts WHERE handle = $1 OR next_handle = $1")
        .bind(handle)
        .fetch_optional(db.reader())
        .await?;
    Ok(row.is_none())
}

async fn one(db: &Db, column: &'static str, value: &str) -> db::Result<Option<Account>> {
    let text = format!("SELECT {COLUMNS} FROM accounts WHERE {column} = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(value).fetch_optional(db.reader()).await?;
    row.as_ref().map(read).transpose()
}

pub(in crate::accounts) async fn list(
    db: &Db,
    limit: i64,
    after: Option<(Timestamp, &str)>,
) -> db::Result<Vec<Account>> {
    // The cursor is a position in the order and not an offset, so it stays right while accounts
    // come and go.
    let (at, did) = after.unwrap_or((Timestamp::from_millis(i64::MAX), ""));
    let text = format!(
        "SELECT {COLUMNS} FROM accounts WHERE (created_at, did) < ($1, $2) \
         ORDER BY created_at DESC, did DESC LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(at.as_millis())
        .bind(did)
        .bind(limit)
        .fetch_all(db.reader())
        .await?;
    rows.iter().map(read).collect()
}

pub(in crate::accounts) async fn insert_creating(tx: &mut Tx, account: &NewAccount) -> Result<(), NewError> {
    claims::hold(tx, &account.handle, &account.did).await?;
    // Asked first, to name the value that is taken. The unique indexes decide a race.
    if exists(tx, "handle", account.handle.as_str()).await?
        || exists(tx, "next_handle", account.handle.as_str()).await?
    {
        return Err(NewError::HandleTaken);
    }
    if exists(tx, "email_key", account.email.key()).await? {
        return Err(NewError::EmailTaken);
    }
    let inserted = sqlx::query(
        "INSERT INTO accounts (did, handle, email, email_key, password_hash, host_id, host_key, state, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'creating', $8)",
    )
    .bind(account.did.as_str())
    .bind(account.handle.as_str())
    .bind(account.email.as_typed())
    .bind(account.email.key())
    .bind(account.password_hash.expose())
    .bind(account.host.as_str())
    .bind(account.host_key.to_did_key())
    .bind(account.created_at.as_millis())
    .execute(&mut **tx)
    .await;
    match inserted.map_err(db::Error::from) {
        Ok(_) => Ok(counts::add(tx, &account.host, &account.did, 1).await?),
        Err(cause @ db::Error::Conflict(_)) => Err(taken(&cause)),
        Err(cause) => Err(cause.into()),
    }
}

/// Returns which of the unique values was taken meanwhile.
fn taken(conflict: &db::Error) -> NewError {
    if conflict.conflicts_in("email") { NewError::EmailTaken } else { NewError::HandleTaken }
}

async fn exists(tx: &mut Tx, column: &'static str, value: &str) -> db::Result<bool> {
    let text = format!("SELECT 1 FROM accounts WHERE {column} = $1");
    Ok(sqlx::query(sqlx::AssertSqlSafe(text)).bind(value).fetch_optional(&mut **tx).await?.is_some())
}

pub(in crate::accounts) async fn open(tx: &mut Tx, did: &Did) -> db::Result<bool> {
    // The state is a condition, so a sign-up that was taken back cannot be opened by a late worker.
    let done = sqlx::query("UPDATE accounts SET state = 'open' WHERE did = $1 AND state = 'creating'")
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn remove(tx: &mut Tx, did: &Did) -> db::Result<bool> {
    let row = sqlx::query("DELETE FROM accounts WHERE did = $1 RETURNING host_id")
        .bind(did.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(false) };
    counts::add(tx, &row.try_get::<String, _>("host_id")?.into(), did, -1).await?;
    Ok(true)
}

pub(in crate::accounts) async fn set_deactivated(
    tx: &mut Tx,
    did: &Did,
    at: Option<Timestamp>,
) -> db::Result<bool> {
    // A repeated deactivation keeps its first time, from which the notice before a deletion counts.
    let statement = match at {
        Some(_) => concat!(
            "UPDATE accounts SET deactivated_at = COALESCE(deactivated_at, $2) WHERE did = $1 AND ",
            open!()
        ),
        None => concat!(
            "UPDATE accounts SET deactivated_at = $2, delete_after = NULL WHERE did = $1 AND ",
            open!()
        ),
    };
    let done = sqlx::query(statement)
        .bind(did.as_str())
        .bind(at.map(Timestamp::as_millis))
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn set_delete_after(
    tx: &mut Tx,
    did: &Did,
    date: Option<Timestamp>,
) -> db::Result<bool> {
    let done = sqlx::query(concat!("UPDATE accounts SET delete_after = $2 WHERE did = $1 AND ", open!()))
        .bind(did.as_str())
        .bind(date.map(Timestamp::as_millis))
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The least time between a deactivation and the deletion that its owner asked for, so that an
/// owner who did not ask for it can return.
///
/// The job demands it as well as the door: an earlier version stored any date.
pub(crate) const DELETION_NOTICE: std::time::Duration = std::time::Duration::from_hours(3 * 24);

/// Records that a deletion begins. With `due`, only if the owner asked for it and did not return in
/// time. Returns `false` if the condition does not hold or there is no such account.
pub(in crate::accounts) async fn begin_deletion(
    tx: &mut Tx,
    did: &Did,
    due: bool,
    now: Timestamp,
) -> db::Result<bool> {
    // An interrupted deletion keeps its first time. It is finished by beginning it again, so
    // `deleting_at` need not be empty.
    let text = if due {
        "UPDATE accounts SET deleting_at = COALESCE(deleting_at, $2), delete_tried_at = $2
         WHERE did = $1 AND state = 'open'
         AND (deleting_at IS NOT NULL OR (deactivated_at <= $3 AND delete_after <= $2))"
    } else {
        "UPDATE accounts SET deleting_at = COALESCE(deleting_at, $2), delete_tried_at = $2
         WHERE did = $1 AND state = 'open'"
    };
    let mut query = sqlx::query(text).bind(did.as_str()).bind(now.as_millis());
    if due {
        query = query.bind(now.minus(DELETION_NOTICE).as_millis());
    }
    Ok(query.execute(&mut **tx).await?.rows_affected() == 1)
}

/// Takes a batch of a host's accounts whose deletion is due or broke off, those that were not tried
/// for the longest time first.
///
/// A host has a batch of its own, so that accounts on a host that is gone keep no others waiting.
pub(in crate::accounts) async fn take_due_for_deletion(
    db: &Db,
    host: &HostId,
    now: Timestamp,
) -> db::Result<Vec<Did>> {
    let rows = sqlx::query(TAKE_DUE)
        .bind(now.as_millis())
        .bind(host.as_str())
        .bind(now.minus(UNDER_WAY).as_millis())
        .bind(now.minus(DELETION_NOTICE).as_millis())
        // No attempt is later than now: a clock was wrong when it was recorded.
        .bind(now.plus(LONGEST_DELAY).as_millis())
        .fetch_all(db.writer())
        .await?;
    let read = |row: &AnyRow| {
        let did: String = row.try_get("did")?;
        did.parse().map_err(|_| db::Error::corrupt("accounts", "did", &did))
    };
    rows.iter().map(read).collect()
}

// The fourth line is the condition of the index. Few accounts have either time.
const TAKE_DUE: &str = "UPDATE accounts SET delete_tried_at = $1
    WHERE (delete_tried_at <= $3 OR delete_tried_at > $5) AND did IN (
        SELECT did FROM accounts WHERE host_id = $2 AND (delete_tried_at <= $3 OR delete_tried_at > $5)
        AND (deleting_at IS NOT NULL OR delete_after IS NOT NULL)
        AND (deleting_at IS NOT NULL OR (delete_after <= $1 AND deactivated_at <= $4))
        ORDER BY delete_tried_at LIMIT 20
    ) RETURNING did";

/// For this long after an attempt only the process that made it may finish the deletion.
const UNDER_WAY: std::time::Duration = std::time::Duration::from_mins(2);

/// Holds the account's row until `tx` ends. Returns `false` if no account meets the demand.
///
/// The update changes nothing. It locks the row in the one way that both databases support.
pub(in crate::accounts) async fn hold(tx: &mut Tx, did: &Did, demand: Demand<'_>) -> db::Result<bool> {
    let statement = match demand {
        // The updates change nothing. They lock the row in the one way that both databases support.
        Demand::Nothing => "UPDATE accounts SET did = did WHERE did = $1",
        Demand::Usable => {
            concat!("UPDATE accounts SET did = did WHERE did = $1 AND taken_down_at IS NULL AND ", open!())
        }
        Demand::Active => concat!(
            "UPDATE accounts SET did = did WHERE did = $1 AND taken_down_at IS NULL",
            " AND deactivated_at IS NULL AND ",
            open!()
        ),
        Demand::PasswordHash(_) => concat!(
            "UPDATE accounts SET did = did WHERE did = $1 AND taken_down_at IS NULL",
            " AND password_hash = $2 AND ",
            open!()
        ),
    };
    let mut query = sqlx::query(statement).bind(did.as_str());
    if let Demand::PasswordHash(hash) = demand {
        query = query.bind(hash.expose().as_str());
    }
    Ok(query.execute(&mut **tx).await?.rows_affected() == 1)
}

pub(in crate::accounts) async fn set_taken_down(
    tx: &mut Tx,
    did: &Did,
    mark: Option<(Timestamp, &str)>,
) -> db::Result<bool> {
    let done = sqlx::query(concat!(
        "UPDATE accounts SET taken_down_at = $2, takedown_ref = $3 WHERE did = $1 AND ",
        open!()
    ))
    .bind(did.as_str())
    .bind(mark.map(|(at, _)| at.as_millis()))
    .bind(mark.map(|(_, reference)| reference.to_owned()))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn set_password_hash(tx: &mut Tx, did: &Did, hash: &str) -> db::Result<bool> {
    let done = sqlx::query(concat!("UPDATE accounts SET password_hash = $2 WHERE did = $1 AND ", open!()))
        .bind(did.as_str())
        .bind(hash)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces the hash of the same password by one of a newer kind.
///
/// Unlike [`set_password_hash`] it takes any account: one whose deletion has begun may be deleted once more by
/// its password, which this must not refuse.
pub(in crate::accounts) async fn upgrade_password_hash(
    tx: &mut Tx,
    did: &Did,
    old: &str,
    new: &str,
) -> db::Result<bool> {
    // The old hash in the condition: a password that its owner changed meanwhile is not undone.
    let done = sqlx::query("UPDATE accounts SET password_hash = $3 WHERE did = $1 AND password_hash = $2")
        .bind(did.as_str())
        .bind(old)
        .bind(new)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::accounts) async fn set_email(
    tx: &mut Tx,
    did: &Did,
    email: &Email,
) -> Result<bool, ClaimError> {
    let done = sqlx::query(concat!(
        "UPDATE accounts SET email = $2, email_key = $3, email_confirmed_at = NULL WHERE did = $1 AND ",
        open!()
    ))
    .bind(did.as_str())
    .bind(email.as_typed())
    .bind(email.key())
    .execute(&mut **tx)
    .await;
    match done.map_err(db::Error::from) {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(db::Error::Conflict(_)) => Err(ClaimError::Taken),
        Err(cause) => Err(cause.into()),
    }
}

/// Confirms the address, if it is still the one that the code was sent to.
pub(in crate::accounts) async fn confirm_email(
    tx: &mut Tx,
    did: &Did,
    email_key: &str,
    now: Timestamp,
) -> db::Result<()> {
    // The address is a condition: a code for the old address must not confirm a new one.
    sqlx::query("UPDATE accounts SET email_confirmed_at = $3 WHERE did = $1 AND email_key = $2")
        .bind(did.as_str())
        .bind(email_key)
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(in crate::accounts) async fn is_email_confirmed(tx: &mut Tx, did: &Did) -> db::Result<bool> {
    let row = sqlx::query("SELECT 1 FROM accounts WHERE did = $1 AND email_confirmed_at IS NOT NULL")
        .bind(did.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

pub(in crate::accounts) async fn reserve_handle(
    tx: &mut Tx,
    did: &Did,
    handle: &Handle,
) -> Result<(), ClaimError> {
    // Against a sign-up, which looks at both columns as well.
    claims::hold(tx, handle, did).await?;
    let by_another =
        sqlx::query("SELECT 1 FROM accounts WHERE (handle = $1 OR next_handle = $1) AND did <> $2")
            .bind(handle.as_str())
            .bind(did.as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(db::Error::from)?;
    if by_another.is_some() {
        return Err(ClaimError::Taken);
    }
    // Reserved in a second column: the old handle stays valid until the change is complete.
    let done = sqlx::query(concat!("UPDATE accounts SET next_handle = $2 WHERE did = $1 AND ", open!()))
        .bind(did.as_str())
        .bind(handle.as_str())
        .execute(&mut **tx)
        .await;
    match done.map_err(db::Error::from) {
        Ok(done) if done.rows_affected() == 1 => Ok(()),
        Ok(_) => Err(ClaimError::NotFound),
        Err(db::Error::Conflict(_)) => Err(ClaimError::Taken),
        Err(cause) => Err(cause.into()),
    }
}

pub(in crate::accounts) async fn take_reserved_handle(tx: &mut Tx, did: &Did) -> Result<bool, ClaimError> {
    let done = sqlx::query(
        "UPDATE accounts SET handle = next_handle, next_handle = NULL WHERE did = $1 AND next_handle IS NOT NULL",
    )
    .bind(did.as_str())
    .execute(&mut **tx)
    .await;
    match done.map_err(db::Error::from) {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(db::Error::Conflict(_)) => Err(ClaimError::Taken),
        Err(cause) => Err(cause.into()),
    }
}

pub(in crate::accounts) async fn release_reserved_handle(tx: &mut Tx, did: &Did) -> db::Result<()> {
    sqlx::query("UPDATE accounts SET next_handle = NULL WHERE did = $1")
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn read(row: &AnyRow) -> db::Result<Account> {
    let text: String = row.try_get("did")?;
    let corrupt = |column| db::Error::corrupt("accounts", column, &text);
    let time = |column: &str| -> db::Result<Option<Timestamp>> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
    };
    Ok(Account {
        did: text.parse().map_err(|_| corrupt("did"))?,
        handle: row.try_get::<String, _>("handle")?.parse().map_err(|_| corrupt("handle"))?,
        email: row.try_get("email")?,
        email_confirmed_at: time("email_confirmed_at")?,
        password_hash: Secret::new(row.try_get("password_hash")?),
        host: row.try_get::<String, _>("host_id")?.into(),
        host_key: genkan_protocol::crypto::PublicKey::from_did_key(&row.try_get::<String, _>("host_key")?)
            .map_err(|_| corrupt("host_key"))?,
        state: match row.try_get::<String, _>("state")?.as_str() {
            // Checked first, because `state` still says 'open' while an account is being deleted.
            _ if time("deleting_at")?.is_some() => State::Deleting,
            "creating" => State::Creating,
            "open" => State::Open,
            _ => return Err(corrupt("state")),
        },
        deactivated_at: time("deactivated_at")?,
        delete_after: time("delete_after")?,
        taken_down_at: time("taken_down_at")?,
        takedown_ref: row.try_get("takedown_ref")?,
        created_at: time("created_at")?.ok_or_else(|| corrupt("created_at"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::testing::{add, new_account};
    use crate::db::on_each_database;

    on_each_database!(
        an_account_is_found_by_each_of_its_names,
        handle_address_and_did_are_unique,
        a_handle_being_changed_to_is_taken_too,
        the_named_field_survives_a_race,
        sign_up_and_rename_do_not_both_get_a_handle,
        accounts_that_wait_for_their_deletion_are_not_looked_at,
        a_deletion_that_is_due_does_not_begin_after_a_return,
        deletions_that_fail_keep_no_others_waiting,
        an_account_is_held_only_if_it_meets_the_demand,
        listing_goes_on_where_it_stopped
    );

    async fn an_account_is_found_by_each_of_its_names(db: Db) {
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        let found = by_did(&db, ann.did.as_str()).await.unwrap().unwrap();
        assert_eq!((found.handle, found.state), (ann.handle.clone(), State::Open));
        assert_eq!(by_handle(&db, "ann.test").await.unwrap().unwrap().did, ann.did);
        assert_eq!(by_email(&db, "ann@example.com").await.unwrap().unwrap().did, ann.did);
        assert!(by_handle(&db, "bob.test").await.unwrap().is_none());
        assert_eq!(counts::by_host(&db).await.unwrap()["oak"], 1);

        let mut tx = db.begin().await.unwrap();
        assert!(remove(&mut tx, &ann.did).await.unwrap());
        tx.commit().await.unwrap();
        assert!(by_did(&db, ann.did.as_str()).await.unwrap().is_none());
    }

    async fn handle_address_and_did_are_unique(db: Db) {
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        let same_handle = NewAccount { handle: ann.handle.clone(), ..new_account("bob") };
        assert!(matches!(add(&db, &same_handle).await, Err(NewError::HandleTaken)));
        let same_address = NewAccount { email: "ANN@example.com".parse().unwrap(), ..new_account("bob") };
        assert!(matches!(add(&db, &same_address).await, Err(NewError::EmailTaken)));
        let same_did = NewAccount { did: ann.did.clone(), ..new_account("bob") };
        assert!(add(&db, &same_did).await.is_err());
    }

    /// Each of the two checks another column.
    async fn sign_up_and_rename_do_not_both_get_a_handle(db: Db) {
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        let mut first = db.begin().await.unwrap();
        insert_creating(&mut first, &new_account("carol")).await.unwrap();
        let (other, did) = (db.clone(), ann.did.clone());
        let rename = tokio::spawn(async move {
            let mut tx = other.begin().await.unwrap();
            let reserved = reserve_handle(&mut tx, &did, &"carol.test".parse().unwrap()).await;
            tx.commit().await.unwrap();
            reserved
        });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        first.commit().await.unwrap();
        assert!(matches!(rename.await.unwrap(), Err(ClaimError::Taken)));
    }

    async fn accounts_that_wait_for_their_deletion_are_not_looked_at(db: Db) {
        let text = [("$1", "1"), ("$2", "'oak'"), ("$3", "1"), ("$4", "1"), ("$5", "1")];
        let text = text.iter().fold(TAKE_DUE.to_owned(), |text, (name, value)| text.replace(name, value));
        // Without the other indexes that begin with the host.
        let others =
            ["accounts_by_host", "accounts_by_slot", "accounts_counted_by_slot", "accounts_to_delete"];
        db.assert_reads_index_only(&others, &text).await;
    }

    async fn a_deletion_that_is_due_does_not_begin_after_a_return(db: Db) {
        let (ann, bob) = (new_account("ann"), new_account("bob"));
        let then = Timestamp::from_seconds(5000);
        let now = then.plus(DELETION_NOTICE);
        for account in [&ann, &bob] {
            add(&db, account).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            assert!(set_deactivated(&mut tx, &account.did, Some(then)).await.unwrap());
            // A date in the past, as an earlier version stored it.
            assert!(set_delete_after(&mut tx, &account.did, Some(then)).await.unwrap());
            tx.commit().await.unwrap();
        }
        let early = now.minus(std::time::Duration::from_millis(1));
        let oak: HostId = "oak".into();
        assert!(
            take_due_for_deletion(&db, &oak, early).await.unwrap().is_empty(),
            "the owner has three days"
        );
        let mut tx = db.begin().await.unwrap();
        assert!(!begin_deletion(&mut tx, &ann.did, true, early).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(take_due_for_deletion(&db, &oak, now).await.unwrap().len(), 2);
        let mut tx = db.begin().await.unwrap();
        assert!(set_deactivated(&mut tx, &ann.did, None).await.unwrap());
        assert!(!begin_deletion(&mut tx, &ann.did, true, now).await.unwrap());
        assert!(begin_deletion(&mut tx, &bob.did, true, now).await.unwrap());
        assert!(!set_deactivated(&mut tx, &bob.did, None).await.unwrap());
        tx.commit().await.unwrap();
        let oak = HostId::from("oak");
        assert!(take_due_for_deletion(&db, &oak, now).await.unwrap().is_empty(), "it is under way");
        let before_a_jump_back = now.minus(std::time::Duration::from_hours(1));
        let mut found = take_due_for_deletion(&db, &oak, before_a_jump_back).await.unwrap();
        assert_eq!(found.pop().as_ref(), Some(&bob.did), "the clock was ahead at the last attempt");
        take_due_for_deletion(&db, &oak, now).await.unwrap();
        let later = now.plus(UNDER_WAY);
        assert_eq!(take_due_for_deletion(&db, &oak, later).await.unwrap(), std::slice::from_ref(&bob.did));
        assert_eq!(by_did(&db, bob.did.as_str()).await.unwrap().unwrap().state, State::Deleting);
    }

    async fn deletions_that_fail_keep_no_others_waiting(db: Db) {
        let mut now = Timestamp::from_seconds(5000);
        let begin = async |name: &str, host: &str| {
            let account = NewAccount { host: host.into(), ..new_account(name) };
            add(&db, &account).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            assert!(begin_deletion(&mut tx, &account.did, false, now).await.unwrap());
            tx.commit().await.unwrap();
            account.did
        };
        // More than a batch, on a host that is gone.
        for number in 0..25 {
            begin(&format!("stuck{number}"), "oak").await;
        }
        let other = begin("other", "elm").await;
        now = now.plus(UNDER_WAY);
        let first = take_due_for_deletion(&db, &"oak".into(), now).await.unwrap();
        assert_eq!(first.len(), 20);
        assert_eq!(take_due_for_deletion(&db, &"elm".into(), now).await.unwrap(), [other]);
        let dave = new_account("dave");
        add(&db, &dave).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        let before = now.minus(DELETION_NOTICE);
        assert!(set_deactivated(&mut tx, &dave.did, Some(before)).await.unwrap());
        assert!(set_delete_after(&mut tx, &dave.did, Some(now)).await.unwrap());
        tx.commit().await.unwrap();
        now = now.plus(UNDER_WAY);
        let second = take_due_for_deletion(&db, &"oak".into(), now).await.unwrap();
        assert!(second.contains(&dave.did), "never tried, so among the first");
        let tried: std::collections::BTreeSet<&str> = first.iter().chain(&second).map(Did::as_str).collect();
        assert_eq!(tried.len(), 26, "each once before any twice");
    }

    async fn a_handle_being_changed_to_is_taken_too(db: Db) {
        let (ann, bob) = (new_account("ann"), new_account("bob"));
        add(&db, &ann).await.unwrap();
        add(&db, &bob).await.unwrap();
        let wanted: Handle = "carol.test".parse().unwrap();
        let mut tx = db.begin().await.unwrap();
        reserve_handle(&mut tx, &ann.did, &wanted).await.unwrap();
        assert!(matches!(reserve_handle(&mut tx, &bob.did, &wanted).await, Err(ClaimError::Taken)));
        tx.commit().await.unwrap();
        assert!(matches!(add(&db, &new_account("carol")).await, Err(NewError::HandleTaken)));
        for (handle, is_free) in [("carol.test", false), ("ann.test", false), ("dave.test", true)] {
            assert_eq!(is_handle_free(&db, handle).await.unwrap(), is_free, "{handle}");
        }

        let mut tx = db.begin().await.unwrap();
        assert!(take_reserved_handle(&mut tx, &ann.did).await.unwrap());
        assert!(!take_reserved_handle(&mut tx, &ann.did).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(by_handle(&db, wanted.as_str()).await.unwrap().unwrap().did, ann.did);
        add(&db, &NewAccount { handle: ann.handle, ..new_account("dave") }).await.unwrap();
    }

    async fn an_account_is_held_only_if_it_meets_the_demand(db: Db) {
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        let other = Secret::new("another hash".to_owned());
        let met = async || {
            let mut tx = db.begin().await.unwrap();
            let mut met = Vec::new();
            for demand in [
                Demand::Nothing,
                Demand::Usable,
                Demand::Active,
                Demand::PasswordHash(&ann.password_hash),
                Demand::PasswordHash(&other),
            ] {
                met.push(hold(&mut tx, &ann.did, demand).await.unwrap());
            }
            met
        };
        let change = async |deactivated: Option<Timestamp>, mark: Option<(Timestamp, &str)>| {
            let mut tx = db.begin().await.unwrap();
            set_deactivated(&mut tx, &ann.did, deactivated).await.unwrap();
            set_taken_down(&mut tx, &ann.did, mark).await.unwrap();
            tx.commit().await.unwrap();
        };
        assert_eq!(met().await, [true, true, true, true, false]);
        change(Some(ann.created_at), None).await;
        assert_eq!(met().await, [true, true, false, true, false]);
        change(None, Some((ann.created_at, "T-1"))).await;
        assert_eq!(met().await, [true, false, false, false, false]);
    }

    async fn the_named_field_survives_a_race(db: Db) {
        // A row that the check before the insert cannot see: the index itself answers.
        let ann = new_account("ann");
        add(&db, &ann).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        let clash: db::Error = sqlx::query(
            "INSERT INTO accounts (did, handle, email_key, password_hash, host_id, host_key, state, created_at)
             VALUES ('did:plc:x', 'x.test', 'ann@example.com', '', '', '', 'open', 1)",
        )
        .execute(&mut *tx)
        .await
        .unwrap_err()
        .into();
        assert!(matches!(clash, db::Error::Conflict(_)));
        assert!(matches!(taken(&clash), NewError::EmailTaken));
    }

    async fn listing_goes_on_where_it_stopped(db: Db) {
        for name in ["ann", "bob", "cat"] {
            add(&db, &new_account(name)).await.unwrap();
        }
        let first = list(&db, 2, None).await.unwrap();
        let last = &first[1];
        let rest = list(&db, 2, Some((last.created_at, last.did.as_str()))).await.unwrap();
        let mut seen: Vec<_> = first.iter().chain(&rest).map(|account| account.handle.to_string()).collect();
        seen.sort();
        assert_eq!(seen, ["ann.test", "bob.test", "cat.test"]);
    }
}
