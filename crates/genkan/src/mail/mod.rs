//! Mail to people: written down with its cause, handed over later.
//!
//! An *email* is put into the *outbox* in the transaction that is its cause, so a crash loses none and
//! an unmade change sends none. A job hands emails over to the *transport*: each at least once, under the
//! same Message-ID, again with growing pauses while the transport fails. What an email says is sealed in the
//! database, since it holds a code. Nothing here knows accounts; addresses and codes reach no log.

mod message;
mod outbox;
mod plain_text;
mod sql;
#[cfg(test)]
mod tests;
mod texts;
mod transport;

pub(crate) use message::{Reason, Recipient};
pub(crate) use outbox::{Error, Mail, POST_EVERY, SEALED_COLUMNS, forget_account, sweep};
pub(crate) use sql::UndeliveredEmail;
pub(crate) use transport::TransportError;
