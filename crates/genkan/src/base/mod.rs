//! The ground floor: time, random bytes, secrets, origins, outgoing HTTP. Nothing here has a noun
//! of Genkan.
//!
//! Clocks and the random generator are read in this room only, so that tests can control both.
//! Clippy refuses other uses.

mod byte_cache;
mod clock;
pub(crate) mod fetch;
mod id;
mod language;
#[cfg(test)]
mod manual_clock;
pub(crate) mod query;
pub(crate) mod random;
pub(crate) mod seal;
mod secret;
pub(crate) mod single_flight;

pub(crate) use byte_cache::{ByteCache, Weigh, allocation, byte_cache};
pub(crate) use clock::monotonic_now;
pub use clock::{Clock, Timestamp};
pub use genkan_protocol::origin::Origin;
pub(crate) use id::id_type;
pub(crate) use language::Language;
#[cfg(test)]
pub(crate) use manual_clock::ManualClock;
pub use secret::Secret;
