//! The monotonic clock.

use tokio::time::Instant;

/// Returns the present moment of the monotonic clock. Tests stop it with `tokio::time::pause`.
#[inline]
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the clock")]
pub(crate) fn monotonic_now() -> Instant {
    Instant::now()
}
