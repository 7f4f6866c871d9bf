//! Free loopback ports.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

use crate::workspace;

/// The range lies below the ports that systems take for outgoing connections. So a member that was
/// killed finds its port free when it starts again.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

/// Returns a free port that this process has not given out before.
pub fn free() -> Result<u16> {
    let random = u16::from_str_radix(&workspace::random_hex(2)?, 16)?;
    let start = FIRST + random % (LAST - FIRST);
    (start..=LAST).chain(FIRST..start).find(|port| take(*port)).context("no loopback port is free")
}

/// Returns the first free port from `preferred` on.
pub fn free_from(preferred: u16) -> Result<u16> {
    (preferred..LAST).find(|port| take(*port)).context("no loopback port is free")
}

/// Whether something listens on the port, by TCP or UDP.
pub fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
        || UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

fn take(port: u16) -> bool {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    !is_taken(port) && GIVEN.lock().expect("no holder panics").insert(port)
}
