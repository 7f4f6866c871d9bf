//! Tables `devices` and `device_accounts`.

pub(super) mod addresses;

use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;
use sqlx::any::AnyExecutor;

use super::{BrowserInfo, Device, DeviceId};
use crate::base::Timestamp;
use crate::db::sweep::{Batch, OldRows, SweepRange};
use crate::db::turns::{Turns, heal_turns};
use crate::db::{Db, Error, Result, Tx};

/// A device's row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) session: String,
    previous: Option<String>,
    /// Another older cookie: the one that was present when an older one was accepted late, or when a
    /// request with an older one was decided. A slow answer may still bring it to the browser.
    lost: Option<String>,
    /// The last older cookie that was accepted late, and is not accepted again.
    spent: Option<String>,
    /// How often the cookie was rotated. Sign-ins have the number of the rotation that they came with.
    pub(super) rotations: i64,
    /// The cookie that the browser showed last while it was the present one, or that got another one
    /// after its answer was lost.
    shown: Option<String>,
    pub(super) rotated_at: Timestamp,
    pub(super) seen_at: Timestamp,
    address: String,
    user_agent: String,
}

impl Row {
    /// Whether the cookies were stolen. No cookie is accepted for this row, so those that need no row
    /// are not valid again before they end.
    pub(super) fn is_forgotten(&self) -> bool {
        self.session == FORGOTTEN
    }

    /// Whether this is one of the cookies that the present one replaced last.
    pub(super) fn has_replaced(&self, shown: &str) -> bool {
        [&self.previous, &self.lost].into_iter().flatten().any(|older| older == shown)
    }

    /// Whether nobody has shown a cookie after this one. For an older cookie: the answer with the
    /// present one has not arrived.
    pub(super) fn was_shown_last(&self, shown: &str) -> bool {
        self.shown.as_deref() == Some(shown)
    }

    /// Whether this older cookie may be accepted late. After one was, only the other one may: it came
    /// with a slow answer, after the browser had shown the first.
    pub(super) fn may_come_late(&self, shown: &str) -> bool {
        match self.spent.as_deref() {
            Some(spent) if Some(spent) == self.lost.as_deref() => false,
            Some(spent) if Some(spent) == self.previous.as_deref() => self.lost.as_deref() == Some(shown),
            _ => true,
        }
    }

    /// Whether the browser's address or name has changed.
    pub(super) fn looks_other(&self, seen: &BrowserInfo) -> bool {
        // The stored name is shortened, so the seen name is shortened for the comparison.
        self.address != seen.address.to_string() || self.user_agent != shortened(&seen.user_agent)
    }
}

pub(super) async fn find(db: &Db, id: &DeviceId) -> Result<Option<Row>> {
    let row = sqlx::query(
        "SELECT session, previous, lost, spent, rotations, shown, rotated_at, seen_at, address, user_agent
         FROM devices WHERE id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(db.reader())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Row {
        session: row.try_get("session")?,
        previous: row.try_get("previous")?,
        lost: row.try_get("lost")?,
        spent: row.try_get("spent")?,
        rotations: row.try_get("rotations")?,
        shown: row.try_get("shown")?,
        rotated_at: Timestamp::from_millis(row.try_get("rotated_at")?),
        seen_at: Timestamp::from_millis(row.try_get("seen_at")?),
        address: row.try_get("address")?,
        user_agent: row.try_get("user_agent")?,
    }))
}

/// Inserts a device. Of two requests with the cookies of one that had no row, the first inserts it.
pub(super) async fn insert(
    tx: &mut Tx,
    id: &DeviceId,
    session: &str,
    seen: &BrowserInfo,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO devices (id, session, rotated_at, address, user_agent, seen_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $3, $3) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id.as_str())
    .bind(session)
    .bind(now.as_millis())
    .bind(seen.address.to_string())
    .bind(shortened(&seen.user_agent))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Rotates the present cookie, and notes from where the browser was seen. Returns the number of the
