//! Forwarding: a client's call goes to the PDS that can answer it, and the answer comes back as a
//! stream.
//!
//! The edge makes a [`Call`] once. From there a call takes three steps:
//!
//! 1. `destination` finds the PDS and the credential: whose token it is, and where that account
//!    lives.
//! 2. `home` sends it to a host of the fleet, `reads` or `linked` to an external PDS, by the rules in
//!    `external`. What may cross is a list for each direction in `headers`. Connections, bodies and
//!    timeouts are those of the crate `http1`.
//! 3. An [`AnswerBody`] goes back to the client. It is never collected.
//!
//! `proxied_service` checks the service that a call names in `atproto-proxy`, and `addressee` finds
//! the one that it names in its input. `engine` has what all calls of one edge thread share, `pools` its
//! connections, `shares` who holds a server's places, and `limits` the operator's limits. What can go
//! wrong is an [`Error`]. `rooms` has the traits by which this room asks others: who calls, what the
//! fleet knows, and what is known of external accounts.

mod addressee;
mod answer;
mod call;
mod destination;
mod engine;
mod error;
mod error_body;
mod external;
mod headers;
mod home;
mod limits;
mod linked;
mod pools;
mod proxied_service;
mod reads;
mod rooms;
mod shares;

pub(crate) use answer::AnswerBody;
pub(crate) use call::{Call, Client};
pub(crate) use destination::Destination;
pub(crate) use engine::Forwarder;
pub(crate) use error::{Error, NOT_CARRIED};
#[cfg(test)]
pub(crate) use external::{CallBudgetRules, ReadLimits, ServiceRules};
pub(crate) use external::{ExternalPdses, ExternalPolicy};
pub(crate) use headers::{LinkCredential, Signed};
pub(crate) use limits::Limits;
pub(crate) use pools::{Breakers, breaker_rules};
pub(crate) use rooms::{
    Callers, ExternalAccounts, FleetHosts, LinkError, LinkNonce, OwnServer, Rooms, Signer, TokenError,
    Unavailable,
};
