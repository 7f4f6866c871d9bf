//! The words of OAuth.

mod access_token;
mod clients;
mod dpop;
mod jws;
mod permission_sets;
mod pkce;
mod requests;
mod scope;
