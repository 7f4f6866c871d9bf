//! What both doors say on the wire: the edge, which forwards, and `http`, which answers.
//!
//! A client cannot tell which of the two answered it. So each fact of HTTP and XRPC is read and
//! written in one place: the `Authorization` header, cross-origin requests, the error envelope and
//! its texts, challenges, rate-limit headers, the client's address with the trust in proxies, and
//! the request's id.
//!
//! This room knows no account, no host and no method.

pub(crate) mod authorization;
pub(crate) mod challenge;
mod client_address;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod media_type;
pub(crate) mod messages;
pub(crate) mod rate_limit;
mod request_id;

pub(crate) use authorization::Authorization;
pub(crate) use client_address::{AccountClient, ClientAddr, HostNames, TrustedPeers, ViaHost};
pub(crate) use error::XrpcError;
pub(crate) use request_id::{REQUEST_ID, RequestId};

use http::HeaderName;

/// The nonce for a client's next proof (RFC 9449 §8.2).
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
