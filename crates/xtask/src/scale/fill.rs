//! Statements that fill the large tables, as years of use would.
//!
//! Every row is made from a number `n`. Ids are scattered, so that neighbours in a table are no
//! neighbours in its indexes. The schema keeps all its indexes meanwhile.

/// The two dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

/// The values of a real account and host, which the made-up rows share.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    /// The DID of the account whose password everybody has.
    pub(super) did: &'a str,
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Rows of the largest tables.
    pub(super) rows: usize,
}

/// One table.
#[derive(Debug)]
struct Table {
    name: &'static str,
    /// It has `rows` divided by this many rows.
    divisor: usize,
    columns: &'static str,
    /// `#id#` is an id, `#did#` an account's DID, `#now#` the time, `#days#` a number of past days,
    /// `#day#` a day in milliseconds.
    values: &'static str,
}

/// Accounts for each row of the largest tables.
const ACCOUNT_DIVISOR: usize = 2;

const fn table(name: &'static str, divisor: usize, columns: &'static str, values: &'static str) -> Table {
    Table { name, divisor, columns, values }
}

const TABLES: [Table; 22] = [
    table(
        "accounts",
        ACCOUNT_DIVISOR,
        "did, handle, email, email_key, email_confirmed_at, password_hash, host_id, host_key, state, \
         deactivated_at, delete_after, taken_down_at, takedown_ref, created_at",
        "#own#, 's' || n || '.test', 's' || n || '@example.com', 's' || n || '@example.com', #now# - #days# * #day#, \
         (SELECT password_hash FROM accounts WHERE did = #sample#), (SELECT host_id FROM accounts WHERE did = #sample#), \
         (SELECT host_key FROM accounts WHERE did = #sample#), 'open', \
         CASE WHEN n % 200 = 0 THEN #now# - #days# * #day# END, CASE WHEN n % 2000 = 0 THEN #now# + 30 * #day# END, \
         CASE WHEN n % 500 = 0 THEN #now# - #days# * #day# END, CASE WHEN n % 500 = 0 THEN 'x' END, #now# - #days# * #day#",
    ),
    table(
        "sessions",
        1,
        "id, did, scope, opened_at, touched_at, expires_at, ended_at",
        "#id#, #did#, 'com.atproto.access', #now# - (#days# + 1) * #day#, #now# - #days# * #day#, \
         #now# + (60 - #days#) * #day#, CASE WHEN n % 5 = 0 THEN #now# - #days# * #day# END",
    ),
    table(
        "refresh_tokens",
        1,
        "session_id, generation, expires_at, used_at",
        "#id#, 1 + n % 40, #now# + (60 - #days#) * #day#, CASE WHEN n % 10 = 3 THEN #now# - #days# * #day# END",
    ),
    table(
        "app_passwords",
        10,
        "did, name, hash, privilege, created_at",
        "#did#, 'phone', #id#, 'plain', #now# - #days# * #day#",
    ),
    table(
        "devices",
        ACCOUNT_DIVISOR,
        "id, session, previous, rotated_at, address, user_agent, seen_at, created_at",
        "#id#, #id#, NULL, #now# - #days# * #day#, '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0', \
         #now# - 4 * #days# * #day#, #now# - 4 * #days# * #day#",
    ),
    table(
        "device_accounts",
        ACCOUNT_DIVISOR,
        "device, did, request, entered_at",
        "#id#, #did#, CASE WHEN n % 50 = 0 THEN 'req-' || #id# ELSE '' END, #now# - #days# * #day#",
    ),
    table(
        "known_addresses",
        ACCOUNT_DIVISOR,
        "did, address, seen_at",
        "#did#, #id#, #now# - #days# % 35 * #day#",
    ),
    table(
        "oauth_clients",
        100,
        "client_id, standing, document, fetched_at, created_at",
        "'https://app' || n || '.example.com/client-metadata.json', 'known', '{}', #now# - #days# * #day#, #now# - #days# * #day#",
    ),
    table(
        "oauth_grants",
        ACCOUNT_DIVISOR,
        "id, did, client_id, scope, dpop_key, client_auth, device, refreshable, generation, rotated_at, \
         rotated_before_at, idle_until, expires_at, created_at, ended_at, place",
        "#id#, #did#, 'https://app' || (n % 97) || '.example.com/client-metadata.json', 'atproto transition:generic', \
         #id#, '{\"method\":\"none\"}', #id#, 'yes', n % 90, #now# - #days# * #day#, #now# - #days# * #day#, \
         #now# + (85 - #days#) * #day#, #now# + 300 * #day#, #now# - #days# * #day#, \
         CASE WHEN n % 4 = 0 THEN #now# - #days# * #day# END, 'home'",
    ),
    table(
        "oauth_codes",
        10,
        "hash, client_id, pushed, scope, did, device, expires_at, used_at, grant_id",
        "#id#, 'https://app1.example.com/client-metadata.json', '{}', 'atproto', #did#, #id#, #now# - n % 48 * #day# / 24, \
         CASE WHEN n % 10 > 0 THEN #now# - n % 7200000 END, CASE WHEN n % 10 > 0 THEN #id# END",
    ),
    table(
        "oauth_requests",
        20,
        "id, client_id, pushed, device, expires_at, decided_at",
        "'req-' || #id#, 'https://app1.example.com/client-metadata.json', '{}', NULL, #now# + n % 7200000 - 3600000, NULL",
    ),
    table(
        "oauth_consents",
        4,
        "did, client_id, scope, updated_at",
        "#did#, 'https://app' || n || '.example.com/client-metadata.json', 'atproto transition:generic', #now# - #days# * #day#",
    ),
    table("oauth_seen", 10, "hash, expires_at", "#id#, #now# + n % 7200000 - 3600000"),
    table(
        "oauth_scopes",
        1000,
        "id, scope, used_at",
        "#id#, 'atproto repo:com.example.' || n, #now# - 4 * #days# * #day#",
    ),
    table(
        "permission_sets",
        1000,
        "nsid, document, verified_at, checked_at",
        "'com.example.set' || n, NULL, NULL, #now# - #days# * #day#",
    ),
    table(
        "links",
        10,
        "id, did, handle, pds, server, client_id, scope, state, version, issued_at, lease_until, unanswered, device, \
         created_at, used_at, ended_at, reason, revoke_attempts",
        // Live ones would be refreshed at their servers, which do not exist.
        "#id#, 'did:plc:' || substr(#own#, 9, 8) || 'bbbbbbbbbbbbbbbb', NULL, 'https://pds.example.com', '{}', 'x', 'atproto', \
         'dead', 1, #now# - #days# * #day#, 0, 0, #id#, #now# - #days# * #day#, #now# - #days# * #day#, #now# - #days# * #day#, 'x', 0",
    ),
    table(
        "outbox",
        50,
        "id, did, kind, sealed, state, attempts, due_at, expires_at, created_at",
        "#id#, #did#, 'reset_password', '', 'given_up', 9, #now# - #days# * #day#, #now# - #days# * #day#, #now# - #days# * #day#",
    ),
    table(
        "email_tokens",
        20,
        "did, purpose, hash, tries, expires_at",
        "#did#, 'reset_password', #id#, 0, #now# - n % 48 * #day# / 24",
    ),
    table("changes", 20, "id, at, kind, subject", "#id#, #now# - n % 3600000, 'account', #did#"),
    table(
        "audit",
        10,
        "id, at, actor, action, subject, detail",
        "#id#, #now# - #days# * #day#, 'operator', 'account.seen', #did#, '{}'",
    ),
    table("rate_counters", 20, "bucket, window_start, count", "'x:' || #id#, #now# - n % 86400000, 3"),
    table(
        "invite_codes",
        10,
        "code, uses, left_over, for_account, created_by, created_at",
        "'code-' || #id#, 1, n % 2, 'admin', 'admin', #now# - #days# * #day#",
    ),
];

