//! The bytes of answers that wait in the system for a client to have room for them.
//!
//! Without a bound they can be megabytes, and the system reports room for more only when a third of
//! them is gone. So a client that reads slowly but steadily would seem to take nothing for minutes.
//! A tight bound costs a fast client's download half as much again, because each piece needs a wake.
//! So the bound is tight at first, and is lifted while a client is fast.
//!
//! When a fast client becomes slow, what the system has taken meanwhile goes out unseen. It is about
//! twice what is under way on the network, so the client's pace is known again soon.

use std::cell::Cell;

use tokio::net::TcpStream;

use super::intake::Intake;

/// Whether a connection's bound on unsent bytes is tight.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    is_lifted: Cell<bool>,
    /// The connection's worker wants the bound back.
    is_due: Cell<bool>,
    /// What the client had taken at the worker's last look.
    seen: Cell<u64>,
}

impl Unsent {
    /// Sets the bound of a new connection.
    pub(super) fn tighten(&self, stream: &TcpStream) {
        self.is_lifted.set(false);
        self.is_due.set(false);
        bound(stream, TIGHT);
    }

    /// Follows a write that went through: lifts the bound of a client that is fast.
    pub(super) fn written(&self, stream: &TcpStream, intake: &Intake) {
        if intake.taken().wrapping_sub(self.seen.get()) >= FAST {
            self.is_due.set(false);
            if !self.is_lifted.replace(true) {
                bound(stream, LIFTED);
            }
        }
    }

    /// Follows a write that has to wait: sets the bound again if the worker wants it.
    pub(super) fn waits(&self, stream: &TcpStream) {
        if self.is_due.get() {
            self.tighten(stream);
        }
    }

    /// Looks at what the client took since the last look. Returns whether the bound has to come
    /// back, which the connection's own task does.
    pub(super) fn look(&self, intake: &Intake, is_blocked: bool) -> bool {
        let taken = intake.taken();
        let is_slow = taken.wrapping_sub(self.seen.replace(taken)) < FAST;
        let is_due = self.is_lifted.get() && is_blocked && is_slow;
        self.is_due.set(is_due);
        is_due
    }
}

/// The bound is on memory and on how exactly the client's pace is known. The connection works
/// without it.
fn bound(stream: &TcpStream, bytes: u32) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, bytes);
}

/// Bytes that may wait for a client that is slow or not known. A socket has room for more when half
/// of them is gone.
const TIGHT: u32 = 64 << 10;
/// No bound but that of the system (tcp(7), `TCP_NOTSENT_LOWAT`).
const LIFTED: u32 = 0;
/// Bytes that a fast client takes between two looks of its worker.
const FAST: u64 = 1 << 20;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test connects to itself on loopback")]
    async fn the_bound_is_lifted_while_a_client_is_fast() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let bound = || socket2::SockRef::from(&stream).tcp_notsent_lowat().unwrap();
        let (unsent, intake) = (Unsent::default(), Intake::default());
        let take = |bytes: u64| {
            intake.take(usize::try_from(bytes).unwrap());
            unsent.written(&stream, &intake);
        };

        unsent.tighten(&stream);
        take(FAST - 1);
        assert_eq!(bound(), TIGHT);
        assert!(!unsent.look(&intake, true), "it is tight");
        take(FAST - 1);
        assert_eq!(bound(), TIGHT, "as much as this, but between two looks");
        take(1);
        assert_eq!(bound(), LIFTED);

        assert!(!unsent.look(&intake, true), "much was taken since the last look");
        assert!(!unsent.look(&intake, false), "nothing waits for the client");
        unsent.waits(&stream);
        assert_eq!(bound(), LIFTED);
        assert!(unsent.look(&intake, true), "the client has become slow");
        unsent.waits(&stream);
        assert_eq!(bound(), TIGHT);
        assert!(!unsent.look(&intake, true));

        take(FAST);
        assert_eq!(bound(), LIFTED, "it is fast again");
        assert!(!unsent.look(&intake, true) && unsent.look(&intake, true));
        take(FAST);
        unsent.waits(&stream);
        assert_eq!(bound(), LIFTED, "it was fast before its task came to set the bound");
    }
}
