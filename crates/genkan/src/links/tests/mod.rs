//! Sessions at other servers, against a fake one. Tests that begin with `c` and a number are lines
//! of the contract's closing list.

mod dead_servers;
mod ends;
mod harness;
mod places;
mod refreshes;
mod sign_in;
mod vault;
