//! The developers' commands: `cargo demo`, `cargo verify`, `cargo xtask …`.
//!
//! * [`demo`], [`verify`], [`network_command`], [`steady`] and [`mod@bench`] are commands, and
//!   [`provision`] fetches the programs they need.
//! * [`network`] is the real network on loopback that the demo, the stories and outside programs
//!   use.
//! * The rest are the pieces they share: command lines, processes, paths, words on standard error.

#![expect(
    clippy::disallowed_methods,
    reason = "the developers' commands measure real time and connect on loopback"
)]

pub mod arguments;
pub mod bench;
pub mod command;
pub mod demo;
pub mod guard;
pub mod hostile;
pub mod http;
pub mod network;
pub mod network_command;
mod older;
pub mod provision;
pub mod say;
pub mod scale;
pub mod soak;
pub mod steady;
pub mod upgrade;
pub mod verify;
pub mod workspace;
