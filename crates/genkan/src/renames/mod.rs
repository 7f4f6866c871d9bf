//! Handle changes: first in the directory, then in the database, then at the host.
//!
//! A row records the intent before anything leaves Genkan. *Recorded*: the new handle is reserved,
//! and the directory may have it. *Published*: the directory and the database have it, and the host
//! does not yet. Each step checks the present state before it acts, and can be repeated. A job
//! finishes changes that a crash, a host or the directory interrupted. The steps are in `saga`.

mod context;
mod error;
mod saga;
mod service;
mod sql;
#[cfg(test)]
mod tests;

pub(crate) use context::Dependencies;
pub(crate) use error::Error;
pub(crate) use service::Renames;