/// rotation, or `None` if another request rotated the cookie meanwhile.
pub(super) async fn rotate_from(
    tx: &mut Tx,
    id: &DeviceId,
    shown: &str,
    next: &str,
    seen: &BrowserInfo,
    now: Timestamp,
) -> Result<Option<i64>> {
    let row = sqlx::query(
        // The shown cookie is a condition: of two requests with one cookie, only one rotates it.
        "UPDATE devices SET session = $3, previous = $2, lost = NULL, shown = $2, rotated_at = $4,
            seen_at = $4, rotations = rotations + 1, address = $5, user_agent = $6
         WHERE id = $1 AND session = $2 RETURNING rotations",
    )
    .bind(id.as_str())
    .bind(shown)
    .bind(next)
    .bind(now.as_millis())
    .bind(seen.address.to_string())
    .bind(shortened(&seen.user_agent))
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok(row.try_get("rotations")?)).transpose()
}

/// Rotates the cookie for a browser that did not get the present one, `lost`, and has an older one,
/// `shown`. Sign-ins after the rotation `carried` are undone: the browser that has `shown` may not be
/// the one in which their passwords were typed. Returns the number of the rotation, or `None` if the
/// row changed since it was read.
pub(super) async fn rotate_after_loss(
    tx: &mut Tx,
    id: &DeviceId,
    (lost, shown, next): (&str, &str, &str),
    carried: i64,
    now: Timestamp,
) -> Result<Option<i64>> {
    let row = sqlx::query(
        // The present cookie is a condition: of many requests with one cookie, on any number of
        // replicas, one rotates it. What may come late is decided by the row that had this cookie.
        //
        // The first time `shown` is the previous cookie or the lost one, and becomes the previous one.
        // The second time it is the lost one and stays it, so that `spent` allows no third time.
        "UPDATE devices SET session = $4, spent = $3, shown = $3, rotated_at = $5, seen_at = $5,
            rotations = rotations + 1,
            previous = CASE WHEN spent = previous THEN $2 ELSE $3 END,
            lost = CASE WHEN spent = previous THEN $3 ELSE $2 END
         WHERE id = $1 AND session = $2 RETURNING rotations",
    )
    .bind(id.as_str())
    .bind(lost)
    .bind(shown)
    .bind(next)
    .bind(now.as_millis())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    undo_sign_ins(tx, id, carried).await?;
    Ok(Some(row.try_get("rotations")?))
}

/// Undoes the sign-ins on a device after the rotation `carried`. An account that was signed in there
/// before stays so, as of then.
async fn undo_sign_ins(tx: &mut Tx, id: &DeviceId, carried: i64) -> Result<()> {
    sqlx::query(
        "UPDATE device_accounts SET entered_at = entered_before, entered_in = entered_before_in,
            entered_before = NULL, entered_before_in = NULL
         WHERE device = $1 AND entered_in > $2 AND entered_before_in <= $2",
    )
    .bind(id.as_str())
    .bind(carried)
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM device_accounts WHERE device = $1 AND entered_in > $2")
        .bind(id.as_str())
        .bind(carried)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Rotates the cookie of a request that has `shown`, if that is the present one. Returns the number of
/// the rotation.
///
/// `unsent` says that the request got `shown` itself, and the browser has an older one: a request that
/// rotates twice sends only its last cookie, and the one between only with an error. Its rotations have
/// one number: what it signs in to is not of the older cookie.
pub(super) async fn rotate(
    tx: &mut Tx,
    id: &DeviceId,
    (shown, next): (&str, &str),
    unsent: bool,
    now: Timestamp,
) -> Result<Option<i64>> {
    let text = if unsent {
        "UPDATE devices SET lost = COALESCE(lost, session), session = $3, rotated_at = $4, seen_at = $4
         WHERE id = $1 AND session = $2 RETURNING rotations"
    } else {
        "UPDATE devices SET previous = session, lost = NULL, shown = session, session = $3, rotated_at = $4,
            seen_at = $4, rotations = rotations + 1 WHERE id = $1 AND session = $2 RETURNING rotations"
    };
    let row = sqlx::query(text)
        .bind(id.as_str())
        .bind(shown)
        .bind(next)
        .bind(now.as_millis())
        .fetch_optional(&mut **tx)
        .await?;
    row.map(|row| Ok(row.try_get("rotations")?)).transpose()
}

/// Rotates the cookie for a sign-in of a request whose cookie was replaced meanwhile. The present one
/// was sent with another answer, which may come yet. Sign-ins after the rotation `carried` are undone:
/// the request may be of another browser than theirs. Returns the number of the rotation, or `None` if
/// the device is gone.
pub(super) async fn rotate_older(
    tx: &mut Tx,
    id: &DeviceId,
    next: &str,
    carried: i64,
    now: Timestamp,
) -> Result<Option<i64>> {
    let row = sqlx::query(
        "UPDATE devices SET lost = session, session = $2, rotated_at = $3, seen_at = $3,
            rotations = rotations + 1 WHERE id = $1 AND session <> $4 RETURNING rotations",
    )
    .bind(id.as_str())
    .bind(next)
    .bind(now.as_millis())
    .bind(FORGOTTEN)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    undo_sign_ins(tx, id, carried).await?;
    Ok(Some(row.try_get("rotations")?))
}

/// Notes that an account signed in on a device.
pub(super) async fn note_sign_in(tx: &mut Tx, id: &DeviceId, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE devices SET signed_in_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Notes that a browser showed `session`, if that is still the present cookie.
pub(super) async fn note_seen(tx: &mut Tx, id: &DeviceId, session: &str, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE devices SET seen_at = $3, shown = $2 WHERE id = $1 AND session = $2")
        .bind(id.as_str())
        .bind(session)
        .bind(now.as_millis())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends a device and its sign-ins. Its row stays until the sweep, and no cookie is accepted for it.
/// Returns `false` if it was rotated since it was read: the cookie may then have been the previous one,
/// within the tolerance.
pub(super) async fn forget(tx: &mut Tx, id: &DeviceId, session: &str, now: Timestamp) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE devices SET session = $3, previous = NULL, lost = NULL, spent = NULL, shown = NULL,
            signed_in_at = NULL, rotations = rotations + 1, seen_at = $4
         WHERE id = $1 AND session = $2",
    )
    .bind(id.as_str())
    .bind(session)
    .bind(FORGOTTEN)
    .bind(now.as_millis())
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("DELETE FROM device_accounts WHERE device = $1").bind(id.as_str()).execute(&mut **tx).await?;
    Ok(true)
}

/// A sign-in on a device.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) did: Did,
    pub(super) remembered: bool,
    pub(super) at: Timestamp,
    /// The number of the rotation that it came with. Older cookies do not carry it.
    pub(super) rotation: i64,
}

