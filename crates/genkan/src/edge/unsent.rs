//! The bytes of answers that wait in the system for a client to have room for them.
//!
//! Without a bound they can be megabytes, and the system reports room for more only when a third of
//! them is gone. So a client that reads slowly but steadily would seem to take nothing for minutes.
//! A tight bound costs a fast client's download half as much again, because each piece needs a wake.
//! So the bound is tight at first, and is lifted while a client is fast.
//!
//! When a fast client becomes slow, the system has megabytes for it, and no write succeeds until
//! nearly all of them are gone. So the system is asked now and then how much of them is left.

use std::cell::Cell;

use tokio::net::TcpStream;

use super::intake::Intake;
use super::send_queue::unacknowledged;

/// Whether a connection's bound on unsent bytes is tight.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    is_lifted: Cell<bool>,
    /// The connection's worker wants the task to set the bound again, or to ask how much is left.
    is_due: Cell<bool>,
    /// What the client had taken at the worker's last look.
    seen: Cell<u64>,
    /// Whether the system still has what it took while the bound was lifted.
    is_draining: Cell<bool>,
    /// What the client had not acknowledged when the system was last asked.
    queued: Cell<Option<u32>>,
    /// The worker's looks since then.
    looks: Cell<u8>,
}

impl Unsent {
    /// Sets the bound of a new connection.
    pub(super) fn tighten(&self, stream: &TcpStream) {
        self.is_lifted.set(false);
        bound(stream, TIGHT);
    }

    /// Whether the pace of the client cannot be seen from what is written.
    pub(super) const fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Follows a write that went through: lifts the bound of a client that is fast.
    pub(super) fn written(&self, stream: &TcpStream, intake: &Intake) {
        if intake.taken().wrapping_sub(self.seen.get()) >= FAST {
            self.is_due.set(false);
            if !self.is_lifted.replace(true) {
                bound(stream, LIFTED);
            }
        }
        // The system takes bytes again when few of the earlier ones are left.
        if self.is_draining.get() {
            self.is_draining.set(false);
            self.queued.set(None);
        }
    }

    /// Follows a write that has to wait: sets the bound again if the worker wants it. Returns whether
    /// the client has taken bytes, as the system says.
    pub(super) fn waits(&self, stream: &TcpStream, intake: &Intake) -> bool {
        if !self.is_due.replace(false) {
            return false;
        }
        if self.is_lifted.get() {
            self.tighten(stream);
            self.is_draining.set(true);
        }
        let queued = unacknowledged(stream);
        let before = self.queued.replace(queued);
        let fall = before.zip(queued).map_or(0, |(before, queued)| before.saturating_sub(queued));
        intake.take(fall as usize);
        // Of several looks, so it must not seem to be of the last one.
        self.seen.set(self.seen.get().wrapping_add(fall.into()));
        fall > 0
    }

    /// Looks at what the client took since the last look. Returns whether the connection's own task
    /// has something to do about it when it writes.
    pub(super) fn look(&self, intake: &Intake, is_blocked: bool) -> bool {
        let taken = intake.taken();
        let is_slow = taken.wrapping_sub(self.seen.replace(taken)) < FAST;
        let is_due = if self.is_lifted.get() {
            self.looks.set(0);
            is_slow
        } else {
            self.looks.set((self.looks.get() + 1) % ASK_AFTER);
            self.is_draining.get() && self.looks.get() == 0
        };
        self.is_due.set(is_due && is_blocked);
        is_due && is_blocked
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

/// The looks after which the system is asked again, while the bytes go out that it took.
const ASK_AFTER: u8 = 8;

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
        unsent.waits(&stream, &intake);
        assert_eq!(bound(), LIFTED);
        assert!(unsent.look(&intake, true), "the client has become slow");
        assert!(!unsent.waits(&stream, &intake));
        assert_eq!(bound(), TIGHT);
        assert!(!unsent.look(&intake, true));

        take(FAST);
        assert_eq!(bound(), LIFTED, "it is fast again");
        assert!(!unsent.look(&intake, true) && unsent.look(&intake, true));
        take(FAST);
        unsent.waits(&stream, &intake);
        assert_eq!(bound(), LIFTED, "it was fast before its task came to set the bound");
    }

    /// A client that takes megabytes at once, and then a little now and then.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test connects to itself on loopback")]
    async fn a_client_that_was_fast_is_seen_to_take_what_the_system_has() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (unsent, intake) = (Unsent::default(), Intake::default());
        unsent.tighten(&stream);
        let mut piece = vec![0; 256 << 10];
        let mut read = 0;
        while !unsent.is_lifted.get() || read < 8 << 20 {
            while let Ok(count) = stream.try_write(&piece) {
                intake.take(count);
                unsent.written(&stream, &intake);
            }
            // So that the runtime learns which of the two is ready.
            tokio::task::yield_now().await;
            read += client.try_read(&mut piece).unwrap_or_default() as u64;
        }
        while let Ok(count) = stream.try_write(&piece) {
            intake.take(count);
        }
        assert!(!unsent.look(&intake, true) && unsent.look(&intake, true), "it became slow");
        assert!(!unsent.waits(&stream, &intake), "from now on the system is asked");
        assert!(unsent.is_draining());
        let before = intake.taken();
        let deadline = crate::base::monotonic_now() + std::time::Duration::from_mins(1);
        // Nothing is written meanwhile.
        while intake.taken() == before {
            assert!(crate::base::monotonic_now() < deadline, "the client is not seen to take anything");
            tokio::task::yield_now().await;
            let _ = client.try_read(&mut piece);
            let is_asked = (0..ASK_AFTER).filter(|_| unsent.look(&intake, true)).count();
            assert_eq!(is_asked, 1);
            let has_taken = unsent.waits(&stream, &intake);
            assert_eq!(has_taken, intake.taken() > before);
        }
        assert!((0..2 * ASK_AFTER).all(|_| !unsent.look(&intake, false)), "nothing waits for the client");
        unsent.written(&stream, &intake);
        assert!(!unsent.is_draining(), "the system has taken bytes again");
        assert!((0..2 * ASK_AFTER).all(|_| !unsent.look(&intake, true)));
    }
}
