//! The database's clock, without asking the database each time.
//!
//! Processes compare leases and retry times with each other, so all of them go by one clock: the
//! database's. A process measures it now and then, and adds the monotonic time since. A step of the
//! process's wall clock therefore moves neither a lease nor a retry.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::Timestamp;

/// The last measurement. Shared by all clones of a `Db`.
#[derive(Debug, Default)]
pub(super) struct SharedClock(Mutex<Option<Measurement>>);

#[derive(Clone, Copy, Debug)]
struct Measurement {
    at: Instant,
    time: Timestamp,
}

impl SharedClock {
    /// Remembers the answer to a question for the time, asked at `asked`.
    pub(super) fn measured(&self, asked: Instant, time: Timestamp) {
        let took = asked.elapsed();
        // An answer that took long says little about when the database read its clock.
        if took <= LONGEST_MEASUREMENT {
            let measurement = Measurement { at: asked + took / 2, time };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(measurement);
        }
    }

    /// The database's time, or `None` before the first measurement.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| last.time.plus(last.at.elapsed()))
    }
}

const LONGEST_MEASUREMENT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, ManualClock, monotonic_now};
    use crate::db::{Db, on_each_database};

    on_each_database!(a_process_with_a_wrong_clock_knows_the_time, the_offset_of_a_clock_is_measured);

    async fn a_process_with_a_wrong_clock_knows_the_time(db: Db) {
        // What a jump of the system clock leaves: the measurement is of the time before it.
        let before = db.now().await.unwrap();
        let shared = db.shared_now(&Clock::System);
        assert!(shared >= before && shared.since(before) < Duration::from_mins(1), "{shared} {before}");
        let hour = Duration::from_hours(1);
        db.shared_clock.measured(monotonic_now(), before.minus(hour));
        let shared = db.shared_now(&Clock::System);
        assert!(before.since(shared) > Duration::from_mins(59), "the database decides: {shared}");
        db.now().await.unwrap();
        assert!(db.shared_now(&Clock::System) >= before, "a new measurement replaces the old one");
    }

    async fn the_offset_of_a_clock_is_measured(db: Db) {
        let ahead = ManualClock::at_present();
        ahead.advance(Duration::from_secs(90));
        let offset = db.clock_offset(&ahead.clock()).await.unwrap();
        assert!((80_000..100_000).contains(&offset), "{offset}");
    }
}
