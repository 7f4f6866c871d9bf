//! The places of one server, shared among clients: no client may hold more than an eighth, and the
//! last eighth is for clients that hold none.
//!
//! A place is a request under way, from its admission to the end of its answer's body. A client
//! decides how long that takes, by a slow upload or a slow download. Without shares a single client
//! could hold all places, and everyone else on the server would be refused.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::rc::Rc;

use genkan_protocol::syntax::Did;

use super::error::Error;
use crate::limits::ClientNetwork;

/// Counts the places of one server that each client holds, for one thread.
#[derive(Debug)]
pub(super) struct Shares {
    /// The most places of one client.
    of_one: usize,
    /// The most places of all clients without an account together. Anyone can have many addresses,
    /// so the rest is for accounts.
    of_strangers: usize,
    /// The most places of clients without an account in one wide network.
    of_wide: usize,
    /// Once so many places are held, clients that hold one get no other. A person may have several
    /// accounts, and must not hold all places by them.
    of_holders: usize,
    strangers: Cell<usize>,
    /// Places of all clients.
    taken: Cell<usize>,
    /// Places by the hash of their holder, whose name would have to be copied for each request.
    /// Clients cannot choose hashes that collide, because the hasher's key is random. A client
    /// without a place has no entry. IPv6 clients without an account count in their wide network too.
    held: RefCell<Held>,
    hasher: RandomState,
}

/// The hasher of keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only hashes are keys");
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

/// Who holds a place. An account counts as one client at whatever addresses it is, and accounts
/// behind one address count apart.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Holder<'a> {
    Account(&'a Did),
    /// A client without an account, by its address.
    Stranger(ClientNetwork),
}

/// A place that a client holds. Dropping it makes room for another request.
#[derive(Debug)]
pub(super) struct Place {
    shares: Rc<Shares>,
    holder: u64,
    wide: Option<u64>,
    is_stranger: bool,
}

impl Shares {
    /// The shares of a server with this many places.
    pub(super) fn of(places: usize) -> Rc<Self> {
        Rc::new(Self {
            of_one: (places / 8).max(1),
            // Of two or three places, too, one is for accounts. A single place is for everyone.
            of_strangers: if places < 2 { places } else { places - places.div_ceil(4) },
            of_wide: (places / 4).max(1),
            of_holders: places - places / 8,
            strangers: Cell::new(0),
            taken: Cell::new(0),
            held: RefCell::default(),
            hasher: RandomState::new(),
        })
    }

    /// Takes a place for a client.
    ///
    /// # Errors
    ///
    /// [`Error::ShareUsed`] when the client or its network holds its whole share, or the client holds
    /// a place while few are left, and [`Error::Crowded`] when clients without an account hold all
    /// that is for them.
    pub(super) fn take(self: &Rc<Self>, holder: Holder<'_>) -> Result<Place, Error> {
        let is_stranger = matches!(holder, Holder::Stranger(_));
        if is_stranger && self.strangers.get() >= self.of_strangers {
            return Err(Error::Crowded);
        }
        let wide = match holder {
            Holder::Stranger(network) => network.wide().map(|wide| self.hasher.hash_one(wide)),
            Holder::Account(_) => None,
        };
        let holder = self.hasher.hash_one(holder);
        let most = if self.taken.get() >= self.of_holders { 1 } else { self.of_one };
        let mut held = self.held.borrow_mut();
        if let Some(wide) = wide
            && !try_add(&mut held, wide, self.of_wide)
        {
            return Err(Error::ShareUsed);
        }
        if !try_add(&mut held, holder, most) {
            if let Some(wide) = wide {
                subtract(&mut held, wide);
            }
            return Err(Error::ShareUsed);
        }
        self.taken.set(self.taken.get() + 1);
        if is_stranger {
            self.strangers.set(self.strangers.get() + 1);
        }
        Ok(Place { shares: Rc::clone(self), holder, wide, is_stranger })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.shares.held.borrow_mut();
        subtract(&mut held, self.holder);
        if let Some(wide) = self.wide {
            subtract(&mut held, wide);
        }
        self.shares.taken.set(self.shares.taken.get() - 1);
        if self.is_stranger {
            self.shares.strangers.set(self.shares.strangers.get() - 1);
        }
    }
}

type Held = HashMap<u64, usize, BuildHasherDefault<Hashed>>;

