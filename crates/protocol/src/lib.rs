//! Types and checks that the AT Protocol specifications define. Pure: no I/O, no clock, no async.
//!
//! * [`syntax`]: DIDs, handles, NSIDs and TIDs
//! * [`crypto`]: the two curves, the spellings of keys, signatures
//! * [`json_bounds`]: bounds on JSON of other servers
//! * [`did_document`]: documents that DIDs resolve to
//! * [`plc`]: operations of the PLC directory
//! * [`jwt`]: a strict reader and writer of signed tokens, and session tokens
//! * [`oauth`]: keys, proofs, scopes, clients and requests
//! * [`origin`]: scheme, host and port of a server
//! * [`repo_proof`]: proofs that a repository holds a record
//! * [`service_auth`]: tokens that one service shows another on behalf of an account
//! * [`xrpc_error`]: the body of a refused call
//!
//! Every parser here reads untrusted input. A value that parsed is well-formed, and no input
//! panics. Each parser has a fuzz target in `crates/fuzz-targets`.
//!
//! Times are `i64`: seconds since 1970 in tokens, milliseconds where a name ends in `_millis`.
//! Lengths are bytes.

#![warn(missing_docs)]

pub mod crypto;
mod dag_cbor;
pub mod did_document;
pub mod json_bounds;
pub mod jwt;
pub mod oauth;
pub mod origin;
pub mod plc;
pub mod repo_proof;
pub mod service_auth;
pub mod syntax;
pub mod xrpc_error;
