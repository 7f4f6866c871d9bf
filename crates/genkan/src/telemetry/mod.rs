//! What Genkan says about itself: log lines, a line per request, counters.
//!
//! Nothing here ever waits for a reader: a log line that cannot be written at once is dropped and
//! counted, and counting is one relaxed addition. No secret, e-mail address or client address becomes
//! a label of a metric.

mod failpoint;
mod logs;
pub(crate) mod metrics;
mod request_line;

pub(crate) use failpoint::failpoint;
pub(crate) use logs::Logs;
pub(crate) use request_line::RequestLine;