/// Returns the sign-ins on a device, the newest first.
pub(super) async fn accounts_on(db: &Db, device: &DeviceId, request: &str) -> Result<Vec<Entry>> {
    let rows = sqlx::query(
        "SELECT did, request, entered_at, entered_in FROM device_accounts
         WHERE device = $1 AND (request = '' OR request = $2)
         ORDER BY entered_at DESC, did",
    )
    .bind(device.as_str())
    .bind(request)
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            let did: String = row.try_get("did")?;
            Ok(Entry {
                did: did.parse().map_err(|_| Error::corrupt("device_accounts", "did", &did))?,
                remembered: row.try_get::<String, _>("request")?.is_empty(),
                at: Timestamp::from_millis(row.try_get("entered_at")?),
                rotation: row.try_get("entered_in")?,
            })
        })
        .collect()
}

/// Whether an account is signed in on a device, as a pool or a transaction sees it.
pub(super) async fn is_on<'e>(executor: impl AnyExecutor<'e>, device: &DeviceId, did: &Did) -> Result<bool> {
    let row = sqlx::query("SELECT 1 FROM device_accounts WHERE device = $1 AND did = $2")
        .bind(device.as_str())
        .bind(did.as_str())
        .fetch_optional(executor)
        .await?;
    Ok(row.is_some())
}

/// Enters a sign-in that came with this rotation.
pub(super) async fn enter(
    tx: &mut Tx,
    device: &DeviceId,
    (did, request): (&Did, &str),
    rotation: i64,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO device_accounts (device, did, request, entered_at, entered_in)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (device, did, request) DO UPDATE SET
            entered_before = device_accounts.entered_at, entered_at = $4,
            entered_before_in = device_accounts.entered_in, entered_in = $5",
    )
    .bind(device.as_str())
    .bind(did.as_str())
    .bind(request)
    .bind(now.as_millis())
    .bind(rotation)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn leave(tx: &mut Tx, device: &DeviceId, did: &Did) -> Result<bool> {
    let done = sqlx::query("DELETE FROM device_accounts WHERE device = $1 AND did = $2")
        .bind(device.as_str())
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn end_all(tx: &mut Tx, did: &Did) -> Result<u64> {
    let done = sqlx::query("DELETE FROM device_accounts WHERE did = $1")
        .bind(did.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}

pub(super) async fn devices_of(db: &Db, did: &Did) -> Result<Vec<Device>> {
    let rows = sqlx::query(
        "SELECT id, address, user_agent, seen_at, entered_at FROM devices
         JOIN device_accounts ON device = id AND request = '' AND did = $1 ORDER BY seen_at DESC, id",
    )
    .bind(did.as_str())
    .fetch_all(db.reader())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Device {
                id: row.try_get::<String, _>("id")?.into(),
                address: row.try_get("address")?,
                user_agent: row.try_get("user_agent")?,
                seen_at: Timestamp::from_millis(row.try_get("seen_at")?),
                entered_at: Timestamp::from_millis(row.try_get("entered_at")?),
            })
        })
        .collect()
}

