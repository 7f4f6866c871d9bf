//! Recurring work on links: keeping idle ones alive, ending undecided ones, counting, and pages for
//! the comparison with grants.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counting::Counting;
use super::error::Reason;
use super::id::LinkId;
use super::service::{DAY, Links};
use super::sql::links::{self, COUNTED_AT_ONCE, EndedLink, State};
use super::sql::turns::{self, IdleTimes};
use crate::base::monotonic_now;
use crate::base::neighbours::{Visit, visit_each};
use crate::db;
use crate::telemetry::metrics::LINKS;

impl Links {
    /// Returns live sessions, a page of them in the order of ids. Leaves out those of the last
    /// minutes, whose grants may not exist yet.
    pub(crate) async fn live(&self, after: Option<&LinkId>) -> db::Result<Vec<LinkId>> {
        let before = self.inner.now().minus(UNDECIDED);
        links::live(&self.inner.db, after, before).await
    }

    /// Returns the next page of ended sessions in the order of their ends, for the comparison with
    /// their grants. The first page has those of the last hours.
    pub(crate) async fn ended_after(&self, after: Option<&EndedLink>) -> db::Result<Vec<EndedLink>> {
        let now = self.inner.now();
        let lately = EndedLink { id: "".into(), at: now.minus(LATELY) };
        // A clock was ahead when the last page was read, if it ended after now.
        let after = after.filter(|after| after.at <= now).unwrap_or(&lately);
        links::ended_after(&self.inner.db, after, now).await
    }

    /// Whether a session still needs this client key of Genkan's.
    pub(crate) async fn is_client_key_in_use(&self, key: &str) -> db::Result<bool> {
        links::is_client_key_in_use(&self.inner.db, key).await
    }

    /// Job: ends sessions of people who came back and never decided.
    pub(crate) async fn end_undecided(&self) -> db::Result<u64> {
        let before = self.inner.now().minus(UNDECIDED);
        // Goes on after the last one, whatever became of it.
        let (mut ended, mut after) = (0, None);
        loop {
            let page = links::undecided(&self.inner.db, after.as_ref(), before).await?;
            let Some(last) = page.last() else { return Ok(ended) };
            after = Some(last.clone());
            for link in &page {
                match self.end(link, Reason::Undecided).await {
                    // About this row alone, and not about the database.
                    Err(cause) if !cause.is_passing() => {
                        let cause = &cause as &dyn std::error::Error;
                        tracing::error!(cause, %link, "a sign-in that was never decided does not end");
                    }
                    outcome => ended += u64::from(outcome?),
                }
            }
        }
    }

    /// Job: refreshes sessions that were not refreshed for 30 days, so that their servers keep
    /// them. Returns how many were refreshed.
    pub(crate) async fn keep_alive(&self) -> db::Result<u64> {
        let began = monotonic_now();
        let mut kept = 0;
        while began.elapsed() < KEEP_ALIVE_FOR {
            let now = self.inner.now();
            let times = IdleTimes { now, idle_before: now.minus(DAY * 30), again_at: now.plus(AGAIN_AFTER) };
            let turns = turns::take_turns(&self.inner.db, times).await?;
            if turns.is_empty() {
                break;
            }
            let idle = turns.into_iter().filter(|turn| times.is_idle(turn.issued_at));
            let idle = idle.filter_map(|turn| Some((turn.issuer.clone()?, turn)));
            let refreshed = AtomicU64::new(0);
            // What is left of a server's part has its next turn with those that fail, in half a day.
            visit_each(
                idle.map(|(issuer, turn)| (issuer.clone(), (issuer, turn))).collect(),
                SHARE,
                |(issuer, turn)| {
                    let refreshed = &refreshed;
                    async move {
                        let outcome = self.shared_refresh(&turn.id, turn.version).await;
                        refreshed.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
                        let now = self.inner.now();
                        match self.inner.backoff.servers.pause(&issuer, now) {
                            Some(_) if outcome.is_err() => Visit::Dead,
                            _ => Visit::Answered,
                        }
                    }
                },
            )
            .await;
            kept += refreshed.into_inner();
        }
        Ok(kept)
    }

    /// Job: counts sessions by state, for the metrics.
    ///
    /// A run counts a bounded number of rows. So with millions of sessions a number is as old as a
    /// few runs.
    pub(crate) async fn count(&self) -> db::Result<()> {
        for state in State::ALL {
            let mut counting = self.counting(|all| all.remove(&state)).unwrap_or_default();
            let mut is_complete = false;
            for _ in 0..COUNTED_PAGES {
                let (number, last) = links::count_some(&self.inner.db, state, &counting.after).await?;
                counting.number += number;
                is_complete = number < COUNTED_AT_ONCE;
                if is_complete {
                    break;
                }
                counting.after = last;
            }
            if is_complete {
                self.inner.metrics.gauge(&LINKS, &[state.as_str()]).set(counting.number);
            } else {
                self.counting(|all| all.insert(state, counting));
            }
        }
        Ok(())
    }

    fn counting<T>(&self, with: impl FnOnce(&mut HashMap<State, Counting>) -> T) -> T {
        with(&mut self.inner.counting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long a person may take to decide.
const UNDECIDED: Duration = Duration::from_mins(15);
const LATELY: Duration = Duration::from_hours(3);
/// When an idle session that could not be refreshed is tried again. Servers keep sessions for weeks.
const AGAIN_AFTER: Duration = Duration::from_hours(12);
/// How long one run of [`Links::keep_alive`] may begin further batches.
const KEEP_ALIVE_FOR: Duration = Duration::from_mins(10);
/// Sessions of one server in a batch.
const SHARE: usize = 50;
/// Pages of each state that a run of [`Links::count`] counts.
const COUNTED_PAGES: usize = 20;
