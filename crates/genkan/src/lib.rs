//! Genkan: a front door for AT Protocol accounts. `ARCHITECTURE.md` is the map of these modules.

// wiring
pub(crate) mod app;
pub(crate) mod serving;

// doors
pub mod cli;
pub(crate) mod edge;
pub(crate) mod http;
pub(crate) mod jobs;

// stories
pub(crate) mod credentials;
pub(crate) mod forward;
pub(crate) mod links;
pub(crate) mod moves;
pub(crate) mod oauth;
pub(crate) mod recovery;
pub(crate) mod renames;
pub mod routing;
pub(crate) mod sessions;
pub(crate) mod signin;
pub(crate) mod signup;
pub(crate) mod standing;

// fields
pub(crate) mod accounts;
pub(crate) mod fleet;
pub(crate) mod identity;
pub(crate) mod mail;

// ground
pub mod base;
pub mod config;
pub mod db;
pub mod keys;
pub(crate) mod limits;
pub(crate) mod telemetry;
pub(crate) mod wire;
