//! Programs that the commands need and the machine lacks, fetched from package registries.
//!
//! Each function prefers what is installed, says what it fetches, and keeps it in the cache.
//! Its error says what to install by hand.

pub mod apt;
pub mod cargo_tools;
pub mod chromium;
pub mod cluster;
mod debian;
pub mod faketime;
pub mod nginx;
pub mod node;
pub mod pgbouncer;
pub mod postgres;
pub mod python;
pub mod stress_ng;
