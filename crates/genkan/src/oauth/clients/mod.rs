//! Clients: what they say of themselves, how they prove it, and what the operator says of them.
//!
//! Metadata and key sets are remembered for ten minutes. Each good copy is also kept in the database: when the client's
//! host is away, what was begun goes on with it, for a time.

mod auth;
mod documents;
mod lookup;
mod view;

pub(super) use auth::AuthenticatedClient;
pub(super) use lookup::{Client, Clients, Purpose};
pub(super) use view::ClientView;
