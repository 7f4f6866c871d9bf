//! Carrying a request to the host that can answer it, and the answer back.
//!
//! One engine for every forwarded call, one instance of it on each edge thread: find the home, keep of the headers
//! what may cross, and stream. Bodies are never collected; a body's permit and its connection are given back when
//! the body has ended, and never before. What may cross is a list in `request_head` and one in
//! `answer_headers`; what can go wrong is [`Error`].
//!
//! Words: *link* = one connection to a host. *Upload* = a request's body on its way to a host. *Answer* = what goes
//! back to the client.

mod aim;
mod answer;
mod answer_head;
mod answer_headers;
mod breaker;
mod dial;
mod engine;
mod error;
mod exchange;
mod framing;
mod inspect;
mod limits;
mod link;
mod neighbours;
mod pump;
mod request_head;
mod upload;
mod upstream;
mod vigil;

pub(crate) use aim::Visitor;
pub(crate) use answer::{AnswerBody, CutOff as Cut};
pub(crate) use answer_headers::EXPOSED;
pub(crate) use breaker::{BreakerRules, Breakers};
pub(crate) use dial::{Dialler, write_parts};
pub(crate) use engine::Forwarder;
pub(crate) use error::Error;
pub(crate) use limits::Limits;
pub(crate) use neighbours::{Neighbours, OverLimit, TokenError, Unavailable};
