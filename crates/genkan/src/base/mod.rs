//! The ground floor: time, random bytes, secrets, origins, outgoing HTTP. Nothing here has a noun
//! of Genkan.
//!
//! Clocks and the random generator are read in this room only, so that tests can control both.
//! Clippy refuses other uses.

mod clock;
pub(crate) mod fetch;
mod id;
mod language;
pub(crate) mod query;
pub(crate) mod random;
pub(crate) mod seal;
mod secret;
pub(crate) mod single_flight;
#[cfg(test)]
pub(crate) mod test_directory;

pub(crate) use clock::monotonic_now;
pub use clock::{Clock, Timestamp};
pub use genkan_protocol::origin::Origin;
pub(crate) use id::id_type;
pub(crate) use language::Language;
pub use secret::Secret;
