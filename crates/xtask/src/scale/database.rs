//! The database of a run: filled and looked at by SQL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::fill::{self, Dialect, Sample};
use crate::network::Network;
use crate::provision::postgres::{self, Postgres};
use crate::say::Step;
use crate::{command, workspace};

/// A database that Genkan has migrated.
#[derive(Debug)]
pub(super) enum Database {
    Postgres { server: Postgres, psql: PathBuf },
    Sqlite { file: PathBuf },
}

/// What the database counted at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Counters {
    /// Transactions, each a statement or more. PostgreSQL only.
    pub(super) transactions: u64,
    /// Rows that were read by sequential scans. PostgreSQL only.
    pub(super) scanned: u64,
}

impl Database {
    pub(super) fn postgres() -> Result<Self> {
        let beside = postgres::programs()?.join("psql");
        let psql = if beside.exists() { Some(beside) } else { workspace::find_program("psql") };
        Ok(Self::Postgres { server: Postgres::start()?, psql: psql.context("install psql")? })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "PostgreSQL",
            Self::Sqlite { .. } => "SQLite",
        }
    }

    pub(super) fn url(&self) -> Option<String> {
        match self {
            Self::Postgres { server, .. } => Some(server.url()),
            Self::Sqlite { .. } => None,
        }
    }

    /// Fills the large tables. Returns how many rows they got.
    pub(super) fn fill(&self, network: &Network, folder: &Path, sample: &Sample<'_>) -> Result<usize> {
        let dialect = match self {
            Self::Postgres { .. } => Dialect::Postgres,
            Self::Sqlite { .. } => Dialect::Sqlite,
        };
        let mut all = 0;
        for (table, rows, statement) in fill::statements(dialect, sample) {
            let step = Step::start(format!("{}: {rows} rows of {table}", self.name()));
            self.run(network, folder, &statement)?;
            all += rows;
            step.done("");
        }
        // As autovacuum leaves tables that were filled in weeks: without it, PostgreSQL reads no index
        // alone. Genkan lets SQLite collect no statistics, and its plans would depend on them.
        if let Self::Postgres { .. } = self {
            let step = Step::start(format!("{}: vacuum and statistics", self.name()));
            self.ask("VACUUM ANALYZE")?;
            step.done("");
        }
        Ok(all)
    }

    fn run(&self, network: &Network, folder: &Path, statement: &str) -> Result<()> {
        match self {
            Self::Postgres { .. } => {
                self.ask(&format!("SET synchronous_commit = off; {statement}")).map(drop)
            }
            Self::Sqlite { file } => {
                let statements = folder.join("fill.sql");
                std::fs::write(&statements, statement)?;
                command::run(network.program("scale/sqlite.mjs", &statements)?.arg(file)).map(drop)
            }
        }
    }

    /// Returns how many rows each sweep had to remove at that moment and has left. Genkan must have
    /// ended, since it keeps SQLite's file for itself.
    pub(super) fn due(&self, network: &Network, folder: &Path, now: u64) -> Result<BTreeMap<String, u64>> {
        let query = fill::due(now);
        let said = match self {
            Self::Postgres { .. } => self.ask(&query)?,
            Self::Sqlite { file } => {
                let statements = folder.join("due.sql");
                std::fs::write(&statements, query)?;
                command::run(network.program("scale/sqlite.mjs", &statements)?.arg(file).arg("print"))?
            }
        };
        let read = |line: &str| -> Result<(String, u64)> {
            let (sweep, rows) = line.rsplit_once('|').with_context(|| format!("a row is {line}"))?;
            Ok((sweep.to_owned(), rows.trim().parse()?))
        };
        said.lines().filter(|line| !line.trim().is_empty()).map(read).collect()
    }

    /// Runs statements on PostgreSQL and returns what they print.
    fn ask(&self, statements: &str) -> Result<String> {
        let Self::Postgres { server, psql } = self else { return Ok(String::new()) };
        let mut call = Command::new(psql);
        call.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements]).arg(server.url());
        command::run(&mut call)
    }

    pub(super) fn counters(&self) -> Result<Counters> {
        let number = |text: String| text.trim().parse().unwrap_or(0);
        Ok(Counters {
            transactions: number(self.ask(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()",
            )?),
            scanned: number(
                self.ask("SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables")?,
            ),
        })
    }

    /// Returns the tables that were scanned, with the rows that were read in that way, largest first.
    pub(super) fn scanned_tables(&self) -> Result<String> {
        let found = self.ask(
            "SELECT string_agg(relname || ' ' || seq_tup_read, ', ' ORDER BY seq_tup_read DESC) \
             FROM pg_stat_user_tables WHERE seq_tup_read > 10000",
        )?;
        Ok(found.trim().to_owned())
    }

    pub(super) fn forget_statistics(&self) -> Result<()> {
        self.ask("SELECT pg_stat_reset()").map(drop)
    }

    /// Returns the bytes on disk.
    pub(super) fn size(&self) -> Result<u64> {
        match self {
            Self::Postgres { .. } => {
                Ok(self.ask("SELECT pg_database_size(current_database())")?.trim().parse()?)
            }
            Self::Sqlite { file } => Ok(std::fs::metadata(file)?.len()),
        }
    }
}
