//! Identity: DIDs to documents, handles to DIDs, the PLC directory, and which handles are given
//! out.
//!
//! A *document* is what a DID resolves to. A *PDS location* is the PDS that it names. The
//! *directory* is the PLC directory, which the operator chose and trusts; everything else that is
//! asked here is external and goes through the guarded client. Answers are cached for a bounded
//! time. A failed lookup is never cached as "not found". This room knows nothing of accounts: rooms
//! above answer first for the names of their accounts. [`HomeDocuments`] keeps a copy of a document
//! in the database for the DIDs that they name.

mod directory;
mod documents;
mod error;
mod handle_policy;
mod handles;
mod home_documents;
mod memory;
mod pds_location;
mod reserved;
mod resolvers;
mod sql;

pub(crate) use directory::{Directory, DirectoryError, Submission};
pub(crate) use documents::{Documents, origin_of_web};
pub(crate) use error::Error;
pub(crate) use handle_policy::{HandlePolicy, PolicyError, is_given_out};
pub(crate) use handles::Handles;
pub(crate) use home_documents::{HomeDocuments, HomeRecords, SWEEPS, delete_document};
pub(crate) use memory::Freshness;
pub(crate) use pds_location::{PdsLocation, PdsLocationError, PdsLocations};
pub(crate) use resolvers::Identity;
