//! The PLC proxy: what hosts have as `PDS_DID_PLC_URL` instead of the PLC directory itself. The
//! settings call it the directory front.
//!
//! It passes reads on, remembers them for a moment, and passes writes on for DIDs that Genkan
//! knows. No database is asked on the read path, so it is as available as the directory. Sign-up
//! sees through it what became of an operation; moves will hold one exact operation back here. It
//! listens for the hosts only. A *probe DID* is answered by the proxy itself: so it can be proven,
//! from any process with our keys, that a host asks here and nowhere else.

mod cache;
mod probe;
mod proxy;
mod server;

use cache::Page;
pub(crate) use probe::Prober;
pub(crate) use proxy::{PlcProxy, PlcProxySettings};
