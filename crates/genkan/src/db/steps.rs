//! The steps from an empty database to today's schema.
//!
//! A step is one statement that the version of Genkan before can live with: it adds a table, a
//! column or an index, fills in what an earlier step added, or drops an index that another one
//! replaces. A table's name is never used for another table. An index is built beside running replicas
//! (see [`super::migrate`]).

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType};

use super::dialect::Dialect;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) version: i64,
    pub(super) name: &'static str,
    text: Text,
    /// The last step that a binary must know to start and run on a schema with this step.
    pub(super) oldest_binary: i64,
}

#[derive(Clone, Copy, Debug)]
enum Text {
    /// One text for both databases.
    Portable(&'static str),
    /// A text for each, where one is not possible.
    #[cfg_attr(not(test), expect(dead_code, reason = "no step needs it yet"))]
    Each { sqlite: &'static str, postgres: &'static str },
}

impl Step {
    /// A step that every binary can live with which knows the step [`LAST_OF_SQLX`].
    pub(super) const fn new(version: i64, name: &'static str, text: &'static str) -> Self {
        Self { version, name, text: Text::Portable(text), oldest_binary: LAST_OF_SQLX }
    }

    /// A step whose text differs between the databases.
    #[cfg(test)]
    pub(super) const fn per_dialect(
        version: i64,
        name: &'static str,
        sqlite: &'static str,
        postgres: &'static str,
    ) -> Self {
        Self { version, name, text: Text::Each { sqlite, postgres }, oldest_binary: LAST_OF_SQLX }
    }

    /// A step that binaries can live with only if they know the step `oldest_binary`.
    #[cfg(test)]
    pub(super) const fn since(self, oldest_binary: i64) -> Self {
        Self { oldest_binary, ..self }
    }

    /// The text as it is in its file.
    pub(super) const fn text(&self, dialect: Dialect) -> &'static str {
        match (self.text, dialect) {
            (Text::Portable(text), _)
            | (Text::Each { sqlite: text, .. }, Dialect::Sqlite)
            | (Text::Each { postgres: text, .. }, Dialect::Postgres) => text,
        }
    }

    /// The statement without the comment in front of it.
    pub(super) fn statement(&self, dialect: Dialect) -> &'static str {
        let mut rest = self.text(dialect).trim_start();
        while let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after).trim_start();
        }
        rest
    }

    /// The name of the index, if the step builds one.
    pub(super) fn index(&self, dialect: Dialect) -> Option<&'static str> {
        let statement = self.statement(dialect);
        let rest = statement
            .strip_prefix("CREATE INDEX ")
            .or_else(|| statement.strip_prefix("CREATE UNIQUE INDEX "));
        rest.and_then(|rest| rest.split_whitespace().next())
    }

    /// What the database remembers of the text.
    pub(super) fn checksum(&self, dialect: Dialect) -> String {
        HEXLOWER.encode(&Sha256::digest(self.text(dialect)))
    }

    /// The step as sqlx records it.
    pub(super) fn for_sqlx(&self, dialect: Dialect) -> Migration {
        let text = self.text(dialect).into_sql_str();
        Migration::new(self.version, self.name.into(), MigrationType::Simple, text, false)
    }
}

/// The last step that is recorded in the table of sqlx's migrator. Binaries that know no later step
/// look only there, and refuse a schema with a later one.
pub(super) const LAST_OF_SQLX: i64 = 9;

