//! How an account stands: deactivated, active again, taken down, restored, deleted.
//!
//! The host is told first and Genkan's own mark follows, so that a call that broke off can simply be
//! made again. A takedown works the other way round: sign-ins stop here at once, whatever the host says.

mod error;
mod service;

pub(crate) use error::Error;
pub(crate) use service::{DELETE_DUE_EVERY, Standings};
