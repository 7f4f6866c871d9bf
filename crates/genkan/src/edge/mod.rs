//! The front door: all traffic from outside arrives here.
//!
//! A few threads, each with its own runtime, listener and connections to hosts, read requests
//! strictly and within limits. The routing table decides whether a request is forwarded, refused,
//! or handed to `http`, which answers it on the control runtime. No thread waits for another, and
//! no request can make one wait.
//!
//! The edge never touches the database, knows no method by name, and keeps no state longer than a
//! connection.
//!
//! The files follow a request: `threads` opens the listeners, `worker` accepts a connection and
//! admits it, `connection` serves it (`client_stream` reads strictly below hyper), `service` answers
//! each of its requests, and `answer` makes the refusals. `context` is what they hand down. A client
//! that takes too little of its answers (`intake`, and `send_queue` where writes do not show it) loses
//! its connection, or its HTTP/2 stream (`http2_stream`).

mod activity;
mod address;
mod answer;
mod client_stream;
mod connection;
mod connection_limits;
mod context;
mod counters;
mod failures;
mod http2_stream;
mod intake;
mod local;
mod send_queue;
mod service;
mod settings;
#[cfg(test)]
mod tests;
mod threads;
mod tracked_body;
mod unsent;
mod worker;

pub(crate) use context::EdgeContext;
pub(crate) use counters::{By, Counters};
#[cfg(test)]
pub(crate) use intake::IntakeLimit;
pub(crate) use settings::Settings;
pub(crate) use threads::{BoundAddress, Edge};
