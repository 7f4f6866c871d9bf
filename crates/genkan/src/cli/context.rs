//! The environment of a command: the configuration, and on demand the database or all services.

use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, Output};
use crate::app::{self, App};
use crate::config::{Config, Environment, Reading};
use crate::db::{self, Db, PoolSize};

/// The environment of one command.
#[derive(Debug)]
pub(crate) struct Context {
    file: Option<PathBuf>,
    environment: Environment,
    pub(crate) output: Output,
}

impl Context {
    pub(super) fn new(file: Option<PathBuf>, output: Output) -> Self {
        let environment = Environment::of_process();
        let file = file.or_else(|| environment.value("GENKAN_CONFIG").map(PathBuf::from));
        Self { file, environment, output }
    }

    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.environment, self.file.as_deref())?)
    }

    /// The configuration with the source of each value, even if it is wrong.
    pub(super) fn reading(&self) -> Reading {
        Reading::of(&self.environment, self.file.as_deref())
    }

    /// Opens the database. Creates the data directory as the server would.
    pub(crate) async fn database(&self, config: &Config) -> Result<Db, Failure> {
        upgrade_schema(config).await?;
        let size = PoolSize { connections: 2, acquire: config.database.acquire_timeout };
        within(OPENING, Db::open(&(&config.database.url).into(), size)).await
    }

    /// Builds every service, without listening.
    pub(crate) async fn app(&self) -> Result<App, Failure> {
        let config = self.config()?;
        upgrade_schema(&config).await?;
        // Boxed: each command waits for this future, and it is large.
        match Box::pin(tokio::time::timeout(OPENING, App::build(config))).await {
            Ok(built) => Ok(built?),
            Err(_) => Err(anyhow::anyhow!(
                "opening the database took longer than {} s: check that GENKAN_DATABASE_URL answers",
                OPENING.as_secs()
            )
            .into()),
        }
    }

    /// Runs a command's work to completion on a runtime of its own.
    #[expect(clippy::unused_self, reason = "the way commands wait, whatever the context becomes")]
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| anyhow::anyhow!(error).context("the command's runtime cannot be started"))?;
        runtime.block_on(work)
    }
}

/// A start that takes longer has failed.
const OPENING: Duration = Duration::from_secs(5);
/// After this long, a command says what it waits for.
const SAY_AFTER: Duration = Duration::from_secs(6);

/// Brings the schema up to date, for as long as that takes: a command of a newer version may come
/// before its server.
async fn upgrade_schema(config: &Config) -> Result<(), Failure> {
    let mut upgrade = std::pin::pin!(app::upgrade_schema(config, OPENING));
    let Ok(done) = tokio::time::timeout(SAY_AFTER, &mut upgrade).await else {
        eprintln!("genkan: the database's schema is being brought up to date, which may take minutes");
        return Ok(upgrade.await?);
    };
    Ok(done?)
}

async fn within(limit: Duration, opening: impl Future<Output = db::Result<Db>>) -> Result<Db, Failure> {
    match tokio::time::timeout(limit, opening).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(anyhow::anyhow!(
            "opening the database took longer than {} s: check that GENKAN_DATABASE_URL answers",
            limit.as_secs()
        )
        .into()),
    }
}