/// Every step, oldest first.
pub(super) const STEPS: &[Step] = &[
    Step::new(1, "start", include_str!("../../../../migrations/0001_start.sql")),
    Step::new(2, "mail", include_str!("../../../../migrations/0002_mail.sql")),
    Step::new(3, "signin", include_str!("../../../../migrations/0003_signin.sql")),
    Step::new(4, "oauth", include_str!("../../../../migrations/0004_oauth.sql")),
    Step::new(5, "links", include_str!("../../../../migrations/0005_links.sql")),
    Step::new(6, "linked grants", include_str!("../../../../migrations/0006_linked_grants.sql")),
    Step::new(7, "deletions", include_str!("../../../../migrations/0007_deletions.sql")),
    Step::new(8, "replicas", include_str!("../../../../migrations/0008_replicas.sql")),
    Step::new(9, "attempts", include_str!("../../../../migrations/0009_attempts.sql")),
    Step::new(10, "schema steps", include_str!("../../../../migrations/0010_schema_steps.sql")),
    Step::new(11, "handle claims", include_str!("../../../../migrations/0011_handle_claims.sql")),
    Step::new(30, "lost cookies", include_str!("../../../../migrations/0030_lost_cookies.sql")),
    Step::new(31, "known addresses", include_str!("../../../../migrations/0031_known_addresses.sql")),
    Step::new(
        32,
        "known addresses by time",
        include_str!("../../../../migrations/0032_known_addresses_by_seen.sql"),
    ),
    Step::new(35, "takedowns", include_str!("../../../../migrations/0035_takedowns.sql")),
    Step::new(36, "takedowns by lease", include_str!("../../../../migrations/0036_takedowns_by_lease.sql")),
    Step::new(
        40,
        "use of permission sets",
        include_str!("../../../../migrations/0040_permission_sets_used.sql"),
    ),
    Step::new(
        41,
        "use of permission sets before",
        include_str!("../../../../migrations/0041_permission_sets_used_before.sql"),
    ),
    Step::new(
        42,
        "permission sets without a use",
        include_str!("../../../../migrations/0042_permission_sets_unused.sql"),
    ),
    Step::new(
        43,
        "permission sets by use",
        include_str!("../../../../migrations/0043_permission_sets_by_use.sql"),
    ),
    Step::new(200, "accounts by age", include_str!("../../../../migrations/0200_accounts_by_age.sql")),
    Step::new(201, "accounts to delete", include_str!("../../../../migrations/0201_accounts_to_delete.sql")),
    Step::new(202, "accounts by slot", include_str!("../../../../migrations/0202_accounts_by_slot.sql")),
    Step::new(
        203,
        "invite codes by age",
        include_str!("../../../../migrations/0203_invite_codes_by_age.sql"),
    ),
    Step::new(204, "renames by lease", include_str!("../../../../migrations/0204_renames_by_lease.sql")),
    Step::new(205, "account counts", include_str!("../../../../migrations/0205_account_counts.sql")),
    Step::new(
        206,
        "account counts fill",
        include_str!("../../../../migrations/0206_account_counts_fill.sql"),
    ),
    Step::new(
        207,
        "account counts by check",
        include_str!("../../../../migrations/0207_account_counts_by_check.sql"),
    ),
    Step::new(208, "sessions by end", include_str!("../../../../migrations/0208_sessions_by_end.sql")),
    Step::new(
        209,
        "refresh tokens by expiry",
        include_str!("../../../../migrations/0209_refresh_tokens_by_expiry.sql"),
    ),
    Step::new(
        210,
        "device accounts for requests",
        include_str!("../../../../migrations/0210_device_accounts_for_requests.sql"),
    ),
    Step::new(211, "outbox by age", include_str!("../../../../migrations/0211_outbox_by_age.sql")),
    Step::new(212, "changes of fleet", include_str!("../../../../migrations/0212_changes_of_fleet.sql")),
    Step::new(213, "devices sweep at", include_str!("../../../../migrations/0213_devices_sweep_at.sql")),
    Step::new(214, "devices by sweep", include_str!("../../../../migrations/0214_devices_by_sweep.sql")),
    Step::new(
        215,
        "oauth clients sweep at",
        include_str!("../../../../migrations/0215_oauth_clients_sweep_at.sql"),
    ),
    Step::new(
        216,
        "oauth clients by sweep",
        include_str!("../../../../migrations/0216_oauth_clients_by_sweep.sql"),
    ),
    Step::new(
        217,
        "oauth clients by standing",
        include_str!("../../../../migrations/0217_oauth_clients_by_standing.sql"),
    ),
    Step::new(
        218,
        "oauth codes unused by did",
        include_str!("../../../../migrations/0218_oauth_codes_unused_by_did.sql"),
    ),
    Step::new(
        219,
        "oauth codes without grant",
        include_str!("../../../../migrations/0219_oauth_codes_without_grant.sql"),
    ),
    Step::new(
        220,
        "oauth codes unredeemed",
        include_str!("../../../../migrations/0220_oauth_codes_unredeemed.sql"),
    ),
    Step::new(
        221,
        "oauth grants by end",
        include_str!("../../../../migrations/0221_oauth_grants_by_end.sql"),
    ),
    Step::new(
        222,
        "oauth grants live by age",
        include_str!("../../../../migrations/0222_oauth_grants_live_by_age.sql"),
    ),
    Step::new(
        223,
        "oauth grants live by client",
        include_str!("../../../../migrations/0223_oauth_grants_live_by_client.sql"),
    ),
    Step::new(
        224,
        "oauth grants linked by idle",
        include_str!("../../../../migrations/0224_oauth_grants_linked_by_idle.sql"),
    ),
    Step::new(
        225,
        "oauth scopes by use",
        include_str!("../../../../migrations/0225_oauth_scopes_by_use.sql"),
    ),
    Step::new(
        226,
        "permission sets missing",
        include_str!("../../../../migrations/0226_permission_sets_missing.sql"),
    ),
    Step::new(
        227,
        "link clients by use",
        include_str!("../../../../migrations/0227_link_clients_by_use.sql"),
    ),
    Step::new(
        228,
        "links by client key",
        include_str!("../../../../migrations/0228_links_by_client_key.sql"),
    ),
    Step::new(
        229,
        "links keep alive due",
        include_str!("../../../../migrations/0229_links_keep_alive_due.sql"),
    ),
    Step::new(
        230,
        "links to keep alive",
        include_str!("../../../../migrations/0230_links_to_keep_alive.sql"),
    ),
    Step::new(
        231,
        "links by sealing key",
        include_str!("../../../../migrations/0231_links_by_sealing_key.sql"),
    ),
    Step::new(
        232,
        "link logins by sealing key",
        include_str!("../../../../migrations/0232_link_logins_by_sealing_key.sql"),
    ),
    Step::new(
        233,
        "outbox by sealing key",
        include_str!("../../../../migrations/0233_outbox_by_sealing_key.sql"),
    ),
    Step::new(
        280,
        "devices with a sign-in",
        include_str!("../../../../migrations/0280_devices_signed_in.sql"),
    ),
    Step::new(281, "slow answers", include_str!("../../../../migrations/0281_slow_answers.sql")),
    Step::new(282, "earlier sign-ins", include_str!("../../../../migrations/0282_earlier_sign_ins.sql")),
    Step::new(320, "devices rotations", include_str!("../../../../migrations/0320_devices_rotations.sql")),
    Step::new(
        321,
        "sign-ins by rotation",
        include_str!("../../../../migrations/0321_sign_ins_by_rotation.sql"),
    ),
    Step::new(
        322,
        "earlier sign-ins by rotation",
        include_str!("../../../../migrations/0322_earlier_sign_ins_by_rotation.sql"),
    ),
    Step::new(323, "devices shown", include_str!("../../../../migrations/0323_devices_shown.sql")),
    Step::new(340, "signups by age", include_str!("../../../../migrations/0340_signups_by_age.sql")),
    Step::new(
        350,
        "documents of home accounts",
        include_str!("../../../../migrations/0350_home_documents.sql"),
    ),
    Step::new(
        351,
        "documents of home accounts by check",
        include_str!("../../../../migrations/0351_home_documents_by_check.sql"),
    ),
    Step::new(
        360,
        "accounts counted by slot",
        include_str!("../../../../migrations/0360_accounts_counted_by_slot.sql"),
    ),
    Step::new(
        361,
        "accounts due for deletion",
        include_str!("../../../../migrations/0361_accounts_due_for_deletion.sql"),
    ),
    Step::new(362, "codes of grants", include_str!("../../../../migrations/0362_oauth_codes_of_grants.sql")),
    Step::new(
        363,
        "codes by grant dropped",
        include_str!("../../../../migrations/0363_oauth_codes_by_grant_dropped.sql"),
    ),
    Step::new(
        364,
        "codes by expiry dropped",
        include_str!("../../../../migrations/0364_oauth_codes_by_expiry_dropped.sql"),
    ),
    Step::new(
        365,
        "ended grants by client",
        include_str!("../../../../migrations/0365_oauth_grants_ended_by_client.sql"),
    ),
    Step::new(
        366,
        "grants by client dropped",
        include_str!("../../../../migrations/0366_oauth_grants_by_client_dropped.sql"),
    ),
];

