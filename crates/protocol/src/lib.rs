//! What the AT Protocol specifications define. Pure: no I/O, no clock, no async.
//!
//! * [`syntax`]: DIDs, handles, NSIDs, and the other identifiers
//! * [`crypto`]: the two curves, keys and their spellings, signatures
//! * [`did_document`]: what a DID resolves to
//! * [`plc`]: operations of the PLC directory
//! * [`jwt`]: a strict reader and writer of signed tokens, and session tokens
//! * [`oauth`]: the words of OAuth: keys, proofs, scopes, clients, requests
//! * [`origin`]: scheme, host and port of a server
//! * [`repo_proof`]: that a record stands in a repository
//! * [`service_auth`]: tokens one service shows another on behalf of an account
//! * [`xrpc_error`]: the body of a refused call
//!
//! Everything here reads what strangers send. A value that parsed is well-formed; nothing panics on input.

pub mod crypto;
pub mod did_document;
pub mod jwt;
pub mod oauth;
pub mod origin;
pub mod plc;
pub mod repo_proof;
pub mod service_auth;
pub mod syntax;
pub mod xrpc_error;
