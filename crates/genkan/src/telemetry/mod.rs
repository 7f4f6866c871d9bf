//! Logs and metrics: log lines, one line per request, counters, and failpoints for tests.
//!
//! Nothing in this room waits for a reader. A log line that the queue has no room for is dropped
//! and counted, and counting is one relaxed addition. No secret, email address or client address is
//! a label of a metric.

mod failpoint;
mod logs;
pub(crate) mod metrics;
mod request_line;

pub(crate) use failpoint::failpoint;
pub(crate) use logs::Logs;
pub(crate) use request_line::RequestLine;
