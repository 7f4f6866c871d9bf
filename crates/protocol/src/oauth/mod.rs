//! The words of OAuth as atproto speaks it.
//!
//! * [`jwk`], [`jws`]: public keys as JSON, and tokens signed by them
//! * [`dpop`], [`nonce`]: proofs that a request is made by the holder of a key
//!
//! Everything here reads what strangers send, and is bounded. Times come in as parameters.

pub mod dpop;
pub mod jwk;
pub mod jws;
pub mod nonce;
