//! The endpoints as clients meet them.
