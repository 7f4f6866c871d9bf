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
mod monotonic;
pub(crate) mod neighbours;
pub(crate) mod query;
pub(crate) mod random;
pub(crate) mod seal;
mod secret;
mod shared_clock;
pub(crate) mod single_flight;
mod timestamp;
mod waiting_client;

#[cfg(test)]
pub(crate) use byte_cache::assert_weighs;
pub(crate) use byte_cache::{ByteCache, CacheSize, Weigh, allocation, cache_bytes};
pub use clock::Clock;
pub use genkan_protocol::origin::Origin;
pub(crate) use id::id_type;
pub(crate) use language::Language;
#[cfg(test)]
pub(crate) use manual_clock::ManualClock;
pub(crate) use monotonic::monotonic_now;
pub use secret::Secret;
pub(crate) use shared_clock::SharedClock;
pub use timestamp::Timestamp;
pub(crate) use waiting_client::WaitingClient;
