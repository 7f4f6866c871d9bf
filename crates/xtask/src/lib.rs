//! Genkan's own commands, and the pieces they are made of: `cargo demo`, `cargo verify`, `cargo xtask …`.

pub mod arguments;
pub mod bench;
pub mod command;
pub mod demo;
pub mod guard;
pub mod http;
pub mod network;
pub mod network_command;
pub mod provision;
pub mod say;
pub mod verify;
pub mod workspace;
