//! Clients: their metadata, how they authenticate, and the operator's decisions about them.
//!
//! Metadata and key sets are cached for ten minutes. The database also keeps each good copy. While
//! the client's server is away, existing grants continue with that copy for a time.

mod auth;
mod documents;
mod lookup;
mod view;

pub(super) use auth::AuthenticatedClient;
pub(super) use lookup::{Client, Clients, Purpose};
pub(super) use view::ClientView;
