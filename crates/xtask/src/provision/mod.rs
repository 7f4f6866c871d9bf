//! Getting what the checks need and the machine lacks, from package registries alone, with a word about it.

pub mod apt;
pub mod chromium;
pub mod nginx;
pub mod node;
pub mod postgres;
pub mod python;