/// Rows that a sweep has to remove: its name, and what it finds in which table. Times are those of the
/// sweeps, in hours before now.
const DUE: [(&str, &str); 11] = [
    ("refresh tokens", "refresh_tokens WHERE expires_at <= #now#"),
    ("ended sessions", "sessions WHERE ended_at < #now# - 48 * #hour#"),
    ("expired sessions", "sessions WHERE expires_at < #now# - 48 * #hour#"),
    ("ended grants", "oauth_grants WHERE ended_at < #now# - 24 * #hour#"),
    ("idle grants", "oauth_grants WHERE idle_until < #now# - 24 * #hour# AND place = 'home'"),
    ("codes", "oauth_codes WHERE grant_id IS NULL AND expires_at < #now# - 24 * #hour#"),
    ("authorization requests", "oauth_requests WHERE expires_at <= #now#"),
    ("used proofs", "oauth_seen WHERE expires_at <= #now#"),
    ("codes in emails", "email_tokens WHERE expires_at < #now# - 24 * #hour#"),
    ("known addresses", "known_addresses WHERE seen_at < #now# - 720 * #hour#"),
    ("links", "links WHERE ended_at < #now# - 720 * #hour#"),
];

/// Returns a query for the number of rows that each sweep had to remove at that moment: a name and a
/// number in each row.
pub(super) fn due(now: u64) -> String {
    let each = DUE.map(|(sweep, found)| format!("SELECT '{sweep}', count(*) FROM {found}"));
    each.join(" UNION ALL ").replace("#now#", &now.to_string()).replace("#hour#", "CAST(3600000 AS BIGINT)")
}

