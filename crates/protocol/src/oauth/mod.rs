//! OAuth as atproto profiles it (atproto OAuth).
//!
//! * [`jwk`], [`jws`]: public keys as JSON, and tokens signed by them
//! * [`dpop`], [`nonce`]: proofs that the holder of a key makes a request
//! * [`pkce`]: proof that the app that redeems a code also requested it
//! * [`scope`], [`permission_set`]: permissions of apps
//! * [`client_id`], [`client_metadata`], [`redirect_uri`], [`client_assertion`]: identity of
//!   clients
//! * [`request`], [`error`]: parameters of requests, and refusals
//! * [`access_token`]: tokens that an app shows to a host
//! * [`server_metadata`]: documents that servers publish about themselves
//!
//! Every parser here reads untrusted input and is bounded. Times come in as parameters.

pub mod access_token;
pub mod client_assertion;
pub mod client_id;
pub mod client_metadata;
pub mod dpop;
pub mod error;
pub mod jwk;
pub mod jws;
pub mod nonce;
pub mod permission_set;
pub mod pkce;
pub mod redirect_uri;
pub mod request;
pub mod scope;
pub mod server_metadata;
mod thumbprint;
