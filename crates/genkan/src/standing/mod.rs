//! Changes of an account's standing: deactivation, activation, takedown, restoration and deletion.
//!
//! The host is told first and Genkan's own mark follows, so that an interrupted call can simply be
//! repeated. A takedown works the other way round: sign-ins stop here at once, whatever the host
//! answers, and a job tells the host until it has accepted (`takedowns`).

mod error;
mod service;
mod sql;
mod takedowns;
#[cfg(test)]
mod tests;

pub(crate) use error::Error;
pub(crate) use service::{DELETE_DUE_EVERY, Deletion, Standings};
pub(crate) use takedowns::{TELL_HOSTS_EVERY, Told};
