//! The calls of one purpose that have a place, and those that wait for one.
//!
//! Counts exist only for these calls, so memory is bounded by the sizes of the pool and its queue.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::sync::oneshot;

use super::{Server, Size};

#[derive(Debug)]
pub(super) struct Queue {
    size: Size,
    /// The calls that have a place.
    running: HashMap<u64, Call>,
    /// The calls that wait, the oldest first, with the sender that wakes each.
    waiting: Vec<(u64, Call, oneshot::Sender<()>)>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Call {
    server: Server,
    client: Option<IpAddr>,
}

/// The number of a call that has entered the queue.
#[derive(Debug)]
pub(super) struct Ticket(u64);

impl Queue {
    pub(super) fn new(size: Size) -> Self {
        Self { size, running: HashMap::new(), waiting: Vec::new(), next: 0 }
    }

    /// Enters a call and wakes it as soon as it has a place. Returns `None` if too many wait.
    pub(super) fn enter(
        &mut self,
        server: &Server,
        client: Option<IpAddr>,
        wake: oneshot::Sender<()>,
    ) -> Option<Ticket> {
        if self.waiting.len() >= self.size.waiting && !self.make_room(&server.name) {
            return None;
        }
        self.next += 1;
        self.waiting.push((self.next, Call { server: server.clone(), client }, wake));
        self.admit();
        Some(Ticket(self.next))
    }

    /// Removes a call, whether it has a place or waits, and gives its place to the next one.
    pub(super) fn leave(&mut self, ticket: &Ticket) {
        if self.running.remove(&ticket.0).is_none() {
            self.waiting.retain(|(number, ..)| *number != ticket.0);
        }
        self.admit();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// Gives free places to the calls that may have one, those of the name with the fewest places
    /// first, then those of the host with the fewest, then the oldest.
    fn admit(&mut self) {
        while self.running.len() < self.size.places {
            let Some(index) = self.next_to_run() else { return };
            let (number, call, wake) = self.waiting.remove(index);
            self.running.insert(number, call);
            // A call that was dropped at this moment leaves by its ticket.
            let _ = wake.send(());
        }
    }

    fn next_to_run(&self) -> Option<usize> {
        let (mut names, mut hosts) = (HashMap::new(), HashMap::new());
        let (mut clients, mut sites) = (HashMap::new(), HashMap::new());
        if self.waiting.is_empty() {
            return None;
        }
        // Counted each time and not kept: a pool has few places, and counts that are kept can be
        // wrong.
        for call in self.running.values() {
            *names.entry(&*call.server.name).or_insert(0) += 1;
            *hosts.entry(&*call.server.host).or_insert(0) += 1;
            *clients.entry(call.client).or_insert(0) += 1;
            *sites.entry(call.client.and_then(site)).or_insert(0) += 1;
        }
        let candidates = self.waiting.iter().enumerate().filter_map(|(index, (_, call, _))| {
            let of_name = names.get(&*call.server.name).copied().unwrap_or(0);
            let of_host = hosts.get(&*call.server.host).copied().unwrap_or(0);
            let of_client = clients.get(&call.client).copied().unwrap_or(0);
            let of_site = call.client.and_then(site).and_then(|site| sites.get(&Some(site)).copied());
            let may_run = of_name < self.size.per_name
                && of_host < self.size.per_host
                && (call.client.is_none() || of_client < self.size.per_client)
                && of_site.unwrap_or(0) < self.size.per_site;
            may_run.then_some((of_name, of_host, index))
        });
        candidates.min().map(|(_, _, index)| index)
    }

    /// Drops the newest waiting call of the name with the most calls, unless `name` would then have
    /// as many.
    fn make_room(&mut self, name: &str) -> bool {
        let mut calls: HashMap<&str, usize> = HashMap::new();
        let running = self.running.values();
        for call in running.chain(self.waiting.iter().map(|(_, call, _)| call)) {
            *calls.entry(&call.server.name).or_default() += 1;
        }
        let own = calls.get(name).copied().unwrap_or_default();
        let of_name = |call: &Call| calls.get(&*call.server.name).copied().unwrap_or_default();
        let waiting = self.waiting.iter().enumerate();
        let Some((most, index)) = waiting.map(|(index, (_, call, _))| (of_name(call), index)).max() else {
            return false;
        };
        if most <= own + 1 {
            return false;
        }
        // Dropping the sender tells the waiting call that the queue was full.
        drop(self.waiting.remove(index));
        true
    }
}

/// The /48 of an IPv6 client. An IPv4 client has an address of its own, as a rule.
fn site(client: IpAddr) -> Option<u128> {
    match client {
        IpAddr::V6(address) => Some(address.to_bits() & (u128::MAX << 80)),
        IpAddr::V4(_) => None,
    }
}