/// Removes a batch of sign-ins for one authorization request that began in `range`.
pub(super) async fn sweep_for_requests(db: &Db, range: SweepRange) -> Result<Batch> {
    let old = OldRows {
        table: "device_accounts",
        key: "device, did, request",
        time: "entered_at",
        only: Some("request <> ''"),
    };
    old.sweep(db, range).await
}

/// The times of the sweep of devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceTimes {
    pub(super) now: Timestamp,
    /// How long a device without a sign-in stays after its last visit.
    pub(super) keep_unused: Duration,
    /// How long it stays at least after its last sign-in.
    pub(super) keep_known: Duration,
    /// How long any device stays after its last visit.
    pub(super) keep: Duration,
    /// When a device with a sign-in is looked at again.
    pub(super) again_after: Duration,
}

/// Looks at a batch of devices whose turn has come, and removes those that were not seen for too long,
/// with their sign-ins.
pub(super) async fn sweep_devices(db: &Db, times: DeviceTimes) -> Result<Batch> {
    let mut tx = db.begin().await?;
    let latest = times.now.plus(times.again_after);
    heal_turns(&mut *tx, &TURNS, times.now, latest).await?;
    // In turns, because most devices have a sign-in and stay for months: a look at all of them each
    // time would read the whole table. A device without a sign-in has its next turn when it may be
    // removed.
    let most = db.rows_at_once();
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE devices SET sweep_at = CASE
            WHEN EXISTS (SELECT 1 FROM device_accounts WHERE device_accounts.device = devices.id) THEN $2
            WHEN seen_at + $3 > $1 AND seen_at + $3 < $2 THEN seen_at + $3 ELSE $2 END
         WHERE sweep_at <= $1 AND id IN (
            SELECT id FROM devices WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT {most})
         RETURNING id"
    )))
    .bind(times.now.as_millis())
    .bind(latest.as_millis())
    .bind(i64::try_from(times.keep_unused.as_millis()).unwrap_or(i64::MAX))
    .fetch_all(&mut *tx)
    .await?;
    let mut removed = 0;
    for row in &rows {
        removed += remove_if_old(&mut tx, row.try_get("id")?, times).await?;
    }
    tx.commit().await?;
    Ok(Batch { removed, has_more: rows.len() as u64 >= most, reached: None })
}

const TURNS: Turns = Turns { table: "devices", key: "id", column: "sweep_at", only: None };

async fn remove_if_old(tx: &mut Tx, id: &str, times: DeviceTimes) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM devices WHERE id = $1 AND (seen_at < $3 OR (seen_at < $2
         AND (signed_in_at IS NULL OR signed_in_at < $4)
         AND NOT EXISTS (SELECT 1 FROM device_accounts WHERE device_accounts.device = $1)))",
    )
    .bind(id)
    .bind(times.now.minus(times.keep_unused).as_millis())
    .bind(times.now.minus(times.keep).as_millis())
    .bind(times.now.minus(times.keep_known).as_millis())
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 1 {
        sqlx::query("DELETE FROM device_accounts WHERE device = $1").bind(id).execute(&mut **tx).await?;
    }
    Ok(done.rows_affected())
}

/// Returns the bytes of a device's row: its texts, and hashes and times.
pub(super) fn size_of(seen: &BrowserInfo) -> usize {
    shortened(&seen.user_agent).len() + 256
}

/// Shortens a user agent. Browsers send one line, but a client can send more.
fn shortened(user_agent: &str) -> String {
    user_agent.chars().take(LONGEST_USER_AGENT).collect()
}

const LONGEST_USER_AGENT: usize = 300;
/// Stands for the cookie of a device whose cookies were stolen. No cookie has this hash.
const FORGOTTEN: &str = "";
