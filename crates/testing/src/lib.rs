//! Neighbours of an entryway for tests: on loopback, faithful in their checks, and spoiled when a test asks for it.
//!
//! * [`directory`]: a PLC directory that validates operations
//! * [`host`]: a PDS in entryway mode, as the published one behaves
//! * [`loopback`]: the listener under both, with every fault a wire can have
//! * [`call`]: a plain HTTP client that hides nothing
//! * [`process`]: a server as a child process, to be killed, stopped and measured
//!
//! Nothing here knows Genkan: the fakes speak the protocol only, so they cannot share its mistakes.

#![expect(clippy::unwrap_used, reason = "a tool of tests: a panic is how it reports")]

pub mod call;
pub mod directory;
pub mod host;
pub mod loopback;
pub mod process;

pub use call::{Answer, Client};
pub use directory::FakeDirectory;
pub use host::FakeHost;
pub use loopback::{Seen, Trouble, Wire};
pub use process::Process;
