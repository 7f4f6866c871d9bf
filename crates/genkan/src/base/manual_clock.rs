//! A clock for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Clock, Timestamp};

/// A clock that stands still until a test moves it. Clones are one clock.
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn at(time: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(time.as_millis())))
    }

    /// Stops at the present time, for tests with fakes that go by the system clock.
    pub(crate) fn at_present() -> Self {
        Self::at(Clock::of_process().now())
    }

    /// The clock as rooms take it.
    pub(crate) fn clock(&self) -> Clock {
        Clock::manual(self.shared())
    }

    /// The milliseconds that this clock shows, for fakes that are to go by it.
    pub(crate) fn shared(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.0)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock().now()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}