/// Returns how many accounts are made.
pub(super) const fn accounts(rows: usize) -> usize {
    rows / ACCOUNT_DIVISOR
}

/// Returns the statements, each with the table's name and its number of rows.
pub(super) fn statements(dialect: Dialect, sample: &Sample<'_>) -> Vec<(&'static str, usize, String)> {
    let statement = |table: &Table| {
        let rows = sample.rows / table.divisor;
        (table.name, rows, table.insert(dialect, sample, rows))
    };
    TABLES.iter().map(statement).collect()
}

impl Table {
    fn insert(&self, dialect: Dialect, sample: &Sample<'_>, rows: usize) -> String {
        let accounts = accounts(sample.rows).max(1);
        let values = self
            .values
            .replace("#own#", &did(dialect, "n"))
            .replace("#did#", &did(dialect, &format!("(n % {accounts} + 1)")))
            .replace("#id#", &id(dialect, "n"))
            .replace("#sample#", &format!("'{}'", sample.did))
            .replace("#now#", &sample.now.to_string())
            .replace("#days#", "(n % 90)")
            .replace("#day#", "CAST(86400000 AS BIGINT)");
        let Self { name, columns, .. } = self;
        match dialect {
            Dialect::Postgres => format!(
                "INSERT INTO {name} ({columns}) SELECT {values} FROM generate_series(1::bigint, {rows}) AS n ON CONFLICT DO NOTHING"
            ),
            Dialect::Sqlite => format!(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
                 INSERT OR IGNORE INTO {name} ({columns}) SELECT {values} FROM numbers"
            ),
        }
    }
}

/// Eight hexadecimal digits, scattered over their range. The factor is odd, so no two numbers below
/// 2^32 have the same.
fn scattered(dialect: Dialect, n: &str) -> String {
    let number = format!("({n} * 2654435761 % 4294967296)");
    match dialect {
        Dialect::Postgres => format!("lpad(to_hex({number}), 8, '0')"),
        Dialect::Sqlite => format!("printf('%08x', {number})"),
    }
}

/// An id as long as a hash.
fn id(dialect: Dialect, n: &str) -> String {
    format!("({} || '{}')", scattered(dialect, n), "0".repeat(56))
}

/// A DID, in whose alphabet four hexadecimal digits are missing.
fn did(dialect: Dialect, n: &str) -> String {
    let letters = [('0', 'g'), ('1', 'h'), ('8', 'i'), ('9', 'j')]
        .iter()
        .fold(scattered(dialect, n), |text, (from, to)| format!("replace({text}, '{from}', '{to}')"));
    format!("('did:plc:' || {letters} || 'aaaaaaaaaaaaaaaa')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left() {
        let sample = Sample { did: "did:plc:x", now: 1_800_000_000_000, rows: 1000 };
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            for (name, rows, statement) in statements(dialect, &sample) {
                assert!(!statement.contains('#'), "{name}: {statement}");
                assert!(rows > 0, "{name}");
            }
        }
        assert!(!due(sample.now).contains('#'));
    }
}
