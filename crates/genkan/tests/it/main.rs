//! Tests from outside: of the sources, and of the program as operators, people and hosts know it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests measure real time and connect on loopback")]

mod layers;
mod oauth_checklist;
mod program;
mod sources;
mod store;
mod stories;
mod structure;
mod uses;
