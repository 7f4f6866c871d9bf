//! Statements that rightly do what the check refuses, and what the program inserts into texts.

/// Statements that walk through a large table or an index of it, by a part of their text, and why
/// they may.
const WALKS: &[(&str, &str)] = &[
    ("SELECT id FROM changes WHERE kind = 'fleet'", "a partial index has these rows only, and they are few"),
    (
        "FROM oauth_grants WHERE ended_at IS NULL AND idle_until > $1 ORDER BY created_at DESC",
        "reads the newest grants until it has enough; those that ran out are few, since a job removes them",
    ),
    (
        "SET lease = NULL, lease_until = 0 WHERE lease IS NOT NULL",
        "at the start of the only process of a SQLite file; its rows are the sagas under way",
    ),
];

/// Statements that need one index though another serves their condition, by a part of their text, and
/// why.
const NEEDED: &[(&str, &str, &str)] = &[(
    "ORDER BY delete_tried_at LIMIT 20",
    "accounts_due_for_deletion",
    "by any other index of the column `host_id`, the job reads all accounts of a host each minute",
)];

/// Statements that no test on PostgreSQL executes, by their whole text, and why.
const UNEXECUTED: &[(&str, &str)] = &[
    ("SELECT 1 AS found FROM sqlite_master WHERE type = 'table' AND name = $1", "a table that SQLite has"),
    ("SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('table', 'index')", "only SQLite has it"),
    ("SELECT COUNT(*) AS found FROM … NOT INDEXED", "reads a damaged SQLite file"),
    ("SELECT COUNT(*) AS found FROM … INDEXED BY … ", "reads a damaged SQLite file"),
    ("DELETE FROM replicas", "at the start of the only process of a SQLite file"),
];

/// What the program inserts into a text, for each gap in it that is a variable. `*` stands for
/// anything. Each of the resulting texts must be executed.
///
/// Gaps that are constants or macros need no entry, and neither do those of `leases_on!`,
/// `SealedColumn`, `OldRows` and `Turns`, whose values are in the source.
pub(super) const INSERTED: &[(&str, &[&str])] = &[
    ("SELECT {COLUMNS} FROM accounts WHERE {column} = $1", &["did", "handle", "email_key"]),
    ("SELECT 1 FROM accounts WHERE {column} = $1", &["handle", "next_handle", "email_key"]),
    (
        "SELECT {COLUMNS} FROM oauth_clients WHERE {condition} client_id > $1 ORDER BY client_id LIMIT 200",
        &["", "standing = $2 AND"],
    ),
    (
        "SELECT {COLUMNS} FROM oauth_grants WHERE ended_at IS NULL AND idle_until > $1 {condition} \
         ORDER BY created_at DESC, id LIMIT $2",
        &["", "AND did = $3", "AND client_id = $3", "AND did = $3 AND client_id = $4"],
    ),
    ("SELECT id FROM oauth_grants WHERE ended_at IS NULL AND idle_until > $1 AND id IN ({})", &["*"]),
    (
        "SELECT id, url, did, state, weight, capacity, region, sign_ups_per_hour, admin_password_sealed, \
         signing_key, version, blob_limit FROM hosts {rest}",
        &["ORDER BY id", "WHERE id = $1"],
    ),
    ("INSERT INTO oauth_seen (hash, expires_at) VALUES {}", &["*"]),
    (
        "SELECT id FROM oauth_grants WHERE ended_at IS NULL AND client_id = $1 \
         ORDER BY created_at LIMIT {most}",
        &["200"],
    ),
    (
        "UPDATE oauth_clients SET sweep_at = $2 WHERE sweep_at <= $1 AND client_id IN ( \
         SELECT client_id FROM oauth_clients WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT {most}) \
         RETURNING client_id",
        &["200"],
    ),
    (
        "UPDATE devices SET sweep_at = CASE \
         WHEN EXISTS (SELECT 1 FROM device_accounts WHERE device_accounts.device = devices.id) THEN $2 \
         WHEN seen_at + $3 > $1 AND seen_at + $3 < $2 THEN seen_at + $3 ELSE $2 END \
         WHERE sweep_at <= $1 AND id IN ( \
         SELECT id FROM devices WHERE sweep_at <= $1 ORDER BY sweep_at LIMIT {most}) RETURNING id",
        &["200"],
    ),
    (
        "UPDATE links SET kept_alive_at = $1, \
         keep_alive_due = CASE WHEN issued_at < $2 OR issued_at > $3 THEN $3 \
         ELSE issued_at + ($1 - $2) + 1 END \
         WHERE state = 'live' AND keep_alive_due <= $1 AND id IN ( \
         SELECT id FROM links WHERE state = 'live' AND keep_alive_due <= $1 \
         ORDER BY keep_alive_due LIMIT {most} ) RETURNING id, version, server, issued_at",
        &["200"],
    ),
    ("SELECT COUNT(*) AS found FROM {table} NOT INDEXED", &["*"]),
    ("SELECT COUNT(*) AS found FROM {table} INDEXED BY {name}", &["*"]),
];

/// Returns the index that a statement needs and that its plan does not use, and why it needs it.
pub(super) fn unused_index(text: &str, plan: &[String]) -> Option<(&'static str, &'static str)> {
    let needed = NEEDED.iter().find(|(part, ..)| text.contains(part));
    needed
        .filter(|(_, index, _)| !plan.iter().any(|line| line.contains(index)))
        .map(|(_, index, why)| (*index, *why))
}

/// Whether a statement may walk through a large table.
pub(super) fn may_walk(text: &str) -> bool {
    WALKS.iter().any(|(part, _)| text.contains(part))
}

/// Whether no test needs to execute a statement.
pub(super) fn may_be_unexecuted(text: &str) -> bool {
    UNEXECUTED.iter().any(|(whole, _)| *whole == text)
}
