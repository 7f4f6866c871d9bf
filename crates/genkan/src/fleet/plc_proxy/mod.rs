//! The PLC proxy: hosts have its URL as `PDS_DID_PLC_URL`, instead of the PLC directory's. The
//! settings call it the directory front.
//!
//! It forwards reads, caches them for a moment, and forwards writes for DIDs that Genkan knows. The
//! read path needs no database, so the proxy is as available as the directory. Through it a sign-up
//! learns whether the directory accepted an operation. Only hosts may reach it. The proxy itself
//! answers for *probe DIDs*. With these, any process with Genkan's keys can prove that a host asks
//! this proxy and nothing else.

mod cache;
mod probe;
mod proxy;
mod server;

use cache::Page;
pub(crate) use probe::Prober;
pub(crate) use proxy::{PlcProxy, PlcProxySettings};
