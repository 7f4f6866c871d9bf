//! Simulated servers around an entryway, for tests. They run on loopback, check as the real ones
//! do, and fail when a test asks for it.
//!
//! * [`directory`]: a PLC directory that validates operations
//! * [`host`]: a PDS in entryway mode, as the published one behaves
//! * [`pds`]: an external PDS with its own OAuth server
//! * [`gate`]: what a test holds a server's answers back with
//! * [`loopback`]: the listener under all of them, with every fault a wire can have
//! * [`mod@line`]: a slow, cut or silent line to a server
//! * [`mail`]: a mail server
//! * [`names`]: a name server for handles
//! * [`site`]: a web site
//! * [`repository`]: the proof of a record
//! * [`browser`]: a browser without script, for pages and forms
//! * [`call`]: a plain HTTP client that hides nothing
//! * [`postgres`]: schemas of a real PostgreSQL
//! * [`process`]: a server as a child process, to be killed, stopped and measured
//! * [`network`]: all of it around the real `genkan` program, and the people who use it
//!
//! Nothing here links Genkan. The fakes speak the protocol only, so they cannot share its mistakes;
//! the network knows Genkan as its operators and clients do, by settings, command line and HTTP.

#![expect(
    clippy::disallowed_methods,
    reason = "fakes are other machines: they have clocks of their own, and connect on loopback"
)]
#![expect(clippy::unwrap_used, reason = "a tool of tests: a panic is how it reports")]

pub mod browser;
pub mod call;
pub mod directory;
pub mod gate;
pub mod host;
pub mod line;
pub mod loopback;
pub mod mail;
pub mod names;
pub mod network;
pub mod pds;
pub mod postgres;
pub mod process;
pub mod repository;
pub mod site;

pub use browser::{Browser, Page, PageForm};
pub use call::{Answer, Client};
pub use directory::FakeDirectory;
pub use gate::Gate;
pub use host::FakeHost;
pub use line::{Line, LineState};
pub use loopback::{SeenRequest, Trouble, Wire};
pub use mail::{Email, FakeMail, Mood};
pub use names::FakeNames;
pub use network::{Plan, TestNetwork, User};
pub use pds::FakePds;
pub use postgres::Schema;
pub use process::Process;
pub use repository::proof_of_record;
pub use site::FakeSite;
