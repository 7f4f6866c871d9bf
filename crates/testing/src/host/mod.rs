//! A PDS in entryway mode. Its checks, statuses and error names are those of the published PDS.
//!
//! It starts as a stand-alone server that makes no accounts, and is configured as its operator
//! would do it: by the `PDS_*` variables ([`FakeHost::configure`]). The names of requests in its
//! journal are NSIDs, `_health` for the health check, and paths for everything outside `/xrpc/`.

mod accounts;
mod admin;
mod answer;
mod create_account;
mod entryway;
mod oauth;
mod repo;
mod settings;
mod sync;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::plc;
use genkan_protocol::syntax::{Did, Handle};

use crate::FakeDirectory;
use crate::loopback::{Handler, Loopback, locked};

pub use accounts::Account;
pub use repo::pattern;

use accounts::Accounts;
use settings::Settings;

/// A PDS behind an entryway.
#[derive(Debug)]
pub struct FakeHost {
    loopback: Loopback,
    pds: Arc<Pds>,
}

/// The state that the listener and the test share.
#[derive(Debug)]
struct Pds {
    settings: Mutex<Settings>,
    accounts: Mutex<Accounts>,
    /// Handles outside the service's domains, and the accounts that they lead to.
    names: Mutex<BTreeMap<Handle, Did>>,
    /// The time in milliseconds, if a test stops the clock.
    clock: Mutex<Option<Arc<AtomicI64>>>,
    /// The number of account creations that still fail after their operation is published.
    failing: AtomicUsize,
    /// The proofs that were used.
    proofs: Mutex<BTreeSet<String>>,
}

impl FakeHost {
    /// Starts a host with no entryway. `admin_password` is its administrator's password.
    pub async fn start(admin_password: &str) -> Self {
        let pds = Arc::new(Pds {
            settings: Mutex::new(Settings::new(admin_password)),
            accounts: Mutex::default(),
            names: Mutex::default(),
            clock: Mutex::default(),
            failing: AtomicUsize::new(0),
            proofs: Mutex::default(),
        });
        let kept = Arc::clone(&pds);
        let loopback = Loopback::start(answer::name_of, |address| {
            // The port is known only now, and the host's own URL and DID depend on it.
            locked(&kept.settings).listens_at(address.port());
            let handler: Handler = Arc::new(move |asked| {
                let pds = Arc::clone(&kept);
                Box::pin(async move { pds.answer(asked).await })
            });
            handler
        })
        .await;
        Self { loopback, pds }
    }

    /// Takes the variables that the operator would set, in lines of `NAME=value`. Variables other
    /// than `PDS_*` are ignored.
    ///
    /// # Panics
    ///
    /// If a variable cannot be used. The server would then fail to start.
    pub fn configure(&self, lines: &str) {
        locked(&self.pds.settings).read(lines);
    }

    /// Returns the host's public URL.
    pub fn url(&self) -> String {
        self.pds.settings().public_url
    }

    /// Returns the host's own DID.
    pub fn did(&self) -> String {
        self.pds.settings().service_did
    }

    /// Returns the administrator's password.
    pub fn admin_password(&self) -> String {
        self.pds.settings().admin_password
    }

    /// Makes the host use this clock (milliseconds since the epoch) from now on.
    pub fn set_clock(&self, clock: Arc<AtomicI64>) {
        *locked(&self.pds.clock) = Some(clock);
    }

    /// Makes the next account creations fail after their operation was published, as with a full
    /// disk.
    pub fn fail_after_publishing(&self, times: usize) {
        self.pds.failing.store(times, Ordering::SeqCst);
    }

    /// Makes a handle outside the service's domains lead to an account.
    pub fn know_name(&self, handle: &Handle, did: &Did) {
        locked(&self.pds.names).insert(handle.clone(), did.clone());
    }

    /// Creates an account here and enters it at the directory, with one key for signatures and
    /// rotation.
    ///
    /// # Panics
    ///
    /// If the directory does not take it.
    pub fn make_account(&self, directory: &FakeDirectory, handle: &str, key: &K256PrivateKey) -> Did {
        let handle: Handle = handle.parse().unwrap();
        let keys = vec![key.public().to_did_key()];
        let data = plc::Data::of_account(keys, &key.public(), &handle, &self.url());
        let (did, genesis) = plc::genesis(data, key);
        directory.submit(&did, &genesis).unwrap();
        locked(&self.pds.accounts).add(Account::new(did.clone(), handle, key.clone()));
        did
    }

    /// Returns an account.
    pub fn account(&self, did: &Did) -> Option<Account> {
        locked(&self.pds.accounts).find(did).cloned()
    }

    /// Returns every account.
    pub fn accounts(&self) -> Vec<Account> {
        locked(&self.pds.accounts).all().cloned().collect()
    }

    /// Returns the key that signs for an account.
    pub fn account_key(&self, did: &Did) -> Option<K256PrivateKey> {
        self.account(did).map(|account| account.key)
    }

    /// Removes an account, as if it had moved to another host.
    pub fn lose(&self, did: &Did) {
        locked(&self.pds.accounts).remove(did);
    }

    /// Takes an account down without a call to the entryway, as a moderator at the host can.
    pub fn take_down(&self, did: &Did) {
        locked(&self.pds.accounts).change(did, |account| account.taken_down = true);
    }

    /// Gives an account a blob of `size` bytes of [`pattern`], and returns its CID.
    pub fn put_blob(&self, did: &Did, size: u64) -> String {
        let cid = format!("pattern-{size}");
        locked(&self.pds.accounts)
            .change(did, |account| drop(account.blobs.insert(cid.clone(), repo::Blob::of_pattern(size))));
        cid
    }

    /// Gives an account a repository file of `size` bytes of [`pattern`].
    pub fn set_repo_size(&self, did: &Did, size: u64) {
        locked(&self.pds.accounts).change(did, |account| account.repo_size = size);
    }
}

impl Deref for FakeHost {
    type Target = Loopback;

    fn deref(&self) -> &Loopback {
        &self.loopback
    }
}

impl Pds {
    /// Returns whether this account creation is one that must fail.
    fn trips(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    fn settings(&self) -> Settings {
        locked(&self.settings).clone()
    }

    /// Returns the seconds since the epoch.
    fn now(&self) -> i64 {
        match locked(&self.clock).as_ref() {
            Some(clock) => clock.load(Ordering::SeqCst) / 1000,
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests;
