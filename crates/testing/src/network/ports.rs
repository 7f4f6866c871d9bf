//! Ports that must be known before anything listens there.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns a free port below those that the operating system assigns. Test processes search in
/// different ranges.
pub(super) fn free() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Each process starts at another place of the range, so that parallel test processes rarely
        // meet.
        let at = std::process::id().wrapping_mul(61).wrapping_add(TAKEN.fetch_add(1, Ordering::SeqCst));
        // Below the range of outgoing connections, or one of those could take the port of a
        // restarting server.
        let port = u16::try_from(10_000 + at % 20_000).unwrap_or(10_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The three ports of one Genkan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) public: u16,
    pub(super) ops: u16,
    pub(super) front: u16,
}

impl Ports {
    pub(super) fn free() -> Self {
        Self { public: free(), ops: free(), front: free() }
    }

    pub(super) fn variables(self) -> Vec<(String, String)> {
        let listens = |name: &str, port: u16| (name.to_owned(), format!("127.0.0.1:{port}"));
        vec![
            listens("GENKAN_LISTEN", self.public),
            listens("GENKAN_OPS_LISTEN", self.ops),
            listens("GENKAN_DIRECTORY_FRONT_LISTEN", self.front),
        ]
    }
}
