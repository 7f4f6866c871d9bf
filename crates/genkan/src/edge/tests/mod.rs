//! The edge over sockets: its threads, before hosts that behave as each test tells them.

#![expect(clippy::disallowed_methods, reason = "tests connect to the edge and to each other on loopback")]

mod answer_framing;
mod bodies;
mod bound_tokens;
mod connections;
mod external_guard;
mod external_reads;
mod failing_hosts;
mod fake_rooms;
mod http2;
mod http2_floods;
mod linked;
mod linked_errors;
mod linked_shares;
mod network;
mod raw_host;
mod routes;
mod services;
mod shutdown;
mod slow_reader;
mod tls;
