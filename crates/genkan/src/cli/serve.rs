//! `genkan serve`: starts the server, and stops it gracefully.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, Failure};
use crate::config::Config;
use crate::serving::{Running, StartError};
use crate::telemetry::Logs;

/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(5);
/// Threads for what Genkan answers itself. Forwarding has threads of its own.
const CONTROL_THREADS: usize = 2;

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let logs = Logs::start(&config.telemetry);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| anyhow::anyhow!(error).context("the server's threads cannot be started"))?;
    let done = runtime.block_on(serve(config, &logs));
    // Jobs never end, so they are cut off here. Everything that must last is in the database.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn serve(config: Config, logs: &Logs) -> Result<(), Failure> {
    // Listening begins before the start, so that a signal during a slow start is not lost.
    let mut signals = Signals::listen()?;
    let (lag, grace) = (config.listen.shutdown_lag, config.listen.shutdown_grace);
    let running = Box::pin(Running::start(config, logs.dropped(), START)).await?;

    tokio::select! {
        () = signals.next() => {}
        lost = running.database_lost() => {
            tracing::error!(cause = &lost as &dyn std::error::Error, "stopping at once: the database can no longer be used");
            return Err(lost.into());
        }
    }
    tracing::info!(
        "stopping: new connections are refused in {lag:?}, running requests have {grace:?} after that"
    );
    // The readiness fails first. Load balancers have the lag to notice it before connections are
    // refused.
    running.readiness.drain();
    let leave = running.leave();
    tokio::select! {
        () = tokio::time::sleep(lag) => {}
        () = signals.next() => return Err(stopped_at_once(leave).await),
    }
    tokio::select! {
        in_time = running.stop(grace) => {
            if in_time { Ok(()) } else { Err(anyhow::anyhow!("requests were still running after GENKAN_SHUTDOWN_GRACE ({grace:?}) and were cut off").into()) }
        }
        () = signals.next() => Err(stopped_at_once(leave).await),
    }
}

async fn stopped_at_once(leave: impl Future<Output = ()>) -> Failure {
    leave.await;
    anyhow::anyhow!("stopped at once by a second signal").into()
}

/// The two signals that ask a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| anyhow::anyhow!(error).context("cannot listen for signals"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Build(cause) => cause.into(),
            StartError::Replica(cause) => cause.into(),
            StartError::Fleet(cause) => Self::Other(cause.into()),
            StartError::TimedOut(_) => Self::Other(error.into()),
            StartError::SignUps(cause) => Self::Other(cause.into()),
            StartError::Renames(cause) => Self::Other(cause.into()),
            StartError::Listen { .. } | StartError::Theme(_) => Self::Setting(error.to_string()),
        }
    }
}
