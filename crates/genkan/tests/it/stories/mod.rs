//! Stories: the real program between fake hosts, a fake directory, and people.
//!
//! Every story runs on SQLite and, as an ignored test that `GENKAN_TEST_POSTGRES` enables, on
//! PostgreSQL.

mod bad_http;
mod bad_xrpc;
mod clocks;
mod crashes;
mod databases;
mod deadlines;
mod directory_faults;
mod disks;
mod emails;
mod external_reads;
mod fleet_changes;
mod handles;
mod host_faults;
mod host_sessions;
mod linked_calls;
mod links;
mod log_lines;
mod mail_faults;
mod oauth_checklist;
mod oauth_origin;
mod placement;
mod poolers;
mod replicas;
mod sealing;
mod secrets;
mod sessions;
mod sign_up;
mod standing;
mod tokens;
mod virtual_pds;
