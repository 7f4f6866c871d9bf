//! The monotonic clock, for durations.

use tokio::time::Instant;

/// Returns the present moment of the monotonic clock, for durations, deadlines and pauses.
///
/// The monotonic clock does not follow corrections of the system time. Tests stop it with
/// `tokio::time::pause`.
#[inline]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub(crate) fn monotonic_now() -> Instant {
    Instant::now()
}
