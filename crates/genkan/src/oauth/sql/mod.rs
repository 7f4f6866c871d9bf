//! The tables of this room.

pub(super) mod clients;
pub(super) mod codes;
pub(super) mod consents;
pub(super) mod grants;
pub(super) mod permission_sets;
pub(super) mod requests;
pub(super) mod scopes;
pub(super) mod seen;
