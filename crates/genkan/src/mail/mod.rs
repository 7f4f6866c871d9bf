//! Emails to users, by way of an outbox.
//!
//! An *email* is written into the *outbox* in the transaction that causes it. A crash loses none,
//! and a transaction that is rolled back sends none. A job hands emails to the *transport*, a mail
//! server or a folder: each at least once, with the same Message-ID at every attempt, and with
//! growing pauses while the transport fails. The content is sealed in the database, since it
//! contains a code.
//!
//! This room knows no accounts. Addresses and codes never reach a log.

mod message;
mod outbox;
mod plain_text;
mod reason;
mod sql;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod texts;
mod transport;

pub(crate) use message::Recipient;
pub(crate) use outbox::{Error, Mail, POST_EVERY, SEALED_COLUMNS, SWEEPS, forget_account};
pub(crate) use reason::Reason;
pub(crate) use sql::UndeliveredEmail;
pub(crate) use transport::TransportError;
