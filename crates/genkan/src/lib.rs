//! Genkan: a front door for AT Protocol accounts. `ARCHITECTURE.md` is the map of these rooms.

// ground
pub mod base;
pub mod db;
