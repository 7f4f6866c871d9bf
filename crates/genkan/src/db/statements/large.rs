//! Tables with 100 000 rows, which are spread as those of an operator with many people.

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

/// The tables that grow with people, their apps and their calls.
pub(super) const LARGE: &[&str] = &[
    "accounts",
    "app_passwords",
    "audit",
    "changes",
    "device_accounts",
    "devices",
    "email_tokens",
    "handle_claims",
    "home_documents",
    "invite_codes",
    "invite_uses",
    "known_addresses",
    "link_clients",
    "link_logins",
    "link_visits",
    "links",
    "oauth_clients",
    "oauth_codes",
    "oauth_consents",
    "oauth_grants",
    "oauth_requests",
    "oauth_scopes",
    "oauth_seen",
    "outbox",
    "permission_sets",
    "rate_counters",
    "refresh_tokens",
    "renames",
    "sessions",
    "signups",
    "takedowns",
];

/// The tables that grow with hosts, keys, processes and versions only.
pub(super) const SMALL: &[&str] = &[
    "_sqlx_migrations",
    "account_counts",
    "host_probes",
    "hosts",
    "keys",
    "replica_reads",
    "replicas",
    "schema_steps",
    "web_keys",
];

pub(super) fn is_large(table: &str) -> bool {
    LARGE.contains(&table)
}

/// Fills every large table of the connection's schema.
pub(super) async fn fill(connection: &mut AnyConnection) {
    for table in LARGE {
        let columns = sqlx::query(
            "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind,
                CAST(is_nullable AS TEXT) AS nullable FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
        )
        .bind(*table)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in &columns {
            let text = |name| column.try_get::<String, _>(name).unwrap();
            names.push(text("name"));
            values.push(value(table, &text("name"), text("kind") == "bigint", text("nullable") == "YES"));
        }
        let (names, values) = (names.join(", "), values.join(", "));
        let text =
            format!("INSERT INTO {table} ({names}) SELECT {values} FROM generate_series(1, 100000) AS n");
        connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.unwrap();
    }
    connection.execute("ANALYZE").await.unwrap();
}

/// Returns the expression for a column in the row number `n`.
fn value(table: &str, column: &str, is_number: bool, is_nullable: bool) -> String {
    let fixed = match (table, column) {
        ("links", "state") => {
            "CASE WHEN n % 100 < 80 THEN 'live' WHEN n % 100 < 83 THEN 'ending' \
             WHEN n % 100 < 85 THEN 'waiting' ELSE 'dead' END"
        }
        ("outbox", "state") => "CASE WHEN n % 2 = 0 THEN 'waiting' ELSE 'given_up' END",
        ("accounts", "state") => "CASE WHEN n % 1000 = 0 THEN 'creating' ELSE 'open' END",
        ("accounts", "deleting_at") => "CASE WHEN n % 1000 = 0 THEN n END",
        ("accounts", "delete_after") => "CASE WHEN n % 100 = 0 THEN n END",
        ("oauth_clients", "standing") => {
            "CASE WHEN n % 1000 = 0 THEN 'blocked' WHEN n % 100 = 0 THEN 'trusted' ELSE 'known' END"
        }
        ("oauth_grants", "place") => "CASE WHEN n % 4 = 0 THEN 'link' ELSE 'home' END",
        ("oauth_grants", "refreshable") => "'yes'",
        ("sessions", "scope") => "'com.atproto.access'",
        ("app_passwords", "privilege") => "'plain'",
        ("email_tokens", "purpose") => "'confirm_email'",
        ("signups" | "renames", "step") => "'recorded'",
        ("takedowns", "wish") => "'taken down'",
        ("changes", "kind") => {
            "CASE n % 5 WHEN 0 THEN 'account' WHEN 1 THEN 'session' WHEN 2 THEN 'grant' \
             WHEN 3 THEN 'link' ELSE 'fleet' END"
        }
        ("device_accounts", "request") => "CASE WHEN n % 10 = 0 THEN 'req-' || n ELSE '' END",
        ("oauth_codes", "grant_id") => "CASE WHEN n % 10 > 0 THEN 'grant' || n END",
        ("accounts" | "email_tokens" | "signups" | "renames" | "takedowns" | "home_documents", "did") => {
            "'did:plc:' || n"
        }
        (_, "did") => "'did:plc:' || (n / 3)",
        (_, "host_id") => "'host' || (n % 10)",
        ("oauth_clients", "client_id") => "'client' || n",
        (_, "client_id") => "'client' || (n % 1000)",
        (_, "sealed") => "CASE WHEN n % 10 = 0 THEN 'v1.aaaaaaaa' ELSE 'v1.bbbbbbbb' END || n",
        (_, "ended_at") => "CASE WHEN n % 10 = 0 THEN 1700000000000 + n * 1000 END",
        _ => "",
    };
    if !fixed.is_empty() {
        return fixed.to_owned();
    }
    let value = if is_number { "1700000000000 + n * 1000".to_owned() } else { format!("'{column}' || n") };
    if is_nullable { format!("CASE WHEN n % 2 = 0 THEN {value} END") } else { value }
}
