//! The ground floor: time, chance, secrets, origins. Nothing here knows what Genkan does.
//!
//! Time and chance come from here and nowhere else, so that tests can hold both still.

mod clock;
pub(crate) mod fetch;
mod language;
pub(crate) mod query;
pub(crate) mod random;
pub(crate) mod seal;
mod secret;
pub(crate) mod single_flight;
#[cfg(test)]
pub(crate) mod test_directory;

pub use clock::{Clock, Timestamp};
pub use genkan_protocol::origin::Origin;
pub(crate) use language::Language;
pub use secret::Secret;
