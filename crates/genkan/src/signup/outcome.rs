//! The state of a sign-up, and postponing one that has to wait.

use std::time::Duration;

use genkan_protocol::syntax::Did;

use super::context::Context;
use super::error::Error;
use super::sql::{self, SignUp};

/// The state of a sign-up after some steps.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Did),
    Undone(String),
    /// The host or the directory does not answer. A job continues later.
    Waiting,
}

/// Postpones a sign-up, for longer after each attempt.
pub(super) async fn wait(of: &Context, sign_up: &SignUp, did: &Did, why: &str) -> Result<Outcome, Error> {
    // The shift is bounded, so 2 s doubles at most four times, to the maximum of 30 s.
    let pause = BACKOFF.saturating_mul(1 << sign_up.attempts.clamp(0, 4)).min(BACKOFF_MOST);
    let mut tx = of.with.db.begin().await?;
    sql::put_off(&mut tx, did, &of.worker, of.now().plus(pause), why).await?;
    tx.commit().await?;
    Ok(Outcome::Waiting)
}

/// First pause of a sign-up that waits. It doubles up to [`BACKOFF_MOST`].
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MOST: Duration = Duration::from_secs(30);