/// The version of the newest step.
pub(super) fn newest(steps: &[Step]) -> i64 {
    steps.iter().map(|step| step.version).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Sqlite, Dialect::Postgres];

    fn later() -> impl Iterator<Item = &'static Step> {
        STEPS.iter().filter(|step| step.version > LAST_OF_SQLX)
    }

    #[test]
    fn every_file_is_a_step_and_they_are_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let versions: Vec<i64> = files.iter().map(|file| file[..4].parse().unwrap()).collect();
        let mut listed: Vec<i64> = STEPS.iter().map(|step| step.version).collect();
        assert!(listed.is_sorted_by(|one, next| one < next), "{listed:?}");
        // A step may have a file per dialect.
        listed.retain(|version| versions.contains(version));
        let distinct: BTreeSet<i64> = versions.into_iter().collect();
        assert_eq!(listed, distinct.into_iter().collect::<Vec<_>>());
        assert_eq!(listed.len(), STEPS.len());
    }

    /// Engines that speak PostgreSQL's protocol may end a transaction at each change of the schema,
    /// so what follows it in the text could be lost.
    #[test]
    fn a_step_is_one_statement() {
        for (step, dialect) in later().flat_map(|step| BOTH.map(|dialect| (step, dialect))) {
            let code: String = step
                .text(dialect)
                .lines()
                .map(|line| line.split_once("--").map_or(line, |(code, _)| code))
                .collect();
            let statements = code.split(';').filter(|statement| !statement.trim().is_empty());
            assert_eq!(statements.count(), 1, "step {}", step.version);
        }
    }

    /// A session of a running replica may remember the columns of the table that had the name.
    #[test]
    fn no_name_of_a_table_is_used_twice() {
        for dialect in BOTH {
            let mut names = BTreeSet::new();
            for step in STEPS {
                let words: Vec<&str> = step.text(dialect).split_whitespace().collect();
                for (at, _) in words.windows(2).enumerate().filter(|(_, pair)| pair == &["CREATE", "TABLE"]) {
                    let name =
                        words[at + 2..].iter().find(|word| !["IF", "NOT", "EXISTS"].contains(word)).unwrap();
                    assert!(names.insert(*name), "step {}: {name}", step.version);
                }
            }
            assert!(names.len() > 25, "the test reads the texts: it saw {names:?}");
        }
    }

    /// The version before works on the schema with the step.
    #[test]
    fn a_step_takes_nothing_away() {
        for (step, dialect) in later().flat_map(|step| BOTH.map(|dialect| (step, dialect))) {
            let statement = step.statement(dialect).split_whitespace().collect::<Vec<_>>().join(" ");
            // Without an index it is slower.
            if statement.starts_with("DROP INDEX IF EXISTS ") {
                continue;
            }
            for word in ["DROP ", "RENAME ", "ALTER COLUMN", "SET NOT NULL"] {
                assert!(!statement.contains(word), "step {}: {statement}", step.version);
            }
            let adds_column = statement.contains(" ADD COLUMN ");
            // The version before inserts rows without the column.
            assert!(
                !adds_column || !statement.contains("NOT NULL") || statement.contains("DEFAULT"),
                "{statement}"
            );
            // Repeated after a crash, where changes of the schema end a transaction.
            assert!(
                !statement.starts_with("CREATE TABLE ")
                    || statement.starts_with("CREATE TABLE IF NOT EXISTS "),
                "{statement}"
            );
            assert!(!adds_column || statement.matches(" ADD COLUMN ").count() == 1, "{statement}");
        }
    }

    #[test]
    fn an_index_is_found_and_built_beside_writers() {
        let step = Step::new(11, "index", "-- Why.\nCREATE UNIQUE INDEX names_by_age ON names (age);\n");
        assert_eq!(step.index(Dialect::Postgres), Some("names_by_age"));
        assert_eq!(
            Dialect::Postgres.repeatable(step.statement(Dialect::Postgres)),
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS names_by_age ON names (age);\n"
        );
        let dropped = "DROP INDEX IF EXISTS names_by_age;\n";
        let step = Step::new(12, "dropped", dropped);
        assert_eq!(step.index(Dialect::Postgres), None);
        assert_eq!(Dialect::Postgres.repeatable(step.statement(Dialect::Postgres)), dropped);
    }
}
