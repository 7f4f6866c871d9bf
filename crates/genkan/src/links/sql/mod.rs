//! The tables of this room: `links`, `link_logins`, `link_clients`, `link_visits`.

pub(super) mod clients;
pub(super) mod leases;
pub(super) mod links;
pub(super) mod logins;
pub(super) mod revocations;
pub(super) mod turns;
pub(super) mod visits;
