//! The endpoints as clients meet them: the contract's table of bad input (§7), row by row, and what
//! developers depend on (§6.B). A case's name begins with its row.

mod app;
mod checklist;
mod consents;
mod endings;
mod giving_way;
mod linked;
mod pairs;
mod push;
mod races;
mod replicas;
mod server;
mod signing_keys;
mod tokens;