/// Counts a place, unless there are `most` already.
fn try_add(held: &mut Held, key: u64, most: usize) -> bool {
    let count = held.entry(key).or_default();
    // A new entry has no place, so it never stays behind here.
    if *count >= most {
        return false;
    }
    *count += 1;
    true
}

fn subtract(held: &mut Held, key: u64) {
    if let Entry::Occupied(mut entry) = held.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(letter: char) -> Did {
        format!("did:plc:{}", letter.to_string().repeat(24)).parse().unwrap()
    }

    fn stranger(address: &str) -> Holder<'static> {
        Holder::Stranger(ClientNetwork::of(address.parse().unwrap()))
    }

    #[test]
    fn no_client_holds_more_than_an_eighth() {
        let shares = Shares::of(16);
        let (alice, bob) = (did('a'), did('b'));
        let mut places: Vec<_> = (0..2).map(|_| shares.take(Holder::Account(&alice)).unwrap()).collect();
        assert!(matches!(shares.take(Holder::Account(&alice)), Err(Error::ShareUsed)));
        assert!(shares.take(Holder::Account(&bob)).is_ok(), "another account");
        places.push(shares.take(stranger("2001:db8::1")).unwrap());
        places.push(shares.take(stranger("2001:db8::2")).unwrap());
        let entries = shares.held.borrow().len();
        assert!(matches!(shares.take(stranger("2001:db8::3")), Err(Error::ShareUsed)), "the same /64");
        assert_eq!(shares.held.borrow().len(), entries, "a refusal leaves nothing behind");
        assert!(shares.take(stranger("192.0.2.1")).is_ok());
        drop(places);
        assert!(shares.held.borrow().is_empty(), "no entry outlives its places");
        assert!(shares.take(Holder::Account(&alice)).is_ok(), "the places came back");
    }

    #[test]
    fn strangers_leave_a_quarter_to_accounts() {
        let shares = Shares::of(16);
        let strangers: Vec<_> =
            (0..20).filter_map(|index| shares.take(stranger(&format!("192.0.2.{index}"))).ok()).collect();
        assert_eq!(strangers.len(), 12);
        assert!(matches!(shares.take(stranger("192.0.2.99")), Err(Error::Crowded)));
        let accounts: Vec<_> = ('a'..='d').map(did).collect();
        let places: Vec<_> = accounts.iter().map(|did| shares.take(Holder::Account(did)).unwrap()).collect();
        assert_eq!(places.len(), 4);
        drop(strangers);
        assert_eq!(shares.strangers.get(), 0);
    }

    /// One person with an IPv6 /48 and several accounts.
    #[test]
    fn one_person_holds_not_all_places() {
        let shares = Shares::of(64);
        let mut places = Vec::new();
        let fill = |holder: Holder<'_>| (0..64).map_while(|_| shares.take(holder).ok()).collect::<Vec<_>>();
        for subnet in 0..100 {
            places.extend(fill(stranger(&format!("2001:db8:0:{subnet:x}::1"))));
        }
        assert_eq!(places.len(), 16, "a quarter for all of the /48");
        assert_eq!(fill(stranger("2001:db8:1::1")).len(), 8, "another network has its own");
        for account in 'a'..='f' {
            places.extend(fill(Holder::Account(&did(account))));
        }
        assert_eq!(places.len(), 16 + 5 * 8 + 1, "the last eighth is left, but for one place");
        assert!(shares.take(Holder::Account(&did('a'))).is_err());
        assert!(shares.take(Holder::Account(&did('z'))).is_ok());
        assert!(shares.take(stranger("192.0.2.1")).is_ok());
        drop(places);
        assert!(shares.held.borrow().is_empty() && shares.taken.get() == 0, "all came back");
    }

    #[test]
    fn strangers_leave_one_of_few_places() {
        for (places, strangers) in [(1, 1), (2, 1), (3, 2), (5, 3)] {
            let shares = Shares::of(places);
            let held: Vec<_> =
                (0..9).filter_map(|index| shares.take(stranger(&format!("192.0.2.{index}"))).ok()).collect();
            assert_eq!(held.len(), strangers, "{places}");
        }
    }

    #[test]
    fn a_server_with_few_places_has_one_for_each() {
        let shares = Shares::of(2);
        let (alice, bob) = (did('a'), did('b'));
        let _place = shares.take(Holder::Account(&alice)).unwrap();
        assert!(shares.take(Holder::Account(&alice)).is_err());
        assert!(shares.take(Holder::Account(&bob)).is_ok());
    }
}
